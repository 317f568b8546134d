//! `conformance-table`: the verdicts of several runs side by side, as a page of Markdown.
//!
//! Reads what `conformance --json` wrote, and judges nothing itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Deserialize;

#[derive(Debug, Args)]
pub struct TableArguments {
    /// A name for a run and the file of its verdicts (conformance --json); several files of one name are put together
    #[arg(required = true, value_name = "NAME=FILE")]
    runs: Vec<Run>,
}

/// `ours=ours.json`.
#[derive(Debug, Clone)]
struct Run {
    name: String,
    path: PathBuf,
}

impl FromStr for Run {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("write it as NAME=FILE")?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

/// A verdict as `conformance --json` writes it.
#[derive(Debug, Clone, Deserialize)]
struct Row {
    suite: String,
    name: String,
    clause: String,
    result: String,
    #[serde(default)]
    reason: Option<String>,
}

/// All verdicts of a name, by suite and case. Of several the worst that ran counts: a case is only skipped where no run had it.
type Verdicts = BTreeMap<(String, String), Row>;

pub fn table(arguments: TableArguments) -> anyhow::Result<()> {
    let mut names: Vec<String> = Vec::new();
    let mut by_name: BTreeMap<String, Verdicts> = BTreeMap::new();
    for run in arguments.runs {
        let text = std::fs::read(&run.path).with_context(|| format!("reading {}", run.path.display()))?;
        let rows: Vec<Row> = serde_json::from_slice(&text).with_context(|| run.path.display().to_string())?;
        if !names.contains(&run.name) {
            names.push(run.name.clone());
        }
        let verdicts = by_name.entry(run.name).or_default();
        for row in rows {
            let key = (row.suite.clone(), row.name.clone());
            if verdicts.get(&key).is_none_or(|before| weight(&row.result) > weight(&before.result)) {
                verdicts.insert(key, row);
            }
        }
    }
    ensure!(!by_name.is_empty(), "no verdicts");
    say!("{}", page(&names, &by_name));
    Ok(())
}

fn weight(result: &str) -> u8 {
    match result {
        "fail" => 2,
        "pass" => 1,
        _ => 0,
    }
}

fn page(names: &[String], by_name: &BTreeMap<String, Verdicts>) -> String {
    let mut text = String::from("| suite |");
    names.iter().for_each(|name| text.push_str(&format!(" {name}: pass | fail | skip |")));
    text.push_str(&format!("\n|---|{}\n", "--:|--:|--:|".repeat(names.len())));
    let mut suites: Vec<&str> = by_name.values().flatten().map(|(key, _)| key.0.as_str()).collect();
    suites.sort_unstable();
    suites.dedup();
    for suite in suites.iter().copied().map(Some).chain([None]) {
        text.push_str(&format!("| {} |", suite.unwrap_or("**all**")));
        for name in names {
            let of_suite = by_name[name].iter().filter(|(key, _)| suite.is_none_or(|suite| suite == key.0));
            let results: Vec<&str> = of_suite.map(|(_, row)| row.result.as_str()).collect();
            for wanted in ["pass", "fail", "skip"] {
                text.push_str(&format!(" {} |", results.iter().filter(|result| **result == wanted).count()));
            }
        }
        text.push('\n');
    }
    text.push_str("\n| case | clause |");
    names.iter().for_each(|name| text.push_str(&format!(" {name} |")));
    text.push_str(&format!("\n|---|---|{}\n", "---|".repeat(names.len())));
    let mut cases: BTreeMap<&(String, String), &str> = BTreeMap::new();
    cases.extend(by_name.values().flatten().map(|(key, row)| (key, row.clause.as_str())));
    for (key, clause) in cases {
        text.push_str(&format!("| {}/{} | {clause} |", key.0, key.1));
        names.iter().for_each(|name| text.push_str(&format!(" {} |", cell(by_name[name].get(key)))));
        text.push('\n');
    }
    text
}

/// The verdict, and of a failure its first line.
fn cell(row: Option<&Row>) -> String {
    /// Characters of a reason that a table has room for.
    const ROOM: usize = 110;
    let Some(row) = row else { return "not run".to_owned() };
    match (row.result.as_str(), &row.reason) {
        ("fail", Some(reason)) => {
            let line = reason.lines().next().unwrap_or_default().replace('|', "/");
            let short: String = line.chars().take(ROOM).collect();
            format!("**fail**: {short}{}", if short.len() < line.len() { " …" } else { "" })
        }
        (result, _) => result.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(suite: &str, name: &str, result: &str, reason: Option<&str>) -> ((String, String), Row) {
        let text = |text: &str| text.to_owned();
        let reason = reason.map(text);
        let row = Row { suite: text(suite), name: text(name), clause: text("SPC-4"), result: text(result), reason };
        ((text(suite), text(name)), row)
    }

    #[test]
    fn verdicts_stand_side_by_side_with_their_counts() {
        let ours = Verdicts::from([row("spc", "a", "pass", None), row("smc", "b", "skip", Some("no changer"))]);
        let theirs = Verdicts::from([row("spc", "a", "fail", Some("expected | this\nand more"))]);
        let names = ["ours".to_owned(), "theirs".to_owned()];
        let by_name = BTreeMap::from([(names[0].clone(), ours), (names[1].clone(), theirs)]);
        let page = page(&names, &by_name);
        for line in [
            "| suite | ours: pass | fail | skip | theirs: pass | fail | skip |",
            "| spc | 1 | 0 | 0 | 0 | 1 | 0 |",
            "| **all** | 1 | 0 | 1 | 0 | 1 | 0 |",
            "| spc/a | SPC-4 | pass | **fail**: expected / this |",
            "| smc/b | SPC-4 | skip | not run |",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
        }
    }
}
