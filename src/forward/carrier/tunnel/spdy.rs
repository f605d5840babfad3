//! SPDY/3.1 frames as the port-forward of kubelets and container runtimes speaks them: the client's half, pure.
//!
//! Only what that needs: header blocks go out as stored deflate blocks, those that come in are skipped, and there are
//! no windows, for the other side (moby/spdystream) neither keeps nor grants any. Source: SPDY Protocol Draft 3.1,
//! §2.2 and §2.6; what the server makes of it: spdystream's `connection.go`.

/// Control frames begin with the control bit and version 3.
const CONTROL: [u8; 2] = [0x80, 3];
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

const FLAG_FIN: u8 = 1;

/// Bytes before a DATA frame's payload.
pub const HEAD: usize = 8;

/// The head of a DATA frame. `fin`: it is the stream's last.
pub fn data_head(stream: u32, length: usize, fin: bool) -> [u8; HEAD] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).min(0x00ff_ffff).to_be_bytes();
    let id = stream.to_be_bytes();
    [id[0] & 0x7f, id[1], id[2], id[3], u8::from(fin), length[1], length[2], length[3]]
}

/// A PING, ours (odd) or the answer to theirs.
pub fn ping(id: u32) -> [u8; 12] {
    let id = id.to_be_bytes();
    [CONTROL[0], CONTROL[1], 0, 6, 0, 0, 0, 4, id[0], id[1], id[2], id[3]]
}

/// Writes what opens streams; one a connection, for all header blocks of a connection are one zlib stream.
#[derive(Debug, Default)]
pub struct Opener {
    began: bool,
}

impl Opener {
    /// Appends the pair of streams of one forwarded connection, in the order of kubectl: SYN of the error stream, SYN
    /// of the data stream, then the error stream's end from our side. `request` is the same in both and new each time.
    pub fn pair(&mut self, out: &mut Vec<u8>, error: u32, data: u32, port: u16, request: u32) {
        let (port, request) = (port.to_string(), request.to_string());
        self.syn(out, error, &[("streamtype", "error"), ("port", &port), ("requestid", &request)]);
        self.syn(out, data, &[("streamtype", "data"), ("port", &port), ("requestid", &request)]);
        // A FIN on the SYN itself is taken differently by the server.
        out.extend_from_slice(&data_head(error, 0, true));
    }

    fn syn(&mut self, out: &mut Vec<u8>, stream: u32, headers: &[(&str, &str)]) {
        let mut block = Vec::with_capacity(128);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
        block.extend_from_slice(&number(headers.len()));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&number(text.len()));
            block.extend_from_slice(text.as_bytes());
        }
        let at = out.len();
        out.extend_from_slice(&[CONTROL[0], CONTROL[1], 0, 1, 0, 0, 0, 0]);
        out.extend_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
        // No associated stream, and priority 0, the one of PINGs: the server's queues then keep the order of writing.
        out.extend_from_slice(&[0; 6]);
        if !self.began {
            // A zlib header without preset dictionary; Go's reader takes it though it was given one.
            out.extend_from_slice(&[0x78, 0x01]);
            self.began = true;
        }
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        // A stored block, and an empty one that makes the inflater give it out.
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(&block[..usize::from(length)]);
        out.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        let size = number(out.len() - at - HEAD);
        out[at + 5..at + 8].copy_from_slice(&size[1..]);
    }
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing whole yet: the input is used up.
    More,
    /// The next `length` bytes of the input belong to that stream; say by [`Decoder::taken`] how many were taken.
    Data {
        stream: u32,
        length: usize,
    },
    /// The stream's last byte was given out.
    End {
        stream: u32,
    },
    /// The server took the stream.
    Replied {
        stream: u32,
    },
    /// The server broke the stream off, with a status of draft §2.6.3.
    Reset {
        stream: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    /// No more streams may be opened.
    GoAway,
}

/// Not SPDY/3.1, or nothing a server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server broke the SPDY protocol: {0}")]
pub struct Violation(&'static str);

#[derive(Debug)]
enum State {
    /// So many bytes of the next head are there.
    Head(usize),
    Data {
        stream: u32,
        left: usize,
        fin: bool,
    },
    /// The first bytes of the body are kept, which is all that matters of any kind.
    Control {
        kind: u16,
        fin: bool,
        left: usize,
        have: usize,
    },
    /// A SYN_REPLY that also ends the stream.
    Ended(u32),
}

/// Takes the server's bytes apart, in whatever pieces they come. Keeps at most one head.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    head: [u8; HEAD],
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Head(0), head: [0; HEAD] }
    }
}

