//! What a rule does to the answer, whoever gives it: a backend, what stands in
//! for it, or this proxy. Made where the rule wants something of answers.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue};
use selvage_policy::snapshot::EndpointKey;

use super::session::Stay;
use crate::upstream::Destination;
use crate::worker::Ruled;

/// See the module.
pub(in super::super) struct Dress {
    ruled: Rc<Ruled>,
    /// The backend whose turn it was.
    backend: Option<usize>,
    /// The origin that may read the answer.
    origin: Option<HeaderValue>,
    stay: Option<Stay>,
}

impl Dress {
    /// What the answer to a request of a rule gets; `None`: it stays as it is.
    pub(super) fn of(ruled: &Rc<Ruled>) -> Option<Box<Self>> {
        ruled.dresses.then(|| {
            Box::new(Self {
                ruled: ruled.clone(),
                backend: None,
                origin: None,
                stay: None,
            })
        })
    }

    /// A script of this origin may read it.
    pub(super) fn shared_with(&mut self, origin: HeaderValue) {
        self.origin = Some(origin);
    }

    /// Its client stays with whom it is answered by.
    pub(super) fn stays(&mut self, stay: Stay) {
        self.stay = Some(stay);
    }

    /// The backend whose turn it is.
    pub(super) const fn chooses(&mut self, index: usize) {
        self.backend = Some(index);
    }

    /// An endpoint of a destination has answered.
    pub(in super::super) fn answered(&mut self, destination: &Destination, key: &EndpointKey) {
        // Not of what stands in for it.
        let of_rule = std::ptr::eq(&*destination.route, &*self.ruled.rule.label);
        if let (true, Some(stay), Some(backend)) = (of_rule, &mut self.stay, self.backend) {
            stay.answered(&self.ruled, backend, destination, key);
        }
    }

    /// Dresses the head of the answer: what the backend wants first, as on its way back.
    pub(in super::super) fn put_on(self, headers: &mut HeaderMap) {
        let rule = &self.ruled.rule;
        let backend = self.backend.map(|index| &rule.backends[index].filters);
        for filters in backend.into_iter().chain([&rule.filters]) {
            if let Some(edits) = &filters.response_headers {
                edits.apply(headers);
            }
        }
        if let Some(cors) = &rule.filters.cors {
            cors.share(self.origin.as_ref(), headers);
        }
        if let Some(stay) = self.stay {
            stay.tell(headers);
        }
    }
}
