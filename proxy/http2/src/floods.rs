//! How much a peer may ask for that costs it nothing: cancelled streams, faults,
//! frames without content. Each is an allowance that useful work and time fill up again.

use std::time::{Duration, Instant};

use crate::error::{Error, Reason};
use crate::settings::Config;

/// Frames without content (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones) in a row.
const CHATTER: u32 = 2_000;
/// One more of them is allowed for each time as long as this.
const CHATTER_EVERY: Duration = Duration::from_millis(10);
/// How many more of them a frame with content allows, whoever sent it: a peer may
/// answer each frame of a body by a PING and two WINDOW_UPDATEs.
const CHATTER_PER_FRAME: u32 = 10;
/// One more cancelled or faulty stream is allowed for each time as long as this.
const STREAM_EVERY: Duration = Duration::from_millis(10);

/// What is left of one allowance.
#[derive(Debug)]
struct Allowance {
    left: u32,
    most: u32,
    every: Duration,
    since: Instant,
}

impl Allowance {
    fn new(most: u32, every: Duration) -> Self {
        Self {
            left: most,
            most,
            every,
            since: Instant::now(),
        }
    }

    fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.most);
    }

    /// `false` where nothing is left. The clock is only asked then.
    fn spend(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            let now = now();
            let waited = now.duration_since(self.since).as_nanos() / self.every.as_nanos();
            self.since = now;
            self.earn(u32::try_from(waited).unwrap_or(u32::MAX));
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Patience {
    cancelled: Allowance,
    provoked: Allowance,
    chatter: Allowance,
}

impl Patience {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            cancelled: Allowance::new(config.cancelled, STREAM_EVERY),
            provoked: Allowance::new(config.provoked, STREAM_EVERY),
            chatter: Allowance::new(CHATTER, CHATTER_EVERY),
        }
    }

    /// A stream ended as it should.
    pub(crate) fn ended_well(&mut self) {
        self.cancelled.earn(1);
        self.provoked.earn(1);
    }

    /// A frame with content crossed, this way or that.
    pub(crate) fn content(&mut self) {
        self.chatter.earn(CHATTER_PER_FRAME);
    }

    /// The peer cancelled a stream that was not answered yet.
    pub(crate) fn cancelled(&mut self) -> Result<(), Error> {
        enough(
            self.cancelled.spend(Instant::now),
            "too many streams cancelled",
        )
    }

    /// The peer sent what a stream is reset for.
    pub(crate) fn provoked(&mut self) -> Result<(), Error> {
        enough(self.provoked.spend(Instant::now), "too many faulty streams")
    }

    /// The peer sent a frame without content.
    pub(crate) fn chatter(&mut self) -> Result<(), Error> {
        enough(
            self.chatter.spend(Instant::now),
            "too many frames without content",
        )
    }
}

fn enough(allowed: bool, why: &'static str) -> Result<(), Error> {
    if allowed {
        Ok(())
    } else {
        Err(Error::connection(Reason::ENHANCE_YOUR_CALM, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_ends_and_time_fills_it_up() {
        let mut allowance = Allowance::new(3, Duration::from_millis(10));
        let start = allowance.since;
        let spent = |allowance: &mut Allowance, at: u64| {
            allowance.spend(|| start + Duration::from_millis(at))
        };
        for _ in 0..3 {
            assert!(spent(&mut allowance, 0));
        }
        assert!(!spent(&mut allowance, 0));
        assert!(!spent(&mut allowance, 9));
        // The nine were looked at already.
        assert!(spent(&mut allowance, 20));
        assert!(!spent(&mut allowance, 20));
        // Never more than there was at first.
        for _ in 0..3 {
            assert!(spent(&mut allowance, 10_000));
        }
        assert!(!spent(&mut allowance, 10_000));
    }

    #[test]
    fn streams_that_end_well_allow_others_to_be_cancelled() {
        let config = Config {
            cancelled: 2,
            ..Config::default()
        };
        let mut patience = Patience::new(&config);
        for _ in 0..1_000 {
            assert!(patience.cancelled().is_ok());
            patience.ended_well();
        }
        assert!(patience.cancelled().is_ok());
        assert!(patience.cancelled().is_ok());
        let error = patience.cancelled().expect_err("none is left");
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    }
}
