//! By which protocol the tunnels go is told by status, its documents and metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use e2e::apiserver::apps::{self, App};
use e2e::apiserver::{Api, Refusal, Rung};

use super::clients::{self, Client};
use super::{LIMIT, Place};

fn scrape(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn the_protocol_in_use_is_told() {
    let name = |rung| match rung {
        Rung::Spdy => "spdy",
        Rung::Tunnelled => "spdy-in-websocket",
        Rung::Channel => "v4.channel",
    };
    let rungs = [Rung::Spdy, Rung::Tunnelled, Rung::Channel];
    for (better, rung) in rungs.into_iter().enumerate() {
        let place = Place::of(Api::with_ports(&[("http", apps::start(App::Http).port())]));
        for refused in &rungs[..better] {
            place.api.faults().refuse(*refused, Some(Refusal::no_such_rung(*refused)));
        }
        // Where none of the tests beside this one gets its ports.
        let metrics = TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap();
        let at = place.start(&format!("--mode tunnel --metrics {metrics}"));
        assert!(place.status().get("tunnelProtocol").is_none(), "before the first connection");
        let numbers = || scrape(metrics);
        assert!(!numbers().contains("tunnel_protocol"));
        let (seen, _) = Client::Page.run(at);
        assert_eq!(seen.bytes, clients::page());
        let name = name(rung);
        place.until("told", |s| s["carrier"] == "tunnel" && s["tunnelProtocol"] == name);
        let told = place.ok("forward status");
        assert!(told.contains(&format!("carrier: tunnel ({name})")), "{told}");
        for one in ["spdy", "spdy-in-websocket", "v4.channel"] {
            let line = format!("bookaccess_tunnel_protocol{{protocol=\"{one}\"}} {}\n", u8::from(one == name));
            assert!(numbers().contains(&line), "{line}{}", numbers());
        }
    }
}
