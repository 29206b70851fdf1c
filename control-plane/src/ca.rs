//! The certificate authority: root and intermediate in the data folder, the
//! control plane's own certificate, and the signing of workloads' CSRs. Every
//! certificate is recorded before anybody gets it. Knows nothing of gRPC.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use selvage_api::v1;
use selvage_certs::{
    Csr, IntermediateCa, IssuedSvid, RootCa, SpiffeId, TrustBundle, TrustDomain,
    control_plane_server_config,
};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::CaConfig;
use crate::files;
use crate::metrics::Metrics;
use crate::store::{Certificate, Store, StoreError};

/// The longest sleep between two looks at the certificates: a machine that
/// was suspended notices soon after it wakes.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The shortest: a certificate that cannot be renewed is not retried in a loop.
const SHORTEST_SLEEP: Duration = Duration::from_millis(250);
const INTERMEDIATE_FILE: &str = "intermediate.pem";
/// A root this close to its end is warned of.
const ROOT_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);

/// Root, intermediate, and what is derived from them.
pub(crate) struct Authority {
    root: RootCa,
    bundle: TrustBundle,
    intermediate: ArcSwap<Renewed<IntermediateCa>>,
    /// For the gRPC port, with the control plane's own certificate.
    server: ArcSwap<Renewed<Arc<ServerConfig>>>,
    folder: PathBuf,
    config: CaConfig,
    store: Store,
    metrics: Arc<Metrics>,
}

/// Something to be replaced at half of its life.
struct Renewed<T> {
    value: T,
    due: SystemTime,
}

impl<T> Renewed<T> {
    fn halfway(value: T, now: SystemTime, not_after: SystemTime) -> Self {
        let left = not_after.duration_since(now).unwrap_or_default();
        Self {
            value,
            due: now + left / 2,
        }
    }
}

impl Authority {
    /// Loads the authority from the data folder, or creates it there.
    ///
    /// # Errors
    /// A file cannot be read, belongs to another trust domain, or has expired.
    pub(crate) async fn open(
        data_dir: &Path,
        trust_domain: &TrustDomain,
        config: CaConfig,
        store: Store,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        let folder = data_dir.join("ca");
        files::private_folder(&folder)
            .with_context(|| format!("cannot use {}", folder.display()))?;
        let root = load_root(&folder.join("root.pem"), trust_domain, config.root_ttl, now)?;
        let roots = [root.certificate().clone()];
        let bundle = TrustBundle::from_der(trust_domain.clone(), 1, roots)?;
        let kept = kept_intermediate(&folder.join(INTERMEDIATE_FILE))?;
        let recorder = Recorder {
            store: &store,
            metrics: &metrics,
        };
        let intermediate = match kept.filter(|kept| kept.not_after() > now) {
            // By its end, not by what is left: restarts must not put it off.
            Some(kept) => {
                let due = kept.not_after() - config.intermediate_ttl / 2;
                Renewed { value: kept, due }
            }
            None => new_intermediate(&root, &folder, &config, &recorder, now).await?,
        };
        let server = new_server(&intermediate.value, &bundle, &config, &recorder, now).await?;
        Ok(Self {
            root,
            bundle,
            intermediate: ArcSwap::from_pointee(intermediate),
            server: ArcSwap::from_pointee(server),
            folder,
            config,
            store,
            metrics,
        })
    }

    /// The roots every workload of the mesh trusts.
    pub(crate) fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// The trust bundle as it is distributed.
    pub(crate) fn bundle_message(&self) -> v1::TrustBundle {
        v1::TrustBundle {
            trust_domain: self.bundle.trust_domain().as_str().to_owned(),
            epoch: self.bundle.epoch(),
            roots: self.bundle.roots().map(|root| root.to_vec()).collect(),
        }
    }

