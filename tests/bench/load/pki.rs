//! Certificates for one run, shared by all peers: ECDSA P-256, SPIFFE URIs, a
//! root and an intermediate.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use selvage_tests::pki::{Leaf, Pki, spiffe_id};

use crate::Failure;

/// Longer than any run.
const LIFE: Duration = Duration::from_secs(48 * 3600);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder, which must exist.
    folder: PathBuf,
}

/// Writes `ca.pem`, and certificate and key of both sides: as SPIFFE wants them, and once more
/// with a DNS name, because nginx and HAProxy verify servers by that alone.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let pki = Pki::new();
    let folder = &options.folder;
    fs::write(folder.join("ca.pem"), pki.root_pem())?;
    for account in ["client", "orders"] {
        let mut leaf = Leaf::of(&spiffe_id("shop", account));
        leaf.lasts = LIFE;
        issue(&pki, &leaf, folder, account)?;
        leaf.names = vec![format!("{account}.shop")];
        issue(&pki, &leaf, folder, &format!("{account}-named"))?;
    }
    Ok(())
}

fn issue(pki: &Pki, leaf: &Leaf, folder: &Path, name: &str) -> Result<(), Failure> {
    let identity = pki.issue(leaf);
    fs::copy(&identity.certificate, folder.join(format!("{name}.pem")))?;
    fs::copy(&identity.key, folder.join(format!("{name}.key")))?;
    Ok(())
}
