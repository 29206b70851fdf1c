//! A control plane in this process, and the two who talk to it: a workload
//! with its keys, and an operator with a token.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use selvage_api::client::{Received, Session};
use selvage_api::v1::{
    AttestRequest, DeltaRequest, DeltaResponse, Hello, RegisterRequest, RegisteredPort, Rejection,
    Resource, ResourceName, SvidResponse,
};
use selvage_certs::{
    JoinToken, KeyPair, Svid, TrustBundle, TrustDomain, bootstrap_client_config,
    control_plane_client_config,
};
use selvage_control_plane::rpc::discovery_client::DiscoveryClient;
use selvage_control_plane::rpc::identity_client::IdentityClient;
use selvage_control_plane::rpc::registry_client::RegistryClient;
use selvage_control_plane::{Addresses, ControlPlane, ControlPlaneConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Plane {
    pub(crate) config: ControlPlaneConfig,
    pub(crate) addresses: Addresses,
    pub(crate) folder: Arc<tempfile::TempDir>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut ControlPlaneConfig)) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let mut config = ControlPlaneConfig::defaults().unwrap();
        config.data_dir = folder.path().join("data");
        config.grpc_address.set_port(0);
        config.http_address.set_port(0);
        change(&mut config);
        Self::begin(config, folder).await
    }

    async fn begin(config: ControlPlaneConfig, folder: Arc<tempfile::TempDir>) -> Self {
        let plane = ControlPlane::start(config.clone()).await.unwrap();
        let addresses = plane.addresses();
        let stop = CancellationToken::new();
        let task = tokio::spawn(plane.run(stop.clone().cancelled_owned()));
        Self {
            config,
            addresses,
            folder,
            stop,
            task,
        }
    }

    pub(crate) async fn stop(self) -> (ControlPlaneConfig, Arc<tempfile::TempDir>) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("it stops")
            .unwrap()
            .unwrap();
        (self.config, self.folder)
    }

    pub(crate) async fn restart(self) -> Self {
        let (config, folder) = self.stop().await;
        Self::begin(config, folder).await
    }

    pub(crate) fn trust_domain(&self) -> TrustDomain {
        self.config.trust_domain.clone()
    }

    /// A request of the operator, with the token.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let token = std::fs::read_to_string(self.config.data_dir.join("operator.token")).unwrap();
        let header = format!("Authorization: Bearer {}\r\n", token.trim());
        let (status, text) = self.raw(method, path, &header, body).await;
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// Any request, with these header lines.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addresses.http).await.unwrap();
        let host = if headers.contains("Host:") {
            ""
        } else {
            "Host: localhost\r\n"
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .expect("an answer")
            .unwrap();
        let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    pub(crate) async fn apply(&self, yaml: &str) -> Value {
        let (status, answer) = self.ask("POST", "/api/v1/apply", yaml).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(crate) async fn token(&self, request: Value) -> String {
        let (status, answer) = self
            .ask("POST", "/api/v1/tokens", &request.to_string())
            .await;
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A channel with this TLS configuration.
    pub(crate) async fn channel(
        &self,
        tls: Arc<ClientConfig>,
    ) -> Result<Channel, tonic::transport::Error> {
        let address = self.addresses.grpc;
        let connector = tower::service_fn(move |_| {
            let tls = tokio_rustls::TlsConnector::from(Arc::clone(&tls));
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from("control-plane").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        Endpoint::from_static("http://control-plane")
            .connect_with_connector(connector)
            .await
    }

    /// Spends a use of a token on a certificate for a new key.
    pub(crate) async fn attest(&self, token: &str) -> Result<(Svid, TrustBundle), tonic::Status> {
        let fingerprint = JoinToken::parse(token).unwrap().root_fingerprint();
        let tls = bootstrap_client_config(fingerprint, &self.trust_domain());
        let channel = self
            .channel(tls)
            .await
            .map_err(|error| tonic::Status::unavailable(format!("{error:?}")))?;
        let key = KeyPair::generate().unwrap();
        let request = AttestRequest {
            token: token.to_owned(),
            csr: key.csr_der().unwrap(),
        };
        let response = IdentityClient::new(channel)
            .attest(request)
            .await?
            .into_inner();
        Ok(svid(&self.trust_domain(), response, key))
    }

    /// A workload that may do what `NS/NAME` may.
    pub(crate) async fn enrol(&self, account: &str) -> Workload {
        let token = self.token(json!({ "workload": account })).await;
        let (svid, bundle) = self.attest(&token).await.unwrap();
        Workload::with(self, svid, bundle).await.unwrap()
    }
}

pub(crate) fn svid(
    domain: &TrustDomain,
    response: SvidResponse,
    key: KeyPair,
) -> (Svid, TrustBundle) {
    let chain = response
        .chain
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    let bundle = response.trust_bundle.unwrap();
    let roots = bundle.roots.into_iter().map(CertificateDer::from);
    let bundle = TrustBundle::from_der(domain.clone(), bundle.epoch, roots).unwrap();
    (Svid::parse(chain, key).unwrap(), bundle)
}

/// A workload that is connected with its certificate.
pub(crate) struct Workload {
    pub(crate) svid: Svid,
    pub(crate) bundle: TrustBundle,
    pub(crate) channel: Channel,
}

impl Workload {
    pub(crate) async fn with(
        plane: &Plane,
        svid: Svid,
        bundle: TrustBundle,
    ) -> Result<Self, tonic::transport::Error> {
        let tls = control_plane_client_config(&bundle, Some(&svid)).unwrap();
        let channel = plane.channel(tls).await?;
        Ok(Self {
            svid,
            bundle,
            channel,
        })
    }

    pub(crate) fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel.clone())
    }

    pub(crate) async fn register(
        &self,
        workload: &str,
        service: &str,
    ) -> Result<(), tonic::Status> {
        let request = registration(self.svid.id().namespace().unwrap(), workload, service);
        self.registry().register(request).await.map(drop)
    }

    pub(crate) async fn open(&self, session: &mut Session) -> Result<Stream, tonic::Status> {
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(session.open()).await.unwrap();
        let stream = DiscoveryClient::new(self.channel.clone())
            .delta(ReceiverStream::new(outgoing))
            .await?;
        Ok(Stream {
            requests,
            responses: stream.into_inner(),
        })
    }
}

pub(crate) fn registration(namespace: &str, workload: &str, service: &str) -> RegisterRequest {
    RegisterRequest {
        namespace: namespace.to_owned(),
        workload: workload.to_owned(),
        service: service.to_owned(),
        address: "127.0.0.1:21008".to_owned(),
        ports: vec![RegisteredPort {
            service_port: 80,
            protocol: 2,
            health: 1,
        }],
        weight: 1,
        telemetry: "127.0.0.1:21020".to_owned(),
        ..RegisterRequest::default()
    }
}

pub(crate) fn hello(namespace: &str, workload: &str, service: &str) -> Hello {
    Hello {
        namespace: namespace.to_owned(),
        workload: workload.to_owned(),
        service: service.to_owned(),
        version: "test".to_owned(),
        ..Hello::default()
    }
}

/// One open discovery stream.
pub(crate) struct Stream {
    pub(crate) requests: mpsc::Sender<DeltaRequest>,
    responses: Streaming<DeltaResponse>,
}

impl Stream {
    pub(crate) async fn send(&self, request: Option<DeltaRequest>) {
        if let Some(request) = request {
            self.requests.send(request).await.unwrap();
        }
    }

    pub(crate) async fn receive(&mut self) -> Result<DeltaResponse, tonic::Status> {
        let message = tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("a message");
        message.and_then(|message| message.ok_or_else(|| tonic::Status::cancelled("ended")))
    }

    /// Acknowledges the next push.
    pub(crate) async fn take(&mut self, session: &mut Session) {
        let response = self.receive().await.unwrap();
        assert!(matches!(session.on_response(response), Received::Push(_)));
        let ack = session.ack();
        self.send(ack).await;
    }

    /// Acknowledges pushes until the resource is as wanted.
    pub(crate) async fn until(
        &mut self,
        session: &mut Session,
        name: &ResourceName,
        mut wanted: impl FnMut(Option<&Resource>) -> bool,
    ) {
        while !wanted(session.resource(name)) {
            self.take(session).await;
        }
    }

    /// Refuses the next push.
    pub(crate) async fn refuse(
        &mut self,
        session: &mut Session,
        name: &ResourceName,
        reason: &str,
    ) {
        let response = self.receive().await.unwrap();
        session.on_response(response);
        let rejection = Rejection {
            name: Some(name.clone()),
            reason: reason.to_owned(),
        };
        let nack = session.nack(vec![rejection]);
        self.send(nack).await;
    }
}

/// Asks until the answer is as wanted; what is awaited happens by itself.
pub(crate) async fn eventually<T, F: Future<Output = T>>(
    mut ask: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let patience = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < patience,
            "it never came to that"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
