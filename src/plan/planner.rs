//! Chooses and orders the steps.
//!
//! Access first: on the node that the address leads to, the fallback is opened before anything is repaired, if it can
//! carry the page already. Then each cause gets the first of its remedies that can be planned, is permitted and was not
//! tried before; a better one that is not permitted is withheld, and the next rung is taken.

use super::actions::{self, open_forward};
use super::{Policy, patch};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Act, ActionName, Allow, Confidence, Finding, Plan, Severity, Step, Text, Tier, Withheld};

/// Codes of causes where a policy or a mesh denies on purpose.
const DENIED_ON_PURPOSE: std::ops::RangeInclusive<u16> = 7000..=7999;

/// Among them the mesh's proxy that fails: nobody meant that.
const MISHAP: u16 = 7006;

/// Codes of causes in the pod itself, which every way into it meets: it listens on no port, or speaks TLS on it.
const MET_INSIDE: [u16; 2] = [2302, 2304];

/// Remedies of causes by which the Service leads elsewhere than to the page.
const ELSEWHERE: [ActionName; 4] =
    [ActionName::TargetPort, ActionName::ExchangeNodePorts, ActionName::Protocol, ActionName::Selector];
/// Codes of causes that stop packets before any rule or listener of ours sees them.
const BEFORE_OURS: [u16; 1] = [4014];

/// Codes of causes by which the NodePort serves one connection and fails the next: that a probe passes says little.
const NOW_AND_THEN: [u16; 2] = [1303, 2306];

/// Codes of causes by which a pod is reached directly, and its answers do not come: what the kubelet reads from it in its
/// own node, and sends through the API server, does.
const CUT_SHORT: [u16; 1] = [5006];

/// The plan for these findings under this policy. A clean set of findings gives an empty plan.
pub fn plan(facts: &Facts<'_>, findings: &[Finding], policy: &Policy) -> Plan {
    let mut plan = Plan::default();
    for target in &facts.targets {
        let name = target.target.to_string();
        let errors: Vec<&Finding> =
            findings.iter().filter(|f| f.target == name && f.severity == Severity::Error).collect();
        if !errors.is_empty() {
            Choice { facts, target, policy, errors: &errors }.choose(&mut plan);
        }
    }
    plan.steps.sort_by_key(rank);
    plan
}

/// Whether a step opens a fallback that leads to the page as things are.
pub fn carries_at_once(step: &Step) -> bool {
    matches!(step.act, Act::Forward { .. }) && !step.args.contains_key(STANDBY)
}

/// Fallback that carries at once, the Service, waking, the system, the workload, fallback that waits for a repair.
fn rank(step: &Step) -> u8 {
    match (&step.act, step.tier) {
        (Act::Forward { .. }, _) if carries_at_once(step) => 0,
        (Act::Forward { .. }, _) => 9,
        (_, Tier::T2) => 1,
        (_, Tier::T0 | Tier::T1) => 2,
        (_, Tier::T4) => 3,
        (_, Tier::T5 | Tier::T6) => 4,
        (_, Tier::T3) => 5,
    }
}

/// Argument of an `open-forward` step that cannot carry the page before the repairs: it stands by.
const STANDBY: &str = "standby";

struct Choice<'f, 'a> {
    facts: &'f Facts<'a>,
    target: &'f TargetFacts<'a>,
    policy: &'f Policy,
    errors: &'f [&'f Finding],
}

impl Choice<'_, '_> {
    fn choose(&self, plan: &mut Plan) {
        let here = open_forward::here(self.facts, self.target).is_some();
        let standing = self.policy.standing.contains(&self.target.target.to_string());
        let forward = self.forward(plan, standing);
        let carried = here && self.carries() && (standing || forward.is_some());
        let mut repaired = false;
        for finding in self.errors {
            repaired |= self.repair(finding, carried, plan);
        }
        // Elsewhere a forward reaches only this machine: it is for when nothing brings the page back at its address.
        let wanted = if here { self.carries() || repaired } else { self.carries() && !repaired };
        if let Some(mut step) = forward.filter(|_| wanted) {
            if !self.carries() {
                step.args.insert(STANDBY.to_owned(), "true".to_owned());
            }
            add(plan, step);
        }
    }

    /// The fallback, where it may be opened at all.
    fn forward(&self, plan: &mut Plan, standing: bool) -> Option<Step> {
        let now_and_then = self.errors.iter().any(|f| NOW_AND_THEN.contains(&f.code.0));
        let broken = self.target.reach.answers != Some(true) || now_and_then;
        let tried = |f: &&&Finding| self.policy.tried.contains(&(f.code, ActionName::OpenForward));
        let lead = self.errors.first()?;
        if !self.policy.fallback || standing || !broken || self.errors.iter().any(|f| tried(&f)) {
            return None;
        }
        match actions::step(ActionName::OpenForward, self.facts, self.target, lead) {
            Ok(step) if self.denied() && !self.policy.allow.contains(&Allow::Policy) => {
                withhold(plan, step, Some(Allow::Policy), Text::new("plan.withheld.policy"));
                None
            }
            Ok(mut step) => {
                if let Act::Forward { front: true, around, .. } = &mut step.act {
                    *around |= now_and_then;
                }
                let cut_short = self.errors.iter().any(|f| CUT_SHORT.contains(&f.code.0));
                Some(if cut_short { open_forward::by_tunnel(step) } else { step })
            }
            Err(_) => None,
        }
    }

