//! Changes settings of the node that this command runs on, and takes them back: the node's own programs, run by their
//! arguments and never through a shell.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::Error;
use crate::model::NodeSetting;
use crate::model::node_setting::typed;

/// What a program of the node did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ran {
    pub succeeded: bool,
    pub said: String,
    pub complained: String,
}

/// Runs a program of the node with its arguments.
pub(super) type Run<'r> = &'r (dyn Fn(&[String]) -> Ran + Sync);

/// The node's own programs.
pub(super) fn really(argv: &[String]) -> Ran {
    let Some((program, args)) = argv.split_first() else { return Ran::default() };
    match Command::new(program).args(args).env("LC_ALL", "C").stdin(Stdio::null()).output() {
        Ok(output) => Ran {
            succeeded: output.status.success(),
            said: String::from_utf8_lossy(&output.stdout).into_owned(),
            complained: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        },
        Err(error) => Ran { complained: error.to_string(), ..Ran::default() },
    }
}

/// Where a setting stands between before and after its change.
#[derive(Debug, PartialEq, Eq)]
enum Stands {
    Before,
    /// With the handle of the rule, where it is one of nftables.
    After(Option<u64>),
    /// Someone else set it to this.
    Changed(String),
}

/// Whether all stand as the plan found them.
///
/// # Errors
/// The first that does not.
pub(super) fn check(settings: &[NodeSetting], run: Run<'_>) -> Result<(), Error> {
    settings.iter().try_for_each(|setting| match stands(setting, run)? {
        Stands::Before => Ok(()),
        Stands::After(_) => Err(changed(setting, &typed(&setting.command()))),
        Stands::Changed(found) => Err(changed(setting, &found)),
    })
}

/// Makes the changes, one after the other.
///
/// # Errors
/// The first that fails; those before it stand.
pub(super) fn make(settings: &[NodeSetting], run: Run<'_>) -> Result<(), Error> {
    check(settings, run)?;
    settings.iter().try_for_each(|setting| command(&setting.command(), run))
}

/// Takes back what stands of the changes, last first. What was never made is no error.
///
/// # Errors
/// Someone else changed one since, or a program fails; the others are taken back all the same.
pub(super) fn take_back(settings: &[NodeSetting], run: Run<'_>) -> Result<(), Error> {
    let mut first = Ok(());
    for setting in settings.iter().rev() {
        let taken = match stands(setting, run) {
            Ok(Stands::Before) => Ok(()),
            Ok(Stands::After(handle)) => command(&setting.undo(handle), run),
            Ok(Stands::Changed(found)) => Err(changed(setting, &found)),
            Err(error) => Err(error),
        };
        first = first.and(taken);
    }
    first
}

fn command(argv: &[String], run: Run<'_>) -> Result<(), Error> {
    let ran = run(argv);
    if ran.succeeded {
        return Ok(());
    }
    Err(failed(argv, ran))
}

fn failed(argv: &[String], ran: Ran) -> Error {
    Error::Node { command: typed(argv), message: ran.complained }
}

fn changed(setting: &NodeSetting, found: &str) -> Error {
    Error::NodeChanged { command: typed(&setting.command()), found: found.trim().to_owned() }
}

fn stands(setting: &NodeSetting, run: Run<'_>) -> Result<Stands, Error> {
    let query = setting.query();
    let ran = run(&query);
    match setting {
        NodeSetting::Sysctl { from, to, .. } => match ran.said.trim() {
            _ if !ran.succeeded => Err(failed(&query, ran)),
            now if now == to => Ok(Stands::After(None)),
            now if now == from => Ok(Stands::Before),
            now => Ok(Stands::Changed(now.to_owned())),
        },
        NodeSetting::Route { via, .. } => {
            let routes = listing(&query, ran)?;
            let gateways: Vec<&str> =
                routes.as_array().into_iter().flatten().filter_map(|r| r.get("gateway")?.as_str()).collect();
            let none = routes.as_array().is_none_or(Vec::is_empty);
            Ok(match gateways.iter().any(|g| g.parse() == Ok(*via)) {
                true => Stands::After(None),
                false if none => Stands::Before,
                false => Stands::Changed(routes.to_string()),
            })
        }
        NodeSetting::NftAccept { packets, .. } => {
            let comment = packets.comment();
            let listed = listing(&query, ran)?;
            let rules = listed.get("nftables").and_then(Value::as_array).into_iter().flatten();
            let mut ours = rules.filter_map(|item| item.get("rule")).filter(|rule| {
                rule.get("comment").and_then(Value::as_str).is_some_and(|c| c.trim_matches('"') == comment)
            });
            Ok(ours.next().map_or(Stands::Before, |rule| Stands::After(rule.get("handle").and_then(Value::as_u64))))
        }
        // These say it by their exit code; 1 is "no". A program that is missing says nothing.
        NodeSetting::IptablesAccept { .. }
        | NodeSetting::SegmentSize { .. }
        | NodeSetting::FirewalldPort { .. }
        | NodeSetting::FirewalldSource { .. } => Ok(if ran.succeeded { Stands::After(None) } else { Stands::Before }),
    }
}

