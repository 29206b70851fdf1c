//! The names of traces and spans: random, never zero, lower-case hexadecimal.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// The name of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// The name of a span within its trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// Parses exactly 32 lower-case digits, not all zero.
    pub(super) fn parse(digits: &[u8]) -> Option<Self> {
        (digits.len() == 32).then(|| Self::parse_any(digits))?
    }

    /// Parses 16 digits, which stand for the lower half, or 32.
    pub(super) fn parse_b3(digits: &[u8]) -> Option<Self> {
        matches!(digits.len(), 16 | 32).then(|| Self::parse_any(digits))?
    }

    fn parse_any(digits: &[u8]) -> Option<Self> {
        NonZeroU128::new(hexadecimal(digits)?).map(Self)
    }

    pub(super) fn random(rng: &mut fastrand::Rng) -> Self {
        let drawn = rng.u128(1..);
        Self(NonZeroU128::new(drawn).unwrap_or(NonZeroU128::MIN))
    }

    /// As it travels in binary forms.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// As one number.
    pub(crate) const fn bits(self) -> u128 {
        self.0.get()
    }

    /// The part that is random by every way of making one: what a ratio looks at.
    pub(super) const fn low(self) -> u64 {
        self.0.get() as u64
    }

    /// Whether it came as 16 digits.
    pub(super) const fn is_short(self) -> bool {
        self.0.get() >> 64 == 0
    }
}

impl SpanId {
    /// Parses exactly 16 lower-case digits, not all zero.
    pub(super) fn parse(digits: &[u8]) -> Option<Self> {
        if digits.len() != 16 {
            return None;
        }
        let value = u64::try_from(hexadecimal(digits)?).ok()?;
        NonZeroU64::new(value).map(Self)
    }

    pub(super) fn random(rng: &mut fastrand::Rng) -> Self {
        Self(NonZeroU64::new(rng.u64(1..)).unwrap_or(NonZeroU64::MIN))
    }

    /// As it travels in binary forms.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

/// The value of at most 32 digits. Upper case is malformed in every form that is read here.
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(nibble))
    })
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
