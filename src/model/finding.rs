//! What a check found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ActionName, Evidence, ObjectRef};

/// A code of the catalogue, `BA` and four digits; never used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BA{:04}", self.0)
    }
}

impl std::str::FromStr for Code {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let digits = s.get(..2).filter(|p| p.eq_ignore_ascii_case("BA")).and_then(|_| s.get(2..)).ok_or(())?;
        if digits.len() != 4 {
            return Err(());
        }
        digits.parse().map(Code).map_err(|_| ())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("a code is BA and four digits"))
    }
}

/// How bad: an Error breaks access now, a Warning will, an Info is worth knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// How sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Possible,
    Likely,
    Certain,
}

/// One cause, for one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub code: Code,
    pub slug: String,
    pub severity: Severity,
    pub confidence: Confidence,
    /// `namespace/service` of the target.
    pub target: String,
    /// The object to blame.
    pub subject: ObjectRef,
    /// Arguments of the catalogue's texts, by placeholder name.
    pub args: BTreeMap<String, String>,
    pub evidence: Vec<Evidence>,
    /// What may repair it, best first; the planner chooses.
    pub remedies: Vec<ActionName>,
}

impl Finding {
    /// The value of one text argument, or "".
    pub fn arg(&self, name: &str) -> &str {
        self.args.get(name).map(String::as_str).unwrap_or_default()
    }
}
