//! Listeners and certificates come and go, and nobody loses a request by it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use rustls::ClientConfig;
use selvage_tests::app::{App, ok};
use selvage_tests::body;
use selvage_tests::client::{self, Http1, request};
use selvage_tests::gateway::Gateway;
use selvage_tests::load::Load;
use selvage_tests::pki::{Identity, Pki};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{
    SocketAddr, all, backend, certificate, connect, ending, gateway, hear_out, listener, named,
    route,
};

const HOST: &str = "a.example.com";

/// Callers over TLS: one with a new connection for each request, one that keeps its own.
struct Callers {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    set: JoinSet<Vec<String>>,
}

impl Callers {
    fn start(address: SocketAddr, config: &ClientConfig) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let mut set = JoinSet::new();
        for keeps in [false, true] {
            let told = (Arc::clone(&stop), Arc::clone(&sent));
            set.spawn(call(address, config.clone(), told, keeps));
        }
        Self { stop, sent, set }
    }

    /// Waits until `more` requests have been made from now on.
    async fn passes(&self, more: usize) {
        let goal = self.sent.load(Ordering::Relaxed) + more;
        wait::until("more load", PATIENCE, async || {
            self.sent.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    /// All requests, and those that failed in words.
    async fn stop(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        while let Some(caller) = wait::soon("the last answer", self.set.join_next()).await {
            failed.extend(caller.unwrap());
        }
        (self.sent.load(Ordering::Relaxed), failed)
    }
}

async fn call(
    address: SocketAddr,
    config: ClientConfig,
    (stop, sent): (Arc<AtomicBool>, Arc<AtomicUsize>),
    keeps: bool,
) -> Vec<String> {
    let mut failed = Vec::new();
    let mut kept: Option<Http1> = None;
    while !stop.load(Ordering::Relaxed) {
        sent.fetch_add(1, Ordering::Relaxed);
        let answered = async {
            let mut caller = match kept.take() {
                Some(caller) => caller,
                None => {
                    let stream = connect(address, HOST, config.clone()).await;
                    let stream = stream.map_err(|error| error.to_string())?;
                    Http1::over(stream)
                        .await
                        .map_err(|error| error.to_string())?
                }
            };
            let asked = request(Method::GET, HOST, "/", body::empty());
            let answer = caller
                .call(asked)
                .await
                .map_err(|error| error.to_string())?;
            if answer.status != 200 {
                return Err(format!("{} {}", answer.status, answer.flag()));
            }
            Ok(caller)
        };
        match answered.await {
            Ok(caller) => kept = keeps.then_some(caller),
            Err(failure) => failed.push(failure),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    failed
}

/// Replaces a file as a rotation does.
fn replace(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    std::fs::copy(from, &new).unwrap();
    std::fs::rename(new, to).unwrap();
}

/// Waits until new connections are shown this certificate.
async fn shown(address: SocketAddr, config: &ClientConfig, expected: &Identity) {
    let first = expected.leaf();
    wait::until("the new certificate", PATIENCE, async || {
        let stream = connect(address, HOST, config.clone()).await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap().to_vec();
        chain[0].as_ref() == first
    })
    .await;
}

#[tokio::test]
async fn certificate_files_are_replaced_under_load_without_a_loss() {
    let pki = Pki::new();
    let app = named("app").await;
    let builder = Gateway::builder(&[443]);
    let folder = builder.folder();
    let first = certificate(&pki, &[HOST]);
    let put = |identity: &Identity| {
        // For a moment the two do not go together.
        replace(&identity.certificate, &folder.join("edge.pem"));
        replace(&identity.key, &folder.join("edge.key"));
    };
    put(&first);
    let resources = all(&[
        backend("app", "http", app.address),
        gateway(&[ending(
            listener("https", 443, "HTTPS", HOST),
            "edge.pem",
            "edge.key",
        )]),
        route("HTTPRoute", "app", "https", &[("app", 1)]),
    ]);
    let mut edge = builder.resources(&resources).start().await;
    let address = edge.port(443).await;
    let config = pki.trusting_client(&["http/1.1"]);
    shown(address, &config, &first).await;
    let load = Callers::start(address, &config);
    for _ in 0..3 {
        let next = certificate(&pki, &[HOST]);
        put(&next);
        shown(address, &config, &next).await;
        load.passes(10).await;
    }
    let (sent, failed) = load.stop().await;
    println!(
        "certificate replaced 3 times: {sent} requests, {} failed",
        failed.len()
    );
    assert!(sent > 20, "{sent}");
    assert_eq!(failed, Vec::<String>::new());
}

/// A Secret with a certificate and its key.
fn secret(identity: &Identity) -> String {
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let document = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "edge", "namespace": "shop" },
        "stringData": { "tls.crt": text(&identity.certificate), "tls.key": text(&identity.key) },
    });
    document.to_string()
}

#[tokio::test]
async fn a_secret_is_rotated_under_load_without_a_loss() {
    let pki = Pki::new();
    let app = named("app").await;
    let mut https = listener("https", 443, "HTTPS", HOST);
    https["tls"] = json!({ "certificateRefs": [{ "name": "edge" }] });
    let with = |identity: &Identity| {
        all(&[
            backend("app", "http", app.address),
            secret(identity),
            gateway(std::slice::from_ref(&https)),
            route("HTTPRoute", "app", "https", &[("app", 1)]),
        ])
    };
    let first = certificate(&pki, &[HOST]);
    let mut edge = Gateway::builder(&[443])
        .resources(&with(&first))
        .start()
        .await;
    let address = edge.port(443).await;
    let config = pki.trusting_client(&["http/1.1"]);
    shown(address, &config, &first).await;
    let load = Callers::start(address, &config);
    for _ in 0..2 {
        let next = certificate(&pki, &[HOST]);
        edge.write_resources(&with(&next));
        shown(address, &config, &next).await;
        load.passes(10).await;
    }
    let (sent, failed) = load.stop().await;
    println!(
        "Secret rotated twice: {sent} requests, {} failed",
        failed.len()
    );
    assert!(sent > 20, "{sent}");
    assert_eq!(failed, Vec::<String>::new());
    let key = std::fs::read_to_string(&first.key).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for path in ["/config_dump", "/clusters", "/certs"] {
        let shown = client::get(edge.admin(), "localhost", path).await.text();
        assert!(!shown.contains(secret), "{path} shows a key");
    }
}

/// An application whose `/slow` waits to be let go.
async fn slow() -> (App, Arc<Notify>, Arc<Notify>) {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asking, going) = (Arc::clone(&asked), Arc::clone(&go));
    let app = App::start(move |request| {
        let (asking, going) = (Arc::clone(&asking), Arc::clone(&going));
        async move {
            if request.uri().path() == "/slow" {
                asking.notify_one();
                going.notified().await;
            }
            hear_out(request).await;
            ok("whole")
        }
    })
    .await;
    (app, asked, go)
}

