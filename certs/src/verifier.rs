//! What rustls asks during a handshake, answered from a trust bundle and SPIFFE ids.
//!
//! Three verifiers: of a server whose id is known beforehand, of a client that is anybody of the
//! trust domain, and of the control plane met for the first time with nothing but its root's
//! fingerprint. None looks at a DNS name: the server name is used for SNI and nothing else.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::aws_lc_rs as algorithms;

use crate::bundle::{TrustBundle, fingerprint};
use crate::chain::{self, INTERMEDIATES, RefusedPeer, SIGNATURES};
use crate::id::{SpiffeId, TrustDomain};
use crate::leaf::InvalidSvid;
use crate::time::from_unix_time;

static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: SIGNATURES,
    mapping: &[
        (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            &[algorithms::ECDSA_P256_SHA256],
        ),
        (
            SignatureScheme::ECDSA_NISTP384_SHA384,
            &[algorithms::ECDSA_P384_SHA384],
        ),
        (SignatureScheme::ED25519, &[algorithms::ED25519]),
        (
            SignatureScheme::RSA_PSS_SHA256,
            &[algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
        ),
        (
            SignatureScheme::RSA_PSS_SHA384,
            &[algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
        ),
        (
            SignatureScheme::RSA_PSS_SHA512,
            &[algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY],
        ),
    ],
};

/// The part every verifier answers alike: signatures of TLS 1.3 by the schemes above, none of TLS 1.2.
macro_rules! tls13_signatures_only {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &ALGORITHMS)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            ALGORITHMS.supported_schemes()
        }
    };
}

/// Accepts a server that is exactly `expected`.
#[derive(Debug)]
pub(crate) struct ServerIs {
    pub(crate) expected: SpiffeId,
    pub(crate) bundle: Arc<TrustBundle>,
}

/// Accepts a client that is anybody of the bundle's trust domain.
#[derive(Debug)]
pub(crate) struct ClientOfTrustDomain {
    pub(crate) bundle: Arc<TrustBundle>,
    /// Whether one without a certificate is refused.
    pub(crate) mandatory: bool,
}

/// Accepts the control plane under the one root whose SHA-256 is known.
#[derive(Debug)]
pub(crate) struct ControlPlaneUnderRoot {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) trust_domain: TrustDomain,
}

impl ControlPlaneUnderRoot {
    /// The bundle of the presented root, if there is one with the right fingerprint.
    fn pinned(&self, presented: &[CertificateDer<'_>]) -> Result<TrustBundle, RefusedPeer> {
        if presented.len() > INTERMEDIATES {
            return Err(InvalidSvid::TooLong.into());
        }
        let root = presented
            .iter()
            .find(|der| fingerprint(der) == self.fingerprint);
        let root = root.ok_or(RefusedPeer::Untrusted(webpki::Error::UnknownIssuer))?;
        TrustBundle::from_der(self.trust_domain.clone(), 0, [root.clone().into_owned()])
            .map_err(|_| RefusedPeer::Untrusted(webpki::Error::UnknownIssuer))
    }
}

impl ServerCertVerifier for ServerIs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = from_unix_time(now);
        chain::verify(
            end_entity,
            intermediates,
            Some(&self.expected),
            &self.bundle,
            now,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures_only!();
}

impl ServerCertVerifier for ControlPlaneUnderRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let bundle = self.pinned(intermediates)?;
        let expected = SpiffeId::of_control_plane(&self.trust_domain);
        let now = from_unix_time(now);
        chain::verify(end_entity, intermediates, Some(&expected), &bundle, now)?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures_only!();
}

impl ClientCertVerifier for ClientOfTrustDomain {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: a client of the mesh has one identity and need not choose.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        chain::verify(
            end_entity,
            intermediates,
            None,
            &self.bundle,
            from_unix_time(now),
        )?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures_only!();
}
