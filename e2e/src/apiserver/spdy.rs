//! SPDY/3.1 frames as a server reads and writes them, with a real inflater and deflater for the header blocks: a codec of
//! our own, so that the product's is not tested against itself. Source: draft-mbelshe-httpbis-spdy-00.

use std::io::{Error, ErrorKind, Result};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Set in the flags of a frame after which its sender sends nothing more on the stream.
const FIN: u8 = 1;

/// What a client may send, as far as a server acts on it.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    Syn { id: u32, headers: Vec<(String, String)>, fin: bool },
    /// Bytes of a stream.
    Data { id: u32, bytes: Vec<u8>, fin: bool },
    /// Gives a stream up.
    Reset { id: u32 },
    /// Is to be sent back.
    Ping { id: u32 },
    /// The sender opens no stream any more.
    GoAway,
    /// Read and ignored, by its type: SETTINGS, WINDOW_UPDATE, HEADERS, SYN_REPLY.
    Other(u16),
}

/// Reads frames; one for a connection, because its header blocks are one stream of compression.
pub struct Decoder {
    inflate: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflate: Decompress::new(true) }
    }
}

fn broken(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, why.into())
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
}

/// Takes the next bytes of a header block.
fn part<'b>(rest: &mut &'b [u8], length: usize) -> Result<&'b [u8]> {
    let (part, after) = rest.split_at_checked(length).ok_or_else(|| broken("a header block that ends early"))?;
    *rest = after;
    Ok(part)
}

impl Decoder {
    /// The next frame; none at the end between two frames.
    ///
    /// # Errors
    /// Where the connection breaks, or what comes is no SPDY/3.
    pub async fn read<R: AsyncRead + Unpin>(&mut self, reader: &mut R) -> Result<Option<Frame>> {
        let mut head = [0; 8];
        if reader.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        reader.read_exact(&mut head[1..]).await?;
        let mut body = vec![0; number(&head[5..]) as usize];
        reader.read_exact(&mut body).await?;
        self.decode(head, body).map(Some)
    }

    fn decode(&mut self, head: [u8; 8], body: Vec<u8>) -> Result<Frame> {
        let fin = head[4] & FIN != 0;
        if head[0] & 0x80 == 0 {
            return Ok(Frame::Data { id: number(&head[..4]), bytes: body, fin });
        }
        let (version, kind) = (number(&head[..2]) & 0x7fff, number(&head[2..4]));
        if version != 3 {
            return Err(broken(format!("a control frame of version {version}")));
        }
        let id = || body.get(..4).map(|b| number(b) & 0x7fff_ffff).ok_or_else(|| broken("a frame without a number"));
        Ok(match kind {
            1 => {
                let block = body.get(10..).ok_or_else(|| broken("a SYN_STREAM too short"))?;
                Frame::Syn { id: id()?, headers: self.headers(block)?, fin }
            }
            3 if body.len() == 8 => Frame::Reset { id: id()? },
            6 if body.len() == 4 => Frame::Ping { id: number(&body) },
            3 | 6 => return Err(broken(format!("a frame of type {kind} with {} bytes", body.len()))),
            7 => Frame::GoAway,
            2 | 4 | 8 | 9 => Frame::Other(u16::try_from(kind).unwrap_or(u16::MAX)),
            _ => return Err(broken(format!("a frame of the unknown type {kind}"))),
        })
    }

    /// Inflates a block and takes it apart. As Go's reader does, the block must give all of its headers by itself.
    fn headers(&mut self, block: &[u8]) -> Result<Vec<(String, String)>> {
        let plain = self.inflate(block)?;
        let mut rest = plain.as_slice();
        let count = number(part(&mut rest, 4)?);
        let mut headers = Vec::new();
        for _ in 0..count {
            let mut pair = [String::new(), String::new()];
            for text in &mut pair {
                let length = number(part(&mut rest, 4)?) as usize;
                let bytes = part(&mut rest, length)?.to_vec();
                *text = String::from_utf8(bytes).map_err(|_| broken("a header that is no text"))?;
            }
            let [name, value] = pair;
            if name.is_empty() || name != name.to_lowercase() {
                return Err(broken(format!("the header name `{name}`")));
            }
            headers.push((name, value));
        }
        if rest.is_empty() { Ok(headers) } else { Err(broken("bytes after the last header")) }
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(4096);
        let begin = self.inflate.total_in();
        loop {
            let done = usize::try_from(self.inflate.total_in() - begin).unwrap_or(usize::MAX);
            plain.reserve(4096);
            let before = (plain.len(), done);
            match self.inflate.decompress_vec(&block[done..], &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(broken("a header block that ends its compression stream")),
                Ok(_) => {
                    let done = usize::try_from(self.inflate.total_in() - begin).unwrap_or(usize::MAX);
                    if done == block.len() && plain.len() < plain.capacity() {
                        return Ok(plain);
                    }
                    if (plain.len(), done) == before {
                        return Err(broken("a header block that does not inflate"));
                    }
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&dictionary()).map_err(|e| broken(e.to_string()))?;
                }
                Err(error) => return Err(broken(error.to_string())),
            }
        }
    }
}

