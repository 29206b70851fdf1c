//! One hash for keys and for endpoints, alike in every proxy and every version:
//! callers that hash the same key must meet at the same endpoint.
//!
//! FNV-1a (Fowler, Noll, Vo), and the finalizer of SplitMix64 (Steele, Lea,
//! Flood) over it, since FNV alone spreads short keys poorly in its upper bits.
//! A keyed hash would have to be agreed upon by all callers; what a caller wins
//! who seeks keys for one endpoint is bounded by the balancer's load bound.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of some bytes.
#[must_use]
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    hash_all(bytes.iter().copied())
}

/// The hash of some bytes that need not stand together.
#[must_use]
pub(crate) fn hash_all(bytes: impl Iterator<Item = u8>) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    mix(bytes.fold(OFFSET, fnv))
}

/// Another number for each number, as if by chance.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The `nth` of many hashes that belong to one.
pub(crate) const fn nth(hash: u64, nth: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    mix(hash.wrapping_add(nth.wrapping_add(1).wrapping_mul(GOLDEN)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn stays_the_same_for_ever() {
        let table = [
            ("", 0xf52a_15e9_a9b5_e89b),
            ("a", 0x02c0_bdbf_4814_20f8),
            ("user-1", 0xc499_b5f8_a721_df58),
        ];
        for (text, expected) in table {
            assert_eq!(hash(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn short_keys_differ_in_every_bit_alike() {
        let hashes: HashSet<u64> = (0..10_000)
            .map(|n| hash(format!("{n}").as_bytes()))
            .collect();
        assert_eq!(hashes.len(), 10_000);
        for bit in 0..64 {
            let set = hashes.iter().filter(|hash| *hash >> bit & 1 == 1).count();
            assert!((4_700..5_300).contains(&set), "bit {bit}: {set}");
        }
    }
}
