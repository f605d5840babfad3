//! WebSocket frames (RFC 6455) as the client of a tunnelled SPDY connection needs them, pure.
//!
//! The SPDY bytes are those of the binary messages one after another; where a message begins or ends means nothing.

use std::io::IoSlice;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// RFC 6455 §5.5: a control frame carries no more.
const CONTROL_LIMIT: usize = 125;

/// Appends one whole binary message.
pub fn binary(out: &mut Vec<u8>, mask: u32, parts: &[IoSlice<'_>]) {
    frame(out, BINARY, mask, parts);
}

/// Appends the answer to a ping.
pub fn pong(out: &mut Vec<u8>, mask: u32, body: &[u8]) {
    frame(out, PONG, mask, &[IoSlice::new(body)]);
}

fn frame(out: &mut Vec<u8>, opcode: u8, mask: u32, parts: &[IoSlice<'_>]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(length + 14);
    out.push(FIN | opcode);
    if let Ok(short) = u8::try_from(length)
        && length <= CONTROL_LIMIT
    {
        out.push(MASKED | short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(MASKED | 126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(MASKED | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
    out.extend_from_slice(&mask.to_be_bytes());
    let at = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    apply(&mut out[at..], mask);
}

/// Masks or unmasks (RFC 6455 §5.3), eight bytes at a time.
fn apply(bytes: &mut [u8], mask: u32) {
    let four = mask.to_be_bytes();
    let wide = (u64::from(mask) << 32 | u64::from(mask)).to_be_bytes();
    let wide = u64::from_ne_bytes(wide);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(four.iter().cycle()) {
        *byte ^= key;
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Nothing whole yet: the input is used up.
    More,
    /// The next so many bytes of the input are payload; say by [`Decoder::taken`] how many were taken.
    Payload(usize),
    Ping(Vec<u8>),
    /// The server closes.
    Close,
}

/// Not what a server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server broke the WebSocket protocol: {0}")]
pub struct Violation(&'static str);

#[derive(Debug)]
enum State {
    /// So many bytes of the head are there.
    Head(usize),
    Payload(u64),
    Control {
        opcode: u8,
        left: usize,
    },
}

/// Takes the server's bytes apart, in whatever pieces they come.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    head: [u8; 10],
    body: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Head(0), head: [0; 10], body: Vec::new() }
    }
}

impl Decoder {
    /// Reads on. Returns how many bytes of the input were used up, and what they made.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Piece), Violation> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match &mut self.state {
                State::Head(have) => {
                    let needed = match self.head[1] & 0x7f {
                        _ if *have < 2 => 2,
                        126 => 4,
                        127 => 10,
                        _ => 2,
                    };
                    let count = rest.len().min(needed - *have);
                    self.head[*have..*have + count].copy_from_slice(&rest[..count]);
                    *have += count;
                    used += count;
                    if *have < needed {
                        return Ok((used, Piece::More));
                    }
                    let long = matches!(self.head[1] & 0x7f, 126 | 127);
                    if needed == 2 && long {
                        continue;
                    }
                    self.state = self.begin()?;
                }
                State::Payload(0) => self.state = State::Head(0),
                State::Payload(left) => {
                    let length = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    return Ok((used, if length == 0 { Piece::More } else { Piece::Payload(length) }));
                }
                State::Control { opcode, left } => {
                    let (opcode, count) = (*opcode, rest.len().min(*left));
                    self.body.extend_from_slice(&rest[..count]);
                    *left -= count;
                    used += count;
                    if *left > 0 {
                        return Ok((used, Piece::More));
                    }
                    self.state = State::Head(0);
                    let body = std::mem::take(&mut self.body);
                    match opcode {
                        PING => return Ok((used, Piece::Ping(body))),
                        CLOSE => return Ok((used, Piece::Close)),
                        _ => {}
                    }
                }
            }
        }
    }

    /// So many bytes of the announced payload were taken.
    pub fn taken(&mut self, count: usize) {
        if let State::Payload(left) = &mut self.state {
            *left = left.saturating_sub(count as u64);
        }
    }

    fn begin(&self) -> Result<State, Violation> {
        let [first, second, rest @ ..] = self.head;
        if first & 0x70 != 0 {
            return Err(Violation("an extension nobody asked for"));
        }
        if second & MASKED != 0 {
            return Err(Violation("a masked frame"));
        }
        let short = second & 0x7f;
        let length = match short {
            126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
            127 => u64::from_be_bytes(rest),
            short => u64::from(short),
        };
        match first & 0x0f {
            BINARY | CONTINUATION => Ok(State::Payload(length)),
            opcode @ (CLOSE | PING | PONG) if first & FIN != 0 && usize::from(short) <= CONTROL_LIMIT => {
                Ok(State::Control { opcode, left: usize::from(short) })
            }
            _ => Err(Violation("a frame of no known kind")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Result<(Vec<Piece>, Vec<u8>), Violation> {
        let (mut decoder, mut seen, mut payload) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut at = 0;
            loop {
                let (used, found) = decoder.next(&piece[at..])?;
                at += used;
                match found {
                    Piece::More => break,
                    Piece::Payload(length) => {
                        let taken = length.div_ceil(2);
                        payload.extend_from_slice(&piece[at..at + taken]);
                        decoder.taken(taken);
                        at += taken;
                    }
                    found => seen.push(found),
                }
            }
            assert_eq!(at, piece.len(), "input left over");
        }
        Ok((seen, payload))
    }

    /// A server's frame.
    fn server(opcode: u8, fin: bool, body: &[u8]) -> Vec<u8> {
        let mut out = vec![opcode | if fin { FIN } else { 0 }];
        match body.len() {
            short @ 0..=125 => out.push(u8::try_from(short).unwrap()),
            medium @ 126..=65535 => {
                out.push(126);
                out.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
            }
            long => {
                out.push(127);
                out.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_message_in_fragments_with_a_ping_between_reads_the_same_split_at_every_byte() {
        let mut all = server(BINARY, false, b"hello ");
        all.extend(server(PING, true, b"there?"));
        all.extend(server(CONTINUATION, true, &[b'x'; 300]));
        all.extend(server(PONG, true, b""));
        all.extend(server(BINARY, true, b""));
        all.extend(server(BINARY, true, b"!"));
        all.extend(server(CLOSE, true, &[3, 232]));
        let mut text = b"hello ".to_vec();
        text.extend_from_slice(&[b'x'; 300]);
        text.push(b'!');
        for at in 0..=all.len() {
            let (seen, payload) = read(&[&all[..at], &all[at..]]).unwrap();
            assert_eq!(seen, [Piece::Ping(b"there?".to_vec()), Piece::Close], "split at {at}");
            assert_eq!(payload, text, "split at {at}");
        }
    }

    #[test]
    fn the_masked_example_of_the_rfc() {
        // RFC 6455 §5.7, with the opcode of a binary message.
        let mut out = Vec::new();
        binary(&mut out, 0x37fa_213d, &[IoSlice::new(b"He"), IoSlice::new(b"llo")]);
        assert_eq!(out, [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn a_server_that_masks_or_extends_is_not_believed() {
        for bad in [[0x82, 0x81], [0xc2, 0x01], [0x81, 0x01], [0x09, 0x00], [0x89, 126], [0x83, 0]] {
            assert!(read(&[&bad, &[0; 8]]).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_masked_by_words_is_masked_by_bytes(mask: u32, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut fast = body.clone();
            apply(&mut fast, mask);
            let slow: Vec<u8> = body.iter().zip(mask.to_be_bytes().iter().cycle()).map(|(b, k)| b ^ k).collect();
            prop_assert_eq!(fast, slow);
        }

        #[test]
        fn lengths_of_every_form(length in prop_oneof![0usize..130, 65_530usize..65_540], mask: u32) {
            let body = vec![7u8; length];
            let mut out = Vec::new();
            binary(&mut out, mask, &[IoSlice::new(&body)]);
            // As a server's: unmasked, without the key.
            let head = out.len() - length - 4;
            let mut plain = out[..head].to_vec();
            plain[1] &= 0x7f;
            let mut masked = out[head + 4..].to_vec();
            apply(&mut masked, mask);
            plain.extend_from_slice(&masked);
            prop_assert_eq!(read(&[&plain]).unwrap().1, body);
        }

        #[test]
        fn whatever_arrives_it_ends_in_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            drop(read(&[&bytes]));
        }
    }
}
