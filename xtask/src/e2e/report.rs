//! What a run of a suite saw, for the page of a job: JUnit's XML, and Markdown.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::among::{Played, Stop};

/// Where it is written.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Files {
    /// Write what each test did there, as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Append a summary in Markdown there
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

/// Writes what was asked for. A suite that could not be played is written as well.
pub fn write(files: &Files, stops: &[Stop]) -> Result<()> {
    let suites: Vec<_> = stops.iter().map(|stop| (stop.title.as_str(), cases(&stop.played))).collect();
    if let Some(path) = &files.junit {
        std::fs::write(path, junit(&suites)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &files.summary {
        let text: String = suites.iter().map(|(title, cases)| summary(title, cases)).collect();
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// How a test ended.
#[derive(Debug, PartialEq)]
enum End {
    Passed,
    Failed(String),
    /// With the reason.
    NotPlayed(String),
}

pub struct Case {
    name: String,
    end: End,
    took: Duration,
}

/// The tests; and where what failed, or was not there, was none of them, a line for that.
pub fn cases(played: &Played) -> Vec<Case> {
    let whole = |end| Case { name: "the suite itself".to_owned(), end, took: Duration::ZERO };
    let outcome = match played {
        Played::NotThere(why) => return vec![whole(End::NotPlayed(why.clone()))],
        Played::Ended(Err(error)) => return vec![whole(End::Failed(format!("{error:#}")))],
        Played::Ended(Ok(outcome)) => outcome,
    };
    let case = |(name, how, took): &(String, String, Duration)| {
        let end = match how.as_str() {
            "ok" => End::Passed,
            "FAILED" => End::Failed("failed; the log says what was seen".to_owned()),
            // As cargo's tests and `Outcome::leave_out` say it.
            other => End::NotPlayed(other.trim_start_matches("left out: ").to_owned()),
        };
        Case { name: name.clone(), end, took: *took }
    };
    let mut cases: Vec<_> = outcome.tests.iter().map(case).collect();
    if !outcome.good() && outcome.failed().next().is_none() {
        cases.push(whole(End::Failed("it ended badly outside of its tests; the log says how".to_owned())));
    }
    cases
}

/// How many passed, failed and were not played.
fn counts(cases: &[Case]) -> (usize, usize, usize) {
    let count = |is: fn(&End) -> bool| cases.iter().filter(|case| is(&case.end)).count();
    let passed = count(|end| matches!(end, End::Passed));
    let failed = count(|end| matches!(end, End::Failed(_)));
    (passed, failed, cases.len() - passed - failed)
}

fn seconds(cases: &[Case]) -> f64 {
    cases.iter().map(|case| case.took.as_secs_f64()).sum()
}

/// How it went, in a line.
pub fn counted(cases: &[Case]) -> String {
    let (passed, failed, skipped) = counts(cases);
    format!("{passed} passed, {failed} failed, {skipped} not played, {:.0} s", seconds(cases))
}

fn junit(suites: &[(&str, Vec<Case>)]) -> String {
    let inner: String = suites.iter().map(|(title, cases)| junit_suite(title, cases)).collect();
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n{inner}</testsuites>\n")
}

fn junit_suite(title: &str, cases: &[Case]) -> String {
    let (title, seconds, (_, failed, skipped)) = (xml(title), seconds(cases), counts(cases));
    let mut text = format!(
        "  <testsuite name=\"{title}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.3}\">\n",
        cases.len()
    );
    for Case { name, end, took } in cases {
        let inner = match end {
            End::Passed => String::new(),
            End::Failed(why) => format!("<failure message=\"{}\"/>", xml(why)),
            End::NotPlayed(why) => format!("<skipped message=\"{}\"/>", xml(why)),
        };
        let (name, took) = (xml(name), took.as_secs_f64());
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "    <testcase classname=\"{title}\" name=\"{name}\" time=\"{took:.3}\">{inner}</testcase>");
    }
    text + "  </testsuite>\n"
}

/// As the value of an attribute (XML 1.0, 2.2 and 3.3.3): what XML cannot hold becomes U+FFFD.
fn xml(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            '\t' => safe.push_str("&#9;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            _ => safe.push(character),
        }
    }
    safe
}

fn summary(title: &str, cases: &[Case]) -> String {
    let mut text = format!("### {title}\n\n{}\n\n| | test | took |\n|---|---|---|\n", counted(cases));
    for Case { name, end, took } in cases {
        let (mark, words) = match end {
            End::Passed => ('✔', format!("{:.1} s", took.as_secs_f64())),
            End::Failed(why) => ('✘', why.clone()),
            End::NotPlayed(why) => ('–', why.clone()),
        };
        let _ = writeln!(text, "| {mark} | {} | {} |", cell(name), cell(&words));
    }
    text + "\n"
}

/// As one cell of a table.
fn cell(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('|', "\\|").replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::Provider;
    use crate::provider::native::plan::ProxyMode;
    use crate::suite::Outcome;

    fn outcome() -> Outcome {
        let mut outcome = Outcome::none();
        let test = |name: &str, how: &str, ms| (name.to_owned(), how.to_owned(), Duration::from_millis(ms));
        outcome.tests.push(test("s01_<a>", "ok", 1500));
        outcome.tests.push(test("s02_b|c", "FAILED", 20_000));
        outcome.tests.push(test("s03", "left out: it needs a \"kube-proxy\"", 0));
        outcome.tests.push(test("s04", "ignored", 0));
        outcome
    }

    #[test]
    fn junit_tells_good_bad_and_not_played() {
        let text = junit(&[("live suite & more", cases(&Played::Ended(Ok(outcome()))))]);
        let head = "name=\"live suite &amp; more\" tests=\"4\" failures=\"1\" errors=\"0\"";
        let class = "classname=\"live suite &amp; more\"";
        assert_eq!(
            text,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites>
  <testsuite {head} skipped=\"2\" time=\"21.500\">
    <testcase {class} name=\"s01_&lt;a&gt;\" time=\"1.500\"></testcase>
    <testcase {class} name=\"s02_b|c\" time=\"20.000\"><failure message=\"failed; the log says what was seen\"/></testcase>
    <testcase {class} name=\"s03\" time=\"0.000\"><skipped message=\"it needs a &quot;kube-proxy&quot;\"/></testcase>
    <testcase {class} name=\"s04\" time=\"0.000\"><skipped message=\"ignored\"/></testcase>
  </testsuite>
</testsuites>
"
            )
        );
    }

    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        assert_eq!(xml("a\nb\t\"<&>\" 한국어"), "a&#10;b&#9;&quot;&lt;&amp;&gt;&quot; 한국어");
        assert_eq!(xml("\u{1b}[31m\u{0}\r\u{ffff}"), "\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_summary_is_one_line_a_test() {
        let text = summary("live suite", &cases(&Played::Ended(Ok(outcome()))));
        assert_eq!(
            text,
            "### live suite\n\n1 passed, 1 failed, 2 not played, 22 s\n\n| | test | took |\n|---|---|---|\n\
             | ✔ | s01_&lt;a> | 1.5 s |\n| ✘ | s02_b\\|c | failed; the log says what was seen |\n\
             | – | s03 | it needs a \"kube-proxy\" |\n| – | s04 | ignored |\n\n"
        );
    }

    #[test]
    fn a_suite_that_was_not_played_is_a_failure() {
        let no_cluster = anyhow::anyhow!("no daemon\nanswers").context("cluster e2e cannot be made");
        let no_cluster = cases(&Played::Ended(Err(no_cluster)));
        assert_eq!(no_cluster[0].end, End::Failed("cluster e2e cannot be made: no daemon\nanswers".to_owned()));
        // cargo failed, though no test did.
        let crashed = cases(&Played::Ended(Ok(Outcome::default())));
        assert!(crashed.len() == 1 && counts(&crashed) == (0, 1, 0));
    }

    #[test]
    fn files_are_written_where_they_are_asked_for_and_summaries_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let (junit, summary) = (folder.path().join("a.xml"), folder.path().join("a.md"));
        let files = Files { junit: Some(junit.clone()), summary: Some(summary.clone()) };
        let stop = |title: &str| Stop {
            provider: Provider::Native,
            version: "v1.37.2".to_owned(),
            mode: ProxyMode::Iptables,
            title: title.to_owned(),
            played: Played::Ended(Ok(outcome())),
        };
        write(&files, &[stop("zeroth")]).unwrap();
        write(&files, &[stop("first"), stop("second")]).unwrap();
        let xml = std::fs::read_to_string(junit).unwrap();
        assert!(xml.contains("<testsuite name=\"first\"") && xml.contains("<testsuite name=\"second\""), "{xml}");
        assert!(!xml.contains("zeroth"), "{xml}");
        let text = std::fs::read_to_string(summary).unwrap();
        assert!(text.starts_with("### zeroth\n") && text.contains("\n### second\n"), "{text}");
        write(&Files::default(), &[stop("nothing")]).unwrap();
        let nowhere = Files { junit: Some(folder.path().join("no/a.xml")), summary: None };
        assert!(write(&nowhere, &[stop("x")]).unwrap_err().to_string().contains("no/a.xml"));
    }
}
