//! The control plane's stream: subscribes on first use, turns pushes into
//! Snapshots, answers ACK or NACK, and begins again wherever it breaks.
//! Nothing is dropped because a stream broke.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use selvage_api::client::{Received, Session};
use selvage_api::{name, v1};
use selvage_policy::snapshot::{ServiceName, Snapshot, WorkloadName};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Discovery, decode, warm};
use crate::identity::attest::{Backoff, ControlPlane, INBOUND_ALPN, bundle_of, channel};
use crate::identity::{Current, Identity};
use crate::lifecycle::{Condition, Lifecycle};
use crate::state::{BUNDLE, RESOURCES, StateDir};
use crate::stubs::discovery_client::DiscoveryClient;

/// Requests on their way to the server.
const OUTGOING: usize = 64;
/// The largest push that is read.
const MAX_PUSH_BYTES: usize = 64 * 1024 * 1024;
/// The last good resources are written at most this often.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// One proxy's subscription to its control plane.
pub struct Stream {
    /// Where to.
    pub control_plane: ControlPlane,
    /// Who asks.
    pub workload: WorkloadName,
    /// Labels of the workload.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The Gateway it serves.
    pub gateway: Option<ServiceName>,
    /// Where we are scraped, unless the registration says it.
    pub telemetry: Option<SocketAddr>,
    /// Where Snapshots go.
    pub discovery: Arc<Discovery>,
    /// Where bundles go, and who presents itself.
    pub identity: Arc<Identity>,
    /// Told of the first Snapshot.
    pub lifecycle: Arc<Lifecycle>,
    /// Where the last good resources lie.
    pub state: StateDir,
    /// Services used for the first time.
    pub wants: mpsc::Receiver<ServiceName>,
    /// Services known beforehand: those of `outbound.listeners`.
    pub beforehand: Vec<ServiceName>,
}

/// What changes while a stream goes.
struct Progress {
    session: Session,
    wanted: HashSet<ServiceName>,
    /// When the resources were last written to the state folder.
    kept: Option<tokio::time::Instant>,
    unkept: bool,
    decoded: decode::Known,
}

