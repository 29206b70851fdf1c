//! Who gets a certificate, and who does not.

use std::time::{Duration, SystemTime};

use selvage_api::v1::{ExpiredProof, RenewRequest};
use selvage_certs::{
    IntermediateCa, JoinToken, KeyPair, RootCa, SpiffeId, Svid, control_plane_client_config,
};
use selvage_control_plane::rpc::identity_client::IdentityClient;
use serde_json::json;
use tonic::Code;

use crate::support::{Plane, Workload, svid};

#[tokio::test]
async fn a_token_gives_its_identity_once() {
    let plane = Plane::start().await;
    let token = plane.token(json!({ "workload": "shop/orders" })).await;
    let (svid, _) = plane.attest(&token).await.unwrap();
    assert_eq!(svid.id().as_str(), "spiffe://mesh.local/ns/shop/sa/orders");
    let again = plane.attest(&token).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated);
    let twice = plane
        .token(json!({ "workload": "shop/orders", "uses": 2 }))
        .await;
    plane.attest(&twice).await.unwrap();
    plane.attest(&twice).await.unwrap();
    assert!(plane.attest(&twice).await.is_err());
    plane.stop().await;
}

#[tokio::test]
async fn a_token_that_was_not_made_here_is_refused() {
    let plane = Plane::start().await;
    let token = plane.token(json!({ "workload": "shop/orders" })).await;
    let fingerprint = JoinToken::parse(&token).unwrap().root_fingerprint();
    let forged = JoinToken::generate(fingerprint).unwrap().to_string();
    assert_eq!(
        plane.attest(&forged).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    // A token of another control plane: the workload itself refuses to connect.
    let other = JoinToken::generate([7; 32]).unwrap().to_string();
    assert_eq!(
        plane.attest(&other).await.unwrap_err().code(),
        Code::Unavailable
    );
    plane.stop().await;
}

#[tokio::test]
async fn the_control_planes_identity_is_not_for_tokens() {
    let plane = Plane::start().await;
    let body = json!({ "workload": "selvage-system/control-plane" }).to_string();
    let (status, answer) = plane.ask("POST", "/api/v1/tokens", &body).await;
    assert_eq!(status, 422, "{answer}");
    for bad in [
        json!({ "workload": "orders" }),
        json!({ "workload": "shop/orders", "uses": 0 }),
        json!({ "workload": "shop/orders", "ttl": "0s" }),
        json!({ "workload": "shop/orders", "services": ["Not A Name"] }),
        json!({ "workload": "shop/orders", "use": 1 }),
    ] {
        assert_eq!(
            plane
                .ask("POST", "/api/v1/tokens", &bad.to_string())
                .await
                .0,
            422,
            "{bad}"
        );
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_certificate_renews_itself() {
    let plane = Plane::start().await;
    let workload = plane.enrol("shop/orders").await;
    let key = KeyPair::generate().unwrap();
    let request = RenewRequest {
        csr: key.csr_der().unwrap(),
        expired: None,
    };
    let response = IdentityClient::new(workload.channel.clone())
        .renew(request)
        .await
        .unwrap();
    let (renewed, bundle) = svid(&plane.trust_domain(), response.into_inner(), key);
    assert_eq!(renewed.id(), workload.svid.id());
    Workload::with(&plane, renewed, bundle).await.unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn a_csr_that_is_none_is_refused_and_costs_no_token() {
    let plane = Plane::start().await;
    let workload = plane.enrol("shop/orders").await;
    let mut client = IdentityClient::new(workload.channel.clone());
    let request = RenewRequest {
        csr: vec![1, 2, 3],
        expired: None,
    };
    assert_eq!(
        client.renew(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    plane.stop().await;
}

#[tokio::test]
async fn a_foreign_ca_gets_no_connection() {
    let plane = Plane::start().await;
    let workload = plane.enrol("shop/orders").await;
    let (domain, now) = (plane.trust_domain(), SystemTime::now());
    let hour = Duration::from_secs(3600);
    let foreign = RootCa::generate(&domain, hour, now)
        .unwrap()
        .issue_intermediate(hour, now)
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let issued = foreign
        .issue_svid(key.public_key(), workload.svid.id(), hour, now)
        .unwrap();
    let forged = Svid::parse(issued.chain, key).unwrap();
    // TLS 1.3 clients learn of the refusal with their first read.
    let refused = match Workload::with(&plane, forged, workload.bundle.clone()).await {
        Ok(workload) => workload.register("orders-1", "orders").await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    plane.stop().await;
}

/// An SVID of this control plane whose life ended 15 seconds ago.
fn expired(plane: &Plane) -> Svid {
    let file = plane.config.data_dir.join("ca/intermediate.pem");
    let ca = IntermediateCa::from_pem(&std::fs::read(file).unwrap()).unwrap();
    let id = SpiffeId::of_service_account(&plane.trust_domain(), "shop", "orders").unwrap();
    let key = KeyPair::generate().unwrap();
    let then = SystemTime::now() - Duration::from_secs(45);
    let issued = ca
        .issue_svid(key.public_key(), &id, Duration::from_secs(30), then)
        .unwrap();
    Svid::parse(issued.chain, key).unwrap()
}

async fn renew_expired(plane: &Plane, by: &KeyPair, old: &Svid) -> Result<SpiffeId, tonic::Status> {
    let bundle = plane.enrol("shop/other").await.bundle;
    let channel = plane
        .channel(control_plane_client_config(&bundle, None).unwrap())
        .await
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let csr = key.csr_der().unwrap();
    let proof = ExpiredProof {
        chain: old.chain().iter().map(|der| der.to_vec()).collect(),
        signature: by.sign_renewal(&csr).unwrap(),
    };
    let request = RenewRequest {
        csr,
        expired: Some(proof),
    };
    let response = IdentityClient::new(channel)
        .renew(request)
        .await?
        .into_inner();
    Ok(svid(&plane.trust_domain(), response, key).0.id().clone())
}

#[tokio::test]
async fn an_expired_certificate_renews_by_proof_within_the_grace() {
    let plane = Plane::start().await;
    let old = expired(&plane);
    assert_eq!(
        renew_expired(&plane, old.key(), &old).await.unwrap(),
        *old.id()
    );
    let thief = KeyPair::generate().unwrap();
    let refused = renew_expired(&plane, &thief, &old).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    plane.stop().await;

    let strict = Plane::start_with(|config| config.ca.renew_grace = Duration::from_secs(5)).await;
    let old = expired(&strict);
    let refused = renew_expired(&strict, old.key(), &old).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    strict.stop().await;
}
