//! Huffman-coded strings (RFC 7541 §5.2 and appendix B), read only: we never send them, since
//! on a hop inside a mesh their cost exceeds the octets they save.
//!
//! The code is canonical: within one length, codes ascend with their symbols, and each length
//! goes on where the one before ended. So the lengths alone make all tables.

use super::Error;

/// Bits looked up at once. The common symbols' codes are no longer; the others are rare enough to
/// be found length by length.
const SHORT: usize = 8;
/// Bits of the longest code.
const LONGEST: usize = 30;
/// The symbol that ends a string, and must not occur.
const END: u16 = 256;

/// Bits of the code of each octet, and of the end.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// What the next bits are.
#[derive(Clone, Copy)]
struct Code {
    symbol: u16,
    bits: u32,
}

/// The code in tables.
struct Tables {
    /// By the next [`SHORT`] bits: symbol and length; length 0 where the code is longer.
    short: [(u8, u8); 1 << SHORT],
    /// By length: the first code of a greater length, aligned to the left of 32 bits.
    end: [u32; LONGEST + 1],
    /// By length: what to add to a code to find its place in `symbols`.
    offset: [u32; LONGEST + 1],
    /// Symbols by length and value.
    symbols: [u16; LENGTHS.len()],
}

static TABLES: Tables = Tables::build();

impl Tables {
    const fn build() -> Self {
        let mut tables = Self {
            short: [(0, 0); 1 << SHORT],
            end: [0; LONGEST + 1],
            offset: [0; LONGEST + 1],
            symbols: [0; LENGTHS.len()],
        };
        let (mut code, mut place, mut bits) = (0_u32, 0_u32, 1);
        while bits <= LONGEST {
            code <<= 1;
            tables.offset[bits] = place.wrapping_sub(code);
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == bits {
                    tables.symbols[place as usize] = symbol as u16;
                    tables.note_short(symbol as u8, code, bits);
                    code += 1;
                    place += 1;
                }
                symbol += 1;
            }
            // The end of the longest codes is one past all bits; nothing compares with it.
            tables.end[bits] = (code as u64).wrapping_shl(32 - bits as u32) as u32;
            bits += 1;
        }
        tables
    }

    const fn note_short(&mut self, symbol: u8, code: u32, bits: usize) {
        if bits > SHORT {
            return;
        }
        let free = SHORT - bits;
        let mut low = 0;
        while low < 1 << free {
            self.short[((code as usize) << free) | low] = (symbol, bits as u8);
            low += 1;
        }
    }

    /// The code that `window` begins with, which has more than [`SHORT`] bits.
    fn long(&self, window: u32) -> Code {
        let mut bits = SHORT + 1;
        while bits < LONGEST && window >= self.end[bits] {
            bits += 1;
        }
        let place = (window >> (32 - bits)).wrapping_add(self.offset[bits]);
        Code {
            symbol: self.symbols[place as usize],
            bits: bits as u32,
        }
    }

    #[inline]
    fn next(&self, window: u64) -> Code {
        let (symbol, bits) = self.short[(window >> (64 - SHORT)) as usize];
        if bits == 0 {
            return self.long((window >> 32) as u32);
        }
        Code {
            symbol: u16::from(symbol),
            bits: u32::from(bits),
        }
    }
}

/// Octets that `coded` octets can stand for at most: no code is shorter than five bits.
pub(super) const fn longest(coded: usize) -> usize {
    coded.saturating_mul(8) / 5
}

/// Appends what `coded` stands for. Fails where the end-of-string code occurs, or the padding is
/// longer than seven bits or not of ones.
pub(super) fn decode(mut coded: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    out.reserve(longest(coded.len()));
    let mut bits = Bits::default();
    loop {
        bits.fill(&mut coded);
        let code = TABLES.next(bits.window());
        if code.bits > bits.count {
            return bits.padding();
        }
        if code.symbol == END {
            return Err(Error::Huffman);
        }
        out.push(code.symbol as u8);
        bits.skip(code.bits);
    }
}

/// Bits read and not yet used, from the left.
#[derive(Default)]
struct Bits {
    waiting: u64,
    count: u32,
}

impl Bits {
    /// Makes sure that the longest code is there, as long as `coded` lasts.
    #[inline]
    fn fill(&mut self, coded: &mut &[u8]) {
        if self.count >= LONGEST as u32 {
            return;
        }
        if let Some((four, rest)) = coded.split_first_chunk::<4>() {
            self.waiting |= u64::from(u32::from_be_bytes(*four)) << (32 - self.count);
            self.count += 32;
            *coded = rest;
            return;
        }
        while let Some((&octet, rest)) = coded.split_first() {
            self.waiting |= u64::from(octet) << (56 - self.count);
            self.count += 8;
            *coded = rest;
        }
    }

    /// The bits from the left, with ones behind the last: then an unfinished code shows itself by
    /// being longer than what is there.
    #[inline]
    fn window(&self) -> u64 {
        self.waiting | (u64::MAX >> self.count)
    }

    #[inline]
    fn skip(&mut self, bits: u32) {
        self.waiting <<= bits;
        self.count -= bits;
    }

    /// What is left when no further code is complete: it has to be padding.
    fn padding(&self) -> Result<(), Error> {
        let proper = self.count < 8 && self.window() == u64::MAX;
        if proper { Ok(()) } else { Err(Error::Huffman) }
    }
}
