//! Renewal by proof of the old key: within its grace, and not a moment or a byte beyond.

use selvage_certs::{RefusedPeer, RefusedRenewal, SpiffeId, Svid, verify_renewal};

use crate::mint::{HOUR, Mesh, domain, id, now};

struct Renewal {
    mesh: Mesh,
    old: Svid,
    csr: Vec<u8>,
    signature: Vec<u8>,
}

impl Renewal {
    fn new() -> Self {
        let mesh = Mesh::new(&domain());
        let old = mesh.svid_at(&id("ratings"), HOUR / 4, now() - HOUR / 2);
        let csr = selvage_certs::KeyPair::generate()
            .unwrap()
            .csr_der()
            .unwrap();
        let signature = old.key().sign_renewal(&csr).unwrap();
        Self {
            mesh,
            old,
            csr,
            signature,
        }
    }

    fn verify(&self) -> Result<SpiffeId, RefusedRenewal> {
        self.verify_at(now())
    }

    fn verify_at(&self, at: std::time::SystemTime) -> Result<SpiffeId, RefusedRenewal> {
        let bundle = self.mesh.bundle();
        let chain = self.old.chain();
        verify_renewal(chain, &self.csr, &self.signature, &bundle, at, HOUR).map(|(id, _)| id)
    }
}

#[test]
fn an_expired_svid_renews_within_its_grace() {
    let renewal = Renewal::new();
    assert_eq!(renewal.verify(), Ok(id("ratings")));
    let end = renewal.old.not_after();
    assert_eq!(
        renewal.verify_at(end - HOUR / 8),
        Ok(id("ratings")),
        "a living one as well"
    );
    assert_eq!(renewal.verify_at(end + HOUR), Ok(id("ratings")));
    let late = end + HOUR + std::time::Duration::from_millis(1);
    assert_eq!(renewal.verify_at(late), Err(RefusedRenewal::TooLate));
    let early = renewal.old.not_before() - HOUR;
    assert_eq!(renewal.verify_at(early), Err(RefusedRenewal::TooEarly));
}

#[test]
fn a_renewal_needs_the_old_key_and_this_very_csr() {
    let mut renewal = Renewal::new();
    let other = renewal.mesh.svid(&id("ratings"));
    let good = renewal.signature.clone();
    renewal.signature = other.key().sign_renewal(&renewal.csr).unwrap();
    assert_eq!(renewal.verify(), Err(RefusedRenewal::Signature));
    renewal.signature = Vec::new();
    assert_eq!(renewal.verify(), Err(RefusedRenewal::Signature));
    renewal.signature = good;
    renewal.csr = other.key().csr_der().unwrap();
    assert_eq!(renewal.verify(), Err(RefusedRenewal::Signature));
    renewal.csr = b"no CSR".to_vec();
    assert!(matches!(renewal.verify(), Err(RefusedRenewal::Csr(_))));
}

#[test]
fn a_renewal_under_another_root_is_refused() {
    let mut renewal = Renewal::new();
    renewal.mesh = Mesh::new(&domain());
    let refused = renewal.verify();
    assert!(
        matches!(
            refused,
            Err(RefusedRenewal::Peer(RefusedPeer::Untrusted(_)))
        ),
        "{refused:?}"
    );
}
