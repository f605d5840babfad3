//! A Service edited into something that does not lead to the page.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::app::NAMESPACE;
use crate::cluster::Cluster;
use crate::faults::Fault;

const SERVICE: &str = "service/productpage";

/// The selector names a label that no pod has.
pub fn selector_typo() -> Fault {
    edited("the selector has a typo", json!([{"op": "replace", "path": "/spec/selector/app", "value": "productpag"}]))
}

/// The targetPort is one that nothing listens on.
pub fn target_port_wrong() -> Fault {
    edited("the targetPort is wrong", json!([{"op": "replace", "path": "/spec/ports/0/targetPort", "value": 9999}]))
}

/// Only endpoints of the dialled node count.
pub fn local_only() -> Fault {
    edited(
        "externalTrafficPolicy is Local",
        json!([{"op": "replace", "path": "/spec/externalTrafficPolicy", "value": "Local"}]),
    )
}

/// An edit of the page's Service, undone by putting its former spec back.
fn edited(name: &str, patch: Value) -> Fault {
    let former: Arc<Mutex<Option<Value>>> = Arc::default();
    let kept = Arc::clone(&former);
    Fault::new(
        name,
        move |cluster| {
            let service = cluster.get(&["-n", NAMESPACE, SERVICE])?;
            *kept.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = Some(service["spec"].clone());
            cluster.json_patch(NAMESPACE, SERVICE, &patch)
        },
        move |cluster| put_back(cluster, &former),
    )
}

fn put_back(cluster: &Cluster, former: &Mutex<Option<Value>>) -> Result<()> {
    let spec = former.lock().ok().and_then(|mut kept| kept.take()).context("healed before injected")?;
    let patch = json!([{"op": "replace", "path": "/spec", "value": spec}]);
    cluster.json_patch(NAMESPACE, SERVICE, &patch)
}
