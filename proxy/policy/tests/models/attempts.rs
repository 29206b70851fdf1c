//! Whether a try is repeated: requests one after another that spend one
//! budget, each with its tries, deadline and body.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use proptest::prelude::*;
use selvage_policy::budget::Budget;
use selvage_policy::classify::{Outcome, TransportFailure};
use selvage_policy::flag::Flag;
use selvage_policy::retry::{Attempts, Ended, Next, Pushback, WhyReturned};
use selvage_policy::snapshot::{BackoffPolicy, BudgetPolicy, RetryOn, RetryPolicy, TrafficPolicy};

use crate::chance::{Word, sequence, sequences};
use crate::{millis, reference, start};

/// What no retry waits for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

fn some_policy(word: &mut Word) -> TrafficPolicy {
    let on = RetryOn {
        connect_failure: word.one_in(2),
        reset: word.one_in(2),
        timeout: word.one_in(2),
        statuses: word
            .one_of(&[&[][..], &[StatusCode::SERVICE_UNAVAILABLE]])
            .to_vec(),
        grpc_statuses: word.one_of(&[&[][..], &[14], &[14, 0]]).to_vec(),
    };
    let retry = RetryPolicy {
        attempts: word.below(4) as u32,
        on,
        methods: vec![Method::GET, Method::PUT],
        backoff: BackoffPolicy {
            base: millis(word.one_of(&[25, 0, 400])),
            max: millis(word.one_of(&[250, 10, 3_000])),
        },
        buffer_limit: 1024,
    };
    TrafficPolicy {
        retry: (!word.one_in(4)).then_some(retry),
        budget: BudgetPolicy {
            percent: word.one_of(&[20, 100, 0]),
            min_per_second: word.one_of(&[1, 10, 0]),
            ..BudgetPolicy::default()
        },
        ..TrafficPolicy::default()
    }
}

fn some_outcome(word: &mut Word) -> Outcome {
    use TransportFailure::{BadResponse, Connect, Reset, ReusedClosed, Timeout, Tls, Unprocessed};
    let failures = [
        Connect,
        Tls,
        Unprocessed,
        ReusedClosed,
        Reset,
        BadResponse,
        Timeout,
    ];
    match word.below(8) {
        0..=2 => Outcome::Transport(word.one_of(&failures)),
        3 => word.one_of(&[Outcome::Cancelled, Outcome::CallerDeadline]),
        _ => Outcome::Response {
            status: word.one_of(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK]),
            grpc_status: word.one_of(&[None, Some(14), Some(0), Some(5)]),
            flag: word.one_of(&[None, Some(Flag::ConnectFailure), Some(Flag::Overloaded)]),
        },
    }
}

fn some_end(word: &mut Word) -> Ended {
    let waits = [0, 20, 2_000, 60_000, 60_001].map(|ms| Pushback::AtLeast(millis(ms)));
    Ended {
        outcome: some_outcome(word),
        replayable: !word.one_in(5),
        untouched: word.one_in(3),
        pushback: match word.below(6) {
            0 => Pushback::Never,
            1..=2 => word.one_of(&waits),
            _ => Pushback::None,
        },
        exhausted_below: word.one_in(6),
    }
}

/// One request, as the rules see it.
struct Request<'a> {
    policy: &'a TrafficPolicy,
    method: Method,
    is_grpc: bool,
    transparent: u32,
    by_policy: u32,
    endpoints: Vec<usize>,
}

/// What may follow a try, apart from deadline and budget.
enum Wanted {
    No(WhyReturned),
    Transparent,
    /// After a wait between these two.
    ByPolicy(Duration, Duration),
}

