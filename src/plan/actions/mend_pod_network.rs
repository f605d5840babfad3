//! Told: what lets the network plugin's packets through between the nodes.

use super::{arg, told};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{ActionName, Finding, Step, Text, Tier};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unknown = || Text::new("action.restore-route.unknown");
    let (from, to) = (finding.arg("from"), finding.arg("to"));
    let address = |name: &str| facts.node(name).and_then(|n| node::internal_ips(n).first().copied());
    let (near, far) = (address(from).ok_or_else(unknown)?, address(to).ok_or_else(unknown)?);
    let let_in = |verb: &str, what: &str| format!("sudo iptables {verb} INPUT -s {near} {what} -j ACCEPT");
    let (command, undo) = match finding.code.0 {
        5002 => {
            let what = format!("-p udp --dport {}", finding.arg("udp"));
            (let_in("-I", &what), let_in("-D", &what))
        }
        5003 => (let_in("-I", "-p ipencap"), let_in("-D", "-p ipencap")),
        5004 => {
            let check = |flag: &str| {
                format!(
                    "aws ec2 modify-instance-attribute --instance-id $(aws ec2 describe-instances --filters Name=private-ip-address,Values={far} --query 'Reservations[0].Instances[0].InstanceId' --output text) --{flag}"
                )
            };
            (check("no-source-dest-check"), check("source-dest-check"))
        }
        _ => (format!("sudo tcpdump -ni any host {} and host {near}", finding.arg("pod")), String::new()),
    };
    let tier = if finding.code.0 == 5004 { Tier::T6 } else { Tier::T5 };
    let mut step = told(ActionName::MendPodNetwork, tier, target, finding, command, undo);
    arg(&mut step, "node", to);
    Ok(step)
}
