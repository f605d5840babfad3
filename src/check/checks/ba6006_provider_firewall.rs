//! BA6006: the firewall of a cloud other than AWS is closed for the port.

use crate::check::{Check, Hop, edge};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(6006),
    slug: "provider-firewall",
    hop: Hop::Edge,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes, Input::ClientProbe],
    either: &[],
    // Each cloud has its own command: the text says it.
    remedies: &[],
    explains: &[Code(6001)],
    run,
};

/// Start of a node's providerID, the cloud's name, the command that opens a port and the one that closes it again.
const CLOUDS: [(&str, &str, &str, &str); 5] = [
    (
        "gce://",
        "Google Cloud",
        "gcloud compute firewall-rules create bookaccess-PORT --allow=tcp:PORT --source-ranges=MY_IP/32",
        "gcloud compute firewall-rules delete bookaccess-PORT",
    ),
    (
        "azure://",
        "Azure",
        "az network nsg rule create -g GROUP --nsg-name NSG -n bookaccess-PORT --priority 900 --access Allow --protocol Tcp --destination-port-ranges PORT --source-address-prefixes MY_IP/32",
        "az network nsg rule delete -g GROUP --nsg-name NSG -n bookaccess-PORT",
    ),
    (
        "hcloud://",
        "Hetzner Cloud",
        "hcloud firewall add-rule FIREWALL --direction in --protocol tcp --port PORT --source-ips MY_IP/32",
        "hcloud firewall delete-rule FIREWALL --direction in --protocol tcp --port PORT --source-ips MY_IP/32",
    ),
    (
        "digitalocean://",
        "DigitalOcean",
        "doctl compute firewall add-rules FIREWALL --inbound-rules protocol:tcp,ports:PORT,address:MY_IP/32",
        "doctl compute firewall remove-rules FIREWALL --inbound-rules protocol:tcp,ports:PORT,address:MY_IP/32",
    ),
    (
        "ocid1.",
        "Oracle Cloud",
        "oci network nsg rules add --nsg-id NSG --security-rules file://allow-PORT.json",
        "oci network nsg rules remove --nsg-id NSG --security-rule-ids RULE",
    ),
];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let node = target.reach.node.and_then(|n| facts.node(n));
    let id = node.and_then(|n| n.spec.as_ref()?.provider_id.as_deref()).unwrap_or_default();
    let Some((_, provider, open, close)) = CLOUDS.iter().find(|c| id.starts_with(c.0)) else { return Vec::new() };
    let port = target.reach.port.unwrap_or_default().to_string();
    let found = edge::dropped(check, facts, target).map(|found| {
        let found = found.with("provider", provider).with("command", open.replace("PORT", &port));
        found.with("undo", close.replace("PORT", &port))
    });
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn on(provider: &str) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.objects("nodes")[0]["spec"]["providerID"] = json!(provider);
        sample.answer(json!({"outcome": "timeout"}));
        sample
    }

    #[test]
    fn the_cloud_s_own_command_is_told() {
        assert_eq!(on("hcloud://1").said(), [(6006, Severity::Error)]);
        assert!(on("hcloud://1").finding(6006).arg("command").contains("--port 30080"));
        assert_eq!(on("aws:///z/i-1").said(), [(6001, Severity::Error)]);
    }
}
