//! A 403, and the Role that would make it none.

use super::ExpectedError;
use crate::exit::Exit;
use crate::model::Text;

/// The right that is missing, as the API server words it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Missing<'a> {
    user: Option<&'a str>,
    verb: &'a str,
    resource: &'a str,
    group: &'a str,
    /// None: at the cluster scope.
    namespace: Option<&'a str>,
}

/// RBAC refuses `verb` on `resource` (as in a Role: `services`, `pods/portforward`), in a namespace or cluster-wide.
pub fn forbidden(verb: &str, resource: &str, namespace: Option<&str>) -> ExpectedError {
    refuse(&Missing { user: None, verb, resource, group: group(resource), namespace })
}

/// The same from a Status message of the API server: `services "x" is forbidden: User "dev" cannot patch resource
/// "services" in API group "" in the namespace "bookinfo"`. A message in other words (an admission plugin's) is
/// passed on as it is.
pub fn of_message(message: &str) -> ExpectedError {
    match parse(message) {
        Some(missing) => refuse(&missing),
        None => ExpectedError::new(Exit::Forbidden, Text::new("error.refused").with("message", message)),
    }
}

fn parse(message: &str) -> Option<Missing<'_>> {
    let quoted = |after: &str| message.split_once(after)?.1.split_once('"').map(|(value, _)| value);
    Some(Missing {
        user: quoted("User \""),
        verb: message.split_once(" cannot ")?.1.split_whitespace().next()?,
        resource: quoted("resource \"")?,
        group: quoted("API group \"").unwrap_or_default(),
        namespace: quoted("in the namespace \""),
    })
}

fn refuse(missing: &Missing<'_>) -> ExpectedError {
    let Missing { verb, resource, .. } = missing;
    let text = match missing.namespace {
        Some(namespace) => {
            Text::new("error.forbidden").with("verb", verb).with("resource", resource).with("namespace", namespace)
        }
        None => Text::new("error.forbidden_cluster").with("verb", verb).with("resource", resource),
    };
    ExpectedError::new(Exit::Forbidden, text).hint(Text::new("error.hint.role").with("role", role(missing)))
}

/// The manifest, ready for `kubectl apply -f -`.
fn role(missing: &Missing<'_>) -> String {
    let Missing { user, verb, resource, group, namespace } = missing;
    let scope = namespace.map(|n| format!(", namespace: {n}")).unwrap_or_default();
    let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    let name = format!("bookaccess-{verb}-{}", resource.replace('/', "-"));
    let mut yaml = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: {kind}\n\
         metadata: {{name: {name}{scope}}}\n\
         rules:\n\
         - {{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [\"{verb}\"]}}"
    );
    if let Some(user) = user {
        let subject = match user.strip_prefix("system:serviceaccount:").and_then(|s| s.split_once(':')) {
            Some((ns, account)) => format!("{{kind: ServiceAccount, name: {account}, namespace: {ns}}}"),
            None => format!("{{kind: User, name: \"{user}\", apiGroup: rbac.authorization.k8s.io}}"),
        };
        yaml.push_str(&format!(
            "\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: {kind}Binding\n\
             metadata: {{name: {name}{scope}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: {name}}}\n\
             subjects:\n\
             - {subject}"
        ));
    }
    yaml
}

/// The API group of the resources this program touches.
fn group(resource: &str) -> &'static str {
    match resource.split('/').next().unwrap_or_default() {
        "deployments" | "daemonsets" | "replicasets" => "apps",
        "endpointslices" => "discovery.k8s.io",
        "leases" => "coordination.k8s.io",
        "networkpolicies" => "networking.k8s.io",
        "clusterrolebindings" => "rbac.authorization.k8s.io",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_words_are_understood() {
        let message = "services \"productpage\" is forbidden: User \"dev\" cannot patch resource \"services\" in API group \"\" in the namespace \"bookinfo\"";
        let expected =
            Missing { user: Some("dev"), verb: "patch", resource: "services", group: "", namespace: Some("bookinfo") };
        assert_eq!(parse(message), Some(expected));
        let message = "daemonsets.apps is forbidden: User \"system:serviceaccount:ci:bot\" cannot list resource \"daemonsets\" in API group \"apps\" at the cluster scope";
        let missing = parse(message).unwrap();
        assert_eq!((missing.namespace, missing.group), (None, "apps"));
        assert_eq!(parse("pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\""), None);
    }

    #[test]
    fn the_role_is_a_manifest() {
        let missing = Missing {
            user: Some("system:serviceaccount:ci:bot"),
            verb: "get",
            resource: "pods/proxy",
            group: "",
            namespace: Some("bookinfo"),
        };
        insta::assert_snapshot!(role(&missing));
        for document in role(&missing).split("---\n") {
            serde_saphyr::from_str::<serde_json::Value>(document).unwrap();
        }
    }
}
