//! What a background forward writes for others to read: its orders, its status, and its first word to who started it.
//!
//! Pure. Files below `forwards/` of the state folder, named by the forward's id: `ID.json` (orders, 0600), `ID.lock`
//! (held by the living process), `ID.status.json` (rewritten each second, readable by all, no secrets), `ID.log`, and
//! `ID.sock` (0600), where the living process takes questions and orders: JSON objects, one a line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::forward::report::{Phase, Report};
use crate::forward::spec::Spec;
use crate::model::Text;

/// The version of these files' shape.
pub const VERSION: u32 = 1;

/// A status older than this is not that of a living, unstuck process, in seconds. It is written each second.
pub const FRESH_SECONDS: i64 = 5;

/// The orders of a forward, kept for its restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub version: u32,
    pub spec: Spec,
    /// `KUBECONFIG` where it named several files, made absolute; one file stands in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_env: Option<String>,
    /// A token was given by flag. It is not kept: a restart needs it again.
    #[serde(default)]
    pub token: bool,
    /// The systemd unit whose service this forward is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// How one forward fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: u32,
    pub pid: u32,
    pub written_at: Timestamp,
    #[serde(flatten)]
    pub report: Report,
}

impl Status {
    /// As a reader must take it: what a process wrote before it died is not what is.
    pub fn judged(mut self, alive: bool) -> Self {
        if !alive && self.report.phase.is_live() {
            self.report.phase = Phase::Died;
            self.report.phase_since = self.written_at;
        }
        self
    }

    /// Whether it was written lately enough to be that of a living process.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.as_second().saturating_sub(self.written_at.as_second()) <= FRESH_SECONDS
    }
}

/// The first and only line that the new process writes to its stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "word")]
pub enum FirstWord {
    /// It listens and knows its pods.
    Ready { urls: Vec<String> },
    /// It cannot begin.
    Failed {
        exit: u8,
        text: Text,
        #[serde(default)]
        hints: Vec<Text>,
    },
}

/// What is asked at the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "ask")]
pub enum Ask {
    /// How it fares now: [`Answer::Status`].
    Status,
    /// The lines of its log, each as an [`Answer::Line`], then [`Answer::Done`]; with `follow` it goes on.
    Logs {
        #[serde(default)]
        tail: Option<usize>,
        #[serde(default)]
        follow: bool,
    },
    /// As SIGTERM: [`Answer::Done`] at once, the connection ends with the process.
    Stop,
    /// As SIGHUP: [`Answer::Done`] when the new orders are carried out, [`Answer::Refused`] when the old ones stay.
    Reload,
    /// A successor wants the sockets: [`Answer::Sockets`].
    HandOver,
    /// The successor serves on them: [`Answer::Yours`]. The connection stays; its end stops who was succeeded.
    Serving,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum Answer {
    Status {
        status: Box<Status>,
    },
    Line {
        text: String,
    },
    Done,
    Refused {
        exit: u8,
        text: Text,
        #[serde(default)]
        hints: Vec<Text>,
    },
    /// Some of the listening sockets; their descriptors travel with this line, in the same order.
    Sockets {
        sockets: Vec<Given>,
        /// Another such line follows.
        more: bool,
    },
    /// The lock, the files and the rules are the successor's.
    Yours,
    /// So many connections are still open at who was succeeded; said each second.
    Live {
        count: u64,
    },
}

/// A listening socket that is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Given {
    /// The port pair it serves.
    pub pair: usize,
    /// Only rules of our own lead there.
    pub private: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::spec::{Front, Mode};
    use crate::model::ObjectRef;

    fn status(phase: Phase) -> Status {
        let at = Timestamp::UNIX_EPOCH;
        Status {
            version: VERSION,
            pid: 1,
            written_at: at,
            report: Report {
                id: "a".into(),
                target: "ns/a".into(),
                object: ObjectRef::namespaced("Service", "ns", "a"),
                urls: vec![],
                listen: vec![],
                mode: Mode::Auto,
                tunnel_protocol: None,
                carrier: None,
                front: Front::Never,
                position: None,
                position_since: None,
                kernel: crate::forward::front::KernelReport::default(),
                phase,
                phase_since: at,
                over: None,
                pods: vec![],
                started_at: at,
                live: 0,
                total: 0,
                parked: 0,
                failed: 0,
                retried: 0,
                refused: 0,
                bytes_sent: 0,
                bytes_received: 0,
                direct: 0,
                tunnel: 0,
                last_failure: None,
                api_lost: None,
                cluster: String::new(),
                numbers: Default::default(),
            },
        }
    }

    #[test]
    fn a_dead_process_is_not_ready_and_an_ended_one_keeps_its_reason() {
        assert_eq!(status(Phase::Ready).judged(false).report.phase, Phase::Died);
        assert_eq!(status(Phase::Ready).judged(true).report.phase, Phase::Ready);
        assert_eq!(status(Phase::Over).judged(false).report.phase, Phase::Over);
    }

    #[test]
    fn a_status_survives_its_file_and_grows_stale() {
        let status = status(Phase::Ready);
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        let later = |s| Timestamp::from_second(s).unwrap();
        assert!(status.is_fresh(later(FRESH_SECONDS)));
        assert!(!status.is_fresh(later(FRESH_SECONDS + 1)));
    }
}
