//! The endpoints of one service port as a crowd: how many are out of rotation,
//! which, and who of them waits for a probe.
//!
//! The rule by success rate asks here before it opens a breaker, so that it
//! never takes more than its share, and never the last endpoint. Counted per
//! port, since only the endpoints of one port can stand in for each other.
//!
//! Breakers report each change of their verdict, so that a balancer need not
//! go round and look: whether somebody waits is one word, who is closed is one
//! bit each, and the lock is taken by transitions, by what probes, and when a
//! rotation begins. It knows no endpoint, only the seats that the rotation of
//! now gave out: a place in an earlier one says nothing any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::marks::Marks;
use crate::since;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

const NEVER: u64 = u64::MAX;

/// The endpoints of one service port, counted and listed.
#[derive(Debug)]
pub struct Crowd {
    epoch: Instant,
    /// Those that the registry offers: healthy, with a weight.
    offered: AtomicU32,
    /// Those whose breaker is not closed, or that checks found unhealthy; offered or not.
    open: AtomicU32,
    /// The rotation of now.
    rotation: AtomicU32,
    /// When the first of the queue may be probed.
    soonest: AtomicU64,
    /// When somebody last came or came back: milliseconds since the epoch, plus 1. 0: nobody did.
    warmed: AtomicU64,
    /// Whether tries in flight are counted for all together, and how many are.
    counts: AtomicBool,
    in_flight: AtomicU32,
    /// By reason.
    spilled: [AtomicU64; 2],
    roll: Mutex<Roll>,
}

/// Why a request went elsewhere than it would by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spill {
    /// Too few endpoints of the caller's zone are healthy.
    Zone,
    /// The endpoint its key belongs to has enough to do.
    Load,
}

impl Spill {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Zone, Self::Load];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Load => "load",
        }
    }
}

/// Who sits where in the rotation of now.
#[derive(Debug, Default)]
struct Roll {
    closed: Arc<Marks>,
    /// Those that wait for a probe, and from when on each may have it, in milliseconds since the epoch.
    waiting: HashMap<u32, u64>,
    /// The same, by time.
    queue: BTreeSet<(u64, u32)>,
}

/// Where an endpoint sits: rotation (upper half) and seat. Rotations count from
/// 1, so that this begins as nowhere. Only touched under the crowd's lock.
#[derive(Debug, Default)]
pub(crate) struct Place(AtomicU64);

/// What is said of a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// In rotation.
    Closed,
    /// Waits for a probe, which it may have from then on: milliseconds since the crowd's epoch.
    Waits { from: u64 },
    /// Is being probed.
    Probed,
    /// Checks found it unhealthy, whatever its breaker says.
    Unhealthy,
}

/// The rotation that [`Crowd::begin_rotation`] began.
#[derive(Debug)]
pub(crate) struct Seating {
    /// Its number.
    pub(crate) rotation: u32,
    /// The seats whose breakers are closed; kept true until the next rotation begins.
    pub(crate) closed: Arc<Marks>,
}

