//! Typed evidence, gaps and skipped checks as sentences.

use serde_json::Value;

use super::style::Style;
use crate::model::{Evidence, Gap, GapReason, Input, ObjectRef, Outcome, Probe, Text, Vantage};

/// One piece of evidence as one sentence. `subject` is the finding's: its name stands above and is not repeated.
pub fn sentence(style: &Style, subject: &ObjectRef, evidence: &Evidence) -> String {
    let of =
        |object: &ObjectRef| if object == subject { String::new() } else { format!("{}: ", near(object, subject)) };
    let named = |object: &ObjectRef| near(object, subject);
    match evidence {
        Evidence::Field { object, path, value } => match value {
            Value::Null => {
                format!("{}{}", of(object), style.say(&Text::new("render.evidence.unset").with("path", path)))
            }
            value => format!("{}{path} = {}", of(object), plain(value)),
        },
        Evidence::Probe { probe } => attempt(style, probe),
        Evidence::Rule { node, rule } if rule.rejects || rule.backends.is_empty() => {
            style.say(&Text::new("render.evidence.rule_rejects").with("node", node).with("port", rule.port))
        }
        Evidence::Rule { node, rule } => {
            let backends: Vec<String> = rule.backends.iter().map(ToString::to_string).collect();
            style.say(
                &Text::new("render.evidence.rule")
                    .with("node", node)
                    .with("port", rule.port)
                    .with("backends", backends.join(", ")),
            )
        }
        Evidence::NoRule { node, port } => {
            style.say(&Text::new("render.evidence.no_rule").with("node", node).with("port", port))
        }
        Evidence::Absent { object } => style.say(&Text::new("render.evidence.absent").with("object", named(object))),
        Evidence::Container { object, container, reason, message } => {
            let text =
                Text::new("render.evidence.container").with("object", named(object)).with("container", container);
            format!("{}: {reason}{}", style.say(&text), aside(message))
        }
        Evidence::Condition { object, condition, status, message } => {
            format!("{}{condition}={status}{}", of(object), aside(message))
        }
        Evidence::Count { object, what, have, want } => {
            let count = match what.as_str() {
                "endpoints" => style.say(&Text::new("render.evidence.endpoints").with("have", have)),
                "scheduled" => style.say(&Text::new("render.evidence.scheduled").with("have", have).with("want", want)),
                other => format!("{other} {have}/{want}"),
            };
            format!("{}{count}", of(object))
        }
        Evidence::Log { object, line } => {
            let text = Text::new("render.evidence.log").with("object", named(object));
            format!("{}: {line}", style.say(&text))
        }
        Evidence::NoRouteTo { node, cidr } => {
            style.say(&Text::new("render.evidence.no_route").with("node", node).with("cidr", cidr))
        }
        Evidence::Barrier { node: _, chain, rule, packets: Some(packets) } => style.say(
            &Text::new("render.evidence.barrier_counted")
                .with("chain", chain)
                .with("rule", rule)
                .with("packets", packets),
        ),
        Evidence::Barrier { node: _, chain, rule, packets: None } => {
            style.say(&Text::new("render.evidence.barrier").with("chain", chain).with("rule", rule))
        }
    }
}

/// An object as it is named beside another: the namespace only where it is not the same.
fn near(object: &ObjectRef, subject: &ObjectRef) -> String {
    if object.namespace == subject.namespace { object.to_string() } else { named(object) }
}

/// `service/productpage` with its namespace, as `-n` would name it.
pub fn named(object: &ObjectRef) -> String {
    match object.namespace() {
        "" => object.to_string(),
        namespace => format!("{object} -n {namespace}"),
    }
}

fn attempt(style: &Style, probe: &Probe) -> String {
    let from = style.say(&match probe.vantage {
        Vantage::Client => Text::new("render.vantage.client"),
        Vantage::Outsider => Text::new("render.vantage.outsider"),
        Vantage::PodProxy => Text::new("render.vantage.pod_proxy"),
        Vantage::NodeProxy => Text::new("render.vantage.node_proxy"),
        Vantage::PortForward => Text::new("render.vantage.port_forward"),
        Vantage::NodeToPod => Text::new("render.vantage.node_to_pod"),
        Vantage::ProbePod => Text::new("render.vantage.probe_pod"),
        Vantage::SmallPackets => Text::new("render.vantage.small_packets"),
        Vantage::HttpProxy => Text::new("render.vantage.http_proxy"),
        Vantage::Kubelet => Text::new("render.vantage.kubelet"),
    });
    let host = if probe.host.contains(':') { format!("[{}]", probe.host) } else { probe.host.clone() };
    format!("{from} {host}:{} -> {} ({}ms)", probe.port, outcome(style, &probe.outcome), probe.millis)
}

