//! What the vantages say together (diagnosis.md §4.2): the truth table, row by row.
//!
//! The checks judge one cause each, with more evidence than stands here; the tests below hold them to this table: what
//! they are sure of is what it leaves, and no two of them are sure of rows that exclude each other.

use crate::facts::TargetFacts;
use crate::model::{Code, Outcome, Probe};

/// What a vantage saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// The right application.
    Answer,
    /// Somebody turned the packet away.
    Refusal,
    /// No sign of anybody.
    Silence,
    /// A connection, and not the right answer on it.
    Cut,
    /// Nobody could look, or what they saw does not agree.
    Unknown,
}

/// One row's or one look's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns<T> {
    /// Localhost in the pod, by port-forward.
    pub inside: T,
    /// The pod's address.
    pub pod: T,
    /// The nodePort from within the cluster, on a node that runs the pod.
    pub near: T,
    /// The same on the node that is dialled, where that one runs none.
    pub dialled: T,
    /// The nodePort from where browsers are.
    pub client: T,
}

/// The cause that a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    NoEndpoints,
    Loopback,
    NotListening,
    /// The control plane does not reach the pod, or a policy forbids it.
    OutOfReach,
    /// Dropped before the node.
    Edge,
    /// Another machine, or something in between, refuses.
    AnotherMachine,
    /// kube-proxy has no rule there.
    NotProgrammed,
    BetweenNodes,
    /// A mesh, or another protocol.
    Mesh,
    Reachable,
}

/// A row: whether there are endpoints (none: either way), and what each vantage may have seen.
struct Row(Option<bool>, Columns<&'static [Seen]>, Verdict);

use Seen::{Answer, Cut, Refusal, Silence, Unknown};

const ANY: &[Seen] = &[Answer, Refusal, Silence, Cut];
const FAILS: &[Seen] = &[Refusal, Silence, Cut];
const OK: &[Seen] = &[Answer];
const NO: &[Seen] = &[Refusal];
const LOST: &[Seen] = &[Silence];

const fn saw(
    inside: &'static [Seen],
    pod: &'static [Seen],
    near: &'static [Seen],
    dialled: &'static [Seen],
    client: &'static [Seen],
) -> Columns<&'static [Seen]> {
    Columns { inside, pod, near, dialled, client }
}

#[rustfmt::skip]
const TABLE: [Row; 10] = [
    //  endpoints        inside pod           near           dialled        client
    Row(Some(false), saw(ANY,   ANY,          ANY,           ANY,           FAILS),  Verdict::NoEndpoints),
    // The pod's own word comes before what a node says of it.
    Row(Some(true),  saw(OK,    NO,           ANY,           ANY,           FAILS),  Verdict::Loopback),
    Row(Some(true),  saw(NO,    NO,           ANY,           ANY,           FAILS),  Verdict::NotListening),
    Row(Some(true),  saw(OK,    LOST,         ANY,           ANY,           FAILS),  Verdict::OutOfReach),
    Row(Some(true),  saw(OK,    OK,           OK,            OK,            LOST),   Verdict::Edge),
    Row(Some(true),  saw(OK,    OK,           OK,            OK,            NO),     Verdict::AnotherMachine),
    Row(Some(true),  saw(OK,    OK,           ANY,           NO,            NO),     Verdict::NotProgrammed),
    Row(Some(true),  saw(OK,    OK,           OK,            LOST,          LOST),   Verdict::BetweenNodes),
    Row(Some(true),  saw(OK,    &[Answer, Cut], &[Answer, Cut], &[Answer, Cut], &[Cut]), Verdict::Mesh),
    Row(None,        saw(ANY,   ANY,          ANY,           ANY,           OK),     Verdict::Reachable),
];

/// The rows that agree with everything that was seen. Who saw nothing rules nothing out.
pub fn verdicts(endpoints: Option<bool>, look: &Columns<Seen>) -> Vec<Verdict> {
    let agrees = |row: &Columns<&[Seen]>| {
        let column = |may: &[Seen], seen: Seen| seen == Unknown || may.contains(&seen);
        column(row.inside, look.inside)
            && column(row.pod, look.pod)
            && column(row.near, look.near)
            && column(row.dialled, look.dialled)
            && column(row.client, look.client)
    };
    let here = |row: &&Row| row.0.is_none_or(|e| endpoints.is_none_or(|there| e == there)) && agrees(&row.1);
    TABLE.iter().filter(here).map(|Row(_, _, verdict)| *verdict).collect()
}

