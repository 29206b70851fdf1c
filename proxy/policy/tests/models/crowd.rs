//! The endpoints of one port together: whom a pick may choose, who may open by
//! its success rate, and that nobody is counted out who is in, or the other
//! way round, while rotations begin and endpoints come and go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use selvage_policy::balance::{PROBE_PATIENCE, pick};
use selvage_policy::breaker::{BreakerState, PROBE_DECIDES_WITHIN, Transition};
use selvage_policy::classify::Class;
use selvage_policy::crowd::Crowd;
use selvage_policy::endpoint::{EndpointState, InFlight, Report};
use selvage_policy::health::{Checked, Pace};
use selvage_policy::rotation::{Layout, Rotation};
use selvage_policy::snapshot::{Balancer, BreakerPolicy, Endpoint, EndpointKey, ServiceName};

use crate::breaker::is_jittered;
use crate::chance::{Word, sequence, sequences};
use crate::reference::{self, Change, Sent, some_breaker_policy, some_class};
use crate::start;

/// Verdicts count in milliseconds: nothing is asked closer than this to a change.
const COARSE: Duration = Duration::from_millis(2);
/// Few checks decide, so that endpoints often leave and come back.
const PACE: Pace = Pace {
    interval: Duration::from_secs(1),
    jitter_percent: 0,
    timeout: Duration::from_secs(1),
    unhealthy_threshold: 2,
    healthy_threshold: 1,
};

/// An endpoint that is there or was.
struct Member {
    state: Weak<EndpointState>,
    model: reference::Breaker,
    health: reference::Health,
}

impl Member {
    fn is_in(&self) -> bool {
        self.model.is_closed() && self.health.is_healthy()
    }
}

struct Try {
    in_flight: InFlight,
    member: usize,
    sent: Sent,
    started: Instant,
    /// What it was first said to have ended in.
    ended: Option<Class>,
}

impl Try {
    /// Whether it is heard that it ended so: for the first time, or as a probe
    /// that was well by its head and then broke.
    fn is_heard(&self, class: Class, now: Instant) -> bool {
        let was_well = matches!(self.ended, Some(Class::Success | Class::Throttled));
        let breaks = self.sent.probe && was_well && class.is_failure();
        self.ended.is_none() || breaks && now < self.started + PROBE_DECIDES_WITHIN
    }
}

struct Bench {
    policy: BreakerPolicy,
    crowd: Arc<Crowd>,
    members: Vec<Member>,
    /// Who of the members is there, in the order of the Snapshot.
    present: Vec<usize>,
    endpoints: Vec<Arc<Endpoint>>,
    states: Vec<Arc<EndpointState>>,
    rotation: Rotation,
    flying: Vec<Try>,
    start: Instant,
    now: Instant,
    rng: fastrand::Rng,
}

fn some_endpoint(number: usize, word: &mut Word) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        key: EndpointKey {
            service: ServiceName::new("shop", "ratings"),
            port: 80,
            address: SocketAddr::from(([10, 0, 0, 1], number as u16)),
            identity: None,
        },
        id: "".into(),
        weight: word.one_of(&[1, 1, 1, 3, 0, 1000]),
        labels: BTreeMap::new(),
        healthy: !word.one_in(6),
    })
}

impl Bench {
    fn new(mut word: Word, seed: u64) -> Self {
        let start = start();
        let crowd = Arc::new(Crowd::new(start));
        let mut bench = Self {
            policy: some_breaker_policy(&mut word),
            rotation: Rotation::begin(&[], &[], &crowd, &Layout::new(&Balancer::default(), start)),
            crowd,
            members: Vec::new(),
            present: Vec::new(),
            endpoints: Vec::new(),
            states: Vec::new(),
            flying: Vec::new(),
            start,
            now: start,
            rng: fastrand::Rng::with_seed(seed),
        };
        for _ in 0..=word.below(5) {
            bench.joins(&mut word);
        }
        bench.swaps();
        bench
    }

    /// A new endpoint; seen from the next rotation on.
    fn joins(&mut self, word: &mut Word) {
        let endpoint = some_endpoint(self.members.len(), word);
        let state = EndpointState::new(endpoint.key.clone(), Arc::clone(&self.crowd));
        let state = Arc::new(state);
        self.present.push(self.members.len());
        self.members.push(Member {
            state: Arc::downgrade(&state),
            model: reference::Breaker::new(self.policy, self.start),
            health: reference::Health::default(),
        });
        self.endpoints.push(endpoint);
        self.states.push(state);
    }

    fn leaves(&mut self, at: usize) {
        self.present.remove(at);
        self.endpoints.remove(at);
        self.states.remove(at);
    }

    fn swaps(&mut self) {
        let balancer = Balancer::default();
        let layout = Layout::new(&balancer, self.now);
        self.rotation = Rotation::begin(&self.endpoints, &self.states, &self.crowd, &layout);
    }

    /// Those that the registry offers.
    fn offered(&self) -> impl Iterator<Item = usize> {
        let is_offered = |at: &usize| self.endpoints[*at].healthy && self.endpoints[*at].weight > 0;
        (0..self.endpoints.len()).filter(is_offered)
    }

