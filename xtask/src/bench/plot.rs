//! The figures as a drawing: a panel a figure, a bar a row, its interval as a line. SVG 1.1, written by hand: a crate
//! for it would take longer to compile than all the rest of this program.

use std::fmt::Write;

use super::figures::Figure;
use super::report::{Report, number};
use super::stats::{self, Estimate};

const COLUMNS: usize = 4;
const PANEL: (f64, f64) = (300.0, 30.0);
const BAR: f64 = 18.0;
/// Where bars begin and how long the longest is.
const LEFT: f64 = 10.0;
const LONGEST: f64 = 200.0;
/// By kind of row: what is there already grey, ours coloured.
const COLOURS: [(&str, &str); 6] = [
    ("NodePort", "#8c8c8c"),
    ("HAProxy", "#b3a369"),
    ("kubectl", "#7fa3c7"),
    ("kernel", "#2a9d5c"),
    ("direct", "#e07b39"),
    ("tunnel", "#2f6db3"),
];

/// Draws a report.
pub fn draw(report: &Report) -> String {
    let figures = report.figures();
    let height = PANEL.1 + BAR * report.rows.len() as f64 + 12.0;
    let (across, down) = (COLUMNS as f64 * PANEL.0, figures.len().div_ceil(COLUMNS) as f64 * height + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {across} {down}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{across}\" height=\"{down}\" fill=\"#ffffff\"/>\n"
    );
    for (at, figure) in figures.into_iter().enumerate() {
        let (x, y) = ((at % COLUMNS) as f64 * PANEL.0, (at / COLUMNS) as f64 * height);
        panel(report, figure, x, y, &mut svg);
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#666666\">Medians of {} rounds with 95 % intervals; ▲ more is better, ▼ less \
         is better</text>\n</svg>",
        down - 8.0,
        report.rounds
    );
    svg
}

fn panel(report: &Report, figure: Figure, x: f64, y: f64, svg: &mut String) {
    let seen: Vec<(&str, Option<Estimate>)> =
        report.rows.iter().map(|(name, row)| (name.as_str(), stats::estimate(&row.values(figure)))).collect();
    let most = seen.iter().filter_map(|(_, seen)| *seen).map(|seen| seen.high).fold(f64::MIN_POSITIVE, f64::max);
    let arrow = if figure.more_is_better() { '▲' } else { '▼' };
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" font-weight=\"bold\">{arrow} {} ({})</text>",
        x + LEFT,
        y + 20.0,
        figure.title(),
        figure.unit()
    );
    for (at, (name, seen)) in seen.into_iter().enumerate() {
        let top = y + PANEL.1 + at as f64 * BAR;
        let start = x + LEFT;
        let length = |value: f64| (value / most * LONGEST).max(1.0);
        let label = match seen {
            Some(seen) => {
                let colour = COLOURS.iter().find(|(kind, _)| name.starts_with(kind)).map_or("#444444", |(_, c)| c);
                let (width, height, middle) = (length(seen.median), BAR - 4.0, top + BAR / 2.0);
                let (low, high) = (start + length(seen.low), start + length(seen.high));
                let _ = writeln!(
                    svg,
                    "<rect x=\"{start:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                     fill=\"{colour}\" fill-opacity=\"0.6\"/>\
                     <line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#000000\"/>",
                );
                format!("{name}: {}", number(seen.median))
            }
            None => format!("{name}: –"),
        };
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{label}</text>", start + 3.0, top + 12.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measured_figure_has_a_panel_and_every_row_a_bar() {
        let mut report = Report::default();
        for (title, value) in [("NodePort (iptables)", 1500.0), ("direct", 750.0)] {
            report.row(title).put(Figure::Up8, 0, value);
            report.row(title).put(Figure::P99, 0, 100.0);
        }
        report.row("tunnel").note("did not start".into());
        let svg = draw(&report);
        assert_eq!(svg.matches("font-weight=\"bold\"").count(), 2);
        assert_eq!(svg.matches("<line").count(), 4);
        assert!(svg.contains("width=\"200.0\"") && svg.contains("width=\"100.0\""), "{svg}");
        assert!(svg.contains("tunnel: –") && svg.trim_end().ends_with("</svg>"), "{svg}");
    }
}
