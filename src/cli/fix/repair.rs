//! The loop of a repair: look, judge, plan, ask, act, verify; again until the page answers or no rung is left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::args::{FixArgs, Globals, Output};
use super::super::scope::{self, Field};
use super::super::{consent, output};
use super::fallback::{self, Fallback};
use super::outcome::{self, Ended};
use super::{Interrupt, Progress};
use crate::apply::{self, Fix, Outcome, Settings};
use crate::check::{self, Report};
use crate::error::ExpectedError;
use crate::error::forbidden::forbidden;
use crate::exit::Exit;
use crate::facts::Facts;
use crate::model::{Act, ActionName, Plan, Snapshot, Step, Tier, Verify, Withheld};
use crate::observe;
use crate::plan::{self, Policy};
use crate::render::json::{Document, StepOutcome};
use crate::render::{self, Event};

/// More rounds than causes that can hide behind each other on one path.
const ROUNDS: usize = 8;
/// A run of `fix` under way.
struct Run<'a> {
    globals: &'a Globals,
    args: &'a FixArgs,
    field: Field,
    progress: Progress,
    interrupt: Interrupt,
    fallback: Arc<Fallback>,
    policy: Policy,
    fix: Fix,
    /// What became of each step, in order.
    taken: Vec<(Step, StepOutcome)>,
    /// The journal's number of the fallback's step, by target.
    opened: BTreeMap<String, u32>,
    withheld: Vec<Withheld>,
    consented: bool,
    /// The first right that was missing.
    forbidden: Option<ExpectedError>,
}

/// Repairs, or with `dry` only says what it would do.
///
/// # Errors
/// Where nothing could be looked at, consent was not given, or the run was interrupted.
pub async fn run(globals: &Globals, args: &FixArgs, dry: bool) -> Result<Exit, ExpectedError> {
    let progress = Progress::new(globals);
    let interrupt = Interrupt::listen(globals);
    let field = interrupt.or(scope::enter(globals, &args.targets)).await??;
    let targets: Vec<String> = field.targets.iter().map(ToString::to_string).collect();
    progress.say(&Event::Looking { targets: targets.join(", ") });
    let fallback = Arc::new(Fallback::new(field.cluster.clone(), globals.locale));
    let settings = Settings::new(&field.cluster, fallback.clone(), interrupt.token.clone()).map_err(failed)?;
    let fix = Fix::begin(&field.cluster, targets, settings);
    let policy = Policy { allow: args.allow.clone(), fallback: args.fallback, ..Policy::default() };
    let mut run = Run {
        globals,
        args,
        field,
        progress,
        interrupt,
        fallback,
        policy,
        fix,
        taken: Vec::new(),
        opened: BTreeMap::new(),
        withheld: Vec::new(),
        consented: args.yes,
        forbidden: None,
    };
    if dry {
        let snapshot = run.settled(None).await?;
        return run.dry_run(&snapshot);
    }
    let done = run.work().await;
    run.finish(done).await
}

