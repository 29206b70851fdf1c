//! What the models of `tests/loom` reach beside the public API. It exists with
//! the feature `loom` alone.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::ring::Ring;
use crate::rotation::Rotation;

/// Slices of [`Counts`].
pub const SLICES: i32 = 2;

/// A ring of few slices.
#[derive(Debug)]
pub struct Counts(Ring<{ SLICES as usize }>);

impl Counts {
    /// Nothing counted; a slice is `width` long.
    #[must_use]
    pub fn new(start: Instant, width: Duration) -> Self {
        Self(Ring::new(start, width))
    }

    /// Counts one event.
    pub fn add(&self, now: Instant) {
        self.0.add(now);
    }

    /// Changes the width of a slice.
    pub fn set_width(&self, width: Duration) {
        self.0.set_width(width);
    }

    /// The events of all slices.
    #[must_use]
    pub fn sum(&self, now: Instant) -> u64 {
        self.0.sum(now, SLICES)
    }
}

/// Whether what is listed, counted and packed is what the breakers of all
/// seats are. To be asked when nothing goes on.
#[must_use]
pub fn is_true(rotation: &Rotation) -> bool {
    rotation.is_true()
}

/// Asks the crowd whether one more may open by its success rate.
#[must_use]
pub fn try_open(crowd: &Crowd, max_percent: u32) -> bool {
    crowd.try_open(max_percent)
}
