//! The PROXY protocol, version 2: tells a pod the address of the client behind us
//! (<https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>, §2.2).
//!
//! Pure.

use std::net::SocketAddr;

/// Begins every header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_COMMAND: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header of a connection from `client` to `local`. Where the families differ both are written as IPv6.
pub fn header(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(VERSION_COMMAND);
    match (client, local) {
        (SocketAddr::V4(client), SocketAddr::V4(local)) => {
            bytes.push(TCP_OVER_IPV4);
            bytes.extend(12u16.to_be_bytes());
            bytes.extend(client.ip().octets());
            bytes.extend(local.ip().octets());
        }
        _ => {
            let v6 = |at: SocketAddr| match at {
                SocketAddr::V4(at) => at.ip().to_ipv6_mapped().octets(),
                SocketAddr::V6(at) => at.ip().octets(),
            };
            bytes.push(TCP_OVER_IPV6);
            bytes.extend(36u16.to_be_bytes());
            bytes.extend(v6(client));
            bytes.extend(v6(local));
        }
    }
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_header_is_laid_out_as_the_specification_says() {
        let v4 = header("192.0.2.7:4660".parse().unwrap(), "10.0.0.1:30080".parse().unwrap());
        let mut expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c".to_vec();
        expected.extend([192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x75, 0x80]);
        assert_eq!(v4, expected);
        let v6 = header("[2001:db8::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
        assert_eq!((v6.len(), &v6[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(v6[16..18], [0x20, 0x01]);
        assert_eq!(v6[48..], [0, 1, 0, 2]);
        let mixed = header("192.0.2.7:1".parse().unwrap(), "[::1]:2".parse().unwrap());
        assert_eq!(mixed[26..32], [0xff, 0xff, 192, 0, 2, 7]);
    }
}
