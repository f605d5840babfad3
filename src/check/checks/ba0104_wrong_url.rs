//! BA0104: the path or the port that was typed is not the page's.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node_ports};
use crate::model::{Code, Confidence, Finding, Input, Outcome, PortRef, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(104),
    slug: "wrong-url",
    hop: Hop::Client,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    // The URL is the user's.
    remedies: &[],
    explains: &[Code(1005), Code(1006), Code(2305), Code(3018)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    port(check, facts, target).or_else(|| path(check, target)).into_iter().collect()
}

/// The Service's own port, or the application's, in place of the nodePort.
fn port(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Option<Finding> {
    let service = target.exposed()?;
    let (typed, actual, (index, found)) = (target.target.node_port?, service.node_port()?, service.port?);
    let inside = found.port == i32::from(typed) || service.target_port() == Some(PortRef::Number(typed));
    // A number among the nodePorts was meant as one.
    if !inside || typed == actual || node_ports::DEFAULT.contains(&typed) {
        return None;
    }
    let severity = match target.reach.answers_on(facts.snapshot, typed) {
        Some(false) => Severity::Error,
        Some(true) | None => Severity::Warning,
    };
    let object = target.target.service_ref();
    let finding = check
        .found(target, object.clone())
        .with("typed", format!(":{typed}"))
        .with("right", format!(":{actual}{}", target.target.path))
        .severity(severity)
        .because(field(&object, format!("spec.ports[{index}].port"), typed))
        .because(field(&object, format!("spec.ports[{index}].nodePort"), actual));
    Some(finding.because_of(target.reach.failure()))
}

/// A path that the application does not know, where another one is known.
fn path(check: &Check, target: &TargetFacts<'_>) -> Option<Finding> {
    let usual = target.target.usual_path.as_deref()?;
    target.stuck()?;
    let unknown = |p: &&Probe| matches!(p.outcome, Outcome::Http { status: 200..=499, right: false });
    let reach = &target.reach;
    let arrived = reach.decisive.iter().copied().find(unknown)?;
    let from_pods: Vec<&Probe> = reach.at_pods().chain(reach.port_forward.iter().copied()).collect();
    // The pods themselves do not know it either.
    if from_pods.is_empty() || !from_pods.iter().all(unknown) {
        return None;
    }
    let finding = check
        .found(target, target.target.service_ref())
        .with("typed", &target.target.path)
        .with("right", format!(":{}{usual}", arrived.port))
        .confidence(Confidence::Likely);
    Some(finding.because_of([arrived]).because_of(from_pods))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn the_port_inside_the_cluster_is_no_node_port() {
        let mut sample = Sample::from_laptop();
        sample.0["targets"][0]["nodePort"] = json!(9080);
        for probe in sample.0["probes"].as_array_mut().into_iter().flatten() {
            if probe["vantage"] == json!("client") && probe["port"] == json!(30080) {
                probe["port"] = json!(9080);
            }
        }
        sample.probes(&["client"], Some(9080), json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(104, Severity::Error)]);
        assert_eq!(sample.finding(104).arg("right"), ":30080/productpage");
    }

    fn path(status: u16) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["targets"][0]["path"] = json!("/productpages");
        sample.0["targets"][0]["usualPath"] = json!("/productpage");
        let unknown = json!({"outcome": "http", "status": status, "right": false});
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, unknown.clone());
        sample.answer(unknown);
        sample
    }

    #[test]
    fn a_path_that_the_pods_do_not_know_either() {
        assert_eq!(path(404).said(), [(104, Severity::Error)]);
    }

    #[test]
    fn an_application_that_fails_is_another_matter() {
        assert_eq!(path(500).said(), [(2305, Severity::Warning)]);
    }
}
