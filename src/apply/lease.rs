//! One fix at a time: a Lease in the target's namespace, renewed while the fix runs.
//!
//! A holder that vanished is found out without comparing clocks of two machines: its Lease does not move for as long
//! as it is good for (client-go's rule for leader election).

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::kube::{MANAGED_BY, Writer, text};
use crate::model::ObjectRef;

/// Name of the Lease.
const NAME: &str = "bookaccess-fix";

/// So long a Lease is good for without renewal.
const DURATION: Duration = Duration::from_secs(15);

/// It is renewed this often.
const RENEW: Duration = Duration::from_secs(5);

/// How often a Lease held by another is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A Lease this much older than it is good for is dead, however far the clocks of two machines are apart.
const LONG_DEAD: i64 = 300;

/// A held Lease; renewed in the background until it is released or dropped.
pub struct Held {
    writer: Writer,
    object: ObjectRef,
    holder: String,
    renewal: tokio::task::JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Takes the Lease; waits for at most its duration to see whether another holder is alive.
pub async fn acquire(
    writer: &Writer,
    namespace: &str,
    holder: &str,
    cancel: &CancellationToken,
) -> Result<Held, Error> {
    let object = ObjectRef::namespaced("Lease", namespace, NAME);
    let mut seen: Option<(Value, Instant)> = None;
    loop {
        let taken = match writer.read(&object).await? {
            None => writer.create(&object, body(&object, holder, None), false).await?,
            Some(lease) => {
                let (by, renewed) = (text(&lease, "/spec/holderIdentity"), text(&lease, "/spec/renewTime"));
                let free = by.is_empty() || by == holder;
                let age = renewed.parse::<Timestamp>().map_or(i64::MAX, |t| (Timestamp::now() - t).get_seconds());
                let spec = lease.pointer("/spec").cloned().unwrap_or_default();
                let still = match &seen {
                    Some((before, since)) if *before == spec => since.elapsed() > DURATION,
                    Some(_) => return Err(Error::Held { namespace: namespace.to_owned(), by: by.to_owned() }),
                    None => false,
                };
                if free || still || age > LONG_DEAD {
                    writer.replace(&object, body(&object, holder, Some(&lease))).await?
                } else {
                    seen.get_or_insert((spec, Instant::now()));
                    false
                }
            }
        };
        if taken {
            break;
        }
        if seen.is_some() {
            tokio::select! {
                () = cancel.cancelled() => return Err(Error::Interrupted),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
    let renewal = tokio::spawn(renew(writer.clone(), object.clone(), holder.to_owned()));
    Ok(Held { writer: writer.clone(), object, holder: holder.to_owned(), renewal })
}

impl Held {
    /// Gives it up, so that the next fix need not wait.
    pub async fn release(self) -> Result<(), Error> {
        self.renewal.abort();
        match self.writer.read(&self.object).await? {
            Some(lease) if text(&lease, "/spec/holderIdentity") == self.holder => {
                self.writer.delete(&self.object, Some(text(&lease, "/metadata/uid")), false).await
            }
            _ => Ok(()),
        }
    }
}

async fn renew(writer: Writer, object: ObjectRef, holder: String) {
    loop {
        tokio::time::sleep(RENEW).await;
        // A renewal that fails is tried again at the next turn: three fit into the duration.
        if let Ok(Some(lease)) = writer.read(&object).await {
            if text(&lease, "/spec/holderIdentity") != holder {
                return;
            }
            let renewed = writer.replace(&object, body(&object, &holder, Some(&lease))).await;
            if let Err(error) = renewed {
                tracing::warn!(%error, "the lease was not renewed");
            }
        }
    }
}

fn body(object: &ObjectRef, holder: &str, before: Option<&Value>) -> Value {
    // RFC 3339 with microseconds, as MicroTime wants it.
    let now = format!("{:.6}", Timestamp::now());
    let at = |pointer: &str| before.and_then(|b| b.pointer(pointer)).cloned();
    let same = before.is_some_and(|b| text(b, "/spec/holderIdentity") == holder);
    let acquired = at("/spec/acquireTime").filter(|_| same).unwrap_or_else(|| Value::from(now.clone()));
    let mut metadata = json!({
        "name": object.name,
        "namespace": object.namespace(),
        "labels": {MANAGED_BY.0: MANAGED_BY.1},
    });
    if let Some(version) = at("/metadata/resourceVersion") {
        metadata["resourceVersion"] = version;
    }
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": acquired,
            "renewTime": now,
        },
    })
}
