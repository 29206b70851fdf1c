//! Where keys are at home: the ring or the table that a rotation hashes by.
//!
//! Made with the Snapshot, off the path of requests, for all workers; the next
//! rotation of the same endpoints takes it over. From a key's home on, a walk
//! meets the others in an order of the key's own: that is where it goes when
//! its home is out, or has enough to do.

use std::sync::Arc;

use super::{maglev, ring_hash};
use crate::snapshot::Algorithm;

/// See the module.
#[derive(Debug)]
pub(crate) struct Homes {
    /// Who was seated when it was made: id and weight.
    seated: Box<[(Arc<str>, u32)]>,
    plan: Plan,
}

#[derive(Debug)]
enum Plan {
    Ring { points: Box<[u64]>, nodes: u32 },
    Maglev(Box<[u32]>),
}

impl Homes {
    /// The homes among those `seated`; the ones of `before`, if they are the
    /// same. `None` where nobody is seated, or nothing is hashed.
    pub(super) fn among(
        algorithm: &Algorithm,
        seated: Box<[(Arc<str>, u32)]>,
        before: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        if seated.is_empty() {
            return None;
        }
        if let Some(before) = before
            && before.is_of(algorithm)
            && before.seated == seated
        {
            return Some(Arc::clone(before));
        }
        let plan = match algorithm {
            Algorithm::RingHash { virtual_nodes, .. } => Plan::Ring {
                points: ring_hash::points(&seated, *virtual_nodes),
                nodes: *virtual_nodes,
            },
            Algorithm::Maglev(_) => Plan::Maglev(maglev::table(&seated)),
            _ => return None,
        };
        Some(Arc::new(Self { seated, plan }))
    }

    fn is_of(&self, algorithm: &Algorithm) -> bool {
        match (&self.plan, algorithm) {
            (Plan::Ring { nodes, .. }, Algorithm::RingHash { virtual_nodes, .. }) => {
                nodes == virtual_nodes
            }
            (Plan::Maglev(_), Algorithm::Maglev(_)) => true,
            _ => false,
        }
    }

    /// The seats from a key's home on, each as often as its share has it.
    pub(crate) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let (count, home) = match &self.plan {
            Plan::Ring { points, .. } => (points.len(), ring_hash::place(points, key)),
            Plan::Maglev(places) => (places.len(), maglev::place(key)),
        };
        (0..count).map(move |step| {
            let at = (home + step) % count;
            match &self.plan {
                Plan::Ring { points, .. } => ring_hash::seat(points[at]),
                Plan::Maglev(places) => places[at] as usize,
            }
        })
    }
}

#[cfg(test)]
mod tests;
