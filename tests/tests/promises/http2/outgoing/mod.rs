//! The sidecar as client: an application in hand-made frames says what it must
//! not, or what few say. The caller gets the good answer or one of the
//! sidecar's own, never none; no request is sent twice to the same effect; and
//! the next request is served.

mod answers; // to one request
mod connections; // to a whole connection
mod strangers; // that are no HTTP/2

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use http::{Method, Request};
use selvage_tests::app::RawApp;
use selvage_tests::body::{self, Body};
use selvage_tests::client::{Answer, Http1, request};
use selvage_tests::h2frames::frame::{data, headers, settings};
use selvage_tests::h2frames::{Frame, Heard, Peer};
use selvage_tests::mesh::{plaintext_caller, traffic_policy};
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::{ORDERS, Sidecar};

use super::{END, JUDGEMENT};

/// What an application does with a request.
#[derive(Clone)]
pub(super) enum Act {
    /// Sends frames, and listens on.
    Send(Vec<Frame>),
    /// Sends frames, and closes the connection.
    Leave(Vec<Frame>),
}

/// What it does by path, stream, and how often the path was asked for before.
type Acting = Arc<dyn Fn(&str, u32, usize) -> Act + Send + Sync>;

/// An application of frames.
struct Origin {
    app: RawApp,
    /// How often each path was asked for.
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Origin {
    async fn start(
        greeting: Vec<Frame>,
        act: impl Fn(&str, u32, usize) -> Act + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(BTreeMap::new()));
        let (counting, acting): (_, Acting) = (Arc::clone(&asked), Arc::new(act));
        let app = RawApp::start(move |wire, _| {
            let (asked, act) = (Arc::clone(&counting), Arc::clone(&acting));
            let greeting = greeting.clone();
            async move {
                let mut peer = Peer::of(wire);
                if peer.take_preface().await {
                    peer.send_all(&greeting).await;
                    serve(&mut peer, &asked, &act).await;
                }
            }
        })
        .await;
        Self { app, asked }
    }

    async fn caller(&self) -> (Pki, Sidecar) {
        caller_of(&self.app, "").await
    }

    fn asked(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.get(path).copied().unwrap_or(0)
    }
}

/// The caller's sidecar of an application, with more of a traffic policy; its breaker never opens.
async fn caller_of(app: &RawApp, policy: &str) -> (Pki, Sidecar) {
    let patient = "  circuitBreaker: { consecutiveFailures: 0 }\n";
    let policy = traffic_policy(&format!("{patient}{policy}"));
    plaintext_caller("http2", &[app.address], &policy).await
}

/// Answers every request well, once it has come to its end.
async fn answer_all(mut peer: Peer) {
    peer.send_all(&greeting()).await;
    let mut answered = BTreeSet::new();
    while peer.listen().await {
        let streams: Vec<u32> = peer.heard.streams.keys().copied().collect();
        for stream in streams {
            if peer.heard.stream(stream).ended && answered.insert(stream) {
                peer.send_all(&good(stream)).await;
            }
        }
    }
}

async fn serve(peer: &mut Peer, asked: &Mutex<BTreeMap<String, usize>>, act: &Acting) {
    let mut served = BTreeSet::new();
    while peer.listen().await {
        let fresh = |stream: &u32| !served.contains(stream);
        let with_head = peer
            .heard
            .streams
            .iter()
            .filter(|(_, exchange)| !exchange.heads.is_empty());
        let Some(stream) = with_head.map(|(stream, _)| *stream).find(fresh) else {
            continue;
        };
        served.insert(stream);
        let path = peer.heard.stream(stream).field(":path").to_owned();
        let before = {
            let mut asked = asked.lock().unwrap();
            let count = asked.entry(path.clone()).or_default();
            *count += 1;
            *count - 1
        };
        match act(&path, stream, before) {
            Act::Send(frames) => peer.send_all(&frames).await,
            Act::Leave(frames) => {
                // All is read: else the close would be a reset, and take the frames with it.
                let has_ended = |heard: &Heard| heard.stream(stream).ended;
                peer.wait(JUDGEMENT, has_ended).await;
                peer.send_all(&frames).await;
                return;
            }
        }
    }
}

/// 200 and a body, whole.
fn good(stream: u32) -> Vec<Frame> {
    vec![head(stream, &[]), data(stream, END, "good")]
}

/// The head of a 200 with more fields, whose body follows.
fn head(stream: u32, more: &[(&str, &str)]) -> Frame {
    headers(stream, 0, &[&[(":status", "200")], more].concat())
}

/// SETTINGS as every server says them.
fn greeting() -> Vec<Frame> {
    vec![settings(&[])]
}

/// What the caller of a request saw.
#[derive(Debug)]
enum Seen {
    /// A whole answer.
    Whole(Box<Answer>),
    /// A connection or a body that broke off.
    Broken(String),
    /// Nothing.
    Hangs,
}

/// A request over HTTP/1.1 on a connection of its own.
async fn ask(caller: &Sidecar, method: &Method, path: &str) -> Seen {
    let body = if *method == Method::POST {
        body::full("x")
    } else {
        body::empty()
    };
    ask_with(caller, request(method.clone(), ORDERS, path, body)).await
}

async fn ask_with(caller: &Sidecar, request: Request<Body>) -> Seen {
    let outbound = caller.outbound();
    let asking = async {
        let mut connection = Http1::connect(outbound).await;
        connection.call(request).await
    };
    match tokio::time::timeout(JUDGEMENT, asking).await {
        Ok(Ok(answer)) => Seen::Whole(Box::new(answer)),
        Ok(Err(error)) => Seen::Broken(error.to_string()),
        Err(_) => Seen::Hangs,
    }
}
