//! What the log says of single connections: whoever looks for one finds all its lines by one number.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use e2e::apiserver::Api;
use e2e::apiserver::apps::{self, App};
use serde_json::Value;

use super::{LIMIT, Place};

/// The events of each connection in the log, in order.
fn told(place: &Place) -> BTreeMap<u64, Vec<String>> {
    let mut told: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in place.ok("forward logs --raw").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(connection) = line["connection"].as_u64() {
            told.entry(connection).or_default().push(line["event"].as_str().unwrap().to_owned());
        }
    }
    told
}

fn get(at: SocketAddr) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())
}

#[test]
fn every_line_of_a_connection_has_its_number() {
    let place = Place::of(Api::start(apps::start(App::ResetAfter(0))));
    let at = place.start("--max-per-client 1 --pod-running-timeout 1s");
    let closed = || place.until("none open", |s| s["live"] == 0);
    assert!(get(at).is_err());
    closed();

    let held = TcpStream::connect(at).unwrap();
    place.until("one open", |s| s["live"] == 1);
    assert!(get(at).is_err());
    drop(held);
    closed();

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.api.set_pods(&[]);
    place.until("parking", |s| s["phase"] == "parking");
    place.api.set_pods(&[nobody]);
    place.until("ready", |s| s["phase"] == "ready");
    assert!(get(at).is_err());
    closed();

    let told = told(&place);
    assert_eq!(told[&1], ["repeated", "repeated", "repeated", "aborted"]);
    assert_eq!(told[&3], ["refused"]);
    assert_eq!((told[&4].first().unwrap().as_str(), told[&4].last().unwrap().as_str()), ("dial-failed", "aborted"));
    assert_eq!(told.len(), 3, "{told:?}");
    let (en, ko) = (place.ok("forward logs"), place.ok("forward logs --lang ko"));
    for said in ["#1 connection aborted: ", "#3 turned 127.0.0.1 away: ", "#4 cannot reach pod "] {
        assert!(en.contains(said), "{en}");
    }
    assert!(ko.contains("#3 127.0.0.1 주소의 접속을 거절했습니다: "), "{ko}");
}
