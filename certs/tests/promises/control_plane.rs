//! TLS between a sidecar and the control plane: bootstrap by fingerprint, then by bundle.

use selvage_certs::{
    ALPN_H2, HandshakeOutcome, InvalidTls, SpiffeId, TrustBundle, bootstrap_client_config,
    control_plane_client_config, control_plane_server_config, handshake_outcome, peer_identity,
};

use crate::mint::{HOUR, Mesh, Presented, domain, id, now};
use crate::pump::{handshake, reckless_client, reckless_server};

#[test]
fn a_fingerprint_is_enough_to_meet_the_control_plane() {
    let mesh = Mesh::new(&domain());
    let own = mesh.ca.issue_control_plane_svid(HOUR, now()).unwrap();
    // The server trusts an older root as well; the one it sends is the one it stands under.
    let older = Mesh::new(&domain());
    let roots = [
        older.root.certificate().clone(),
        mesh.root.certificate().clone(),
    ];
    let bundle = TrustBundle::from_der(domain(), 2, roots).unwrap();
    let server = control_plane_server_config(&own, &bundle).unwrap();

    let client = bootstrap_client_config(mesh.root.fingerprint(), &domain());
    let ended = handshake(&client, &server);
    assert!(ended.is_up(), "{:?}", ended.client_error);
    assert_eq!(ended.client.alpn_protocol(), Some(ALPN_H2));
    assert!(ended.server.peer_certificates().is_none());
    let sent = ended.client.peer_certificates().unwrap();
    assert_eq!(sent.last(), Some(mesh.root.certificate()));

    let wrong = bootstrap_client_config(older.root.fingerprint(), &domain());
    let error = handshake(&wrong, &server).client_error.unwrap();
    assert_eq!(handshake_outcome(&error), HandshakeOutcome::Untrusted);
}

#[test]
fn bootstrap_trusts_nobody_else_under_the_right_root() {
    let mesh = Mesh::new(&domain());
    let client = bootstrap_client_config(mesh.root.fingerprint(), &domain());
    let mut workload = Presented::from(&mesh.svid(&id("ratings")));
    workload.chain.push(mesh.root.certificate().clone());
    let error = handshake(&client, &reckless_server(workload, &[ALPN_H2]))
        .client_error
        .unwrap();
    assert_eq!(handshake_outcome(&error), HandshakeOutcome::WrongIdentity);
}

#[test]
fn bootstrap_is_not_fooled_by_a_root_that_did_not_sign() {
    let mesh = Mesh::new(&domain());
    let other = Mesh::new(&domain());
    let client = bootstrap_client_config(mesh.root.fingerprint(), &domain());
    let mut forged = Presented::from(&other.ca.issue_control_plane_svid(HOUR, now()).unwrap());
    forged.chain.push(mesh.root.certificate().clone());
    let error = handshake(&client, &reckless_server(forged, &[ALPN_H2]))
        .client_error
        .unwrap();
    assert_eq!(handshake_outcome(&error), HandshakeOutcome::Untrusted);
}

#[test]
fn a_proxy_demands_the_identity_of_the_control_plane() {
    let mesh = Mesh::new(&domain());
    let own = mesh.ca.issue_control_plane_svid(HOUR, now()).unwrap();
    let server = control_plane_server_config(&own, &mesh.bundle()).unwrap();
    let proxy = mesh.svid(&id("ratings"));
    let client = control_plane_client_config(&mesh.bundle(), Some(&proxy)).unwrap();
    let ended = handshake(&client, &server);
    assert!(ended.is_up());
    let caller = peer_identity(ended.server.peer_certificates().unwrap()).unwrap();
    assert_eq!(caller.id, id("ratings"));

    let impostor = reckless_server(Presented::from(&mesh.svid(&id("orders"))), &[ALPN_H2]);
    let error = handshake(&client, &impostor).client_error.unwrap();
    assert_eq!(handshake_outcome(&error), HandshakeOutcome::WrongIdentity);
}

#[test]
fn without_a_certificate_one_is_anonymous_and_with_a_bad_one_refused() {
    let mesh = Mesh::new(&domain());
    let own = mesh.ca.issue_control_plane_svid(HOUR, now()).unwrap();
    let server = control_plane_server_config(&own, &mesh.bundle()).unwrap();
    let anonymous = control_plane_client_config(&mesh.bundle(), None).unwrap();
    let ended = handshake(&anonymous, &server);
    assert!(ended.is_up());
    assert!(ended.server.peer_certificates().is_none());

    let other = Mesh::new(&domain());
    let expired = mesh.svid_at(&id("ratings"), HOUR / 4, now() - HOUR / 2);
    let table = [
        (other.svid(&id("ratings")), HandshakeOutcome::Untrusted),
        (expired, HandshakeOutcome::Expired),
    ];
    for (svid, outcome) in table {
        let client = reckless_client(Some(Presented::from(&svid)), &[ALPN_H2]);
        let error = handshake(&client, &server).server_error.unwrap();
        assert_eq!(handshake_outcome(&error), outcome);
    }
}

#[test]
fn nothing_resumes_towards_the_control_plane() {
    let mesh = Mesh::new(&domain());
    let own = mesh.ca.issue_control_plane_svid(HOUR, now()).unwrap();
    let server = control_plane_server_config(&own, &mesh.bundle()).unwrap();
    let client = control_plane_client_config(&mesh.bundle(), None).unwrap();
    for _ in 0..2 {
        let ended = handshake(&client, &server);
        assert_eq!(
            ended.client.handshake_kind(),
            Some(rustls::HandshakeKind::Full)
        );
    }
}

#[test]
fn a_control_plane_under_no_root_of_its_bundle_does_not_start() {
    let mesh = Mesh::new(&domain());
    let own = mesh.ca.issue_control_plane_svid(HOUR, now()).unwrap();
    let refused = control_plane_server_config(&own, &Mesh::new(&domain()).bundle());
    assert_eq!(
        refused.err(),
        Some(InvalidTls::NoRoot(SpiffeId::of_control_plane(&domain())))
    );
}