    /// SHA-256 of the root, as join tokens carry it.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        self.root.fingerprint()
    }

    /// Last second of the root's and of the intermediate's life.
    pub(crate) fn ends(&self) -> (SystemTime, SystemTime) {
        (
            self.root.not_after(),
            self.intermediate.load().value.not_after(),
        )
    }

    /// The TLS configuration of the gRPC port, as of now.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server.load().value)
    }

    /// How long after its end a certificate may still be renewed.
    pub(crate) fn renew_grace(&self) -> Duration {
        self.config.renew_grace
    }

    /// Signs a first certificate: spends one use of the token whose secret has
    /// this hash. The identity is the token's.
    ///
    /// # Errors
    /// The token is not valid, or signing or recording fails; it is then not spent.
    pub(crate) async fn attest(
        &self,
        token_hash: [u8; 32],
        csr: Csr,
    ) -> Result<IssuedSvid, StoreError> {
        let intermediate = self.intermediate.load_full();
        let ttl = self.config.leaf_ttl;
        let issued = self
            .store
            .call(move |db| {
                let now = SystemTime::now();
                db.redeem(token_hash, seconds(now), |token| {
                    let id = SpiffeId::parse(&token.identity).map_err(signing)?;
                    let issued = intermediate
                        .value
                        .issue_svid(csr.public_key(), &id, ttl, now)
                        .map_err(signing)?;
                    let record = record(&issued.chain[0], id.as_str(), issued.not_after, "attest");
                    Ok((issued, record?))
                })
            })
            .await?;
        self.metrics
            .certificates_issued
            .with_label_values(&["attest"])
            .inc();
        Ok(issued)
    }

    /// Signs the next certificate of an identity that has proved itself.
    ///
    /// # Errors
    /// Signing or recording fails.
    pub(crate) async fn renew(&self, id: &SpiffeId, csr: &Csr) -> Result<IssuedSvid, StoreError> {
        let now = SystemTime::now();
        let intermediate = self.intermediate.load_full();
        let issued = intermediate
            .value
            .issue_svid(csr.public_key(), id, self.config.leaf_ttl, now)
            .map_err(signing)?;
        let recorder = Recorder {
            store: &self.store,
            metrics: &self.metrics,
        };
        recorder
            .record(&issued.chain[0], id.as_str(), issued.not_after, "renew")
            .await?;
        Ok(issued)
    }

    /// Replaces the intermediate and the control plane's own certificate at
    /// half of their lives, until told to stop.
    pub(crate) async fn maintain(&self, stop: CancellationToken) {
        loop {
            let now = SystemTime::now();
            if self.root.not_after() < now + ROOT_WARNING {
                tracing::warn!(
                    "the root certificate ends within 30 days; replacing it is not supported yet"
                );
            }
            if let Err(error) = self.renew_due(now).await {
                tracing::error!(%error, "own certificates are not renewed; trying again");
            }
            let due = self.intermediate.load().due.min(self.server.load().due);
            let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn renew_due(&self, now: SystemTime) -> anyhow::Result<()> {
        let recorder = Recorder {
            store: &self.store,
            metrics: &self.metrics,
        };
        if self.intermediate.load().due <= now {
            let next =
                new_intermediate(&self.root, &self.folder, &self.config, &recorder, now).await?;
            self.intermediate.store(Arc::new(next));
            tracing::info!("the intermediate certificate is replaced");
        }
        if self.server.load().due <= now {
            let intermediate = self.intermediate.load_full();
            let next = new_server(
                &intermediate.value,
                &self.bundle,
                &self.config,
                &recorder,
                now,
            )
            .await?;
            self.server.store(Arc::new(next));
            tracing::debug!("the control plane's own certificate is replaced");
        }
        Ok(())
    }
}

/// Reads the root, or makes one at the first start.
fn load_root(
    file: &Path,
    trust_domain: &TrustDomain,
    ttl: Duration,
    now: SystemTime,
) -> anyhow::Result<RootCa> {
    let shown = file.display();
    let root = match files::read_if_there(file)? {
        Some(text) => RootCa::from_pem(text.as_bytes())
            .with_context(|| format!("{shown} is not a root as it was written"))?,
        None => {
            let root = RootCa::generate(trust_domain, ttl, now)?;
            files::write_private(file, root.to_pem()?.as_bytes())?;
            root
        }
    };
    if root.trust_domain() != trust_domain {
        bail!(
            "{shown} is the root of trust domain {}, and trustDomain is {trust_domain}: \
             use another dataDir or the same trust domain",
            root.trust_domain(),
        );
    }
    if root.not_after() <= now {
        bail!("{shown} has expired; replacing a root is not supported yet");
    }
    Ok(root)
}

fn kept_intermediate(file: &Path) -> anyhow::Result<Option<IntermediateCa>> {
    let Some(text) = files::read_if_there(file)? else {
        return Ok(None);
    };
    let kept = IntermediateCa::from_pem(text.as_bytes()).with_context(|| {
        format!(
            "{} is not an intermediate as it was written",
            file.display()
        )
    })?;
    Ok(Some(kept))
}

async fn new_intermediate(
    root: &RootCa,
    folder: &Path,
    config: &CaConfig,
    recorder: &Recorder<'_>,
    now: SystemTime,
) -> anyhow::Result<Renewed<IntermediateCa>> {
    let next = root.issue_intermediate(config.intermediate_ttl, now)?;
    let domain = root.trust_domain().as_str();
    recorder
        .record(next.certificate(), domain, next.not_after(), "intermediate")
        .await?;
    files::write_private(&folder.join(INTERMEDIATE_FILE), next.to_pem()?.as_bytes())?;
    let not_after = next.not_after();
    Ok(Renewed::halfway(next, now, not_after))
}

async fn new_server(
    intermediate: &IntermediateCa,
    bundle: &TrustBundle,
    config: &CaConfig,
    recorder: &Recorder<'_>,
    now: SystemTime,
) -> anyhow::Result<Renewed<Arc<ServerConfig>>> {
    let svid = intermediate.issue_control_plane_svid(config.leaf_ttl, now)?;
    let id = svid.id().as_str();
    recorder
        .record(&svid.chain()[0], id, svid.not_after(), "control-plane")
        .await?;
    let server = control_plane_server_config(&svid, bundle)?;
    Ok(Renewed::halfway(server, now, svid.not_after()))
}

/// Writes certificates down and counts them.
struct Recorder<'a> {
    store: &'a Store,
    metrics: &'a Metrics,
}

impl Recorder<'_> {
    async fn record(
        &self,
        certificate: &CertificateDer<'_>,
        identity: &str,
        not_after: SystemTime,
        kind: &'static str,
    ) -> Result<(), StoreError> {
        let record = record(certificate, identity, not_after, kind)?;
        let now = seconds(SystemTime::now());
        self.store
            .call(move |db| db.put_certificate(&record, now))
            .await?;
        self.metrics
            .certificates_issued
            .with_label_values(&[kind])
            .inc();
        Ok(())
    }
}

fn record(
    certificate: &CertificateDer<'_>,
    identity: &str,
    not_after: SystemTime,
    kind: &str,
) -> Result<Certificate, StoreError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(signing)?;
    Ok(Certificate {
        serial: parsed.raw_serial_as_string(),
        identity: identity.to_owned(),
        not_after: seconds(not_after),
        kind: kind.to_owned(),
    })
}

fn signing(error: impl std::fmt::Display) -> StoreError {
    StoreError::Signing(error.to_string())
}

/// Seconds since the epoch; 0 before it.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests;
