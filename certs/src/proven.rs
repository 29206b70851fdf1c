//! Chains that were verified against a bundle lately. Peers come back with the certificate they
//! had before; that its issuers signed it needs no second proof while nothing has changed.
//!
//! What is remembered is the path alone, for exactly these bytes, from when it was proven to the
//! first end of a certificate that it may rest on. A bundle has its own memory, so other roots begin
//! without one. What the leaf says (its id, its trust domain) is read anew, and the handshake's own
//! signature, which proves that the peer holds the key, is never remembered.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;

/// Paths remembered per bundle.
const PATHS: usize = 4096;

/// SHA-256 over all certificates of a chain, in order and with their lengths.
pub(crate) type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Proven(Mutex<HashMap<Digest, RangeInclusive<SystemTime>>>);

impl Proven {
    /// What stands for a chain.
    pub(crate) fn digest(
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        for der in std::iter::once(leaf).chain(intermediates) {
            context.update(&(der.len() as u64).to_be_bytes());
            context.update(der);
        }
        let mut bytes = Digest::default();
        bytes.copy_from_slice(context.finish().as_ref());
        bytes
    }

    /// Whether this chain was proven and still is. A clock that went back says no.
    pub(crate) fn holds(&self, chain: &Digest, now: SystemTime) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(chain).is_some_and(|life| life.contains(&now))
    }

    /// Remembers a chain for as long as its proof is worth something.
    pub(crate) fn keep(&self, chain: Digest, life: RangeInclusive<SystemTime>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PATHS {
            known.clear();
        }
        known.insert(chain, life);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn chain(parts: &[&[u8]]) -> Digest {
        let ders: Vec<_> = parts
            .iter()
            .map(|part| CertificateDer::from(*part))
            .collect();
        Proven::digest(&ders[0], &ders[1..])
    }

    #[test]
    fn a_chain_stands_for_its_certificates_and_where_each_ends() {
        let whole = chain(&[b"ab", b"c"]);
        assert_eq!(whole, chain(&[b"ab", b"c"]));
        for other in [
            chain(&[b"a", b"bc"]),
            chain(&[b"abc"]),
            chain(&[b"c", b"ab"]),
        ] {
            assert_ne!(whole, other);
        }
    }

    #[test]
    fn a_proof_lasts_to_its_end_and_not_before_it_was_made() {
        const MOMENT: Duration = Duration::from_secs(1);
        let proven = Proven::default();
        let now = SystemTime::now();
        let known = chain(&[b"a"]);
        assert!(!proven.holds(&known, now));
        proven.keep(known, now..=now + 60 * MOMENT);
        assert!(proven.holds(&known, now));
        assert!(proven.holds(&known, now + 60 * MOMENT));
        assert!(!proven.holds(&known, now + 61 * MOMENT));
        assert!(!proven.holds(&known, now - MOMENT));
        assert!(!proven.holds(&chain(&[b"b"]), now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let proven = Proven::default();
        let now = SystemTime::now();
        for number in 0..=PATHS as u64 {
            proven.keep(chain(&[&number.to_be_bytes()]), now..=now);
        }
        let kept = proven.0.lock().expect("nobody panicked").len();
        assert!(kept <= PATHS, "{kept}");
    }
}
