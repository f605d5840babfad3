//! The last rung, v4 channels, where our end is the pod's as well: what a client that ended first still sees, and for how
//! long one that is gone is kept.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use e2e::apiserver::Api;
use e2e::apiserver::apps::{self, App, pattern};

use super::LIMIT;
use super::clients;
use super::ways::{Running, Way};

const GET: &[u8] = b"GET /productpage HTTP/1.1\r\nHost: x\r\n\r\n";

/// An application behind v4 channels.
fn through_channels(app: App) -> (Api, Running) {
    let ports = [("app", apps::start(app).port())];
    let api = Api::with_ports(&ports);
    let running = Running::start(Way::Channel, &api, &ports, "").unwrap();
    (api, running)
}

#[test]
fn a_client_that_left_before_its_answer_holds_nothing() {
    let (api, running) = through_channels(App::Http);
    let mut client = clients::connect(running.at["app"]).unwrap();
    client.write_all(GET).unwrap();
    // The application keeps its connection for another request; nothing but the refused answer tells that nobody asks.
    drop(client);
    let began = Instant::now();
    while api.counted().channel == 0 || api.counted().live > 0 {
        assert!(began.elapsed() < LIMIT / 2, "{:?}", api.counted());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_ended_first_has_its_bytes_and_no_end_that_nobody_knows() {
    let (api, running) = through_channels(App::Echo);
    let mut client = clients::connect(running.at["app"]).unwrap();
    client.write_all(&pattern(0, 4096)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = vec![0; 4096];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, pattern(0, 4096));
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let more = client.read(&mut got).map_err(|e| e.kind());
    assert_eq!(more, Err(std::io::ErrorKind::WouldBlock), "the application has not ended");
    assert_eq!(api.counted().live, 1);
    // Somebody else is served meanwhile.
    let mut other = clients::connect(running.at["app"]).unwrap();
    assert!(clients::echoes(&mut other));
}
