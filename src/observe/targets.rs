//! From what the user typed to Targets. Pure but for its input: the Services, Deployments and Pods that are there.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use crate::facts::nearest::distance;
use crate::facts::service::is_sibling;
use crate::model::pod::Pod;
use crate::model::{Kind, NoTarget, Target, TargetWord};

/// The page of Bookinfo.
pub const PRODUCTPAGE: &str = "productpage";
/// The namespace that Bookinfo's manifest uses.
pub const BOOKINFO: &str = "bookinfo";
/// Where this lab's browsers expect the two default pages.
pub const PRODUCTPAGE_PORT: u16 = 30080;
/// See [`PRODUCTPAGE_PORT`].
pub const GRAFANA_PORT: u16 = 30300;

/// What can be seen when targets are chosen.
pub struct Seen<'a> {
    pub services: &'a [Service],
    /// Names of all namespaces; empty where they may not be listed.
    pub namespaces: &'a [String],
    /// Deployments and pods, of the namespaces that the arguments name.
    pub deployments: &'a [Deployment],
    pub pods: &'a [Pod],
}

/// Why an argument names no single target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no namespace {name:?}")]
    NoNamespace { name: String, nearest: Option<String> },
    #[error("no Service {namespace}/{name}")]
    NoService { namespace: String, name: String, nearest: Option<String> },
    #[error("{argument:?} fits several: {}", fits.join(", "))]
    Ambiguous { argument: String, fits: Vec<String> },
    #[error("no Service selects {argument:?}")]
    NotSelected { argument: String },
    #[error("{argument:?} is no target")]
    Malformed { argument: String },
    #[error("nothing to look at")]
    NoDefault,
}

impl From<NoTarget> for Error {
    fn from(NoTarget(argument): NoTarget) -> Self {
        Error::Malformed { argument }
    }
}

/// Chooses the Target that an argument means. `namespace` is that of `-n` or the context; without `-n` a name that
/// is not there is looked for in all namespaces and taken where it stands in one only.
///
/// # Errors
/// See [`Error`].
pub fn choose(argument: &TargetWord, namespace: &str, namespace_named: bool, seen: &Seen<'_>) -> Result<Target, Error> {
    let fixed = argument.namespace.clone().or_else(|| namespace_named.then(|| namespace.to_owned()));
    if let Some(name) = &fixed
        && !seen.namespaces.is_empty()
        && !seen.namespaces.contains(name)
    {
        return Err(Error::NoNamespace {
            name: name.clone(),
            nearest: nearest(name, seen.namespaces.iter().map(String::as_str)),
        });
    }
    let home = fixed.clone().unwrap_or_else(|| namespace.to_owned());
    match argument.kind {
        Kind::Service => service(&argument.name, &home, fixed.is_some(), seen),
        Kind::Deployment => {
            let labels = seen
                .deployments
                .iter()
                .find(|d| d.namespace().as_deref() == Some(&home) && d.name_any() == argument.name)
                .and_then(|d| d.spec.as_ref()?.template.metadata.as_ref()?.labels.clone());
            selected(labels, "deploy", &argument.name, &home, seen)
        }
        Kind::Pod => {
            let pod =
                seen.pods.iter().find(|p| p.namespace().as_deref() == Some(&home) && p.name_any() == argument.name);
            selected(pod.map(|p| p.labels().clone()), "pod", &argument.name, &home, seen)
        }
    }
}

