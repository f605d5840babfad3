//! sessionAffinity ClientIP: which endpoint a client belongs to.
//!
//! Pure. Nobody is remembered: the client's address is hashed as the rules hash it, so that it belongs to the same pod
//! by whatever carrier, data thread or process, before and after a restart. timeoutSeconds says for how long a client
//! must find its pod again at least; a hash has no such end, so any value is honoured, and there is nothing to bound.

use std::net::IpAddr;
use std::sync::Arc;

use super::endpoints::{Backend, Endpoint, Routes};
use super::slots::{Slots, preference, slot_of};

/// Where one client belongs.
#[derive(Debug)]
pub struct Home {
    slot: usize,
    v4: bool,
    /// Where the rules lead the client, where they know.
    led: Option<u64>,
    routes: Arc<[Backend]>,
}

impl Home {
    /// Of a client that comes to a pair. `led` are the rules' slots for it, if there are any.
    pub fn of(client: IpAddr, routes: &Routes, pair: usize, led: Option<&Slots>) -> Self {
        let slot = slot_of(client);
        let led = led.and_then(|slots| slots.at(slot)).map(|b| b.id);
        let routes = routes.pairs.get(pair).cloned().unwrap_or_default();
        Self { slot, v4: client.is_ipv4(), led, routes }
    }

    /// How near an endpoint is to it; the nearest comes first. The rules know best. Then come, as with the rules, the
    /// endpoints of the client's family (with externalTrafficPolicy Local those on this node), in the slot's order.
    pub fn nearness(&self, endpoint: &Endpoint) -> impl Ord + use<> {
        let id = endpoint.id();
        (self.led == Some(id), self.is_routed(id), preference(self.slot, id))
    }

    fn is_routed(&self, id: u64) -> bool {
        let (v4, v6) = self.routes.split_at(self.routes.partition_point(|b| b.socket.is_ipv4()));
        let own = if self.v4 { v4 } else { v6 };
        own.binary_search_by_key(&id, |b| b.id).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::endpoints::{Index, Member, Policy};
    use crate::model::PortRef;
    use proptest::prelude::*;

    /// A pod of these families on this node or another.
    fn members(id: u8, v4: bool, v6: bool, here: bool) -> Vec<Member> {
        let ips = [
            v4.then(|| IpAddr::from([10, 0, 0, id])),
            v6.then(|| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(id)])),
        ];
        let member = |ip| Member {
            ip,
            pod: Some(format!("p{id}")),
            uid: Some(format!("u{id}")),
            ready: true,
            serving: true,
            terminating: false,
            node: Some(if here { "here" } else { "there" }.to_owned()),
            ports: vec![("http".into(), 80)],
        };
        ips.into_iter().flatten().map(member).collect()
    }

    proptest! {
        /// Whatever the pods are, the listener's first endpoint is the pod that rules lead the client to, be these
        /// rules' slots of all endpoints or of those that the kernel reaches.
        #[test]
        fn the_listener_and_the_rules_agree(
            pods in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..12),
            local: bool,
            reached: u32,
            client in prop_oneof![any::<u32>().prop_map(|ip| IpAddr::V4(ip.into())), any::<u128>().prop_map(|ip| IpAddr::V6(ip.into()))],
        ) {
            let mut index = Index::default();
            for (id, (v4, v6, here)) in (0u8..).zip(&pods) {
                index.apply(&id.to_string(), members(id, *v4, *v6, *here));
            }
            let port = PortRef::Name("http".into());
            let (routes, all) = (index.routes(&[Some(port.clone())], Policy { local, by_client: true }, Some("here")), index.usable(&port));
            let of_family = |b: &&Backend| b.socket.is_ipv4() == client.is_ipv4();
            let routed: Vec<Backend> = routes.pairs[0].iter().filter(of_family).copied().collect();
            let known: Vec<Backend> = routed.iter().filter(|b| reached & (1 << (b.id % 32)) != 0).copied().collect();
            for slots in [Slots::by_client(&routed), Slots::by_client(&known)] {
                let Some(rules) = slots.at(slot_of(client)) else { continue };
                let home = Home::of(client, &routes, 0, Some(&slots));
                let own = all.iter().max_by_key(|e| home.nearness(e)).map(Endpoint::id);
                prop_assert_eq!(own, Some(rules.id));
            }
            // Before the rules are there, and where there are none.
            let home = Home::of(client, &routes, 0, None);
            let own = all.iter().max_by_key(|e| home.nearness(e)).map(Endpoint::id);
            prop_assert!(own.is_some() || all.is_empty());
            prop_assert!(routed.is_empty() || own == Slots::by_client(&routed).at(slot_of(client)).map(|b| b.id));
        }
    }
}
