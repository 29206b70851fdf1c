//! Names of fields as they are read: known ones without a look at their octets twice, the others
//! made once and then remembered.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::known::{self, MULTIPLIER};
use super::words::Words;
use super::{Field, Pseudo};

/// Names remembered at once.
const KEPT: usize = 32;
/// Octets of the longest name remembered: a connection holds no more than 2 KiB of names.
const LONGEST: usize = 64;

/// A field's name.
#[derive(Clone, Debug)]
pub(super) enum Name {
    Pseudo(Pseudo),
    Header(HeaderName),
    /// Of no proper field; its length in octets.
    Malformed(usize),
}

impl Name {
    /// Octets of it.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Pseudo(which) => which.as_str().len(),
            Self::Header(name) => name.as_str().len(),
            Self::Malformed(length) => *length,
        }
    }

    /// The field of this name and that value.
    #[inline]
    pub(super) fn with(self, value: Bytes) -> Field {
        let length = value.len();
        match self {
            Self::Pseudo(which) if proper(&value) => Field::Pseudo(which, value),
            Self::Header(name) => match HeaderValue::from_maybe_shared(value) {
                Ok(value) => Field::Header(name, value),
                Err(_) => Field::Malformed(name.as_str().len(), length),
            },
            _ => Field::Malformed(self.len(), length),
        }
    }

    /// The name of a field of a table.
    pub(super) fn of(field: &Field) -> Self {
        match field {
            Field::Pseudo(which, _) => Self::Pseudo(*which),
            Field::Header(name, _) => Self::Header(name.clone()),
            Field::Malformed(length, _) => Self::Malformed(*length),
        }
    }
}

/// Names that a peer spells out, by their octets. They come again where their values differ each
/// time, and making one costs an allocation.
#[derive(Debug, Default)]
pub(super) struct Names {
    kept: Option<Box<[Option<HeaderName>; KEPT]>>,
}

impl Names {
    /// The name that is spelled `text`.
    pub(super) fn read(&mut self, text: &[u8]) -> Name {
        let words = Words::of(text);
        if let Some(known) = known::find(text, &words)
            && let Some(field) = known::field(usize::from(known.index))
        {
            return Name::of(field);
        }
        if text.first() == Some(&b':') {
            return Pseudo::parse(text).map_or(Name::Malformed(text.len()), Name::Pseudo);
        }
        if text.len() > LONGEST {
            return make(text);
        }
        self.remembered(text, &words)
    }

    fn remembered(&mut self, text: &[u8], words: &Words) -> Name {
        let slot = (words.mixed(MULTIPLIER) >> 48) as usize % KEPT;
        let place = &mut self.kept.get_or_insert_default()[slot];
        if let Some(name) = place
            && name.as_str().as_bytes() == text
        {
            return Name::Header(name.clone());
        }
        let made = make(text);
        if let Name::Header(name) = &made {
            *place = Some(name.clone());
        }
        made
    }
}

/// Quotation marks stand in no token (RFC 9110 §5.6.2), though `http` lets them pass.
fn make(text: &[u8]) -> Name {
    match HeaderName::from_lowercase(text) {
        Ok(name) if !text.contains(&b'"') => Name::Header(name),
        _ => Name::Malformed(text.len()),
    }
}

/// Whether a pseudo field can have that value: the rule of [`HeaderValue`], since its octets end
/// up in the same places.
fn proper(value: &[u8]) -> bool {
    let plain = |eight: &[u8; 8]| plain(u64::from_le_bytes(*eight));
    if let Some(last) = value.last_chunk()
        && plain(last)
        && value.as_chunks().0.iter().all(plain)
    {
        return true;
    }
    let allowed = |octet: &u8| *octet >= b' ' && *octet != 0x7f || *octet == b'\t';
    value.iter().all(allowed)
}

/// Whether none of eight octets is below a space or a delete. It may say so of plain ones that
/// follow such an octet, never the other way round.
#[inline]
const fn plain(eight: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let below_space = eight.wrapping_sub(ONES * 0x20) & !eight;
    let delete = eight ^ (ONES * 0x7f);
    let is_delete = delete.wrapping_sub(ONES) & !delete;
    (below_space | is_delete) & HIGH == 0
}