impl Crowd {
    /// An empty crowd. `epoch` is no later than any `now` that follows.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            offered: AtomicU32::new(0),
            open: AtomicU32::new(0),
            rotation: AtomicU32::new(0),
            soonest: AtomicU64::new(NEVER),
            warmed: AtomicU64::new(0),
            counts: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            spilled: std::array::from_fn(|_| AtomicU64::new(0)),
            roll: Mutex::default(),
        }
    }

    /// Endpoints whose breaker is not closed, or that checks found unhealthy.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) const fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Milliseconds since the epoch, as listings count them.
    pub(crate) fn millis(&self, at: Instant) -> u64 {
        since::millis(self.epoch, at)
    }

    /// Requests that spilled so far.
    #[must_use]
    pub fn spilled(&self, why: Spill) -> u64 {
        self.spilled[why as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn spills(&self, why: Spill) {
        self.spilled[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody begins to warm up.
    pub(crate) fn warms(&self, now: Instant) {
        self.warmed
            .fetch_max(self.millis(now).saturating_add(1), Ordering::Relaxed);
    }

    /// Whether somebody began to warm up less than `window` ago.
    pub(crate) fn warmed_within(&self, window: Duration, now: Instant) -> bool {
        let warmed = self.warmed.load(Ordering::Relaxed);
        let since = |at: u64| self.millis(now).saturating_sub(at);
        warmed
            .checked_sub(1)
            .is_some_and(|at| u128::from(since(at)) < window.as_millis())
    }

    /// Whether tries that begin from now on are counted for all endpoints together.
    pub(crate) fn count_in_flight(&self, counts: bool) {
        self.counts.store(counts, Ordering::Relaxed);
    }

    /// Counts a try that begins, if they are counted: what is counted is to be given back.
    pub(crate) fn try_begins(&self) -> bool {
        let counts = self.counts.load(Ordering::Relaxed);
        if counts {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
        }
        counts
    }

    /// Gives back what was counted.
    pub(crate) fn try_ends(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tries in flight of all endpoints, of those that were counted.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn set_offered(&self, offered: usize) {
        self.offered.store(
            u32::try_from(offered).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
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

    /// Whether, beside one endpoint that is listed as `own`, another one is in
    /// rotation. About right: those out that are not offered count as well.
    pub(crate) fn stands_in(&self, own: Listing) -> bool {
        let offered = self.offered.load(Ordering::Relaxed);
        offered.saturating_sub(self.open()) > u32::from(own == Listing::Closed)
    }

    /// Counts one endpoint out of rotation, whatever the others do.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one endpoint back, or gone.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Gives out the seats of a new rotation, `of` telling the place and the
    /// listing of who takes each. Places in the one before are void: what is
    /// reported from them is not heard.
    pub(crate) fn begin_rotation<'a>(
        &self,
        seats: usize,
        of: impl Fn(usize) -> (&'a Place, Listing),
    ) -> Seating {
        let mut roll = self.roll.lock();
        let rotation = self.rotation.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.rotation.store(rotation, Ordering::Relaxed);
        *roll = Roll {
            closed: Arc::new(Marks::all(seats)),
            ..Roll::default()
        };
        self.set_offered(seats);
        // A place is given before its listing is read: a verdict that changes
        // in between is reported to the new seat once this lock is free.
        for seat in 0..seats {
            of(seat).0.take(rotation, seat);
        }
        for (place, listing) in (0..seats).map(of) {
            roll.list(place.seat(rotation), listing);
        }
        self.tell_soonest(&roll);
        Seating {
            rotation,
            closed: Arc::clone(&roll.closed),
        }
    }

    /// Whether `rotation` is the one of now.
    pub(crate) fn is_current(&self, rotation: u32) -> bool {
        self.rotation.load(Ordering::Relaxed) == rotation
    }

    /// Hears that a verdict changed. Called with the lock of its breaker held,
    /// so that what is heard is in the order of states.
    pub(crate) fn list(&self, place: &Place, listing: Listing) {
        let mut roll = self.roll.lock();
        let seat = place.seat(self.rotation.load(Ordering::Relaxed));
        if roll.list(seat, listing) {
            self.tell_soonest(&roll);
        }
    }

    /// Whether somebody waits since `until` or longer, in milliseconds since the epoch.
    pub(crate) fn waits_since(&self, until: u64) -> bool {
        self.soonest.load(Ordering::Relaxed) <= until
    }

    /// Who waits longest of those that wait since `until` or longer and are
    /// `wanted`, by the seat in `rotation`; `None` also where that is over.
    pub(crate) fn longest_waiting(
        &self,
        rotation: u32,
        until: u64,
        wanted: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let roll = self.roll.lock();
        // Seats of another rotation would be other endpoints.
        let queue = Some(&roll.queue).filter(|_| self.is_current(rotation))?;
        let due = queue.iter().take_while(|(from, _)| *from <= until);
        let mut seats = due.map(|(_, seat)| *seat as usize);
        seats.find(|seat| wanted(*seat))
    }

    fn tell_soonest(&self, roll: &Roll) {
        let soonest = roll.queue.first().map_or(NEVER, |(from, _)| *from);
        self.soonest.store(soonest, Ordering::Relaxed);
    }
}

impl Roll {
    /// Whether the queue changed.
    fn list(&mut self, seat: Option<u32>, listing: Listing) -> bool {
        let Some(seat) = seat else { return false };
        self.closed.set(seat as usize, listing == Listing::Closed);
        let before = match listing {
            Listing::Waits { from } => self.waiting.insert(seat, from),
            Listing::Closed | Listing::Probed | Listing::Unhealthy => self.waiting.remove(&seat),
        };
        if let Some(before) = before {
            self.queue.remove(&(before, seat));
        }
        if let Listing::Waits { from } = listing {
            self.queue.insert((from, seat));
        }
        before.is_some() || matches!(listing, Listing::Waits { .. })
    }
}

impl Place {
    fn take(&self, rotation: u32, seat: usize) {
        let place = u64::from(rotation) << 32 | seat as u64;
        self.0.store(place, Ordering::Relaxed);
    }

    fn seat(&self, rotation: u32) -> Option<u32> {
        let place = self.0.load(Ordering::Relaxed);
        let is_of_now = rotation != 0 && place >> 32 == u64::from(rotation);
        is_of_now.then_some(place as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

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
            let crowd = Crowd::new(start());
            crowd.set_offered(offered);
            let granted = (0..20).filter(|_| crowd.try_open(percent)).count();
            assert_eq!(granted, expected, "{percent} % of {offered}");
        }
    }

    #[test]
    fn what_opened_otherwise_counts_too() {
        let crowd = Crowd::new(start());
        crowd.set_offered(4);
        crowd.opened();
        crowd.opened();
        assert!(!crowd.try_open(50));
        crowd.closed();
        assert!(crowd.try_open(50));
        assert_eq!(crowd.open(), 2);
    }

    #[test]
    fn who_waits_longest_comes_first_and_each_once() {
        let crowd = Crowd::new(start());
        let places: [Place; 3] = Default::default();
        let now = crowd.begin_rotation(3, |seat| (&places[seat], Listing::Closed));
        let first = |until| crowd.longest_waiting(now.rotation, until, |_| true);
        assert!(!crowd.waits_since(NEVER - 1) && first(NEVER).is_none());
        crowd.list(&places[2], Listing::Waits { from: 50 });
        crowd.list(&places[0], Listing::Waits { from: 40 });
        assert_eq!((first(39), first(40), first(99)), (None, Some(0), Some(0)));
        assert!(crowd.waits_since(40) && !crowd.waits_since(39));
        crowd.list(&places[0], Listing::Waits { from: 60 });
        assert_eq!((first(49), first(99)), (None, Some(2)));
        let not_two = crowd.longest_waiting(now.rotation, 99, |seat| seat != 2);
        assert_eq!(not_two, Some(0));
        crowd.list(&places[2], Listing::Probed);
        assert!(now.closed.iter().eq([1]));
        crowd.list(&places[2], Listing::Closed);
        crowd.list(&places[0], Listing::Closed);
        assert!(!crowd.waits_since(NEVER - 1) && now.closed.iter().eq(0..3));
    }

    #[test]
    fn what_left_is_not_heard() {
        let crowd = Crowd::new(start());
        let [gone, stays, never] = <[Place; 3]>::default();
        let old = crowd.begin_rotation(2, |seat| ([&gone, &stays][seat], Listing::Closed));
        crowd.list(&gone, Listing::Waits { from: 1 });
        let waits = Listing::Waits { from: 2 };
        let new = crowd.begin_rotation(1, |_| (&stays, waits));
        assert!(!crowd.is_current(old.rotation) && crowd.is_current(new.rotation));
        crowd.list(&gone, Listing::Closed);
        crowd.list(&never, Listing::Waits { from: 0 });
        assert_eq!(
            crowd.longest_waiting(new.rotation, NEVER, |_| true),
            Some(0)
        );
        assert_eq!(crowd.longest_waiting(old.rotation, NEVER, |_| true), None);
        assert!(!crowd.waits_since(1) && new.closed.iter().next().is_none());
    }
}
