//! The shipped roles suffice for their verbs, and for no more.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::{Bookinfo, NAMESPACE};
use e2e::cluster::Cluster;
use e2e::faults::kube_proxy;
use e2e::objects::Objects;
use e2e::page::Seen;
use e2e::scenario::{Stage, scenario};

use crate::PAGE;

const READER: [&str; 4] = ["--as", "reader", "--as-group", "bookaccess:diagnose"];
const FIXER: [&str; 4] = ["--as", "fixer", "--as-group", "bookaccess:fix"];
const SYSTEM: [&str; 2] = ["--as-group", "bookaccess:fix-system"];

fn apply_roles(cluster: &Cluster) -> Result<()> {
    for file in ["diagnose.yml", "fix.yml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/rbac").join(file);
        cluster.apply(&std::fs::read_to_string(path)?)?;
    }
    Ok(())
}

fn can(cluster: &Cluster, who: &[&str], what: &[&str]) -> Result<bool> {
    // `auth can-i` ends with 1 for no.
    let program = cluster.bin.join("kubectl").display().to_string();
    let config = format!("--kubeconfig={}", cluster.kubeconfig.display());
    let argv = [&[program.as_str(), &config, "auth", "can-i", "-q"], what, who].concat();
    Ok(cluster.client.run(&argv, Duration::from_secs(20))?.code == Some(0))
}

fn as_group(stage: &Stage, who: &[&str], args: &[&str], code: i32) -> Result<String> {
    let ended = stage.laptop.must(&[args, who].concat(), code)?;
    Ok(format!("{}{}", ended.stdout, ended.stderr))
}

#[test]
fn s12_shipped_roles() {
    scenario("s12_shipped_roles", |stage| {
        let cluster = &stage.cluster;
        apply_roles(cluster)?;
        let all = [&FIXER[..], &SYSTEM[..]].concat();
        let proxy = ["get", "nodes", "--subresource=proxy"];
        for what in [&proxy[..], &["create", "pods", "--subresource=exec", "-A"], &["get", "secrets", "-A"]] {
            ensure!(!can(cluster, &all, what)?, "{what:?} is granted");
        }
        ensure!(can(cluster, &READER, &["list", "services", "-A"])?);
        ensure!(!can(cluster, &FIXER, &["patch", "daemonsets", "-n", "kube-system"])?);

        Bookinfo { cluster_ip: true, ..Bookinfo::page() }.apply(cluster)?;
        stage.no_page(&[Seen::Refused])?;
        let before = Objects::read(cluster)?;
        let said = as_group(stage, &READER, &["diagnose"], 1)?;
        ensure!(said.contains("BA1002"), "{said}");
        let said = as_group(stage, &READER, &["fix", "--yes", "--no-fallback"], 3)?;
        ensure!(said.contains("patch") && said.contains("services"), "which right is missing? {said}");
        before.must_equal(&Objects::read(cluster)?)?;
        as_group(stage, &FIXER, &["fix", "--yes"], 0)?;
        stage.page(PAGE)?;
        as_group(stage, &FIXER, &["fix", "--undo", "--yes"], 0)?;
        before.must_equal(&Objects::read(cluster)?)
    });
}

#[test]
fn s12_shipped_role_for_the_system() {
    scenario("s12_shipped_role_for_the_system", |stage| {
        apply_roles(&stage.cluster)?;
        stage.inject(kube_proxy::unscheduled())?;
        Bookinfo::page().apply(&stage.cluster)?;
        stage.no_page(&[Seen::Refused])?;
        let before = Objects::read(&stage.cluster)?;
        let who = [&FIXER[..], &SYSTEM[..], &["-n", NAMESPACE]].concat();
        as_group(stage, &who, &["fix", "productpage", "--yes", "--allow", "system"], 0)?;
        stage.page(PAGE)?;
        as_group(stage, &who, &["fix", "--undo", "--yes"], 0)?;
        before.must_equal(&Objects::read(&stage.cluster)?)
    });
}
