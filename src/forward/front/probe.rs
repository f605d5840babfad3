//! Dials out of the outsider's namespace without a thread for each: a socket stays in the namespace it was made in.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::forward::spec::Page;
use crate::model::Outcome;
use crate::observe::dial::{classify, head, judge};
use crate::observe::outsider::Outsider;

/// At most this much of an answer is read in search of the marker.
const ANSWER_LIMIT: usize = 256 * 1024;

/// Connects from an address of the namespace.
///
/// # Errors
/// What was met instead of a connection.
pub async fn connect(
    outsider: &Outsider,
    source: IpAddr,
    to: SocketAddr,
    within: Duration,
) -> Result<TcpStream, Outcome> {
    let socket = outsider.socket(source).map_err(|error| classify(&error))?;
    match timeout(within, TcpSocket::from_std_stream(socket).connect(to)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(classify(&error)),
        Err(_) => Err(Outcome::Timeout),
    }
}

/// Asks for the page. Where nothing tells the right page from another, being taken is enough: the Service may not
/// speak HTTP at all.
pub async fn ask(mut stream: TcpStream, page: &Page, within: Duration) -> Outcome {
    let Some(marker) = page.marker.as_deref() else { return Outcome::Connected };
    let host = stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    let deadline = Instant::now() + within;
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(head(&page.path, &host).as_bytes()).await?;
        while answer.len() < ANSWER_LIMIT
            && !judge(&answer, Some(marker)).is_right()
            && stream.read_buf(&mut answer).await? > 0
        {}
        Ok::<_, std::io::Error>(())
    };
    match timeout_at(deadline, exchange).await {
        Ok(Err(error)) if answer.is_empty() => classify(&error),
        Err(_) if answer.is_empty() => Outcome::Silent,
        Ok(Ok(())) if answer.is_empty() => Outcome::Empty,
        _ => judge(&answer, Some(marker)),
    }
}

/// Whether the path works.
pub fn passes(outcome: &Outcome) -> bool {
    outcome.is_right() || *outcome == Outcome::Connected
}
