//! Full mutual TLS 1.3 handshakes straight at a proxy's inbound side: no
//! resumption, nothing said afterwards. The caller half-closes and reads to the
//! end, so that a handshake counts only when the server has verified the
//! caller's certificate and has not refused it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;
use crate::tally::{self, Tally, Timing};

/// After a failure, so that one is not a storm.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    timing: Timing,
    /// Where to connect to.
    #[arg(long)]
    target: SocketAddr,
    /// The name to ask for.
    #[arg(long)]
    sni: String,
    /// The protocol to offer.
    #[arg(long)]
    alpn: String,
    /// The one group to offer.
    #[arg(long)]
    group: Group,
    /// Handshakes at a time.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// The caller's certificate, in PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// Its key, in PEM.
    #[arg(long)]
    key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    X25519,
    X25519mlkem768,
}

/// Runs the loop and prints what it measured.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let connector = TlsConnector::from(Arc::new(client(options)?));
    let name = ServerName::try_from(options.sni.clone())?;
    let target = options.target;
    tally::measure(&options.timing, async |tally: Rc<Tally>| {
        for _ in 0..options.connections {
            let (connector, name, tally) = (connector.clone(), name.clone(), tally.clone());
            tokio::task::spawn_local(async move {
                loop {
                    let began = Instant::now();
                    match handshake(&connector, target, name.clone()).await {
                        Ok(()) => tally.done(began),
                        Err(error) => {
                            tally.failed(&error);
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
            });
        }
        Ok(())
    })
}

async fn handshake(
    connector: &TlsConnector,
    target: SocketAddr,
    name: ServerName<'static>,
) -> io::Result<()> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(name, stream).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    loop {
        match stream.read(&mut rest).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // A server that closes without a farewell has still accepted the handshake.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn client(options: &Options) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![match options.group {
            Group::X25519 => kx_group::X25519,
            Group::X25519mlkem768 => kx_group::X25519MLKEM768,
        }],
        ..default_provider()
    });
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_client_auth_cert(chain(&options.certificate)?, key(&options.key)?)?;
    config.alpn_protocols = vec![options.alpn.as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    Ok(PrivateKeyDer::from_pem_file(path)?)
}

/// Checks the server's signature and not its name: what is measured is the server.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
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
        Err(rustls::Error::General("only TLS 1.3 is offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
