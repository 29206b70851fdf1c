//! Two rustls connections joined in memory, and peers that do not play by the rules.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme,
};

use crate::mint::Presented;

/// Both ends after they have nothing more to say.
pub(crate) struct Ended {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<Error>,
    pub(crate) server_error: Option<Error>,
}

impl Ended {
    /// Neither side refused, and both have finished.
    pub(crate) fn is_up(&self) -> bool {
        let refused = self.client_error.is_some() || self.server_error.is_some();
        !refused && !self.client.is_handshaking() && !self.server.is_handshaking()
    }
}

/// A handshake under the SNI of a service port, with what follows it (tickets, alerts) delivered.
pub(crate) fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Ended {
    let name = ServerName::try_from("p80.ratings.shop.mesh.local").unwrap();
    let mut ended = Ended {
        client: ClientConnection::new(Arc::clone(client), name).unwrap(),
        server: ServerConnection::new(Arc::clone(server)).unwrap(),
        client_error: None,
        server_error: None,
    };
    loop {
        let mut wire = Vec::new();
        while ended.client.wants_write() {
            ended.client.write_tls(&mut wire).unwrap();
        }
        let mut moved = !wire.is_empty();
        let mut rest = &wire[..];
        while !rest.is_empty() && ended.server_error.is_none() {
            ended.server.read_tls(&mut rest).unwrap();
            ended.server_error = ended.server.process_new_packets().err();
        }
        wire.clear();
        while ended.server.wants_write() {
            ended.server.write_tls(&mut wire).unwrap();
        }
        moved |= !wire.is_empty();
        let mut rest = &wire[..];
        while !rest.is_empty() && ended.client_error.is_none() {
            ended.client.read_tls(&mut rest).unwrap();
            ended.client_error = ended.client.process_new_packets().err();
        }
        if !moved {
            return ended;
        }
    }
}

/// A client that presents anything (or nothing) and trusts everybody.
pub(crate) fn reckless_client(presented: Option<Presented>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsEverybody));
    let mut config = match presented {
        Some(presented) => builder.with_client_cert_resolver(unchecked(presented)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A server that presents anything and takes any client.
pub(crate) fn reckless_server(presented: Presented, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(TrustsEverybody))
        .with_cert_resolver(unchecked(presented));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Whether or not the key belongs to the leaf.
fn unchecked(presented: Presented) -> Arc<SingleCertAndKey> {
    let key = any_supported_type(&presented.key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(
        presented.chain,
        key,
    )))
}

#[derive(Debug)]
struct TrustsEverybody;

fn schemes() -> Vec<SignatureScheme> {
    default_provider()
        .signature_verification_algorithms
        .supported_schemes()
}

impl ServerCertVerifier for TrustsEverybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for TrustsEverybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
