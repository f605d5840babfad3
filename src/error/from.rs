//! Errors of the modules at the edge, as a person meets them.

use std::io::ErrorKind;
use std::path::Path;

use super::{ExpectedError, forbidden, sudo_hint};
use crate::exit::Exit;
use crate::forward::spec::SpecError;
use crate::model::{NoTarget, Text};
use crate::observe::{client, file, look, targets};
use crate::statedir;

impl From<client::Error> for ExpectedError {
    fn from(error: client::Error) -> Self {
        use kube::config::KubeconfigError;
        match error {
            client::Error::NoKubeconfig => {
                let refused = Self::usage(Text::new("error.no_kubeconfig")).hint(Text::new("error.hint.kubeconfig"));
                if statedir::is_root() { refused } else { refused.hint(sudo_hint()) }
            }
            client::Error::NotReadable { path } => not_readable(&path),
            client::Error::Kubeconfig(KubeconfigError::ReadConfig(io, path)) => match io.kind() {
                std::io::ErrorKind::NotFound => {
                    Self::usage(Text::new("error.kubeconfig_missing").with("path", path.display()))
                        .hint(Text::new("error.hint.kubeconfig"))
                }
                std::io::ErrorKind::PermissionDenied => not_readable(&path),
                _ => Self::usage(Text::new("error.kubeconfig").with("message", format!("{}: {io}", path.display()))),
            },
            client::Error::Kubeconfig(other) => {
                Self::usage(Text::new("error.kubeconfig").with("message", client::innermost(&other)))
            }
            client::Error::Unknown { kind, name, known } => {
                let nearest = targets::nearest(&name, known.iter().map(String::as_str));
                let text = match kind {
                    "context" => Text::new("error.unknown_context").with("name", name),
                    "cluster" => Text::new("error.unknown_cluster").with("name", name),
                    _ => Text::new("error.unknown_user").with("name", name),
                };
                let refused = Self::usage(text).nearest(nearest);
                if known.is_empty() {
                    return refused;
                }
                refused.hint(Text::new("error.hint.known").with("names", known.join(", ")))
            }
            client::Error::Client { server, source } => Self::usage(
                Text::new("error.client").with("server", server).with("message", client::innermost(&source)),
            ),
            client::Error::Unreachable { server, message } => Self::unreachable(&server, &message),
            client::Error::Unauthorized { server, ended } => Self::unauthorized(&server, ended),
        }
    }
}

fn not_readable(path: &Path) -> ExpectedError {
    ExpectedError::not_root(Text::new("error.kubeconfig_not_readable").with("path", path.display()))
}

impl From<targets::Error> for ExpectedError {
    fn from(error: targets::Error) -> Self {
        match error {
            targets::Error::NoNamespace { name, nearest } => {
                Self::usage(Text::new("error.no_namespace").with("name", name)).nearest(nearest)
            }
            targets::Error::NoService { namespace, name, nearest } => {
                Self::usage(Text::new("error.no_service").with("namespace", &namespace).with("name", name))
                    .nearest(nearest)
                    .hint(Text::new("error.hint.services").with("namespace", namespace))
            }
            targets::Error::Ambiguous { argument, fits } => {
                Self::usage(Text::new("error.ambiguous").with("argument", argument))
                    .hint(Text::new("error.hint.candidates").with("names", fits.join(", ")))
            }
            targets::Error::NotSelected { argument } => {
                Self::usage(Text::new("error.not_selected").with("argument", argument))
            }
            targets::Error::Malformed { argument } => {
                Self::usage(Text::new("error.malformed_target").with("argument", argument))
                    .hint(Text::new("error.hint.target_forms"))
            }
            targets::Error::NoDefault => {
                Self::usage(Text::new("error.no_default")).hint(Text::new("error.hint.name_target"))
            }
        }
    }
}

impl From<NoTarget> for ExpectedError {
    fn from(error: NoTarget) -> Self {
        targets::Error::from(error).into()
    }
}

impl From<look::Error> for ExpectedError {
    fn from(error: look::Error) -> Self {
        match error {
            look::Error::Target(error) => error.into(),
            look::Error::Denied { verb, resource, namespace } => {
                forbidden::forbidden(&verb, &resource, Some(namespace.as_str()).filter(|n| !n.is_empty()))
            }
            look::Error::Unauthorized => Self::new(Exit::Forbidden, Text::new("error.unauthorized_now"))
                .hint(Text::new("error.hint.credentials")),
            look::Error::Api { message } => {
                Self::new(Exit::Unreachable, Text::new("error.api_failed").with("message", message))
            }
        }
    }
}

impl From<file::Error> for ExpectedError {
    fn from(error: file::Error) -> Self {
        match error {
            file::Error::Io { path, source } => match source.kind() {
                ErrorKind::NotFound => Self::usage(Text::new("error.file_missing").with("path", path)),
                ErrorKind::IsADirectory => Self::usage(Text::new("error.file_is_folder").with("path", path)),
                ErrorKind::PermissionDenied => Self::usage(Text::new("error.file_denied").with("path", path)),
                _ => Self::usage(Text::new("error.file").with("path", path).with("message", source)),
            },
            file::Error::TooLarge { path } => {
                let most = file::MOST >> 20;
                Self::usage(Text::new("error.file_too_large").with("path", path).with("most", most))
            }
            file::Error::CutOff { path, line } => {
                Self::usage(Text::new("error.snapshot_cut_off").with("path", path).with("line", line))
            }
            file::Error::Another { path } => Self::usage(Text::new("error.no_snapshot").with("path", path)),
            file::Error::Value { path, line, column, message } => Self::usage(
                Text::new("error.snapshot_value")
                    .with("path", path)
                    .with("line", line)
                    .with("column", column)
                    .with("message", message),
            ),
            file::Error::Version { path, found } => {
                let known = crate::model::snapshot::SNAPSHOT_VERSION;
                Self::usage(
                    Text::new("error.snapshot_version").with("path", path).with("found", found).with("known", known),
                )
            }
        }
    }
}

impl From<crate::apply::Error> for ExpectedError {
    fn from(error: crate::apply::Error) -> Self {
        match &error {
            crate::apply::Error::Forbidden { verb, resource, namespace, message } => {
                match forbidden::of_message(message) {
                    refused if refused.hints.is_empty() => forbidden::forbidden(verb, resource, Some(namespace)),
                    refused => refused,
                }
            }
            _ => Self::new(error.exit(), error.text()),
        }
    }
}

impl From<SpecError> for ExpectedError {
    fn from(error: SpecError) -> Self {
        match error {
            SpecError::Pair(value) => {
                Self::usage(Text::new("error.port_pair").with("value", value)).hint(Text::new("error.hint.port_pairs"))
            }
            SpecError::Address(value) => Self::usage(Text::new("error.listen_address").with("value", value)),
            SpecError::Mode(value) => Self::usage(
                Text::new("error.usage.bad_value")
                    .with("flag", "--mode")
                    .with("value", value)
                    .with("allowed", "auto, kernel, direct, tunnel"),
            ),
            SpecError::Range(value) => Self::usage(Text::new("error.address_range").with("value", value)),
            SpecError::Metrics(value) => Self::usage(Text::new("error.metrics_address").with("value", value)),
        }
    }
}
