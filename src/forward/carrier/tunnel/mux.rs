//! Takes apart what arrives on a tunnel: each stream's bytes and ends are put where it finds them.

use std::io::{self, ErrorKind};

use tokio::io::ReadBuf;

use super::{said, spdy, websocket};

/// Of an error stream's text so much is kept.
const ERROR_TEXT: usize = 4096;
/// In a shared tunnel so much waits for a stream that does not read.
const INBOX: usize = 256 * 1024;
/// The status of a stream that we reset ourselves, as its inbox ran over (FLOW_CONTROL_ERROR of SPDY/3.1 §2.6.3).
const OVERRUN: u32 = 7;

/// How a stream stands that is about to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Our end first, then theirs, without an error: as good as new.
    Clean,
    /// Our end was sent after the last answer, theirs is still to come.
    Ending,
    /// Ended, but not so that nothing could be stuck on the way.
    Doubtful,
    /// In the middle.
    Open,
}

/// One forwarded connection's two streams.
pub struct Entry {
    /// Who waits for it.
    pub key: u64,
    /// Others use the tunnel beside it: it gets no more than an inbox, and never keeps them waiting.
    pub lent: bool,
    pub data: u32,
    pub error: u32,
    pub replied: bool,
    pub our_end: bool,
    pub data_ended: bool,
    pub error_ended: bool,
    /// Our end was sent before theirs came.
    pub ours_first: bool,
    pub reset: Option<u32>,
    pub text: Vec<u8>,
    pub inbox: Vec<u8>,
    /// Bytes went out, and none came back since.
    pub unanswered: bool,
    pub sent: bool,
}

/// A stream left before its end came.
pub struct Left {
    pub data: u32,
    pub error: u32,
    pub open: u8,
}

pub struct Mux {
    pub websocket: Option<websocket::Decoder>,
    pub spdy: spdy::Decoder,
    pub entries: Vec<Entry>,
    pub left: Vec<Left>,
    pub leftovers: usize,
    pub pings: Vec<u32>,
    pub websocket_pings: Vec<Vec<u8>>,
    pub pongs: u32,
    pub no_more: bool,
    /// A stream's full inbox keeps the others waiting.
    pub stalled: Option<u32>,
    /// Who got something while another one was polled, and has to look.
    pub others: Vec<u64>,
    /// One whose tunnel was lent on has much to fetch: it gets a turn before more is read.
    pub crowded: bool,
}

impl Entry {
    /// What a reader is told once no data is left; none while it is not over.
    pub fn verdict(&self) -> Option<io::Result<()>> {
        let over = self.error_ended || self.reset.is_some() || self.data_ended;
        if !self.text.is_empty() && over {
            return Some(Err(said::on_error_stream(&String::from_utf8_lossy(&self.text))));
        }
        if let Some(status) = self.reset {
            let text = format!("the stream was reset with status {status}");
            return Some(Err(io::Error::new(ErrorKind::ConnectionReset, text)));
        }
        (self.data_ended && self.error_ended).then_some(Ok(()))
    }

    pub fn standing(&self) -> Standing {
        let ended = (self.data_ended && self.error_ended) || self.reset.is_some() || !self.text.is_empty();
        match (self.our_end, ended) {
            (true, true) if self.ours_first && self.reset.is_none() && self.text.is_empty() => Standing::Clean,
            (_, true) => Standing::Doubtful,
            (true, false) if !self.unanswered => Standing::Ending,
            (true, false) => Standing::Doubtful,
            (false, false) => Standing::Open,
        }
    }
}

impl Mux {
    pub fn entry(&mut self, stream: u32) -> Option<&mut Entry> {
        self.entries.iter_mut().rev().find(|e| e.data == stream)
    }

    /// Takes plain bytes apart. Fewer are used up than given where `buffer` is full or another stream's inbox is.
    pub fn digest(&mut self, bytes: &[u8], me: u32, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        let Some(mut frames) = self.websocket.take() else { return self.spdy_bytes(bytes, me, buffer) };
        let result = self.messages(&mut frames, bytes, me, buffer);
        self.websocket = Some(frames);
        result
    }

