//! A name to an IPv4 address, as a pod does it: `/etc/resolv.conf`, search list, UDP (RFC 1035).
//!
//! glibc's resolver loads libraries at run time and so does not work in a static program.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

/// A query without an answer is sent again after this time.
const RESEND: Duration = Duration::from_millis(250);
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const NXDOMAIN: u8 = 3;

/// What `/etc/resolv.conf` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// Names with fewer dots are tried with the search list first.
    ndots: usize,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Address(Ipv4Addr),
    /// No such name, or a name without an IPv4 address.
    None,
    /// Not an answer to this query.
    Foreign,
    Failure(u8),
}

impl Resolver {
    /// The system's; without the file, one that knows only literal addresses.
    pub fn of_system() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut resolver = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    resolver.servers.extend(server.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.filter_map(|word| word.strip_prefix("ndots:")).next_back();
                    if let Some(count) = ndots.and_then(|word| word.parse().ok()) {
                        resolver.ndots = count;
                    }
                }
                _ => {}
            }
        }
        resolver
    }

    /// The first address of a name, or the reason why there is none by the deadline.
    pub fn lookup(&self, name: &str, deadline: Instant) -> io::Result<IpAddr> {
        if let Ok(literal) = name.parse() {
            return Ok(literal);
        }
        let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("no such host: {name}"));
        for candidate in self.candidates(name) {
            for server in &self.servers {
                match ask(*server, &candidate, deadline) {
                    Ok(Answer::Address(address)) => return Ok(address.into()),
                    Ok(Answer::Failure(code)) => {
                        failure = io::Error::other(format!("name server answers with code {code}"));
                    }
                    Ok(_) => break,
                    Err(e) => failure = e,
                }
            }
        }
        Err(failure)
    }

    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let mut list: Vec<_> = self.search.iter().map(|zone| format!("{name}.{zone}")).collect();
        let dots = name.matches('.').count();
        list.insert(if dots >= self.ndots { 0 } else { list.len() }, name.to_owned());
        list
    }
}

fn ask(server: SocketAddr, name: &str, deadline: Instant) -> io::Result<Answer> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    // Connected: answers of others are not seen, and an ICMP error ends the wait.
    socket.connect(server)?;
    let id = query_id();
    let query = query(id, name)?;
    let mut packet = [0; 1500];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.send(&query)?;
        socket.set_read_timeout(Some(left.min(RESEND)))?;
        match socket.recv(&mut packet) {
            Ok(count) => match read_answer(&packet[..count], id) {
                Answer::Foreign => {}
                answer => return Ok(answer),
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// Guessable, which is good enough inside a test network.
fn query_id() -> u16 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (now.subsec_nanos() >> 4) as u16
}

fn query(id: u16, name: &str) -> io::Result<Vec<u8>> {
    let mut packet = Vec::with_capacity(name.len() + 18);
    let recursion_desired = 0x0100;
    for word in [id, recursion_desired, 1, 0, 0, 0] {
        packet.extend_from_slice(&u16::to_be_bytes(word));
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("bad name: {name}")));
        }
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&TYPE_A.to_be_bytes());
    packet.extend_from_slice(&CLASS_IN.to_be_bytes());
    Ok(packet)
}

fn read_answer(packet: &[u8], id: u16) -> Answer {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    if packet.len() < 12 || word(0) != Some(id) || packet[2] & 0x80 == 0 {
        return Answer::Foreign;
    }
    match packet[3] & 0x0f {
        0 => first_address(packet).map_or(Answer::None, Answer::Address),
        NXDOMAIN => Answer::None,
        code => Answer::Failure(code),
    }
}

/// The first A record of the answer section; CNAMEs before it are passed over.
fn first_address(packet: &[u8]) -> Option<Ipv4Addr> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (questions, answers) = (word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = after_name(packet, at)? + 4;
    }
    for _ in 0..answers {
        at = after_name(packet, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        if let (TYPE_A, [a, b, c, d]) = (kind, data) {
            return Some(Ipv4Addr::new(*a, *b, *c, *d));
        }
        at += 10 + length;
    }
    None
}

/// Where the name that starts at `at` ends: after its zero byte or its compression pointer.
fn after_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A name server on loopback that knows one name and loses its first packet.
    fn server(known: &'static str) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            socket.recv(&mut packet).unwrap();
            loop {
                let (count, from) = socket.recv_from(&mut packet).unwrap();
                let id = u16::from_be_bytes([packet[0], packet[1]]);
                let mut reply = packet[..count].to_vec();
                reply[2] |= 0x80;
                if packet[..count] == query(id, known).unwrap()[..] {
                    reply[7] = 2;
                    // a CNAME, then the address, both named by a pointer to the question
                    reply.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
                    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 96, 3, 7]);
                } else {
                    reply[3] |= NXDOMAIN;
                }
                socket.send_to(&reply, from).unwrap();
            }
        });
        address
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn the_file_of_a_pod_is_read() {
        let text = "search bookinfo.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        let resolver = Resolver::parse(text);
        assert_eq!(resolver.servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!(resolver.ndots, 5);
        assert_eq!(resolver.candidates("details")[0], "details.bookinfo.svc.cluster.local");
        assert_eq!(resolver.candidates("details").last().unwrap(), "details");
        assert_eq!(resolver.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(resolver.candidates("details."), ["details"]);
    }

    #[test]
    fn a_name_of_the_search_list_is_found_though_a_packet_is_lost() {
        let resolver = Resolver {
            servers: vec![server("details.svc.cluster.local")],
            search: vec!["other.svc".into(), "svc.cluster.local".into()],
            ndots: 5,
        };
        assert_eq!(resolver.lookup("details", soon()).unwrap().to_string(), "10.96.3.7");
        let absent = resolver.lookup("reviews", soon()).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        assert_eq!(resolver.lookup("192.0.2.1", soon()).unwrap().to_string(), "192.0.2.1");
    }

    #[test]
    fn a_silent_server_costs_no_more_than_the_deadline() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let resolver =
            Resolver { servers: vec![silent.local_addr().unwrap()], search: vec!["a".into(), "b".into()], ndots: 5 };
        let start = Instant::now();
        let error = resolver.lookup("details", start + Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }

    #[test]
    fn cut_packets_are_no_answer() {
        let whole = query(7, "details").unwrap();
        for end in 0..whole.len() {
            let mut cut = whole[..end].to_vec();
            if end > 7 {
                cut[2] |= 0x80;
                cut[7] = 9;
            }
            assert!(!matches!(read_answer(&cut, 7), Answer::Address(_)));
        }
    }
}
