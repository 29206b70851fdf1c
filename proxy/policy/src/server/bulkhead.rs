//! A bulkhead for each caller: one that floods fills its own compartment, and
//! the others go on.
//!
//! Counted is what a caller has in flight *or waiting*, so that it cannot fill
//! the waiting room either. One atomic per caller, shared by the workers. The
//! map from identities to these counts is looked at once per connection; it
//! keeps who has a connection, and forgets the others when it has doubled, so
//! it is bounded by `limits.connections`. Callers without an identity are one.

use crate::sync::atomic::{AtomicU32, Ordering};
use std::collections::HashMap;
use std::sync::Arc;

use crate::sync::Mutex;
use selvage_certs::SpiffeId;

/// Callers kept before any is looked for to be forgotten.
const FEW: usize = 64;

/// Who is calling one port.
#[derive(Debug, Default)]
pub(super) struct Bulkhead(Mutex<Callers>);

#[derive(Debug, Default)]
struct Callers {
    known: HashMap<Option<SpiffeId>, Arc<AtomicU32>>,
    crowded_at: usize,
}

/// What one caller has in flight. Kept for as long as it is connected.
#[derive(Debug, Clone)]
pub struct CallerLoad(Arc<AtomicU32>);

/// One request or connection of a caller; given back when dropped.
#[derive(Debug)]
#[must_use = "it is given back when this is dropped"]
pub struct CallerPlace(Arc<AtomicU32>);

impl Bulkhead {
    /// The count of one caller. Takes a lock: once per connection.
    pub(super) fn of(&self, caller: Option<&SpiffeId>) -> CallerLoad {
        let mut callers = self.0.lock();
        if callers.known.len() >= callers.crowded_at.max(FEW) {
            callers
                .known
                .retain(|_, count| Arc::strong_count(count) > 1);
            callers.crowded_at = callers.known.len() * 2;
        }
        let count = callers.known.entry(caller.cloned()).or_default();
        CallerLoad(Arc::clone(count))
    }
}

impl CallerLoad {
    /// Admits one more, unless `most` are there.
    pub(super) fn admit(&self, most: u32) -> Option<CallerPlace> {
        let one_more = |count: u32| (count < most).then(|| count + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(CallerPlace(Arc::clone(&self.0)))
    }
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://mesh.local/ns/shop/sa/caller-{n}")).expect("an id")
    }

    #[test]
    fn a_full_compartment_is_its_own_callers_alone() {
        let bulkhead = Bulkhead::default();
        let (one, again) = (bulkhead.of(Some(&id(1))), bulkhead.of(Some(&id(1))));
        let held: Vec<_> = [&one, &again, &one]
            .into_iter()
            .filter_map(|caller| caller.admit(2))
            .collect();
        assert_eq!(held.len(), 2, "its connections count together");
        let (two, nobody) = (bulkhead.of(Some(&id(2))), bulkhead.of(None));
        assert!(two.admit(2).is_some() && nobody.admit(2).is_some());
        drop(held);
        assert!(again.admit(2).is_some());
    }

    #[test]
    fn callers_that_left_are_forgotten_and_those_there_are_not() {
        let bulkhead = Bulkhead::default();
        let stays = bulkhead.of(Some(&id(0)));
        let _held = stays.admit(1).expect("the first");
        for n in 1..10_000 {
            let _ = bulkhead.of(Some(&id(n)));
            assert!(bulkhead.0.lock().known.len() <= FEW + 1);
        }
        assert!(
            bulkhead.of(Some(&id(0))).admit(1).is_none(),
            "it is counted on"
        );
    }
}
