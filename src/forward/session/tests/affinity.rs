//! Clients that stay with their pods: always the same one, another only while it cannot be had.

use super::*;
use crate::forward::endpoints::Backend;
use crate::forward::slots::{Slots, slot_of};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn three() -> Vec<Endpoint> {
    vec![
        pod("one", |s| answer(s, "one")).await,
        pod("two", |s| answer(s, "two")).await,
        pod("three", |s| answer(s, "three")).await,
    ]
}

/// Where rules that know of these pods lead a client.
fn by_rules(pods: &[Endpoint], client: IpAddr) -> Endpoint {
    let backends: Vec<Backend> = pods.iter().map(Endpoint::backend).collect();
    let id = Slots::by_client(&backends).at(slot_of(client)).unwrap().id;
    pods.iter().find(|e| e.id() == id).unwrap().clone()
}

fn without(pods: &[Endpoint], one: &Endpoint) -> Vec<Endpoint> {
    pods.iter().filter(|e| *e != one).cloned().collect()
}

/// Which pod answers a client.
async fn ask(bench: &Bench, client: IpAddr) -> Option<String> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    let mut stream = socket.connect(bench.address).await.unwrap();
    stream.write_all(GET).await.unwrap();
    Some(rest(&mut stream).await.unwrap())
}

#[tokio::test]
async fn a_client_stays_with_its_pod_leaves_one_that_is_gone_and_comes_back() {
    let pods = three().await;
    let bench = Bench::new(pods.clone()).await.stay();
    let own = by_rules(&pods, CLIENT);
    for _ in 0..20 {
        assert_eq!(ask(&bench, CLIENT).await, own.pod);
    }
    // Another pod goes and comes: that is no matter of this client.
    let other = without(&pods, &own)[0].clone();
    bench.pods(without(&pods, &other));
    assert_eq!(ask(&bench, CLIENT).await, own.pod);
    let left = without(&pods, &own);
    bench.pods(left.clone());
    for _ in 0..20 {
        assert_eq!(ask(&bench, CLIENT).await, by_rules(&left, CLIENT).pod);
    }
    bench.pods(pods);
    assert_eq!(ask(&bench, CLIENT).await, own.pod);
}

#[tokio::test]
async fn a_pod_that_refuses_is_left_for_the_next_one_and_only_for_so_long() {
    let mut pods = three().await;
    // The client's own pod is there, but does not listen yet.
    let at = pods.iter().position(|e| *e == by_rules(&pods, CLIENT)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    pods[at] = Endpoint { port: address.port(), ..pods[at].clone() };
    let own = pods[at].clone();
    assert_eq!(by_rules(&pods, CLIENT), own, "a pod is known by its uid");
    let bench = Bench::new(pods.clone()).await.stay();
    let next = by_rules(&without(&pods, &own), CLIENT);
    for _ in 0..20 {
        assert_eq!(ask(&bench, CLIENT).await, next.pod);
    }
    let _listening = pod_at("own", address, |s| answer(s, "own")).await;
    let back = async { while ask(&bench, CLIENT).await.as_deref() != Some("own") {} };
    timeout(LIMIT, back).await.unwrap();
    assert_eq!(ask(&bench, CLIENT).await.as_deref(), Some("own"));
}

/// Whoever asks, on whichever data thread and of whichever process: the answer is that of the rules.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_processes_lead_many_clients_where_the_rules_would() {
    let pods = three().await;
    let (first, second) = (Bench::new(pods.clone()).await.stay(), Bench::new(pods.clone()).await.stay());
    let mut seen = std::collections::BTreeSet::new();
    for host in 1..=100 {
        let client = IpAddr::from([127, 0, 2, host]);
        let own = by_rules(&pods, client).pod;
        assert_eq!(ask(&first, client).await, own, "{client}");
        assert_eq!(ask(&second, client).await, own, "{client}");
        seen.insert(own);
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

/// The kernel reaches fewer pods than the listener does.
#[tokio::test]
async fn the_rules_that_are_there_come_first() {
    let pods = three().await;
    let bench = Bench::new(pods.clone()).await.stay();
    let reached = without(&pods, &by_rules(&pods, CLIENT));
    let backends: Vec<Backend> = reached.iter().map(Endpoint::backend).collect();
    bench.shared.led.send_modify(|led| {
        led.insert((Family::V4, 0), Slots::by_client(&backends));
    });
    for _ in 0..20 {
        assert_eq!(ask(&bench, CLIENT).await, by_rules(&reached, CLIENT).pod);
    }
    // Where they lead is gone before they know.
    let gone = by_rules(&reached, CLIENT);
    bench.pods(without(&pods, &gone));
    assert_eq!(ask(&bench, CLIENT).await, by_rules(&pods, CLIENT).pod);
}
