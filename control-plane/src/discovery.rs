//! The `Discovery` service: one task per proxy, which carries messages between
//! the stream and the pure half of the protocol in `selvage-api`. Sees only
//! what is published, and never answers a question with a picture older than
//! the question; a caller sees it as its own namespace does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use selvage_api::name;
use selvage_api::server::{Event, Session};
use selvage_api::v1::{DeltaRequest, DeltaResponse, Hello, Rejection, ResourceName, ResourceType};
use selvage_core::registry::{InvalidRegistration, WorkloadKey, labels_fit};
use selvage_core::resource::ServiceName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::journal::Journal;
use crate::mesh::{Mesh, Published, Viewer};
use crate::metrics::Metrics;
use crate::peer::{self, Caller};
use crate::proxies::{self, Connected, Nack, Proxies, ProxyStatus, Scraped};
use crate::registry::{address, authorize};
use crate::rpc::discovery_server::Discovery;
use crate::store::Store;

/// Streams at a time.
pub(crate) const MAX_PROXIES: usize = 10_000;
/// Messages on their way out of one stream: a push, and the status that ends it.
const OUTGOING: usize = 2;
/// A proxy introduces itself by then.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A push is answered by then, warming included.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest message of a proxy: a hello with all its subscriptions.
pub(crate) const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes kept of what a proxy says of itself or of a refusal.
const MAX_TEXT_BYTES: usize = 512;

/// The service.
pub(crate) struct DiscoveryService {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

/// What every stream's task uses.
pub(crate) struct Shared {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) store: Store,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) stop: CancellationToken,
}

impl DiscoveryService {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            places: Arc::new(Semaphore::new(MAX_PROXIES)),
        }
    }
}

#[tonic::async_trait]
impl Discovery for DiscoveryService {
    type DeltaStream = ReceiverStream<Result<DeltaResponse, Status>>;

