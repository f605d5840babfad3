//! What goes in comes out, however it is cut and whoever ends first; and what many connections cost the API server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use e2e::apiserver::apps::{self, ANSWER, App, Order, pattern};
use e2e::apiserver::{Api, Break};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::LIMIT;
use super::clients::{self, Client, End};
use super::ways::{Running, Way};

/// One conversation of a client with [`App::Ordered`].
#[derive(Clone, Debug)]
struct Talk {
    /// What the client sends, one write each.
    chunks: Vec<usize>,
    down: u32,
    app_ends_first: bool,
    /// The client ends its side before it reads to the end, not after.
    ends_early: bool,
    /// How much the client reads at a time.
    sip: usize,
}

fn talk(early: impl Strategy<Value = bool>) -> impl Strategy<Value = Talk> {
    let chunk = prop_oneof![1usize..20, 1usize..5_000, 30_000usize..140_000];
    let down = prop_oneof![Just(0u32), 1u32..100, 1u32..400_000];
    let sip = prop_oneof![1usize..50, 100usize..70_000];
    (prop::collection::vec(chunk, 0..8), down, any::<bool>(), early, sip).prop_map(
        |(chunks, down, app_ends_first, ends_early, sip)| Talk { chunks, down, app_ends_first, ends_early, sip },
    )
}

/// Holds the conversation; the error says what was wrong with it.
fn hold(at: SocketAddr, talk: &Talk) -> Result<(), String> {
    let up: usize = talk.chunks.iter().sum();
    let stream = clients::connect(at).map_err(|e| e.to_string())?;
    let order = Order { up: u32::try_from(up).unwrap(), down: talk.down, ends_first: talk.app_ends_first };
    let end = || stream.shutdown(Shutdown::Write).map_err(|e| format!("end: {e}"));
    let down = talk.down as usize + 1;
    let sending = || -> Result<(), String> {
        let mut sent = 0;
        let mut writer = &stream;
        writer.write_all(&order.bytes()).map_err(|e| format!("order: {e}"))?;
        for length in &talk.chunks {
            writer.write_all(&pattern(sent, *length)).map_err(|e| format!("write at {sent}: {e}"))?;
            sent += length;
        }
        if talk.ends_early { end() } else { Ok(()) }
    };
    std::thread::scope(|threads| {
        let sender = threads.spawn(sending);
        let got = sip(&stream, talk.sip, Some(down))?;
        sender.join().map_err(|_| "the sender panicked".to_owned())??;
        if !talk.ends_early && !talk.app_ends_first {
            end()?;
        }
        let rest = sip(&stream, talk.sip, None)?;
        let expected = [pattern(0, talk.down as usize), b"y".to_vec()].concat();
        let right = got == expected && rest.is_empty();
        right.then_some(()).ok_or_else(|| format!("{} and {} of {down} bytes, or others", got.len(), rest.len()))
    })
}

/// Reads so much, or to the end.
fn sip(mut stream: &TcpStream, size: usize, length: Option<usize>) -> Result<Vec<u8>, String> {
    let (mut got, mut buffer) = (Vec::new(), vec![0; size]);
    loop {
        let room = length.map_or(size, |length| size.min(length - got.len()));
        if room == 0 {
            return Ok(got);
        }
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return Ok(got),
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) => return Err(format!("read at {} of {length:?}: {error}", got.len())),
        }
    }
}

/// Batches of conversations at the same time; the clients end their side early or not.
fn exact(way: Way, early: impl Strategy<Value = bool>) {
    let ports = [("app", apps::start(App::Ordered).port())];
    let api = Api::with_ports(&ports);
    let running = Running::start(way, &api, &ports, "").unwrap();
    let at = running.at["app"];
    let config = Config { cases: 12, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let batches = prop::collection::vec(talk(early), 1..10);
    let result = TestRunner::new(config).run(&batches, |talks| {
        let results: Vec<(Talk, Result<(), String>)> = std::thread::scope(|threads| {
            let running: Vec<_> = talks.iter().map(|talk| (talk, threads.spawn(|| hold(at, talk)))).collect();
            running.into_iter().map(|(talk, thread)| (talk.clone(), thread.join().unwrap())).collect()
        });
        for (talk, result) in results {
            prop_assert!(result.is_ok(), "{talk:?}: {result:?}");
        }
        Ok(())
    });
    result.unwrap();
    assert!(way.is_all_of(api.counted()), "{:?}", api.counted());
}

#[test]
fn what_goes_in_comes_out_directly() {
    exact(Way::Direct, any::<bool>());
}

#[test]
fn what_goes_in_comes_out_of_a_tunnel() {
    exact(Way::Spdy, any::<bool>());
}

#[test]
fn what_goes_in_comes_out_of_a_tunnel_in_a_websocket() {
    exact(Way::Tunnelled, any::<bool>());
}

/// Connections one after the other, each ended by a client that has the whole answer.
fn few_upgrades(connections: u64, app: App, client: Client, answer: &[u8]) {
    let ports = [("app", apps::start(app).port())];
    let api = Api::with_ports(&ports);
    let running = Running::start(Way::Spdy, &api, &ports, "").unwrap();
    let began = Instant::now();
    for number in 0..connections {
        let (seen, _) = client.run(running.at["app"]);
        assert!(seen.bytes == answer && seen.end == End::Own, "connection {number}: {seen}");
    }
    let counted = api.counted();
    eprintln!("{connections} connections in {:.1?}: {counted:?}", began.elapsed());
    assert!(counted.streams >= connections && counted.upgrades() <= 10, "{counted:?}");
}

#[test]
fn ten_thousand_connections_need_at_most_ten_upgrades() {
    few_upgrades(10_000, App::AnswersAfter(Duration::ZERO), Client::Read(ANSWER.len()), ANSWER);
}

#[test]
fn connections_that_the_application_keeps_open_need_few_upgrades_too() {
    few_upgrades(1_000, App::Http, Client::Page, &clients::page());
}

#[test]
fn a_killed_api_server_resets_what_is_incomplete_and_the_forward_lives_on() {
    for how in [Break::Fin, Break::Reset] {
        let length = 64 * 1024 * 1024;
        let ports = [("app", apps::start(App::Download(length)).port())];
        let api = Api::with_ports(&ports);
        let running = Running::start(Way::Spdy, &api, &ports, "").unwrap();
        let mut stream = clients::connect(running.at["app"]).unwrap();
        stream.write_all(b"go\n").unwrap();
        let mut got = vec![0; 1024 * 1024];
        stream.read_exact(&mut got).unwrap();
        api.down(how);
        let ended = stream.read_to_end(&mut got);
        assert_eq!(ended.map_err(|e| e.kind()), Err(std::io::ErrorKind::ConnectionReset), "{how:?}");
        assert!(got.len() < length && got == pattern(0, got.len()));
        // The listener stays, and whoever comes meanwhile waits.
        let (told, waiting) = mpsc::channel();
        let at = running.at["app"];
        std::thread::spawn(move || told.send(Client::Ask.run(at).0));
        let early = waiting.recv_timeout(Duration::from_millis(500));
        assert!(early.is_err(), "{how:?}: nobody can have answered, but {}", early.unwrap());
        api.up();
        let seen = waiting.recv_timeout(LIMIT).unwrap();
        assert!(seen.bytes == pattern(0, length) && seen.end == End::Fin, "{how:?}: {seen}");
    }
}
