//! Settings of the whole machine that a kubelet in a container writes as if the machine were its own: recorded before the
//! first such cluster starts, written back after the last one has ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::native::member::KUBELET_SYSCTLS;
use super::native::plan::run_root;

/// The record, beside the clusters' run folders.
fn record_file() -> PathBuf {
    run_root().join("host-settings.json")
}

fn place(setting: &str) -> PathBuf {
    Path::new("/proc/sys").join(setting)
}

/// Records what they are, unless that was done for a cluster that still runs.
pub fn record() -> Result<()> {
    let file = record_file();
    if file.exists() {
        return Ok(());
    }
    let values: BTreeMap<&str, String> = KUBELET_SYSCTLS
        .iter()
        .filter_map(|(setting, _)| Some((*setting, fs::read_to_string(place(setting)).ok()?.trim().to_owned())))
        .collect();
    fs::create_dir_all(run_root())?;
    fs::write(&file, serde_json::to_string_pretty(&values)?).with_context(|| format!("cannot write {}", file.display()))
}

/// Writes back what was recorded, where it is no longer so, and forgets the record.
pub fn restore() -> Result<()> {
    let file = record_file();
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    let values: BTreeMap<String, String> =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
    let is = |setting: &str| fs::read_to_string(place(setting)).map(|text| text.trim().to_owned());
    let mut left = Vec::new();
    for (setting, before) in changed(&values, is) {
        if fs::write(place(setting), before).is_err() {
            left.push(format!("{}={before}", setting.replace('/', ".")));
        }
    }
    fs::remove_file(&file)?;
    if !left.is_empty() {
        println!(
            "kubelets changed settings of this machine that only root can write back: sysctl -w {}",
            left.join(" ")
        );
    }
    Ok(())
}

/// What is no longer as recorded.
fn changed(recorded: &BTreeMap<String, String>, is: impl Fn(&str) -> std::io::Result<String>) -> Vec<(&str, &str)> {
    let differs = |(setting, before): &(&String, &String)| is(setting).is_ok_and(|now| now != **before);
    recorded.iter().filter(differs).map(|(setting, before)| (setting.as_str(), before.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_is_written_back() {
        let recorded = [("kernel/panic", "1"), ("vm/overcommit_memory", "0"), ("kernel/gone", "3")];
        let recorded = recorded.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let is = |setting: &str| match setting {
            "kernel/panic" => Ok("10".to_owned()),
            "vm/overcommit_memory" => Ok("0".to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        assert_eq!(changed(&recorded, is), [("kernel/panic", "1")]);
    }
}