impl Request<'_> {
    /// The request cannot have reached the application.
    fn never_arrived(&self, outcome: &Outcome) -> bool {
        use TransportFailure::{Connect, ReusedClosed, Tls, Unprocessed};
        let repeatable = [Method::GET, Method::PUT, Method::DELETE].contains(&self.method);
        match outcome {
            Outcome::Transport(failure) => {
                [Connect, Tls, Unprocessed].contains(failure)
                    || (*failure == ReusedClosed && repeatable)
            }
            Outcome::Response { flag, .. } => *flag == Some(Flag::ConnectFailure),
            _ => false,
        }
    }

    fn is_listed(&self, outcome: &Outcome) -> bool {
        use TransportFailure::{BadResponse, Connect, Timeout, Tls};
        let Some(retry) = &self.policy.retry else {
            return false;
        };
        let allowed = match self.is_grpc {
            true => !retry.on.grpc_statuses.is_empty(),
            false => retry.methods.contains(&self.method),
        };
        // A failure of ours counts as the answer that callers see: 502, 503 or 504, UNAVAILABLE or DEADLINE_EXCEEDED.
        let (condition, status, grpc) = match outcome {
            Outcome::Cancelled | Outcome::CallerDeadline => return false,
            Outcome::Transport(Connect | Tls) => (retry.on.connect_failure, 503, Some(14)),
            Outcome::Transport(BadResponse) => (false, 502, Some(14)),
            Outcome::Transport(Timeout) => (retry.on.timeout, 504, Some(4)),
            Outcome::Transport(_) => (retry.on.reset, 503, Some(14)),
            Outcome::Response {
                status,
                grpc_status,
                flag,
            } => {
                let refused = *flag == Some(Flag::ConnectFailure);
                (
                    refused && retry.on.connect_failure,
                    status.as_u16(),
                    *grpc_status,
                )
            }
        };
        let by_status = retry
            .on
            .statuses
            .iter()
            .any(|listed| listed.as_u16() == status);
        // OK is no failure, whoever lists it.
        let by_grpc = grpc.is_some_and(|n| n != 0 && retry.on.grpc_statuses.contains(&n));
        allowed && retry.attempts > 0 && (condition || by_status || by_grpc)
    }

    /// Whether its policy could repeat it whatever became of it.
    fn may_be_repeated(&self) -> bool {
        let retry = self.policy.retry.as_ref();
        let retry = retry.filter(|retry| match self.is_grpc {
            true => !retry.on.grpc_statuses.is_empty(),
            false => retry.methods.contains(&self.method),
        });
        retry.is_some_and(|retry| self.by_policy < retry.attempts)
    }

    fn wanted(&self, ended: &Ended) -> Wanted {
        let never_arrived = self.never_arrived(&ended.outcome);
        if never_arrived && self.transparent < 2 {
            return Wanted::Transparent;
        }
        if !self.is_listed(&ended.outcome) {
            return Wanted::No(match never_arrived {
                true => WhyReturned::LimitReached,
                false => WhyReturned::NotRetryable,
            });
        }
        let retry = self
            .policy
            .retry
            .as_ref()
            .expect("what is listed has a policy");
        let least = match ended.pushback {
            _ if ended.exhausted_below => return Wanted::No(WhyReturned::ExhaustedBelow),
            _ if self.by_policy == retry.attempts => return Wanted::No(WhyReturned::LimitReached),
            Pushback::Never => return Wanted::No(WhyReturned::PushedBack),
            Pushback::AtLeast(least) => least,
            Pushback::None => Duration::ZERO,
        };
        let full = retry.backoff.base * 2u32.pow(self.by_policy);
        Wanted::ByPolicy(least, full.min(retry.backoff.max).max(least))
    }

    /// Whether `next` may follow. What was spent is taken from `budget`.
    fn accepts(
        &mut self,
        next: Next,
        ended: &Ended,
        deadline: Option<Instant>,
        budget: &mut reference::Budget,
        now: Instant,
    ) -> Result<(), TestCaseError> {
        let (least, most, transparent) = match self.wanted(ended) {
            Wanted::No(why) => {
                prop_assert_eq!(next, Next::Return(why));
                return Ok(());
            }
            Wanted::Transparent => (Duration::ZERO, Duration::ZERO, true),
            Wanted::ByPolicy(least, most) => (least, most, false),
        };
        let is_late = |wait: Duration| deadline.is_some_and(|deadline| now + wait >= deadline);
        if !ended.replayable && !ended.untouched {
            prop_assert_eq!(next, Next::Return(WhyReturned::NotReplayable));
        } else if least > LONGEST_WAIT {
            prop_assert_eq!(next, Next::Return(WhyReturned::PushedBack));
        } else if next == Next::Return(WhyReturned::DeadlineTooClose) {
            prop_assert!(is_late(most), "no wait that could be drawn is too long");
        } else if !budget.try_spend(now) {
            prop_assert!(!is_late(least));
            prop_assert_eq!(next, Next::Return(WhyReturned::BudgetExhausted));
        } else {
            let Next::RetryAfter {
                wait,
                transparent: found,
            } = next
            else {
                return Err(TestCaseError::fail(format!(
                    "{next:?}, though it may be repeated"
                )));
            };
            prop_assert_eq!(found, transparent);
            prop_assert!(
                wait >= least && wait <= most,
                "{wait:?} of {least:?}..{most:?}"
            );
            prop_assert!(!is_late(wait));
            let used = if transparent {
                &mut self.transparent
            } else {
                &mut self.by_policy
            };
            *used += 1;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(sequences())]

    #[test]
    fn a_try_is_repeated_as_the_rules_say((mut policy, seed, events) in sequence(40)) {
        let mut now = start();
        let mut rng = fastrand::Rng::with_seed(seed);
        let policy = Arc::new(some_policy(&mut policy));
        let budget = Budget::new(policy.budget, now);
        let mut model = reference::Budget::new(policy.budget, now);
        let mut events = events.into_iter();
        while let Some(mut event) = events.next() {
            now += event.wait();
            budget.request(now);
            model.request(now);
            let deadline = event.one_in(2).then(|| now + millis(event.below(3_000)));
            let mut request = Request {
                policy: &policy,
                method: event.one_of(&[Method::GET, Method::POST, Method::PUT, Method::DELETE].each_ref()).clone(),
                is_grpc: event.one_in(3),
                transparent: 0,
                by_policy: 0,
                endpoints: Vec::new(),
            };
            let mut attempts = Attempts::begin(&policy, &request.method, request.is_grpc);
            for mut event in events.by_ref() {
                let endpoint = event.index(12);
                attempts.sent_to(endpoint);
                request.endpoints.push(endpoint);
                let is_left = request.may_be_repeated();
                prop_assert_eq!(attempts.retryable(), is_left);
                prop_assert_eq!(attempts.wants_replay(), is_left || request.transparent < 2);
                let ended = some_end(&mut event);
                let next = attempts.after(&ended, deadline, &budget, now, &mut rng);
                request.accepts(next, &ended, deadline, &mut model, now)?;
                let Next::RetryAfter { wait, .. } = next else { break };
                now += wait;
            }
            let most = policy.retry.as_ref().map_or(0, |retry| retry.attempts) as usize;
            prop_assert!(request.endpoints.len() <= 1 + 2 + most);
            prop_assert_eq!(attempts.tries() as usize, request.endpoints.len());
            let mut tried: Vec<_> = attempts.tried().to_vec();
            tried.sort_unstable();
            request.endpoints.sort_unstable();
            prop_assert_eq!(tried, request.endpoints);
        }
    }
}
