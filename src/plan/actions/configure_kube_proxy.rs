//! Mends the one setting of kube-proxy's configuration that is known to be wrong, and restarts its pods with it.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::restart_kube_proxy::restart;
use super::{arg, blank, entry_node, identify, patch_command};
use crate::facts::{Facts, TargetFacts, node, proxy};
use crate::model::{Act, ActionName, Change, Code, Evidence, Finding, Step, Text, Tier, Verify};
use crate::plan::{lines, patch};

const CONFIG: &str = "config.conf";
const KUBECONFIG: &str = "kubeconfig.conf";

/// The keyword for a node's first address of each family; it may not stand beside networks.
const PRIMARY: &str = "primary";

/// One file of the ConfigMap as it should be, and in few words what differs.
struct Mended {
    file: &'static str,
    text: String,
    setting: String,
}

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unknown = || Text::new("action.configure-kube-proxy.unknown");
    let daemon_set = facts.proxy.daemon_set.filter(|_| facts.proxy.kind == proxy::Kind::DaemonSet);
    let set = daemon_set.ok_or_else(|| Text::new("action.schedule-kube-proxy.none"))?;
    let config = facts.snapshot.objects.kube_proxy_config.as_ref().ok_or_else(unknown)?;
    let data = config.data.as_ref().ok_or_else(unknown)?;
    let file = |name: &str| data.get(name).map(String::as_str);
    let mended = match finding.code {
        Code(3003) => {
            let log = facts.snapshot.objects.kube_proxy_logs.get(&finding.subject.name).map(String::as_str);
            file(CONFIG).zip(log).and_then(|(text, log)| refused(text, log))
        }
        Code(3004) => file(CONFIG).map(without_conntrack),
        Code(3006) => file(KUBECONFIG).and_then(|text| led_home(text, facts, finding)),
        Code(3008) => file(CONFIG).and_then(|text| served(text, facts, target, finding)),
        _ => None,
    };
    let mended = mended.filter(|m| file(m.file) != Some(m.text.as_str())).ok_or_else(unknown)?;
    let change = Change {
        path: format!("/data/{}", patch::escape(mended.file)),
        from: file(mended.file).map(Value::from),
        to: Some(Value::from(mended.text)),
    };
    let (object, uid) = identify("ConfigMap", &config.metadata);
    let (daemon_set, _) = identify("DaemonSet", &set.metadata);
    let restart = restart(facts, target)?;
    let rollout = format!("kubectl -n {} rollout restart daemonset {}", daemon_set.namespace(), daemon_set.name);
    let changes = vec![change];
    let command = format!("{} && {rollout}", patch_command(&object, &changes));
    let undo = format!("{} && {rollout}", patch_command(&object, &patch::inverse(&changes)));
    let act = Act::Configure { object, uid, changes, daemon_set, restart };
    let mut step = blank(ActionName::ConfigureKubeProxy, Tier::T4, target, finding, act, Verify::Cleared);
    step.command = command;
    step.undo = undo;
    arg(&mut step, "setting", mended.setting);
    Ok(step)
}

/// The setting that kube-proxy refuses by name, or the line that is no YAML: back to its default, or out.
fn refused(text: &str, log: &str) -> Option<Mended> {
    let done = |setting: String, text: String| Some(Mended { file: CONFIG, text, setting });
    for said in log.lines().rev() {
        if let Some(key) = refused_key(said).filter(|key| text.lines().any(|l| l.starts_with(&format!("{key}:")))) {
            let default = if key == "mode" { "\"\"" } else { "null" };
            return done(format!("{key}: {default}"), lines::set(text, &key, default));
        }
        let broken = said.split_once("yaml: line ").and_then(|(_, rest)| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().ok()
        });
        let Some(line) = broken.filter(|_| !is_mapping(text)) else { continue };
        // The parser may name the line before the one at fault, or the one after.
        for at in [line, line + 1, line.saturating_sub(1)] {
            if let Some(mended) = lines::without_line(text, at).filter(|t| is_mapping(t)) {
                let gone = text.lines().nth(at - 1).unwrap_or_default().trim();
                return done(format!("- {gone}"), mended);
            }
        }
    }
    None
}

/// The key of the top level that kube-proxy's validation or decoder names (`KubeProxyConfiguration.Mode.ProxyMode: …`,
/// `Go struct field KubeProxyConfiguration.mode of type …`).
fn refused_key(line: &str) -> Option<String> {
    const ROOT: &str = "KubeProxyConfiguration.";
    let complains =
        line.contains("nvalid value") || line.contains("nsupported value") || line.contains("cannot unmarshal");
    let (_, rest) = line.split_once(ROOT).filter(|_| complains)?;
    let field: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    let deeper = rest[field.len()..].starts_with('.');
    let mut letters = field.chars();
    let key: String = letters.next()?.to_lowercase().chain(letters).collect();
    // Of a block only a part is wrong, and which key of the file that is, is not said.
    (!deeper || key == "mode").then_some(key)
}

fn is_mapping(text: &str) -> bool {
    serde_saphyr::from_str::<Value>(text).is_ok_and(|v| v.is_object())
}

