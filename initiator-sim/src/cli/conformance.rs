//! `conformance`: the cases, their verdicts, and the exit status.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use offhost_sim::client::Options;
use offhost_sim::suite::{self, Bench, Devices, Suite, Verdict};
use offhost_sim::url::Url;

use super::print_json;

#[derive(Debug, Args)]
pub struct ConformanceArguments {
    /// The logical unit under test
    #[arg(required_unless_present = "list")]
    url: Option<Url>,
    /// A tape of the same target, for the ssc and xcopy suites
    #[arg(long, value_name = "URL")]
    tape: Option<Url>,
    /// A media changer of the same target, for the smc suite; its drive is the tape
    #[arg(long, value_name = "URL")]
    changer: Option<Url>,
    /// Only these suites; all when not given
    #[arg(long, value_enum, value_delimiter = ',')]
    suite: Vec<Suite>,
    /// Only cases whose suite/name contains this
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    filter: String,
    /// Yes, overwrite the data of the disk and of the tape
    #[arg(long)]
    destroy: bool,
    /// Write the verdicts to this file as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List the cases and run none
    #[arg(long)]
    list: bool,
}

pub async fn conformance(arguments: ConformanceArguments, options: Options) -> anyhow::Result<ExitCode> {
    let suites = if arguments.suite.is_empty() { Suite::value_variants().to_vec() } else { arguments.suite.clone() };
    if arguments.list {
        list(&suites, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let url = arguments.url.context("an address is needed")?;
    let devices =
        Devices { unit: url.clone(), tape: arguments.tape, changer: arguments.changer, destroy: arguments.destroy, options };
    let bench = Bench::probe(devices).await.with_context(|| format!("looking at {url}"))?;
    let reports = suite::run(&suites, &arguments.filter, &bench, |report| {
        if !arguments.json {
            // The cases go on though nobody reads: the exit status and --junit still tell.
            print(report).ok();
        }
    })
    .await;
    if let Some(path) = &arguments.junit {
        std::fs::write(path, suite::junit::document(&url.to_string(), &reports))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if arguments.json {
        print_json(&reports)?;
    } else {
        let count = |wanted: fn(&Verdict) -> bool| reports.iter().filter(|report| wanted(&report.verdict)).count();
        let passed = count(|verdict| *verdict == Verdict::Pass);
        let failed = count(|verdict| matches!(verdict, Verdict::Fail(_)));
        let skipped = count(|verdict| matches!(verdict, Verdict::Skip(_)));
        say!("{passed} passed, {failed} failed, {skipped} skipped");
    }
    Ok(ExitCode::from(suite::exit_status(&reports)))
}

fn print(report: &suite::CaseReport) -> anyhow::Result<()> {
    let name = format!("{}/{}", report.suite.name(), report.name);
    match &report.verdict {
        Verdict::Pass => say!("pass  {name}"),
        Verdict::Fail(reason) => {
            say!("FAIL  {name}  [{}]", report.clause);
            for line in reason.lines() {
                say!("      {line}");
            }
        }
        Verdict::Skip(reason) => say!("skip  {name}: {reason}"),
    }
    Ok(())
}

fn list(suites: &[Suite], json: bool) -> anyhow::Result<()> {
    #[derive(serde::Serialize)]
    struct Row {
        suite: Suite,
        name: &'static str,
        clause: &'static str,
        needs: suite::Needs,
    }
    let rows: Vec<Row> = suites
        .iter()
        .flat_map(|suite| suite.cases().iter().copied().flatten().map(move |case| (*suite, case)))
        .map(|(suite, case)| Row { suite, name: case.name, clause: case.clause, needs: case.needs })
        .collect();
    if json {
        return print_json(&rows);
    }
    for row in rows {
        say!("{}/{}\t{}\tneeds {}", row.suite.name(), row.name, row.clause, row.needs.text());
    }
    Ok(())
}
