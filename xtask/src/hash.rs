//! Checksums: of what is handed out, and by which a cache knows that something is still what it was made of.

use ring::digest::{SHA256, digest};

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// The first twelve digits of a text's SHA-256, for a name.
pub fn short(text: &str) -> String {
    sha256(text.as_bytes()).chars().take(12).collect()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