impl Run<'_> {
    async fn look(&self) -> Result<Snapshot, ExpectedError> {
        let look = observe::look(&self.field.cluster, &self.field.targets, &self.field.wanted);
        self.interrupt.or(look).await
    }

    /// All there is to do, from the first look to the last.
    async fn work(&mut self) -> Result<Snapshot, ExpectedError> {
        let glance = match self.consented && self.args.fallback {
            true => Some(self.access_first().await?),
            false => None,
        };
        let first = self.settled(glance).await?;
        self.rounds(first).await
    }

    /// Opens the fallback after a second, where dials vanish and a full look would take many: who waits for the page
    /// has it while its cause is sought. What was seen serves the full look as well.
    async fn access_first(&mut self) -> Result<Snapshot, ExpectedError> {
        let glance = observe::glance(&self.field.cluster, &self.field.targets, &self.field.wanted);
        let snapshot = self.interrupt.or(glance).await?;
        if !snapshot.probes.iter().any(|p| p.outcome == crate::model::Outcome::Timeout) {
            return Ok(snapshot);
        }
        let facts = Facts::derive(&snapshot);
        let report = check::run(&facts);
        let plan = self.plan(&facts, &report);
        // A fresh start is waited for, unless a pod takes connections already and only the way to it is broken.
        let is_young = |step: &Step| {
            let target = facts.targets.iter().find(|t| t.target.to_string() == step.target);
            target.is_some_and(|t| {
                scope::is_young(t, &facts) && !t.reach.node_to_pod.iter().any(|p| p.outcome.connected())
            })
        };
        let opens: Vec<&Step> =
            plan.steps.iter().filter(|s| plan::carries_at_once(s)).filter(|s| !is_young(s)).collect();
        for (index, step) in opens.iter().enumerate() {
            self.take(index + 1, opens.len(), step).await?;
        }
        drop(facts);
        Ok(snapshot)
    }

    /// A look at a cluster that had its time.
    async fn settled(&self, glance: Option<Snapshot>) -> Result<Snapshot, ExpectedError> {
        let look = scope::settled(&self.field, self.args.wait, glance, |target| {
            let object = target.target.service_ref();
            self.progress.say(&Event::Waiting { object, limit: self.args.wait });
        });
        self.interrupt.or(look).await
    }

    fn plan(&mut self, facts: &Facts<'_>, report: &Report) -> Plan {
        self.policy.standing = facts
            .targets
            .iter()
            .map(|t| t.target.to_string())
            .filter(|name| fallback::standing(&self.field.cluster.uid, name).is_some())
            .collect();
        facts.targets.iter().for_each(|t| self.fallback.learn(t));
        plan::plan(facts, &report.findings, &self.policy)
    }

    fn dry_run(mut self, snapshot: &Snapshot) -> Result<Exit, ExpectedError> {
        let facts = Facts::derive(snapshot);
        let report = check::run(&facts);
        report.findings.iter().for_each(|f| self.progress.say(&Event::Found { finding: f.clone() }));
        let plan = self.plan(&facts, &report);
        // As kubectl's dry runs: printing the plan is all that was asked.
        let exit = Exit::Ok;
        let style = render::Style { color: output::colors_stdout(self.globals.color), ..self.progress.style };
        output::result(|out| match self.globals.output {
            Output::Json => Document::plan(&plan, exit).write_json(out),
            Output::Yaml => Document::plan(&plan, exit).write_yaml(out),
            Output::Text | Output::Wide => render::plan::write(&style, &plan, out),
        })?;
        Ok(exit)
    }

    /// Rounds of look, plan and act, until nothing is left to do. The last look.
    async fn rounds(&mut self, first: Snapshot) -> Result<Snapshot, ExpectedError> {
        let mut snapshot = first;
        for round in 0..ROUNDS {
            let facts = Facts::derive(&snapshot);
            let report = check::run(&facts);
            let plan = self.plan(&facts, &report);
            if round == 0 {
                report.findings.iter().for_each(|f| self.progress.say(&Event::Found { finding: f.clone() }));
            }
            // What only a person can do stays true when a workaround hides its cause from the next look.
            for withheld in &plan.withheld {
                if !self.withheld.iter().any(|w| w.step.command == withheld.step.command) {
                    self.withheld.push(withheld.clone());
                }
            }
            let taken = |w: &Withheld| plan.steps.iter().any(|s| s.name == w.step.name);
            self.withheld.retain(|w| !taken(w));
            if plan.steps.is_empty() {
                break;
            }
            self.consent(&plan).await?;
            for (index, step) in plan.steps.iter().enumerate() {
                if !self.take(index + 1, plan.steps.len(), step).await? {
                    // What stands after it was planned on the assumption that it helps.
                    break;
                }
            }
            snapshot = self.look().await?;
        }
        Ok(snapshot)
    }

    /// Asks once with the whole plan; what a later round brings is covered by it, tiers being what they are.
    async fn consent(&mut self, plan: &Plan) -> Result<(), ExpectedError> {
        if self.consented {
            return Ok(());
        }
        output::note(|out| render::plan::write(&self.progress.style, plan, out));
        self.interrupt.or(consent::ask(self.globals.locale, render::prompt::fix())).await??;
        self.consented = true;
        Ok(())
    }

    /// Takes one step and verifies it; false where it did not help and was taken back.
    async fn take(&mut self, number: usize, of: usize, step: &Step) -> Result<bool, ExpectedError> {
        let start = Instant::now();
        self.progress.say(&Event::StepStarted { number, of, step: step.clone() });
        self.interrupt.acting.store(true, Ordering::Relaxed);
        let result = self.act(number, of, step, start).await;
        self.interrupt.acting.store(false, Ordering::Relaxed);
        for warning in self.fix.take_warnings() {
            self.progress.say(&Event::StepFailed { number, of, reason: warning });
        }
        result
    }

    async fn act(&mut self, number: usize, of: usize, step: &Step, start: Instant) -> Result<bool, ExpectedError> {
        let seq = match self.fix.apply(step).await {
            Ok(seq) => seq,
            Err(apply::Error::Interrupted) => return Err(ExpectedError::interrupted()),
            // Whoever holds the Lease, or a missing right, stands in the way of every other rung as well.
            Err(error @ (apply::Error::Held { .. } | apply::Error::Journal { .. } | apply::Error::NoStateFolder)) => {
                return Err(failed(error));
            }
            Err(error) => {
                self.progress.say(&Event::StepFailed { number, of, reason: error.text() });
                if let apply::Error::Forbidden { verb, resource, namespace, .. } = &error {
                    let namespace = Some(namespace.as_str()).filter(|n| !n.is_empty());
                    self.forbidden.get_or_insert_with(|| forbidden(verb, resource, namespace));
                }
                self.taken.push((step.clone(), StepOutcome::Failed));
                self.policy.tried.insert((step.cause, step.name));
                return Ok(false);
            }
        };
        match self.verify(step).await {
            Ok(true) => {
                self.fix.verified(seq).await.map_err(failed)?;
                if step.name == ActionName::OpenForward {
                    self.opened.insert(step.target.clone(), seq);
                }
                self.taken.push((step.clone(), StepOutcome::Verified));
                self.progress.say(&Event::StepVerified { number, of, took: start.elapsed() });
                Ok(true)
            }
            verdict => {
                if verdict.is_ok() {
                    self.progress.say(&Event::StepWithoutEffect { number, of });
                }
                let reverted = self.fix.revert(seq).await;
                let outcome = match &reverted {
                    Ok(()) => {
                        self.progress.say(&Event::Reverted { number, of });
                        StepOutcome::Reverted
                    }
                    Err(error) => {
                        self.progress.say(&Event::RevertFailed {
                            number,
                            of,
                            step: step.clone(),
                            reason: error.text(),
                        });
                        StepOutcome::RevertFailed
                    }
                };
                self.taken.push((step.clone(), outcome));
                self.policy.tried.insert((step.cause, step.name));
                verdict.map(|_| false)
            }
        }
    }

    /// Whether the step brought what it should within its deadline: the probe that failed, made again, around our
    /// own fallback.
    async fn verify(&self, step: &Step) -> Result<bool, ExpectedError> {
        let deadline = Instant::now() + patience(step);
        loop {
            let good = match step.verify {
                Verify::Nothing => true,
                Verify::Forwarding => self.forwarding(step).await?,
                Verify::Cleared | Verify::Reachable => {
                    let snapshot = self.look().await?;
                    let facts = Facts::derive(&snapshot);
                    let report = check::run(&facts);
                    // A repair may have given the page another port, and a fallback that comes later leads to that one.
                    facts.targets.iter().for_each(|t| self.fallback.learn(t));
                    let target = facts.targets.iter().find(|t| t.target.to_string() == step.target);
                    let answers = target.is_some_and(|t| t.reach.answers == Some(true));
                    let causes: Vec<_> = scope::errors(&report, &step.target).map(|f| f.code).collect();
                    let cleared = step.verify == Verify::Cleared && !causes.contains(&step.cause);
                    // Another cause behind this one is the next round's work. Without one the page should answer, but
                    // what was mended may need a moment to show: then the deadline decides.
                    answers || (cleared && (!causes.is_empty() || Instant::now() >= deadline))
                }
            };
            if good || Instant::now() >= deadline {
                return Ok(good);
            }
            self.interrupt.or(tokio::time::sleep(Duration::from_millis(200))).await?;
        }
    }

    /// Whether the forward that the step opened gives the right page.
    async fn forwarding(&self, step: &Step) -> Result<bool, ExpectedError> {
        let Act::Forward { listen_address, listen_port, .. } = &step.act else { return Ok(true) };
        let Some(target) = self.field.targets.iter().find(|t| t.to_string() == step.target) else { return Ok(false) };
        // It may have taken another port than was planned.
        let listens = fallback::standing(&self.field.cluster.uid, &step.target)
            .and_then(|s| s.report.listen.iter().find(|a| a.ip() == *listen_address).copied());
        let at = listens.unwrap_or(SocketAddr::new(*listen_address, *listen_port));
        self.interrupt.or(fallback::carries(at, target)).await
    }

    /// Ends the journal, says how each target stands, and gives the exit code.
    async fn finish(mut self, done: Result<Snapshot, ExpectedError>) -> Result<Exit, ExpectedError> {
        let snapshot = match done {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.fix.end(Outcome::Interrupted).await.map_err(failed)?;
                return Err(error);
            }
        };
        let facts = Facts::derive(&snapshot);
        let report = check::run(&facts);
        let mut ended = Vec::new();
        for target in &facts.targets {
            let name = target.target.to_string();
            let repaired = target.reach.answers == Some(true);
            if repaired
                && !self.args.standby
                && let Some(seq) = self.opened.remove(&name)
            {
                self.fix.revert(seq).await.map_err(failed)?;
            }
            let standing = fallback::standing(&self.field.cluster.uid, &name);
            let standing = standing.map(|status| {
                let reboot = fallback::reboot(&status, &self.globals.connection);
                (status, reboot)
            });
            let acted = self.taken.iter().any(|(s, o)| s.target == name && *o == StepOutcome::Verified);
            ended.push(outcome::of(&facts, target, &report, standing, self.fallback.started(&name), acted).await);
        }
        let exit = outcome::exit(&ended);
        let id = self.fix.has_acted().then(|| self.fix.id().to_owned());
        let outcome = match exit {
            Exit::Ok => Outcome::Restored,
            Exit::LocalOnly => Outcome::LocalOnly,
            _ => Outcome::Failed,
        };
        self.fix.end(outcome).await.map_err(failed)?;
        let told = Told {
            globals: self.globals,
            progress: &self.progress,
            withheld: &self.withheld,
            taken: &self.taken,
            id: id.as_deref(),
        };
        told.tell(&facts, &ended, exit)?;
        match self.forbidden {
            Some(refused) if exit == Exit::Problem => Err(refused),
            _ => Ok(exit),
        }
    }
}

