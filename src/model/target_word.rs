//! A TARGET as a person types it, understood as far as words go: the cluster is not asked.

use serde::{Deserialize, Serialize};

/// The kinds of object by which a target may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Service,
    Deployment,
    Pod,
}

impl Kind {
    /// As the API spells it.
    pub fn api_name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::Pod => "Pod",
        }
    }

    /// As it is typed before a slash, in kubectl's spellings.
    fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "svc" | "service" | "services" => Some(Self::Service),
            "deploy" | "deployment" | "deployments" | "deployments.apps" | "deployment.apps" => Some(Self::Deployment),
            "po" | "pod" | "pods" => Some(Self::Pod),
            _ => None,
        }
    }
}

/// What TARGET says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetWord {
    pub kind: Kind,
    pub namespace: Option<String>,
    pub name: String,
}

/// A word that is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no target; write NAME, NS/NAME, svc/NAME, deploy/NAME, pod/NAME or NS/svc/NAME")]
pub struct NoTarget(pub String);

impl std::str::FromStr for TargetWord {
    type Err = NoTarget;

    /// `svc/NAME`, `deploy/NAME`, `pod/NAME`, `NAME`, `NS/NAME`, and with both `NS/svc/NAME`.
    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let bad = || NoTarget(text.to_owned());
        let words: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match words[..] {
            [name] => (Kind::Service, None, name),
            [first, name] => match Kind::parse(first) {
                Some(kind) => (kind, None, name),
                None => (Kind::Service, Some(first), name),
            },
            [namespace, kind, name] => (Kind::parse(kind).ok_or_else(bad)?, Some(namespace), name),
            _ => return Err(bad()),
        };
        let is_name = |word: &str| {
            let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            !word.is_empty() && word.chars().all(is_letter)
        };
        if !is_name(name) || !namespace.is_none_or(is_name) {
            return Err(bad());
        }
        Ok(Self { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_every_spelling() {
        for (typed, kind, namespace, name) in [
            ("productpage", Kind::Service, None, "productpage"),
            ("svc/productpage", Kind::Service, None, "productpage"),
            ("Service/productpage", Kind::Service, None, "productpage"),
            ("bookinfo/productpage", Kind::Service, Some("bookinfo"), "productpage"),
            ("bookinfo/svc/productpage", Kind::Service, Some("bookinfo"), "productpage"),
            ("deploy/productpage-v1", Kind::Deployment, None, "productpage-v1"),
            ("ns/deployments.apps/x", Kind::Deployment, Some("ns"), "x"),
            ("pod/x", Kind::Pod, None, "x"),
            ("ns/pod/x.y", Kind::Pod, Some("ns"), "x.y"),
        ] {
            let expected = TargetWord { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() };
            assert_eq!(typed.parse(), Ok(expected), "{typed}");
        }
        for typed in ["", "/", "a/", "/b", "svc/", "a/b/c", "ns/svc/", "/svc/b", "a/svc/b/c", "Svc!", "NS/b", "-n x"] {
            assert_eq!(typed.parse::<TargetWord>(), Err(NoTarget(typed.to_owned())), "{typed:?}");
        }
    }
}
