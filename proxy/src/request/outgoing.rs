//! A request as it is sent: taken apart once, put together for each try.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use selvage_policy::affinity::{self, Key, Told};
use selvage_policy::blame::Met;
use selvage_policy::deadline::{self, DeadlineOwner};
use selvage_policy::flag::Flag;
use selvage_policy::mirror::MirrorPolicy;
use selvage_policy::retry::Attempts;
use selvage_policy::route::{self, HeaderEdits};
use selvage_policy::said;
use selvage_policy::server::{CRITICALITY, Criticality, Waits};
use selvage_policy::snapshot::{Timeouts, TrafficPolicy};
use tokio::time::Instant;

use crate::clock;
use crate::error::ProxyError;
use crate::http::head::{self, Asked, Hop};
use crate::http::is_grpc;
use crate::http::received::Received;
use crate::http::replay::{Activity, Gate, Replay, RequestBody};
use crate::upstream::{Destination, Way};
use crate::worker::Worker;

/// A request as it is sent, as often as need be.
pub(super) struct Outgoing {
    /// The method.
    pub(super) method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// What was asked for beside the head.
    pub(super) asked: Asked,
    /// When the caller stops waiting.
    asked_deadline: Option<std::time::Instant>,
    /// When its time begins to be counted.
    begun: std::time::Instant,
    /// Whether it is a gRPC call.
    pub(super) grpc: bool,
    /// The moment the exchange must be over, and whose it is.
    pub(super) deadline: (Option<std::time::Instant>, DeadlineOwner),
    /// From its beginning to there.
    pub(super) allowed: Duration,
    /// Its body.
    pub(super) body: Replay,
    /// When a byte last moved.
    pub(super) activity: Rc<Activity>,
    /// Whether a gRPC status is waited for before the response is passed on.
    pub(super) peeks: bool,
    pub(super) gate: Option<Arc<Gate>>,
    upgrade: RefCell<Option<OnUpgrade>>,
    /// What its endpoint is chosen by, where that is a key.
    pub(super) affinity: Key,
    /// The index of the endpoint that its client stays with.
    pub(super) pinned: Option<usize>,
    /// How much it matters, where that was said and is believed.
    pub(super) criticality: Option<Criticality>,
    /// The place at the application that it has to wait for.
    pub(super) waits: Option<Box<Waits>>,
}

impl Outgoing {
    /// Takes a request apart.
    pub(super) fn new(
        mut request: Request<Received>,
        asked: Asked,
        asked_deadline: Option<std::time::Instant>,
    ) -> Self {
        let upgrade = asked
            .upgrade
            .is_some()
            .then(|| hyper::upgrade::on(&mut request));
        let gate = asked.expects_continue.then(Arc::<Gate>::default);
        let activity = Activity::new();
        let (parts, body) = request.into_parts();
        Self {
            method: parts.method,
            uri: parts.uri,
            grpc: is_grpc(&parts.headers),
            headers: parts.headers,
            asked,
            asked_deadline,
            begun: clock::recent().into_std(),
            deadline: (None, DeadlineOwner::Route),
            allowed: Duration::ZERO,
            body: Replay::of(body, activity.clone(), gate.clone()),
            activity,
            peeks: false,
            gate,
            upgrade: RefCell::new(upgrade),
            affinity: Key::None,
            pinned: None,
            criticality: None,
            waits: None,
        }
    }

    /// Its deadline, for who has to judge its passing.
    pub(super) fn met(&self) -> Option<Met> {
        Some(Met {
            deadline: self.deadline.0?,
            owner: self.deadline.1,
            allowed: self.allowed,
        })
    }

