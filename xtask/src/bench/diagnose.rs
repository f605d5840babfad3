//! `bench diagnose`: what is said of each fault that makes the page fail, by us and by popeye.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use e2e::beside::{Beside, POPEYE, Said};

use super::forward::release;
use super::{machine, record, stats};
use crate::e2e::Suite;
use crate::go_program::Program;
use crate::provider::native;
use crate::{cluster, e2e as live, run};

/// Name of its own cluster.
const NAME: &str = "diagnose";
const LINTER: Program = Program {
    name: "popeye",
    module: "github.com/derailed/popeye",
    package: "github.com/derailed/popeye",
    version: "v0.22.1",
    stamp: None,
};

/// Which of popeye's codes say what one of ours says. Its codes: internal/issues/assets/codes.yaml of v0.22.1.
const SAME: [(&str, &[u16]); 14] = [
    // No target ports match service port.
    ("BA1101", &[1106]),
    ("BA1102", &[1106]),
    ("BA1104", &[1106]),
    ("BA1105", &[1106]),
    // No pods match service selector.
    ("BA1201", &[1100]),
    // NodePort, but externalTrafficPolicy is Local.
    ("BA1301", &[1108]),
    // Zero scale.
    ("BA2001", &[500]),
    // A pod is in an unhappy phase (Pending).
    ("BA2002", &[207]),
    // A pod is waiting, with the reason.
    ("BA2003", &[203]),
    ("BA2004", &[203]),
    // A pod is not ready.
    ("BA2101", &[204]),
    // kube-proxy's pod is waiting, with the reason.
    ("BA3003", &[203]),
    // A node is not ready, or in an unknown condition.
    ("BA4001", &[701, 702]),
    // A policy is in effect.
    ("BA7001", &[1203]),
];

#[derive(clap::Args)]
pub struct Args {
    /// A running cluster; without it one is made and taken down again
    #[arg(long)]
    cluster: Option<String>,
    /// Only the faults whose names hold this
    #[arg(long)]
    scenario: Option<String>,
    /// The program under test; without it a release build is made
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Write the table into docs/performance.md
    #[arg(long, conflicts_with_all = ["cluster", "scenario"])]
    record: bool,
}

