//! What a service counts as a failure, and as a hard one: its own list, where
//! it gave one.
//!
//! Asked by [`crate::classify`] for every answer. Statuses are bits, so that
//! asking is one shift however long the lists are. A status that is hard is a
//! failure by being so: no pair of lists contradicts itself. (One list with a
//! mark on each entry would have to be repeated whole to change one mark.)

use crate::flag::Grpc;

/// Of the first bit.
const FIRST: u16 = 100;
const WORDS: usize = 8;
/// A code that gRPC does not define is read as this one.
const UNDEFINED: Grpc = Grpc::Unknown;

/// A set of HTTP statuses from 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusSet([u64; WORDS]);

impl StatusSet {
    /// None.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// The same set and `first` to `last`, both included. What is no status is left out.
    #[must_use]
    pub const fn with(mut self, first: u16, last: u16) -> Self {
        let mut status = if first < FIRST { FIRST } else { first };
        while status <= last && status <= 599 {
            let bit = (status - FIRST) as usize;
            self.0[bit / 64] |= 1 << (bit % 64);
            status += 1;
        }
        self
    }

    /// Whether it holds this status.
    #[must_use]
    pub fn has(&self, status: u16) -> bool {
        let bit = usize::from(status.wrapping_sub(FIRST));
        self.0
            .get(bit / 64)
            .is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// As ranges, ascending, both ends included.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for status in (FIRST..=599).filter(|status| self.has(*status)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == status => *last = status,
                _ => ranges.push((status, status)),
            }
        }
        ranges
    }
}

/// A set of gRPC statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrpcSet(u32);

impl GrpcSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// The same set and one more; a number that gRPC does not define changes nothing.
    #[must_use]
    pub const fn with(self, number: u32) -> Self {
        if number < Grpc::ALL.len() as u32 {
            Self(self.0 | 1 << number)
        } else {
            self
        }
    }

    /// Whether it holds this status. One that gRPC does not define is UNKNOWN.
    #[must_use]
    pub const fn has(self, number: u32) -> bool {
        let number = if number < Grpc::ALL.len() as u32 {
            number
        } else {
            UNDEFINED as u32
        };
        self.0 >> number & 1 == 1
    }

    /// Its numbers, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..Grpc::ALL.len() as u32).filter(move |number| self.has(*number))
    }
}

/// Which answers are failures, and which of them are hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// HTTP statuses that are failures.
    pub statuses: StatusSet,
    /// HTTP statuses that are hard failures, in the other set or not.
    pub hard_statuses: StatusSet,
    /// gRPC statuses that are failures.
    pub grpc: GrpcSet,
    /// gRPC statuses that are hard failures, in the other set or not.
    pub hard_grpc: GrpcSet,
}

impl Failures {
    /// What counts where a service says nothing: 5xx and what gRPC says of
    /// servers; hard is what says that the endpoint, not the request, is bad.
    pub const USUAL: Self = Self {
        statuses: StatusSet::EMPTY.with(500, 599),
        hard_statuses: StatusSet::EMPTY.with(502, 504),
        grpc: GrpcSet::EMPTY
            .with(Grpc::Unknown.number())
            .with(Grpc::DeadlineExceeded.number())
            .with(Grpc::Internal.number())
            .with(Grpc::Unavailable.number())
            .with(Grpc::DataLoss.number()),
        hard_grpc: GrpcSet::EMPTY.with(Grpc::Unavailable.number()),
    };
}

impl Default for Failures {
    fn default() -> Self {
        Self::USUAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_statuses_holds_what_was_put_in() {
        let set = StatusSet::EMPTY.with(404, 404).with(502, 504).with(0, 100);
        for status in 0..=700 {
            let expected = matches!(status, 100 | 404 | 502..=504);
            assert_eq!(set.has(status), expected, "{status}");
        }
        assert_eq!(set.ranges(), [(100, 100), (404, 404), (502, 504)]);
        assert_eq!(StatusSet::EMPTY.with(600, u16::MAX), StatusSet::EMPTY);
    }

    #[test]
    fn an_undefined_code_is_unknown() {
        let set = GrpcSet::EMPTY.with(14).with(99);
        assert_eq!(set.numbers().collect::<Vec<_>>(), [14]);
        assert!(!set.has(99) && !set.has(u32::MAX));
        assert!(set.with(2).has(99));
    }
}
