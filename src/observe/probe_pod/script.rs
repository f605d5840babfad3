//! What the probe pod runs, and what its words mean. Pure.
//!
//! The image is one that lies on the node for another purpose: a shell, and one program of those that many images hold.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::dial;
use crate::model::Outcome;

/// How long a dial, and how long its answer, may take: whole seconds, which all programs understand.
const SECONDS: u64 = 3;
/// What begins the script's own lines; no page begins a line so.
const MARK: &str = "@@bookaccess";

/// One dial: the address, and the page's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    pub ip: IpAddr,
    pub port: u16,
    pub path: String,
}

/// One dial in Python, of any version: address, port and request are its arguments.
const PYTHON: &str = r#"
import socket, sys
out = getattr(sys.stdout, "buffer", sys.stdout)
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), SECONDS)
    s.sendall(sys.argv[3].encode())
    while True:
        part = s.recv(65536)
        if not part:
            break
        out.write(part)
except Exception as e:
    out.write(("dial: " + str(e)).encode())
"#;

/// The functions `say` (a line of the script's own, with the time since boot) and `ask` (address, port, URL, request).
const SHELL: &str = r#"
say() { read up rest < /proc/uptime; printf '\nMARK %s %s\n' "$1" "$up"; }
for tool in python3 python curl nc wget bash none; do command -v $tool >/dev/null 2>&1 && break; done
ask() {
  say "begin $tool"
  case $tool in
    python*) $tool -c "$PYTHON" "$1" "$2" "$4" ;;
    curl) curl -sS -g -i --noproxy '*' -m SECONDS "$3" ;;
    nc) printf '%s' "$4" | nc -w SECONDS "$1" "$2" ;;
    wget) wget -T SECONDS -t 1 -O - "$3" && printf '\nMARK got\n' ;;
    bash) timeout SECONDS bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf %s "$2" >&3 && cat <&3' "$1" "$2" "$4"; [ $? = 124 ] && echo 'dial: timed out' ;;
  esac 2>&1
  say end
}
"#;

/// The words of the container's command.
pub fn command(dials: &[Dial]) -> Vec<String> {
    let filled = |text: &str| text.replace("SECONDS", &SECONDS.to_string()).replace("MARK", MARK);
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut script = format!("PYTHON={}\n{}", quoted(&filled(PYTHON)), filled(SHELL));
    for Dial { ip, port, path } in dials {
        let host = SocketAddr::new(*ip, *port).to_string();
        let request = dial::head(path, &host);
        let url = format!("http://{host}{path}");
        script.push_str(&format!("ask {ip} {port} {} {}\n", quoted(&url), quoted(&request)));
    }
    vec!["sh".to_owned(), "-c".to_owned(), script]
}

/// What came of each dial, in their order; none of those that the text says nothing of.
pub fn read(text: &str, marker: Option<&str>) -> Vec<(Outcome, Duration)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once(&format!("\n{MARK} begin ")) {
        let Some((head, body)) = begun.split_once('\n') else { break };
        let (tool, from) = head.split_once(' ').unwrap_or((head, ""));
        let end = format!("\n{MARK} end ");
        let (said, to) = body.split_once(&end).unwrap_or((body, ""));
        let up = |text: &str| text.lines().next().and_then(|t| t.trim().parse::<f64>().ok());
        let took = up(to).zip(up(from)).map_or(0.0, |(to, from)| (to - from).max(0.0));
        if tool == "none" {
            break;
        }
        found.push((outcome(said, marker), Duration::from_secs_f64(took)));
        rest = to;
    }
    found
}

/// Whether the image holds nothing that can dial.
pub fn is_unable(text: &str) -> bool {
    text.contains(&format!("\n{MARK} begin none "))
}

