//! HTTP/2 as RFC 9113 and RFC 7541 write it, frame by frame over real sockets:
//! the sidecar as server, as client, and under floods. Nothing here knows how
//! the sidecar speaks it.

mod exchanges; // what goes well
mod fields; // header blocks, malformed messages
mod floods; // more than any peer needs
mod framing; // frames by themselves
mod outgoing; // the sidecar as client
mod rows; // how a table is run
mod streams; // what a stream's state allows
mod windows; // flow control

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use selvage_tests::app::{App, ok, status};
use selvage_tests::body::{self, Body};
use selvage_tests::h2frames::Peer;
use selvage_tests::h2frames::frame::{flag, headers, request};
use selvage_tests::h2frames::{Exchange, Frame};
use selvage_tests::mesh::service;
use selvage_tests::pki::{Identity, Pki, TRUST_DOMAIN};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use serde_json::Value;
use tokio::sync::watch;

/// A stream that no test uses before it asks for another answer on the same connection.
const NEXT_STREAM: u32 = 1001;

/// How callers reach the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// HTTP/2 by prior knowledge at the outbound listener.
    Plaintext,
    /// Mutual TLS with ALPN `h2` at the inbound listener.
    MutualTls,
}

/// One sidecar between raw callers and a proper application.
struct Scene {
    way: Way,
    sidecar: Sidecar,
    app: App,
    caller: Identity,
    /// Paths of requests whose body came to its end at the application.
    completed: Arc<Mutex<Vec<String>>>,
    /// Requests that the application was still answering when they were cancelled.
    cancelled: watch::Receiver<usize>,
    /// Lets the answers to `/gate` go.
    gate: watch::Sender<bool>,
    _pki: Pki,
}

/// Counts where a request is dropped before its answer, which takes the counter away.
struct Cancelled(Option<watch::Sender<usize>>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(counter) = &self.0 {
            counter.send_modify(|count| *count += 1);
        }
    }
}

impl Scene {
    async fn of(way: Way) -> Self {
        Self::with(way, &[]).await
    }

    /// The scene with settings of the sidecar.
    async fn with(way: Way, settings: &[(&str, Value)]) -> Self {
        Self::speaking("http2", way, settings).await
    }

    /// The scene whose application's port is declared to speak `protocol`.
    async fn speaking(protocol: &str, way: Way, settings: &[(&str, Value)]) -> Self {
        let pki = Pki::new();
        let completed = Arc::new(Mutex::new(Vec::new()));
        let (cancelling, cancelled) = watch::channel(0);
        let (gate, opened) = watch::channel(false);
        let kept = Arc::clone(&completed);
        let app = App::start(move |request| {
            let (kept, opened) = (Arc::clone(&kept), opened.clone());
            let cancelling = Cancelled(Some(cancelling.clone()));
            application(request, kept, opened, cancelling)
        })
        .await;
        let mut builder = match way {
            Way::Plaintext => Sidecar::builder("client").resources(&service(
                "orders",
                protocol,
                &[(app.address, None)],
            )),
            Way::MutualTls => Sidecar::builder("orders").application(80, app.address, protocol),
        };
        for (path, value) in settings {
            builder = builder.set(path, value.clone());
        }
        Self {
            way,
            sidecar: builder.start(&pki).await,
            app,
            caller: pki.account("shop", "client"),
            completed,
            cancelled,
            gate,
            _pki: pki,
        }
    }

    /// A caller that has said nothing yet.
    async fn connect(&self) -> Peer {
        match self.way {
            Way::Plaintext => Peer::connect(self.sidecar.outbound()).await,
            Way::MutualTls => {
                let config = Arc::new(self.caller.client(&["h2"]));
                let name = format!("p80.orders.shop.{TRUST_DOMAIN}");
                Peer::connect_tls(self.sidecar.inbound(), &name, config).await
            }
        }
    }

    /// A caller that has greeted with `settings`, and was greeted.
    async fn greeted(&self, settings: &[(u16, u32)]) -> Peer {
        let mut peer = self.connect().await;
        peer.greet(settings).await;
        peer
    }

    fn completed(&self) -> Vec<String> {
        self.completed.lock().unwrap().clone()
    }
}

/// What the application does, by path: `/hold` never answers, `/gate` when it is let, `/collect`
/// after the request's end, `/echo` with the request's own body and trailers, `/bytes/N` with N
/// bytes, `/status/N` with a status.
async fn application(
    request: Request<Incoming>,
    completed: Arc<Mutex<Vec<String>>>,
    mut gate: watch::Receiver<bool>,
    mut cancelled: Cancelled,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut words = path.trim_start_matches('/').split('/');
    let word = words.next().unwrap_or_default();
    let number: usize = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or_default();
    let response = match word {
        "hold" => std::future::pending().await,
        "gate" => {
            gate.wait_for(|open| *open).await.unwrap();
            ok("at last")
        }
        "collect" => match request.into_body().collect().await {
            Ok(body) => {
                completed.lock().unwrap().push(path);
                ok(body.to_bytes().len().to_string())
            }
            Err(_) => status(500),
        },
        "echo" => Response::new(request.into_body().map_err(Into::into).boxed_unsync()),
        "bytes" if request.method() == Method::HEAD => {
            let mut response = status(200);
            response.headers_mut().insert(CONTENT_LENGTH, number.into());
            response
        }
        "bytes" => ok(Bytes::from(vec![b'x'; number])),
        "status" => status(u16::try_from(number).unwrap()),
        _ => {
            let mut response = Response::new(body::empty());
            response
                .headers_mut()
                .insert("x-path", path.parse().unwrap());
            response
        }
    };
    cancelled.0 = None;
    response
}

/// The fields of a proper request.
fn fields<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", ORDERS),
        (":path", path),
    ]
}

/// A proper request without a body.
fn get(stream: u32, path: &str) -> Frame {
    request(stream, &fields("GET", path))
}

/// The head of a proper request whose body follows.
fn post(stream: u32, path: &str) -> Frame {
    headers(stream, 0, &fields("POST", path))
}

/// The answer to a proper request on a connection that may have seen worse.
async fn next_answer(peer: &mut Peer) -> Exchange {
    peer.send(&get(NEXT_STREAM, "/next")).await;
    peer.answer(NEXT_STREAM).await
}

/// The end of a stream, as a flag of DATA and HEADERS.
const END: u8 = flag::END_STREAM;

/// How long a peer's judgement of what it was sent may take.
const JUDGEMENT: Duration = Duration::from_secs(3);
