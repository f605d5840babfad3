//! The applications: what each role answers on which path.

use std::fmt::Write;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client;
use crate::dns::Resolver;
use crate::faulty::Fault;
use crate::http::{Reply, Request};
use crate::trial;

/// The page gives up on a part after this time, name resolution included.
const PART_LIMIT: Duration = Duration::from_millis(1000);
/// Reviews gives up on ratings earlier, so that it still reaches the page.
const RATINGS_LIMIT: Duration = Duration::from_millis(700);

/// Which application this process stands in for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    Productpage,
    Details,
    /// Versions 1 to 3: no stars, black stars, red stars.
    Reviews(u8),
    Ratings,
    Grafana,
    /// No application: the fast server of measurements ([`crate::fast`]).
    Bench,
}

impl Role {
    const ALL: [Self; 8] = [
        Self::Productpage,
        Self::Details,
        Self::Reviews(1),
        Self::Reviews(2),
        Self::Reviews(3),
        Self::Ratings,
        Self::Grafana,
        Self::Bench,
    ];

    pub fn parse(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == word);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|role| role.name()).collect();
            format!("no role {word}; there are {}", names.join(", "))
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Productpage => "productpage",
            Self::Details => "details",
            Self::Reviews(1) => "reviews-v1",
            Self::Reviews(2) => "reviews-v2",
            Self::Reviews(_) => "reviews-v3",
            Self::Ratings => "ratings",
            Self::Grafana => "grafana",
            Self::Bench => "bench",
        }
    }

    /// Where the original listens.
    pub fn port(self) -> u16 {
        if self == Self::Grafana { 3000 } else { 9080 }
    }
}

/// A role with what it knows of its surroundings.
#[derive(Debug)]
pub struct App {
    role: Role,
    pod: String,
    resolver: Resolver,
    pub fault: Option<Fault>,
    /// Bytes that the page is longer by: more than one packet takes.
    pad: usize,
}

impl App {
    pub fn from_env(role: Role) -> Result<Self, String> {
        let pad = std::env::var("PAD").ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "unnamed".to_owned());
        Ok(Self { role, pod, resolver: Resolver::of_system(), fault: Fault::from_env()?, pad })
    }

    pub fn answer(&self, request: &Request) -> Reply {
        if let Some(reply) = self.fault.and_then(|fault| fault.answer(request)) {
            return reply;
        }
        if let Some(reply) = trial::answer(request) {
            return reply;
        }
        if request.method != "GET" && request.method != "HEAD" {
            return text(405, "GET only\n");
        }
        match (self.role, request.path.as_str()) {
            (Role::Productpage, "/" | "/productpage") => html(self.page()),
            (Role::Productpage, "/health") => text(200, "Product page is healthy"),
            (Role::Grafana, "/api/health") => {
                json_reply(&json!({"database": "ok", "version": "13.2.3", "commit": "standin"}))
            }
            (Role::Grafana, "/" | "/login") => html(
                "<!DOCTYPE html>\n<html><head><title>Grafana</title></head><body>Welcome to Grafana</body></html>\n"
                    .to_owned(),
            ),
            (Role::Details | Role::Ratings | Role::Reviews(_), "/health") => {
                json_reply(&json!({"status": format!("{} is healthy", self.role.name())}))
            }
            (Role::Details, path) if path.starts_with("/details/") => json_reply(&details()),
            (Role::Ratings, path) if path.starts_with("/ratings/") => json_reply(&ratings()),
            (Role::Reviews(version), path) if path.starts_with("/reviews/") => json_reply(&self.reviews(version)),
            _ => text(404, "not found\n"),
        }
    }

    /// Both parts are fetched at the same time, so the page takes no longer than its slowest part.
    fn page(&self) -> String {
        let (details, reviews) = std::thread::scope(|scope| {
            let details = scope.spawn(|| self.part("details", "/details/0", PART_LIMIT));
            let reviews = self.part("reviews", "/reviews/0", PART_LIMIT);
            (details.join().unwrap_or_else(|_| Err(io::Error::other("panic"))), reviews)
        });
        let mut body = String::from(
            "<!DOCTYPE html>\n<html>\n<head><title>Simple Bookstore App</title></head>\n<body>\n<h1>The Comedy of Errors</h1>\n",
        );
        match details {
            Ok(details) => section(&mut body, "Book Details", &details_lines(&details)),
            Err(_) => missing(&mut body, "details"),
        }
        match reviews {
            Ok(reviews) => section(&mut body, "Book Reviews", &reviews_lines(&reviews)),
            Err(_) => missing(&mut body, "reviews"),
        }
        if self.pad > 0 {
            let _ = writeln!(body, "<!-- {} -->", ".".repeat(self.pad));
        }
        let _ = write!(body, "<p>Served by pod {}</p>\n</body>\n</html>\n", escape(&self.pod));
        body
    }

    fn reviews(&self, version: u8) -> Value {
        let ratings = (version > 1).then(|| self.part("ratings", "/ratings/0", RATINGS_LIMIT));
        let color = if version == 3 { "red" } else { "black" };
        let review = |reviewer: &str, words: &str| {
            let mut review = json!({"reviewer": reviewer, "text": words});
            match &ratings {
                None => {}
                Some(Ok(stars)) => {
                    review["rating"] = json!({"stars": stars["ratings"][reviewer], "color": color});
                }
                Some(Err(_)) => {
                    review["rating"] = json!({"error": "Ratings service is currently unavailable"});
                }
            }
            review
        };
        json!({
            "id": "0",
            "podname": self.pod,
            "reviews": [
                review("Reviewer1", "Slapstick, twins and a happy end."),
                review("Reviewer2", "Very funny, though one loses count of the twins."),
            ],
        })
    }

    /// The address of another service: its DNS name, unless the environment says otherwise, in the
    /// variables that the original reads.
    fn part(&self, name: &str, path: &str, limit: Duration) -> io::Result<Value> {
        let upper = name.to_ascii_uppercase();
        let host = std::env::var(format!("{upper}_HOSTNAME")).unwrap_or_else(|_| name.to_owned());
        let port = std::env::var(format!("{upper}_SERVICE_PORT")).ok();
        let port = port.and_then(|text| text.parse().ok()).unwrap_or(9080);
        let deadline = Instant::now() + limit;
        let body = client::get(&self.resolver, &host, port, path, deadline)?;
        serde_json::from_str(&body).map_err(io::Error::other)
    }
}

