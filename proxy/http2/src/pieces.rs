//! What came of a body and waits for its reader.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A piece is a slice of what was read together with it. One that has to wait behind others is copied if it is
/// smaller than this: it would hold far more than itself.
const SMALL: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
    joined: BytesMut,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.first.is_none() {
            self.first = Some(piece);
        } else if piece.len() < SMALL {
            self.joined.extend_from_slice(&piece);
            if self.joined.len() >= SMALL {
                self.seal();
            }
        } else {
            self.seal();
            self.more.push_back(piece);
        }
    }

    fn seal(&mut self) {
        if !self.joined.is_empty() {
            self.more.push_back(self.joined.split().freeze());
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let piece = self.first.take()?;
        if self.more.is_empty() {
            self.seal();
        }
        self.first = self.more.pop_front();
        Some(piece)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Octets.
    pub(crate) fn len(&self) -> u64 {
        let pieces = self.first.iter().chain(&self.more).map(Bytes::len);
        (pieces.sum::<usize>() + self.joined.len()) as u64
    }

    /// Lets go of all of it; how many octets that were.
    pub(crate) fn discard(&mut self) -> u32 {
        let mut count = 0;
        while let Some(piece) = self.pop() {
            count += piece.len();
        }
        // A window bounds it.
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_however_many_and_small() {
        let mut pieces = Pieces::default();
        let mut expected = Vec::new();
        let mut found = Vec::new();
        for n in 0..5_000_usize {
            let piece = vec![n as u8; if n % 700 == 0 { 5_000 } else { n % 50 + 1 }];
            expected.extend_from_slice(&piece);
            pieces.push(Bytes::from(piece));
            if n % 1_000 == 0 {
                found.extend_from_slice(&pieces.pop().expect("one is there"));
            }
        }
        assert!(pieces.more.len() < 200, "{}", pieces.more.len());
        while let Some(piece) = pieces.pop() {
            found.extend_from_slice(&piece);
        }
        assert_eq!(found, expected);
        assert!(pieces.is_empty());
    }
}
