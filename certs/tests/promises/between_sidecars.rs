//! Mutual TLS between two sidecars: who gets in, and every way not to, in both directions.

use std::sync::Arc;

use rustls::{
    AlertDescription, Error, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
};
use selvage_certs::{
    ALPN_H2, ALPN_HTTP11, HandshakeOutcome, MeshTls, RefusedPeer, TrustBundle, handshake_outcome,
    peer_identity, recheck,
};

use crate::mint::{HOUR, Mesh, Presented, ca_params, domain, id, leaf_params, now};
use crate::pump::{handshake, reckless_client, reckless_server};
use crate::strangers::{ALPN, Fixture, RATINGS, Stranger, strangers};

#[test]
fn two_sidecars_meet_over_tls13_with_post_quantum_key_exchange() {
    let fixture = Fixture::new();
    let server = fixture.tls("ratings").server_config(&[ALPN_H2]);
    let client = fixture.tls("reviews").client_config(&id("ratings"), ALPN);
    let ended = handshake(&client, &server);
    assert!(
        ended.is_up(),
        "{:?} {:?}",
        ended.client_error,
        ended.server_error
    );
    assert_eq!(
        ended.client.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    let group = ended.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    let suite = ended.client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(ended.server.alpn_protocol(), Some(ALPN_H2));
    assert_eq!(
        ended.server.server_name(),
        Some("p80.ratings.shop.mesh.local")
    );
    let caller = peer_identity(ended.server.peer_certificates().unwrap()).unwrap();
    assert_eq!(caller.id, id("reviews"));
    assert!(caller.not_after > now());
    let callee = peer_identity(ended.client.peer_certificates().unwrap()).unwrap();
    assert_eq!(callee.id, id("ratings"));
}

#[test]
fn no_stranger_is_taken_for_the_server() {
    let fixture = Fixture::new();
    let client = fixture.tls("reviews").client_config(&id("ratings"), ALPN);
    for Stranger {
        what,
        presented,
        ours,
        theirs,
    } in strangers(&fixture)
    {
        let ended = handshake(&client, &reckless_server(presented, ALPN));
        assert!(ended.client.is_handshaking(), "{what}");
        assert_eq!(
            handshake_outcome(&ended.client_error.unwrap()),
            ours,
            "{what}"
        );
        assert_eq!(
            handshake_outcome(&ended.server_error.unwrap()),
            theirs,
            "{what}"
        );
    }
}

#[test]
fn no_stranger_is_let_in_as_a_client() {
    let fixture = Fixture::new();
    let server = fixture.tls("ratings").server_config(ALPN);
    for Stranger {
        what,
        presented,
        ours,
        theirs,
    } in strangers(&fixture)
    {
        let ended = handshake(&reckless_client(Some(presented), ALPN), &server);
        assert!(ended.server.is_handshaking(), "{what}");
        assert_eq!(
            handshake_outcome(&ended.server_error.unwrap()),
            ours,
            "{what}"
        );
        assert_eq!(
            handshake_outcome(&ended.client_error.unwrap()),
            theirs,
            "{what}"
        );
    }
}

#[test]
fn the_right_ca_with_another_name_is_not_the_server() {
    let fixture = Fixture::new();
    let client = fixture.tls("reviews").client_config(&id("ratings"), ALPN);
    for other in ["orders", "rating", "ratings2"] {
        let ended = handshake(&client, &fixture.tls(other).server_config(ALPN));
        let error = ended.client_error.unwrap();
        assert_eq!(handshake_outcome(&error), HandshakeOutcome::WrongIdentity);
        assert!(error.to_string().contains(id(other).as_str()), "{error}");
        let seen = handshake_outcome(&ended.server_error.unwrap());
        assert_eq!(seen, HandshakeOutcome::WrongIdentity);
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let fixture = Fixture::new();
    let server = fixture.tls("ratings").server_config(ALPN);
    let ended = handshake(&reckless_client(None, ALPN), &server);
    let ours = handshake_outcome(&ended.server_error.unwrap());
    let theirs = handshake_outcome(&ended.client_error.unwrap());
    assert_eq!(
        (ours, theirs),
        (
            HandshakeOutcome::NoCertificate,
            HandshakeOutcome::NoCertificate
        )
    );
}

#[test]
fn an_intermediate_that_is_no_ca_signs_nothing() {
    let fixture = Fixture::new();
    let leaf = fixture.mesh.svid(&id("orders"));
    let key = rcgen::KeyPair::from_der_and_sign_algo(
        &Presented::from(&leaf).key,
        &rcgen::PKCS_ECDSA_P256_SHA256,
    );
    let issuer = rcgen::Issuer::from_ca_cert_der(&leaf.chain()[0], key.unwrap()).unwrap();
    let own_key = rcgen::KeyPair::generate().unwrap();
    let forged = leaf_params(&[RATINGS])
        .signed_by(&own_key, &issuer)
        .unwrap();
    let mut chain = vec![forged.der().clone()];
    chain.extend_from_slice(leaf.chain());
    let refused = recheck(&chain, Some(&id("ratings")), &fixture.bundle, now());
    assert!(
        matches!(refused, Err(RefusedPeer::Untrusted(_))),
        "{refused:?}"
    );
}

#[test]
fn an_intermediate_signs_no_further_intermediate() {
    let mesh = Mesh::new(&domain());
    let pem = mesh.ca.to_pem().unwrap();
    let key = rcgen::KeyPair::from_pem(&pem).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(mesh.ca.certificate(), key).unwrap();
    let sub_key = rcgen::KeyPair::generate().unwrap();
    let sub_params = ca_params("below");
    let sub = sub_params.signed_by(&sub_key, &issuer).unwrap();
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let below = rcgen::Issuer::new(sub_params, sub_key);
    let leaf = leaf_params(&[RATINGS])
        .signed_by(&leaf_key, &below)
        .unwrap();
    let chain = [
        leaf.der().clone(),
        sub.der().clone(),
        mesh.ca.certificate().clone(),
    ];
    let refused = recheck(&chain, None, &mesh.bundle(), now());
    assert!(
        matches!(refused, Err(RefusedPeer::Untrusted(_))),
        "{refused:?}"
    );
}

#[test]
fn no_common_alpn_means_no_connection() {
    let fixture = Fixture::new();
    let server = fixture.tls("ratings").server_config(&[ALPN_HTTP11]);
    let client = fixture
        .tls("reviews")
        .client_config(&id("ratings"), &[ALPN_H2]);
    let ended = handshake(&client, &server);
    assert_eq!(ended.server_error, Some(Error::NoApplicationProtocol));
    let alert = AlertDescription::NoApplicationProtocol;
    assert_eq!(ended.client_error, Some(Error::AlertReceived(alert)));
}

#[test]
fn a_tls12_client_is_refused() {
    let fixture = Fixture::new();
    let mut server = ServerConnection::new(fixture.tls("ratings").server_config(ALPN)).unwrap();
    let mut hello: &[u8] = &tls12_client_hello();
    server.read_tls(&mut hello).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error:?}");
    let mut answer = Vec::new();
    server.write_tls(&mut answer).unwrap();
    assert_eq!(answer[0], 21, "an alert");
    assert_eq!(answer[6], u8::from(AlertDescription::ProtocolVersion));
}

/// One record: a ClientHello with ECDHE-ECDSA-AES128-GCM, P-256, ECDSA-SHA256, and no
/// `supported_versions`.
fn tls12_client_hello() -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: secp256r1
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, one suite, no compression
    body.extend([0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

#[test]
fn a_session_resumes_and_is_refused_by_the_recheck_after_the_bundle_changes() {
    let fixture = Fixture::new();
    let server = fixture.tls("ratings").server_config(ALPN);
    let client = fixture.tls("reviews").client_config(&id("ratings"), ALPN);
    assert_eq!(
        handshake(&client, &server).client.handshake_kind(),
        Some(HandshakeKind::Full)
    );
    let resumed = handshake(&client, &server);
    assert!(resumed.is_up());
    assert_eq!(
        resumed.client.handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
    assert_eq!(
        resumed.server.handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
    let callee = resumed.client.peer_certificates().unwrap();
    let caller = resumed.server.peer_certificates().unwrap();

    let good = recheck(callee, Some(&id("ratings")), &fixture.bundle, now()).unwrap();
    assert_eq!(good.id, id("ratings"));
    assert_eq!(
        recheck(caller, None, &fixture.bundle, now()).unwrap().id,
        id("reviews")
    );

    let changed = Mesh::new(&domain()).bundle();
    for (chain, expected) in [(callee, Some(id("ratings"))), (caller, None)] {
        let refused = recheck(chain, expected.as_ref(), &changed, now()).unwrap_err();
        assert_eq!(refused.outcome(), HandshakeOutcome::Untrusted);
        let late = recheck(chain, expected.as_ref(), &fixture.bundle, now() + 2 * HOUR);
        assert_eq!(late, Err(RefusedPeer::Expired));
    }
    let other = recheck(callee, Some(&id("orders")), &fixture.bundle, now()).unwrap_err();
    assert_eq!(other.outcome(), HandshakeOutcome::WrongIdentity);
    assert_eq!(
        recheck(&[], None, &fixture.bundle, now()),
        Err(RefusedPeer::NoCertificate)
    );
}

#[test]
fn a_session_with_one_identity_is_never_offered_to_another() {
    let fixture = Fixture::new();
    let reviews = fixture.tls("reviews");
    let ratings = fixture.tls("ratings").server_config(ALPN);
    assert!(handshake(&reviews.client_config(&id("ratings"), ALPN), &ratings).is_up());
    let ended = handshake(&reviews.client_config(&id("orders"), ALPN), &ratings);
    let outcome = handshake_outcome(&ended.client_error.unwrap());
    assert_eq!(outcome, HandshakeOutcome::WrongIdentity);
}

#[test]
fn sessions_end_with_the_configuration_of_the_server() {
    let fixture = Fixture::new();
    let client = fixture.tls("reviews").client_config(&id("ratings"), ALPN);
    assert!(handshake(&client, &fixture.tls("ratings").server_config(ALPN)).is_up());
    let ended = handshake(&client, &fixture.tls("ratings").server_config(ALPN));
    assert!(ended.is_up());
    assert_eq!(ended.client.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn no_early_data_in_either_direction() {
    let fixture = Fixture::new();
    let server = fixture.tls("ratings").server_config(ALPN);
    let client = fixture.tls("reviews").client_config(&id("ratings"), ALPN);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!server.send_half_rtt_data);
    assert!(!client.enable_early_data);
    assert!(handshake(&client, &server).is_up());
    let name = "p80.ratings.shop.mesh.local".try_into().unwrap();
    let mut again = rustls::ClientConnection::new(Arc::clone(&client), name).unwrap();
    assert!(again.early_data().is_none());
}

#[test]
fn peers_with_other_kinds_of_key_are_understood() {
    let fixture = Fixture::new();
    let server = fixture.tls("ratings").server_config(ALPN);
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let root_key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let root_params = ca_params("another kind");
        let root = root_params.self_signed(&root_key).unwrap();
        let issuer = rcgen::Issuer::new(root_params, root_key);
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let leaf = leaf_params(&[RATINGS]).signed_by(&key, &issuer).unwrap();
        let bundle = TrustBundle::from_der(
            domain(),
            2,
            [root.der().clone(), fixture.mesh.root.certificate().clone()],
        );
        let tls = MeshTls::new(&fixture.mesh.svid(&id("reviews")), &bundle.unwrap()).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let presented = Presented {
            chain: vec![leaf.der().clone()],
            key,
        };
        let peer = reckless_server(presented.clone(), ALPN);
        assert!(handshake(&tls.client_config(&id("ratings"), ALPN), &peer).is_up());
        let peer = reckless_client(Some(presented), ALPN);
        assert!(handshake(&peer, &tls.server_config(ALPN)).is_up());
        assert!(
            !handshake(&peer, &server).is_up(),
            "a root that is not in the bundle"
        );
    }
}
