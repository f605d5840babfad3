//! One connection of a control socket: JSON lines, and descriptors that travel with them (SCM_RIGHTS, unix(7)).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// So many descriptors go with one line; the kernel takes 253 at a time (SCM_MAX_FD).
pub const MOST_DESCRIPTORS: usize = 200;
/// A line is no longer than this.
const LONGEST_LINE: usize = 1024 * 1024;
const READ: usize = 16 * 1024;

/// The connection.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Wire {
    /// Over an open connection.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, bytes: Vec::new(), descriptors: Vec::new() }
    }

    /// Sends one line, and descriptors with it: at most [`MOST_DESCRIPTORS`].
    ///
    /// # Errors
    /// Where the other side is gone.
    pub async fn send(&mut self, word: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        let mut sent = 0;
        if !descriptors.is_empty() {
            sent = self
                .stream
                .async_io(Interest::WRITABLE, || {
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                        return Err(ErrorKind::InvalidInput.into());
                    }
                    Ok(sendmsg(&self.stream, &[IoSlice::new(&line)], &mut control, no_signal())?)
                })
                .await?;
        }
        self.stream.write_all(&line[sent..]).await
    }

    /// The next line; none once the other side ended. What is no such word is an error.
    ///
    /// # Errors
    /// Of the connection, or of the line. May be dropped while it waits: no byte is lost.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.bytes.len() > LONGEST_LINE {
                return Err(ErrorKind::InvalidData.into());
            }
            let Self { stream, bytes, descriptors } = self;
            if stream.async_io(Interest::READABLE, || read(stream, bytes, descriptors)).await? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The first `count` of the descriptors that came so far; none where there are fewer.
    pub fn take(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (count <= self.descriptors.len()).then(|| self.descriptors.drain(..count).collect())
    }

    /// Says no more; the other side may.
    pub async fn end(&mut self) {
        // It may have ended already.
        let _ = self.stream.shutdown().await;
    }
}

fn read(stream: &UnixStream, bytes: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; READ];
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, close_on_exec())?;
    bytes.extend_from_slice(&buffer[..got.bytes]);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(all) = message {
            for descriptor in all {
                // Where the flag of recvmsg is unknown; a failure means no more than that a child inherits it.
                let _ = rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC);
                descriptors.push(descriptor);
            }
        }
    }
    Ok(got.bytes)
}

#[cfg(target_os = "linux")]
fn close_on_exec() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn close_on_exec() -> RecvFlags {
    RecvFlags::empty()
}

#[cfg(target_os = "linux")]
fn no_signal() -> SendFlags {
    SendFlags::NOSIGNAL
}

/// Rust's runtime ignores SIGPIPE from the start.
#[cfg(not(target_os = "linux"))]
fn no_signal() -> SendFlags {
    SendFlags::empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[tokio::test]
    async fn lines_and_descriptors_arrive_in_order_and_an_end_is_an_end() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut a, mut b) = (Wire::new(a), Wire::new(b));
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        a.send(&"first", &[]).await.unwrap();
        a.send(&"second", &[theirs.as_fd()]).await.unwrap();
        drop(theirs);
        a.end().await;
        assert_eq!(b.receive::<String>().await.unwrap().as_deref(), Some("first"));
        assert_eq!(b.receive::<String>().await.unwrap().as_deref(), Some("second"));
        assert!(b.take(2).is_none());
        let taken = b.take(1).unwrap().pop().unwrap();
        std::os::unix::net::UnixStream::from(taken).write_all(b"hello").unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(b.receive::<String>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_word_is_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut a, mut b) = (Wire::new(a), Wire::new(b));
        a.send(&7, &[]).await.unwrap();
        assert!(b.receive::<String>().await.is_err());
    }
}
