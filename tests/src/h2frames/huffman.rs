//! The Huffman code of HPACK (RFC 7541 Appendix B). The code is canonical: the
//! length of each symbol's code says what the code is, so lengths are all that
//! stands here.

use std::collections::HashMap;

/// Bits of the code of each octet, and of the end-of-string symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The symbol of each code, by its length in bits and its value.
pub(super) struct Code(HashMap<(u8, u32), usize>);

impl Code {
    /// Counts codes up from the shortest, symbol by symbol (RFC 7541 Appendix B).
    pub(super) fn new() -> Self {
        let mut symbols: Vec<usize> = (0..LENGTHS.len()).collect();
        symbols.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
        let (mut next, mut bits) = (0_u32, 0);
        let mut codes = HashMap::new();
        for symbol in symbols {
            next <<= LENGTHS[symbol] - bits;
            bits = LENGTHS[symbol];
            codes.insert((bits, next), symbol);
            next += 1;
        }
        Self(codes)
    }

    /// Reads a string.
    ///
    /// # Panics
    /// When its padding is not the beginning of the end-of-string symbol.
    pub(super) fn decode(&self, coded: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let (mut bits, mut value) = (0_u8, 0_u32);
        for place in 0..coded.len() * 8 {
            let bit = coded[place / 8] >> (7 - place % 8) & 1;
            bits += 1;
            value = value << 1 | u32::from(bit);
            if let Some(symbol) = self.0.get(&(bits, value)) {
                text.push(u8::try_from(*symbol).expect("no string holds its own end"));
                (bits, value) = (0, 0);
            }
        }
        assert!(
            bits < 8 && value == (1 << bits) - 1,
            "a Huffman string ends in less than an octet of ones"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_the_rfc_is_read() {
        // RFC 7541 Appendix C.4.1.
        let coded = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(Code::new().decode(&coded), b"www.example.com");
    }
}
