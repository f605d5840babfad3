//! Orders that no forward can carry out: one sentence each, in both languages, and nothing stays.

use serde_json::{Value, json};

use super::Place;

/// What is said on stderr, in English and in Korean.
fn said(place: &Place, line: &str) -> [String; 2] {
    ["en", "ko"].map(|language| {
        let refused = place.command(line).env("BOOKACCESS_LANG", language).output().unwrap();
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{line}: {refused:?}");
        String::from_utf8(refused.stderr).unwrap()
    })
}

#[test]
fn services_that_cannot_be_forwarded_say_why() {
    let place = Place::new();
    let holds = |line: &str, words: [&str; 2]| {
        for (text, word) in said(&place, line).iter().zip(words) {
            assert!(text.contains(word), "{line}: {text}");
        }
    };
    place.api.set_spec("selector", Value::Null);
    holds("forward start svc/productpage :http --mode tunnel", ["has no selector", "셀렉터가 없습니다"]);
    place.api.set_spec(
        "ports",
        json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "http", "port": 9080, "protocol": "TCP"}]),
    );
    holds("forward start svc/productpage :dns", ["is a UDP port", "UDP 포트입니다"]);
    holds("forward start svc/productpage :53", ["is a UDP port", "UDP 포트입니다"]);
    holds("forward start svc/productpage :54", ["9080 (http)", "9080 (http)"]);
    place.api.set_spec("externalName", json!("example.org"));
    holds("forward start svc/productpage :http", ["example.org", "ExternalName 서비스(example.org)"]);
    assert_eq!(place.status(), Value::Null);
}

#[test]
fn flags_that_mean_nothing_are_named() {
    let place = Place::new();
    for (flags, word) in [
        ("--metrics 0.0.0.0:9100", "0.0.0.0:9100"),
        ("--metrics here", "here"),
        ("--allow-cidr 10.0.0.0/33", "10.0.0.0/33"),
        ("--allow-cidr home", "home"),
        ("--max-connections 0", "--max-connections"),
        ("--pod-running-timeout soon", "soon"),
        ("--proxy-protocol v1", "v2"),
    ] {
        for text in said(&place, &format!("forward start svc/productpage :http {flags}")) {
            assert!(text.contains(word), "{flags}: {text}");
        }
    }
    assert_eq!(place.status(), Value::Null);
}
