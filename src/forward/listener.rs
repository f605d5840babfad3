//! The sockets that browsers dial. Bound once and never closed before the forward ends, whatever becomes of the pods.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};

use super::spec::{LOCALHOST, Spec};

/// Connections that wait in the kernel for their accept; net.core.somaxconn may lower it.
#[cfg(target_os = "linux")]
const BACKLOG: i32 = 4096;

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("port {} on {} is in use{}", address.port(), address.ip(), holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    InUse {
        address: SocketAddr,
        /// Name and pid of the process that holds it, where this user may see it.
        holder: Option<String>,
    },
    #[error("{address} is no address of this machine")]
    NotOurs { address: IpAddr },
    #[error("port {} needs the rights of root", address.port())]
    Privileged { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// One listening socket.
#[derive(Debug)]
pub struct Socket {
    /// The port pair it serves.
    pub pair: usize,
    /// Only rules of our own lead here.
    pub is_private: bool,
    pub listener: TcpListener,
}

impl Socket {
    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { pair: self.pair, is_private: self.is_private, listener: self.listener.try_clone()? })
    }
}

/// Bound sockets. Each address has one for each data thread, among which the kernel spreads connections.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<Socket>,
    width: usize,
    /// The public addresses pair by pair, in the order of the pairs; port 0 is resolved.
    pub bound: Vec<Vec<SocketAddr>>,
}

/// Binds all sockets of a Spec, `width` for each address. Of the two loopbacks that `localhost` means one is enough.
///
/// # Errors
/// See [`Error`]; then nothing stays bound.
pub fn bind(spec: &Spec, width: usize) -> Result<Listeners, Error> {
    Listeners::adopt(spec, width, Vec::new())
}

impl Listeners {
    /// As [`bind`], but takes over what another process bound before: its sockets keep the connections that wait in
    /// them. What is missing is bound; sockets that the Spec does not ask for are closed.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn adopt(spec: &Spec, width: usize, given: Vec<Socket>) -> Result<Self, Error> {
        let mut all = Self { sockets: Vec::new(), width, bound: Vec::new() };
        let mut given: Vec<(SocketAddr, Socket)> =
            given.into_iter().filter_map(|s| Some((s.listener.local_addr().ok()?, s))).collect();
        let is_localhost = spec.addresses == LOCALHOST;
        for (pair, wanted) in spec.listen_addresses().into_iter().enumerate() {
            let mut bound: Vec<SocketAddr> = Vec::new();
            for mut address in wanted {
                // With port 0 all addresses share the port that the first one got.
                address.set_port(bound.first().map_or(address.port(), SocketAddr::port));
                let is_it = |at: &SocketAddr, s: &Socket| {
                    let port = address.port();
                    s.pair == pair && !s.is_private && at.ip() == address.ip() && (port == 0 || at.port() == port)
                };
                let mut own: Vec<TcpListener> = Vec::new();
                while let Some(index) = given.iter().position(|(at, s)| is_it(at, s)) {
                    own.push(given.swap_remove(index).1.listener);
                }
                match group(address, width, own) {
                    Ok(group) => bound.push(all.add(pair, false, address, group)?),
                    Err(error)
                        if is_localhost
                            && address.is_ipv6()
                            && error.kind() != ErrorKind::AddrInUse
                            && !bound.is_empty() => {}
                    Err(error) => return Err(name(error, address)),
                }
            }
            all.bound.push(bound);
        }
        all.sockets.extend(given.into_iter().map(|(_, s)| s).filter(|s| s.is_private && s.pair < all.bound.len()));
        Ok(all)
    }

    /// The private port of a pair: the one that our own rules lead to. An adopted one, or a new one.
    ///
    /// # Errors
    /// Of the bind.
    pub fn private(&mut self, pair: usize, ip: IpAddr) -> Result<SocketAddr, Error> {
        let adopted = self.sockets.iter().filter(|s| s.is_private && s.pair == pair);
        let mut adopted = adopted.filter_map(|s| s.listener.local_addr().ok());
        if let Some(at) = adopted.find(|at| at.ip() == ip) {
            return Ok(at);
        }
        let address = SocketAddr::new(ip, 0);
        let group = group(address, self.width, Vec::new()).map_err(|source| name(source, address))?;
        self.add(pair, true, address, group)
    }

    /// All sockets once more, to be kept or handed to another process.
    ///
    /// # Errors
    /// Where no descriptors are left.
    pub fn copies(&self) -> io::Result<Vec<Socket>> {
        self.sockets.iter().map(Socket::try_clone).collect()
    }

    /// Deals the sockets out to so many threads. No socket is left out: connections may wait in it.
    pub fn share_out(self, threads: usize) -> Vec<Vec<Socket>> {
        let mut shares: Vec<Vec<Socket>> = (0..threads).map(|_| Vec::new()).collect();
        let mut dealt: HashMap<SocketAddr, usize> = HashMap::new();
        for socket in self.sockets {
            let Ok(at) = socket.listener.local_addr() else { continue };
            let turn = dealt.entry(at).or_default();
            shares[*turn % threads].push(socket);
            *turn += 1;
        }
        shares
    }

    fn add(
        &mut self,
        pair: usize,
        is_private: bool,
        address: SocketAddr,
        group: Vec<TcpListener>,
    ) -> Result<SocketAddr, Error> {
        let first = group.first().ok_or(ErrorKind::AddrNotAvailable.into());
        let bound = first.and_then(TcpListener::local_addr).map_err(|source| Error::Bind { address, source })?;
        self.sockets.extend(group.into_iter().map(|listener| Socket { pair, is_private, listener }));
        Ok(bound)
    }
}

