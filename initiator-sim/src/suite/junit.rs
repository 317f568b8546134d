//! Reports as JUnit XML, the form that CI servers read.

use std::fmt::Write as _;

use super::{CaseReport, Verdict};
use crate::report::xml_escape;

/// One `testsuites` document; each case is a `testcase` whose class is the suite.
#[must_use]
pub fn document(target: &str, reports: &[CaseReport]) -> String {
    let failures = reports.iter().filter(|report| matches!(report.verdict, Verdict::Fail(_))).count();
    let skipped = reports.iter().filter(|report| matches!(report.verdict, Verdict::Skip(_))).count();
    let seconds: f64 = reports.iter().map(|report| report.seconds).sum();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        xml,
        "  <testsuite name=\"offhost-sim conformance {}\" tests=\"{}\" failures=\"{failures}\" skipped=\"{skipped}\" time=\"{seconds:.3}\">",
        xml_escape(target),
        reports.len(),
    );
    for report in reports {
        let (suite, name, time) = (report.suite.name(), report.name, report.seconds);
        let _ = write!(xml, "    <testcase classname=\"{suite}\" name=\"{name}\" time=\"{time:.3}\"");
        match &report.verdict {
            Verdict::Pass => xml.push_str("/>\n"),
            Verdict::Fail(reason) => {
                let clause = xml_escape(report.clause);
                let _ = writeln!(xml, "><failure message=\"{clause}\">{}</failure></testcase>", xml_escape(reason));
            }
            Verdict::Skip(reason) => {
                let _ = writeln!(xml, "><skipped message=\"{}\"/></testcase>", xml_escape(reason));
            }
        }
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    #[test]
    fn counts_and_reasons_are_in_the_document() {
        let report = |name, verdict| CaseReport { suite: Suite::Sbc, name, clause: "SBC-4", verdict, seconds: 0.5 };
        let xml = document(
            "t",
            &[
                report("a", Verdict::Pass),
                report("b", Verdict::Fail("1 < 2".into())),
                report("c", Verdict::Skip("no \"tape\"".into())),
            ],
        );
        assert!(xml.contains("tests=\"3\" failures=\"1\" skipped=\"1\" time=\"1.500\""), "{xml}");
        assert!(xml.contains("<failure message=\"SBC-4\">1 &lt; 2</failure>"), "{xml}");
        assert!(xml.contains("<skipped message=\"no &quot;tape&quot;\"/>"), "{xml}");
    }
}
