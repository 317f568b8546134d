//! What a person sees while work goes on: a bar on a terminal, plain lines otherwise.
//!
//! Progress goes to standard error, facts to standard output; with `--json` there is no progress at all, so that programs need
//! not filter it.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ui {
    /// Bars.
    Terminal,
    /// Lines.
    Lines,
    /// Nothing but errors.
    Silent,
}

/// Between two lines of the same work.
const LINE_EVERY: Duration = Duration::from_secs(2);

impl Ui {
    /// By where standard error goes.
    #[must_use]
    pub fn new(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Silent,
            (false, true) => Self::Terminal,
            (false, false) => Self::Lines,
        }
    }

    /// A line about what was done or found.
    pub fn say(self, text: impl std::fmt::Display) {
        if self != Self::Silent {
            // A closed standard error is no reason to stop a backup.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Work that is measured in bytes.
    #[must_use]
    pub fn bytes(self, what: &'static str, total: u64) -> Progress {
        let style = ProgressStyle::with_template("{msg:16} [{bar:32}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}");
        self.progress(what, Some(total), style)
    }

    /// Work whose end is not known; its text says how it stands.
    #[must_use]
    pub fn waiting(self, what: &'static str) -> Progress {
        self.progress(what, None, ProgressStyle::with_template("{spinner} {msg}"))
    }

    fn progress(
        self,
        what: &'static str,
        total: Option<u64>,
        style: Result<ProgressStyle, indicatif::style::TemplateError>,
    ) -> Progress {
        let target = if self == Self::Terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target).with_message(what);
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar, ui: self, what, said: Mutex::new(None) }
    }
}

/// One piece of work that goes on.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    ui: Ui,
    what: &'static str,
    said: Mutex<Option<Instant>>,
}

impl Progress {
    /// So many bytes are done; work without a known end only shows that it goes on.
    pub fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
        if let Some(total) = self.bar.length() {
            self.line(false, || format!("{}: {} of {}", self.what, human(bytes), human(total)));
        }
    }

    /// How it stands. `now` says it at once even where lines are few.
    pub fn text(&self, now: bool, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.tick();
        self.line(now, || text.to_owned());
    }

    /// The bar goes away.
    pub fn done(self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, now: bool, text: impl FnOnce() -> String) {
        if self.ui != Ui::Lines {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now || said.is_none_or(|said| said.elapsed() >= LINE_EVERY) {
            *said = Some(Instant::now());
            self.ui.say(text());
        }
    }
}

/// Bytes as people read them.
#[must_use]
pub fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