/// What is said at the end.
struct Told<'a> {
    globals: &'a Globals,
    progress: &'a Progress,
    withheld: &'a [Withheld],
    taken: &'a [(Step, StepOutcome)],
    id: Option<&'a str>,
}

impl Told<'_> {
    fn tell(&self, facts: &Facts<'_>, ended: &[Ended], exit: Exit) -> Result<(), ExpectedError> {
        let style = render::Style { color: output::colors_stdout(self.globals.color), ..self.progress.style };
        let fixed: Vec<_> = ended.iter().map(|e| e.fixed.clone()).collect();
        let report = Document::fix(self.id, &fixed, self.taken, self.withheld, exit);
        output::result(|out| match self.globals.output {
            Output::Json => report.write_json(out),
            Output::Yaml => report.write_yaml(out),
            Output::Text | Output::Wide => outcome::write(&style, facts, ended, self.withheld, self.id, out),
        })?;
        Ok(())
    }
}

/// How long a step may take to show its effect, once it is in place.
fn patience(step: &Step) -> Duration {
    Duration::from_secs(match (&step.act, step.tier) {
        (Act::Forward { .. } | Act::Wake { .. }, _) => 8,
        (_, Tier::T3 | Tier::T4) => 30,
        _ => 15,
    })
}

/// An error of `apply` that ends the command.
pub(super) fn failed(error: apply::Error) -> ExpectedError {
    ExpectedError::new(error.exit(), error.text())
}
