//! What the CA signs, what it refuses, and that it survives being written down.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use selvage_certs::{
    BACK_DATED, CaError, Csr, IntermediateCa, InvalidSvid, KeyPair, LONGEST_TTL, RootCa, SpiffeId,
    Svid, recheck,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::mint::{HOUR, Mesh, domain, id, now};

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn of_a_csr_nothing_is_taken_but_its_key() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    let uri = "spiffe://evil/ns/a/sa/b".try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let der = params.serialize_request(&key).unwrap();
    let csr = Csr::parse(der.der()).unwrap();

    let mesh = Mesh::new(&domain());
    let issued = mesh
        .ca
        .issue_svid(csr.public_key(), &id("ratings"), HOUR, now())
        .unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let names = &leaf
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names;
    assert_eq!(names.len(), 1);
    assert!(!leaf.is_ca());
    let text = String::from_utf8_lossy(&issued.chain[0]).into_owned();
    assert!(!text.contains("evil"));
    assert_eq!(
        recheck(&issued.chain, None, &mesh.bundle(), now())
            .unwrap()
            .id,
        id("ratings")
    );
}

#[test]
fn a_leaf_has_the_shape_of_an_svid() {
    let mesh = Mesh::new(&domain());
    let svid = mesh.svid(&id("ratings"));
    let (_, leaf) = X509Certificate::from_der(&svid.chain()[0]).unwrap();
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(
        usage.critical && usage.value.flags == 1,
        "digitalSignature alone"
    );
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    let serial = leaf.raw_serial();
    assert_eq!(serial.len(), 16);
    assert!(serial[0] & 0x80 == 0, "positive");
    let key_ids = leaf
        .iter_extensions()
        .map(|extension| extension.parsed_extension());
    let kinds = key_ids.filter(|extension| {
        use x509_parser::extensions::ParsedExtension as Kind;
        matches!(
            extension,
            Kind::SubjectKeyIdentifier(_) | Kind::AuthorityKeyIdentifier(_)
        )
    });
    assert_eq!(kinds.count(), 2);

    let (_, intermediate) = X509Certificate::from_der(&svid.chain()[1]).unwrap();
    let constraints = intermediate.basic_constraints().unwrap().unwrap().value;
    assert_eq!(constraints.path_len_constraint, Some(0));
    assert!(
        intermediate
            .key_usage()
            .unwrap()
            .unwrap()
            .value
            .key_cert_sign()
    );
}

#[test]
fn a_leaf_is_back_dated_and_never_outlives_its_issuer() {
    let start = now();
    let root = RootCa::generate(&domain(), 10 * HOUR, start).unwrap();
    let ca = root.issue_intermediate(20 * HOUR, start + HOUR).unwrap();
    assert_eq!(
        ca.not_after(),
        root.not_after(),
        "an intermediate does not either"
    );
    let key = KeyPair::generate().unwrap();
    let issue = |ttl, at| ca.issue_svid(key.public_key(), &id("a"), ttl, at);

    let at = start + 2 * HOUR;
    let plain = issue(HOUR, at).unwrap();
    assert_eq!(seconds(plain.not_before), seconds(at - BACK_DATED));
    assert_eq!(seconds(plain.not_after), seconds(at + HOUR));
    let parsed = Svid::parse(plain.chain, key.clone()).unwrap();
    assert_eq!(parsed.not_after(), plain.not_after);
    assert_eq!(parsed.issuer_not_after(), Some(ca.not_after()));

    assert_eq!(issue(100 * HOUR, at).unwrap().not_after, ca.not_after());
    let early = issue(HOUR, start + HOUR - BACK_DATED / 2).unwrap();
    assert_eq!(
        seconds(early.not_before),
        seconds(start + HOUR - BACK_DATED)
    );

    assert_eq!(
        issue(HOUR, start + 11 * HOUR).err(),
        Some(CaError::IssuerExpired)
    );
    assert_eq!(issue(HOUR, start).err(), Some(CaError::Clock));
    assert_eq!(issue(Duration::ZERO, at).err(), Some(CaError::Ttl));
    assert_eq!(issue(LONGEST_TTL * 2, at).err(), Some(CaError::Ttl));
    assert_eq!(
        RootCa::generate(&domain(), HOUR, UNIX_EPOCH).err(),
        Some(CaError::Clock)
    );
}

