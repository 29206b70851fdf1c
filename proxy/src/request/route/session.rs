//! A client's stay with its endpoint: which backend and endpoint its token
//! means, and what it is told with the answer. Where the endpoint is gone, or
//! out for now, another is chosen and told.

use std::rc::Rc;
use std::time::SystemTime;

use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue};
use selvage_policy::route::SessionPersistence;
use selvage_policy::route::session::{Place, Session, cookie_path, endpoint_tag};
use selvage_policy::snapshot::EndpointKey;

use super::super::outgoing::Outgoing;
use crate::upstream::Destination;
use crate::worker::{Ruled, Worker};

/// What is known of a client's stay before it is answered.
pub(super) struct Stay {
    carried: Option<Session>,
    /// What a cookie is for.
    path: Box<str>,
    secure: bool,
    /// What it is told.
    told: Option<(HeaderName, HeaderValue)>,
}

/// A backend and an endpoint of it, by their indices.
pub(super) struct Pinned {
    pub(super) backend: usize,
    pub(super) endpoint: usize,
}

impl Stay {
    /// The stay of a request, and where its token leads, if to anywhere known.
    pub(super) fn of(
        worker: &Worker,
        ruled: &Ruled,
        policy: &SessionPersistence,
        prefix: Option<&str>,
        scheme: &Scheme,
        outgoing: &Outgoing,
    ) -> (Self, Option<Pinned>) {
        let meant = policy
            .carried(outgoing.headers(), SystemTime::now())
            .find_map(|session| Some((session, pinned(worker, ruled, session)?)));
        let stay = Self {
            carried: meant.as_ref().map(|(session, _)| *session),
            path: cookie_path(&ruled.rule, prefix, outgoing.uri().path()).into(),
            secure: *scheme == Scheme::HTTPS,
            told: None,
        };
        (stay, meant.map(|(_, pinned)| pinned))
    }

    /// The endpoint `key` of the rule's `backend` has answered.
    pub(super) fn answered(
        &mut self,
        ruled: &Ruled,
        backend: usize,
        destination: &Destination,
        key: &EndpointKey,
    ) {
        let policy = ruled.rule.session.as_ref();
        let endpoints = &destination.port.endpoints;
        // They are in the order of their keys.
        let index = endpoints.binary_search_by(|endpoint| endpoint.key.cmp(key));
        let endpoint = index.ok().map(|index| &endpoints[index]);
        let (Some(policy), Some(endpoint), Some(tag)) = (policy, endpoint, ruled.tag(backend))
        else {
            return;
        };
        let now = SystemTime::now();
        let session = Session::begin(tag, endpoint_tag(endpoint), now);
        let place = Place {
            path: &self.path,
            secure: self.secure,
        };
        self.told = policy.tell(session, self.carried, place, now);
    }

    /// Tells the client, where there is something to tell.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if let Some((name, value)) = self.told {
            headers.append(name, value);
        }
    }
}

/// Where a token leads, if its backend and endpoint are there.
fn pinned(worker: &Worker, ruled: &Ruled, session: Session) -> Option<Pinned> {
    let backend = ruled.tagged(session.backend)?;
    let destination: Rc<Destination> = worker.backend_at_once(ruled, backend).ok()??;
    let endpoint = ruled.endpoint(backend, &destination, session.endpoint)?;
    Some(Pinned { backend, endpoint })
}