fn listing(query: &[String], ran: Ran) -> Result<Value, Error> {
    match serde_json::from_str(&ran.said) {
        Ok(listing) if ran.succeeded => Ok(listing),
        _ => Err(failed(query, ran)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::model::node_setting::Packets;

    /// A node in memory: its sysctls, routes and rules.
    #[derive(Default, Debug, Clone, PartialEq)]
    struct Node {
        sysctls: BTreeMap<String, String>,
        routes: BTreeMap<String, String>,
        /// By what stands between verb and end of an iptables command.
        accepted: Vec<String>,
        rules: BTreeMap<u64, String>,
    }

    fn run(node: &Mutex<Node>, argv: &[String]) -> Ran {
        let mut node = node.lock().unwrap();
        let ok = |said: String| Ran { succeeded: true, said, ..Ran::default() };
        let no = || Ran { complained: "no".to_owned(), ..Ran::default() };
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["sysctl", "-n", name] => node.sysctls.get(*name).map_or_else(no, |v| ok(format!("{v}\n"))),
            ["sysctl", "-w", setting] => {
                let (name, value) = setting.split_once('=').unwrap();
                node.sysctls.insert(name.to_owned(), value.to_owned());
                ok(String::new())
            }
            ["ip", "-j", "route", "show", "exact", cidr] => {
                let found = node.routes.get(*cidr).map(|via| json!([{"dst": cidr, "gateway": via}]));
                ok(found.unwrap_or(json!([])).to_string())
            }
            ["ip", "route", "add", cidr, "via", via] => {
                node.routes.insert((*cidr).to_owned(), (*via).to_owned());
                ok(String::new())
            }
            ["ip", "route", "del", cidr, "via", _] => node.routes.remove(*cidr).map_or_else(no, |_| ok(String::new())),
            ["iptables-nft", "-w", "-t", "raw", verb, rest @ ..] => {
                let rule = rest.join(" ");
                let at = node.accepted.iter().position(|r| *r == rule);
                match (*verb, at) {
                    ("-I", _) => node.accepted.push(rule),
                    ("-D", Some(at)) => drop(node.accepted.remove(at)),
                    ("-C", Some(_)) => {}
                    _ => return no(),
                }
                ok(String::new())
            }
            ["nft", "-j", "list", "chain", ..] => {
                let rules: Vec<Value> =
                    node.rules.iter().map(|(h, c)| json!({"rule": {"handle": h, "comment": c}})).collect();
                ok(json!({"nftables": rules}).to_string())
            }
            ["nft", "insert", "rule", .., comment] => {
                let handle = node.rules.keys().max().unwrap_or(&0) + 1;
                node.rules.insert(handle, comment.trim_matches('"').to_owned());
                ok(String::new())
            }
            ["nft", "delete", "rule", .., handle] => {
                node.rules.remove(&handle.parse().unwrap()).map_or_else(no, |_| ok(String::new()))
            }
            _ => no(),
        }
    }

    fn settings() -> Vec<NodeSetting> {
        let text = |s: &str| s.to_owned();
        let packets = |answers| Packets { network: Some(text("10.244.1.0/24")), port: 9080, answers };
        vec![
            NodeSetting::Sysctl { name: text("net.ipv4.ip_forward"), from: text("0"), to: text("1") },
            NodeSetting::Route { cidr: text("10.244.1.0/24"), via: IpAddr::from([10, 0, 0, 11]) },
            NodeSetting::IptablesAccept {
                program: text("iptables-nft"),
                table: text("raw"),
                chain: text("PREROUTING"),
                packets: Packets { network: None, port: 30080, answers: false },
            },
            NodeSetting::NftAccept {
                family: text("ip"),
                table: text("wall"),
                chain: text("fw"),
                packets: packets(false),
            },
            NodeSetting::NftAccept {
                family: text("ip"),
                table: text("wall"),
                chain: text("fw"),
                packets: packets(true),
            },
        ]
    }

    fn node() -> Node {
        Node {
            sysctls: BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "0".to_owned())]),
            routes: BTreeMap::from([("10.244.2.0/24".to_owned(), "10.0.0.12".to_owned())]),
            rules: BTreeMap::from([(4, "somebody's".to_owned())]),
            ..Node::default()
        }
    }

    #[test]
    fn what_is_made_is_taken_back_whole_or_in_part() {
        for done in 0..=settings().len() {
            let (before, place) = (node(), Mutex::new(node()));
            let run = |argv: &[String]| run(&place, argv);
            make(&settings()[..done], &run).unwrap();
            assert_eq!(*place.lock().unwrap() == before, done == 0);
            // A fix that was killed in the middle takes back all that it meant to do.
            take_back(&settings(), &run).unwrap();
            assert_eq!(*place.lock().unwrap(), before, "after {done}");
            take_back(&settings(), &run).unwrap();
            assert_eq!(*place.lock().unwrap(), before, "twice after {done}");
        }
    }

    #[test]
    fn what_others_set_is_left_and_said() {
        let place = Mutex::new(node());
        let run = |argv: &[String]| run(&place, argv);
        make(&settings(), &run).unwrap();
        place.lock().unwrap().sysctls.insert("net.ipv4.ip_forward".to_owned(), "7".to_owned());
        let error = take_back(&settings(), &run).unwrap_err();
        assert!(matches!(&error, Error::NodeChanged { found, .. } if found == "7"), "{error}");
        let left = place.lock().unwrap().clone();
        assert_eq!((left.routes, left.accepted, left.rules), (node().routes, node().accepted, node().rules));
    }

    #[test]
    fn what_stands_already_is_not_made_again() {
        let place = Mutex::new(node());
        let run = |argv: &[String]| run(&place, argv);
        place.lock().unwrap().routes.insert("10.244.1.0/24".to_owned(), "10.0.0.99".to_owned());
        let error = make(&settings(), &run).unwrap_err();
        assert!(matches!(error, Error::NodeChanged { .. }), "{error}");
        assert_eq!(place.lock().unwrap().sysctls["net.ipv4.ip_forward"], "0", "nothing was changed");
    }
}