    fn member(&self, at: usize) -> &Member {
        &self.members[self.present[at]]
    }

    fn model(&self, at: usize) -> &reference::Breaker {
        &self.member(at).model
    }

    /// Those whose state still exists and who are out of rotation.
    fn open(&self) -> usize {
        let is_there = |member: &&Member| member.state.strong_count() > 0;
        let members = self.members.iter().filter(is_there);
        members.filter(|member| !member.is_in()).count()
    }

    /// Whether another one is in rotation beside a member, by these counts.
    fn stands_in(&self, member: usize) -> bool {
        let own = usize::from(self.members[member].is_in());
        self.offered().count() > self.open() + own
    }

    /// Lets time pass until no verdict is about to change.
    fn settles(&mut self) {
        let is_near = |at: Instant, now: Instant| now < at + COARSE && at < now + COARSE;
        let about_to_change = |now: Instant| {
            let all = (0..self.present.len()).filter_map(|at| self.model(at).waits_from());
            let mut moments = all.flat_map(|from| [from, from + PROBE_PATIENCE]);
            moments.any(|at| is_near(at, now))
        };
        let mut now = self.now;
        while about_to_change(now) {
            now += COARSE;
        }
        self.now = now;
    }

    fn hears(&mut self, mut word: Word) -> Result<(), TestCaseError> {
        match word.below(16) {
            0..=1 => self.now += word.wait(),
            2..=6 => self.picks(word)?,
            7..=11 if !self.flying.is_empty() => {
                let one = word.index(self.flying.len());
                self.ends(one, word)?;
            }
            12 if !self.flying.is_empty() => {
                let one = word.index(self.flying.len());
                self.is_dropped(one);
            }
            13 if !self.present.is_empty() => match word.one_in(2) {
                true => self.connects(word)?,
                false => self.is_checked(word)?,
            },
            14 => {
                let at = word.index(self.present.len() + 1);
                match word.below(3) {
                    0 if at < self.present.len() => self.leaves(at),
                    1 if self.present.len() < 6 => self.joins(&mut word),
                    _ if at < self.present.len() => {
                        self.endpoints[at] = some_endpoint(self.present[at], &mut word);
                    }
                    _ => {}
                }
                self.swaps();
            }
            _ => self.picks(word)?,
        }
        self.is_as_the_models_say()
    }

