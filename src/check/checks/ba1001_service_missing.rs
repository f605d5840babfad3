//! BA1001: there is no such Service.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts, nearest};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1001),
    slug: "service-missing",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    remedies: &[ActionName::CreateService],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    if target.service.is_some() {
        return Vec::new();
    }
    let wanted = target.target;
    let services: Vec<(&str, &str)> = facts
        .snapshot
        .objects
        .services
        .iter()
        .filter_map(|s| Some((s.metadata.namespace.as_deref()?, s.metadata.name.as_deref()?)))
        .collect();
    let mut elsewhere: Vec<&str> = services.iter().filter(|(_, n)| *n == wanted.service).map(|(ns, _)| *ns).collect();
    elsewhere.sort_unstable();
    let here = services.iter().filter(|(ns, _)| *ns == wanted.namespace).map(|(_, n)| *n);
    let nearest = nearest::name(&wanted.service, here).unwrap_or_default();
    let object = wanted.service_ref();
    let found = check.found(target, object.clone()).with("elsewhere", elsewhere.join(", ")).with("nearest", nearest);
    vec![found.because(Evidence::Absent { object })]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use serde_json::json;

    #[test]
    fn the_same_name_elsewhere_and_a_slip_are_named() {
        let mut sample = Sample::healthy();
        sample.0["targets"][0]["service"] = json!("productpge");
        assert_eq!(sample.finding(1001).arg("nearest"), "productpage");
        let mut sample = Sample::healthy();
        sample.0["targets"][0]["namespace"] = json!("default");
        let found = sample.finding(1001);
        assert_eq!((found.arg("elsewhere"), found.arg("nearest")), ("bookinfo", "-"));
    }
}
