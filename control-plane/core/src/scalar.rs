//! The scalars of resources and configuration: durations, sizes, per cents.
//! Each has one way to be written, which its error shows. Refuses to know
//! which field it stands in.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// A length of time: `250ms`, `5s`, `1h30m`, `30d`, `0s`. As Gateway API
/// writes it (GEP-2257: one to four numbers of at most five digits, each with
/// its unit), and `d` for days beside `h`, `m`, `s` and `ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub std::time::Duration);

/// A text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as `250ms`, `5s` or `1h30m`, found `{0}`")]
pub struct InvalidDuration(String);

const MAX_DURATION_PARTS: usize = 4;
const MAX_DURATION_DIGITS: usize = 5;

/// Units in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let invalid = || InvalidDuration(text.chars().take(40).collect());
        let mut rest = text;
        let mut milliseconds: u64 = 0;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, after) = after.split_at(letters);
            let (_, factor) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(invalid)?;
            parts += 1;
            if digits == 0 || digits > MAX_DURATION_DIGITS || parts > MAX_DURATION_PARTS {
                return Err(invalid());
            }
            // At most 4 · 99999 days: far from overflow.
            milliseconds += number.parse::<u64>().map_err(|_| invalid())? * factor;
            rest = after;
        }
        if parts == 0 {
            return Err(invalid());
        }
        Ok(Self(std::time::Duration::from_millis(milliseconds)))
    }
}

/// The shortest way to write it, the largest unit first.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in UNITS {
            let count = rest / factor;
            rest %= factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

/// A number of bytes: `64KiB`, `1MiB`, `2GiB`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as `64KiB`, `1MiB` or a number of bytes, found `{0}`")]
pub struct InvalidByteSize(String);

const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let invalid = || InvalidByteSize(text.chars().take(40).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match SIZES.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None => return Err(invalid()),
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(factor).map(Self).ok_or_else(invalid)
    }
}

/// The shortest exact way to write it.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZES
            .iter()
            .find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match exact {
            Some((unit, factor)) if *factor > 1 => write!(f, "{}{unit}", self.0 / factor),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// A share from 0 to 100: `20` or `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Percent(pub u8);

/// A text is not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number from 0 to 100 (per cent), found `{0}`")]
pub struct InvalidPercent(String);

impl FromStr for Percent {
    type Err = InvalidPercent;

    fn from_str(text: &str) -> Result<Self, InvalidPercent> {
        let number = text.strip_suffix('%').unwrap_or(text);
        match number.parse::<u8>() {
            Ok(percent) if percent <= 100 && !number.starts_with('+') => Ok(Self(percent)),
            _ => Err(InvalidPercent(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A share of requests: `50`, `0.1` or `0.1%`, to a ten-thousandth of a per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fraction(u32);

/// A text is not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected more than 0 and at most 100 (per cent), with up to four decimals, found `{0}`")]
pub struct InvalidFraction(String);

/// Decimals of a [`Fraction`].
const DECIMALS: usize = 4;

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);

    /// So many of a million.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

impl FromStr for Fraction {
    type Err = InvalidFraction;

    fn from_str(text: &str) -> Result<Self, InvalidFraction> {
        let invalid = || InvalidFraction(text.chars().take(40).collect());
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let are_digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !are_digits(whole, 3) || !are_digits(decimals, DECIMALS) {
            return Err(invalid());
        }
        let parse = |text: &str| text.parse::<u32>().map_err(|_| invalid());
        let millionths = parse(whole)? * 10_000 + parse(&format!("{decimals:0<DECIMALS$}"))?;
        match millionths {
            1..=1_000_000 => Ok(Self(millionths)),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / 10_000, self.0 % 10_000);
        match decimals {
            0 => write!(f, "{whole}"),
            _ => write!(
                f,
                "{whole}.{}",
                format!("{decimals:04}").trim_end_matches('0')
            ),
        }
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As it was written: a float would have been rounded already.
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Parses a scalar from how it was written, number or text.
struct Written<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        Err(E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        value.parse().map_err(E::custom)
    }
}

macro_rules! written {
    ($($scalar:ident $expected:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $scalar {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Written(std::marker::PhantomData, $expected))
            }
        }

        impl Serialize for $scalar {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

written! {
    Duration "a duration such as `250ms`, `5s` or `1h30m`";
    ByteSize "a size such as `64KiB`, `1MiB` or a number of bytes";
    Percent "a whole number from 0 to 100 (per cent)";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse fails the test")]
    use super::*;

    #[test]
    fn durations_are_written_with_units() {
        let table = [
            ("250ms", 250),
            ("5s", 5000),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("0s", 0),
            ("10s30m1h", 5_410_000),
        ];
        for (text, milliseconds) in table {
            let parsed: Duration = text.parse().unwrap();
            assert_eq!(parsed.0.as_millis(), milliseconds, "{text}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "5 s",
            "5min",
            "100000s",
            "1s1s1s1s1s",
            "5S",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let table = [
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("7", 7),
            ("0", 0),
            ("12B", 12),
        ];
        for (text, bytes) in table {
            let parsed: ByteSize = text.parse().unwrap();
            assert_eq!(parsed.0, bytes, "{text}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{text}");
        }
        for text in [
            "",
            "KiB",
            "64KB",
            "1.5MiB",
            "-1",
            "99999999999GiB",
            "64 KiB",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn fractions_have_four_decimals() {
        let table = [
            ("0.1", 1_000, "0.1"),
            ("0.0001%", 1, "0.0001"),
            ("12.5", 125_000, "12.5"),
            ("50", 500_000, "50"),
            ("100%", 1_000_000, "100"),
            ("100.0", 1_000_000, "100"),
        ];
        for (text, millionths, shown) in table {
            let parsed: Fraction = text.parse().unwrap();
            assert_eq!(parsed.millionths(), millionths, "{text}");
            assert_eq!(parsed.to_string(), shown);
        }
        for text in [
            "0", "0.0", "100.0001", "101", "-1", "1e1", ".5", "5.", "1.23456", "%", "", "+1",
        ] {
            assert!(text.parse::<Fraction>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_end_at_a_hundred() {
        assert_eq!("20%".parse(), Ok(Percent(20)));
        assert_eq!("100".parse(), Ok(Percent(100)));
        for text in ["101", "-1", "+5", "%", "", "2.5"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
