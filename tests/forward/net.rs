//! A node, its pods and a stranger as network namespaces of the test's own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::LIMIT;

/// Runs `test` (by its full name) in a namespace of its own. True inside.
pub fn inside(test: &str) -> bool {
    if std::env::var_os("BOOKACCESS_TEST_INSIDE").is_some() {
        return true;
    }
    let there = |program: &str| {
        Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    if !root || !["unshare", "ip", "nft"].into_iter().all(there) {
        eprintln!("NOT RUN: {test} needs root, unshare, ip and nft");
        return false;
    }
    let own = std::env::current_exe().unwrap();
    let mut child = Command::new("unshare");
    let status = child.args(["--net", "--"]).arg(own).args(["--exact", test, "--nocapture"]);
    assert!(status.env("BOOKACCESS_TEST_INSIDE", "1").status().unwrap().success());
    false
}

pub fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
}

pub fn nft(script: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

pub fn ruleset() -> String {
    String::from_utf8(Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout).unwrap()
}

pub fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !reached() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Of a client that connects.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// No detection of duplicate addresses on links that are made from now on: for up to two seconds a link would have no
/// address of its own to ask for its neighbours from, and every first packet of a stranger's address would be lost.
fn without_detection() {
    std::fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
}

/// A machine joined to the node by a link of its own; gone when this value is.
pub struct Host {
    holder: Child,
    namespace: File,
}

impl Host {
    /// `node` and `own` are the two ends' addresses with prefix; the way back leads over the node.
    pub fn join(link: &str, ends: &[(&str, &str)]) -> Self {
        let holder = Command::new("unshare").args(["--net", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let (pid, here) = (holder.id(), std::fs::read_link("/proc/self/ns/net").unwrap());
        let path = format!("/proc/{pid}/ns/net");
        until("in a namespace of its own", || std::fs::read_link(&path).is_ok_and(|there| there != here));
        let host = Self { holder, namespace: File::open(&path).unwrap() };
        without_detection();
        host.inside(without_detection);
        run(&format!("ip link add {link} type veth peer name eth0 netns {pid}"));
        run(&format!("ip link set {link} up"));
        let within = |line: String| run(&format!("nsenter --net={path} {line}"));
        within("ip link set lo up".to_owned());
        within("ip link set eth0 up".to_owned());
        for (node, own) in ends {
            let (version, nodad) = if node.contains(':') { ("-6", "nodad") } else { ("-4", "") };
            run(&format!("ip addr add {node} dev {link} {nodad}"));
            within(format!("ip addr add {own} dev eth0 {nodad}"));
            let gate = node.split('/').next().unwrap();
            within(format!("ip {version} route add default via {gate}"));
        }
        host
    }

    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                use std::os::fd::AsFd;
                move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                what()
            });
            thread.join().unwrap()
        })
    }

    pub fn connect(&self, to: SocketAddr) -> std::io::Result<Line> {
        let stream = self.inside(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        Ok(Line::of(stream))
    }

    /// Takes every address of a network for its own, so that it can be many clients.
    pub fn be(&self, network: &str) {
        let version = if network.contains(':') { "-6" } else { "-4" };
        self.inside(|| {
            run(&format!("ip {version} route add local {network} dev lo"));
            std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap();
        });
    }

    /// What a fresh connection from one of its addresses is answered.
    pub fn ask_from(&self, from: IpAddr, to: SocketAddr) -> std::io::Result<String> {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let stream = self.inside(|| {
            let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket(family, SocketType::STREAM, None)?;
            rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(PATIENCE))?;
            bind(&socket, &SocketAddr::new(from, 0))?;
            connect(&socket, &to)?;
            Ok::<_, std::io::Error>(TcpStream::from(socket))
        })?;
        Line::of(stream).ask()
    }

    /// What a fresh connection is answered.
    pub fn ask(&self, to: SocketAddr) -> std::io::Result<String> {
        self.connect(to)?.ask()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}

/// An open connection to a pod.
pub struct Line {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Line {
    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// `NAME PEER`: which pod answers, and whom it sees.
    pub fn ask(&mut self) -> std::io::Result<String> {
        self.stream.write_all(b"who\n")?;
        let mut answer = String::new();
        if self.reader.read_line(&mut answer)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer.trim().to_owned())
    }
}

/// A pod with an address of each family, which answers the page, and to any other line its name and its peer.
pub struct Pod {
    pub v4: SocketAddr,
    pub v6: SocketAddr,
    /// The node's end of its link: whom it sees where the client is masqueraded.
    pub gate: String,
    closed: Arc<AtomicBool>,
    _host: Host,
}

const PAGE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<title>Simple Bookstore App</title>";

impl Pod {
    pub fn start(number: u8) -> Self {
        let gate = format!("10.244.{number}.1");
        let (own, gate6, own6) =
            (format!("10.244.{number}.2"), format!("fd44:{number}::1"), format!("fd44:{number}::2"));
        let ends = [(format!("{gate}/24"), format!("{own}/24")), (format!("{gate6}/64"), format!("{own6}/64"))];
        let ends: Vec<(&str, &str)> = ends.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let host = Host::join(&format!("pod{number}"), &ends);
        let closed = Arc::new(AtomicBool::new(false));
        let sockets = [own, own6].map(|ip| SocketAddr::new(ip.parse().unwrap(), 9080));
        for socket in sockets {
            let (listener, closed) = (host.inside(|| TcpListener::bind(socket).unwrap()), closed.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if closed.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::spawn(move || serve(stream.unwrap(), number).unwrap_or_default());
                }
            });
        }
        Self { v4: sockets[0], v6: sockets[1], gate, closed, _host: host }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

fn serve(mut stream: TcpStream, number: u8) -> std::io::Result<()> {
    let peer: IpAddr = stream.peer_addr()?.ip();
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.starts_with("GET ") {
            return stream.write_all(PAGE.as_bytes());
        }
        stream.write_all(format!("pod{number} {peer}\n").as_bytes())?;
    }
    Ok(())
}
