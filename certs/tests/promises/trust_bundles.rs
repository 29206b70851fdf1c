//! Bundles of several roots, and what is not one.

use proptest::prelude::*;
use selvage_certs::{InvalidTrustBundle, ROOTS, RefusedPeer, TrustBundle, recheck};

use crate::mint::{Careless, HOUR, Mesh, domain, id, leaf_params, now, self_signed};

#[test]
fn during_a_rotation_both_roots_count() {
    let (old, new) = (Mesh::new(&domain()), Mesh::new(&domain()));
    let roots = [
        old.root.certificate().clone(),
        new.root.certificate().clone(),
    ];
    let both = TrustBundle::from_der(domain(), 2, roots).unwrap();
    for mesh in [&old, &new] {
        assert!(recheck(mesh.svid(&id("a")).chain(), None, &both, now()).is_ok());
    }
    let after = new.bundle();
    assert!(recheck(new.svid(&id("a")).chain(), None, &after, now()).is_ok());
    assert!(recheck(old.svid(&id("a")).chain(), None, &after, now()).is_err());
}

#[test]
fn a_bundle_survives_being_written_down() {
    let (old, new) = (Mesh::new(&domain()), Mesh::new(&domain()));
    let roots = [
        old.root.certificate().clone(),
        new.root.certificate().clone(),
    ];
    let bundle = TrustBundle::from_der(domain(), 7, roots.clone()).unwrap();
    let again = TrustBundle::from_pem(domain(), 7, bundle.to_pem().as_bytes()).unwrap();
    assert!(again.roots().eq(&roots));
    assert_eq!(again.epoch(), 7);
    assert_eq!(
        again.not_after(),
        old.root.not_after().max(new.root.not_after())
    );
    let fingerprints = again.fingerprints();
    assert_eq!(fingerprints.len(), 2);
    assert!(fingerprints[0].len() == 64 && fingerprints[0] != fingerprints[1]);
}

#[test]
fn what_is_no_root_makes_no_bundle() {
    let parse = |text: &str| TrustBundle::from_pem(domain(), 1, text.as_bytes()).err();
    assert_eq!(parse(""), Some(InvalidTrustBundle::Empty));
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    assert_eq!(parse(broken), Some(InvalidTrustBundle::TooManyOrMalformed));
    let from = |certificates: Vec<_>| TrustBundle::from_der(domain(), 1, certificates);
    assert_eq!(
        from(vec![vec![1, 2].into()]).err(),
        Some(InvalidTrustBundle::Certificate)
    );
    let leaf = self_signed(&leaf_params(&["spiffe://mesh.local/a"])).chain;
    assert_eq!(from(leaf).err(), Some(InvalidTrustBundle::NotCa));
    let one = Careless::new().certificate();
    assert_eq!(
        from(vec![one.clone(), one]).unwrap().roots().count(),
        1,
        "held once"
    );
    let many = (0..=ROOTS).map(|_| Careless::new().certificate()).collect();
    assert_eq!(
        from(many).err(),
        Some(InvalidTrustBundle::TooManyOrMalformed)
    );
}

#[test]
fn an_expired_root_counts_no_longer() {
    let careless = Careless::new();
    let mut params = leaf_params(&["spiffe://mesh.local/a"]);
    params.not_after = (now() + 10 * HOUR).into();
    let chain = careless.sign(&params).chain;
    let bundle = TrustBundle::from_der(domain(), 1, [careless.certificate()]).unwrap();
    assert!(recheck(&chain, None, &bundle, now()).is_ok());
    let later = recheck(&chain, None, &bundle, now() + 2 * HOUR);
    assert!(matches!(later, Err(RefusedPeer::Untrusted(_))), "{later:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damage_to_a_chain_never_panics_and_never_makes_another_identity(
        which in 0usize..2, at in 0usize..2000, flip in 1u8..,
    ) {
        let mesh = Mesh::new(&domain());
        let mut chain: Vec<Vec<u8>> =
            mesh.svid(&id("a")).chain().iter().map(|der| der.to_vec()).collect();
        let at = at % chain[which].len();
        chain[which][at] ^= flip;
        let chain: Vec<_> = chain.into_iter().map(Into::into).collect();
        if let Ok(peer) = recheck(&chain, None, &mesh.bundle(), now()) {
            prop_assert_eq!(peer.id, id("a"));
        }
        let _ = TrustBundle::from_der(domain(), 1, chain);
    }
}