    /// Policy or mesh says no on purpose.
    fn denied(&self) -> bool {
        self.errors.iter().any(|f| DENIED_ON_PURPOSE.contains(&f.code.0) && f.code.0 != MISHAP)
    }

    /// Whether a forward would lead to the page as things are: to ready pods that listen, of the page alone, on the port
    /// that is known to be right.
    fn carries(&self) -> bool {
        let ready = self.target.service.as_ref().is_some_and(|s| s.usable().any(|e| !e.terminating));
        let elsewhere = |f: &Finding| f.remedies.iter().any(|r| ELSEWHERE.contains(r));
        let here = open_forward::here(self.facts, self.target).is_some();
        let unseen = |f: &Finding| here && BEFORE_OURS.contains(&f.code.0);
        ready && !self.errors.iter().any(|f| elsewhere(f) || MET_INSIDE.contains(&f.code.0) || unseen(f))
    }

    /// Plans the first rung that can be taken for this cause; false where there is none.
    fn repair(&self, finding: &Finding, carried: bool, plan: &mut Plan) -> bool {
        let mut reasons = Vec::new();
        let mut chosen: Option<Tier> = None;
        for &name in finding.remedies.iter().filter(|n| **n != ActionName::OpenForward) {
            if self.policy.tried.contains(&(finding.code, name)) {
                continue;
            }
            let step = match actions::step(name, self.facts, self.target, finding) {
                Ok(step) => step,
                Err(reason) => {
                    reasons.push(reason);
                    continue;
                }
            };
            if step.act == Act::Tell {
                // A workaround in the workload leaves the cause; what would cure it is told all the same.
                if chosen.is_none_or(|tier| tier == Tier::T3) {
                    withhold(plan, step, None, Text::new("plan.withheld.told"));
                }
                continue;
            }
            // On a guess nothing is changed.
            if finding.confidence == Confidence::Possible {
                continue;
            }
            // Where the page is carried already, no workload is touched for access alone.
            if chosen.is_some() || (name == ActionName::HostPort && carried) {
                continue;
            }
            match self.needs(&step) {
                Some((needs, why)) => withhold(plan, step, Some(needs), why),
                None => {
                    chosen = Some(step.tier);
                    self.owner_note(&step, plan);
                    let followers = actions::followers(&step, self.facts, self.target, finding);
                    add(plan, step);
                    followers.into_iter().for_each(|step| add(plan, step));
                }
            }
        }
        if chosen.is_none() && !carried {
            for reason in reasons {
                if !plan.notes.contains(&reason) {
                    plan.notes.push(reason);
                }
            }
        }
        chosen.is_some()
    }

    /// The grant a step lacks, and why it needs it.
    fn needs(&self, step: &Step) -> Option<(Allow, Text)> {
        let lacks = |allow: Allow| !self.policy.allow.contains(&allow);
        let moves_pods = matches!(step.name, ActionName::PinToControlPlane | ActionName::HostPort);
        if self.denied() && lacks(Allow::Policy) {
            return Some((Allow::Policy, Text::new("plan.withheld.policy")));
        }
        match step.tier {
            Tier::T4 if lacks(Allow::System) => Some((Allow::System, Text::new("plan.withheld.system"))),
            Tier::T5 if lacks(Allow::Node) => Some((Allow::Node, Text::new("plan.withheld.node"))),
            Tier::T3 if moves_pods && lacks(Allow::Workload) => {
                actions::loss(self.target).map(|loss| (Allow::Workload, loss))
            }
            _ => None,
        }
    }

    /// Says so where Helm or GitOps owns the object and may take the change back.
    fn owner_note(&self, step: &Step, plan: &mut Plan) {
        let Act::Patch { object, .. } = &step.act else { return };
        let Some(service) = self.target.service.as_ref() else { return };
        let meta = match object.kind.as_str() {
            "Service" => Some(&service.service.metadata),
            "Deployment" => service.deployment.map(|d| &d.metadata),
            _ => None,
        };
        let Some(owner) = meta.and_then(actions::owner) else { return };
        let note = Text::new("plan.note.owned").with("object", object).with("owner", owner);
        if !plan.notes.contains(&note) {
            plan.notes.push(note);
        }
    }
}

/// Adds a step unless one of the plan does the same or touches the same field.
fn add(plan: &mut Plan, step: Step) {
    let clashes = |other: &Step| match (&step.act, &other.act) {
        (Act::Patch { object, changes, .. }, Act::Patch { object: o, changes: c, .. }) => {
            object == o && changes.iter().any(|a| c.iter().any(|b| patch::overlap(&a.path, &b.path)))
        }
        // One new Service wakes every kube-proxy.
        (Act::Wake { .. }, Act::Wake { .. }) => true,
        (Act::Create { object, .. }, Act::Create { object: o, .. })
        | (Act::Configure { object, .. }, Act::Configure { object: o, .. }) => object == o,
        // A pod is restarted once.
        (
            Act::DeletePod { object, .. },
            Act::Configure { restart, .. } | Act::Create { restart: Some(restart), .. },
        ) => *object == restart.pod,
        (a, b) => a == b,
    };
    if !plan.steps.iter().any(clashes) {
        plan.steps.push(step);
    }
}

fn withhold(plan: &mut Plan, step: Step, needs: Option<Allow>, why: Text) {
    let same = |w: &Withheld| w.step.name == step.name && w.step.command == step.command;
    if !plan.withheld.iter().any(same) {
        plan.withheld.push(Withheld { step, needs, why });
    }
}