/// What came of a probe, in a few words.
pub fn outcome(style: &Style, outcome: &Outcome) -> String {
    style.say(&match outcome {
        Outcome::Http { status, right: true } => Text::new("render.outcome.right").with("status", status),
        Outcome::Http { status, right: false } => Text::new("render.outcome.wrong").with("status", status),
        Outcome::Connected => Text::new("render.outcome.connected"),
        Outcome::Silent => Text::new("render.outcome.silent"),
        Outcome::Stalled => Text::new("render.outcome.stalled"),
        Outcome::Refused => Text::new("render.outcome.refused"),
        Outcome::Timeout => Text::new("render.outcome.timeout"),
        Outcome::NoRoute => Text::new("render.outcome.no_route"),
        Outcome::NetworkUnreachable => Text::new("render.outcome.network_unreachable"),
        Outcome::Reset => Text::new("render.outcome.reset"),
        Outcome::Empty => Text::new("render.outcome.empty"),
        Outcome::NotHttp => Text::new("render.outcome.not_http"),
        Outcome::Tls => Text::new("render.outcome.tls"),
        Outcome::Forbidden => Text::new("render.outcome.forbidden"),
        Outcome::Other { message } => return message.clone(),
    })
}

/// What could not be looked at, and why.
pub fn gap(style: &Style, gap: &Gap) -> String {
    let what = match &gap.subject {
        Some(subject) => format!("{} {subject}", input(style, gap.input)),
        None => input(style, gap.input),
    };
    format!("{what} ({})", reason(style, &gap.reason))
}

/// The name of an input.
pub fn input(style: &Style, input: Input) -> String {
    style.say(&match input {
        Input::Services => Text::new("render.input.services"),
        Input::EndpointSlices => Text::new("render.input.endpoint_slices"),
        Input::Pods => Text::new("render.input.pods"),
        Input::Deployments => Text::new("render.input.deployments"),
        Input::Nodes => Text::new("render.input.nodes"),
        Input::Namespaces => Text::new("render.input.namespaces"),
        Input::Events => Text::new("render.input.events"),
        Input::PodLogs => Text::new("render.input.pod_logs"),
        Input::NetworkPolicies => Text::new("render.input.network_policies"),
        Input::KubeProxy => Text::new("render.input.kube_proxy"),
        Input::Leases => Text::new("render.input.leases"),
        Input::Endpoints => Text::new("render.input.endpoints"),
        Input::ApiServer => Text::new("render.input.api_server"),
        Input::ClientProbe => Text::new("render.input.client_probe"),
        Input::OutsiderProbe => Text::new("render.input.outsider_probe"),
        Input::PodProxy => Text::new("render.input.pod_proxy"),
        Input::NodeProxy => Text::new("render.input.node_proxy"),
        Input::PortForward => Text::new("render.input.port_forward"),
        Input::Rules => Text::new("render.input.rules"),
        Input::NodeSettings => Text::new("render.input.node_settings"),
        Input::Firewall => Text::new("render.input.firewall"),
        Input::Answering => Text::new("render.input.answering"),
        Input::HttpProxy => Text::new("render.input.http_proxy"),
        Input::Kubelet => Text::new("render.input.kubelet"),
        Input::ProbePod => Text::new("render.input.probe_pod"),
        Input::OtherPolicies => Text::new("render.input.other_policies"),
    })
}

/// Why an input is missing.
pub fn reason(style: &Style, reason: &GapReason) -> String {
    style.say(&match reason {
        GapReason::Denied { verb, resource } => {
            Text::new("render.gap.denied").with("verb", verb).with("resource", resource)
        }
        GapReason::Unauthorized => Text::new("render.gap.unauthorized"),
        GapReason::NotRoot => Text::new("render.gap.not_root"),
        GapReason::NotOnNode => Text::new("render.gap.not_on_node"),
        GapReason::NoProgram { program } => Text::new("render.gap.no_program").with("program", program),
        GapReason::Timeout => Text::new("render.gap.timeout"),
        GapReason::NothingThere => Text::new("render.gap.nothing_there"),
        GapReason::Failed { message } => return message.clone(),
    })
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn aside(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim();
    if line.is_empty() { String::new() } else { format!(" ({line})") }
}
