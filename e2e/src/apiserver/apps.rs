//! Applications on real sockets, each with one way of its own to treat a connection. They live as long as the process.

use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What an application does with a connection. A request is whatever the first read gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// Sends back what comes, and ends when the client has ended.
    Echo,
    /// Nobody listens.
    Refused,
    /// After a request, so many bytes of the pattern and RST.
    ResetAfter(usize),
    /// After a request, so many bytes of the pattern, nothing for so long, and RST.
    StopsShort(usize, Duration),
    /// After a request, twenty pieces of the pattern of this size, 50 ms apart.
    Slow(usize),
    /// Takes a connection and never reads from it.
    NeverReading,
    /// Ends before the client has said anything, and reads on.
    EofFirst,
    /// Greets with [`GREETING`], then as `Echo`.
    SpeaksFirst,
    /// After a request, [`ANSWER`] so much later; then it ends.
    AnswersAfter(Duration),
    /// [`ANSWER`] once the client has ended.
    AnswersOnEof,
    /// After a request, so many bytes of the pattern, and the end.
    Download(usize),
    /// Reads so many bytes, says `ok` or `wrong` of the pattern, and ends.
    Upload(usize),
    /// Does what the first nine bytes of the connection order ([`Order`]).
    Ordered,
    /// One page for each request, connection kept alive.
    Http,
}

/// What a server that speaks first says.
pub const GREETING: &[u8] = b"220 speaks first\r\n";
/// The whole of a short answer.
pub const ANSWER: &[u8] = b"an answer, all of it\n";
/// The page of [`App::Http`].
pub const PAGE: &str = "<title>Simple Bookstore App</title>";

/// Bytes that show where they come from: a piece that is lost, doubled or moved shows. From `begin` on.
pub fn pattern(begin: usize, length: usize) -> Vec<u8> {
    (begin..begin + length)
        .map(|at| {
            let block = (at / 4).wrapping_mul(0x9e37_79b1);
            block.to_le_bytes()[at % 4]
        })
        .collect()
}

/// What a client asks of [`App::Ordered`]: so many bytes of the pattern each way, at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// From the client, after the order.
    pub up: u32,
    /// To the client; behind them one more, `y` or `n`: whether what came was the pattern.
    pub down: u32,
    /// The application ends at once when both are done; else after the client's end.
    pub ends_first: bool,
}

impl Order {
    /// As it is sent.
    pub fn bytes(self) -> [u8; 9] {
        let mut bytes = [0; 9];
        bytes[..4].copy_from_slice(&self.up.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.down.to_be_bytes());
        bytes[8] = self.ends_first.into();
        bytes
    }

    async fn read(stream: &mut TcpStream) -> Result<Self> {
        let (up, down) = (stream.read_u32().await?, stream.read_u32().await?);
        Ok(Self { up, down, ends_first: stream.read_u8().await? == 1 })
    }
}

async fn ordered(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let order = Order::read(stream).await?;
    let (up, down) = (order.up as usize, order.down as usize);
    let (mut reader, mut writer) = stream.split();
    let reading = async {
        let (mut read, mut right) = (0, true);
        while read < up {
            let room = buffer.len().min(up - read);
            let count = reader.read(&mut buffer[..room]).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            right &= buffer[..count] == pattern(read, count);
            read += count;
        }
        Ok(right)
    };
    let writing = async { writer.write_all(&pattern(0, down)).await };
    let (right, ()) = tokio::try_join!(reading, writing)?;
    stream.write_all(if right { b"y" } else { b"n" }).await?;
    if !order.ends_first {
        while stream.read(buffer).await? > 0 {}
    }
    Ok(())
}

/// Starts the application on a free port of loopback.
///
/// # Panics
/// Where the machine has none.
pub fn start(app: App) -> SocketAddr {
    start_at(app, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// The same at an address.
///
/// # Panics
/// Where it is taken.
pub fn start_at(app: App, at: SocketAddr) -> SocketAddr {
    let _inside = super::threads().enter();
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    socket.set_reuseaddr(true).expect("a fresh socket takes the option");
    socket.bind(at).expect("the address is free");
    let address = socket.local_addr().expect("a bound socket has an address");
    if app == App::Refused {
        // Bound and not listening: nobody else gets the port, and whoever dials it is refused.
        std::mem::forget(socket);
        return address;
    }
    let listener = socket.listen(1024).expect("a bound socket can listen");
    super::threads().spawn(accept(listener, app));
    address
}

async fn accept(listener: TcpListener, app: App) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // How a connection ends is seen by the client.
            tokio::spawn(serve(stream, app));
        }
    }
}

async fn serve(mut stream: TcpStream, app: App) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    match app {
        App::Echo => echo(&mut stream, &mut buffer).await,
        App::Refused => Ok(()),
        App::ResetAfter(length) => {
            request(&mut stream, &mut buffer).await?;
            stream.write_all(&pattern(0, length)).await?;
            stream.set_zero_linger()
        }
        App::StopsShort(length, pause) => {
            request(&mut stream, &mut buffer).await?;
            stream.write_all(&pattern(0, length)).await?;
            tokio::time::sleep(pause).await;
            stream.set_zero_linger()
        }
        App::Slow(length) => {
            request(&mut stream, &mut buffer).await?;
            for piece in 0..20 {
                stream.write_all(&pattern(piece * length, length)).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
        App::NeverReading => std::future::pending().await,
        App::EofFirst => {
            stream.shutdown().await?;
            while stream.read(&mut buffer).await? > 0 {}
            Ok(())
        }
        App::SpeaksFirst => {
            stream.write_all(GREETING).await?;
            echo(&mut stream, &mut buffer).await
        }
        App::AnswersAfter(pause) => {
            request(&mut stream, &mut buffer).await?;
            tokio::time::sleep(pause).await;
            stream.write_all(ANSWER).await
        }
        App::AnswersOnEof => {
            while stream.read(&mut buffer).await? > 0 {}
            stream.write_all(ANSWER).await
        }
        App::Download(length) => {
            request(&mut stream, &mut buffer).await?;
            let mut sent = 0;
            while sent < length {
                let piece = (length - sent).min(buffer.len());
                stream.write_all(&pattern(sent, piece)).await?;
                sent += piece;
            }
            Ok(())
        }
        App::Upload(length) => {
            let (mut read, mut right) = (0, true);
            while read < length {
                let count = stream.read(&mut buffer).await?;
                if count == 0 {
                    return Ok(());
                }
                right &= buffer[..count] == pattern(read, count);
                read += count;
            }
            stream.write_all(if right { b"ok" } else { b"wrong" }).await
        }
        App::Ordered => ordered(&mut stream, &mut buffer).await,
        App::Http => http(&mut stream, &mut buffer).await,
    }
}

/// A client that ends without a word asks nothing.
async fn request(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    match stream.read(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn echo(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    loop {
        match stream.read(buffer).await? {
            0 => return stream.shutdown().await,
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}

async fn http(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut request = Vec::new();
    loop {
        while let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            request.drain(..end + 4);
            let length = PAGE.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{PAGE}");
            stream.write_all(answer.as_bytes()).await?;
        }
        match stream.read(buffer).await? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
}