/// No limits of connection tracking are set: those of the host stay.
fn without_conntrack(text: &str) -> Mended {
    let text = lines::set_within(text, "conntrack", &[("maxPerCore", "0"), ("min", "0")]);
    Mended { file: CONFIG, text, setting: "conntrack.maxPerCore: 0, conntrack.min: 0".to_owned() }
}

/// The API server of the only control-plane node, where the one in the file was found to be no node's.
fn led_home(text: &str, facts: &Facts<'_>, finding: &Finding) -> Option<Mended> {
    let is_strange =
        |e: &Evidence| matches!(e, Evidence::Field { path, .. } if path.starts_with(&format!("data[{KUBECONFIG}]")));
    // What is changed is journalled, old and new: a file with credentials in it is left to a person.
    let secret = ["token:", "-data:", "password:"].iter().any(|word| text.contains(word));
    if secret || !finding.evidence.iter().any(is_strange) {
        return None;
    }
    let mut planes = facts.snapshot.objects.nodes.iter().filter(|n| node::is_control_plane(n));
    let plane = planes.next().filter(|_| planes.next().is_none())?;
    let ip: IpAddr = node::internal_ips(plane).first()?.parse().ok()?;
    let used = &facts.snapshot.stand.server;
    let port = used.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(6443);
    let server = format!("https://{}", std::net::SocketAddr::new(ip, port));
    let text = lines::replace_value(text, "server", &server);
    Some(Mended { file: KUBECONFIG, text, setting: format!("server: {server}") })
}

/// nodePortAddresses with the address that is dialled; in place of "primary", which stands alone, every address.
fn served(text: &str, facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Option<Mended> {
    let dialled: IpAddr = finding.arg("dialled").parse().ok()?;
    let own: Vec<IpAddr> =
        node::internal_ips(entry_node(facts, target)?).into_iter().filter_map(|ip| ip.parse().ok()).collect();
    let held = own.contains(&dialled) || facts.snapshot.host.as_ref().is_some_and(|h| h.addresses.contains(&dialled));
    // A public address is translated on its way to the node's own.
    let address = if held { dialled } else { *own.iter().find(|ip| ip.is_ipv6() == dialled.is_ipv6())? };
    let listed = &facts.proxy.node_port_addresses;
    let list = if listed.is_empty() || listed.contains(&PRIMARY) {
        let nodes = facts.snapshot.objects.nodes.iter().flat_map(node::internal_ips);
        let six = address.is_ipv6() || nodes.into_iter().any(|ip| ip.contains(':'));
        if six { json!(["0.0.0.0/0", "::/0"]) } else { json!(["0.0.0.0/0"]) }
    } else {
        let mut networks: Vec<String> = listed.iter().map(|n| (*n).to_owned()).collect();
        networks.push(format!("{address}/{}", if address.is_ipv6() { 128 } else { 32 }));
        json!(networks)
    };
    let text = lines::set(text, "nodePortAddresses", &list.to_string());
    Some(Mended { file: CONFIG, text, setting: format!("nodePortAddresses: {list}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "kind: KubeProxyConfiguration\nmode: iptabels\nhealthzBindAddress: 5\n";

    fn mended(text: &str, log: &str) -> Option<(String, String)> {
        refused(text, log).map(|m| (m.text, m.setting))
    }

    #[test]
    fn the_setting_that_the_log_names_goes_back_to_its_default() {
        let invalid = "E1123 11:58:00.1 1 run.go:72] \"command failed\" err=\"failed validate: KubeProxyConfiguration.Mode.ProxyMode: Invalid value: \\\"iptabels\\\": must be iptables,ipvs,nftables or blank\"";
        assert_eq!(mended(TEXT, invalid), Some((TEXT.replace("iptabels", "\"\""), "mode: \"\"".to_owned())));
        let decoded = "E1 failed lenient decoding: json: cannot unmarshal number into Go struct field KubeProxyConfiguration.healthzBindAddress of type string";
        assert_eq!(mended(TEXT, decoded).unwrap().0, TEXT.replace("healthzBindAddress: 5", "healthzBindAddress: null"));
        let deeper = "KubeProxyConfiguration.ClientConnection.Burst: Invalid value: -1";
        assert_eq!(mended(TEXT, deeper), None);
        assert_eq!(mended(TEXT, "open /var/lib/kube-proxy/configuration.conf: no such file or directory"), None);
    }

    #[test]
    fn a_line_that_is_no_yaml_goes_where_the_rest_is() {
        let text = "kind: KubeProxyConfiguration\nmode: iptables\nthis is: no: yaml\nbindAddress: 0.0.0.0\n";
        let log = "failed complete: error converting YAML to JSON: yaml: line 3: mapping values are not allowed in this context";
        let (left, gone) = mended(text, log).unwrap();
        assert_eq!(left, "kind: KubeProxyConfiguration\nmode: iptables\nbindAddress: 0.0.0.0\n");
        assert_eq!(gone, "- this is: no: yaml");
        let whole = "kind: KubeProxyConfiguration\nmode: iptables\n";
        assert_eq!(mended(whole, log), None, "the file was mended since");
    }
}
