//! Puts rules in place by the program nft, one transaction at a time.

use std::collections::BTreeMap;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::TABLE_PREFIX;
use super::rules::{COMMENT, Family, Layout, Leases, counted};
use crate::forward::slots::Slots;

/// Counters are for people; they are read so seldom.
const RENEWALS_PER_COUNT: u32 = 3;

/// What went wrong with the rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the program nft is missing")]
    NoNft,
    #[error("the nftables table {0} belongs to somebody else")]
    Occupied(String),
    #[error("nft: {0}")]
    Nft(String),
}

/// What shall be in the kernel for the next lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// One for each family in use.
    pub layouts: Vec<Layout>,
    /// By family and pair.
    pub slots: BTreeMap<(Family, usize), Slots>,
    pub leases: Leases,
}

/// What is in the kernel as far as we put it there.
#[derive(Debug, Default)]
pub struct Tables {
    installed: Option<Wanted>,
    pairs: usize,
    made: u64,
    renewals: u32,
    /// Connections counted by tables that are no more, and by the present ones; by pair.
    counted_before: Vec<u64>,
    counted: Vec<u64>,
}

impl Tables {
    /// For so many pairs.
    pub fn new(pairs: usize) -> Self {
        Self { installed: None, pairs, made: 0, renewals: 0, counted_before: vec![0; pairs], counted: vec![0; pairs] }
    }

    /// Makes it so: the leases are renewed, what changed is changed, what is not there is made.
    ///
    /// # Errors
    /// Where nft is missing or refuses, or a table of our name is not ours.
    pub async fn put(&mut self, wanted: &Wanted) -> Result<(), Error> {
        if self.installed.as_ref().is_some_and(|i| i.layouts == wanted.layouts) {
            if nft(&self.change(wanted)).await.is_ok() {
                self.count(wanted).await;
                self.installed = Some(wanted.clone());
                return Ok(());
            }
            // Someone flushed the ruleset.
        } else {
            let ours = self.installed.is_some();
            for layout in wanted.layouts.iter().filter(|_| !ours) {
                is_free(layout).await?;
            }
        }
        self.installed = None;
        for (all, of_last) in self.counted_before.iter_mut().zip(&mut self.counted) {
            *all += std::mem::take(of_last);
        }
        nft(&whole(wanted)).await?;
        self.made += 1;
        self.installed = Some(wanted.clone());
        Ok(())
    }

    /// How often the tables were made anew.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Connections led to endpoints so far, by pair.
    pub fn connections(&self) -> Vec<u64> {
        self.counted_before.iter().zip(&self.counted).map(|(before, now)| before + now).collect()
    }

    /// Takes the tables away.
    ///
    /// # Errors
    /// Where nft refuses; without a table there is nothing to do.
    pub async fn remove(&mut self) -> Result<(), Error> {
        let Some(installed) = self.installed.take() else { return Ok(()) };
        nft(&installed.layouts.iter().map(removal_of).collect::<String>()).await.map(drop)
    }

    fn change(&self, wanted: &Wanted) -> String {
        let mut script = String::new();
        let before = self.installed.as_ref().map(|i| &i.slots);
        for layout in &wanted.layouts {
            for (key, slots) in wanted.slots.iter().filter(|(key, _)| key.0 == layout.family) {
                if before.and_then(|b| b.get(key)) != Some(slots) {
                    script.push_str(&layout.slots(key.1, slots));
                }
            }
            script.push_str(&layout.leases(&wanted.leases));
        }
        script
    }

    /// Reads the counters, not at each renewal. Listing one table reads only that table; `list counters` would make nft
    /// read every element of the ruleset, of which kube-proxy's has thousands.
    async fn count(&mut self, wanted: &Wanted) {
        self.renewals = self.renewals.wrapping_add(1);
        if !self.renewals.is_multiple_of(RENEWALS_PER_COUNT) {
            return;
        }
        let mut listing = String::new();
        for layout in &wanted.layouts {
            match run(&["-t", "list", "table", layout.family.words().0, &layout.table], "").await {
                Ok(table) => listing.push_str(&table),
                Err(error) => {
                    tracing::debug!(event = "not-counted", error = %error);
                    return;
                }
            }
        }
        self.counted = counted(&listing, self.pairs);
    }
}

fn whole(wanted: &Wanted) -> String {
    let mut script = String::new();
    for layout in &wanted.layouts {
        script.push_str(&layout.ruleset());
        for ((_, pair), slots) in wanted.slots.iter().filter(|(key, _)| key.0 == layout.family) {
            script.push_str(&layout.slots(*pair, slots));
        }
        script.push_str(&layout.leases(&wanted.leases));
    }
    script
}

/// Whether there is no table of this name, or only one that an earlier forward left.
async fn is_free(layout: &Layout) -> Result<(), Error> {
    if is_theirs(layout.family, &layout.table).await? {
        return Err(Error::Occupied(layout.table.clone()));
    }
    Ok(())
}

/// Whether a table of this name was written by somebody else.
async fn is_theirs(family: Family, table: &str) -> Result<bool, Error> {
    match run(&["list", "table", family.words().0, table], "").await {
        // The earliest version wrote no comment.
        Ok(found) => Ok(!found.contains(COMMENT) && !found.contains("set shield")),
        Err(Error::NoNft) => Err(Error::NoNft),
        // nft says "No such file or directory" where there is none; anything worse shows when the table is written.
        Err(_) => Ok(false),
    }
}

fn removal_of(layout: &Layout) -> String {
    removal(layout.family, &layout.table)
}

/// add makes delete succeed where the table is gone already.
fn removal(family: Family, table: &str) -> String {
    let (ip, _) = family.words();
    format!("add table {ip} {table}\ndelete table {ip} {table}\n")
}

/// Our tables in this network namespace, each name once; not those that others gave such a name.
///
/// # Errors
/// Where nft is missing or refuses.
pub async fn tables() -> Result<Vec<String>, Error> {
    let listed = run(&["list", "tables"], "").await?;
    let mut ours = std::collections::BTreeSet::new();
    for family in Family::BOTH {
        let names = listed.lines().filter_map(|line| line.strip_prefix(&format!("table {} ", family.words().0)));
        for name in names.filter(|name| name.starts_with(TABLE_PREFIX)) {
            if !is_theirs(family, name).await? {
                ours.insert(name.to_owned());
            }
        }
    }
    Ok(ours.into_iter().collect())
}

/// Takes away the tables of one name.
///
/// # Errors
/// Where nft is missing or refuses.
pub async fn remove_table(table: &str) -> Result<(), Error> {
    nft(&Family::BOTH.map(|family| removal(family, table)).concat()).await.map(drop)
}

/// Whether the program is there.
pub async fn is_there() -> bool {
    run(&["--version"], "").await.is_ok()
}

async fn nft(script: &str) -> Result<String, Error> {
    run(&["-f", "-"], script).await
}

async fn run(args: &[&str], script: &str) -> Result<String, Error> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NoNft,
        _ => Error::Nft(error.to_string()),
    };
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
