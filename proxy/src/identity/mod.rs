//! Who this proxy is: the current SVID and trust bundle, ready as TLS
//! configurations. Sources fill it in (files here, the control plane in
//! [`attest`]); a swap drops no connection, new handshakes take the new one.

pub mod attest;
pub mod files;
pub mod place;
mod renewal;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use selvage_certs::{InvalidTls, MeshTls, SpiffeId, Svid, TrustBundle};
use tokio::sync::watch;

/// Client configurations kept per identity; beyond it the cache starts anew.
const CLIENT_CONFIGS: usize = 1024;

/// By expected identity and ALPN protocols.
type ClientConfigs = HashMap<(SpiffeId, Protocols), Arc<rustls::ClientConfig>>;

/// ALPN protocols, preferred first.
pub type Protocols = &'static [&'static [u8]];

/// One SVID with one bundle, as TLS configurations.
pub struct Current {
    /// Our own identity.
    pub id: SpiffeId,
    /// Whom we trust.
    pub bundle: TrustBundle,
    /// For the inbound side.
    pub server: Arc<rustls::ServerConfig>,
    /// The SVID itself, for renewal and for the control plane's connection.
    pub svid: Svid,
    mesh: MeshTls,
    clients: Mutex<ClientConfigs>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Current {
    /// Builds the configurations. `alpn`: what the inbound side accepts, preferred first.
    pub fn try_new(svid: Svid, bundle: TrustBundle, alpn: &[&[u8]]) -> Result<Self, InvalidTls> {
        let mesh = MeshTls::new(&svid, &bundle)?;
        Ok(Self {
            id: svid.id().clone(),
            server: mesh.server_config(alpn),
            bundle,
            svid,
            mesh,
            clients: Mutex::default(),
        })
    }

    /// The configuration to call `expected` with. One per identity, so that
    /// sessions of one are never resumed with another.
    #[must_use]
    pub fn client(&self, expected: &SpiffeId, alpn: Protocols) -> Arc<rustls::ClientConfig> {
        let mut clients = self.clients.lock();
        if let Some(config) = clients.get(&(expected.clone(), alpn)) {
            return config.clone();
        }
        if clients.len() >= CLIENT_CONFIGS {
            clients.clear();
        }
        let config = self.mesh.client_config(expected, alpn);
        clients.insert((expected.clone(), alpn), config.clone());
        config
    }

    /// When the leaf, its issuer and the last root expire.
    #[must_use]
    pub fn expiries(&self) -> [(&'static str, Option<SystemTime>); 3] {
        [
            ("leaf", Some(self.svid.not_after())),
            ("issuer", self.svid.issuer_not_after()),
            ("root", Some(self.bundle.not_after())),
        ]
    }
}

/// The identity of now, shared by all threads.
#[derive(Debug)]
pub struct Identity {
    current: ArcSwapOption<Current>,
    changed: watch::Sender<u64>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Identity {
    /// The identity of now, if there is one yet.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// Takes over a new SVID or bundle.
    pub fn swap(&self, current: Current) {
        tracing::info!(id = %current.id, fingerprints = ?current.bundle.fingerprints(), "identity");
        self.current.store(Some(Arc::new(current)));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Resolves at the next swap, and at once for one not seen yet.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
