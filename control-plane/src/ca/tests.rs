//! What the authority promises over restarts and renewals.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
use super::*;
use crate::store::{Db, Token};
use selvage_certs::{KeyPair, TrustDomain};

fn config() -> CaConfig {
    CaConfig {
        leaf_ttl: Duration::from_secs(3600),
        renew_grace: Duration::from_secs(60),
        intermediate_ttl: Duration::from_secs(7200),
        root_ttl: Duration::from_secs(86400),
    }
}

async fn open(folder: &Path, domain: &str) -> anyhow::Result<Authority> {
    let store = Store::try_new(Db::open(&folder.join("store.redb"))?)?;
    let metrics = Arc::new(Metrics::try_new()?);
    let domain = TrustDomain::parse(domain)?;
    Authority::open(folder, &domain, config(), store, metrics).await
}

#[tokio::test]
async fn the_authority_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), "mesh.test").await.unwrap();
    let (fingerprint, ends) = (first.fingerprint(), first.ends());
    drop(first);
    let second = open(folder.path(), "mesh.test").await.unwrap();
    assert_eq!((second.fingerprint(), second.ends()), (fingerprint, ends));
    drop(second);
    let other = open(folder.path(), "other.test").await;
    assert!(other.is_err_and(|error| error.to_string().contains("trust domain mesh.test")));
}

#[tokio::test]
async fn certificates_are_recorded_and_tokens_spent() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), "mesh.test").await.unwrap();
    let before = authority.store.call(|db| db.certificates()).await.unwrap();
    let token = Token {
        identity: "spiffe://mesh.test/ns/shop/sa/orders".into(),
        services: vec!["orders".into()],
        expires_at: u64::MAX,
        uses_left: 1,
    };
    authority
        .store
        .call(move |db| db.put_token([7; 32], &token, 0))
        .await
        .unwrap();
    let csr = || Csr::parse(&KeyPair::generate().unwrap().csr_der().unwrap()).unwrap();
    let issued = authority.attest([7; 32], csr()).await.unwrap();
    assert_eq!(issued.id.as_str(), "spiffe://mesh.test/ns/shop/sa/orders");
    let refused = authority.attest([7; 32], csr()).await;
    assert!(matches!(refused, Err(StoreError::Token)));
    authority.renew(&issued.id, &csr()).await.unwrap();
    let after = authority.store.call(|db| db.certificates()).await.unwrap();
    assert_eq!(after, before + 2);
}

#[tokio::test]
async fn what_is_due_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), "mesh.test").await.unwrap();
    let before = authority.server_config();
    let later = SystemTime::now() + Duration::from_secs(1900);
    authority.renew_due(later).await.unwrap();
    assert!(!Arc::ptr_eq(&before, &authority.server_config()));
    let (_, end) = authority.ends();
    let later = SystemTime::now() + Duration::from_secs(3700);
    authority.renew_due(later).await.unwrap();
    assert!(authority.ends().1 > end);
}

#[tokio::test]
async fn restarts_do_not_put_off_the_next_intermediate() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), "mesh.test").await.unwrap());
    let second = open(folder.path(), "mesh.test").await.unwrap();
    let due = second.intermediate.load().due;
    assert_eq!(due, second.ends().1 - Duration::from_secs(3600));
}