    fn messages(
        &mut self,
        frames: &mut websocket::Decoder,
        bytes: &[u8],
        me: u32,
        buffer: &mut ReadBuf<'_>,
    ) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let (used, piece) = frames.next(&bytes[at..]).map_err(violation)?;
            at += used;
            match piece {
                websocket::Piece::More => return Ok(at),
                websocket::Piece::Payload(length) => {
                    let used = self.spdy_bytes(&bytes[at..at + length], me, buffer)?;
                    frames.taken(used);
                    at += used;
                    if used < length {
                        return Ok(at);
                    }
                }
                websocket::Piece::Ping(body) => self.websocket_pings.push(body),
                websocket::Piece::Close => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn spdy_bytes(&mut self, bytes: &[u8], me: u32, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let (used, event) = self.spdy.next(&bytes[at..]).map_err(violation)?;
            at += used;
            match event {
                spdy::Event::More => return Ok(at),
                spdy::Event::Data { stream, length } => {
                    let taken = self.data(stream, &bytes[at..at + length], me, buffer);
                    self.spdy.taken(taken);
                    at += taken;
                    if taken < length {
                        return Ok(at);
                    }
                }
                spdy::Event::End { stream } => self.ended(stream, me),
                spdy::Event::Replied { stream } => {
                    if let Some(entry) = self.entry(stream) {
                        entry.replied = true;
                    }
                }
                spdy::Event::Reset { stream, status } => self.reset(stream, status, me),
                // Odd numbers are ours.
                spdy::Event::Ping { id } if id % 2 == 1 => self.pongs += 1,
                spdy::Event::Ping { id } => self.pings.push(id),
                spdy::Event::GoAway => self.no_more = true,
            }
        }
    }

    /// Returns how much was taken.
    fn data(&mut self, stream: u32, bytes: &[u8], me: u32, buffer: &mut ReadBuf<'_>) -> usize {
        let Some(at) = self.entries.iter().rposition(|e| e.data == stream || e.error == stream) else {
            self.leftovers += bytes.len();
            return bytes.len();
        };
        let entry = &mut self.entries[at];
        if entry.error == stream {
            let room = ERROR_TEXT.saturating_sub(entry.text.len()).min(bytes.len());
            entry.text.extend_from_slice(&bytes[..room]);
            return bytes.len();
        }
        entry.unanswered = false;
        if stream == me && entry.inbox.is_empty() {
            let count = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..count]);
            return count;
        }
        let count = bytes.len().min(INBOX.saturating_sub(entry.inbox.len()));
        self.others.push(entry.key);
        if entry.reset.is_some() {
            return bytes.len();
        }
        if entry.lent && count < bytes.len() {
            // What is cut off here shows as a reset: its client is slow, and others wait.
            entry.reset.get_or_insert(OVERRUN);
            entry.inbox = Vec::new();
            return bytes.len();
        }
        entry.inbox.extend_from_slice(&bytes[..count]);
        self.crowded |= entry.lent && entry.inbox.len() > INBOX / 4;
        if count < bytes.len() {
            self.stalled = Some(stream);
        }
        count
    }

    fn ended(&mut self, stream: u32, me: u32) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.data == stream || e.error == stream) {
            if entry.data == stream {
                entry.data_ended = true;
            } else {
                entry.error_ended = true;
            }
            if entry.data != me {
                self.others.push(entry.key);
            }
        } else if let Some(at) = self.left.iter().position(|l| l.data == stream || l.error == stream) {
            self.left[at].open -= 1;
            if self.left[at].open == 0 {
                self.left.swap_remove(at);
            }
        }
    }

    fn reset(&mut self, stream: u32, status: u32, me: u32) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.data == stream || e.error == stream) {
            // A reset of the error stream alone says nothing that its text or the data stream does not say.
            if entry.data == stream {
                entry.reset = Some(status);
            } else {
                entry.error_ended = true;
            }
            if entry.data != me {
                self.others.push(entry.key);
            }
        } else {
            self.left.retain(|l| l.data != stream && l.error != stream);
        }
    }
}

fn violation(error: impl std::error::Error + Send + std::marker::Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