/// What a target's probes come to in the columns.
pub fn columns(target: &TargetFacts<'_>) -> Columns<Seen> {
    let reach = &target.reach;
    let with_pod = |node: &str| target.service.iter().flat_map(|s| s.usable()).any(|e| e.node == Some(node));
    let through = |p: &&&Probe| Some(p.port) == reach.port;
    let near = |p: &&&Probe| through(p) && p.node.as_deref().is_some_and(with_pod);
    let dialled = |p: &&&Probe| through(p) && p.node.as_deref() == reach.node && !reach.node.is_some_and(with_pod);
    let near_by = reach.pod_proxy.iter().chain(&reach.node_to_pod);
    // It goes by the node that is dialled, so that it says more of the network than of the pod.
    let instead = reach.probe_pod.iter().filter(|_| reach.pod_proxy.is_empty() && reach.node_to_pod.is_empty());
    let pods = near_by.chain(instead);
    Columns {
        inside: together(reach.port_forward.iter()),
        pod: together(pods),
        near: together(reach.node_proxy.iter().filter(near)),
        dialled: together(reach.node_proxy.iter().filter(dialled)),
        client: together(reach.decisive.iter()),
    }
}

/// What several probes say, where they say the same.
fn together<'p>(probes: impl Iterator<Item = &'p &'p Probe>) -> Seen {
    let mut all = probes.map(|p| seen(&p.outcome));
    let first = all.next().unwrap_or(Unknown);
    if all.all(|s| s == first) { first } else { Unknown }
}

fn seen(outcome: &Outcome) -> Seen {
    match outcome {
        o if o.is_right() => Answer,
        Outcome::Refused => Refusal,
        Outcome::Timeout | Outcome::NoRoute | Outcome::NetworkUnreachable => Silence,
        o if o.connected() => Cut,
        _ => Unknown,
    }
}

