//! One suite on one provider or on each that is there, and the table of what was played where.

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::report;
use crate::provider::Provider;
use crate::provider::native::plan::ProxyMode;
use crate::suite::Outcome;

/// Where the suite is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    One(Provider),
    All,
}

impl Default for Among {
    fn default() -> Self {
        Self::One(Provider::default())
    }
}

impl ValueEnum for Among {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::One(Provider::Native),
            Self::One(Provider::Kind),
            Self::One(Provider::K3d),
            Self::One(Provider::Testcontainers),
            Self::All,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::One(provider) => provider.to_possible_value(),
            Self::All => Some(PossibleValue::new("all").help("Each of them that is there, one after the other")),
        }
    }
}

impl Among {
    /// In the order in which they are played.
    pub fn providers(&self) -> &[Provider] {
        match self {
            Self::One(provider) => std::slice::from_ref(provider),
            Self::All => Provider::value_variants(),
        }
    }
}

/// The suite on one provider.
pub struct Stop {
    pub provider: Provider,
    /// Of Kubernetes.
    pub version: String,
    pub mode: ProxyMode,
    /// What is played, and where.
    pub title: String,
    pub played: Played,
}

/// What came of a suite on one provider.
pub enum Played {
    /// Nothing: the provider is not there, with the reason in one line.
    NotThere(String),
    Ended(Result<Outcome>),
}

impl Played {
    /// Of a provider that is not there.
    pub fn not_there(why: &anyhow::Error) -> Self {
        let why = format!("{why:#}");
        let first = why.lines().next().unwrap_or_default();
        Self::NotThere(first.trim_start_matches("NOT RUN: ").to_owned())
    }
}

/// Whether something was played, and all that was played is good. What was not played is never good.
pub fn good(stops: &[Stop]) -> bool {
    let mut ended = stops.iter().filter_map(|stop| match &stop.played {
        Played::NotThere(_) => None,
        Played::Ended(result) => Some(result.as_ref().is_ok_and(Outcome::good)),
    });
    ended.next().is_some_and(|first| first && ended.all(|good| good))
}

/// One line a provider.
pub fn table(stops: &[Stop]) -> String {
    let line =
        |[provider, version, mode, seen]: [&str; 4]| format!("{provider:<14}  {version:<10}  {mode:<10}  {seen}\n");
    let mut text = line(["provider", "Kubernetes", "kube-proxy", "what was seen"]);
    for stop in stops {
        text += &line([stop.provider.name(), &stop.version, stop.mode.name(), &seen(stop)]);
    }
    text
}

fn seen(stop: &Stop) -> String {
    match &stop.played {
        Played::NotThere(why) => format!("NOT RUN: {why}"),
        Played::Ended(Err(error)) => format!("FAILED: {}", format!("{error:#}").lines().next().unwrap_or_default()),
        Played::Ended(Ok(_)) => report::counted(&report::cases(&stop.played)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stop(provider: Provider, version: &str, played: Played) -> Stop {
        Stop { provider, version: version.to_owned(), mode: ProxyMode::None, title: String::new(), played }
    }

    fn passed() -> Outcome {
        let mut outcome = Outcome::none();
        outcome.tests.push(("s01".to_owned(), "ok".to_owned(), Duration::from_secs(2)));
        outcome.leave_out("s02".to_owned(), "it needs a kube-proxy");
        outcome
    }

    #[test]
    fn what_is_not_there_is_neither_passed_nor_failed() {
        let away = Played::not_there(&anyhow::anyhow!("NOT RUN: it needs an image\n  load it"));
        let passed = Played::Ended(Ok(passed()));
        let stops = [stop(Provider::Native, "v1.37.2", passed), stop(Provider::K3d, "v1.34.4", away)];
        assert_eq!(
            table(&stops),
            "provider        Kubernetes  kube-proxy  what was seen\n\
             native          v1.37.2     none        1 passed, 0 failed, 1 not played, 2 s\n\
             k3d             v1.34.4     none        NOT RUN: it needs an image\n"
        );
        assert!(good(&stops));
        // Nothing played is nothing seen.
        assert!(!good(&stops[1..]));
    }

    #[test]
    fn one_that_failed_makes_all_fail() {
        let stops = [
            stop(Provider::Native, "v1.37.2", Played::Ended(Ok(passed()))),
            stop(Provider::Kind, "v1.34.4", Played::Ended(Err(anyhow::anyhow!("no room\n  make some")))),
        ];
        assert!(!good(&stops));
        assert!(table(&stops).ends_with("kind            v1.34.4     none        FAILED: no room\n"));
        let failed = [stop(Provider::Kind, "v1.34.4", Played::Ended(Ok(Outcome::default())))];
        assert!(!good(&failed));
    }

    #[test]
    fn all_are_those_that_can_be_named() {
        let names: Vec<_> = Among::value_variants().iter().filter_map(Among::to_possible_value).collect();
        let names: Vec<_> = names.iter().map(PossibleValue::get_name).collect();
        let all: Vec<_> = Among::All.providers().iter().map(|provider| provider.name()).collect();
        assert_eq!(names, [&all[..], &["all"]].concat());
    }
}
