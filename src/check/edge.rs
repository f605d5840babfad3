//! Whether something before the nodes drops packets to the port.

use crate::check::Check;
use crate::facts::reach::SSH;
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Confidence, Finding, ObjectRef, Outcome, Probe, Vantage};

/// Seen from elsewhere: packets to the port vanish, while another port of the same address is heard. The finding of
/// whoever names what drops them.
pub(crate) fn dropped(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Option<Finding> {
    let service = target.stuck()?;
    let address = target.reach.address?;
    // On a node a dial does not come from where browsers are.
    let vanishes = target.reach.decisive.iter().all(|p| p.outcome.dropped());
    if facts.snapshot.stand.node.is_some() || target.reach.answers != Some(false) || !vanishes {
        return None;
    }
    // Without another port that answers at this address, the address itself may be wrong.
    let here = |p: &&Probe| p.vantage == Vantage::Client && p.target.is_none() && p.host.parse() == Ok(address.ip);
    let heard = |p: &&Probe| p.outcome.connected() || p.outcome == Outcome::Refused;
    let controls = facts.snapshot.probes.iter().filter(here).filter(heard);
    let control = controls.min_by_key(|p| (!p.outcome.connected(), p.port))?;
    let inside = target.reach.node.and_then(|n| target.reach.through_node(n));
    let confidence = match inside {
        // It may be another's machine that has the address by now.
        _ if control.port == SSH && target.reach.node.is_none() => Confidence::Possible,
        Some(probe) if probe.outcome.is_right() => Confidence::Likely,
        // Nobody could look from inside. Where it fails inside as well, other checks say so and lead.
        _ => Confidence::Possible,
    };
    let well = service.live_pods().any(pod::is_ready) || service.pods.is_empty();
    if !well {
        return None;
    }
    let object = match target.reach.node {
        Some(node) => ObjectRef::cluster("Node", node),
        None => target.target.service_ref(),
    };
    let found = check.found(target, object).with("open_port", control.port).confidence(confidence);
    Some(found.because_of(target.reach.failure()).because_of([control]).because_of(inside))
}
