//! Closed loops over HTTP/2 without TLS, by prior knowledge: each stream slot
//! sends its next request when the last answer is whole.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::net::TcpStream;

use crate::Failure;
use crate::backend::framed;
use crate::http1::Target;
use crate::tally::{self, Tally, Timing};

/// Per stream and per connection: flow control must not be what is measured.
const WINDOW: u32 = 1024 * 1024;
/// After a failure, so that one is not a storm.
const PAUSE: Duration = Duration::from_millis(10);
/// The message of a gRPC call, in bytes.
const MESSAGE: usize = 32;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    target: Target,
    /// Connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Requests at a time on each of them.
    #[arg(long, default_value_t = 32)]
    streams: usize,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// GET, a body.
    Plain,
    /// POST of a framed message, a framed message, trailers.
    Grpc,
}

struct Plan {
    target: SocketAddr,
    request: Request<()>,
    message: Option<Bytes>,
    streams: usize,
    tally: Rc<Tally>,
}

/// Runs the loop and prints what it measured.
pub(crate) fn run(options: &Options, kind: Kind) -> Result<(), Failure> {
    tally::measure(&options.timing, async |tally| {
        let plan = Rc::new(Plan {
            target: options.target.target,
            request: request(&options.target.authority, kind)?,
            message: (kind == Kind::Grpc).then(|| framed(&[b'x'; MESSAGE])),
            streams: options.streams,
            tally,
        });
        for _ in 0..options.connections {
            tokio::task::spawn_local(repeat(plan.clone()));
        }
        Ok(())
    })
}

fn request(authority: &str, kind: Kind) -> Result<Request<()>, http::Error> {
    let builder = Request::builder().header("user-agent", "bench");
    match kind {
        Kind::Plain => builder.uri(format!("http://{authority}/")).body(()),
        Kind::Grpc => builder
            .method(Method::POST)
            .uri(format!("http://{authority}/bench.Bench/Unary"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(()),
    }
}

/// A connection with its streams, opened again when it breaks.
async fn repeat(plan: Rc<Plan>) {
    loop {
        if let Err(error) = connection(&plan).await {
            plan.tally.failed(&error);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn connection(plan: &Rc<Plan>) -> Result<(), Failure> {
    let stream = TcpStream::connect(plan.target).await?;
    stream.set_nodelay(true)?;
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(stream)
        .await?;
    for _ in 0..plan.streams {
        tokio::task::spawn_local(slot(plan.clone(), send.clone()));
    }
    drop(send);
    connection.await?;
    Err("the connection was closed".into())
}

async fn slot(plan: Rc<Plan>, mut send: SendRequest<Bytes>) {
    loop {
        let began = Instant::now();
        let answered = match send.ready().await {
            Ok(ready) => {
                send = ready;
                call(&plan, &mut send).await
            }
            // The connection itself says why.
            Err(_) => return,
        };
        match answered {
            Ok(()) => plan.tally.done(began),
            Err(error) => {
                plan.tally.failed(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn call(plan: &Plan, send: &mut SendRequest<Bytes>) -> Result<(), Failure> {
    let (response, mut upload) = send.send_request(plan.request.clone(), plan.message.is_none())?;
    if let Some(message) = &plan.message {
        upload.send_data(message.clone(), true)?;
    }
    let response = response.await?;
    if response.status() != 200 {
        return Err(format!("status {}", response.status()).into());
    }
    let mut body = response.into_body();
    let (length, first) = read(plan, &mut body).await?;
    if plan.message.is_some() {
        check_grpc(length, first, &mut body).await?;
    }
    Ok(())
}

/// Reads the body to its end: its length, and the length that its gRPC frame claims.
async fn read(plan: &Plan, body: &mut RecvStream) -> Result<(usize, Option<usize>), Failure> {
    let mut length = 0;
    let mut claimed = None;
    while let Some(data) = body.data().await {
        let data = data?;
        if length == 0 {
            claimed = data
                .get(..5)
                .and_then(|frame| Some(u32::from_be_bytes(frame[1..].try_into().ok()?) as usize));
        }
        length += data.len();
        plan.tally.moved(data.len());
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((length, claimed))
}

async fn check_grpc(
    length: usize,
    claimed: Option<usize>,
    body: &mut RecvStream,
) -> Result<(), Failure> {
    if claimed.map(|claimed| claimed + 5) != Some(length) {
        return Err("a message that is not framed".into());
    }
    let trailers = body.trailers().await?;
    let status = trailers.as_ref().and_then(|map| map.get("grpc-status"));
    if status.is_none_or(|status| status != "0") {
        return Err(format!("grpc-status {status:?}").into());
    }
    Ok(())
}
