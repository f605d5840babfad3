//! One Service with its port, selector, pods, endpoints and workload.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};

use crate::model::{Snapshot, Target};

use super::Endpoint;

/// The Service of one target, and what hangs on it.
pub struct ServiceFacts<'a> {
    pub service: &'a Service,
    /// The port in question and its index in `spec.ports`; none where the Service has no ports.
    pub port: Option<(usize, &'a ServicePort)>,
    /// Pods that the selector matches, terminating ones included.
    pub pods: Vec<&'a Pod>,
    /// Endpoints of the port in question.
    pub endpoints: Vec<Endpoint<'a>>,
    /// The Deployment whose pod template the selector matches; where none matches, the one that is nearest
    /// (its name is the Service's, or the Service's followed by `-v…`, or most labels agree).
    pub deployment: Option<&'a Deployment>,
}

impl<'a> ServiceFacts<'a> {
    /// None where the Service is not in the Snapshot.
    pub fn derive(_snapshot: &'a Snapshot, _target: &Target) -> Option<Self> {
        None
    }
}
