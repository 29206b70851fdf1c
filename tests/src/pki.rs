//! Identities for the processes under test: a root, an intermediate and leaf
//! certificates in files, well made or malformed on purpose. Minted with rcgen
//! alone, apart from the project's own authority, so that both must agree.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tempfile::TempDir;

/// The trust domain of the tests.
pub const TRUST_DOMAIN: &str = "mesh.local";

const HOUR: Duration = Duration::from_secs(3600);

/// A certificate authority of the tests with the folder that its files lie in.
pub struct Pki {
    folder: TempDir,
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
    count: AtomicU32,
}

/// What goes into a leaf certificate; [`Leaf::of`] is a proper one.
#[derive(Clone)]
pub struct Leaf {
    /// URI SANs; a proper one has exactly one.
    pub uris: Vec<String>,
    /// DNS SANs; a proper one has none.
    pub names: Vec<String>,
    /// Validity begins this long before now; negative ages are `starts_in`.
    pub age: Duration,
    /// Validity begins this long after now, when not zero.
    pub starts_in: Duration,
    /// Validity ends this long after now; zero: one minute ago.
    pub lasts: Duration,
    /// Whether it says CA:TRUE.
    pub authority: bool,
    /// Extended key usages.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// Signed by its own key, not by the authority.
    pub self_signed: bool,
}

impl Leaf {
    /// A proper leaf for `id`.
    #[must_use]
    pub fn of(id: &str) -> Self {
        Self {
            uris: vec![id.to_owned()],
            names: Vec::new(),
            age: HOUR,
            starts_in: Duration::ZERO,
            lasts: HOUR,
            authority: false,
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            self_signed: false,
        }
    }
}

/// One leaf certificate with its key, in memory and in files.
#[derive(Clone)]
pub struct Identity {
    /// The chain in PEM, the leaf first.
    pub certificate: PathBuf,
    /// The key in PEM.
    pub key: PathBuf,
    /// The root in PEM.
    pub trust_bundle: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key_der: Vec<u8>,
}

/// `spiffe://mesh.local/ns/NAMESPACE/sa/ACCOUNT`.
#[must_use]
pub fn spiffe_id(namespace: &str, account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}")
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is after 1970")
}

fn authority(uri: Option<&str>, path_length: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::Ca(path_length);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    if let Some(uri) = uri {
        params.subject_alt_names = vec![SanType::URI(
            uri.to_owned().try_into().expect("a URI is ASCII"),
        )];
    }
    validity(&mut params, now() - 2 * HOUR, now() + 100 * HOUR);
    params
}

fn validity(params: &mut CertificateParams, from: Duration, to: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + from;
    params.not_after = epoch + to;
}

