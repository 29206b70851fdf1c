//! TLS configurations: between sidecars, and between a sidecar and the control plane.
//!
//! TLS 1.3 only; X25519MLKEM768 before the classical groups; AES-128-GCM before the other suites;
//! no early data in either direction. A configuration is a value made of one SVID and one bundle:
//! when either changes, make new ones. Connections that stand keep the old.
//!
//! Between sidecars sessions resume. rustls does not run a verifier on resumption and cannot bound a
//! ticket's life for one configuration, so servers keep sessions in a bounded memory cache that ends
//! with the configuration, and both sides must call [`crate::recheck`] on a handshake whose kind is
//! `Resumed`. Towards the control plane nothing resumes, so every handshake is verified in full.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::bundle::TrustBundle;
use crate::chain;
use crate::id::{SpiffeId, TrustDomain};
use crate::key::InvalidKey;
use crate::svid::Svid;
use crate::verifier::{ClientOfTrustDomain, ControlPlaneUnderRoot, ServerIs};

/// ALPN of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN of HTTP/1.1.
pub const ALPN_HTTP11: &[u8] = b"http/1.1";
/// ALPN of opaque bytes between two sidecars.
pub const ALPN_TCP: &[u8] = b"selvage-tcp";

/// Most sessions a server keeps for resumption.
pub const SERVER_SESSIONS: usize = 256;
/// Most sessions a client keeps for one identity. rustls keeps up to eight for each server name, so
/// this is four service ports of the identity.
pub const CLIENT_SESSIONS: usize = 32;

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTls {
    /// The SVID and the bundle belong to different trust domains.
    #[error("`{0}` is not of the trust domain `{1}` of the trust bundle")]
    ForeignTrustDomain(SpiffeId, TrustDomain),
    /// The SVID stands under none of the bundle's roots.
    #[error("the certificate of `{0}` leads to no root of the trust bundle")]
    NoRoot(SpiffeId),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] InvalidKey),
}

/// One side's identity and trust, from which the configurations between sidecars are made.
#[derive(Debug, Clone)]
pub struct MeshTls {
    id: SpiffeId,
    own: Arc<SingleCertAndKey>,
    bundle: Arc<TrustBundle>,
    provider: Arc<CryptoProvider>,
}

impl MeshTls {
    /// From an SVID and the bundle of its trust domain.
    pub fn new(svid: &Svid, bundle: &TrustBundle) -> Result<Self, InvalidTls> {
        check_trust_domain(svid, bundle)?;
        Ok(Self {
            id: svid.id().clone(),
            own: own_certificate(svid, svid.chain().to_vec())?,
            bundle: Arc::new(bundle.clone()),
            provider: provider(),
        })
    }

    /// Whose configurations these are.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Against which peers are verified, also by [`crate::recheck`].
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// For an inbound: demands an SVID of the trust domain from every client. `alpn` in order of
    /// preference.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let verifier = ClientOfTrustDomain {
            bundle: Arc::clone(&self.bundle),
            mandatory: true,
        };
        let mut config = server(&self.provider, verifier, Arc::clone(&self.own), alpn);
        config.session_storage = ServerSessionMemoryCache::new(SERVER_SESSIONS);
        Arc::new(config)
    }

    /// For connections to one identity, with a session store of its own: keep it for as long as
    /// this identity is called.
    pub fn client_config(&self, expected: &SpiffeId, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let verifier = ServerIs {
            expected: expected.clone(),
            bundle: Arc::clone(&self.bundle),
        };
        let mut config = client(&self.provider, verifier, Some(Arc::clone(&self.own)), alpn);
        config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
        Arc::new(config)
    }
}

/// For the control plane's gRPC port: a client may come without a certificate (to attest), but one
/// it presents must verify. The chain sent ends with its root, for clients that know only that
/// root's fingerprint.
pub fn control_plane_server_config(
    svid: &Svid,
    bundle: &TrustBundle,
) -> Result<Arc<ServerConfig>, InvalidTls> {
    check_trust_domain(svid, bundle)?;
    let mut chain = svid.chain().to_vec();
    chain.push(root_of(svid, bundle)?);
    let verifier = ClientOfTrustDomain {
        bundle: Arc::new(bundle.clone()),
        mandatory: false,
    };
    let own = own_certificate(svid, chain)?;
    let mut config = server(&provider(), verifier, own, &[ALPN_H2]);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For a proxy's connection to the control plane, whose identity it demands. Any server name will do.
pub fn control_plane_client_config(
    bundle: &TrustBundle,
    svid: Option<&Svid>,
) -> Result<Arc<ClientConfig>, InvalidTls> {
    let own = match svid {
        Some(svid) => {
            check_trust_domain(svid, bundle)?;
            Some(own_certificate(svid, svid.chain().to_vec())?)
        }
        None => None,
    };
    let expected = SpiffeId::of_control_plane(bundle.trust_domain());
    let verifier = ServerIs {
        expected,
        bundle: Arc::new(bundle.clone()),
    };
    Ok(Arc::new(client(&provider(), verifier, own, &[ALPN_H2])))
}

/// For the first connection of a workload that holds nothing but a join token: the root the server
/// sends must have this SHA-256, and the control plane's identity must stand under it.
pub fn bootstrap_client_config(
    fingerprint: [u8; 32],
    trust_domain: &TrustDomain,
) -> Arc<ClientConfig> {
    let verifier = ControlPlaneUnderRoot {
        fingerprint,
        trust_domain: trust_domain.clone(),
    };
    Arc::new(client(&provider(), verifier, None, &[ALPN_H2]))
}

fn server(
    provider: &Arc<CryptoProvider>,
    verifier: ClientOfTrustDomain,
    own: Arc<SingleCertAndKey>,
    alpn: &[&[u8]],
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites and groups")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(own);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config
}

/// Without resumption, unless the caller adds it.
fn client(
    provider: &Arc<CryptoProvider>,
    verifier: impl rustls::client::danger::ServerCertVerifier + 'static,
    own: Option<Arc<SingleCertAndKey>>,
    alpn: &[&[u8]],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites and groups")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..default_provider()
    })
}

fn own_certificate(
    svid: &Svid,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Arc<SingleCertAndKey>, InvalidKey> {
    let certified = CertifiedKey::new(chain, svid.key().to_rustls()?);
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn check_trust_domain(svid: &Svid, bundle: &TrustBundle) -> Result<(), InvalidTls> {
    let trust_domain = bundle.trust_domain();
    if svid.id().is_in(trust_domain) {
        return Ok(());
    }
    Err(InvalidTls::ForeignTrustDomain(
        svid.id().clone(),
        trust_domain.clone(),
    ))
}

/// The root a chain stands under, judged at the first second of its leaf: whether it is still alive
/// is for the clients to say.
fn root_of(svid: &Svid, bundle: &TrustBundle) -> Result<CertificateDer<'static>, InvalidTls> {
    let stands_under = |root: &TrustBundle| {
        chain::recheck(svid.chain(), Some(svid.id()), root, svid.not_before()).is_ok()
    };
    let root = bundle.singles().find(stands_under);
    let root = root.and_then(|bundle| bundle.roots().next().cloned());
    root.ok_or_else(|| InvalidTls::NoRoot(svid.id().clone()))
}
