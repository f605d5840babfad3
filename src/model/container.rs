//! A pod's container as far as it is read: the API's own type is 2 kB of fields that are mostly empty, and the largest
//! clusters have 150,000 of them.

use k8s_openapi::api::core::v1::{self, ContainerPort, ContainerState, Probe};
use serde::{Deserialize, Deserializer, Serialize};

/// Names and shapes are those of the API (core/v1 Container).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::pod::tight_option")]
    pub ports: Option<Vec<ContainerPort>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Box<Probe>>,
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
}

/// What it may take (core/v1 ResourceRequirements).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub limits: Limits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// A quantity, such as `512Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

impl Resources {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a container fares (core/v1 ContainerStatus).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub image: String,
    pub ready: bool,
    pub restart_count: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ContainerState>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "said")]
    pub last_state: Option<Box<ContainerState>>,
}

/// The same of a template's container, which the API's own type holds.
impl From<&v1::Container> for Container {
    fn from(whole: &v1::Container) -> Self {
        let limits = whole.resources.as_ref().and_then(|r| r.limits.as_ref());
        Self {
            name: whole.name.clone(),
            image: whole.image.clone(),
            command: whole.command.clone(),
            args: whole.args.clone(),
            ports: whole.ports.clone(),
            readiness_probe: whole.readiness_probe.clone().map(Box::new),
            resources: Resources {
                limits: Limits { memory: limits.and_then(|l| l.get("memory")).map(|q| q.0.clone()) },
            },
        }
    }
}

/// The containers of a template.
#[must_use]
pub fn of_template(spec: &v1::PodSpec) -> Vec<Container> {
    spec.containers.iter().map(Container::from).collect()
}

/// A container that never ended has `{}` here, which takes as much room as an end does.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<ContainerState>>, D::Error> {
    let state = Option::<ContainerState>::deserialize(from)?;
    Ok(state.filter(|s| *s != ContainerState::default()).map(Box::new))
}