fn service(name: &str, home: &str, fixed: bool, seen: &Seen<'_>) -> Result<Target, Error> {
    let there = |ns: &str| seen.services.iter().find(|s| s.namespace().as_deref() == Some(ns) && s.name_any() == name);
    if let Some(service) = there(home) {
        return Ok(of_service(service, true));
    }
    if !fixed {
        let elsewhere: Vec<&Service> = seen.services.iter().filter(|s| s.name_any() == name).collect();
        match elsewhere.as_slice() {
            [] => {}
            [one] => return Ok(of_service(one, true)),
            many => {
                return Err(Error::Ambiguous {
                    argument: name.to_owned(),
                    fits: many.iter().map(|s| format!("{}/{}", s.namespace().unwrap_or_default(), name)).collect(),
                });
            }
        }
    }
    // The application is there and only its Service is missing: that is a finding, not a typing error.
    let is_app = |d: &&Deployment| {
        d.namespace().as_deref() == Some(home)
            && (d.name_any() == name || d.name_any().starts_with(&format!("{name}-v")))
    };
    if seen.deployments.iter().any(|d| is_app(&d)) {
        return Ok(known(home, name, None, true));
    }
    let names = seen.services.iter().filter(|s| s.namespace().as_deref() == Some(home)).map(|s| s.name_any());
    let names: Vec<String> = names.collect();
    Err(Error::NoService {
        namespace: home.to_owned(),
        name: name.to_owned(),
        nearest: nearest(name, names.iter().map(String::as_str)),
    })
}

fn selected(
    labels: Option<std::collections::BTreeMap<String, String>>,
    kind: &str,
    name: &str,
    home: &str,
    seen: &Seen<'_>,
) -> Result<Target, Error> {
    let argument = format!("{kind}/{name}");
    let Some(labels) = labels else {
        return Err(Error::NoService { namespace: home.to_owned(), name: argument, nearest: None });
    };
    let selects = |s: &&Service| {
        s.namespace().as_deref() == Some(home)
            && !is_sibling(s)
            && s.spec
                .as_ref()
                .and_then(|spec| spec.selector.as_ref())
                .is_some_and(|sel| !sel.is_empty() && sel.iter().all(|(k, v)| labels.get(k) == Some(v)))
    };
    match seen.services.iter().filter(selects).collect::<Vec<_>>().as_slice() {
        [] => Err(Error::NotSelected { argument }),
        [one] => Ok(of_service(one, true)),
        many => {
            Err(Error::Ambiguous { argument, fits: many.iter().map(|s| format!("svc/{}", s.name_any())).collect() })
        }
    }
}

/// The default targets: productpage in `bookinfo` (or `-n`), Grafana by nodePort 30300, else by label; those that exist.
/// productpage counts as existing when its namespace does, so that a missing Service is named.
///
/// # Errors
/// [`Error::NoDefault`] where neither is there.
pub fn defaults(namespace: Option<&str>, seen: &Seen<'_>) -> Result<Vec<Target>, Error> {
    let home = namespace.unwrap_or(BOOKINFO);
    let at =
        |ns: &str| seen.services.iter().find(|s| s.namespace().as_deref() == Some(ns) && s.name_any() == PRODUCTPAGE);
    let elsewhere = || {
        let mut found = seen.services.iter().filter(|s| s.name_any() == PRODUCTPAGE);
        found.next().filter(|_| namespace.is_none() && found.next().is_none())
    };
    let mut targets = Vec::new();
    if let Some(service) = at(home).or_else(elsewhere) {
        targets.push(of_service(service, false));
    } else if seen
        .deployments
        .iter()
        .any(|d| d.namespace().as_deref() == Some(home) && d.name_any().starts_with(PRODUCTPAGE))
    {
        targets.push(known(home, PRODUCTPAGE, None, false));
    }
    let in_scope = |s: &&Service| namespace.is_none_or(|ns| s.namespace().as_deref() == Some(ns));
    let by_port = seen.services.iter().filter(in_scope).find(|s| node_ports(s).contains(&GRAFANA_PORT));
    let by_label = || {
        seen.services
            .iter()
            .filter(in_scope)
            .find(|s| s.labels().get("app.kubernetes.io/name").is_some_and(|l| l == "grafana"))
    };
    let by_name = || seen.services.iter().filter(in_scope).find(|s| s.name_any() == "grafana");
    if let Some(service) = by_port.or_else(by_label).or_else(by_name) {
        targets.push(grafana(
            &service.namespace().unwrap_or_default(),
            &service.name_any(),
            first_port(service),
            false,
        ));
    }
    if targets.is_empty() { Err(Error::NoDefault) } else { Ok(targets) }
}

/// For `-A`: every NodePort Service of the cluster.
pub fn all(seen: &Seen<'_>) -> Vec<Target> {
    seen.services.iter().filter(|s| !node_ports(s).is_empty() && !is_sibling(s)).map(|s| of_service(s, false)).collect()
}

