//! What came of a bench, in words: a table of figures, a table of targets.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::figures::{COUNTED, Figure, PACE, PACED, Row};
use super::stats::{self, Estimate};
use super::targets::{self, FLOOR, Grade, Verdict};

/// All values of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub machine: BTreeMap<String, String>,
    pub rounds: usize,
    /// How long the run took.
    pub minutes: f64,
    /// The share of the machine that was in use before each row of each round: by what is no part of the measurement.
    pub busy: Vec<f64>,
    /// In the order they are shown in.
    pub rows: Vec<(String, Row)>,
}

impl Report {
    pub fn new(rounds: usize, machine: BTreeMap<String, String>) -> Self {
        Self { machine, rounds, ..Self::default() }
    }

    /// The row of that title, new where there is none.
    pub fn row(&mut self, title: &str) -> &mut Row {
        let at = self.rows.iter().position(|(name, _)| name == title).unwrap_or_else(|| {
            self.rows.push((title.to_owned(), Row::default()));
            self.rows.len() - 1
        });
        &mut self.rows[at].1
    }

    fn find(&self, title: &str) -> Option<&Row> {
        self.rows.iter().find(|(name, _)| name == title).map(|(_, row)| row)
    }

    /// Every target both of whose rows were measured.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let judge = |target: targets::Target| targets::judge(target, self.find(target.row)?, self.find(target.to)?);
        targets::all().into_iter().filter_map(judge).collect()
    }

    /// The figures that were measured at all.
    pub fn figures(&self) -> Vec<Figure> {
        let any = |figure: &Figure| self.rows.iter().any(|(_, row)| !row.values(*figure).is_empty());
        Figure::ALL.into_iter().filter(any).collect()
    }

    /// No row without figures, none below its floor.
    pub fn good(&self) -> bool {
        self.rows.iter().all(|(_, row)| !row.figures.is_empty())
            && self.verdicts().iter().all(|verdict| verdict.grade != Grade::Failed)
            && self.rows.iter().filter_map(|(_, row)| targets::upgrades(row)).all(|(_, grade)| grade != Grade::Failed)
    }
}

impl Row {
    /// A round's values on one line, for who watches.
    pub fn line(&self, round: usize) -> String {
        let value = |figure: &Figure| {
            let value = (*self.figures.get(figure)?.get(round)?)?;
            Some(format!("{figure:?} {}", number(value)).to_lowercase())
        };
        let values: Vec<_> = Figure::ALL.iter().filter_map(value).collect();
        if values.is_empty() { self.notes.last().cloned().unwrap_or_default() } else { values.join("  ") }
    }
}

/// Four significant digits, thousands set off.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or(grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

fn cell(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(|| "–".to_owned(), |e| format!("{} ({}–{})", number(e.median), number(e.low), number(e.high)))
}

/// The whole run as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let machine: Vec<_> = report.machine.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let _ = writeln!(text, "{}.\n", machine.join("; "));
    let _ = writeln!(
        text,
        "{} rounds, {:.0} minutes. Medians, in brackets their 95 % intervals (percentile bootstrap over rounds). \
         Transfers: 512 MiB in all, 10⁶ bytes are a MB; CPU: seconds of the forwarder's own processes per 10⁹ bytes of \
         these. Requests: closed loop on kept connections. New connections: one request each, then the client closes. p50 to \
         p99.9: {PACE} requests a second on {PACED} kept connections (open loop, from when each was due). Memory: \
         resident, with so many idle connections after one request each.\n",
        report.rounds, report.minutes
    );
    if let Some(busy) = stats::median(&report.busy) {
        let most = report.busy.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "In use by other things just before a row was measured: {:.0} % of the machine (median), {:.0} % at most.\n",
            busy * 100.0,
            most * 100.0
        );
    }
    figures(report, &mut text);
    notes(report, &mut text);
    verdicts(report, &mut text);
    text
}

fn figures(report: &Report, text: &mut String) {
    let names: Vec<_> = report.rows.iter().map(|(name, _)| name.as_str()).collect();
    let _ = writeln!(text, "| | | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|---|{}", "---:|".repeat(names.len()));
    for figure in report.figures() {
        let cells = report.rows.iter().map(|(_, row)| cell(stats::estimate(&row.values(figure))));
        let _ =
            writeln!(text, "| {} | {} | {} |", figure.title(), figure.unit(), cells.collect::<Vec<_>>().join(" | "));
    }
}

fn notes(report: &Report, text: &mut String) {
    for (name, row) in &report.rows {
        if row.rounds() > report.rounds {
            let _ = writeln!(text, "\n{name}: {} rounds.", row.rounds());
        }
        if row.failed > 0 {
            let _ = writeln!(text, "\n{name}: {} requests or connections failed.", row.failed);
        }
        for note in &row.notes {
            let _ = writeln!(text, "\n{name}: {}", note.replace('\n', " "));
        }
    }
}

fn verdicts(report: &Report, text: &mut String) {
    let verdicts = report.verdicts();
    if verdicts.is_empty() {
        return;
    }
    let count = |grade| verdicts.iter().filter(|verdict| verdict.grade == grade).count();
    let _ = writeln!(
        text,
        "\nTargets: {} met, {} below, {} below the floor ({FLOOR} of the target). Where less is better, the ratio is \
         the inverse one.\n",
        count(Grade::Met),
        count(Grade::Short),
        count(Grade::Failed)
    );
    let _ = writeln!(text, "| | beside | | ratio | target | |\n|---|---|---|---:|---:|---|");
    for Verdict { target, ratio, grade } in verdicts {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} ({:.2}–{:.2}) | {:.2} | {} |",
            target.row,
            target.to,
            target.figure.title(),
            ratio.median,
            ratio.low,
            ratio.high,
            target.factor,
            grade.words()
        );
    }
    for (name, row) in &report.rows {
        if let Some((count, grade)) = targets::upgrades(row) {
            let most = targets::UPGRADES;
            let _ = writeln!(
                text,
                "\n{name}: {COUNTED} connections over {count} upgrades, at most {most}: {}.",
                grade.words()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(direct: f64) -> Report {
        let mut report = Report::new(2, BTreeMap::from([("CPU".to_owned(), "2 × x".to_owned())]));
        for (title, value) in [("HAProxy", 700.0), ("direct", direct)] {
            report.row(title).put(Figure::Down1, 0, value);
            report.row(title).put(Figure::Down1, 1, value + 10.0);
        }
        report
    }

    #[test]
    fn a_report_says_figures_and_verdicts() {
        let report = sample(1400.0);
        let text = markdown(&report);
        assert!(text.contains("| download, 1 | MB/s | 705 (700–710) | 1,405 (1,400–1,410) |"), "{text}");
        assert!(text.contains("| direct | HAProxy | download, 1 | 1.99 "), "{text}");
        assert!(text.contains("1 met, 0 below, 0 below the floor") && report.good(), "{text}");
    }

    #[test]
    fn a_figure_below_its_floor_and_a_row_without_figures_fail() {
        assert!(!sample(700.0).good());
        assert!(sample(780.0).good());
        let mut report = sample(1400.0);
        report.row("kernel (iptables)").note("it\ndid not start".into());
        assert!(!report.good());
        assert!(markdown(&report).contains("kernel (iptables): it did not start"));
    }

    #[test]
    fn numbers_have_about_four_digits() {
        let shown: Vec<_> = [12_345.6, 1234.5, 345.67, 12.34, 0.456, -1234.0].iter().map(|n| number(*n)).collect();
        assert_eq!(shown, ["12,346", "1,234", "346", "12.3", "0.46", "-1,234"]);
    }
}