fn listeners(app: &App, wanted: &[Value]) -> String {
    let mut documents = vec![backend("app", "http", app.address), gateway(wanted)];
    for one in wanted {
        let name = one["name"].as_str().unwrap();
        documents.push(route("HTTPRoute", name, name, &[("app", 1)]));
    }
    all(&documents)
}

#[tokio::test]
async fn a_listener_comes_and_goes_under_load_and_the_others_hear_nothing() {
    let (app, asked, go) = slow().await;
    let (one, two) = (
        listener("one", 80, "HTTP", ""),
        listener("two", 81, "HTTP", ""),
    );
    let alone = listeners(&app, std::slice::from_ref(&one));
    let both = listeners(&app, &[one, two]);
    let mut edge = Gateway::builder(&[80, 81]).resources(&alone).start().await;
    let load = Load::start(edge.port(80).await, "a", 4, Duration::from_millis(5));
    edge.write_resources(&both);
    let second = edge.port(81).await;
    assert_eq!(client::get(second, "a", "/").await.text(), "whole");
    let mut caller = Http1::connect(second).await;
    let slow = tokio::spawn(async move {
        let asked = request(Method::GET, "a", "/slow", body::empty());
        let answer = caller.call(asked).await.unwrap();
        (
            answer.text(),
            wait::soon("its end", async { !caller.is_open().await }).await,
        )
    });
    asked.notified().await;
    edge.write_resources(&alone);
    wait::until("the end of the listener", PATIENCE, async || {
        tokio::net::TcpStream::connect(second).await.is_err()
    })
    .await;
    // What was begun is finished.
    go.notify_one();
    assert_eq!(slow.await.unwrap(), ("whole".to_owned(), true));
    load.passes(50).await;
    let tally = load.stop().await;
    println!(
        "listener added and removed: {} requests, {} failed",
        tally.sent, tally.failed
    );
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
}

#[tokio::test]
async fn a_gateway_that_leaves_finishes_what_was_begun() {
    let (app, asked, go) = slow().await;
    let one = listener("one", 80, "HTTP", "");
    let resources = listeners(&app, &[one]);
    let mut edge = Gateway::builder(&[80]).resources(&resources).start().await;
    let address = edge.port(80).await;
    let mut caller = Http1::connect(address).await;
    let slow = tokio::spawn(async move {
        let asked = request(Method::GET, "a", "/slow", body::empty());
        let answer = caller.call(asked).await.unwrap();
        (answer.text(), answer.header("connection").to_owned())
    });
    asked.notified().await;
    edge.terminate();
    wait::until("the end of the listener", PATIENCE, async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    assert!(!edge.process.has_ended(), "one request is under way");
    go.notify_one();
    assert_eq!(
        slow.await.unwrap(),
        ("whole".to_owned(), "close".to_owned())
    );
    assert!(edge.process.exit(PATIENCE).await.success());
}