fn of_service(service: &Service, named: bool) -> Target {
    known(&service.namespace().unwrap_or_default(), &service.name_any(), first_port(service), named)
}

/// What is known of an application by its name: port, path, and what its page says.
fn known(namespace: &str, name: &str, node_port: Option<u16>, named: bool) -> Target {
    if name == "grafana" || node_port == Some(GRAFANA_PORT) {
        return grafana(namespace, name, node_port, named);
    }
    let (node_port, path, marker) = match name {
        PRODUCTPAGE => (Some(PRODUCTPAGE_PORT), "/productpage", Some("Simple Bookstore App")),
        _ => (node_port, "/", None),
    };
    Target {
        namespace: namespace.to_owned(),
        service: name.to_owned(),
        port: None,
        node_port,
        path: path.to_owned(),
        usual_path: None,
        https: false,
        marker: marker.map(str::to_owned),
        named,
    }
}

/// Grafana, on the nodePort that its Service has, whatever its name.
fn grafana(namespace: &str, name: &str, node_port: Option<u16>, named: bool) -> Target {
    Target {
        namespace: namespace.to_owned(),
        service: name.to_owned(),
        port: None,
        node_port: node_port.or(Some(GRAFANA_PORT)),
        path: "/api/health".to_owned(),
        usual_path: None,
        https: false,
        marker: Some("\"database\"".to_owned()),
        named,
    }
}

fn first_port(service: &Service) -> Option<u16> {
    node_ports(service).first().copied()
}

fn node_ports(service: &Service) -> Vec<u16> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref());
    ports.map(|p| p.iter().filter_map(|p| u16::try_from(p.node_port?).ok()).collect()).unwrap_or_default()
}

/// The candidate that is nearest to a typing error: at most a third of the letters differ.
pub fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|c| (distance(typed, c), c))
        .filter(|(d, c)| *d * 3 <= typed.chars().count().max(c.chars().count()).max(3))
        .min()
        .map(|(_, c)| c.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svc(namespace: &str, name: &str, node_port: Option<i32>) -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 9080, "nodePort": node_port}]}
        }))
        .unwrap()
    }

    #[test]
    fn a_name_is_found_in_the_only_namespace_that_has_it() {
        let services = [svc("bookinfo", "productpage", Some(30080)), svc("a", "web", None), svc("b", "web", None)];
        let namespaces = ["default", "bookinfo", "a", "b"].map(str::to_owned);
        let seen = Seen { services: &services, namespaces: &namespaces, deployments: &[], pods: &[] };
        let pick = |typed: &str, named| choose(&typed.parse().unwrap(), "default", named, &seen).map(|t| t.to_string());
        assert_eq!(pick("productpage", false), Ok("bookinfo/productpage".to_owned()));
        assert!(matches!(pick("web", false), Err(Error::Ambiguous { fits, .. }) if fits.len() == 2));
        assert!(matches!(pick("productpage", true), Err(Error::NoService { .. })));
        assert!(
            matches!(pick("bookinf/productpage", false), Err(Error::NoNamespace { nearest: Some(n), .. }) if n == "bookinfo")
        );
        assert!(
            matches!(pick("bookinfo/productpagee", false), Err(Error::NoService { nearest: Some(n), .. }) if n == "productpage")
        );
    }

    #[test]
    fn defaults_are_those_that_exist() {
        let services = [svc("bookinfo", "productpage", None), svc("monitoring", "grafana", None)];
        let seen = Seen { services: &services, namespaces: &[], deployments: &[], pods: &[] };
        let found: Vec<_> = defaults(None, &seen).unwrap().iter().map(|t| (t.to_string(), t.node_port)).collect();
        assert_eq!(
            found,
            [("bookinfo/productpage".to_owned(), Some(30080)), ("monitoring/grafana".to_owned(), Some(30300))]
        );
        let none = Seen { services: &[], namespaces: &[], deployments: &[], pods: &[] };
        assert_eq!(defaults(None, &none), Err(Error::NoDefault));
    }
}
