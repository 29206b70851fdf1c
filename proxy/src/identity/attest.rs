//! An identity from the control plane: attested once with a join token,
//! renewed from half of its life on, kept in the state folder. An outage past
//! expiry does not orphan us: an expired SVID renews by proof of its key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use selvage_api::v1;
use selvage_certs::{JoinToken, KeyPair, SpiffeId, Svid, TrustBundle, TrustDomain};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::place::Place;
use super::renewal::Life;
use super::{Current, Identity};
use crate::state::{BUNDLE, CHAIN, KEY, StateDir};
use crate::stubs::identity_client::IdentityClient;

/// What the inbound side accepts, preferred first.
pub const INBOUND_ALPN: &[&[u8]] = &[b"h2", b"http/1.1", b"selvage-tcp"];

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between attempts double from the first to the last.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Between two looks at the clock while a renewal is waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Where the control plane is and who it must be.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// `host:port`.
    pub address: String,
    /// What that stands for.
    pub place: Place,
    /// The trust domain.
    pub trust_domain: TrustDomain,
}

/// Why there is no identity (yet).
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// Nothing to attest with.
    #[error(
        "no SVID in stateDir and no join token: make one with `selvage token create` and set controlPlane.token"
    )]
    NoToken,
    /// The control plane refused, or is not there.
    #[error("control plane {address}: {reason}")]
    Call {
        /// Where.
        address: String,
        /// What it said.
        reason: String,
        /// Trying again may help.
        transient: bool,
    },
    /// It answered with something that is no identity of ours.
    #[error("control plane answered with an unusable certificate: {0}")]
    Unusable(String),
    /// A key could not be made or used.
    #[error(transparent)]
    Key(#[from] selvage_certs::InvalidKey),
}

impl AttestError {
    /// Whether waiting may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Call {
                transient: true,
                ..
            }
        )
    }
}

