//! An identity from files, watched: certificate chain, key and trust bundle in
//! PEM. New files that do not fit together leave the old identity in place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use selvage_certs::{Svid, TrustBundle, TrustDomain};

use super::{Current, Identity};
use crate::config::IdentityFiles;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Why files are no identity.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIdentity {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate and key are no SVID.
    #[error("{}: {source}", path.display())]
    Svid {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: selvage_certs::InvalidSvid,
    },
    /// The bundle holds no usable root.
    #[error("{}: {source}", path.display())]
    Bundle {
        /// The bundle's file.
        path: PathBuf,
        /// Why.
        source: selvage_certs::InvalidTrustBundle,
    },
    /// It is somebody else's.
    #[error("{}: the certificate is of {found}, but the configuration says {expected}", path.display())]
    NotOurs {
        /// The certificate's file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// It cannot be presented any more.
    #[error("{}: the certificate expired {ago} seconds ago; renew it", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// How long ago.
        ago: u64,
    },
    /// We would refuse ourselves, and so would every peer with this bundle.
    #[error("{}: {source}; is static.identity.trustBundle of the mesh that issued it?", path.display())]
    Untrusted {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: selvage_certs::RefusedPeer,
    },
    /// The two do not go together.
    #[error(transparent)]
    Tls(#[from] selvage_certs::InvalidTls),
}

/// What was read, to see a change by.
type Contents = [Vec<u8>; 3];

fn read(files: &IdentityFiles) -> Result<Contents, InvalidIdentity> {
    let one = |path: &Path| {
        std::fs::read(path).map_err(|source| InvalidIdentity::Unreadable {
            path: path.to_owned(),
            source,
        })
    };
    Ok([
        one(&files.certificate)?,
        one(&files.key)?,
        one(&files.trust_bundle)?,
    ])
}

fn parse(
    files: &IdentityFiles,
    contents: &Contents,
    trust_domain: &TrustDomain,
    expected: Option<&str>,
    epoch: u64,
) -> Result<Current, InvalidIdentity> {
    let [chain, key, roots] = contents;
    let path = || files.certificate.clone();
    let svid = Svid::from_pem(chain, key).map_err(|source| InvalidIdentity::Svid {
        path: path(),
        source,
    })?;
    let bundle = TrustBundle::from_pem(trust_domain.clone(), epoch, roots).map_err(|source| {
        InvalidIdentity::Bundle {
            path: files.trust_bundle.clone(),
            source,
        }
    })?;
    if let Some(expected) = expected.filter(|expected| *expected != svid.id().as_str()) {
        let found = svid.id().to_string();
        return Err(InvalidIdentity::NotOurs {
            path: path(),
            found,
            expected: expected.to_owned(),
        });
    }
    if let Ok(ago) = SystemTime::now().duration_since(svid.not_after()) {
        return Err(InvalidIdentity::Expired {
            path: path(),
            ago: ago.as_secs(),
        });
    }
    selvage_certs::recheck(svid.chain(), None, &bundle, SystemTime::now()).map_err(|source| {
        InvalidIdentity::Untrusted {
            path: path(),
            source,
        }
    })?;
    Ok(Current::try_new(svid, bundle, super::attest::INBOUND_ALPN)?)
}

/// Loads the files, once, and then watches them for as long as it is polled.
///
/// `expected`: the SPIFFE id the certificate must have.
pub async fn run(
    files: IdentityFiles,
    trust_domain: TrustDomain,
    expected: Option<String>,
    identity: Arc<Identity>,
    loaded: tokio::sync::oneshot::Sender<Result<(), InvalidIdentity>>,
) {
    let mut epoch = 1;
    let first = read(&files).and_then(|contents| {
        let current = parse(&files, &contents, &trust_domain, expected.as_deref(), epoch)?;
        Ok((contents, current))
    });
    let mut seen = match first {
        Ok((contents, current)) => {
            identity.swap(current);
            // Nobody waits any more if the start was given up meanwhile.
            let _ = loaded.send(Ok(()));
            contents
        }
        Err(error) => {
            let _ = loaded.send(Err(error));
            return;
        }
    };
    let mut refused = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let contents = match read(&files) {
            Ok(contents) if contents != seen => contents,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "identity files");
                continue;
            }
        };
        epoch += 1;
        match parse(&files, &contents, &trust_domain, expected.as_deref(), epoch) {
            Ok(current) => {
                identity.swap(current);
                seen = contents;
            }
            // Half of a rotation may be written, or a clock be behind: it is looked at again.
            Err(error) if refused.as_ref() != Some(&contents) => {
                tracing::warn!(%error, "new identity refused; the old one stays");
                refused = Some(contents);
            }
            Err(_) => {}
        }
    }
}
