//! The hash by which nftables' `jhash` picks a number, so that the listener comes to the same one.
//!
//! Pure. It is Bob Jenkins' lookup3 of 2006 (public domain), as the kernel has it: whole words of the key are read in
//! the machine's order, the last twelve bytes or fewer in little-endian order.

/// A key's hash.
pub fn jhash(key: &[u8], seed: u32) -> u32 {
    let first = 0xdead_beef_u32.wrapping_add(key.len() as u32).wrapping_add(seed);
    let mut state = [first; 3];
    let mut rest = key;
    // The last block is mixed otherwise, also where it is a whole one.
    while rest.len() > BLOCK {
        let (block, more) = rest.split_at(BLOCK);
        add(&mut state, block, u32::from_ne_bytes);
        mix(&mut state);
        rest = more;
    }
    if !rest.is_empty() {
        let mut last = [0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        add(&mut state, &last, u32::from_le_bytes);
        finish(&mut state);
    }
    state[2]
}

/// nft's `jhash ... mod`: no remainder, but the hash's share of the whole range.
pub fn scale(hash: u32, modulus: u32) -> u32 {
    ((u64::from(hash) * u64::from(modulus)) >> 32) as u32
}

/// Bytes taken in at once.
const BLOCK: usize = 12;

fn add(state: &mut [u32; 3], block: &[u8], read: fn([u8; 4]) -> u32) {
    for (word, bytes) in state.iter_mut().zip(block.as_chunks().0) {
        *word = word.wrapping_add(read(*bytes));
    }
}

fn mix([a, b, c]: &mut [u32; 3]) {
    round(a, b, c, 4);
    round(b, c, a, 6);
    round(c, a, b, 8);
    round(a, b, c, 16);
    round(b, c, a, 19);
    round(c, a, b, 4);
}

fn round(a: &mut u32, b: &mut u32, c: &mut u32, by: u32) {
    *a = a.wrapping_sub(*c) ^ c.rotate_left(by);
    *c = c.wrapping_add(*b);
}

fn finish([a, b, c]: &mut [u32; 3]) {
    fold(c, b, 14);
    fold(a, c, 11);
    fold(b, a, 25);
    fold(c, b, 16);
    fold(a, c, 4);
    fold(b, a, 14);
    fold(c, b, 24);
}

fn fold(into: &mut u32, from: &u32, by: u32) {
    *into = (*into ^ *from).wrapping_sub(from.rotate_left(by));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    /// The vectors that its author published.
    #[test]
    fn it_is_lookup3() {
        for (key, seed, hash) in [
            ("", 0, 0xdead_beef),
            ("", 0xdead_beef, 0xbd5b_7dde),
            ("Four score and seven years ago", 0, 0x1777_0551),
            ("Four score and seven years ago", 1, 0xcd62_8161),
        ] {
            assert_eq!(jhash(key.as_bytes(), seed), hash, "{key} {seed}");
        }
    }

    /// Addresses as the rules hash them; `kernel::the_kernel_hashes_as_we_do` asks the kernel.
    #[test]
    fn addresses_of_both_families() {
        for (address, hash) in [
            ("10.0.0.1", 0x1fde_275d),
            ("192.0.2.77", 0xe11f_af94),
            ("203.0.113.200", 0x6551_c5e7),
            ("fd00::1", 0x5e28_4c82),
            ("2001:db8::77", 0x81eb_4a4b),
        ] {
            let hashed = match address.parse().expect("an address") {
                IpAddr::V4(ip) => jhash(&ip.octets(), 0xb00c),
                IpAddr::V6(ip) => jhash(&ip.octets(), 0xb00c),
            };
            assert_eq!(hashed, hash, "{address}");
        }
    }

    #[test]
    fn scaling_takes_the_upper_bits() {
        for (hash, modulus, scaled) in [(0, 7, 0), (u32::MAX, 7, 6), (1 << 31, 1024, 512), (u32::MAX, 1024, 1023)] {
            assert_eq!(scale(hash, modulus), scaled);
        }
    }
}
