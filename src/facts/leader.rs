//! Whether the control plane's components still renew the Leases by which they show that they live.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use crate::model::Snapshot;

/// A leader renews its Lease every two seconds or so and loses it after fifteen. One that was quiet for so many seconds
/// has had no successor either.
const SILENCE: i64 = 40;

/// A component that renewed its Lease long ago.
#[derive(Debug, Clone, Copy)]
pub struct Silence<'a> {
    pub lease: &'a Lease,
    pub renewed: Timestamp,
    pub seconds: i64,
    /// Another component's Lease, or standing on a node, shows that this machine's clock is the cluster's.
    pub proven: bool,
}

/// The silence of the component of that name; none where it lives, or has no Lease.
pub fn silence<'a>(snapshot: &'a Snapshot, name: &str) -> Option<Silence<'a>> {
    let now = snapshot.now();
    let age = |lease: &Lease| renewed(lease).map(|t| now.as_second() - t.as_second());
    let lease = lease(snapshot, name)?;
    let seconds = age(lease).filter(|age| *age > SILENCE)?;
    let lives = |l: &Lease| age(l).is_some_and(|age| age.abs() <= SILENCE);
    let proven = snapshot.stand.node.is_some() || snapshot.objects.leases.iter().any(lives);
    Some(Silence { lease, renewed: renewed(lease)?, seconds, proven })
}

/// The Lease of that name.
pub fn lease<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Lease> {
    snapshot.objects.leases.iter().find(|l| l.metadata.name.as_deref() == Some(name))
}

fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|t| t.0)
}