/// A channel to the control plane over this TLS configuration. It connects on
/// first use and again after a loss.
#[must_use]
pub fn channel(control_plane: &ControlPlane, config: Arc<rustls::ClientConfig>) -> Channel {
    let place = control_plane.place.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (place, config) = (place.clone(), config.clone());
        async move {
            let stream = TcpStream::connect(&*place.addresses().await?).await?;
            stream.set_nodelay(true)?;
            // Whom we meet is judged by SPIFFE id; this name only fills SNI.
            let name = ServerName::try_from("control-plane.selvage-system")
                .map_err(std::io::Error::other)?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://control-plane.selvage-system")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// Doubling waits with jitter, as long as something fails.
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// Waits for the next attempt.
    pub async fn wait(&mut self) {
        let longest = BACKOFF[1].min(BACKOFF[0].saturating_mul(1 << self.0.min(8)));
        self.0 = self.0.saturating_add(1);
        tokio::time::sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }

    /// Something worked.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Waits until the renewal is due. In steps: while the machine is suspended timers stand still,
/// and leaves age.
async fn until_due(life: Life) {
    let chance = fastrand::f64();
    loop {
        let wait = life.renew_after(chance, SystemTime::now());
        if wait.is_zero() {
            return;
        }
        tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
    }
}

/// What the identity of one workload is made and kept with.
#[derive(Debug)]
pub struct Attestor {
    /// Where to.
    pub control_plane: ControlPlane,
    /// The join token, if one is configured.
    pub token: Option<JoinToken>,
    /// Who we must be.
    pub expected: SpiffeId,
    /// Where it is kept.
    pub state: StateDir,
}

impl Attestor {
    /// Obtains the first identity, from the state folder or by the token, and
    /// then renews it for as long as it is polled. Ends only before the first,
    /// with an error that waiting does not mend.
    pub async fn run(self, identity: Arc<Identity>) -> AttestError {
        let mut backoff = Backoff::default();
        let (mut svid, mut life) = loop {
            let obtained = match self.restore() {
                Some((svid, bundle)) => {
                    let life = Life::kept(svid.not_before(), svid.not_after());
                    self.take(&identity, svid, bundle).map(|svid| (svid, life))
                }
                None => self.take_new(&identity, self.attest().await),
            };
            match obtained {
                Ok(taken) => break taken,
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "no identity yet; trying again");
                    backoff.wait().await;
                }
                Err(error) => return error,
            }
        };
        loop {
            until_due(life).await;
            backoff.reset();
            (svid, life) = loop {
                // The bundle may have changed meanwhile.
                let current = identity.current();
                let bundle = current.as_ref().map(|current| &current.bundle);
                let renewed = match bundle {
                    Some(bundle) => self.renew(&svid, bundle).await,
                    None => self.attest().await,
                };
                match self.take_new(&identity, renewed) {
                    Ok(taken) => break taken,
                    Err(error) => {
                        tracing::warn!(%error, "renewal failed; trying again");
                        backoff.wait().await;
                    }
                }
            };
        }
    }

    /// Takes what was issued just now, whose life begins.
    fn take_new(
        &self,
        identity: &Identity,
        issued: Result<(Svid, TrustBundle), AttestError>,
    ) -> Result<(Svid, Life), AttestError> {
        let (svid, bundle) = issued?;
        let life = Life::issued(SystemTime::now(), svid.not_after());
        self.take(identity, svid, bundle).map(|svid| (svid, life))
    }

    /// Puts an identity to use, and keeps it for the next start.
    fn take(
        &self,
        identity: &Identity,
        svid: Svid,
        bundle: TrustBundle,
    ) -> Result<Svid, AttestError> {
        self.keep(&svid, &bundle);
        let current = Current::try_new(svid.clone(), bundle, INBOUND_ALPN)
            .map_err(|error| AttestError::Unusable(error.to_string()))?;
        identity.swap(current);
        Ok(svid)
    }

    /// What an earlier life left. Expired is no obstacle here: renewal proves the key.
    fn restore(&self) -> Option<(Svid, TrustBundle)> {
        let chain = self.state.read(CHAIN)?;
        let key = self.state.read(KEY)?;
        let roots = self.state.read(BUNDLE)?;
        let restored = Svid::from_pem(&chain, &key)
            .map_err(|error| error.to_string())
            .and_then(|svid| {
                let bundle =
                    TrustBundle::from_pem(self.control_plane.trust_domain.clone(), 0, &roots)
                        .map_err(|error| error.to_string())?;
                Ok((svid, bundle))
            });
        match restored {
            Ok((svid, _)) if *svid.id() != self.expected => {
                tracing::warn!(found = %svid.id(), "the SVID in stateDir is not ours; ignored");
                None
            }
            Ok(restored) => Some(restored),
            Err(error) => {
                tracing::warn!(error, "the SVID in stateDir is unusable; ignored");
                None
            }
        }
    }

    fn keep(&self, svid: &Svid, bundle: &TrustBundle) {
        let kept = svid
            .key()
            .to_pkcs8_pem()
            .map_err(|error| error.to_string())
            .and_then(|key| {
                self.state
                    .write(KEY, key.as_bytes())
                    .and_then(|()| self.state.write(CHAIN, svid.chain_pem().as_bytes()))
                    .and_then(|()| self.state.write(BUNDLE, bundle.to_pem().as_bytes()))
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = kept {
            tracing::warn!(error, "the SVID cannot be kept in stateDir");
        }
    }

    async fn attest(&self) -> Result<(Svid, TrustBundle), AttestError> {
        let token = self.token.as_ref().ok_or(AttestError::NoToken)?;
        let config = selvage_certs::bootstrap_client_config(
            token.root_fingerprint(),
            &self.control_plane.trust_domain,
        );
        let key = KeyPair::generate()?;
        let request = v1::AttestRequest {
            token: token.to_string(),
            csr: key.csr_der()?,
        };
        let mut client = IdentityClient::new(channel(&self.control_plane, config));
        let response = self.call(client.attest(request)).await?;
        self.accept(key, response)
    }

    async fn renew(
        &self,
        svid: &Svid,
        bundle: &TrustBundle,
    ) -> Result<(Svid, TrustBundle), AttestError> {
        let key = KeyPair::generate()?;
        let csr = key.csr_der()?;
        let expired = svid.not_after() <= SystemTime::now();
        let proof = if expired {
            let signature = svid.key().sign_renewal(&csr)?;
            let chain = svid
                .chain()
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect();
            Some(v1::ExpiredProof { chain, signature })
        } else {
            None
        };
        let presented = (!expired).then_some(svid);
        let config = selvage_certs::control_plane_client_config(bundle, presented)
            .map_err(|error| AttestError::Unusable(error.to_string()))?;
        let mut client = IdentityClient::new(channel(&self.control_plane, config));
        let request = v1::RenewRequest {
            csr,
            expired: proof,
        };
        let response = self.call(client.renew(request)).await?;
        self.accept(key, response)
    }

    async fn call(
        &self,
        call: impl Future<Output = Result<tonic::Response<v1::SvidResponse>, tonic::Status>>,
    ) -> Result<v1::SvidResponse, AttestError> {
        let address = &self.control_plane.address;
        let failed = |reason: String, transient| AttestError::Call {
            address: address.clone(),
            reason,
            transient,
        };
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Err(_) => Err(failed("no answer within 10 s".to_owned(), true)),
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                use tonic::Code;
                let transient = matches!(
                    status.code(),
                    Code::Unavailable
                        | Code::DeadlineExceeded
                        | Code::ResourceExhausted
                        | Code::Aborted
                        | Code::Unknown
                        | Code::Cancelled
                );
                // A foreign root is a refusal by us, and no waiting mends it.
                let reason = explain(&status);
                let transient = transient && !reason.contains("invalid peer certificate");
                Err(failed(reason, transient))
            }
        }
    }

    fn accept(
        &self,
        key: KeyPair,
        response: v1::SvidResponse,
    ) -> Result<(Svid, TrustBundle), AttestError> {
        let v1::SvidResponse {
            chain,
            trust_bundle,
        } = response;
        let unusable = AttestError::Unusable;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let svid = Svid::parse(chain, key).map_err(|error| unusable(error.to_string()))?;
        if *svid.id() != self.expected {
            return Err(unusable(format!(
                "it is for {}, not {}",
                svid.id(),
                self.expected
            )));
        }
        let bundle = trust_bundle.ok_or_else(|| unusable("no trust bundle with it".to_owned()))?;
        let bundle = bundle_of(&bundle).map_err(unusable)?;
        if *bundle.trust_domain() != self.control_plane.trust_domain {
            return Err(unusable(format!(
                "its trust domain is {}",
                bundle.trust_domain()
            )));
        }
        Ok((svid, bundle))
    }
}

/// A status with what lies under it: tonic keeps the transport's reason in the sources.
fn explain(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// The bundle of a message.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn bundle_of(message: &v1::TrustBundle) -> Result<TrustBundle, String> {
    let v1::TrustBundle {
        trust_domain,
        epoch,
        roots,
    } = message;
    let trust_domain = TrustDomain::parse(trust_domain).map_err(|error| error.to_string())?;
    let roots = roots.iter().map(|root| CertificateDer::from(root.clone()));
    TrustBundle::from_der(trust_domain, *epoch, roots).map_err(|error| error.to_string())
}
