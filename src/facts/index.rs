//! Where what belongs together lies in the Snapshot's lists: made in one pass over each, so that a target's part of a
//! large cluster is looked up and never searched for.

use std::collections::hash_map::{Entry, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::{node, pod, service};
use crate::model::pod::Pod;
use crate::model::{Gap, Input, Probe, Snapshot, Target};

/// What lies at two words: a namespace and a name, or a label's key and value.
struct Places<'a, T>(HashMap<&'a str, HashMap<&'a str, T>>);

/// By namespace and one label. Only labels that some target's Service selects by are here.
type Labelled<'a, T> = HashMap<&'a str, Places<'a, Vec<&'a T>>>;

impl<T> Default for Places<'_, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'a, T> Places<'a, T> {
    fn at(&mut self, first: &'a str, second: &'a str) -> Entry<'_, &'a str, T> {
        self.0.entry(first).or_default().entry(second)
    }

    fn get(&self, first: &str, second: &str) -> Option<&T> {
        self.0.get(first)?.get(second)
    }

    fn get_mut(&mut self, first: &str, second: &str) -> Option<&mut T> {
        self.0.get_mut(first)?.get_mut(second)
    }
}

/// The lists of a Snapshot by what they are asked for. Each part keeps the Snapshot's order.
#[derive(Default)]
pub struct Index<'a> {
    services: Places<'a, &'a Service>,
    labelled: Labelled<'a, Pod>,
    pods_on: HashMap<&'a str, Vec<&'a Pod>>,
    pods_in: HashMap<&'a str, Vec<&'a Pod>>,
    deployments: HashMap<&'a str, Vec<&'a Deployment>>,
    /// By a label of their pods.
    templates: Labelled<'a, Deployment>,
    slices: Places<'a, Vec<&'a EndpointSlice>>,
    policies: HashMap<&'a str, Vec<&'a NetworkPolicy>>,
    events: Places<'a, Vec<&'a Event>>,
    nodes: HashMap<&'a str, &'a Node>,
    /// By InternalIP or ExternalIP, as the Node spells it.
    owners: HashMap<&'a str, &'a Node>,
    only_control_plane: Option<&'a Node>,
    /// This node and its own addresses, where the look was made on one as root.
    here: Option<(&'a str, &'a [IpAddr])>,
    probes: HashMap<&'a str, Vec<&'a Probe>>,
    gaps: HashMap<Input, Gaps<'a>>,
}

/// The first gap of each kind, with its place in the list.
#[derive(Default)]
struct Gaps<'a> {
    all: Option<(usize, &'a Gap)>,
    any: Option<(usize, &'a Gap)>,
    subjects: HashMap<&'a str, (usize, &'a Gap)>,
    within: HashMap<&'a str, (usize, &'a Gap)>,
}