    async fn delta(
        &self,
        request: Request<Streaming<DeltaRequest>>,
    ) -> Result<Response<Self::DeltaStream>, Status> {
        let caller = peer::caller(&request)?;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many proxies are connected here"))?;
        let (outgoing, responses) = mpsc::channel(OUTGOING);
        let task = Task {
            shared: Arc::clone(&self.shared),
            caller,
            incoming: request.into_inner(),
            outgoing,
            _place: place,
        };
        tokio::spawn(task.run());
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// One proxy's stream.
struct Task {
    shared: Arc<Shared>,
    caller: Caller,
    incoming: Streaming<DeltaRequest>,
    outgoing: mpsc::Sender<Result<DeltaResponse, Status>>,
    _place: OwnedSemaphorePermit,
}

impl Task {
    /// Runs the stream and tells the proxy why it ended, if anybody listens.
    async fn run(mut self) {
        if let Err(status) = self.stream().await {
            tracing::debug!(identity = %self.caller.id, %status, "discovery stream ends");
            // The proxy may be gone, or too slow to hear it.
            let _ = self.outgoing.try_send(Err(status));
        }
    }

    async fn stream(&mut self) -> Result<(), Status> {
        let mut session = Session::new();
        let hello = tokio::time::timeout(HELLO_TIMEOUT, self.incoming.message());
        let hello = hello
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(hello) = hello else { return Ok(()) };
        session
            .on_request(hello)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let viewer = self.introduce(session.hello()).await?;
        let status = self.status(session.hello(), &viewer)?;
        let connected = self.shared.proxies.connect(status);
        self.shared.journal.record(
            "connected",
            &viewer.workload.to_string(),
            self.caller.address.to_string(),
        );
        let ended = self.converse(&mut session, &viewer, &connected).await;
        self.shared.journal.record(
            "disconnected",
            &viewer.workload.to_string(),
            self.caller.address.to_string(),
        );
        ended
    }

    /// Who this is: what it says must fit its certificate and its token.
    async fn introduce(&self, hello: Option<&Hello>) -> Result<Viewer, Status> {
        let hello = hello.ok_or_else(|| Status::invalid_argument("no hello came"))?;
        if hello.namespace != self.caller.namespace {
            return Err(Status::permission_denied(format!(
                "{} is not of the namespace {:?}",
                self.caller.id, hello.namespace
            )));
        }
        let service = ServiceName::new(&hello.namespace, &hello.service);
        authorize(&self.shared.store, &self.caller, &service).await?;
        let workload = WorkloadKey::new(&hello.namespace, &hello.workload);
        if name::split(&workload.to_string()).is_none() {
            return Err(Status::invalid_argument(
                "a workload has a name without slashes",
            ));
        }
        Ok(Viewer { workload, service })
    }

    fn status(&self, hello: Option<&Hello>, viewer: &Viewer) -> Result<ProxyStatus, Status> {
        Ok(ProxyStatus {
            workload: viewer.workload.to_string(),
            service: viewer.service.to_string(),
            identity: self.caller.id.to_string(),
            version: hello
                .map(|hello| shortened(&hello.version))
                .unwrap_or_default(),
            address: self.caller.address.to_string(),
            scraped: hello
                .map(|hello| self.scraped(hello))
                .transpose()?
                .flatten(),
            connected_since: proxies::now(),
            subscriptions: 0,
            acked: None,
            sent: None,
            nacks: Vec::new(),
        })
    }

    /// Where a proxy is scraped that says so here, and its labels.
    fn scraped(&self, hello: &Hello) -> Result<Option<Scraped>, Status> {
        if hello.telemetry.is_empty() {
            return Ok(None);
        }
        let mut address = address("telemetry", &hello.telemetry)?;
        if address.ip().is_unspecified() {
            let ip = self.caller.address.ip().to_canonical();
            if address.is_ipv4() && ip.is_ipv6() {
                // It hears IPv4 alone, and nobody knows at which address.
                return Ok(None);
            }
            address.set_ip(ip);
        }
        if !labels_fit(&hello.labels) {
            return Err(Status::invalid_argument(
                InvalidRegistration::Labels.to_string(),
            ));
        }
        let labels = hello.labels.clone();
        Ok(Some(Scraped { address, labels }))
    }

    async fn converse(
        &mut self,
        session: &mut Session,
        viewer: &Viewer,
        connected: &Connected,
    ) -> Result<(), Status> {
        let mut published = self.shared.mesh.published();
        // Whoever was told of a change may start a proxy that asks for it: a picture that
        // lacks it would be taken for the truth until the next one.
        let mut asked_at = self.shared.mesh.changes();
        let left = self
            .caller
            .not_after
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let expiry = tokio::time::sleep(left);
        tokio::pin!(expiry);
        let mut sent_at: Option<Instant> = None;
        let stop = self.shared.stop.clone();
        loop {
            if let Some(push) = next_push(session, viewer, &mut published, asked_at) {
                connected.update(|status| status.sent = Some(push.revision));
                sent_at = Some(Instant::now());
                // One push is outstanding at a time, so there is room for it
                // unless the proxy is gone.
                self.outgoing
                    .send(Ok(push))
                    .await
                    .map_err(|_| Status::cancelled("the proxy is gone"))?;
            }
            let answer_due = sent_at.map(|at| at + ANSWER_TIMEOUT);
            tokio::select! {
                // A picture that was waited for is pushed before another question can ask for more.
                biased;
                () = stop.cancelled() => {
                    return Err(Status::unavailable("the control plane is stopping"));
                }
                () = self.outgoing.closed() => return Ok(()),
                () = &mut expiry => {
                    return Err(Status::unauthenticated("the client certificate has ended: renew and connect again"));
                }
                () = due(answer_due) => {
                    return Err(Status::deadline_exceeded("a push was not answered"));
                }
                changed = published.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is stopping"))?;
                }
                message = self.incoming.message() => {
                    let Some(request) = message? else { return Ok(()) };
                    if !request.subscribe.is_empty() {
                        asked_at = self.shared.mesh.changes();
                    }
                    let event = session
                        .on_request(request)
                        .map_err(|error| Status::invalid_argument(error.to_string()))?;
                    connected.update(|status| status.subscriptions = session.subscribed().count());
                    if let Some(at) = sent_at.take_if(|_| !session.is_waiting()) {
                        self.shared.metrics.push_duration.observe(at.elapsed().as_secs_f64());
                    }
                    self.answered(event, viewer, connected);
                }
            }
        }
    }

    fn answered(&self, event: Event, viewer: &Viewer, connected: &Connected) {
        match event {
            Event::Quiet => {}
            Event::Acked { revision } => connected.update(|status| {
                status.acked = Some(revision);
                status.nacks.clear();
            }),
            Event::Nacked {
                revision,
                rejections,
            } => {
                let nacks: Vec<_> = rejections
                    .iter()
                    .map(|rejection| nack(rejection, revision))
                    .collect();
                for (rejection, nack) in rejections.iter().zip(&nacks) {
                    let kind = kind(rejection.name.as_ref());
                    self.shared.metrics.nacks.with_label_values(&[kind]).inc();
                    tracing::warn!(workload = %viewer.workload, resource = nack.resource, revision, reason = nack.reason, "a proxy refuses a push");
                }
                if let Some(first) = nacks.first() {
                    let message = format!(
                        "{} at revision {revision}: {}",
                        first.resource, first.reason
                    );
                    self.shared
                        .journal
                        .record("nack", &viewer.workload.to_string(), message);
                }
                connected.update(|status| status.nacks = nacks);
            }
        }
    }
}

/// The next push, once a picture is there that shows `asked_at` changes: it
/// follows within the debounce.
fn next_push(
    session: &mut Session,
    viewer: &Viewer,
    published: &mut watch::Receiver<Arc<Published>>,
    asked_at: u64,
) -> Option<DeltaResponse> {
    let now = Arc::clone(&published.borrow_and_update());
    if now.changes < asked_at {
        return None;
    }
    session.next(|name| now.view(viewer, name), now.revision)
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn kind(name: Option<&ResourceName>) -> &'static str {
    match name.map(|name| ResourceType::try_from(name.r#type)) {
        Some(Ok(ResourceType::Workload)) => "workload",
        Some(Ok(ResourceType::Service)) => "service",
        Some(Ok(ResourceType::TrustBundle)) => "trust-bundle",
        Some(Ok(ResourceType::Gateway)) => "gateway",
        Some(Ok(ResourceType::Unspecified) | Err(_)) | None => "unknown",
    }
}

fn nack(rejection: &Rejection, revision: u64) -> Nack {
    let name = rejection.name.as_ref();
    let resource = name.map_or_else(String::new, |name| {
        format!("{} {}", kind(Some(name)), name.name)
    });
    Nack {
        resource: shortened(&resource),
        reason: shortened(&rejection.reason),
        revision,
    }
}

/// What a proxy says, cut to a bound and without control characters.
fn shortened(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MAX_TEXT_BYTES / 4).collect()
}
