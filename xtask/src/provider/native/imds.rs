//! A stand-in for EC2's instance metadata service, version 2 only (IMDSv2): a token by PUT, then reads that carry it.
//! Source: Amazon EC2 User Guide, "Use the Instance Metadata Service to access instance metadata".

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

/// What a token looks like does not matter; this one is given to everybody.
const TOKEN: &str = "AQAEAbookaccess0000000000000000000000000000000000000w==";

#[derive(clap::Args)]
pub struct Args {
    /// Where to answer
    #[arg(long)]
    listen: SocketAddr,
    /// The instance that has a public address: its internal one
    #[arg(long)]
    instance: Ipv4Addr,
    /// The public address of that instance
    #[arg(long)]
    public: Ipv4Addr,
}

/// Answers until it is killed.
pub fn run(args: &Args) -> Result<ExitCode> {
    let listener = TcpListener::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let (instance, public) = (args.instance, args.public);
        std::thread::spawn(move || {
            // Who hangs up early has no answer to complain about.
            let _ = serve(stream, instance, public);
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(mut stream: TcpStream, instance: Ipv4Addr, public: Ipv4Addr) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let peer = stream.peer_addr()?.ip();
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        match line.split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let (status, body) = answer(&request, &headers, peer, instance, public);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nServer: EC2ws\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

/// The status line's rest and the body.
fn answer(
    request: &str,
    headers: &[(String, String)],
    peer: IpAddr,
    instance: Ipv4Addr,
    public: Ipv4Addr,
) -> (&'static str, String) {
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if path == "/latest/api/token" {
        let seconds = header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|v| v.parse::<u32>().ok());
        return match (method, seconds) {
            ("PUT", Some(1..=21600)) => ("200 OK", TOKEN.to_owned()),
            ("PUT", _) => ("400 Bad Request", String::new()),
            _ => ("405 Method Not Allowed", String::new()),
        };
    }
    if header("x-aws-ec2-metadata-token") != Some(TOKEN) {
        return ("401 Unauthorized", String::new());
    }
    let has_public = peer == IpAddr::V4(instance);
    match path.trim_end_matches('/') {
        "/latest/meta-data/public-ipv4" if has_public => ("200 OK", public.to_string()),
        "/latest/meta-data/local-ipv4" => ("200 OK", peer.to_string()),
        "/latest/meta-data/instance-id" => ("200 OK", "i-0bookaccess0000001".to_owned()),
        "/latest/meta-data" => ("200 OK", "instance-id\nlocal-ipv4\npublic-ipv4".to_owned()),
        _ => ("404 Not Found", String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str, headers: &[(&str, &str)], peer: [u8; 4]) -> (&'static str, String) {
        let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let instance = Ipv4Addr::new(172, 30, 0, 10);
        answer(request, &headers, IpAddr::from(peer), instance, Ipv4Addr::new(203, 0, 113, 10))
    }

    #[test]
    fn reads_need_a_token() {
        let read = "GET /latest/meta-data/public-ipv4 HTTP/1.1";
        assert_eq!(ask(read, &[], [172, 30, 0, 10]).0, "401 Unauthorized");
        let put = "PUT /latest/api/token HTTP/1.1";
        assert_eq!(ask(put, &[], [172, 30, 0, 10]).0, "400 Bad Request");
        let (status, token) = ask(put, &[("x-aws-ec2-metadata-token-ttl-seconds", "60")], [172, 30, 0, 10]);
        assert_eq!(status, "200 OK");
        let with = [("x-aws-ec2-metadata-token", token.as_str())];
        assert_eq!(ask(read, &with, [172, 30, 0, 10]), ("200 OK", "203.0.113.10".into()));
        // Only the control plane has a public address.
        assert_eq!(ask(read, &with, [172, 30, 0, 11]).0, "404 Not Found");
    }
}
