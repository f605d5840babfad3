//! BA0102: the environment names an HTTP proxy, and through it the page does not open, though it does without.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, spared};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(102),
    slug: "http-proxy",
    hop: Hop::Client,
    // The page is there; only what goes through the proxy does not see it.
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::HttpProxy],
    either: &[Input::ClientProbe, Input::OutsiderProbe],
    // The environment is the user's.
    remedies: &[],
    explains: &[],
    run,
};

/// The proxy wants to know who asks: a browser has an answer to that, a probe has none.
const LOGIN: u16 = 407;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(proxy), Some(address)) = (&facts.snapshot.client.http_proxy, target.reach.address) else {
        return Vec::new();
    };
    if target.reach.answers != Some(true) || spared::spares(&proxy.spared, address) {
        return Vec::new();
    }
    let asked = |ip: std::net::IpAddr| target.reach.http_proxy.iter().find(move |p| p.host.parse() == Ok(ip));
    let Some(through) = asked(address.ip) else { return Vec::new() };
    if through.outcome.is_right() || matches!(through.outcome, Outcome::Http { status: LOGIN, .. }) {
        return Vec::new();
    }
    let object = ObjectRef::cluster("Environment", &proxy.variable);
    let found = check
        .found(target, object.clone())
        .with("variable", &proxy.variable)
        .with("proxy", &proxy.host)
        .with("path", &target.target.path);
    let direct = target.reach.decisive.iter().copied().filter(|p| p.outcome.is_right()).take(1);
    vec![found.because(field(&object, "host", proxy.host.as_str())).because_of([*through]).because_of(direct)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::{Value, json};

    fn behind(spared: Value, outcome: Value) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["client"] =
            json!({"httpProxy": {"variable": "http_proxy", "host": "proxy.corp:3128", "spared": spared}});
        let mut probe = json!({"vantage": "httpProxy", "target": "bookinfo/productpage", "host": "203.0.113.10",
            "port": 30080, "millis": 40});
        for (key, value) in outcome.as_object().into_iter().flatten() {
            probe[key] = value.clone();
        }
        sample.probe(probe);
        sample
    }

    #[test]
    fn what_opens_without_the_proxy_and_not_through_it() {
        let gateway = json!({"outcome": "http", "status": 503, "right": false});
        assert_eq!(behind(json!([]), gateway.clone()).said(), [(102, Severity::Warning)]);
        assert_eq!(behind(json!(["203.0.113.0/24"]), gateway).said(), []);
    }

    #[test]
    fn a_proxy_that_leads_there_or_asks_for_a_password_is_not_accused() {
        for (status, right) in [(200, true), (407, false)] {
            assert_eq!(behind(json!([]), json!({"outcome": "http", "status": status, "right": right})).said(), []);
        }
    }
}