fn outcome(said: &str, marker: Option<&str>) -> Outcome {
    // wget tells of the status only where it is bad.
    if let Some((body, _)) = said.split_once(&format!("\n{MARK} got")) {
        return Outcome::Http { status: 200, right: marker.is_none_or(|m| body.contains(m)) };
    }
    if said.starts_with("HTTP/1.") || said.starts_with('\u{15}') {
        return dial::judge(said.as_bytes(), marker);
    }
    let lower = said.to_lowercase();
    let has = |words: &str| lower.contains(words);
    let status = ["server returned error: http/1.1 ", "server returned error: http/1.0 ", "error "];
    let status = status.iter().find_map(|before| lower.split_once(before)?.1.get(..3)?.parse().ok());
    if has("connection refused") {
        Outcome::Refused
    } else if has("no route to host") {
        Outcome::NoRoute
    } else if has("network is unreachable") || has("network unreachable") {
        Outcome::NetworkUnreachable
    } else if has("timed out") || has("timeout") {
        Outcome::Timeout
    } else if has("reset by peer") {
        Outcome::Reset
    } else if has("not permitted") || has("permission denied") {
        Outcome::Forbidden
    } else if let Some(status) = status {
        Outcome::Http { status, right: false }
    } else if said.trim().is_empty() || has("empty reply") {
        Outcome::Empty
    } else {
        Outcome::NotHttp
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    fn outcomes(text: &str) -> Vec<Outcome> {
        read(text, Some("Bookstore")).into_iter().map(|(outcome, _)| outcome).collect()
    }

    #[test]
    fn the_words_of_each_program_are_understood() {
        let page = Outcome::Http { status: 200, right: true };
        for (said, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nBookstore", page.clone()),
            ("HTTP/1.1 503 No\r\n\r\n", Outcome::Http { status: 503, right: false }),
            ("Connecting to 10.0.0.1\nBookstore\n@@bookaccess got", page),
            ("wget: server returned error: HTTP/1.1 404 Not Found", Outcome::Http { status: 404, right: false }),
            ("ERROR 502: Bad Gateway.", Outcome::Http { status: 502, right: false }),
            ("dial: [Errno 111] Connection refused", Outcome::Refused),
            ("curl: (7) Failed to connect to 10.0.0.1 port 80 after 0 ms: Connection refused", Outcome::Refused),
            ("curl: (28) Connection timed out after 3001 milliseconds", Outcome::Timeout),
            ("nc: can't connect to remote host (10.0.0.1): No route to host", Outcome::NoRoute),
            ("nc: timed out", Outcome::Timeout),
            ("curl: (52) Empty reply from server", Outcome::Empty),
            ("", Outcome::Empty),
            ("SSH-2.0-OpenSSH_9.2", Outcome::NotHttp),
        ] {
            let text = format!("\n@@bookaccess begin x 10.00\n{said}\n@@bookaccess end 10.50\n");
            assert_eq!(read(&text, Some("Bookstore")), [(expected, Duration::from_millis(500))], "{said}");
        }
    }

    #[test]
    fn an_image_without_any_of_the_programs_says_nothing() {
        let text = "\n@@bookaccess begin none 1.00\n\n@@bookaccess end 1.00\n";
        assert!(is_unable(text));
        assert_eq!(outcomes(text), []);
        assert_eq!(outcomes("exec: sh: not found"), []);
    }

    /// Whatever of the programs is here, the script dials by it.
    #[test]
    fn the_script_dials() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let n = stream.read(&mut asked).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: close\r\n\r\nSimple Bookstore")
                .unwrap();
            String::from_utf8_lossy(&asked[..n]).into_owned()
        });
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = taken.local_addr().unwrap().port();
        drop(taken);
        let dial = |port| Dial { ip: IpAddr::from([127, 0, 0, 1]), port, path: "/it's?a=1".to_owned() };
        let words = command(&[dial(port), dial(closed)]);
        let out = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(outcomes(&text), [Outcome::Http { status: 200, right: true }, Outcome::Refused], "{text}");
        assert!(serving.join().unwrap().starts_with("GET /it's?a=1 HTTP/1.1\r\n"));
    }
}
