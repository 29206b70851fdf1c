//! Integers with a prefix (RFC 7541 §5.1): the low bits of an octet whose other bits say what
//! they mean, and seven bits in each octet that follows.

use super::Error;

/// Octets after the prefix that 32 bits can need.
const LONGEST: u32 = 5;

/// Appends `value` in the octets that the low bits `mask` of the first leave to it; the other
/// bits of the first are those of `pattern`.
#[inline]
pub(super) fn write(value: usize, mask: u8, pattern: u8, out: &mut Vec<u8>) {
    if value < usize::from(mask) {
        out.push(pattern | value as u8);
    } else {
        write_long(value - usize::from(mask), pattern | mask, out);
    }
}

fn write_long(mut rest: usize, first: u8, out: &mut Vec<u8>) {
    out.push(first);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads on behind `first`, whose low bits `mask` are the prefix, and moves `at` past what it
/// read. Fails when `bytes` end too soon, or with a value no 32 bits hold.
#[inline]
pub(super) fn read(first: u8, mask: u8, bytes: &[u8], at: &mut usize) -> Result<usize, Error> {
    let value = first & mask;
    if value < mask {
        return Ok(usize::from(value));
    }
    read_long(mask, bytes, at)
}

fn read_long(mask: u8, bytes: &[u8], at: &mut usize) -> Result<usize, Error> {
    let mut value = u64::from(mask);
    for place in 0..LONGEST {
        let octet = *bytes.get(*at).ok_or(Error::Truncated)?;
        *at += 1;
        value += u64::from(octet & 0x7f) << (7 * place);
        if octet < 0x80 {
            let value = u32::try_from(value).map_err(|_| Error::Integer)?;
            return Ok(value as usize);
        }
    }
    Err(Error::Integer)
}
