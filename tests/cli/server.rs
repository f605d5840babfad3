//! API servers that answer: one to nobody's joy, one with a few objects.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A status code and a body for the path and the query of a request.
type Answer = dyn Fn(&str, &str) -> (u16, Value) + Send + Sync;

/// Answers by path and notes what was asked.
pub struct Answering {
    address: SocketAddr,
    /// The first lines of all requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    /// Refuses every request with one status.
    pub fn refusing(status: u16, reason: &'static str) -> Self {
        Self::start(move |_, _| (status, failure(status, reason)))
    }

    /// Has these objects, by the path of their list; all other lists are empty. A list of more than is asked for comes in
    /// pages.
    pub fn listing(objects: Vec<(&'static str, Value)>) -> Self {
        Self::paging(objects, false)
    }

    /// As [`Answering::listing`]; where it `forgets`, it knows no page but the first.
    pub fn paging(objects: Vec<(&'static str, Value)>, forgets: bool) -> Self {
        Self::start(move |path, query| list(&objects, forgets, path, query))
    }

    /// As [`Answering::listing`], and says that these are the rules for whoever asks.
    pub fn permitting(rules: Value, objects: Vec<(&'static str, Value)>) -> Self {
        let status = json!({"resourceRules": rules, "nonResourceRules": [], "incomplete": false});
        Self::start(move |path, query| match path {
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews" => (201, json!({"spec": {}, "status": status})),
            _ => list(&objects, false, path, query),
        })
    }

    /// Its thread ends with the test's process.
    fn start(answer: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (noted, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                // A client that leaves in the middle has had enough.
                std::thread::spawn(move || serve(&stream.unwrap(), &*answer, &noted).unwrap_or_default());
            }
        });
        Self { address, asked }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The requests whose first line holds this.
    pub fn asked(&self, words: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    /// How often this list was read.
    pub fn reads(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|line| line.strip_prefix("GET ").and_then(path_of) == Some(path)).count()
    }

    /// The requests that would have changed an object. Reviews of one's own rights change none.
    pub fn writes(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        assert!(!asked.is_empty(), "nobody asked this server anything");
        let writing = |line: &&String| !line.starts_with("GET ") && !line.contains("/selfsubject");
        asked.iter().filter(writing).cloned().collect()
    }
}

/// A list, in pages; where the server `forgets`, it knows none but the first.
fn list(objects: &[(&str, Value)], forgets: bool, path: &str, query: &str) -> (u16, Value) {
    let last = path.rsplit('/').next().unwrap_or_default();
    if !last.ends_with('s') || last.contains('-') {
        return (404, failure(404, "NotFound"));
    }
    let number = |name: &str| -> Option<usize> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok())
    };
    let all: Vec<&Value> = objects.iter().filter(|(list, _)| *list == path).map(|(_, o)| o).collect();
    let begin = number("continue").unwrap_or_default();
    if forgets && begin > 0 {
        return (410, failure(410, "Expired"));
    }
    let end = number("limit").map_or(all.len(), |limit| all.len().min(begin + limit));
    let next = if end < all.len() { json!({"continue": end.to_string()}) } else { json!({}) };
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": next, "items": all[begin..end]}))
}

/// The path of a request's target, without its query.
fn path_of(target: &str) -> Option<&str> {
    target.split([' ', '?']).next()
}

fn failure(status: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": status,
    })
}

fn serve(stream: &TcpStream, answer: &Answer, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        asked.lock().unwrap().push(first.trim().to_owned());
        let target = first.split_once(' ').map(|(_, rest)| rest).unwrap_or_default();
        let query = target.split(' ').next().and_then(|target| target.split_once('?')).map(|(_, query)| query);
        let (status, body) = answer(path_of(target).unwrap_or_default(), query.unwrap_or_default());
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        (&*stream).write_all((head + &body).as_bytes())?;
    }
}