fn key() -> KeyPair {
    KeyPair::generate().expect("P-256 keys can be made")
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// A new root with one intermediate, in a folder of its own.
    ///
    /// # Panics
    /// When the folder cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root =
            CertifiedIssuer::self_signed(authority(None, BasicConstraints::Unconstrained), key())
                .expect("a root can sign itself");
        let domain = format!("spiffe://{TRUST_DOMAIN}");
        let intermediate = CertifiedIssuer::signed_by(
            authority(Some(&domain), BasicConstraints::Constrained(0)),
            key(),
            &root,
        )
        .expect("a root can sign an intermediate");
        write(&folder.path().join("ca.pem"), &root.pem());
        Self {
            folder,
            root,
            intermediate,
            count: AtomicU32::new(0),
        }
    }

    /// The folder of the files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root, in PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// A TLS client that believes this authority alone, and the names of its certificates.
    #[must_use]
    pub fn trusting_client(&self, alpn: &[&str]) -> ClientConfig {
        self.trusting_client_of(alpn, rustls::ALL_VERSIONS)
    }

    /// The same, of certain versions of TLS.
    ///
    /// # Panics
    /// When rustls refuses the root.
    #[must_use]
    pub fn trusting_client_of(
        &self,
        alpn: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(self.root.der().clone())
            .expect("the root is an authority");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols(alpn);
        config
    }

    /// A proper identity for a service account.
    #[must_use]
    pub fn account(&self, namespace: &str, account: &str) -> Identity {
        self.issue(&Leaf::of(&spiffe_id(namespace, account)))
    }

    /// Issues whatever `leaf` describes.
    ///
    /// # Panics
    /// When rcgen refuses, or the folder cannot be written.
    #[must_use]
    pub fn issue(&self, leaf: &Leaf) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = |uri: &String| SanType::URI(uri.clone().try_into().expect("a URI is ASCII"));
        let name =
            |name: &String| SanType::DnsName(name.clone().try_into().expect("a name is ASCII"));
        params.subject_alt_names = leaf
            .uris
            .iter()
            .map(uri)
            .chain(leaf.names.iter().map(name))
            .collect();
        params.extended_key_usages.clone_from(&leaf.usages);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = if leaf.authority {
            IsCa::Ca(BasicConstraints::Unconstrained)
        } else {
            IsCa::ExplicitNoCa
        };
        params.use_authority_key_identifier_extension = true;
        let from = now() + leaf.starts_in - leaf.age;
        let to = if leaf.lasts.is_zero() {
            now() - Duration::from_secs(60)
        } else {
            now() + leaf.lasts
        };
        validity(&mut params, from, to);

        let key = key();
        let (certificate, chain) = if leaf.self_signed {
            let certificate = params.self_signed(&key).expect("a leaf can sign itself");
            (certificate.pem(), vec![certificate.der().clone()])
        } else {
            let certificate = params
                .signed_by(&key, &self.intermediate)
                .expect("an intermediate can sign");
            let pem = format!("{}{}", certificate.pem(), self.intermediate.pem());
            (
                pem,
                vec![certificate.der().clone(), self.intermediate.der().clone()],
            )
        };
        self.store(&certificate, chain, &key)
    }

    fn store(
        &self,
        certificate: &str,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
    ) -> Identity {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let identity = Identity {
            certificate: self.folder().join(format!("{number}.pem")),
            key: self.folder().join(format!("{number}.key")),
            trust_bundle: self.folder().join("ca.pem"),
            chain,
            key_der: key.serialize_der(),
        };
        write(&identity.certificate, certificate);
        write(&identity.key, &key.serialize_pem());
        identity
    }
}

impl Identity {
    /// The same certificate, but trusting another authority's root.
    #[must_use]
    pub fn trusting(mut self, other: &Pki) -> Self {
        self.trust_bundle = other.folder().join("ca.pem");
        self
    }

    /// A TLS client that presents this certificate and believes any server.
    ///
    /// # Panics
    /// When rustls refuses the certificate.
    #[must_use]
    pub fn client(&self, alpn: &[&str]) -> ClientConfig {
        let mut config = anyone(&provider())
            .with_client_auth_cert(self.chain.clone(), self.private_key())
            .expect("the key belongs to the certificate");
        config.alpn_protocols = protocols(alpn);
        config
    }

    /// A TLS server that presents this certificate and asks for none.
    ///
    /// # Panics
    /// When rustls refuses the certificate.
    #[must_use]
    pub fn server(&self, alpn: &[&str]) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.private_key())
            .expect("the key belongs to the certificate");
        config.alpn_protocols = protocols(alpn);
        config
    }

    /// The leaf in DER.
    #[must_use]
    pub fn leaf(&self) -> Vec<u8> {
        self.chain[0].to_vec()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()))
    }
}

/// A TLS client with no certificate of its own, which believes any server.
#[must_use]
pub fn anonymous_client(alpn: &[&str]) -> ClientConfig {
    let mut config = anyone(&provider()).with_no_client_auth();
    config.alpn_protocols = protocols(alpn);
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn anyone(
    provider: &Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let verifier = Anyone(provider.signature_verification_algorithms);
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

/// Believes any server: what is tested is what the *server* refuses.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(
            "TLS 1.2 is not spoken here".to_owned(),
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