fn details() -> Value {
    json!({
        "id": 0, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
        "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890",
    })
}

fn ratings() -> Value {
    json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})
}

fn details_lines(details: &Value) -> Vec<String> {
    ["author", "type", "pages", "publisher", "language", "ISBN-10"]
        .iter()
        .map(|key| format!("{key}: {}", plain(&details[*key])))
        .collect()
}

fn reviews_lines(reviews: &Value) -> Vec<String> {
    let list = reviews["reviews"].as_array().cloned().unwrap_or_default();
    let mut lines: Vec<_> = list
        .iter()
        .map(|review| {
            let rating = match &review["rating"] {
                Value::Null => String::new(),
                rating if rating["error"].is_string() => format!(" ({})", plain(&rating["error"])),
                rating => format!(" ({} {} stars)", plain(&rating["stars"]), plain(&rating["color"])),
            };
            format!("{}: {}{rating}", plain(&review["reviewer"]), plain(&review["text"]))
        })
        .collect();
    lines.push(format!("Reviews served by: {}", plain(&reviews["podname"])));
    lines
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn section(body: &mut String, title: &str, lines: &[String]) {
    let _ = writeln!(body, "<h2>{title}</h2>\n<ul>");
    for line in lines {
        let _ = writeln!(body, "<li>{}</li>", escape(line));
    }
    body.push_str("</ul>\n");
}

fn missing(body: &mut String, part: &str) {
    let _ = writeln!(
        body,
        "<h2>Error fetching product {part}!</h2>\n<p>Sorry, product {part} are currently unavailable for this book.</p>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn text(status: u16, body: &str) -> Reply {
    Reply::Text { status, kind: "text/plain; charset=utf-8", body: body.to_owned() }
}

fn html(body: String) -> Reply {
    Reply::Text { status: 200, kind: "text/html; charset=utf-8", body }
}

fn json_reply(value: &Value) -> Reply {
    Reply::Text { status: 200, kind: "application/json", body: format!("{value}\n") }
}