#[test]
fn serials_differ() {
    let mesh = Mesh::new(&domain());
    let serial = || {
        let svid = mesh.svid(&id("a"));
        X509Certificate::from_der(&svid.chain()[0])
            .unwrap()
            .1
            .raw_serial()
            .to_vec()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn the_ca_issues_no_identity_that_is_not_a_workloads() {
    let mesh = Mesh::new(&domain());
    let key = KeyPair::generate().unwrap();
    let issue = |text: &str| {
        let id = SpiffeId::parse(text).unwrap();
        (
            mesh.ca.issue_svid(key.public_key(), &id, HOUR, now()).err(),
            id,
        )
    };
    let own = SpiffeId::of_control_plane(&domain());
    assert_eq!(issue(own.as_str()).0, Some(CaError::ControlPlaneIdentity));
    let (refused, foreign) = issue("spiffe://other.local/ns/a/sa/b");
    assert_eq!(refused, Some(CaError::ForeignTrustDomain(foreign)));
    assert_eq!(issue("spiffe://mesh.local").0, Some(CaError::NoPath));
    assert_eq!(issue("spiffe://mesh.local/ns/a/sa/b").0, None);

    let svid = mesh.ca.issue_control_plane_svid(HOUR, now()).unwrap();
    assert_eq!(*svid.id(), own);
}

#[test]
fn root_and_intermediate_survive_being_written_down() {
    let mesh = Mesh::new(&domain());
    let root_pem = mesh.root.to_pem().unwrap();
    let ca_pem = mesh.ca.to_pem().unwrap();
    let root = RootCa::from_pem(root_pem.as_bytes()).unwrap();
    let ca = IntermediateCa::from_pem(ca_pem.as_bytes()).unwrap();
    assert_eq!(root.fingerprint(), mesh.root.fingerprint());
    assert_eq!(root.trust_domain(), &domain());
    assert_eq!(root.not_after(), mesh.root.not_after());

    let key = KeyPair::generate().unwrap();
    let further = root.issue_intermediate(HOUR, now()).unwrap();
    for ca in [ca, further] {
        let issued = ca
            .issue_svid(key.public_key(), &id("a"), HOUR, now())
            .unwrap();
        assert!(recheck(&issued.chain, None, &mesh.bundle(), now()).is_ok());
    }

    assert!(RootCa::from_pem(ca_pem.as_bytes()).is_err());
    assert!(IntermediateCa::from_pem(root_pem.as_bytes()).is_err());
    assert!(RootCa::from_pem(b"").is_err());
    let other = KeyPair::generate().unwrap().to_pkcs8_pem().unwrap();
    let certificate = selvage_certs::certificates_to_pem(&[root.certificate().clone()]);
    let mixed = format!("{}{certificate}", *other);
    assert!(matches!(
        RootCa::from_pem(mixed.as_bytes()),
        Err(CaError::Unreadable(_))
    ));
}

#[test]
fn debug_output_shows_no_key() {
    let mesh = Mesh::new(&domain());
    let pem = mesh.root.to_pem().unwrap();
    let body = pem.lines().nth(2).unwrap();
    let shown = format!("{:?} {:?} {:?}", mesh.root, mesh.ca, mesh.svid(&id("a")));
    assert!(shown.contains("hidden") && !shown.contains(body));
}

#[test]
fn an_svid_survives_being_written_down_and_needs_its_own_key() {
    let mesh = Mesh::new(&domain());
    let svid = mesh.svid(&id("ratings"));
    let chain = svid.chain_pem();
    let key = svid.key().to_pkcs8_pem().unwrap();
    let again = Svid::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(again.chain(), svid.chain());
    assert_eq!(again.id(), svid.id());
    assert_eq!(again.not_after(), svid.not_after());

    let other = KeyPair::generate().unwrap();
    let refused = Svid::parse(svid.chain().to_vec(), other);
    assert_eq!(refused.err(), Some(InvalidSvid::KeyMismatch));
    let ca_as_leaf = Svid::parse(vec![svid.chain()[1].clone()], svid.key().clone());
    assert_eq!(ca_as_leaf.err(), Some(InvalidSvid::NoPath));
    assert_eq!(
        Svid::parse(vec![], svid.key().clone()).err(),
        Some(InvalidSvid::Empty)
    );
    assert_eq!(
        Svid::from_pem(b"", key.as_bytes()).err(),
        Some(InvalidSvid::Empty)
    );
    let long = chain.repeat(3);
    assert_eq!(
        Svid::from_pem(long.as_bytes(), key.as_bytes()).err(),
        Some(InvalidSvid::Pem)
    );
}
