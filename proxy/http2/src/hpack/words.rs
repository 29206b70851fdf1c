//! Strings by their ends: enough to tell most of them apart without a call to compare memory.

/// The first and last octets of a string, and its length. Up to 16 octets that is all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) length: usize,
}

impl Words {
    #[inline]
    pub(super) const fn of(text: &[u8]) -> Self {
        let length = text.len();
        let (first, last) = match (text.first_chunk(), text.last_chunk()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => short(text),
        };
        Self {
            first,
            last,
            length,
        }
    }

    /// Whether there is no octet between the words.
    #[inline]
    pub(super) const fn whole(&self) -> bool {
        self.length <= 16
    }

    #[inline]
    pub(super) const fn same(&self, other: &Self) -> bool {
        (self.first ^ other.first) | (self.last ^ other.last) == 0 && self.length == other.length
    }

    /// A number of 64 bits whose high ones depend on all octets seen.
    #[inline]
    pub(super) const fn mixed(&self, multiplier: u64) -> u64 {
        let both = self.first ^ self.last.rotate_left(29);
        both.wrapping_add(self.length as u64)
            .wrapping_mul(multiplier)
    }
}

/// The words of fewer than eight octets.
#[inline]
const fn short(text: &[u8]) -> (u64, u64) {
    match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) => (
            u32::from_le_bytes(*first) as u64,
            u32::from_le_bytes(*last) as u64,
        ),
        _ => match *text {
            [first, middle, last] => (first as u64, (middle as u64) << 8 | last as u64),
            [first, last] => (first as u64, last as u64),
            [only] => (only as u64, 0),
            _ => (0, 0),
        },
    }
}
