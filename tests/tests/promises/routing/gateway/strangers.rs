//! Who means no good is ended or refused at the gateway as at every other
//! door, and the others are served meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use selvage_tests::app::App;
use selvage_tests::gateway::Gateway;
use selvage_tests::h2frames::Peer;
use selvage_tests::h2frames::frame::{code, request, reset};
use selvage_tests::load::Load;
use selvage_tests::pki::Pki;
use selvage_tests::wire::Wire;

use super::{SocketAddr, all, backend, certificate, gateway, listener, route, with_files};

const HOST: &str = "a.example.com";

/// HTTP on 80 and HTTPS on 443, with short limits.
async fn scene() -> (Pki, App, Gateway, [SocketAddr; 2]) {
    let (pki, app) = (Pki::new(), App::echo().await);
    let resources = all(&[
        backend("app", "http", app.address),
        gateway(&[
            listener("http", 80, "HTTP", ""),
            with_files(
                listener("https", 443, "HTTPS", HOST),
                &certificate(&pki, &[HOST]),
            ),
        ]),
        route("HTTPRoute", "plain", "http", &[("app", 1)]),
        route("HTTPRoute", "tls", "https", &[("app", 1)]),
    ]);
    let mut edge = Gateway::builder(&[80, 443])
        .set("limits.headerTimeout", "500ms")
        .set("limits.handshakeTimeout", "500ms")
        .set("limits.handshakes", 2)
        .set("limits.headerBytes", "16KiB")
        .set("limits.uriBytes", "2KiB")
        .resources(&resources)
        .start()
        .await;
    let ports = [edge.port(80).await, edge.port(443).await];
    (pki, app, edge, ports)
}

#[tokio::test]
async fn heads_that_are_slow_or_huge_are_refused() {
    let (_pki, app, edge, [http, https]) = scene().await;
    let load = Load::start(http, "a", 2, Duration::from_millis(5));
    let large = "x".repeat(20 << 10);
    for (sent, status, flag) in [
        ("GET / HTTP/1.1\r\nhost: a".to_owned(), 408, "slow-request"),
        (
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {large}\r\n\r\n"),
            431,
            "headers-too-large",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", &large[..3000]),
            414,
            "uri-too-long",
        ),
    ] {
        let mut wire = Wire::connect(http).await;
        wire.send(&sent).await;
        let head = wire.head().await;
        assert_eq!(head.status(), status, "{flag}");
        assert_eq!(head.header("x-selvage-flag"), Some(flag));
    }
    // Handshakes that never end take their places for no longer than theirs takes.
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::connect(https).await;
        wire.send([22, 3, 1]).await;
        silent.push(wire);
    }
    let begun = Instant::now();
    for mut wire in silent {
        assert!(wire.rest().await.is_ok_and(|said| said.is_empty()));
    }
    let took = begun.elapsed();
    println!("four silent handshakes of 500 ms, two at a time, were ended after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    load.passes(20).await;
    let tally = load.stop().await;
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert_eq!(app.count(), tally.sent);
    let labels = [("side", "server"), ("outcome", "other")];
    let metrics = edge.metrics().await;
    assert!(metrics.count("selvage_tls_handshakes_total", &labels) >= 2);
}

#[tokio::test]
async fn streams_that_are_reset_by_the_hundred_end_their_connection() {
    let (pki, _app, edge, [http, https]) = scene().await;
    let load = Load::start(http, "a", 2, Duration::from_millis(5));
    let config = Arc::new(pki.trusting_client(&["h2"]));
    let peers = [
        Peer::connect(http).await,
        Peer::connect_tls(https, HOST, config).await,
    ];
    for mut peer in peers {
        peer.greet(&[]).await;
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", HOST),
            (":path", "/"),
        ];
        let mut stream = 1;
        for _ in 0..40 {
            let mut bytes = Vec::new();
            for _ in 0..50 {
                bytes.extend(request(stream, &fields).encode());
                bytes.extend(reset(stream, code::CANCEL).encode());
                stream += 2;
            }
            peer.send_bytes(&bytes).await;
        }
        peer.expect_end().await;
        assert_eq!(peer.heard.blame(), Some(code::ENHANCE_YOUR_CALM));
    }
    let tally = load.stop().await;
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert_eq!(edge.readiness().await.0, 200);
}
