//! A forward as a service of systemd's: its unit printed or installed, and the service itself.

use std::io::Write;

use super::{inform, told_started, warn_of_tunnel};
use crate::cli::args::Globals;
use crate::cli::output;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::ForwardArgs;
use crate::i18n::say;
use crate::model::Text;
use crate::supervise::{self, Files, notify, unit};

/// Prints the unit of an order, and starts nothing.
pub async fn print(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    unit::keeps_no_token(&globals.connection)?;
    let spec = supervise::start::anchored(&super::order::order(globals, args).await?).0;
    let text = unit::text(args, &spec, &unit::Around::here()?);
    output::result(|out| out.write_all(text.as_bytes()))?;
    Ok(Exit::Ok)
}

/// Installs the unit and returns when the service serves.
pub async fn install(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    unit::admit(&globals.connection)?;
    let spec = supervise::start::anchored(&super::order::order(globals, args).await?).0;
    warn_of_tunnel(globals.locale, &spec);
    unit::install(args, &spec).await?;
    let files = Files::own(&spec.id()).map_err(supervise::Error::Files)?;
    let no_such = || supervise::Error::Files(supervise::registry::Error::NoSuch { id: files.id().to_owned() });
    let started = supervise::start::running(&files).ok_or_else(no_such)?;
    let told = told_started(globals.locale, &supervise::Started { already: false, ..started });
    inform(globals.locale, &Text::new("unit.installed").with("unit", unit::name(&spec)));
    told
}

/// The service: systemd started it, and hears how it fares.
pub async fn serve(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    let served = async {
        let spec = super::order::order(globals, args).await?;
        let (files, kept) = unit::prepare(spec)?;
        supervise::daemon::run_service(files, kept).await
    };
    served.await.inspect_err(|error: &ExpectedError| notify::failed(&say(globals.locale, &error.text)))
}
