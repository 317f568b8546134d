//! Mode pages that MODE SELECT saved: what holds after a power loss, instead of the defaults.
//!
//! There is one set for all nexuses. Only the bits that can be changed are taken from what was saved, so that pages of a later version
//! keep what is theirs. A logical unit without a place to keep them saves nothing, and says so. Follows SPC-4, "MODE SELECT(6)
//! command" on SP, and "Saved values".

use std::io;
use std::sync::{Mutex, MutexGuard};

use protocol::scsi::Sense;
use protocol::scsi::mode::{ModePage, ModeSelection, SelectedPage};
use serde::{Deserialize, Serialize};

use super::{Kept, LogicalUnit};

/// The saved pages of a logical unit.
#[derive(Debug, Default)]
pub struct SavedModes {
    pages: Mutex<Vec<SavedPage>>,
    kept: Option<Kept>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedPage {
    code: u8,
    subpage: u8,
    body: Vec<u8>,
}

impl SavedModes {
    /// Keeps them in a file, and takes up what is there.
    ///
    /// # Errors
    /// As [`Kept::load`].
    pub(super) fn keep_in(&mut self, kept: Kept) -> io::Result<()> {
        *self.pages() = kept.load()?.unwrap_or_default();
        self.kept = Some(kept);
        Ok(())
    }

    /// True where pages can be saved.
    pub(super) const fn is_served(&self) -> bool {
        self.kept.is_some()
    }

    /// Blocks. Saves the current values of those of `pages` that can be saved; durable when this returns.
    ///
    /// # Errors
    /// As [`Kept::save`]. Then what was saved before still is.
    pub(super) fn save(&self, pages: &[ModePage]) -> io::Result<()> {
        let Some(kept) = &self.kept else { return Err(io::ErrorKind::Unsupported.into()) };
        let save = |page: &ModePage| SavedPage { code: page.code, subpage: page.subpage, body: page.current.clone() };
        let new: Vec<_> = pages.iter().filter(|page| page.savable).map(save).collect();
        let mut saved = self.pages();
        kept.save(&new)?;
        *saved = new;
        Ok(())
    }

    /// The saved values of a page; its default values where none were saved.
    pub(super) fn values(&self, page: &ModePage) -> Vec<u8> {
        let saved = self.pages();
        let same =
            |saved: &&SavedPage| (saved.code, saved.subpage, saved.body.len()) == (page.code, page.subpage, page.default.len());
        let Some(saved) = saved.iter().find(same).filter(|_| page.savable) else { return page.default.clone() };
        let bytes = saved.body.iter().zip(&page.default).zip(&page.changeable);
        bytes.map(|((saved, default), changeable)| saved & changeable | default & !changeable).collect()
    }

    fn pages(&self) -> MutexGuard<'_, Vec<SavedPage>> {
        self.pages.lock().expect("no holder panics")
    }
}

/// Makes the saved values of a logical unit its current ones, as power on does.
///
/// # Errors
/// What the device type says to a MODE SELECT with these values: of an earlier version, that had others.
pub fn restore_modes<D: LogicalUnit>(device: &D) -> Result<(), Sense> {
    let saved = &device.common().saved_modes;
    let header = device.mode_header(false);
    let pages = device.mode_pages().into_iter().filter(|page| page.savable);
    let selected =
        pages.map(|page| SelectedPage { code: page.code, subpage: page.subpage, body: saved.values(&page), body_at: 0 });
    device.select_mode(&ModeSelection {
        medium_type: header.medium_type,
        device_specific: header.device_specific,
        device_specific_at: 0,
        block_descriptor: None,
        pages: selected.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> ModePage {
        ModePage {
            code: 8,
            subpage: 0,
            current: vec![0x05, 0x01],
            default: vec![0x01, 0x80],
            changeable: vec![0x04, 0],
            savable: true,
        }
    }

    #[test]
    fn changeable_bits_come_back_and_all_others_are_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let kept = || Kept::new(folder.path().join("a.modes.json"));
        let mut saved = SavedModes::default();
        assert!(saved.save(&[page()]).is_err() && !saved.is_served());
        saved.keep_in(kept()).unwrap();
        assert_eq!(saved.values(&page()), page().default);
        saved.save(&[page(), ModePage { code: 9, savable: false, ..page() }]).unwrap();
        let mut later = SavedModes::default();
        later.keep_in(kept()).unwrap();
        assert_eq!(later.values(&page()), [0x05, 0x80]);
        assert_eq!(later.values(&ModePage { code: 9, ..page() }), page().default, "it was not one to be saved");
        let longer = ModePage { default: vec![1, 2, 3], changeable: vec![0xFF; 3], ..page() };
        assert_eq!(later.values(&longer), longer.default, "a page of another version");
    }
}