/// Writes frames; one for a connection, as with [`Decoder`].
pub struct Encoder {
    deflate: Compress,
}

impl Default for Encoder {
    fn default() -> Self {
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(&dictionary()).expect("a fresh compressor takes a dictionary");
        Self { deflate }
    }
}

fn control(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80, 3, 0, kind];
    frame.extend((u32::try_from(body.len()).expect("frames are small") | u32::from(flags) << 24).to_be_bytes());
    frame.extend(body);
    frame
}

impl Encoder {
    /// SYN_REPLY without a header.
    pub fn reply(&mut self, id: u32) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        let mut block = Vec::with_capacity(256);
        self.deflate
            .compress_vec(&0u32.to_be_bytes(), &mut block, FlushCompress::Sync)
            .expect("a compressor with room does not fail");
        body.extend(block);
        control(2, 0, &body)
    }
}

/// RST_STREAM with status CANCEL or, for an id that goes backwards, PROTOCOL_ERROR.
pub fn reset(id: u32, protocol_error: bool) -> Vec<u8> {
    let status: u32 = if protocol_error { 1 } else { 5 };
    control(3, 0, &[id.to_be_bytes(), status.to_be_bytes()].concat())
}

/// PING.
pub fn ping(id: u32) -> Vec<u8> {
    control(6, 0, &id.to_be_bytes())
}

/// The head of a DATA frame in the two parts that the Go server writes it in.
pub fn data_head(id: u32, length: usize, fin: bool) -> [[u8; 4]; 2] {
    let length = u32::try_from(length).expect("frames are small") | u32::from(if fin { FIN } else { 0 }) << 24;
    [id.to_be_bytes(), length.to_be_bytes()]
}

/// The dictionary of SPDY/3 for header blocks (draft 3, §2.6.10.1).
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards \
        pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding \
        upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public \
        set-cookie keep-alive origin";
    const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
        Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 \
        Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May \
        Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,\
        image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=\
        gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut all = Vec::new();
    for word in WORDS.split_whitespace().map(|w| w.replace('_', " ")) {
        all.extend(u32::try_from(word.len()).expect("words are short").to_be_bytes());
        all.extend(word.as_bytes());
    }
    all.extend(TAIL.as_bytes());
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn syn(block: &[u8]) -> Vec<u8> {
        let mut body = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        body.extend(block);
        control(1, 0, &body)
    }

    fn plain(headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            block.extend(text.as_bytes());
        }
        block
    }

    fn read(decoder: &mut Decoder, bytes: &[u8]) -> Result<Option<Frame>> {
        let (head, body) = bytes.split_at(8);
        decoder.decode(head.try_into().unwrap(), body.to_vec()).map(Some)
    }

    #[test]
    fn the_dictionary_is_that_of_the_standard() {
        let mut deflate = Compress::new(Compression::default(), true);
        assert_eq!((dictionary().len(), deflate.set_dictionary(&dictionary()).unwrap()), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn header_blocks_with_the_dictionary_and_stored_ones_are_read() {
        let headers = [("streamtype", "error"), ("port", "9080")];
        let expected = Frame::Syn {
            id: 1,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            fin: false,
        };
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for _ in 0..3 {
            let mut block = Vec::with_capacity(4096);
            encoder.deflate.compress_vec(&plain(&headers), &mut block, FlushCompress::Sync).unwrap();
            assert_eq!(read(&mut decoder, &syn(&block)).unwrap().unwrap(), expected);
        }
        // Stored blocks without the dictionary, each with an empty one behind it that lets Go's inflater go on.
        let mut decoder = Decoder::default();
        for first in [true, false] {
            let text = plain(&headers);
            let length = u16::try_from(text.len()).unwrap();
            let mut block = if first { vec![0x78, 0x01] } else { vec![] };
            block.push(0);
            block.extend(length.to_le_bytes());
            block.extend((!length).to_le_bytes());
            block.extend(text);
            block.extend([0, 0, 0, 0xff, 0xff]);
            assert_eq!(read(&mut decoder, &syn(&block)).unwrap().unwrap(), expected);
        }
        assert!(read(&mut decoder, &syn(b"no deflate at all")).is_err());
    }
}
