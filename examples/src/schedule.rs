//! When the demo breaks its replica, and how. Pure: time since the start in, the mode out.
//!
//! It refuses to know processes and clocks. One cycle of all three faults takes 27 s, so that every
//! fault is seen within 30 s of the start.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the broken replica behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Answers.
    Healthy,
    /// Answers 503 (gRPC: UNAVAILABLE) without having processed anything.
    Status503,
    /// Takes requests and never answers.
    Hang,
    /// Refuses new connections.
    Refuse,
}

impl Mode {
    /// Every mode, in the order of the schedule.
    pub(crate) const ALL: [Self; 4] = [Self::Healthy, Self::Status503, Self::Hang, Self::Refuse];

    /// The name in reports, events and control messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Status503 => "status503",
            Self::Hang => "hang",
            Self::Refuse => "refuse",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Health before the first fault, so that every caller knows every replica.
const LEAD_IN: Duration = Duration::from_secs(4);
/// How long one fault lasts.
const FAULT: Duration = Duration::from_secs(4);
/// How long health lasts between two faults: long enough to be readmitted.
const RECOVERY: Duration = Duration::from_secs(5);
const FAULTS: [Mode; 3] = [Mode::Status503, Mode::Hang, Mode::Refuse];

/// The mode at `elapsed` since the load began, and how long until it is next decided.
pub(crate) fn at(elapsed: Duration) -> (Mode, Duration) {
    let Some(since) = elapsed.checked_sub(LEAD_IN) else {
        return (Mode::Healthy, LEAD_IN - elapsed);
    };
    let step = FAULT + RECOVERY;
    let cycle = step.as_nanos() * FAULTS.len() as u128;
    let inside = since.as_nanos() % cycle;
    let fault = FAULTS[(inside / step.as_nanos()) as usize];
    let inside = Duration::from_nanos((inside % step.as_nanos()) as u64);
    if inside < FAULT {
        (fault, FAULT - inside)
    } else {
        (Mode::Healthy, step - inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_shows_every_fault_and_heals_between_them() {
        for (seconds, mode) in [
            (0, Mode::Healthy),
            (3, Mode::Healthy),
            (4, Mode::Status503),
            (7, Mode::Status503),
            (8, Mode::Healthy),
            (13, Mode::Hang),
            (17, Mode::Healthy),
            (22, Mode::Refuse),
            (26, Mode::Healthy),
            (30, Mode::Healthy),
            (31, Mode::Status503),
            (40, Mode::Hang),
        ] {
            assert_eq!(at(Duration::from_secs(seconds)).0, mode, "{seconds} s");
        }
    }

    #[test]
    fn the_next_decision_is_where_the_mode_changes() {
        let mut now = Duration::ZERO;
        let mut modes = Vec::new();
        while now < Duration::from_secs(31) {
            let (mode, next) = at(now);
            assert!(next > Duration::ZERO);
            modes.push(mode);
            now += next;
        }
        assert_eq!(now, Duration::from_secs(31));
        let [healthy, status, hang, refuse] = Mode::ALL;
        assert_eq!(
            modes,
            [healthy, status, healthy, hang, healthy, refuse, healthy]
        );
    }
}
