//! The certificates of a gateway's listeners, as TLS configurations: from the
//! Snapshot, from files, or the proxy's own. A configuration whose certificates
//! did not change is kept, and with it the sessions that resume by it; where
//! a new one cannot be used the old one of its place stays.

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
    /// What is wrong with the first of those wanted that cannot be used.
    pub error: Option<String>,
    /// Each that is wanted, in its order.
    pub certificates: Vec<OneShown>,
}

/// One certificate that a listener wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneShown {
    /// The path of its file, `mesh`, or `secret-N` counted over the listener's certificates.
    pub name: String,
    /// When what is in use in its place ends.
    pub expires: Option<SystemTime>,
    /// What is wrong with it; what stood in its place before stays in use.
    pub error: Option<String>,
}

/// The place of one certificate among those of a listener.
#[derive(Debug)]
struct Slot {
    name: String,
    /// What is in use.
    used: Option<(Material, Presented)>,
    error: Option<String>,
}

/// One listener's certificates in use.
#[derive(Default)]
struct Entry {
    slots: Vec<Slot>,
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
        let wanted = listener.certificates.iter().enumerate();
        let slots: Vec<Slot> = wanted
            .map(|(index, certificate)| self.slot(index, certificate, current, folder))
            .collect();
        let presented: Vec<Presented> = used(&slots).map(|(_, it)| it.clone()).collect();
        // Where none can be used, those of before are better than nothing.
        let keeps = presented.is_empty();
        let is_same = used(&slots)
            .map(|(material, _)| material)
            .eq(used(&self.slots).map(|(material, _)| material));
        self.show(listener, &slots);
        if keeps {
            return false;
        }
        self.slots = slots;
        if is_same && alpn == self.alpn && self.config.is_some() {
            return false;
        }
        tracing::info!(listener = &*listener.name, "certificates of a listener");
        self.config = Some(presenting_server_config(presented, alpn));
        self.alpn = alpn;
        true
    }

    /// What a certificate's place holds now: the certificate, or what was there
    /// before if it cannot be used. Half of a rotation may be written: it is
    /// looked at again.
    fn slot(
        &self,
        index: usize,
        certificate: &Certificate,
        current: Option<&Current>,
        folder: &Path,
    ) -> Slot {
        let name = name(index, certificate);
        let before = self.slots.iter().find(|it| it.name == name);
        let before = before.and_then(|it| it.used.as_ref());
        let made = material(certificate, current, folder).and_then(|material| {
            if let Some((known, presented)) = before
                && *known == material
            {
                return Ok((material, presented.clone()));
            }
            let presented = match (certificate, current) {
                (Certificate::Mesh, Some(current)) => Presented::of_svid(&current.svid)?,
                _ => Presented::from_pem(&material.0, &material.1)?,
            };
            Ok((material, presented))
        });
        let (used, error) = match made {
            Ok(made) => (Some(made), None),
            Err(unusable) => (before.cloned(), Some(unusable.to_string())),
        };
        Slot { name, used, error }
    }

    /// Remembers what is shown, and logs what newly went wrong.
    fn show(&mut self, listener: &Listener, slots: &[Slot]) {
        let before = self.shown.take();
        for slot in slots {
            let Some(error) = &slot.error else { continue };
            let known = before.iter().flat_map(|before| &before.certificates);
            let mut known = known.filter(|it| it.name == slot.name);
            if !known.any(|it| it.error.as_ref() == Some(error)) {
                let kept = slot.used.is_some();
                tracing::error!(
                    listener = &*listener.name,
                    certificate = slot.name,
                    error,
                    kept,
                    "certificate refused"
                );
            }
        }
        let ends = |slot: &Slot| slot.used.as_ref().map(|(_, it)| it.not_after());
        let certificates = slots.iter().map(|slot| OneShown {
            name: slot.name.clone(),
            expires: ends(slot),
            error: slot.error.clone(),
        });
        let in_use = slots.iter().filter_map(ends).min();
        self.shown = Some(CertificateShown {
            listener: listener.name.clone(),
            expires: in_use.or(before.as_ref().and_then(|before| before.expires)),
            error: slots.iter().find_map(|slot| slot.error.clone()),
            certificates: certificates.collect(),
        });
    }
}

fn used(slots: &[Slot]) -> impl Iterator<Item = &(Material, Presented)> {
    slots.iter().filter_map(|slot| slot.used.as_ref())
}

/// What a certificate is called: by where it comes from, so that others may
/// come and go around it. Those of Secrets come without a name.
fn name(index: usize, certificate: &Certificate) -> String {
    match certificate {
        Certificate::Pair { .. } => format!("secret-{}", index + 1),
        Certificate::Files { certificate, .. } => certificate.to_string(),
        Certificate::Mesh => "mesh".to_owned(),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};
    use selvage_policy::route::RouteTable;

    use super::*;

    fn pair(host: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("names");
        let leaf = params.self_signed(&key).expect("signed");
        (leaf.pem(), key.serialize_pem())
    }

    fn files(name: &str) -> Certificate {
        Certificate::Files {
            certificate: format!("{name}.pem").into(),
            key: format!("{name}.key").into(),
        }
    }

    fn write(folder: &Path, name: &str, (chain, key): &(String, String)) {
        fs::write(folder.join(format!("{name}.pem")), chain).expect("written");
        fs::write(folder.join(format!("{name}.key")), key).expect("written");
    }

    #[test]
    fn a_broken_certificate_stays_as_it_was_and_the_others_are_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let [a, b, next] = ["a", "b", "a"].map(pair);
        write(folder, "a", &a);
        write(folder, "b", &b);
        let listener = Listener {
            name: "tls".into(),
            port: 443,
            protocol: ListenerProtocol::Https,
            hostname: None,
            certificates: vec![files("a"), files("b")],
            routes: Arc::new(RouteTable::new(&[])),
            streams: Vec::new(),
        };
        let mut entry = Entry::default();
        let alpn = protocols(ListenerProtocol::Https).expect("TLS ends there");
        assert!(entry.take_over(&listener, alpn, None, folder));
        assert!(
            !entry.take_over(&listener, alpn, None, folder),
            "nothing changed"
        );
        // One is replaced while the other breaks.
        write(folder, "a", &next);
        fs::write(folder.join("b.pem"), "no certificate").expect("written");
        assert!(entry.take_over(&listener, alpn, None, folder));
        let chains: Vec<_> = used(&entry.slots).map(|(it, _)| it.0.to_vec()).collect();
        assert_eq!(chains, [next.0.as_bytes(), b.0.as_bytes()]);
        let shown = entry.shown.clone().expect("shown");
        let told: Vec<_> = shown
            .certificates
            .iter()
            .map(|it| (it.name.as_str(), it.expires.is_some(), it.error.is_some()))
            .collect();
        assert_eq!(told, [("a.pem", true, false), ("b.pem", true, true)]);
        assert_eq!(shown.error, shown.certificates[1].error);
        assert!(!entry.take_over(&listener, alpn, None, folder), "as before");
    }
}
