//! No identity, no service: what the wire refuses, in both directions.

mod callers; // refused by an inbound
mod endpoints; // refused by an outbound, and renewal

use std::time::Duration;

use selvage_tests::pki::{Identity, Leaf, Pki, spiffe_id};
use selvage_tests::sidecar::Sidecar;

/// Certificates that no side may accept, with the reason that the metric gives.
fn malformed(pki: &Pki, other: &Pki, account: &str) -> Vec<(&'static str, Identity, &'static str)> {
    let proper = || Leaf::of(&spiffe_id("shop", account));
    let issue = |change: fn(&mut Leaf)| {
        let mut leaf = proper();
        change(&mut leaf);
        pki.issue(&leaf)
    };
    vec![
        (
            "another authority, same identity",
            other.issue(&proper()),
            "untrusted",
        ),
        (
            "expired",
            issue(|leaf| leaf.lasts = Duration::ZERO),
            "expired",
        ),
        (
            "signed by itself",
            issue(|leaf| leaf.self_signed = true),
            "untrusted",
        ),
        (
            "another trust domain",
            issue(|leaf| leaf.uris = vec!["spiffe://other.local/ns/shop/sa/client".to_owned()]),
            "",
        ),
        (
            "two URIs",
            issue(|leaf| {
                leaf.uris
                    .push("spiffe://mesh.local/ns/shop/sa/second".to_owned())
            }),
            "",
        ),
        (
            "no URI, a DNS name",
            issue(|leaf| (leaf.uris, leaf.names) = (vec![], vec!["orders.shop".to_owned()])),
            "",
        ),
        (
            "an authority as leaf",
            issue(|leaf| leaf.authority = true),
            "",
        ),
        (
            "no extended key usage for its side",
            issue(|leaf| leaf.usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning]),
            "",
        ),
        (
            "not valid yet",
            issue(|leaf| (leaf.age, leaf.starts_in) = (Duration::ZERO, Duration::from_secs(1800))),
            "",
        ),
    ]
}

async fn handshakes(sidecar: &Sidecar, side: &str, outcome: &str) -> u64 {
    let labels = [("side", side), ("outcome", outcome)];
    sidecar
        .metrics()
        .await
        .count("selvage_tls_handshakes_total", &labels)
}
