//! Who asks: one request, or some bytes, over a connection of its own, and
//! what came of it as a plain value.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::backend::WEBSOCKET_ACCEPT;
use super::case::Speaks;
use crate::body::{self, Body, BoxError};
use crate::client::{self, Answer};
use crate::grpc;
use crate::pki;
use crate::wait;

/// Anything that bytes go through.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where and how a request goes.
#[derive(Debug, Clone)]
pub struct Road {
    /// Whom to connect to.
    pub address: SocketAddr,
    /// TLS around it, and the server's name in it.
    pub sni: Option<String>,
    /// What is spoken.
    pub speaks: Speaks,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Came {
    /// The status; 0 of a connection of bytes.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or the messages of a call.
    pub body: Bytes,
    /// The `grpc-status`.
    pub grpc: Option<u32>,
    /// What the backend says it saw; null where none answered.
    pub account: Value,
    /// The leaf certificate that the server showed, DER.
    pub certificate: Option<Vec<u8>>,
}

/// An open connection that HTTP requests go over, one after the other.
pub struct Connection {
    sender: Sender,
    /// The leaf certificate that the server showed, DER.
    certificate: Option<Vec<u8>>,
    speaks: Speaks,
    task: tokio::task::AbortHandle,
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// Connects, and with TLS shakes hands.
async fn open(road: &Road) -> Result<(Box<dyn Stream>, Option<Vec<u8>>), BoxError> {
    let stream = wait::soon("a connection", TcpStream::connect(road.address)).await?;
    stream.set_nodelay(true)?;
    let Some(sni) = &road.sni else {
        return Ok((Box::new(stream), None));
    };
    let alpn: &[&str] = match road.speaks {
        Speaks::H2 | Speaks::Grpc => &["h2"],
        Speaks::Http | Speaks::Websocket => &["http/1.1"],
        Speaks::Tcp => &[],
    };
    let connector = TlsConnector::from(Arc::new(pki::anonymous_client(alpn)));
    let name = ServerName::try_from(sni.clone())?;
    let stream = wait::soon("a handshake", connector.connect(name, stream)).await?;
    let shown = stream.get_ref().1.peer_certificates();
    let leaf = shown
        .and_then(|chain| chain.first())
        .map(|leaf| leaf.to_vec());
    Ok((Box::new(stream), leaf))
}

impl Connection {
    /// Connects and speaks HTTP.
    ///
    /// # Errors
    /// When nobody accepts, or the handshake fails.
    pub async fn open(road: &Road) -> Result<Self, BoxError> {
        let (stream, certificate) = open(road).await?;
        let stream = TokioIo::new(stream);
        let (sender, task) = match road.speaks {
            Speaks::H2 | Speaks::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                (Sender::Two(sender), tokio::spawn(connection).abort_handle())
            }
            Speaks::Http | Speaks::Websocket | Speaks::Tcp => {
                let (sender, connection) = http1::handshake(stream).await?;
                let connection = tokio::spawn(connection.with_upgrades());
                (Sender::One(sender), connection.abort_handle())
            }
        };
        Ok(Self {
            sender,
            certificate,
            speaks: road.speaks,
            task,
        })
    }

    /// Asks, and reads the answer to its end.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn ask(
        &mut self,
        host: &str,
        path: &str,
        method: &str,
        headers: &[(String, String)],
    ) -> Result<Came, BoxError> {
        let request = self.request(host, path, method, headers)?;
        let response = wait::soon("the head of a response", async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Two(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        });
        let response = response.await?;
        let mut came = match self.speaks {
            Speaks::Websocket => upgraded(response).await?,
            _ => read(response).await?,
        };
        came.certificate.clone_from(&self.certificate);
        Ok(came)
    }

    fn request(
        &self,
        host: &str,
        path: &str,
        method: &str,
        headers: &[(String, String)],
    ) -> Result<Request<Body>, BoxError> {
        let method = method.parse()?;
        let mut request = match self.speaks {
            Speaks::H2 => client::request2(method, host, path, body::empty()),
            Speaks::Grpc => client::request2(
                http::Method::POST,
                host,
                path,
                body::full(grpc::frame(b"hello")),
            ),
            Speaks::Http | Speaks::Websocket | Speaks::Tcp => {
                client::request(method, host, path, body::empty())
            }
        };
        let fixed: &[(&str, &str)] = match self.speaks {
            Speaks::Grpc => &[("content-type", "application/grpc"), ("te", "trailers")],
            Speaks::Websocket => &[
                ("upgrade", "websocket"),
                ("connection", "upgrade"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ],
            _ => &[],
        };
        for (name, value) in fixed {
            let name: http::HeaderName = name.parse()?;
            request.headers_mut().insert(name, value.parse()?);
        }
        for (name, value) in headers {
            let name: http::HeaderName = name.parse()?;
            request.headers_mut().append(name, value.parse()?);
        }
        Ok(request)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(response: Response<Incoming>) -> Result<Came, BoxError> {
    let answer = Answer::read(response).await?;
    let grpc = answer
        .trailers
        .as_ref()
        .and_then(grpc::status_of)
        .or_else(|| grpc::status_of(&answer.headers));
    // A message of a call has five bytes before it.
    let framed = answer
        .header("content-type")
        .starts_with("application/grpc");
    let text = if framed && answer.body.len() > 5 {
        answer.body.slice(5..)
    } else {
        answer.body.clone()
    };
    Ok(Came {
        status: answer.status.as_u16(),
        account: serde_json::from_slice(&text).unwrap_or_default(),
        headers: answer.headers,
        body: answer.body,
        grpc,
        certificate: None,
    })
}

/// Says something over the upgraded connection, and hears it back.
async fn upgraded(response: Response<Incoming>) -> Result<Came, BoxError> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    if status != 101 {
        return read(response).await;
    }
    if headers
        .get("sec-websocket-accept")
        .map(|value| value.as_bytes())
        != Some(WEBSOCKET_ACCEPT.as_bytes())
    {
        return Err("the upgrade is not accepted as WebSocket asks for".into());
    }
    let stream = wait::soon("the upgrade", hyper::upgrade::on(response)).await?;
    let mut stream = TokioIo::new(stream);
    let said = b"\x81\x05hello";
    stream.write_all(said).await?;
    let mut heard = [0; 7];
    wait::soon("the echo", stream.read_exact(&mut heard)).await?;
    if &heard != said {
        return Err(format!("the echo of {said:?} is {heard:?}").into());
    }
    Ok(Came {
        status,
        headers,
        body: Bytes::copy_from_slice(&heard),
        ..Came::default()
    })
}

/// Connects to who greets with its name, says something, and hears it back.
///
/// # Errors
/// When the connection is refused or ends first.
pub async fn bytes(road: &Road) -> Result<Came, BoxError> {
    let (stream, certificate) = open(road).await?;
    let mut stream = BufReader::new(stream);
    let mut name = String::new();
    wait::soon("a greeting", stream.read_line(&mut name)).await?;
    if !name.ends_with('\n') {
        return Err("ended without a greeting".into());
    }
    stream.write_all(b"hello").await?;
    let mut heard = [0; 5];
    wait::soon("the echo", stream.read_exact(&mut heard)).await?;
    Ok(Came {
        body: Bytes::copy_from_slice(&heard),
        account: serde_json::json!({ "backend": name.trim_end() }),
        certificate,
        ..Came::default()
    })
}