/// What a failed bind means.
pub(super) fn name(source: io::Error, address: SocketAddr) -> Error {
    match source.kind() {
        ErrorKind::AddrInUse => Error::InUse { address, holder: super::holder::of_port(address.port()) },
        ErrorKind::AddrNotAvailable => Error::NotOurs { address: address.ip() },
        ErrorKind::PermissionDenied => Error::Privileged { address },
        _ => Error::Bind { address, source },
    }
}

/// Fills up `own` to `width` sockets of one address (SO_REUSEPORT).
///
/// The first one is bound without that option, so that a second process, which would share the port unnoticed, is
/// refused; from then on the option lets more sockets of ours join.
#[cfg(target_os = "linux")]
fn group(mut address: SocketAddr, width: usize, mut own: Vec<TcpListener>) -> io::Result<Vec<TcpListener>> {
    use rustix::net::{bind, listen, sockopt};
    let mut fresh = Vec::new();
    if let Some(first) = own.first() {
        address = first.local_addr()?;
    } else {
        let first = socket(address)?;
        bind(&first, &address)?;
        let first = TcpListener::from(first);
        address = first.local_addr()?;
        fresh.push(first);
    }
    for socket in own.iter().chain(&fresh) {
        sockopt::set_socket_reuseport(socket, true)?;
    }
    while own.len() + fresh.len() < width {
        let next = socket(address)?;
        sockopt::set_socket_reuseport(&next, true)?;
        match bind(&next, &address) {
            Ok(()) => fresh.push(next.into()),
            // A socket from elsewhere does not share its port: fewer threads accept, and that is all.
            Err(_) if !own.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    for socket in &fresh {
        listen(socket, BACKLOG)?;
    }
    for socket in own.iter().chain(&fresh) {
        // Connections inherit these, which saves each of them four system calls.
        sockopt::set_tcp_nodelay(socket, true)?;
        super::carrier::direct::set_keep_alive(socket);
    }
    own.append(&mut fresh);
    Ok(own)
}

#[cfg(target_os = "linux")]
fn socket(address: SocketAddr) -> io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // An address means itself: `::` is not IPv4 too.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

/// One socket, accepted from by one thread: elsewhere SO_REUSEPORT does not spread connections.
#[cfg(not(target_os = "linux"))]
fn group(address: SocketAddr, _: usize, own: Vec<TcpListener>) -> io::Result<Vec<TcpListener>> {
    if own.is_empty() { Ok(vec![TcpListener::bind(address)?]) } else { Ok(own) }
}