/// What a gap is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About<'a> {
    /// The whole input.
    All,
    /// Just this: a namespace, `namespace/name`, a node, an address.
    Subject(&'a str),
    /// Something in this namespace.
    Within(&'a str),
    /// Whatever it is.
    Anything,
}

impl<'a> Index<'a> {
    /// Goes once through every list.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let objects = &snapshot.objects;
        let mut index = Self::default();
        for service in &objects.services {
            if let (Some(namespace), Some(name)) =
                (service.metadata.namespace.as_deref(), service.metadata.name.as_deref())
            {
                index.services.at(namespace, name).or_insert(service);
            }
        }
        index.take_pods(snapshot);
        for deployment in &objects.deployments {
            let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
            index.deployments.entry(namespace).or_default().push(deployment);
            for (key, value) in service::template_labels(deployment).into_iter().flatten() {
                if let Some(made) = index.templates.get_mut(namespace).and_then(|t| t.get_mut(key, value)) {
                    made.push(deployment);
                }
            }
        }
        for slice in &objects.endpoint_slices {
            let owner = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
            if let (Some(namespace), Some(owner)) = (slice.metadata.namespace.as_deref(), owner) {
                index.slices.at(namespace, owner).or_default().push(slice);
            }
        }
        for policy in &objects.network_policies {
            let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
            index.policies.entry(namespace).or_default().push(policy);
        }
        for event in &objects.events {
            let about = &event.involved_object;
            if let (Some(namespace), Some(name)) = (about.namespace.as_deref(), about.name.as_deref()) {
                index.events.at(namespace, name).or_default().push(event);
            }
        }
        index.take_nodes(&objects.nodes);
        let addresses = snapshot.host.as_ref().map(|host| host.addresses.as_slice());
        index.here = snapshot.stand.node.as_deref().zip(addresses);
        for probe in &snapshot.probes {
            if let Some(target) = probe.target.as_deref() {
                index.probes.entry(target).or_default().push(probe);
            }
        }
        index.take_gaps(&snapshot.gaps);
        index
    }

    fn take_pods(&mut self, snapshot: &'a Snapshot) {
        for target in &snapshot.targets {
            let selector = self.service_of(target).and_then(service::selector);
            for (key, value) in selector.into_iter().flatten() {
                self.labelled.entry(&target.namespace).or_default().at(key, value).or_default();
                self.templates.entry(&target.namespace).or_default().at(key, value).or_default();
            }
        }
        for pod in &snapshot.objects.pods {
            if let Some(node) = pod::node(pod) {
                self.pods_on.entry(node).or_default().push(pod);
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            self.pods_in.entry(namespace).or_default().push(pod);
            let Some(wanted) = self.labelled.get_mut(namespace) else { continue };
            for (key, value) in pod.metadata.labels.iter().flatten() {
                if let Some(labelled) = wanted.get_mut(key, value) {
                    labelled.push(pod);
                }
            }
        }
    }

    fn take_nodes(&mut self, nodes: &'a [Node]) {
        for found in nodes {
            self.nodes.entry(node::name(found)).or_insert(found);
            for address in ["InternalIP", "ExternalIP"].iter().flat_map(|kind| node::addresses(found, kind)) {
                self.owners.entry(address).or_insert(found);
            }
        }
        let mut control_planes = nodes.iter().filter(|n| node::is_control_plane(n));
        self.only_control_plane = control_planes.next().filter(|_| control_planes.next().is_none());
    }

    fn take_gaps(&mut self, gaps: &'a [Gap]) {
        for (at, gap) in gaps.iter().enumerate() {
            let of_input = self.gaps.entry(gap.input).or_default();
            of_input.any.get_or_insert((at, gap));
            match gap.subject.as_deref() {
                None => {
                    of_input.all.get_or_insert((at, gap));
                }
                Some(subject) => {
                    of_input.subjects.entry(subject).or_insert((at, gap));
                    if let Some((namespace, _)) = subject.split_once('/') {
                        of_input.within.entry(namespace).or_insert((at, gap));
                    }
                }
            }
        }
    }

    /// The Service of that name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        self.services.get(namespace, name).copied()
    }

    /// The Service by which a target's browsers come: its own, or a sibling of ours that leads to the pods of one that
    /// opens no port on the nodes.
    pub fn service_of(&self, target: &Target) -> Option<&'a Service> {
        let own = self.service(&target.namespace, &target.service)?;
        let sibling = self.service(&target.namespace, &service::sibling_name(&target.service));
        Some(sibling.filter(|s| service::is_sibling(s) && service::opens_no_port(own)).unwrap_or(own))
    }

    /// The pods that the Service of a target selects.
    pub fn selected(&self, namespace: &str, service: &Service) -> Vec<&'a Pod> {
        let selector = service::selector(service);
        let pods = fewest(&self.labelled, namespace, selector).iter().copied();
        pods.filter(|p| service::matches(selector, p.metadata.labels.as_ref())).collect()
    }

    /// The Deployments whose pods the Service of a target selects.
    pub fn behind(&self, namespace: &str, service: &Service) -> Vec<&'a Deployment> {
        let selector = service::selector(service);
        let made = fewest(&self.templates, namespace, selector).iter().copied();
        made.filter(|d| service::matches(selector, service::template_labels(d))).collect()
    }

    /// The pods bound to a node.
    pub fn pods_on(&self, node: &str) -> &[&'a Pod] {
        part(&self.pods_on, node)
    }

    /// The pods of a namespace.
    pub fn pods_in(&self, namespace: &str) -> &[&'a Pod] {
        part(&self.pods_in, namespace)
    }

    /// The Deployments of a namespace.
    pub fn deployments(&self, namespace: &str) -> &[&'a Deployment] {
        part(&self.deployments, namespace)
    }

    /// The EndpointSlices of a Service.
    pub fn slices(&self, namespace: &str, service: &str) -> &[&'a EndpointSlice] {
        self.slices.get(namespace, service).map(Vec::as_slice).unwrap_or_default()
    }

    /// The NetworkPolicies of a namespace.
    pub fn policies(&self, namespace: &str) -> &[&'a NetworkPolicy] {
        part(&self.policies, namespace)
    }

    /// The events about an object.
    pub fn events(&self, namespace: &str, name: &str) -> &[&'a Event] {
        self.events.get(namespace, name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&'a Node> {
        self.nodes.get(name).copied()
    }

    /// This node, where it has this address, whether or not the cluster knows of it.
    pub fn here(&self, address: IpAddr) -> Option<&'a str> {
        self.here.filter(|(_, addresses)| addresses.contains(&address)).map(|(node, _)| node)
    }

    /// The node that has this address.
    pub fn owner(&self, address: &str) -> Option<&'a Node> {
        self.owners.get(address).copied()
    }

    /// The control-plane node, where there is only one.
    pub fn only_control_plane(&self) -> Option<&'a Node> {
        self.only_control_plane
    }

    /// The probes made for a target.
    pub fn probes(&self, target: &str) -> &[&'a Probe] {
        part(&self.probes, target)
    }

    /// The first gap of an input that is about one of these.
    pub(super) fn gap(&self, input: Input, about: &[About<'_>]) -> Option<&'a Gap> {
        let of_input = self.gaps.get(&input)?;
        let found = about.iter().filter_map(|about| match about {
            About::All => of_input.all.as_ref(),
            About::Anything => of_input.any.as_ref(),
            About::Subject(subject) => of_input.subjects.get(subject),
            About::Within(namespace) => of_input.within.get(namespace),
        });
        found.min_by_key(|(at, _)| *at).map(|(_, gap)| *gap)
    }
}

/// Of those that bear one of the selector's labels, the fewest: the least to look through.
fn fewest<'s, 'a, T>(
    labelled: &'s Labelled<'a, T>,
    namespace: &str,
    selector: Option<&std::collections::BTreeMap<String, String>>,
) -> &'s [&'a T] {
    let here = labelled.get(namespace);
    let each = selector.into_iter().flatten().filter_map(|(key, value)| here?.get(key, value));
    let fewest = each.min_by_key(|all| all.len());
    fewest.map(Vec::as_slice).unwrap_or_default()
}

fn part<'s, 'a, T>(parts: &'s HashMap<&'a str, Vec<&'a T>>, name: &str) -> &'s [&'a T] {
    parts.get(name).map(Vec::as_slice).unwrap_or_default()
}
