//! A process that runs out of descriptors: whoever is there stays, whoever comes waits, and it can still be asked.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use e2e::apiserver::Api;
use e2e::apiserver::apps::{self, App};
use serde_json::Value;

use super::{LIMIT, Place, address, clients};

/// What the process may have open. Its own needs are about forty.
const LIMITED: usize = 400;
/// More than that leaves room for: two descriptors each.
const CLIENTS: usize = 300;

#[test]
fn without_descriptors_connections_wait_and_nothing_is_lost() {
    let place = Place::of(Api::start(apps::start(App::Echo)));
    let order = place.command("forward start svc/productpage :http --mode direct --address 127.0.0.1");
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {LIMITED} && exec \"$0\" \"$@\"")]).arg(order.get_program());
    limited.args(order.get_args()).env_clear().stdin(Stdio::null());
    limited.envs(order.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let started = limited.output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let at = address(String::from_utf8(started.stdout).unwrap().trim());

    // Each has said something: it is served if and only if its word comes back.
    let mut waiting: Vec<TcpStream> = (0..CLIENTS).map(|_| clients::connect(at).unwrap()).collect();
    for client in &mut waiting {
        client.write_all(apps::GREETING).unwrap();
    }
    place.until_logged("accept-waits");
    let why = format!("limit: {LIMITED}");
    let told = |s: &Value| s["lastFailure"]["message"].as_str().is_some_and(|message| message.contains(&why));
    let status = place.until("told", told);
    let (live, total) = (status["live"].as_u64().unwrap(), status["total"].as_u64().unwrap());
    // Nearly all descriptors are put to use, two for each connection.
    assert!(live == total && (120..CLIENTS as u64).contains(&live), "{status:#}");
    assert_eq!(status["phase"], "ready");

    // Those that are served leave, the next ones come in, until nobody waits any more.
    let began = Instant::now();
    let mut served = 0;
    while !waiting.is_empty() {
        let has_word = |client: &mut TcpStream| {
            client.set_nonblocking(true).unwrap();
            let heard = client.peek(&mut [0; 1]);
            client.set_nonblocking(false).unwrap();
            assert!(!matches!(heard, Ok(0)), "closed without an answer");
            heard.is_ok_and(|count| count > 0) && clients::hears(client)
        };
        let before = waiting.len();
        waiting.retain_mut(|client| !has_word(client));
        served += before - waiting.len();
        assert!(began.elapsed() < LIMIT, "{served} of {CLIENTS} served: {:#}", place.status());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let status = place.until("none open", |s| s["live"] == 0);
    assert!(status["total"] == CLIENTS && status["failed"] == 0, "{status:#}");
    assert!(clients::echoes(&mut clients::connect(at).unwrap()));
    let waits = place.ok("forward logs --raw").matches("accept-waits").count();
    assert!(waits < CLIENTS, "said {waits} times");
}
