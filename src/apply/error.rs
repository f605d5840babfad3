//! What may go wrong while changing things, as values.

use std::path::PathBuf;

use serde_json::Value;

use crate::exit::Exit;
use crate::model::{ObjectRef, Text};

/// Why a change was not made, or not left in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("may not {verb} {resource} in namespace {namespace:?}: {message}")]
    Forbidden { verb: &'static str, resource: String, namespace: String, message: String },
    /// Admission or validation said no.
    #[error("the API server refuses to change {object}: {message}")]
    Refused { object: ObjectRef, message: String },
    /// Somebody else changed the field.
    #[error("{object}: {field} is {}, expected {}", shown(found), shown(expected))]
    Conflict { object: Box<ObjectRef>, field: String, expected: Option<Value>, found: Option<Value> },
    #[error("{object} is gone, or another of the same name took its place")]
    Gone { object: ObjectRef },
    /// Another fix is under way.
    #[error("another fix is under way in namespace {namespace}: {by}")]
    Held { namespace: String, by: String },
    #[error("journal {path}: {source}")]
    Journal { path: PathBuf, source: std::io::Error },
    #[error("there is no folder to keep a journal in: set BOOKACCESS_STATE_DIR")]
    NoStateFolder,
    /// The workload did not come up with the change.
    #[error("{object} does not come up: {reason}")]
    Rollout { object: ObjectRef, reason: String },
    #[error("the forwarder: {message}")]
    Forward { message: String },
    #[error("the forwarder of fix {fix} runs on {host}, not here")]
    Elsewhere { fix: String, host: String },
    /// A program of this node did not do what a step needs.
    #[error("{command}: {message}")]
    Node { command: String, message: String },
    /// Somebody else changed a setting of this node, or made the same change.
    #[error("{command}: now it is {found}")]
    NodeChanged { command: String, found: String },
    #[error("interrupted")]
    Interrupted,
    /// Nothing that `fix` did is left to take back.
    #[error("there is nothing to undo")]
    NothingToUndo,
    /// It was made on a cluster that this is not.
    #[error("fix {id:?} is of cluster {cluster}, not of this one")]
    OtherCluster { id: String, cluster: String },
    #[error("no fix {id:?} is known; known: {}", known.join(", "))]
    UnknownFix { id: String, known: Vec<String> },
    #[error("kind {kind} is not one that fix changes")]
    Kind { kind: String },
    #[error("API server: {message}")]
    Api { message: String },
}

/// A field's value as a person reads it.
fn shown(value: &Option<Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

impl Error {
    /// As a sentence for people: keys under `apply.error`.
    pub fn text(&self) -> Text {
        match self {
            Error::Forbidden { verb, resource, namespace, message: _ } => Text::new("apply.error.forbidden")
                .with("verb", verb)
                .with("resource", resource)
                .with("namespace", namespace),
            Error::Refused { object, message } => {
                Text::new("apply.error.refused").with("object", object).with("message", message)
            }
            Error::Conflict { object, field, expected, found } => Text::new("apply.error.conflict")
                .with("object", object)
                .with("field", field)
                .with("expected", shown(expected))
                .with("found", shown(found)),
            Error::Gone { object } => Text::new("apply.error.gone").with("object", object),
            Error::Held { namespace, by } => Text::new("apply.error.held").with("namespace", namespace).with("by", by),
            Error::Journal { path, source } => {
                Text::new("apply.error.journal").with("path", path.display()).with("message", source)
            }
            Error::NoStateFolder => Text::new("apply.error.no_state_folder"),
            Error::Rollout { object, reason } => {
                Text::new("apply.error.rollout").with("object", object).with("reason", reason)
            }
            Error::Forward { message } => Text::new("apply.error.forward").with("message", message),
            Error::Elsewhere { fix, host } => Text::new("apply.error.elsewhere").with("fix", fix).with("host", host),
            Error::Node { command, message } => {
                Text::new("apply.error.node").with("command", command).with("message", message)
            }
            Error::NodeChanged { command, found } => {
                Text::new("apply.error.node_changed").with("command", command).with("found", found)
            }
            Error::Interrupted => Text::new("apply.error.interrupted"),
            Error::NothingToUndo => Text::new("apply.error.nothing_to_undo"),
            Error::OtherCluster { id, cluster } => {
                Text::new("apply.error.other_cluster").with("id", id).with("cluster", cluster)
            }
            Error::UnknownFix { id, known } => {
                Text::new("apply.error.unknown_fix").with("id", id).with("known", known.join(", "))
            }
            Error::Kind { kind } => Text::new("apply.error.kind").with("kind", kind),
            Error::Api { message } => Text::new("apply.error.api").with("message", message),
        }
    }

    /// The exit code, where this error ends the command.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Forbidden { .. } => Exit::Forbidden,
            Error::Interrupted => Exit::Interrupted,
            Error::NoStateFolder | Error::OtherCluster { .. } | Error::UnknownFix { .. } | Error::Journal { .. } => {
                Exit::Usage
            }
            Error::NothingToUndo => Exit::Ok,
            _ => Exit::Problem,
        }
    }
}
