//! Everybody who may not be the service `ratings`, and may not call it either.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use selvage_certs::HandshakeOutcome::{self, Expired, Other, Untrusted, WrongIdentity};
use selvage_certs::{ALPN_H2, ALPN_HTTP11, ALPN_TCP, MeshTls, TrustBundle, TrustDomain};

use crate::mint::{Careless, HOUR, Mesh, Presented, domain, id, leaf_params, now, self_signed};

pub(crate) const ALPN: &[&[u8]] = &[ALPN_H2, ALPN_HTTP11, ALPN_TCP];
pub(crate) const RATINGS: &str = "spiffe://mesh.local/ns/shop/sa/ratings";

/// Everything a sidecar has, trusting also a careless root.
pub(crate) struct Fixture {
    pub(crate) mesh: Mesh,
    pub(crate) careless: Careless,
    pub(crate) bundle: TrustBundle,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let mesh = Mesh::new(&domain());
        let careless = Careless::new();
        let roots = [mesh.root.certificate().clone(), careless.certificate()];
        let bundle = TrustBundle::from_der(domain(), 1, roots).unwrap();
        Self {
            mesh,
            careless,
            bundle,
        }
    }

    pub(crate) fn tls(&self, service: &str) -> MeshTls {
        MeshTls::new(&self.mesh.svid(&id(service)), &self.bundle).unwrap()
    }

    /// A good leaf of `ratings`, spoilt, under the careless root.
    fn spoilt(&self, spoil: impl FnOnce(&mut CertificateParams)) -> Presented {
        let mut params = leaf_params(&[RATINGS]);
        spoil(&mut params);
        self.careless.sign(&params)
    }

    fn named(&self, uris: &[&str]) -> Presented {
        self.careless.sign(&leaf_params(uris))
    }
}

/// A way to be refused, and the outcome each side then counts.
pub(crate) struct Stranger {
    pub(crate) what: &'static str,
    pub(crate) presented: Presented,
    /// Counted by the side that refuses.
    pub(crate) ours: HandshakeOutcome,
    /// Counted by the side that is refused, which has only an alert to go by.
    pub(crate) theirs: HandshakeOutcome,
}

impl Stranger {
    fn counted(what: &'static str, presented: Presented, outcome: HandshakeOutcome) -> Self {
        Self {
            what,
            presented,
            ours: outcome,
            theirs: outcome,
        }
    }
}

pub(crate) fn strangers(fixture: &Fixture) -> Vec<Stranger> {
    let mut all = untrusted(fixture);
    all.extend(out_of_time(fixture));
    all.extend(misnamed(fixture));
    all.extend(misused(fixture));
    all.extend(unreasonable(fixture));
    all
}

fn untrusted(fixture: &Fixture) -> Vec<Stranger> {
    let other_mesh = Mesh::new(&domain());
    let foreign = Mesh::new(&TrustDomain::parse("other.local").unwrap());
    let foreign_id = "spiffe://other.local/ns/shop/sa/ratings".parse().unwrap();
    let other_key = Presented::from(&fixture.mesh.svid(&id("ratings"))).key;
    let chain = fixture.mesh.svid(&id("ratings")).chain().to_vec();
    let stolen = Presented {
        chain,
        key: other_key,
    };
    vec![
        Stranger::counted(
            "other CA, same id",
            Presented::from(&other_mesh.svid(&id("ratings"))),
            Untrusted,
        ),
        Stranger::counted(
            "self-signed",
            self_signed(&leaf_params(&[RATINGS])),
            Untrusted,
        ),
        Stranger::counted(
            "other trust domain and its CA",
            Presented::from(&foreign.svid(&foreign_id)),
            Untrusted,
        ),
        Stranger {
            what: "the right chain without its key",
            presented: stolen,
            ours: Untrusted,
            theirs: Other,
        },
    ]
}

fn out_of_time(fixture: &Fixture) -> Vec<Stranger> {
    let expired = fixture
        .mesh
        .svid_at(&id("ratings"), HOUR / 4, now() - HOUR / 2);
    let unborn = fixture.spoilt(|params| params.not_before = (now() + HOUR / 2).into());
    vec![
        Stranger::counted("expired", Presented::from(&expired), Expired),
        Stranger::counted("not yet valid", unborn, Expired),
    ]
}

fn misnamed(fixture: &Fixture) -> Vec<Stranger> {
    let table: [(&str, &[&str]); 6] = [
        (
            "other trust domain, trusted CA",
            &["spiffe://other.local/ns/shop/sa/ratings"],
        ),
        (
            "two URIs",
            &[RATINGS, "spiffe://mesh.local/ns/shop/sa/admin"],
        ),
        ("the same URI twice", &[RATINGS, RATINGS]),
        ("no URI", &[]),
        (
            "a URI that is no SPIFFE id",
            &["https://mesh.local/ns/shop/sa/ratings"],
        ),
        (
            "the id of the trust domain itself",
            &["spiffe://mesh.local"],
        ),
    ];
    let stranger = |(what, uris)| Stranger::counted(what, fixture.named(uris), WrongIdentity);
    table.map(stranger).into()
}

fn misused(fixture: &Fixture) -> Vec<Stranger> {
    let ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let usages = |only: &[ExtendedKeyUsagePurpose]| {
        fixture.spoilt(|params| params.extended_key_usages = only.to_vec())
    };
    vec![
        Stranger::counted(
            "a CA as leaf",
            fixture.spoilt(|params| params.is_ca = ca),
            Untrusted,
        ),
        Stranger::counted(
            "a leaf that may sign certificates",
            fixture.spoilt(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            Untrusted,
        ),
        Stranger::counted(
            "a leaf that may not sign handshakes",
            fixture.spoilt(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
            Untrusted,
        ),
        Stranger::counted("no extended key usage", usages(&[]), Untrusted),
        Stranger::counted(
            "only serverAuth",
            usages(&[ExtendedKeyUsagePurpose::ServerAuth]),
            Untrusted,
        ),
        Stranger::counted(
            "only clientAuth",
            usages(&[ExtendedKeyUsagePurpose::ClientAuth]),
            Untrusted,
        ),
    ]
}

fn unreasonable(fixture: &Fixture) -> Vec<Stranger> {
    let mut long = Presented::from(&fixture.mesh.svid(&id("ratings")));
    let issuer = long.chain[1].clone();
    long.chain.extend(std::iter::repeat_n(issuer, 4));
    let large = fixture.spoilt(|params| {
        let name = "a".repeat(20 * 1024).try_into().unwrap();
        params.subject_alt_names.push(SanType::DnsName(name));
    });
    let refused = |what, presented| Stranger {
        what,
        presented,
        ours: Untrusted,
        theirs: WrongIdentity,
    };
    vec![
        refused("five intermediates", long),
        refused("a leaf larger than 16 KiB", large),
    ]
}
