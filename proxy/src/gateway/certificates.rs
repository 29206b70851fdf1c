//! The certificates of a gateway's listeners, as TLS configurations: from the
//! Snapshot, from files, or the proxy's own. A configuration whose certificates
//! did not change is kept, and with it the sessions that resume by it; where
//! new ones cannot be used the old stay.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use selvage_certs::{InvalidPresented, Presented, presenting_server_config};
use selvage_policy::route::{Certificate, Gateway, Hostname, Listener, ListenerProtocol};

use crate::identity::{Current, Protocols};
use crate::tls::{ALPN_H2, ALPN_HTTP1};

/// More is no certificate.
const MAX_BYTES: u64 = 1024 * 1024;

/// What stands for a listener, whatever its name.
type Place = (u16, Option<Hostname>);

/// What a certificate is made of, to see a change by: chain and key.
type Material = (Arc<[u8]>, Arc<[u8]>);

/// The certificates of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateShown {
    /// The listener.
    pub listener: Arc<str>,
    /// When the first of those in use ends; `None` where there is none.
    pub expires: Option<SystemTime>,
    /// What is wrong with those that are wanted.
    pub error: Option<String>,
}

/// One listener's certificates in use.
#[derive(Default)]
struct Entry {
    made_of: Vec<Material>,
    /// What it negotiates.
    alpn: Protocols,
    config: Option<Arc<ServerConfig>>,
    shown: Option<CertificateShown>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Certificates {
    configs: ArcSwap<HashMap<Place, Arc<ServerConfig>>>,
    entries: Mutex<HashMap<Place, Entry>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// Why a certificate of a listener is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot read {0}: {1}")]
    Unreadable(String, std::io::Error),
    #[error("{0} is longer than 1 MiB")]
    TooLong(String),
    #[error("there is no identity of this proxy's own yet")]
    NoIdentity,
    #[error(transparent)]
    Invalid(#[from] InvalidPresented),
}

impl Certificates {
    /// The configuration of a listener.
    pub(super) fn of(&self, listener: &Listener) -> Option<Arc<ServerConfig>> {
        self.configs.load().get(&place(listener)).cloned()
    }

    pub(super) fn shown(&self) -> Vec<CertificateShown> {
        let entries = self.entries.lock();
        let mut all: Vec<_> = entries.values().filter_map(|it| it.shown.clone()).collect();
        all.sort_by(|one, other| one.listener.cmp(&other.listener));
        all
    }

    /// Takes over what listeners want now. `folder`: what relative paths start at.
    pub(super) fn refresh(&self, wanted: &Gateway, current: Option<&Current>, folder: &Path) {
        let mut entries = self.entries.lock();
        let mut old = std::mem::take(&mut *entries);
        let mut changed = false;
        for listener in &wanted.listeners {
            let Some(alpn) = protocols(listener.protocol) else {
                continue;
            };
            let place = place(listener);
            let mut entry = old.remove(&place).unwrap_or_default();
            changed |= entry.take_over(listener, alpn, current, folder);
            entries.insert(place, entry);
        }
        if changed || !old.is_empty() {
            let configs = entries
                .iter()
                .filter_map(|(place, entry)| Some((place.clone(), entry.config.clone()?)));
            self.configs.store(Arc::new(configs.collect()));
        }
    }
}

impl Entry {
    /// Makes a new configuration where certificates changed; whether it did.
    fn take_over(
        &mut self,
        listener: &Listener,
        alpn: Protocols,
        current: Option<&Current>,
        folder: &Path,
    ) -> bool {
        let (mut made_of, mut presented, mut error) = (Vec::new(), Vec::new(), None);
        let mut own = None;
        for certificate in &listener.certificates {
            match material(certificate, current, folder) {
                Ok(material) => {
                    if matches!(certificate, Certificate::Mesh) {
                        own = Some(made_of.len());
                    }
                    made_of.push(material);
                }
                Err(unusable) => error = Some(unusable),
            }
        }
        if error.is_none() && made_of == self.made_of && alpn == self.alpn && self.config.is_some()
        {
            self.show(listener, None, None);
            return false;
        }
        for (index, (chain, key)) in made_of.iter().enumerate() {
            let made = match current {
                Some(current) if own == Some(index) => Presented::of_svid(&current.svid),
                _ => Presented::from_pem(chain, key),
            };
            match made {
                Ok(made) => presented.push(made),
                Err(invalid) => error = Some(invalid.into()),
            }
        }
        // Half of a rotation may be written: it is looked at again.
        let keeps = presented.is_empty() || (error.is_some() && self.config.is_some());
        let expires = presented.iter().map(Presented::not_after).min();
        self.show(listener, expires.filter(|_| !keeps), error);
        if keeps {
            return false;
        }
        tracing::info!(listener = &*listener.name, "certificates of a listener");
        self.config = Some(presenting_server_config(presented, alpn));
        self.made_of = made_of;
        self.alpn = alpn;
        true
    }

    /// `expires` where that changed.
    fn show(&mut self, listener: &Listener, expires: Option<SystemTime>, error: Option<Unusable>) {
        let error = error.map(|error| error.to_string());
        let before = self.shown.take();
        if let Some(error) = &error
            && before.as_ref().and_then(|before| before.error.as_ref()) != Some(error)
        {
            let kept = self.config.is_some();
            tracing::error!(
                listener = &*listener.name,
                error,
                kept,
                "certificate refused"
            );
        }
        self.shown = Some(CertificateShown {
            listener: listener.name.clone(),
            expires: expires.or(before.and_then(|before| before.expires)),
            error,
        });
    }
}

fn place(listener: &Listener) -> Place {
    (listener.port, listener.hostname.clone())
}

/// What is negotiated within; `None` where TLS does not end here.
const fn protocols(protocol: ListenerProtocol) -> Option<Protocols> {
    match protocol {
        ListenerProtocol::Https => Some(&[ALPN_H2, ALPN_HTTP1]),
        ListenerProtocol::Tls => Some(&[]),
        ListenerProtocol::Http | ListenerProtocol::Passthrough | ListenerProtocol::Tcp => None,
    }
}

fn material(
    certificate: &Certificate,
    current: Option<&Current>,
    folder: &Path,
) -> Result<Material, Unusable> {
    match certificate {
        Certificate::Pair { chain, key } => Ok((chain.clone(), key.clone())),
        Certificate::Files { certificate, key } => {
            Ok((read(folder, certificate)?, read(folder, key)?))
        }
        Certificate::Mesh => {
            let current = current.ok_or(Unusable::NoIdentity)?;
            // The key belongs to the chain, and is not copied.
            Ok((current.svid.chain_pem().into_bytes().into(), Arc::default()))
        }
    }
}

fn read(folder: &Path, path: &str) -> Result<Arc<[u8]>, Unusable> {
    let unreadable = |error| Unusable::Unreadable(path.to_owned(), error);
    let place = folder.join(path);
    let length = std::fs::metadata(&place).map_err(unreadable)?.len();
    if length > MAX_BYTES {
        return Err(Unusable::TooLong(path.to_owned()));
    }
    let unreadable = |error| Unusable::Unreadable(path.to_owned(), error);
    Ok(std::fs::read(&place).map_err(unreadable)?.into())
}