/// The row that a cause belongs to, where the vantages alone can tell it.
pub fn row_of(code: Code) -> Option<Verdict> {
    match code.0 {
        2301 => Some(Verdict::Loopback),
        1101 | 2302 => Some(Verdict::NotListening),
        7001 => Some(Verdict::OutOfReach),
        6001 => Some(Verdict::Edge),
        3018 => Some(Verdict::NotProgrammed),
        5011 => Some(Verdict::BetweenNodes),
        7004 => Some(Verdict::Mesh),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::check::{ABOUT_THE_LOOK, runner, sample::Sample};
    use crate::model::{Confidence, GapReason, Input, Severity};

    const ALL: [Seen; 5] = [Answer, Refusal, Silence, Cut, Unknown];

    /// Every look there is, as five digits.
    fn looks() -> impl Iterator<Item = [Seen; 5]> {
        (0..5usize.pow(5)).map(|n| std::array::from_fn(|at| ALL[n / 5usize.pow(u32::try_from(at).unwrap()) % 5]))
    }

    fn look([inside, pod, near, dialled, client]: [Seen; 5]) -> Columns<Seen> {
        Columns { inside, pod, near, dialled, client }
    }

    /// The same look without one vantage, for each that saw something.
    fn poorer(look: [Seen; 5]) -> impl Iterator<Item = [Seen; 5]> {
        (0..5).filter(move |at| look[*at] != Unknown).map(move |at| {
            let mut less = look;
            less[at] = Unknown;
            less
        })
    }

    #[test]
    fn the_rows_exclude_each_other_and_who_sees_less_rules_less_out() {
        for seen in looks() {
            for endpoints in [true, false] {
                let left = verdicts(Some(endpoints), &look(seen));
                assert!(seen.contains(&Unknown) || left.len() <= 1, "{seen:?}: {left:?}");
                for less in poorer(seen) {
                    let more = verdicts(Some(endpoints), &look(less));
                    assert!(left.iter().all(|v| more.contains(v)), "{seen:?}: {left:?}, {less:?}: {more:?}");
                }
            }
        }
    }

    /// A laptop's snapshot in which the vantages saw this. The address leads to cp1, the pod runs on w1.
    fn sample([inside, pod, near, dialled, client]: [Seen; 5]) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.blind("nodeToPod");
        let outcome = |seen| match seen {
            Answer => json!({"outcome": "http", "status": 200, "right": true}),
            Refusal => json!({"outcome": "refused"}),
            Silence => json!({"outcome": "timeout"}),
            Cut | Unknown => json!({"outcome": "reset"}),
        };
        let probes = sample.0["probes"].as_array_mut().unwrap();
        let seen_by = |p: &serde_json::Value| match p["vantage"].as_str() {
            Some("portForward") => Some(inside),
            Some("podProxy") => Some(pod),
            Some("nodeProxy") if p["node"] == "w1" => Some(near),
            Some("nodeProxy") => Some(dialled),
            Some("client") if p["port"] == 30080 => Some(client),
            _ => None,
        };
        probes.retain(|p| seen_by(p) != Some(Unknown));
        for probe in probes {
            let Some(seen) = seen_by(probe) else { continue };
            let probe = probe.as_object_mut().unwrap();
            for key in ["outcome", "status", "right"] {
                probe.remove(key);
            }
            probe.extend(outcome(seen).as_object().unwrap().clone());
        }
        let denied = || GapReason::Denied { verb: "get".into(), resource: "anything".into() };
        let vantages = [
            (Input::PortForward, inside == Unknown),
            (Input::PodProxy, pod == Unknown),
            (Input::NodeProxy, near == Unknown && dialled == Unknown),
            (Input::ClientProbe, client == Unknown),
        ];
        vantages.into_iter().filter(|(_, blind)| *blind).for_each(|(input, _)| sample.gap(input, denied()));
        sample
    }

    /// How sure a code is, and how sure that it breaks access.
    type Sure = (Option<Confidence>, Option<Confidence>);

    /// What the checks say of each look: the surest of each code.
    fn said() -> BTreeMap<[Seen; 5], BTreeMap<Code, Sure>> {
        let of = |seen| {
            sample(seen).with_facts(|facts| {
                assert_eq!(columns(&facts.targets[0]), look(seen), "the sample shows what it shall");
                let mut found: BTreeMap<Code, Sure> = BTreeMap::new();
                for finding in runner::claims(facts) {
                    let breaks = Some(finding.confidence).filter(|_| finding.severity == Severity::Error);
                    let sure = found.entry(finding.code).or_default();
                    *sure = (sure.0.max(Some(finding.confidence)), sure.1.max(breaks));
                }
                found
            })
        };
        looks().map(|seen| (seen, of(seen))).collect()
    }

    #[test]
    fn the_checks_are_sure_of_what_the_table_leaves_and_of_no_two_rows() {
        let said = said();
        let mut wrong = Vec::new();
        for (seen, found) in &said {
            let left = verdicts(Some(true), &look(*seen));
            let certain = found.iter().filter(|(_, (_, breaks))| *breaks == Some(Confidence::Certain));
            let rows: Vec<(Code, Verdict)> = certain.filter_map(|(code, _)| Some((*code, row_of(*code)?))).collect();
            for (code, row) in &rows {
                if !left.contains(row) || *row != rows[0].1 {
                    wrong.push(format!(
                        "{code} is certain of {seen:?}, of which the table leaves {left:?}, beside {rows:?}"
                    ));
                }
            }
            for less in poorer(*seen) {
                for (code, (after, _)) in said[&less].iter().filter(|(code, _)| !ABOUT_THE_LOOK.contains(code)) {
                    let before = found.get(code).and_then(|(sure, _)| *sure);
                    // What a vantage had ruled out is possible again without it, and no more than that.
                    let again = before.is_none() && *after == Some(Confidence::Possible);
                    if !again && before < *after {
                        wrong.push(format!("{code} is {before:?} of {seen:?}, but {after:?} of {less:?}"));
                    }
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{} in all:\n{}",
            wrong.len(),
            wrong.iter().take(60).cloned().collect::<Vec<_>>().join("\n")
        );
        // A property of nothing would hold as well.
        let rows = said.values().flatten().filter_map(|(code, _)| row_of(*code));
        let told: std::collections::BTreeSet<Verdict> = rows.collect();
        assert!(told.len() >= 5, "{told:?}");
    }
}