    /// Its headers.
    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its target.
    pub(super) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// What routes look at.
    pub(super) fn asked_of_routes(&self) -> route::Asked<'_> {
        route::Asked {
            host: self.asked.authority.as_ref().map(Authority::host),
            method: &self.method,
            path: self.uri.path(),
            query: self.uri.query(),
            headers: &self.headers,
        }
    }

    /// Its headers as a filter wants them.
    pub(super) fn edit_headers(&mut self, edits: &HeaderEdits) {
        edits.apply(&mut self.headers);
    }

    /// Another path and query.
    pub(super) fn aim(&mut self, target: PathAndQuery) {
        let mut parts = std::mem::take(&mut self.uri).into_parts();
        parts.path_and_query = Some(target);
        // With a path, the parts that made a target make one again.
        self.uri = Uri::from_parts(parts).unwrap_or_default();
    }

    /// Its time with a service begins to be counted.
    pub(super) const fn begins(&mut self, now: std::time::Instant) {
        self.begun = now;
    }

    /// The moment it must be over under `timeouts`, and whose limit that is.
    pub(super) fn limit(&self, timeouts: &Timeouts) -> (Option<std::time::Instant>, DeadlineOwner) {
        deadline::deadline(timeouts, self.asked_deadline, self.begun)
    }

    /// Whether its caller has stopped waiting.
    pub(super) fn is_late(&self, now: std::time::Instant) -> bool {
        self.asked_deadline
            .is_some_and(|deadline| deadline::remaining(deadline, now).is_none())
    }

    /// A copy for somebody else, without the caller's deadline; `None` where
    /// its body is not there whole.
    pub(super) fn copy(&self, now: std::time::Instant) -> Option<Box<Self>> {
        let body = self.body.copy()?;
        Some(Box::new(Self {
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            asked: Asked {
                authority: self.asked.authority.clone(),
                upgrade: None,
                expects_continue: false,
                version: self.asked.version,
                criticality: None,
            },
            asked_deadline: None,
            begun: now,
            grpc: self.grpc,
            deadline: (None, DeadlineOwner::Route),
            allowed: Duration::ZERO,
            body,
            activity: Activity::new(),
            peeks: false,
            gate: None,
            upgrade: RefCell::new(None),
            affinity: Key::None,
            pinned: None,
            // Nobody waits for its answer.
            criticality: Some(Criticality::Sheddable),
            waits: None,
        }))
    }

    /// Names the mirror as its host, where that is asked for.
    pub(super) fn is_for(&mut self, mirror: &MirrorPolicy) {
        let original = self.asked.authority.as_ref();
        let other = original.and_then(|original| mirror.authority(original.as_str()));
        // A suffix of letters, digits, `-` and `.` makes an authority of an authority.
        if let Some(Ok(other)) = other.map(Authority::try_from) {
            self.asked.authority = Some(other);
        }
    }

    /// Sets the limits of its destination's policy. At most `kept` bytes of
    /// its body are kept for replay.
    pub(super) fn bounded_by(&mut self, policy: &TrafficPolicy, attempts: &Attempts, kept: usize) {
        self.deadline = self.limit(&policy.timeouts);
        let end = self.deadline.0.unwrap_or(self.begun);
        self.allowed = end.saturating_duration_since(self.begun);
        self.body.keep(attempts.buffer_limit().min(kept));
        // Only a status that would be retried, or stood in for, is worth holding a response for.
        let stands_in = policy.fallback.as_ref();
        let stands_in = stands_in.is_some_and(|fallback| !fallback.on.grpc_statuses.is_empty());
        self.peeks = self.grpc && (attempts.retryable() || stands_in);
    }

    /// Whether anybody still waits for an answer. What is late is not sent.
    pub(super) fn is_in_time(&self, now: std::time::Instant) -> Result<(), ProxyError> {
        match self.deadline.0 {
            Some(deadline) if deadline::remaining(deadline, now).is_none() => Err(late()),
            _ => Ok(()),
        }
    }

    /// Finds the key of its endpoint, if those of `policy` are chosen by one.
    pub(super) fn keyed_by(&mut self, policy: &TrafficPolicy, source: IpAddr, worker: &Worker) {
        if let Some(hashing) = policy.balancer.algorithm.hashing() {
            let told = Told {
                headers: &self.headers,
                uri: &self.uri,
                source,
            };
            self.affinity = worker.with_rng(|rng| affinity::of_request(&hashing.on, told, rng));
        }
    }

    /// The caller's side of an upgrade.
    pub(super) fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade.borrow_mut().take()
    }

    /// Whether it asks for another protocol, or its body waits to be asked for.
    pub(super) const fn switches(&self) -> bool {
        self.gate.is_some() || self.asked.upgrade.is_some()
    }

    /// The head and body for one try, the `number`th.
    pub(super) fn request(
        &self,
        destination: &Destination,
        way: Way,
        number: u32,
        now: Instant,
    ) -> Result<Request<RequestBody>, ProxyError> {
        let mut request = Request::new(self.body.reader());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        *request.version_mut() = self.asked.version;
        head::address(&mut request, &self.asked, way.hop, &destination.authority)?;
        if self.switches() {
            frame_http1(&mut request, way.hop);
        }
        if let (Some(deadline), _) = self.deadline {
            let left = deadline::remaining(deadline, now.into_std()).ok_or_else(late)?;
            let headers = request.headers_mut();
            if self.grpc || headers.contains_key(deadline::GRPC_TIMEOUT) {
                headers.insert(deadline::GRPC_TIMEOUT, deadline::encode_grpc_timeout(left));
            }
            if way.mesh {
                headers.insert(deadline::DEADLINE_MS, deadline::encode_deadline_ms(left));
            }
        }
        if way.mesh && number > 1 {
            let headers = request.headers_mut();
            headers.insert(said::ATTEMPT, HeaderValue::from(number));
        }
        if let Some(criticality) = self.criticality.filter(|_| way.mesh) {
            let value = HeaderValue::from_static(criticality.as_str());
            request.headers_mut().insert(CRITICALITY, value);
        }
        if let Some(gate) = &self.gate {
            let gate = gate.clone();
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == http::StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        Ok(request)
    }
}

fn late() -> ProxyError {
    ProxyError::new(Flag::Timeout, "the deadline has passed")
}

/// hyper, which sends what switches, gives a GET, HEAD or CONNECT of unknown length
/// no body at all, unless it is told that there is one.
fn frame_http1(request: &mut Request<RequestBody>, hop: Hop) {
    let unknown = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    let chunked = hop == Hop::Http1
        && request.version() == Version::HTTP_11
        && !request.headers().contains_key(CONTENT_LENGTH);
    if unknown && chunked {
        let value = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, value);
    }
}
