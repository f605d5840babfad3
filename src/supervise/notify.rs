//! What systemd is told of a forward, and the sockets that it keeps between two lives of one (sd_notify(3)).
//!
//! Everything here does nothing where the process is no service of systemd's.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::forward::listener::Socket;
use crate::forward::run::View;

/// The way to systemd.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    address: SocketAddrUnix,
}

impl Notify {
    /// As `NOTIFY_SOCKET` names it. None where nobody listens there.
    pub fn from_env() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|n| !n.is_empty())?;
        Self::to(&name).inspect_err(|error| tracing::warn!(event = "no-notify", error = %error)).ok()
    }

    /// To a socket's path, or to an abstract name, which begins with `@`.
    ///
    /// # Errors
    /// Where it is no such name.
    pub fn to(name: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        let address = match name.as_bytes() {
            #[cfg(target_os = "linux")]
            [b'@', rest @ ..] => SocketAddrUnix::new_abstract_name(rest)?,
            [b'/', ..] => SocketAddrUnix::new(name)?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(Self { socket, address })
    }

    /// Says one thing: lines of `NAME=value`.
    pub fn say(&self, words: &str) {
        self.send(words, None);
    }

    /// Gives a descriptor into keeping with what is said.
    fn send(&self, words: &str, descriptor: Option<BorrowedFd<'_>>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(descriptor) = &descriptor {
            control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
        }
        let bytes = [IoSlice::new(words.as_bytes())];
        let sent = sendmsg_addr(&self.socket, &self.address, &bytes, &mut control, SendFlags::empty());
        if let Err(error) = sent {
            tracing::warn!(event = "not-notified", error = %error);
        }
    }
}

/// The name under which a socket is kept.
fn name(pair: usize, is_private: bool) -> String {
    format!("{}-{pair}", if is_private { "private" } else { "pair" })
}

/// What a kept socket's name means.
fn meaning(name: &str) -> Option<(usize, bool)> {
    let (kind, pair) = name.split_once('-')?;
    let is_private = match kind {
        "pair" => false,
        "private" => true,
        _ => return None,
    };
    Some((pair.parse().ok()?, is_private))
}

/// The sockets that systemd kept since this service's last life (`LISTEN_FDS`). Connections may wait in them.
pub fn kept() -> Vec<Socket> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    // Looks at `LISTEN_PID` too.
    let mut all = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..all.len() {
        let meaning = names.get(index).copied().and_then(meaning);
        match (meaning, all.take_tcp_listener(index)) {
            (Some((pair, is_private)), Ok(Some(listener))) => sockets.push(Socket { pair, is_private, listener }),
            (_, other) => tracing::warn!(event = "stray-descriptor", name = names.get(index), error = ?other.err()),
        }
    }
    sockets
}

/// The forward serves: has its sockets kept, and says so.
pub fn ready(view: &View) {
    let Some(notify) = Notify::from_env() else { return };
    match view.sockets() {
        Ok(sockets) => keep(&notify, &sockets),
        Err(error) => tracing::warn!(event = "sockets-not-kept", error = %error),
    }
    notify.say(&format!("READY=1\nSTATUS={}", view.urls().join(" ")));
}

/// What was kept before goes: the order may have changed since.
fn keep(notify: &Notify, sockets: &[Socket]) {
    let mut names: Vec<String> = sockets.iter().map(|s| name(s.pair, s.is_private)).collect();
    names.extend(std::env::var("LISTEN_FDNAMES").unwrap_or_default().split(':').map(str::to_owned));
    names.sort_unstable();
    names.dedup();
    for name in names.iter().filter(|n| meaning(n).is_some()) {
        notify.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }
    for socket in sockets {
        let words = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={}", name(socket.pair, socket.is_private));
        notify.send(&words, Some(socket.listener.as_fd()));
    }
}

/// The orders are read again; [`ready`] follows.
pub fn reloading() {
    if let Some(notify) = Notify::from_env() {
        notify.say("RELOADING=1");
    }
}

/// It ends. Where its target is gone nobody shall wait at its ports for the next life.
pub fn stopping(view: &View) {
    let Some(notify) = Notify::from_env() else { return };
    notify.say("STOPPING=1");
    if view.report().over.is_some() {
        for (pair, is_private) in view.pairs() {
            notify.say(&format!("FDSTOREREMOVE=1\nFDNAME={}", name(pair, is_private)));
        }
    }
}

/// It cannot begin, in words for people.
pub fn failed(why: &str) {
    if let Some(notify) = Notify::from_env() {
        notify.say(&format!("STATUS={}", why.replace('\n', " ")));
    }
}

/// How long systemd waits for a sign of life (`WATCHDOG_USEC`); none where it does not.
fn patience() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|usec| *usec > 0).map(Duration::from_micros)
}

/// Gives signs of life as long as this runtime and every data thread of the forward gets to its work. `view` is the
/// forward that serves at that moment.
pub async fn feed_watchdog(view: impl Fn() -> View) {
    let (Some(patience), Some(notify)) = (patience(), Notify::from_env()) else { return };
    let mut ticks = interval(patience / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if timeout(patience / 3, view().answers()).await.is_ok() {
            notify.say("WATCHDOG=1");
        } else {
            tracing::error!(event = "data-thread-hangs");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSliceMut;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    #[test]
    fn words_and_a_descriptor_arrive_at_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.as_os_str()).unwrap();
        notify.say("READY=1\nSTATUS=x");
        let mut buffer = [0; 256];
        let got = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..got], b"READY=1\nSTATUS=x");

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        keep(&notify, &[Socket { pair: 3, is_private: true, listener }]);
        let got = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..got], b"FDSTOREREMOVE=1\nFDNAME=private-3");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got =
            recvmsg(&systemd, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::empty()).unwrap().bytes;
        assert_eq!(&buffer[..got], b"FDSTORE=1\nFDPOLL=0\nFDNAME=private-3");
        let kept = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut all) => all.next(),
            _ => None,
        });
        assert_eq!(std::net::TcpListener::from(kept.unwrap()).local_addr().unwrap(), at);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_is_no_path() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("bookaccess-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        Notify::to(format!("@{name}").as_ref()).unwrap().say("WATCHDOG=1");
        let mut buffer = [0; 64];
        let got = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..got], b"WATCHDOG=1");
        assert!(Notify::to("notify".as_ref()).is_err());
    }

    #[test]
    fn names_of_kept_sockets_are_read_back_and_strange_ones_are_not() {
        for (pair, is_private) in [(0, false), (12, true)] {
            assert_eq!(meaning(&name(pair, is_private)), Some((pair, is_private)));
        }
        for strange in ["", "stored", "pair-", "pair-x", "unknown-1"] {
            assert_eq!(meaning(strange), None, "{strange}");
        }
    }
}
