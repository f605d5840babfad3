//! What another tool says of a fault, beside `diagnose`: popeye, a linter of the cluster's objects, looks at the rows of the
//! matrix in which the page fails. Run by `cargo xtask bench diagnose`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app;
use crate::matrix::{self, End, Played, Row};
use crate::plugin::{Plugin, put};
use crate::scenario::Stage;

/// Names popeye's program; where it is set, a row is looked at and not repaired.
pub const POPEYE: &str = "BOOKACCESS_E2E_POPEYE";
/// From this level on popeye warns; below it advises (`rules.Level` of popeye: ok, info, warn, error).
const WARNS: u64 = 2;

/// Where kubectl finds the cluster as `kubectl bookaccess` does: the operator has no kubeconfig of their own.
const KUBECONFIG: &str = "export KUBECONFIG=${KUBECONFIG:-/etc/kubernetes/admin.conf}";

/// What popeye says of one kind of object: `bookinfo services 1100`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Said {
    /// Empty for what is in none.
    pub namespace: String,
    /// popeye's linter, in the plural: `services`.
    pub linter: String,
    /// The number of its `[POP-1100]`.
    pub code: u16,
    /// Whether it is more than advice.
    pub warns: bool,
}

/// One row, looked at by all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beside {
    pub line: String,
    pub name: String,
    /// What leads of our codes, and what that took.
    pub leads: String,
    pub ours_ms: u128,
    /// What popeye says before the fault, where there is such a time, and with it.
    pub healthy: BTreeSet<Said>,
    pub broken: BTreeSet<Said>,
    pub popeye_ms: u128,
    /// `kubectl describe` of the application's Services, EndpointSlices and pods.
    pub describe_ms: u128,
}

/// Where popeye lies, if it is asked for.
pub(crate) fn asked() -> Option<PathBuf> {
    std::env::var_os(POPEYE).map(PathBuf::from)
}

/// Lets all look at a row that breaks the page, each as the same person at the same place. Others are passed over.
pub(crate) fn play(stage: &Stage, row: &Row, popeye: &Path) -> Result<()> {
    if matches!(row.end, End::Reachable | End::Refused | End::Awaited) {
        return Ok(());
    }
    let mut healthy = BTreeSet::new();
    matrix::inject(stage, row, || {
        healthy = look(&stage.operator, popeye)?.0;
        Ok(())
    })?;
    stage.no_page(&row.seen)?;
    let by = (row.by)(stage)?;
    let mut played = Played::default();
    matrix::diagnose(row, &by, &mut played)?;
    let (broken, popeye_ms) = look(&by, popeye)?;
    matrix::keep(&Beside {
        line: row.line.to_owned(),
        name: row.name.to_owned(),
        leads: played.found.first().cloned().unwrap_or_default(),
        ours_ms: played.diagnosed_ms,
        healthy,
        broken,
        popeye_ms,
        describe_ms: describe(&by)?,
    })
}

fn look(by: &Plugin, popeye: &Path) -> Result<(BTreeSet<Said>, u128)> {
    put(&by.place, popeye, "popeye")?;
    let line = format!("{KUBECONFIG}; popeye -A --out json --force-exit-zero --logs /dev/null");
    let ended = by.shell(&line)?;
    ensure!(ended.code == Some(0), "popeye: {:?}\n{}{}", ended.code, ended.stdout, ended.stderr);
    Ok((said(&ended.stdout)?, ended.took.as_millis()))
}

fn describe(by: &Plugin) -> Result<u128> {
    let line = format!("{KUBECONFIG}; kubectl describe -n {} services,endpointslices,pods", app::NAMESPACE);
    Ok(by.shell(&line)?.took.as_millis())
}

/// Reads popeye's report: `popeye.sections[]`, each with a `linter` and `issues` by `NAMESPACE/NAME`.
fn said(report: &str) -> Result<BTreeSet<Said>> {
    let report: Value = serde_json::from_str(report).with_context(|| format!("no report of popeye: {report}"))?;
    let Some(sections) = report["popeye"]["sections"].as_array() else { bail!("no sections in {report}") };
    let mut all = BTreeSet::new();
    for section in sections {
        let linter = section["linter"].as_str().context("a section without a linter")?;
        for (object, issues) in section["issues"].as_object().into_iter().flatten() {
            let namespace = object.split_once('/').map_or("", |(namespace, _)| namespace);
            for issue in issues.as_array().into_iter().flatten() {
                let message = issue["message"].as_str().unwrap_or_default();
                let number = message.strip_prefix("[POP-").and_then(|rest| rest.split_once(']'));
                let code = number.and_then(|(number, _)| number.parse().ok());
                all.insert(Said {
                    namespace: namespace.to_owned(),
                    linter: linter.to_owned(),
                    code: code.with_context(|| format!("no code in {issue}"))?,
                    warns: issue["level"].as_u64().is_some_and(|level| level >= WARNS),
                });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_report_is_read_by_namespace_linter_and_code() {
        let report = r#"{"popeye": {"score": 90, "sections": [
            {"linter": "services", "issues": {
                "bookinfo/productpage": [
                    {"group": "__root__", "level": 3, "message": "[POP-1100] No pods match service selector"},
                    {"group": "__root__", "level": 1, "message": "[POP-1104] Do you mean it? Type NodePort detected"}],
                "default/kubernetes": []}},
            {"linter": "nodes", "issues": {"cp1": [{"level": 3, "message": "[POP-702] Node is not in ready state"}]}},
            {"linter": "jobs"}]}}"#;
        let words = |said: &Said| format!("{}/{} {} {}", said.namespace, said.linter, said.code, said.warns);
        let all: Vec<_> = said(report).unwrap().iter().map(words).collect();
        assert_eq!(all, ["/nodes 702 true", "bookinfo/services 1100 true", "bookinfo/services 1104 false"]);
        assert!(said("panic").is_err());
    }
}
