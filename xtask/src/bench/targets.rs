//! What each carrier must reach, as a ratio to another row of the same run.

use super::figures::{Figure, Row};
use super::stats::{self, Estimate};

/// Below this share of its target a figure is a failure; between, its limit must be known.
pub const FLOOR: f64 = 0.8;

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    pub row: &'static str,
    pub to: &'static str,
    pub figure: Figure,
    /// How many times better. Where less is better, the ratio is the inverse one.
    pub factor: f64,
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub target: Target,
    pub ratio: Estimate,
    pub grade: Grade,
}

/// Upgrades that 10,000 new connections through the tunnel may take.
pub const UPGRADES: f64 = 10.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    Met,
    /// Below the target, not below the floor.
    Short,
    Failed,
}

impl Grade {
    pub fn words(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Short => "below the target",
            Self::Failed => "**below the floor**",
        }
    }
}

/// All targets of the figures.
pub fn all() -> Vec<Target> {
    use Figure::{
        Conn1, Conn4, Conn16, Cpu, Down1, Down8, P50, P99, P999, Req1, Req16, Req64, Rss1k, Rss10k, Up1, Up8,
    };
    let rates = [Req1, Req16, Req64, Conn1, Conn4, Conn16, P50, P99, P999];
    let transfers = [Down1, Down8, Up1, Up8];
    let mut targets = Vec::new();
    let mut add = |row, to, figure, factor| targets.push(Target { row, to, figure, factor });
    for (row, to) in [("kernel (iptables)", "NodePort (iptables)"), ("kernel (nftables)", "NodePort (nftables)")] {
        // The NodePort has no process, so there is no CPU time and no memory to compare with.
        transfers.into_iter().chain(rates).for_each(|figure| add(row, to, figure, 1.0));
    }
    for figure in transfers {
        add("direct", "HAProxy", figure, 1.3);
    }
    for figure in rates.into_iter().chain([Cpu]) {
        add("direct", "HAProxy", figure, 1.0);
    }
    for (figure, factor) in [
        (Down1, 1.4),
        (Down8, 1.6),
        (Up1, 1.3),
        (Up8, 1.3),
        (Req1, 1.35),
        (Req16, 1.35),
        (Req64, 1.35),
        (Conn1, 2.0),
        (Conn4, 1.7),
        (Conn16, 1.45),
        (Cpu, 1.0 / 0.3),
        (Rss1k, 4.0),
        (Rss10k, 4.0),
    ] {
        add("tunnel", "kubectl port-forward", figure, factor);
    }
    targets
}

/// Judges one target; none where a row or a figure was not measured.
pub fn judge(target: Target, row: &Row, to: &Row) -> Option<Verdict> {
    let (ours, theirs) = (row.figures.get(&target.figure)?, to.figures.get(&target.figure)?);
    let ratio = if target.figure.more_is_better() { stats::ratio(ours, theirs)? } else { stats::ratio(theirs, ours)? };
    Some(Verdict { target, ratio, grade: grade(ratio.median / target.factor) })
}

/// The median of the upgrades, and what that is worth; none where they were not counted.
pub fn upgrades(row: &Row) -> Option<(f64, Grade)> {
    let count = stats::median(&row.values(Figure::Upgrades))?;
    Some((count, grade(UPGRADES / count)))
}

fn grade(share: f64) -> Grade {
    match share {
        share if share >= 1.0 => Grade::Met,
        share if share >= FLOOR => Grade::Short,
        _ => Grade::Failed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(figure: Figure, value: f64) -> Row {
        let mut row = Row::default();
        row.put(figure, 0, value);
        row
    }

    #[test]
    fn less_time_is_better_and_less_throughput_is_not() {
        let grade = |figure, factor, ours, theirs| {
            let target = Target { row: "a", to: "b", figure, factor };
            judge(target, &row(figure, ours), &row(figure, theirs)).unwrap().grade
        };
        assert_eq!(grade(Figure::Down1, 1.3, 131.0, 100.0), Grade::Met);
        assert_eq!(grade(Figure::Down1, 1.3, 110.0, 100.0), Grade::Short);
        assert_eq!(grade(Figure::Down1, 1.3, 100.0, 100.0), Grade::Failed);
        assert_eq!(grade(Figure::P99, 1.0, 50.0, 100.0), Grade::Met);
        assert_eq!(grade(Figure::P99, 1.0, 200.0, 100.0), Grade::Failed);
        let target = Target { row: "a", to: "b", figure: Figure::Cpu, factor: 1.0 };
        assert_eq!(judge(target, &row(Figure::Up1, 1.0), &row(Figure::Cpu, 1.0)), None);
    }

    #[test]
    fn upgrades_have_a_bound_of_their_own() {
        let grade = |count| upgrades(&row(Figure::Upgrades, count)).unwrap().1;
        assert_eq!(
            [grade(0.0), grade(10.0), grade(12.0), grade(13.0)],
            [Grade::Met, Grade::Met, Grade::Short, Grade::Failed]
        );
        assert_eq!(upgrades(&row(Figure::Up1, 1.0)), None);
    }

    #[test]
    fn each_target_stands_once() {
        let targets = all();
        for (at, one) in targets.iter().enumerate() {
            let same = |other: &Target| (other.row, other.figure) == (one.row, one.figure);
            assert!(!targets[at + 1..].iter().any(same), "{one:?}");
        }
    }
}
