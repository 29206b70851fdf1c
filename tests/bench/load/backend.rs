//! The backend: HTTP/1.1 by hand, h2c with `h2`, raw TCP; one thread.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use clap::Args;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use crate::Failure;
use crate::backend_http1::{self, Answers};
use crate::bulk;

/// The usual answer, in bytes.
const BODY: usize = 128;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Per stream and per connection: flow control must not be what is measured.
const WINDOW: u32 = 1024 * 1024;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The port of HTTP/1.1.
    #[arg(long)]
    http1: u16,
    /// The port of HTTP/2 without TLS, gRPC too.
    #[arg(long)]
    h2: u16,
    /// The port of raw bytes.
    #[arg(long)]
    tcp: u16,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let answers = Rc::new(Answers::new(&[b'x'; BODY]));
        let http1 = listen(options.http1)?;
        let h2 = listen(options.h2)?;
        let tcp = listen(options.tcp)?;
        tokio::task::spawn_local(async move {
            while let Some(stream) = accept(&http1).await {
                let answers = answers.clone();
                tokio::task::spawn_local(async move {
                    // A caller that goes away ends its connection, nothing else.
                    let _ = backend_http1::serve(stream, &answers).await;
                });
            }
        });
        tokio::task::spawn_local(async move {
            while let Some(stream) = accept(&tcp).await {
                tokio::task::spawn_local(async move {
                    let _ = bulk::serve(stream).await;
                });
            }
        });
        while let Some(stream) = accept(&h2).await {
            tokio::task::spawn_local(async move {
                let _ = serve_h2(stream).await;
            });
        }
        Err("no more connections can be accepted".into())
    })
}

/// On every local address, because a service can have many of them.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    socket.listen(BACKLOG)
}

async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    listener.accept().await.ok().map(|(stream, _)| stream)
}

async fn serve_h2(stream: TcpStream) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(1024)
        .handshake::<_, Bytes>(stream)
        .await?;
    let body = Bytes::from_static(&[b'x'; BODY]);
    let message = framed(&body);
    while let Some(next) = connection.accept().await {
        let (request, respond) = next?;
        if request.headers().contains_key("te") || request.method() == http::Method::POST {
            tokio::task::spawn_local(answer_grpc(request, respond, message.clone()));
        } else {
            answer(respond, body.clone())?;
        }
    }
    Ok(())
}

fn answer(mut respond: SendResponse<Bytes>, body: Bytes) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    let length = HeaderValue::from(body.len());
    response.headers_mut().insert("content-length", length);
    respond
        .send_response(response, false)?
        .send_data(body, true)
}

/// Reads the message to its end, then answers with one and with trailers.
async fn answer_grpc(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    message: Bytes,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let mut response = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(message, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

/// `message` as gRPC frames it: not compressed, its length, itself.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}