    /// Everybody who may be picked, best kind first, and whether as a probe.
    fn admissible(&self, tried: &[usize], retryable: bool) -> Option<(Vec<usize>, bool)> {
        let those = |was_tried: bool, fits: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let fits = |at: &usize| tried.contains(at) == was_tried && fits(*at);
            self.offered().filter(fits).collect()
        };
        let closed = |at: usize| self.member(at).is_in();
        let waits = |at: usize, least: Duration| {
            let is_healthy = self.member(at).health.is_healthy();
            let from = self.model(at).waits_from().filter(|_| is_healthy);
            from.is_some_and(|from| from + least <= self.now)
        };
        let vacant = |at: usize| waits(at, Duration::ZERO);
        let patience = match retryable && tried.is_empty() {
            true => Duration::ZERO,
            false => PROBE_PATIENCE,
        };
        let wanted = |at: usize| waits(at, patience);
        [
            (those(false, &wanted), true),
            (those(false, &closed), false),
            (those(false, &vacant), true),
            (those(true, &closed), false),
            (those(true, &vacant), true),
        ]
        .into_iter()
        .find(|(all, _)| !all.is_empty())
    }

    fn picks(&mut self, mut word: Word) -> Result<(), TestCaseError> {
        self.settles();
        let retryable = word.one_in(2);
        let tried: Vec<_> = (0..word.below(3)).map(|_| word.index(6)).collect();
        let expected = self.admissible(&tried, retryable);
        let found = pick(&self.rotation, &tried, retryable, self.now, &mut self.rng);
        let (Ok(picked), Some((all, as_probe))) = (&found, &expected) else {
            prop_assert_eq!(found.is_ok(), expected.is_some());
            return Ok(());
        };
        prop_assert!(all.contains(&picked.index), "{} of {all:?}", picked.index);
        prop_assert_eq!(picked.in_flight.is_probe(), *as_probe);
        if *as_probe {
            let longest = all
                .iter()
                .filter_map(|at| self.model(*at).waits_from())
                .min();
            let since = self.model(picked.index).waits_from();
            prop_assert!(since <= longest.map(|at| at + COARSE), "others wait longer");
        }
        let (index, transition) = (picked.index, picked.transition);
        let member = self.present[index];
        let Some((sent, change)) = self.members[member].model.admit(self.now) else {
            return Err(TestCaseError::fail("picked what admits nothing"));
        };
        prop_assert_eq!(transition.map(as_change), change);
        let in_flight = found.expect("it was picked").in_flight;
        self.flying.push(Try {
            in_flight,
            member,
            sent,
            started: self.now,
            ended: None,
        });
        Ok(())
    }

    fn ends(&mut self, one: usize, mut word: Word) -> Result<(), TestCaseError> {
        let report = Report {
            class: some_class(&mut word),
            could_not_connect: word.one_in(2),
            retry_after: None,
        };
        let then = self.open() + 1;
        let offered = self.offered().count();
        let share = self.policy.max_open_percent as usize * offered;
        let may_open = then * 100 <= share && then < offered;
        let flown = &mut self.flying[one];
        if word.one_in(2) {
            flown.in_flight.first_byte(self.now);
        }
        let (now, member) = (self.now, flown.member);
        let found = flown
            .in_flight
            .observe(&report, &self.policy, now, &mut self.rng);
        let Report {
            class,
            could_not_connect,
            ..
        } = report;
        let heard = flown.is_heard(class, now);
        if heard {
            flown.ended = Some(class);
        }
        let sent = flown.sent;
        let stands_in = self.stands_in(member);
        let Member { model, health, .. } = &mut self.members[member];
        // What is unhealthy has left already: only its probe still says something.
        let expected = (heard && (sent.probe || health.is_healthy()))
            .then(|| model.ended(sent, class, could_not_connect, may_open, now))
            .flatten();
        prop_assert_eq!(found.map(as_change), expected);
        if let Some(open_for) = found.and_then(|transition| transition.open_for) {
            let full = model.backoff(stands_in);
            prop_assert!(
                is_jittered(Some(open_for), full),
                "{open_for:?} of {full:?}"
            );
            model.lasts(open_for, stands_in);
        }
        // Some go on with their bodies.
        if word.one_in(2) {
            self.is_dropped(one);
        }
        Ok(())
    }

    fn is_dropped(&mut self, one: usize) {
        let flown = self.flying.swap_remove(one);
        if flown.ended.is_none() {
            // Without a clock where it is dropped: vacant since it was taken.
            let model = &mut self.members[flown.member].model;
            model.release(flown.sent, flown.started);
        }
    }

    fn connects(&mut self, mut word: Word) -> Result<(), TestCaseError> {
        let at = word.index(self.present.len());
        let (state, model) = (&self.states[at], &mut self.members[self.present[at]].model);
        // Twice, since who was told to connect does it alone.
        for _ in 0..2 {
            let wants = state.wants_connect_probe(self.now);
            prop_assert_eq!(wants, model.wants_connect(self.now));
        }
        match word.below(6) {
            0 => {
                let found = state.connect_probe_succeeded(self.now);
                prop_assert_eq!(found.map(as_change), model.connected(self.now));
            }
            1..=2 => {
                state.connect_probe_failed();
                model.could_not_connect();
            }
            _ => {}
        }
        Ok(())
    }

    /// By the proxy itself, for a while; then perhaps no more.
    fn is_checked(&mut self, mut word: Word) -> Result<(), TestCaseError> {
        let at = word.index(self.present.len());
        let (state, member) = (&self.states[at], &mut self.members[self.present[at]]);
        if word.one_in(6) {
            state.unchecked();
            member.health = reference::Health::default();
            return Ok(());
        }
        for _ in 0..=word.below(3) {
            let passed = word.one_in(2);
            let checked = match passed {
                true => Checked::Passed,
                false => Checked::Failed("status 503".into()),
            };
            let found = state.checked(&checked, &PACE, self.now);
            let changes = member.health.hears(passed, &PACE);
            let expected = changes.then_some(passed);
            prop_assert_eq!(found.map(|change| change.healthy), expected);
        }
        Ok(())
    }

    fn is_as_the_models_say(&mut self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.crowd.open() as usize, self.open());
        for (member, it) in self.members.iter().enumerate() {
            let Some(state) = it.state.upgrade() else {
                continue;
            };
            let model = &it.model;
            prop_assert_eq!(state.is_healthy(), it.health.is_healthy());
            let pending = self.flying.iter().filter(|flying| flying.member == member);
            prop_assert_eq!(state.pending() as usize, pending.count());
            let from = model.waits_from();
            let expected = match model.state() {
                // The verdict may be two milliseconds late, and never early.
                BreakerState::Open if from.is_some_and(|at| at + COARSE <= self.now) => {
                    BreakerState::HalfOpen
                }
                BreakerState::Open if from.is_some_and(|at| at <= self.now) => continue,
                state => state,
            };
            prop_assert_eq!(state.state(self.now), expected);
        }
        Ok(())
    }
}

fn as_change(transition: Transition) -> Change {
    let Transition {
        from, to, reason, ..
    } = transition;
    Change { from, to, reason }
}

proptest! {
    #![proptest_config(sequences())]

    #[test]
    fn a_crowd_is_what_its_breakers_are((policy, seed, events) in sequence(50)) {
        let mut bench = Bench::new(policy, seed);
        for event in events {
            bench.hears(event)?;
        }
        // Whatever was going on: in the end nothing is held or counted any more.
        bench.flying.clear();
        prop_assert!(bench.states.iter().all(|state| state.pending() == 0));
        let crowd = Arc::clone(&bench.crowd);
        drop(bench);
        prop_assert_eq!(crowd.open(), 0);
    }
}