/// Lets all look. Fails where a fault could not be played, or is not named by us.
pub fn run(args: &Args) -> Result<ExitCode> {
    native::require_machine()?;
    run::catch_interrupts()?;
    let popeye = LINTER
        .built(|| format!("Go is not on PATH, and popeye {} is not built yet", LINTER.version))
        .context("NOT RUN: there is nothing to compare with")?;
    let binary = match &args.binary {
        // The suite runs in another folder.
        Some(binary) => binary.canonicalize().with_context(|| format!("no {}", binary.display()))?,
        None => release()?,
    };
    let results = tempfile::NamedTempFile::new()?;
    let name = args.cluster.as_deref().unwrap_or(NAME);
    if args.cluster.is_none() {
        cluster::up(&live::up_args(NAME))?;
    }
    let asked = live::Args { suite: Suite::Faults, scenario: args.scenario.clone(), ..live::Args::default() };
    let played = live::play(&asked, name, &binary, results.path(), &[(POPEYE, popeye)]);
    // What went wrong in the play comes first.
    let ended = if args.cluster.is_none() { live::end(NAME) } else { Ok(()) };
    let good = played?.good();
    ended?;
    let looks = std::fs::read_to_string(results.path())?;
    let looks: Vec<Beside> = looks.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(!looks.is_empty(), "{}", if good { "there is no such fault" } else { "no fault could be looked at" });
    let text = format!("{}\n{}", table(&looks), machine::in_short(&binary)?);
    println!("\n{text}");
    if args.record && good {
        record::section("diagnose", &text)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What popeye says of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Named,
    Noticed,
    Nothing,
}

/// Judges what is said of a fault beyond what is said of a healthy cluster.
fn judge(look: &Beside, noise: &BTreeSet<Said>) -> (Verdict, Vec<String>) {
    let news: Vec<&Said> = look.broken.iter().filter(|said| !noise.contains(said)).collect();
    let same = SAME.iter().find(|(ours, _)| *ours == look.leads);
    let names = |said: &&&Said| same.is_some_and(|(_, codes)| codes.contains(&said.code));
    let words = |said: &[&Said]| -> Vec<String> {
        let codes: BTreeSet<u16> = said.iter().map(|said| said.code).collect();
        codes.iter().map(|code| format!("POP-{code}")).collect()
    };
    let naming: Vec<&Said> = news.iter().filter(names).copied().collect();
    if !naming.is_empty() {
        return (Verdict::Named, words(&naming));
    }
    let warning: Vec<&Said> = news.into_iter().filter(|said| said.warns).collect();
    if warning.is_empty() { (Verdict::Nothing, Vec::new()) } else { (Verdict::Noticed, words(&warning)) }
}

/// A line a fault, and what came together.
fn table(looks: &[Beside]) -> String {
    let noise: BTreeSet<Said> = looks.iter().flat_map(|look| look.healthy.iter().cloned()).collect();
    let judged: Vec<_> = looks.iter().map(|look| (look, judge(look, &noise))).collect();
    let count = |wanted: Verdict| judged.iter().filter(|(_, (verdict, _))| *verdict == wanted).count();
    let mut text = format!(
        "Of {} faults `diagnose` names {}; popeye names {}, notices {}, and says nothing of {}. In the middle (median) \
         `diagnose` takes {}, popeye {}, `kubectl describe` {}; `diagnose` dials the page meanwhile, and waits for what \
         does not answer.\n\n\
         | part | fault | `diagnose` | popeye |\n|---|---|---|---|\n",
        looks.len(),
        looks.iter().filter(|look| !look.leads.is_empty()).count(),
        count(Verdict::Named),
        count(Verdict::Noticed),
        count(Verdict::Nothing),
        median(looks.iter().map(|look| look.ours_ms)),
        median(looks.iter().map(|look| look.popeye_ms)),
        median(looks.iter().map(|look| look.describe_ms)),
    );
    for (look, (verdict, codes)) in judged {
        let popeye = match verdict {
            Verdict::Named => format!("named: {}", codes.join(", ")),
            Verdict::Noticed => format!("noticed: {}", codes.join(", ")),
            Verdict::Nothing => "–".to_owned(),
        };
        text += &format!("| {} | {} | {} | {popeye} |\n", look.line, look.name, look.leads);
    }
    text
}

fn median(milliseconds: impl Iterator<Item = u128>) -> String {
    let all: Vec<f64> = milliseconds.map(|took| took as f64 / 1000.0).collect();
    format!("{:.2} s", stats::median(&all).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(linter: &str, code: u16, warns: bool) -> Said {
        Said { namespace: "bookinfo".to_owned(), linter: linter.to_owned(), code, warns }
    }

    fn look(name: &str, leads: &str, healthy: Vec<Said>, broken: Vec<Said>) -> Beside {
        Beside {
            line: "Service".to_owned(),
            name: name.to_owned(),
            leads: leads.to_owned(),
            ours_ms: 300,
            healthy: healthy.into_iter().collect(),
            broken: broken.into_iter().collect(),
            popeye_ms: 110,
            describe_ms: 90,
        }
    }

    #[test]
    fn what_is_said_of_a_healthy_cluster_is_not_counted() {
        let node_port = said("services", 1104, false);
        let single = said("services", 1109, true);
        let looks = [
            look(
                "selector typo",
                "BA1201",
                vec![node_port.clone(), single.clone()],
                vec![said("services", 1100, true)],
            ),
            // Of another row, but of a healthy cluster as well.
            look("other nodePort", "BA1005", Vec::new(), vec![node_port, single]),
            look("rights lost", "BA3005", Vec::new(), vec![said("pods", 205, true)]),
            // Advice counts where it is just what is broken.
            look("Local", "BA1301", Vec::new(), vec![said("services", 1108, false)]),
        ];
        let text = table(&looks);
        assert!(text.contains("Of 4 faults `diagnose` names 4; popeye names 2, notices 1, and says nothing of 1."));
        for line in [
            "| Service | selector typo | BA1201 | named: POP-1100 |\n",
            "| Service | other nodePort | BA1005 | – |\n",
            "| Service | rights lost | BA3005 | noticed: POP-205 |\n",
            "| Service | Local | BA1301 | named: POP-1108 |\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
