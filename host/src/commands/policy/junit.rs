//! A report of test cases in JUnit's XML, which CI systems read.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use conclave_policy_test::{CaseReport, Report, SuiteReport};

/// The whole document.
pub(super) fn document(report: &Report) -> String {
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let (passed, failed) = report.count();
    let time = seconds(report.cases());
    // Writing into text does not fail, here and below.
    let _ = writeln!(
        out,
        "<testsuites name=\"conclave policy test\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" \
         time=\"{time}\">",
        passed + failed
    );
    report.suites.iter().for_each(|one| suite(&mut out, one));
    out.push_str("</testsuites>\n");
    out
}

/// The time that cases took in the sandbox.
fn seconds<'a>(cases: impl IntoIterator<Item = &'a CaseReport>) -> String {
    let time: Duration = cases.into_iter().map(|case| case.elapsed).sum();
    format!("{:.6}", time.as_secs_f64())
}

fn suite(out: &mut String, suite: &SuiteReport) {
    let failed = suite.cases.iter().filter(|case| !case.passed).count();
    let _ = writeln!(
        out,
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" time=\"{}\">\n    \
         <properties>\n      \
         <property name=\"policy\" value=\"{}\"/>\n      \
         <property name=\"digest\" value=\"{}\"/>\n    \
         </properties>",
        Escaped(&suite.file),
        suite.cases.len(),
        seconds(&suite.cases),
        Escaped(&suite.policy),
        Escaped(&suite.digest),
    );
    for case in &suite.cases {
        self::case(out, case, suite);
    }
    out.push_str("  </testsuite>\n");
}

fn case(out: &mut String, case: &CaseReport, suite: &SuiteReport) {
    let line = case.at.map(|at| format!(" line=\"{}\"", at.line)).unwrap_or_default();
    let _ = writeln!(
        out,
        "    <testcase name=\"{}\" classname=\"{}\" file=\"{}\"{line} time=\"{}\">",
        Escaped(&case.name),
        Escaped(&suite.policy),
        Escaped(&suite.file),
        seconds([case]),
    );
    if let Some(failure) = case.failures.first() {
        let _ = writeln!(
            out,
            "      <failure message=\"{}\">{}</failure>",
            Escaped(&failure.what),
            Escaped(&case.explanation(&suite.file)),
        );
    }
    let _ = writeln!(out, "      <system-out>fuel: {}</system-out>\n    </testcase>", case.fuel);
}

/// Text as it may stand in XML. Characters that XML has no way to say become blanks.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\n' => f.write_char(c)?,
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_say_is_escaped_or_left_out() {
        let text = Escaped("a<b> & \"c\"\u{1b}\u{ffff}\né").to_string();
        assert_eq!(text, "a&lt;b&gt; &amp; &quot;c&quot;  \né");
    }
}
