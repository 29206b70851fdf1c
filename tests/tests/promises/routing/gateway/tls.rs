//! Listeners of HTTPS: the certificate of the host that is asked for, and the
//! listener of the host that is meant.

use http::Method;
use rustls::version::{TLS12, TLS13};
use selvage_tests::app::App;
use selvage_tests::body;
use selvage_tests::client::{Http1, Http2, request, request2};
use selvage_tests::gateway::Gateway;
use selvage_tests::pki::{self, Pki};
use serde_json::Value;
use tokio::process::Command;

use super::{SocketAddr, all, backend, certificate, connect, gateway, listener, route, with_files};

/// Two listeners with certificates of their own, and one application.
struct Scene {
    pki: Pki,
    app: App,
    gateway: Gateway,
    address: SocketAddr,
}

impl Scene {
    async fn start(extra: Option<Value>) -> Self {
        let pki = Pki::new();
        let [exact, below] =
            ["a.example.com", "*.example.com"].map(|host| certificate(&pki, &[host]));
        let app = App::echo().await;
        let mut listeners = vec![
            with_files(listener("exact", 443, "HTTPS", "a.example.com"), &exact),
            with_files(listener("below", 443, "HTTPS", "*.example.com"), &below),
        ];
        listeners.extend(extra);
        let resources = all(&[
            backend("app", "http", app.address),
            gateway(&listeners),
            route("HTTPRoute", "exact", "exact", &[("app", 1)]),
            route("HTTPRoute", "below", "below", &[("app", 1)]),
        ]);
        let mut gateway = Gateway::builder(&[443]).resources(&resources).start().await;
        let address = gateway.port(443).await;
        Self {
            pki,
            app,
            gateway,
            address,
        }
    }

    /// The status and the flag of one request over HTTP/2.
    async fn asks(&self, name: &str, host: &str) -> (u16, String) {
        let stream = connect(self.address, name, self.pki.trusting_client(&["h2"])).await;
        let caller = Http2::over(stream.unwrap()).await.unwrap();
        let answer = caller
            .call(request2(Method::GET, host, "/", body::empty()))
            .await;
        let answer = answer.unwrap();
        (answer.status.as_u16(), answer.flag().to_owned())
    }
}

#[tokio::test]
async fn the_certificate_is_that_of_the_host_asked_for() {
    let scene = Scene::start(None).await;
    // Clients that believe nothing but what the names say.
    for (name, alpn, version) in [
        ("a.example.com", "h2", &TLS13),
        ("a.example.com", "http/1.1", &TLS12),
        ("x.example.com", "http/1.1", &TLS13),
        ("x.example.com", "h2", &TLS12),
    ] {
        let config = scene.pki.trusting_client_of(&[alpn], &[version]);
        let stream = connect(scene.address, name, config).await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.protocol_version(), Some(version.version), "{name}");
        assert_eq!(session.alpn_protocol(), Some(alpn.as_bytes()));
        let status = if alpn == "h2" {
            let caller = Http2::over(stream).await.unwrap();
            let asked = request2(Method::GET, name, "/", body::empty());
            caller.call(asked).await.unwrap().status
        } else {
            let mut caller = Http1::over(stream).await.unwrap();
            let asked = request(Method::GET, name, "/", body::empty());
            caller.call(asked).await.unwrap().status
        };
        assert_eq!(status, 200, "{name} {alpn}");
        let seen = scene.app.last();
        assert_eq!(seen.header("x-forwarded-proto"), "https");
    }
    for name in ["b.org", "example.com"] {
        let config = pki::anonymous_client(&["h2"]);
        let refused = connect(scene.address, name, config).await.err().unwrap();
        let said = refused.to_string();
        assert!(said.contains("UnrecognisedName"), "{name}: {said}");
    }
    let metrics = scene.gateway.metrics().await;
    let counted = |outcome| {
        let labels = [("side", "server"), ("outcome", outcome)];
        metrics.count("selvage_tls_handshakes_total", &labels)
    };
    assert_eq!((counted("ok"), counted("other")), (4, 2));
}

#[tokio::test]
async fn a_request_for_another_listener_is_misdirected() {
    let b_org = {
        let pki = Pki::new();
        with_files(
            listener("other", 443, "HTTPS", "b.org"),
            &certificate(&pki, &["b.org"]),
        )
    };
    let scene = Scene::start(Some(b_org)).await;
    for (name, host, status, flag) in [
        ("a.example.com", "a.example.com", 200, ""),
        ("a.example.com", "A.example.com:443", 200, ""),
        ("x.example.com", "y.example.com", 200, ""),
        ("x.example.com", "a.example.com", 421, "misdirected"),
        ("a.example.com", "x.example.com", 421, "misdirected"),
        ("a.example.com", "b.org", 421, "misdirected"),
        ("a.example.com", "elsewhere", 404, "no-route"),
    ] {
        let answered = scene.asks(name, host).await;
        assert_eq!(answered, (status, flag.to_owned()), "{host} by {name}");
    }
    assert_eq!(scene.app.count(), 3);
    // The file is gone with its folder: one listener waits for its certificate, the others serve.
    let shown = scene.gateway.shows("/certs").await["gateway"].clone();
    let wrong: Vec<&Value> = shown
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| !it["error"].is_null())
        .collect();
    assert_eq!(wrong.len(), 1, "{shown}");
    assert_eq!(wrong[0]["listener"], "other");
}

#[tokio::test]
async fn a_session_resumes_at_its_own_listener_alone() {
    let scene = Scene::start(None).await;
    let config = scene.pki.trusting_client(&["http/1.1"]);
    let resumed = async |name: &'static str| {
        let stream = connect(scene.address, name, config.clone()).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        let mut caller = Http1::over(stream).await.unwrap();
        // Tickets come with the first answer.
        let asked = request(Method::GET, name, "/", body::empty());
        assert_eq!(caller.call(asked).await.unwrap().status, 200);
        kind == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumed("a.example.com").await);
    assert!(resumed("a.example.com").await);
    assert!(!resumed("x.example.com").await);
}

#[tokio::test]
async fn curl_is_served_by_the_name_it_asks_for() {
    let scene = Scene::start(None).await;
    let port = scene.address.port();
    let curl = async |host: &str, version: &str| {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "5", version])
            .args([
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code} %{http_version}",
            ])
            // OpenSSL tells issuers apart by their names, which those of a Pki have not;
            // which certificate is shown, the other tests see.
            .arg("--insecure")
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
            .arg(format!("https://{host}:{port}/"));
        let output = command.output().await.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(curl("a.example.com", "--http2").await, "200 2");
    assert_eq!(curl("x.example.com", "--http1.1").await, "200 1.1");
    assert_eq!(curl("b.org", "--http2").await, "000 0");
}
