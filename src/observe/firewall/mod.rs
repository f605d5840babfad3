//! Reads the firewalls of this node: what iptables of either backend and nftables hold, and their counters.

mod iptables;
mod nft;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::program::{json, output};
use super::rules;
use crate::forward::front::TABLE_PREFIX;
use crate::model::firewall::{Chain, Counted, Verdict};
use crate::model::{Firewall, GapReason, Rules};

/// More rules than a node of any known network plugin has; a Snapshot shall stay readable.
const MOST_RULES: usize = 20_000;
/// Tables that iptables' nft backend keeps in nftables; `iptables-nft-save` reads them better.
const IPTABLES_TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// What the programs of iptables print: by program, the listing of all its tables.
pub struct Saved {
    by_program: Vec<(&'static str, String)>,
}

impl Saved {
    /// Asks both backends where they are there, else whatever `iptables-save` is.
    ///
    /// # Errors
    /// None of the programs is there, or none works.
    pub fn read() -> Result<Self, GapReason> {
        // The old backend loads its kernel modules when asked; where no table of it is in use it has nothing to say.
        let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| !names.trim().is_empty());
        let legacy = legacy.then_some(("iptables-legacy", "iptables-legacy-save"));
        let programs = [("iptables-nft", "iptables-nft-save")].into_iter().chain(legacy);
        let read = |(program, save): (&'static str, &str)| Some((program, output(save, &["-c"]).ok()?));
        let by_program: Vec<_> = programs.filter_map(read).collect();
        if by_program.is_empty() {
            return Ok(Self { by_program: vec![("iptables", output("iptables-save", &["-c"])?)] });
        }
        Ok(Self { by_program })
    }

    /// kube-proxy's rules: those of the backend that holds them, and of the other one where both do.
    pub fn kube_proxy(&self) -> (Rules, Option<Rules>) {
        let all = self.by_program.iter().map(|(_, text)| rules::from_iptables_save(text));
        let (mut known, unknown): (Vec<Rules>, Vec<Rules>) = all.partition(|r| r.mode.is_some());
        let other = (known.len() > 1).then(|| known.pop()).flatten();
        let none =
            || unknown.into_iter().next().unwrap_or(Rules { mode: None, services: false, node_ports: Vec::new() });
        (known.pop().unwrap_or_else(none), other)
    }

    fn chains(&self) -> Vec<Chain> {
        self.by_program.iter().flat_map(|(program, text)| iptables::chains(program, text)).collect()
    }

    /// Whether nft alone can read tables of iptables' names.
    fn is_incomplete(&self) -> bool {
        !self.by_program.iter().any(|(program, text)| *program != "iptables-legacy" && !text.contains("incompatible"))
    }
}

/// All firewall rules that packets for pods may meet.
///
/// # Errors
/// Neither iptables nor nftables can be read, or there are too many rules.
pub fn read(saved: &Result<Saved, GapReason>) -> Result<Firewall, GapReason> {
    let native = native(saved.as_ref().map_or(true, Saved::is_incomplete));
    let mut chains = match (saved, native) {
        (Err(_), Err(reason)) => return Err(reason),
        (saved, native) => {
            let mut chains = saved.as_ref().map(Saved::chains).unwrap_or_default();
            chains.extend(native.unwrap_or_default());
            chains
        }
    };
    keep_reachable(&mut chains);
    if chains.iter().map(|c| c.rules.len()).sum::<usize>() > MOST_RULES {
        return Err(GapReason::Failed { message: format!("more than {MOST_RULES} firewall rules") });
    }
    let managers = managers(&chains);
    Ok(Firewall { chains, managers })
}

/// The rules of nftables' own tables, kube-proxy's and ours left out.
fn native(all: bool) -> Result<Vec<Chain>, GapReason> {
    let listing = json(&output("nft", &["-j", "list", "tables"])?)?;
    let tables: Vec<(String, String)> = nft::items(&listing, "table")
        .filter_map(|t| Some((t.get("family")?.as_str()?.to_owned(), t.get("name")?.as_str()?.to_owned())))
        .filter(|(family, _)| matches!(family.as_str(), "ip" | "inet" | "netdev"))
        .filter(|(_, name)| name != "kube-proxy" && !name.starts_with(TABLE_PREFIX))
        .filter(|(family, name)| all || family != "ip" || !IPTABLES_TABLES.contains(&name.as_str()))
        .collect();
    let list = |(family, name): &(String, String)| {
        let args = ["-j", "list", "table", family.as_str(), name.as_str()];
        output("nft", &args).and_then(|text| json(&text)).map(|listing: Value| nft::chains(&listing))
    };
    let list = &list;
    std::thread::scope(|scope| {
        let asked: Vec<_> = tables.iter().map(|table| scope.spawn(move || list(table))).collect();
        let answers = asked.into_iter().filter_map(|asked| asked.join().ok());
        // A table may go between the two questions.
        Ok(answers.flat_map(|chains| chains.unwrap_or_default()).collect())
    })
}

/// Drops the chains that no packet on its way to a pod passes.
fn keep_reachable(chains: &mut Vec<Chain>) {
    type Name = (String, String, String, String);
    let name = |c: &Chain, to: &str| (c.program.clone(), c.family.clone(), c.table.clone(), to.to_owned());
    let jumps: BTreeMap<Name, Vec<Name>> = chains
        .iter()
        .map(|c| {
            let to = c.rules.iter().filter_map(|r| match &r.then {
                Verdict::Jump { to } | Verdict::Goto { to } => Some(name(c, to)),
                _ => None,
            });
            (name(c, &c.name), to.collect())
        })
        .collect();
    let mut queue: Vec<Name> = chains.iter().filter(|c| c.hook.is_some()).map(|c| name(c, &c.name)).collect();
    let mut seen = BTreeSet::new();
    while let Some(next) = queue.pop() {
        if seen.insert(next.clone()) {
            queue.extend(jumps.get(&next).into_iter().flatten().cloned());
        }
    }
    chains.retain(|c| seen.contains(&name(c, &c.name)) && (c.drops || !c.rules.is_empty()));
}

/// The services that own firewall rules of this node.
fn managers(chains: &[Chain]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if Path::new("/run/firewalld.pid").exists() {
        found.insert("firewalld".to_owned());
    }
    if chains.iter().any(|c| c.is_iptables() && c.name.starts_with("ufw-")) {
        found.insert("ufw".to_owned());
    }
    found
}

/// Reads the counters again and enters them as those after the probe. A rule that changed meanwhile has none.
pub fn count_again(firewall: &mut Firewall) {
    let Ok(now) = read(&Saved::read()) else { return };
    let enter = |before: &mut Option<Counted>, now: Option<Counted>| {
        if let (Some(before), Some(now)) = (before, now) {
            before.after = Some(now.before);
        }
    };
    for chain in &mut firewall.chains {
        let same = |c: &&Chain| {
            (&c.program, &c.family, &c.table, &c.name) == (&chain.program, &chain.family, &chain.table, &chain.name)
        };
        let Some(again) = now.chains.iter().find(same) else { continue };
        enter(&mut chain.packets, again.packets);
        for (rule, again) in chain.rules.iter_mut().zip(&again.rules).filter(|(a, b)| a.text == b.text) {
            enter(&mut rule.packets, again.packets);
        }
    }
}
