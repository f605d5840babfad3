//! Why a forward cannot begin, as a sentence for people.

use super::front::Reason;
use super::listener;
use super::run;
use super::watch;
use crate::error::{ExpectedError, forbidden};
use crate::exit::Exit;
use crate::model::Text;
use crate::supervise;

impl From<run::Error> for ExpectedError {
    fn from(error: run::Error) -> Self {
        match error {
            run::Error::Watch(error) => error.into(),
            run::Error::Listen(error) => error.into(),
            run::Error::Threads(error) => {
                Self::new(Exit::Problem, Text::new("error.forward.threads").with("message", error))
            }
            run::Error::NoKernelCarrier(reason) => reason.into(),
        }
    }
}

impl From<watch::Error> for ExpectedError {
    fn from(error: watch::Error) -> Self {
        match error {
            watch::Error::Connect(error) => error.into(),
            watch::Error::NotFound { object } => {
                let text =
                    Text::new("error.forward.not_found").with("object", &object).with("namespace", object.namespace());
                Self::new(Exit::Usage, text)
            }
            watch::Error::NoPort { object, port, known } => {
                let text = Text::new("error.forward.no_port").with("object", object).with("port", port);
                let refused = Self::new(Exit::Usage, text);
                if known.is_empty() {
                    return refused;
                }
                refused.hint(Text::new("error.forward.known_ports").with("ports", known.join(", ")))
            }
            watch::Error::NotTcp { object, port, protocol } => {
                let text = Text::new("error.forward.not_tcp")
                    .with("object", object)
                    .with("port", port)
                    .with("protocol", protocol);
                Self::new(Exit::Usage, text)
            }
            watch::Error::ExternalName { object, host } => Self::new(
                Exit::Usage,
                Text::new("error.forward.external_name").with("object", object).with("host", host),
            ),
            watch::Error::NoSelector { object } => {
                Self::new(Exit::Usage, Text::new("error.forward.no_selector").with("object", object))
                    .hint(Text::new("error.forward.take_direct"))
            }
            watch::Error::Forbidden { verb, resource, namespace } => {
                forbidden::forbidden(verb, resource, Some(&namespace))
            }
            watch::Error::OtherCluster => Self::new(Exit::Problem, Text::new("error.forward.other_cluster")),
            watch::Error::Api(message) => {
                Self::new(Exit::Unreachable, Text::new("error.api_failed").with("message", message))
            }
        }
    }
}

impl From<listener::Error> for ExpectedError {
    fn from(error: listener::Error) -> Self {
        match error {
            listener::Error::InUse { address, holder } => Self::port_in_use(address, holder.as_deref()),
            listener::Error::NotOurs { address } => {
                Self::new(Exit::Usage, Text::new("error.forward.not_ours").with("address", address))
            }
            listener::Error::Privileged { address } => {
                Self::not_root(Text::new("error.forward.privileged").with("port", address.port()))
            }
            listener::Error::Bind { address, source } => Self::new(
                Exit::Problem,
                Text::new("error.forward.bind").with("address", address).with("message", source),
            ),
        }
    }
}

impl From<supervise::Error> for ExpectedError {
    fn from(error: supervise::Error) -> Self {
        use supervise::registry;
        match error {
            supervise::Error::Refused(error) => error,
            supervise::Error::Files(registry::Error::NoSuch { id }) => {
                Self::new(Exit::Usage, Text::new("error.forward.no_such").with("id", id))
                    .hint(Text::new("error.forward.see_status"))
            }
            supervise::Error::Files(registry::Error::File { path, source }) => {
                Self::state_not_writable(&path, &source.to_string())
            }
            supervise::Error::Files(registry::Error::NoFolder) => {
                Self::new(Exit::Usage, Text::new("error.forward.no_folder"))
            }
            supervise::Error::Files(registry::Error::Damaged { path, message }) => Self::new(
                Exit::Problem,
                Text::new("error.forward.damaged").with("path", path.display()).with("message", message),
            ),
            supervise::Error::Mute { last } => {
                Self::new(Exit::Problem, Text::new("error.forward.mute").with("message", last))
            }
            supervise::Error::Spawn { program, source } => Self::new(
                Exit::Problem,
                Text::new("error.forward.spawn").with("program", program).with("message", source),
            ),
            supervise::Error::TokenNeeded { id } => {
                Self::new(Exit::Usage, Text::new("error.forward.token_needed").with("id", id))
            }
            supervise::Error::Stuck { id, pid } => {
                Self::new(Exit::Problem, Text::new("error.forward.stuck").with("id", id).with("pid", pid))
            }
            #[cfg(unix)]
            supervise::Error::Unit(error) => error.into(),
            supervise::Error::ForegroundOnly => Self::new(Exit::Usage, Text::new("error.forward.foreground_only"))
                .hint(Text::new("error.forward.run_foreground")),
        }
    }
}

impl From<Reason> for ExpectedError {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotRoot => Self::not_root(Text::new("error.forward.kernel_needs_root")),
            _ => Self::new(Exit::Usage, Text::new("error.forward.no_kernel_carrier"))
                .hint(reason.text())
                .hint(Text::new("error.forward.mode_auto")),
        }
    }
}
