//! How many endpoints of one service port are out of rotation.
//!
//! The rule by success rate asks here before it opens a breaker, so that it
//! never takes more than its share, and never the last endpoint. It counts; it
//! knows no endpoint. Counted per port, since only the endpoints of one port
//! can stand in for each other.

use std::sync::atomic::{AtomicU32, Ordering};

/// The endpoints of one service port, counted.
#[derive(Debug, Default)]
pub struct Crowd {
    /// Those that the registry offers: healthy, with a weight.
    offered: AtomicU32,
    /// Those whose breaker is not closed, offered or not.
    open: AtomicU32,
}

impl Crowd {
    /// Sets how many endpoints are offered.
    pub fn set_offered(&self, offered: usize) {
        self.offered.store(
            u32::try_from(offered).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
    }

    /// Endpoints whose breaker is not closed.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes one endpoint out of rotation if no more than `max_percent` are
    /// out then, and not the last one. What is granted is counted already.
    pub(crate) fn try_open(&self, max_percent: u32) -> bool {
        let offered = self.offered.load(Ordering::Relaxed);
        let one_more = |open: u32| {
            let then = open.saturating_add(1);
            let share = u64::from(then) * 100 <= u64::from(max_percent) * u64::from(offered);
            (share && then < offered).then_some(then)
        };
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    /// Counts one endpoint out of rotation, whatever the others do.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one endpoint back, or gone.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_the_share_and_never_the_last() {
        let table = [
            (0, 50, 0),
            (1, 100, 0),
            (2, 50, 1),
            (2, 100, 1),
            (3, 50, 1),
            (4, 50, 2),
            (10, 25, 2),
            (5, 0, 0),
        ];
        for (offered, percent, expected) in table {
            let crowd = Crowd::default();
            crowd.set_offered(offered);
            let granted = (0..20).filter(|_| crowd.try_open(percent)).count();
            assert_eq!(granted, expected, "{percent} % of {offered}");
        }
    }

    #[test]
    fn what_opened_otherwise_counts_too() {
        let crowd = Crowd::default();
        crowd.set_offered(4);
        crowd.opened();
        crowd.opened();
        assert!(!crowd.try_open(50));
        crowd.closed();
        assert!(crowd.try_open(50));
        assert_eq!(crowd.open(), 2);
    }
}