impl Stream {
    /// Runs for as long as it is polled.
    pub async fn run(mut self) {
        let mut progress = self.begin();
        let mut backoff = Backoff::default();
        let mut swapped = self.identity.watch();
        loop {
            let Some(current) = self.identity.current() else {
                // The identity outlives us; without it there is nobody to present.
                if swapped.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let result = self.one(&current, &mut progress, &mut backoff).await;
            self.discovery.set_connected(false);
            progress.session.close();
            if progress.unkept {
                self.keep(&mut progress);
            }
            if let Err(error) = result {
                tracing::warn!(
                    error,
                    address = self.control_plane.address,
                    "control plane stream"
                );
            }
            backoff.wait().await;
        }
    }

    fn begin(&self) -> Progress {
        let WorkloadName {
            namespace,
            name: workload,
            service,
        } = &self.workload;
        let mut session = Session::new(v1::Hello {
            namespace: namespace.to_string(),
            workload: workload.to_string(),
            service: service.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            known: Vec::new(),
            labels: self.labels.clone(),
            telemetry: self
                .telemetry
                .map(|address| address.to_string())
                .unwrap_or_default(),
        });
        let mut wanted: HashSet<ServiceName> = self.beforehand.iter().cloned().collect();
        if let Some(kept) = self.restore() {
            for resource in &kept.resources {
                if let Some(v1::resource::Body::Service(service)) = &resource.body {
                    wanted.insert(ServiceName::new(&service.namespace, &service.name));
                }
            }
            session.restore(kept.resources);
        }
        let own = [
            name::workload(namespace, workload),
            name::trust_bundle(self.control_plane.trust_domain.as_str()),
        ];
        let gateway = self.gateway.as_ref();
        let gateway = gateway.map(|it| name::gateway(&it.namespace, &it.name));
        let services = wanted
            .iter()
            .map(|service| name::service(&service.namespace, &service.name));
        if let Err(error) = session.subscribe(own.into_iter().chain(gateway).chain(services)) {
            tracing::error!(%error, "subscriptions");
        }
        let mut progress = Progress {
            session,
            wanted,
            kept: None,
            unkept: false,
            decoded: decode::Known::default(),
        };
        if progress.session.resources().next().is_some() {
            match self.snapshot(&mut progress, 0) {
                Ok(snapshot) => {
                    tracing::info!("starting from the resources in stateDir");
                    self.discovery.swap(snapshot, HashSet::new());
                    self.lifecycle.hold(Condition::Snapshot);
                }
                Err(rejections) => {
                    tracing::warn!(?rejections, "resources in stateDir are unusable")
                }
            }
        }
        progress
    }

    fn restore(&self) -> Option<v1::DeltaResponse> {
        let bytes = self.state.read(RESOURCES)?;
        match v1::DeltaResponse::decode(bytes.as_slice()) {
            Ok(kept) => Some(kept),
            Err(error) => {
                tracing::warn!(%error, "resources in stateDir are unreadable; ignored");
                None
            }
        }
    }

    /// One stream, until it breaks.
    async fn one(
        &mut self,
        current: &Current,
        progress: &mut Progress,
        backoff: &mut Backoff,
    ) -> Result<(), String> {
        let config =
            selvage_certs::control_plane_client_config(&current.bundle, Some(&current.svid))
                .map_err(|error| error.to_string())?;
        let mut client = DiscoveryClient::new(channel(&self.control_plane, config))
            .max_decoding_message_size(MAX_PUSH_BYTES);
        let (sender, receiver) = mpsc::channel(OUTGOING);
        let send = |request| {
            sender
                .try_send(request)
                .map_err(|_| "the server does not read our requests".to_owned())
        };
        send(progress.session.open())?;
        let mut responses = client
            .delta(ReceiverStream::new(receiver))
            .await
            .map_err(|status| status.message().to_owned())?
            .into_inner();
        self.discovery.set_connected(true);
        loop {
            let now = tokio::time::Instant::now();
            let keep_at = progress.kept.map_or(now, |kept| kept + KEEP_INTERVAL);
            tokio::select! {
                response = responses.message() => {
                    let response = response.map_err(|status| status.message().to_owned())?;
                    let Some(response) = response else { return Ok(()) };
                    backoff.reset();
                    let (answer, warmed) = self.on_response(progress, response);
                    for request in answer.into_iter().chain(warmed) {
                        send(request)?;
                    }
                }
                Some(service) = self.wants.recv() => {
                    if let Some(request) = self.on_want(progress, service) {
                        send(request)?;
                    }
                }
                () = tokio::time::sleep_until(keep_at), if progress.unkept => self.keep(progress),
            }
        }
    }

    fn on_want(&self, progress: &mut Progress, service: ServiceName) -> Option<v1::DeltaRequest> {
        let subscription = name::service(&service.namespace, &service.name);
        if progress.session.is_subscribed(&subscription) {
            // Asked again while the answer is on its way, or after it came.
            return None;
        }
        match progress.session.subscribe([subscription]) {
            Ok(request) => {
                progress.wanted.insert(service);
                request
            }
            Err(error) => {
                tracing::warn!(%service, %error, "no subscription");
                None
            }
        }
    }

    /// Takes a push: its answer, and subscriptions to what its routes lead to.
    fn on_response(
        &self,
        progress: &mut Progress,
        response: v1::DeltaResponse,
    ) -> (Option<v1::DeltaRequest>, Option<v1::DeltaRequest>) {
        let revision = response.revision;
        let ahead = match progress.session.on_response(response) {
            Received::Stale => return (None, None),
            Received::Refused(nack) => {
                tracing::error!(revision, answer = ?nack.answer, "push refused");
                return (Some(*nack), None);
            }
            Received::Push(push) => warm::ahead(&push.upserts),
        };
        let snapshot = match self.snapshot(progress, revision) {
            Ok(snapshot) => snapshot,
            Err(rejections) => {
                tracing::error!(
                    revision,
                    ?rejections,
                    "push refused; what was running goes on"
                );
                return (progress.session.nack(rejections), None);
            }
        };
        let Some(answer) = progress.session.ack() else {
            return (None, None);
        };
        self.take_bundle(progress);
        // Only the acknowledged session knows which of the wanted are absent.
        self.discovery.swap(snapshot, absent(progress));
        self.lifecycle.hold(Condition::Snapshot);
        progress.unkept = true;
        (Some(answer), warm(progress, ahead))
    }

    fn snapshot(
        &self,
        progress: &mut Progress,
        revision: u64,
    ) -> Result<Snapshot, Vec<v1::Rejection>> {
        let refuse = |reason: String| vec![v1::Rejection { name: None, reason }];
        let resources = progress.session.candidate();
        let known = &mut progress.decoded;
        let snapshot = decode::snapshot_beside(&self.workload, revision, resources, known)
            .map_err(|refused| {
                refused
                    .into_iter()
                    .map(|(name, error)| v1::Rejection {
                        name,
                        reason: error.to_string(),
                    })
                    .collect::<Vec<_>>()
            })?;
        let mesh = &snapshot.mesh.trust_domain;
        if *mesh != self.control_plane.trust_domain {
            return Err(refuse(format!(
                "the mesh's trust domain is {mesh}, this proxy's {}",
                self.control_plane.trust_domain
            )));
        }
        if let Some(bundle) = decode::trust_bundle(progress.session.candidate()) {
            bundle_of(bundle).map_err(refuse)?;
        }
        Ok(snapshot)
    }

    /// A bundle that differs from the one in use replaces it.
    fn take_bundle(&self, progress: &Progress) {
        let Some(bundle) = decode::trust_bundle(progress.session.resources()) else {
            return;
        };
        let Some(current) = self.identity.current() else {
            return;
        };
        let Ok(bundle) = bundle_of(bundle) else {
            return;
        };
        if bundle.fingerprints() == current.bundle.fingerprints() {
            return;
        }
        match Current::try_new(current.svid.clone(), bundle, INBOUND_ALPN) {
            Ok(current) => {
                // A restart must meet the control plane under the roots of now.
                let kept = self.state.write(BUNDLE, current.bundle.to_pem().as_bytes());
                if let Err(error) = kept {
                    tracing::warn!(%error, "the trust bundle cannot be kept in stateDir");
                }
                self.identity.swap(current);
            }
            Err(error) => tracing::error!(%error, "trust bundle"),
        }
    }

    fn keep(&self, progress: &mut Progress) {
        progress.kept = Some(tokio::time::Instant::now());
        progress.unkept = false;
        let kept = v1::DeltaResponse {
            revision: progress.session.revision().unwrap_or_default(),
            resources: progress.session.resources().cloned().collect(),
            ..v1::DeltaResponse::default()
        };
        if let Err(error) = self.state.write(RESOURCES, &kept.encode_to_vec()) {
            tracing::warn!(%error, "resources cannot be kept in stateDir");
        }
    }
}

/// Subscribes to services before their first use, as many as there is room
/// for: those beyond the cap are refused by name, and the others are not.
fn warm(
    progress: &mut Progress,
    ahead: impl IntoIterator<Item = ServiceName>,
) -> Option<v1::DeltaRequest> {
    let mut all: Option<v1::DeltaRequest> = None;
    for service in ahead {
        let subscription = name::service(&service.namespace, &service.name);
        match progress.session.subscribe([subscription]) {
            Ok(request) => {
                progress.wanted.insert(service);
                match (&mut all, request) {
                    (Some(all), Some(more)) => all.subscribe.extend(more.subscribe),
                    (None, request) => all = request,
                    (Some(_), None) => {}
                }
            }
            Err(error) => tracing::warn!(%service, %error, "not subscribed ahead of use"),
        }
    }
    all
}

/// The services asked for of which the server says that there are none.
fn absent(progress: &Progress) -> HashSet<ServiceName> {
    let is_absent = |service: &&ServiceName| {
        progress
            .session
            .is_absent(&name::service(&service.namespace, &service.name))
    };
    progress.wanted.iter().filter(is_absent).cloned().collect()
}

#[cfg(test)]
mod tests {
    use selvage_api::name::MAX_SUBSCRIPTIONS;

    use super::*;

    #[test]
    fn beyond_the_cap_only_what_has_no_room_is_left_out() {
        let mut progress = Progress {
            session: Session::new(v1::Hello::default()),
            wanted: HashSet::new(),
            kept: None,
            unkept: false,
            decoded: decode::Known::default(),
        };
        progress.session.open();
        let service = |number: usize| ServiceName::new("shop", &format!("s{number}"));
        let first = warm(&mut progress, (0..MAX_SUBSCRIPTIONS - 10).map(service));
        let first = first.map(|request| request.subscribe.len());
        assert_eq!(first, Some(MAX_SUBSCRIPTIONS - 10));
        let rest = warm(&mut progress, (0..MAX_SUBSCRIPTIONS + 10).map(service));
        let rest = rest.map(|request| request.subscribe.len());
        assert_eq!(rest, Some(10), "what is new, as far as there is room");
        assert_eq!(progress.wanted.len(), MAX_SUBSCRIPTIONS);
        assert!(warm(&mut progress, [service(MAX_SUBSCRIPTIONS)]).is_none());
    }
}