impl Decoder {
    /// Reads on. Returns how many bytes of the input were used up, and what they made.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Event), Violation> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match &mut self.state {
                State::Head(have) => {
                    let count = rest.len().min(HEAD - *have);
                    self.head[*have..*have + count].copy_from_slice(&rest[..count]);
                    *have += count;
                    used += count;
                    if *have < HEAD {
                        return Ok((used, Event::More));
                    }
                    self.state = self.begin()?;
                }
                State::Data { stream, left: 0, fin } => {
                    let (stream, fin) = (*stream, *fin);
                    self.state = State::Head(0);
                    if fin {
                        return Ok((used, Event::End { stream }));
                    }
                }
                State::Data { stream, left, .. } => {
                    let (stream, length) = (*stream, rest.len().min(*left));
                    let event = if length == 0 { Event::More } else { Event::Data { stream, length } };
                    return Ok((used, event));
                }
                State::Control { left, have, .. } if *left > 0 => {
                    if rest.is_empty() {
                        return Ok((used, Event::More));
                    }
                    let kept = rest.len().min(*left).min(HEAD - *have);
                    self.head[*have..*have + kept].copy_from_slice(&rest[..kept]);
                    *have += kept;
                    // With eight bytes kept, the rest is skipped.
                    let skipped = if *have == HEAD { (rest.len() - kept).min(*left - kept) } else { 0 };
                    *left -= kept + skipped;
                    used += kept + skipped;
                }
                State::Control { kind, fin, have, .. } => {
                    let (kind, fin, have) = (*kind, *fin, *have);
                    self.state = State::Head(0);
                    if let Some(event) = self.control(kind, fin, have)? {
                        return Ok((used, event));
                    }
                }
                State::Ended(stream) => {
                    let stream = *stream;
                    self.state = State::Head(0);
                    return Ok((used, Event::End { stream }));
                }
            }
        }
    }

    /// So many bytes of the announced data were taken.
    pub fn taken(&mut self, count: usize) {
        if let State::Data { left, .. } = &mut self.state {
            *left = left.saturating_sub(count);
        }
    }

    fn begin(&self) -> Result<State, Violation> {
        let [a, b, c, d, flags, x, y, z] = self.head;
        let left = usize::from(x) << 16 | usize::from(y) << 8 | usize::from(z);
        let fin = flags & FLAG_FIN != 0;
        if a & 0x80 == 0 {
            return Ok(State::Data { stream: u32::from_be_bytes([a, b, c, d]), left, fin });
        }
        if [a, b] != CONTROL {
            return Err(Violation("not version 3"));
        }
        Ok(State::Control { kind: u16::from_be_bytes([c, d]), fin, left, have: 0 })
    }

    fn control(&mut self, kind: u16, fin: bool, have: usize) -> Result<Option<Event>, Violation> {
        let [a, b, c, d, status @ ..] = self.head;
        let number = u32::from_be_bytes([a, b, c, d]);
        let stream = number & 0x7fff_ffff;
        let enough = |needed| if have < needed { Err(Violation("a control frame is too short")) } else { Ok(()) };
        match kind {
            SYN_STREAM => Err(Violation("a server opens no stream")),
            SYN_REPLY => {
                enough(4)?;
                if fin {
                    self.state = State::Ended(stream);
                }
                Ok(Some(Event::Replied { stream }))
            }
            RST_STREAM => {
                enough(8)?;
                Ok(Some(Event::Reset { stream, status: u32::from_be_bytes(status) }))
            }
            PING => {
                enough(4)?;
                Ok(Some(Event::Ping { id: number }))
            }
            GOAWAY => Ok(Some(Event::GoAway)),
            // SETTINGS, HEADERS, WINDOW_UPDATE and what later drafts may add.
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// What a whole input says, however it is cut: payloads joined, events in order.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<Event>, Vec<u8>), Violation> {
        let (mut decoder, mut events, mut payload) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut at = 0;
            loop {
                let (used, event) = decoder.next(&piece[at..])?;
                at += used;
                match event {
                    Event::More => break,
                    Event::Data { length, .. } => {
                        // Never all at once: a reader's buffer may be smaller.
                        let taken = length.div_ceil(2);
                        payload.extend_from_slice(&piece[at..at + taken]);
                        decoder.taken(taken);
                        at += taken;
                    }
                    event => events.push(event),
                }
            }
            assert_eq!(at, piece.len(), "input left over");
        }
        Ok((events, payload))
    }

    fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80, 3];
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        frame[4] = flags;
        frame.extend_from_slice(body);
        frame
    }

    fn conversation() -> Vec<u8> {
        let mut all = control(SYN_REPLY, 0, &[0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        all.extend(control(SYN_REPLY, 0, &[0, 0, 0, 3]));
        all.extend_from_slice(&data_head(3, 5, false));
        all.extend_from_slice(b"hello");
        all.extend(control(4, 0, &[0; 12]));
        all.extend_from_slice(&ping(7));
        all.extend_from_slice(&data_head(3, 0, false));
        all.extend_from_slice(&data_head(3, 6, true));
        all.extend_from_slice(b" world");
        all.extend_from_slice(&data_head(1, 0, true));
        all.extend(control(RST_STREAM, 0, &[0, 0, 0, 5, 0, 0, 0, 8]));
        all.extend(control(GOAWAY, 0, &[0; 8]));
        all
    }

    #[test]
    fn a_conversation_reads_the_same_split_at_every_byte() {
        let all = conversation();
        let expected = vec![
            Event::Replied { stream: 1 },
            Event::Replied { stream: 3 },
            Event::Ping { id: 7 },
            Event::End { stream: 3 },
            Event::End { stream: 1 },
            Event::Reset { stream: 5, status: 8 },
            Event::GoAway,
        ];
        for at in 0..=all.len() {
            let (events, payload) = read(&[&all[..at], &all[at..]]).unwrap();
            assert_eq!((events, payload.as_slice()), (expected.clone(), &b"hello world"[..]), "split at {at}");
        }
        let single: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(read(&single).unwrap().0, expected);
    }

    #[test]
    fn a_reply_may_also_be_the_end() {
        let (events, _) = read(&[&control(SYN_REPLY, FLAG_FIN, &[0, 0, 0, 9])]).unwrap();
        assert_eq!(events, [Event::Replied { stream: 9 }, Event::End { stream: 9 }]);
    }

    #[test]
    fn what_a_server_must_not_say_is_a_violation() {
        for bad in [
            control(SYN_STREAM, 0, &[0; 10]),
            control(PING, 0, &[0; 3]),
            control(RST_STREAM, 0, &[0; 7]),
            vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1],
        ] {
            assert!(read(&[&bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_opening_is_what_the_draft_says() {
        let (mut opener, mut first, mut second) = (Opener::default(), Vec::new(), Vec::new());
        opener.pair(&mut first, 1, 3, 9080, 0);
        opener.pair(&mut second, 5, 7, 9080, 1);
        let length = |frame: &[u8]| usize::from(frame[6]) << 8 | usize::from(frame[7]);
        assert_eq!(&first[..6], &[0x80, 3, 0, 1, 0, 0]);
        assert_eq!(&first[8..18], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&first[18..21], &[0x78, 1, 0], "the zlib header comes first");
        let block = u16::from_le_bytes([first[21], first[22]]);
        assert_eq!(u16::from_le_bytes([first[23], first[24]]), !block);
        assert_eq!(&first[25..43], b"\0\0\0\x03\0\0\0\x0astreamtype");
        let data = 8 + length(&first);
        assert_eq!(data, 18 + 2 + 5 + usize::from(block) + 5);
        assert_eq!(&first[data + 8..data + 12], &[0, 0, 0, 3]);
        assert_eq!(&first[data + 8 + length(&first[data..])..], &[0, 0, 0, 1, 1, 0, 0, 0], "the error stream's end");
        assert_eq!(second[18], 0, "only once");
        assert_eq!(second.len() + 2, first.len());
    }

    proptest! {
        #[test]
        fn frames_in_any_order_read_the_same_in_any_pieces(
            frames in proptest::collection::vec((0u8..6, any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..12),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let (mut all, mut payload, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            for (kind, number, body, fin) in &frames {
                let stream = number & 0x7fff_ffff;
                let mut long = stream.to_be_bytes().to_vec();
                match kind {
                    0 | 1 => {
                        all.extend_from_slice(&data_head(stream, body.len(), *fin));
                        all.extend_from_slice(body);
                        payload.extend_from_slice(body);
                        if *fin { expected.push(Event::End { stream }); }
                    }
                    2 => {
                        long.extend_from_slice(body);
                        all.extend(control(SYN_REPLY, u8::from(*fin), &long));
                        expected.push(Event::Replied { stream });
                        if *fin { expected.push(Event::End { stream }); }
                    }
                    3 => {
                        all.extend_from_slice(&ping(*number));
                        expected.push(Event::Ping { id: *number });
                    }
                    4 => all.extend(control(9, 0, body)),
                    _ => {
                        long.extend_from_slice(&[0, 0, 0, 5]);
                        all.extend(control(RST_STREAM, 0, &long));
                        expected.push(Event::Reset { stream, status: 5 });
                    }
                }
            }
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(all.len() + 1)).collect();
            at.extend([0, all.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &all[w[0]..w[1]]).collect();
            prop_assert_eq!(read(&pieces).unwrap(), (expected, payload));
        }

        #[test]
        fn whatever_arrives_it_ends_in_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            drop(read(&[&bytes]));
        }

        #[test]
        fn control_frames_of_rubbish_are_no_panic(
            kind in 0u16..12, flags: u8, body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            drop(read(&[&control(kind, flags, &body)]));
        }
    }
}
