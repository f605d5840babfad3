//! What a finding rests on, as typed data.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{NodePortRule, ObjectRef, Probe};

/// One piece of evidence. Rendered as a line by `render`, passed on as it is in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Evidence {
    /// A field of an object, as read. `path` as kubectl explains it: `spec.type`, `spec.ports[0].targetPort`.
    Field { object: ObjectRef, path: String, value: Value },
    /// A probe that was made.
    Probe { probe: Probe },
    /// Where a nodePort leads in this node's rules.
    Rule { node: String, rule: NodePortRule },
    /// This node's rules know no such nodePort.
    NoRule { node: String, port: u16 },
    /// An object that should be there is not.
    Absent { object: ObjectRef },
    /// A container's state: waiting or terminated, with reason and message.
    Container { object: ObjectRef, container: String, reason: String, message: String },
    /// A condition of a node or pod.
    Condition { object: ObjectRef, condition: String, status: String, message: String },
    /// Something that was counted: endpoints ready of all, pods desired of all.
    Count { object: ObjectRef, what: String, have: i64, want: i64 },
    /// A line of a component's log.
    Log { object: ObjectRef, line: String },
    /// A network that this node has no route to.
    NoRouteTo { node: String, cidr: String },
    /// A firewall rule of this node, or a chain's policy, and by how much its counter rose during the probe.
    Barrier { node: String, chain: String, rule: String, packets: Option<u64> },
}
