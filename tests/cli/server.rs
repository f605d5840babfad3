//! An API server that answers, but to nobody's joy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Refuses every request with one status and notes what was asked.
pub struct Refusing {
    address: SocketAddr,
    /// The first lines of all requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Refusing {
    /// Its thread ends with the test's process.
    pub fn start(status: u16, reason: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let noted = Arc::clone(&noted);
                // A client that leaves in the middle has had enough.
                std::thread::spawn(move || serve(&stream.unwrap(), status, reason, &noted).unwrap_or_default());
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

    /// The requests that would have changed an object. Reviews of one's own rights change none.
    pub fn writes(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        assert!(!asked.is_empty(), "nobody asked this server anything");
        let writing = |line: &&String| !line.starts_with("GET ") && !line.contains("/selfsubject");
        asked.iter().filter(writing).cloned().collect()
    }
}

fn serve(stream: &TcpStream, status: u16, reason: &str, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
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
        let body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": status,
        });
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        (&*stream).write_all((head + &body).as_bytes())?;
    }
}
