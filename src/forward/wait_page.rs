//! The page for a browser whose connection waits for a pod: says so in the user's language and reloads by itself.
//!
//! Pure. Only a request that is plainly HTTP/1 GET for HTML gets it; anything else goes on waiting.

/// The browser asks again after so many seconds.
const RETRY_SECONDS: u32 = 3;

/// What the page says.
#[derive(Debug, Clone)]
pub struct Words {
    /// `ko`, `en`.
    pub language: &'static str,
    pub title: String,
    pub lines: Vec<String>,
}

/// Whether these first bytes of a connection are one whole request for a page.
pub fn is_wanted(request: &[u8]) -> bool {
    let Some(head) = request.strip_suffix(b"\r\n\r\n") else { return false };
    let Ok(head) = std::str::from_utf8(head) else { return false };
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = first[..] else { return false };
    if method != "GET" || !target.starts_with('/') || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return false;
    }
    let mut accepts_html = false;
    for line in lines {
        // An empty line here would be the end of another request before this one.
        let Some((name, value)) = line.split_once(':') else { return false };
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("content-length") || is("transfer-encoding") || is("upgrade") {
            return false;
        }
        if is("accept") {
            accepts_html = value.split(',').any(|kind| kind.split(';').next().is_some_and(|k| k.trim() == "text/html"));
        }
    }
    accepts_html
}

/// The whole answer.
pub fn answer(words: &Words) -> Vec<u8> {
    let lines: String = words.lines.iter().map(|line| format!("<p>{}</p>\n", escape(line))).collect();
    let title = escape(&words.title);
    let body = format!(
        "<!doctype html>\n<html lang=\"{}\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"refresh\" content=\"{RETRY_SECONDS}\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font-family:sans-serif;max-width:40em;margin:15vh auto;padding:0 1em;line-height:1.6}}</style>\n\
         <h1>{title}</h1>\n{lines}</html>\n",
        words.language
    );
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Retry-After: {RETRY_SECONDS}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: &str = "GET /productpage HTTP/1.1\r\nHost: x\r\naccept: text/html,application/xml;q=0.9\r\n\r\n";

    #[test]
    fn a_browsers_request_is_told_from_everything_else() {
        assert!(is_wanted(BROWSER.as_bytes()));
        assert!(is_wanted(b"GET / HTTP/1.0\r\nAccept: */*;q=0.1, text/html;q=0.9\r\n\r\n"));
        for other in [
            "",
            "GET / HTTP/1.1\r\nAccept: text/html\r\n",
            "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nAccept: text/html\r\n\r\n",
            "GET / HTTP/1.1\r\nAccept: text/html\r\nContent-Length: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nAccept: text/html\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nAccept: text/html\r\n\r\n",
            "GET http://x/ HTTP/1.1\r\nAccept: text/html\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.1\r\nAccept: text/htmlx\r\n\r\n",
        ] {
            assert!(!is_wanted(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn the_answer_is_whole_and_nothing_in_it_is_markup_by_accident() {
        let words = Words { language: "ko", title: "<a> & \"b\"".to_owned(), lines: vec!["한 줄".to_owned()] };
        let answer = String::from_utf8(answer(&words)).unwrap_or_default();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains(&format!("Content-Length: {}", body.len())));
        assert!(head.contains("\r\nRetry-After: 3"));
        assert!(body.contains("&lt;a&gt; &amp; &quot;b&quot;") && body.contains("<p>한 줄</p>"), "{body}");
        assert!(body.contains("http-equiv=\"refresh\" content=\"3\"") && body.contains("lang=\"ko\""));
    }
}
