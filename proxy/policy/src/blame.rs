//! Whether a try that ran out of time says anything of its endpoint.
//!
//! Asked between a timer and the breaker. A timeout blames the endpoint, which
//! is right where the endpoint had the time. It is wrong twice: where an
//! earlier try, on an endpoint that hangs, has used up the request's time, and
//! the endpoint of the retry is cut off after a moment; and where this proxy
//! itself did not get to run, so that everybody seems to have been slow. Both
//! make a healthy endpoint look like its sick neighbour, and opened its breaker
//! too. (Counting a timeout always, as outlier detection does elsewhere, takes
//! the last good endpoint away at the moment it is needed.)
//!
//! It changes nothing for the caller: the try has still failed.

use std::time::{Duration, Instant};

use crate::classify::Outcome;
use crate::deadline::DeadlineOwner;
use crate::flag::{Flag, Grpc};

/// A timer that is noticed later than this says that the proxy did not get to run …
const LATE: Duration = Duration::from_millis(100);
/// … where this share of the time given was lost so.
const LATE_SHARE: u32 = 4;
/// A deadline travels rounded down to milliseconds, once per hop, and whoever
/// is asked hears it pass before we do.
pub const DEADLINE_SLACK: Duration = Duration::from_millis(10);

/// A try that ran out of time.
#[derive(Debug, Clone, Copy)]
pub struct RanOut {
    /// When it began.
    pub began: Instant,
    /// The end of its time.
    pub due: Instant,
    /// When that was noticed.
    pub noticed: Instant,
    /// Where the time was the whole request's: all of it, earlier tries included.
    pub of_request: Option<Duration>,
}

impl RanOut {
    /// Whether the endpoint is to blame: it had at least half of the time there
    /// was, and this proxy was there to see it end.
    #[must_use]
    pub fn blames_endpoint(&self) -> bool {
        let given = self.due.saturating_duration_since(self.began);
        let had_its_share = self.of_request.is_none_or(|all| given * 2 >= all);
        had_its_share && !was_late(given, self.due, self.noticed)
    }
}

/// Whether the end of a wait was noticed so late that it says nothing.
#[must_use]
pub fn was_late(given: Duration, due: Instant, noticed: Instant) -> bool {
    let late = noticed.saturating_duration_since(due);
    late >= LATE && late * LATE_SHARE >= given
}

/// The deadline of a request, as one of its tries met it.
#[derive(Debug, Clone, Copy)]
pub struct Met {
    /// When it passes.
    pub deadline: Instant,
    /// Whose it is.
    pub owner: DeadlineOwner,
    /// What the whole request had.
    pub allowed: Duration,
}

impl Met {
    /// Whether an answer only says that this deadline passed, at the other end:
    /// then it is judged as if it had passed here. An answer of the same words
    /// that comes well before is the endpoint's own.
    #[must_use]
    pub fn excuses(&self, outcome: &Outcome, began: Instant, now: Instant) -> bool {
        let Outcome::Response {
            flag, grpc_status, ..
        } = *outcome
        else {
            return false;
        };
        let says_so = flag == Some(Flag::Timeout)
            || (flag.is_none() && grpc_status == Some(Grpc::DeadlineExceeded.number()));
        let passed = now + DEADLINE_SLACK >= self.deadline;
        says_so && passed && !self.blames_endpoint(began, now)
    }

    /// Whether the endpoint of a try is to blame for its passing.
    #[must_use]
    pub fn blames_endpoint(&self, began: Instant, now: Instant) -> bool {
        let ran_out = RanOut {
            began,
            due: self.deadline,
            noticed: now,
            of_request: Some(self.allowed),
        };
        self.owner == DeadlineOwner::Route && ran_out.blames_endpoint()
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::testing::{millis, start};

    #[test]
    fn an_endpoint_is_blamed_for_time_it_had() {
        // Time given to the try, how late its end was noticed, the whole request's time.
        let table = [
            (500, 0, None, true),
            (500, 1, Some(500), true),
            (250, 0, Some(500), true),
            (249, 0, Some(500), false), // an earlier try has used up the rest
            (5, 0, Some(2_000), false),
            (500, 99, None, true),
            (200, 100, None, false), // this proxy did not get to run
            (10_000, 2_000, None, true),
            (10_000, 2_500, None, false),
        ];
        for (given, late, of_request, expected) in table {
            let began = start();
            let due = began + millis(given);
            let ran_out = RanOut {
                began,
                due,
                noticed: due + millis(late),
                of_request: of_request.map(millis),
            };
            assert_eq!(ran_out.blames_endpoint(), expected, "{given} {late}");
        }
    }

    fn answer(flag: Option<Flag>, grpc_status: Option<u32>) -> Outcome {
        Outcome::Response {
            status: StatusCode::OK,
            grpc_status,
            flag,
        }
    }

    #[test]
    fn a_deadline_that_passed_at_the_other_end_is_nobodys_failure() {
        use DeadlineOwner::{Caller, Route};
        let timeout = answer(Some(Flag::Timeout), None);
        let exceeded = answer(None, Some(4));
        // The answer, milliseconds before the deadline, when the try began, whose deadline, excused.
        let table = [
            (timeout, 0, 0, Caller, true),
            (timeout, 10, 0, Caller, true),
            (timeout, 11, 0, Caller, false),
            (exceeded, 3, 0, Caller, true),
            (exceeded, 300, 0, Caller, false),
            (timeout, 0, 0, Route, false),
            (timeout, 0, 800, Route, true), // a retry that had little of it
            (answer(Some(Flag::Reset), None), 0, 0, Caller, false),
            (answer(None, Some(14)), 0, 0, Caller, false),
            (answer(Some(Flag::Reset), Some(4)), 0, 0, Caller, false),
            (Outcome::Cancelled, 0, 0, Caller, false),
        ];
        for (outcome, before, began, owner, expected) in table {
            let begin = start();
            let met = Met {
                deadline: begin + millis(1_000),
                owner,
                allowed: millis(1_000),
            };
            let now = met.deadline - millis(before);
            let excused = met.excuses(&outcome, begin + millis(began), now);
            assert_eq!(excused, expected, "{outcome:?} {before} {began} {owner:?}");
        }
    }
}
