//! What the user may do, asked before it is tried: what is sure to be refused is not sent, and stands in no audit log.

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::client::Cluster;
use super::objects::limit;
use crate::model::GapReason;

/// port-forward to a pod.
pub const PORT_FORWARD: &str = "pods/portforward";

/// The rules that hold for the user, by namespace. One is missing where they could not be had whole: there all is tried.
#[derive(Debug, Default)]
pub struct Rights(BTreeMap<String, Vec<ResourceRule>>);

impl Rights {
    /// Asks for these namespaces at once.
    pub async fn ask(cluster: &Cluster, namespaces: impl IntoIterator<Item = String>) -> Self {
        let each = namespaces.into_iter().map(|namespace| async move {
            let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.clone()) };
            let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
            let api: Api<SelfSubjectRulesReview> = Api::all(cluster.client.clone());
            let params = PostParams::default();
            let asked = tokio::time::timeout(limit(cluster), api.create(&params, &review)).await;
            let status = asked.ok()?.ok()?.status?;
            (!status.incomplete && status.evaluation_error.is_none()).then_some((namespace, status.resource_rules))
        });
        Self(join_all(each).await.into_iter().flatten().collect())
    }

    /// Why a GET of this is sure to be refused; none where it may be tried. `resource` is of the core group, with its
    /// subresource: `pods/proxy`.
    pub fn refusal(&self, namespace: &str, resource: &str) -> Option<GapReason> {
        let rules = self.0.get(namespace)?;
        // port-forward is a GET that opens a WebSocket; which of the verbs it needs depends on the version.
        let verbs: &[&str] = if resource == PORT_FORWARD { &["create", "get"] } else { &["get"] };
        let holds = |list: &[String], word: &str| list.iter().any(|w| w == "*" || w == word);
        let any = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        let allowed = rules.iter().any(|rule| {
            let resources = rule.resources.as_deref().unwrap_or_default();
            verbs.iter().any(|verb| holds(&rule.verbs, verb))
                && holds(rule.api_groups.as_deref().unwrap_or_default(), "")
                && (holds(resources, resource) || any.as_ref().is_some_and(|any| resources.contains(any)))
        });
        (!allowed).then(|| GapReason::Denied { verb: verbs[0].to_owned(), resource: resource.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn rights(rules: serde_json::Value) -> Rights {
        Rights([("bookinfo".to_owned(), serde_json::from_value(rules).unwrap())].into())
    }

    #[test]
    fn a_rule_names_a_resource_all_of_them_or_a_subresource_of_all() {
        for (resources, allowed) in
            [(json!(["pods/proxy"]), true), (json!(["*"]), true), (json!(["*/proxy"]), true), (json!(["pods"]), false)]
        {
            let rights = rights(json!([{"verbs": ["get"], "apiGroups": [""], "resources": resources}]));
            assert_eq!(rights.refusal("bookinfo", "pods/proxy").is_none(), allowed, "{resources}");
        }
    }

    #[test]
    fn verb_and_group_count_as_well() {
        let rights = rights(json!([{"verbs": ["list"], "apiGroups": ["*"], "resources": ["*"]},
            {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]}]));
        let denied = GapReason::Denied { verb: "create".to_owned(), resource: PORT_FORWARD.to_owned() };
        assert_eq!(rights.refusal("bookinfo", PORT_FORWARD), Some(denied));
    }

    #[test]
    fn where_nothing_is_known_all_is_tried() {
        assert_eq!(rights(json!([])).refusal("kube-system", "pods/proxy"), None);
        assert!(rights(json!([])).refusal("bookinfo", "pods/proxy").is_some());
    }
}
