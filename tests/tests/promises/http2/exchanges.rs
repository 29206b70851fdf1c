//! What goes well: requests side by side, bodies in pieces, trailers, answers
//! without a body, interim answers, cancelling, limits that cost one stream and
//! not its connection, and GOAWAY from either side.

use std::time::Duration;

use http_body_util::BodyExt;
use selvage_tests::app::{App, RawApp, ok};
use selvage_tests::h2frames::frame::{
    MOST_WINDOW, code, data, flag, goaway, headers, kind, request, reset, setting, settings,
};
use selvage_tests::h2frames::hpack;
use selvage_tests::h2frames::{Frame, Peer};
use selvage_tests::mesh::plaintext_caller;
use selvage_tests::wait::{self, PATIENCE};

use super::{END, NEXT_STREAM, Scene, Way, fields, get, next_answer, post};

#[tokio::test]
async fn interleaved_requests_keep_their_bodies_apart() {
    const STREAMS: [u32; 5] = [1, 3, 5, 7, 9];
    const ROUNDS: u32 = 20;
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::of(way).await;
        let mut peer = scene.greeted(&[]).await;
        peer.send_all(&STREAMS.map(|stream| post(stream, "/echo")))
            .await;
        for round in 0..ROUNDS {
            for stream in STREAMS {
                let end = if round + 1 == ROUNDS { END } else { 0 };
                let piece = format!("{stream}:{round};");
                peer.send(&data(stream, end, piece)).await;
            }
        }
        for stream in STREAMS {
            let whole: String = (0..ROUNDS)
                .map(|round| format!("{stream}:{round};"))
                .collect();
            let exchange = peer.answer(stream).await;
            assert_eq!(
                (exchange.status(), exchange.body),
                (200, whole.into_bytes())
            );
        }
    }
}

#[tokio::test]
async fn a_body_in_single_octets_arrives_whole() {
    const BATCHES: usize = 50;
    const BATCH: usize = 100;
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::of(way).await;
        let mut peer = scene.greeted(&[]).await;
        peer.send(&post(1, "/echo")).await;
        for batch in 1..=BATCHES {
            peer.send_all(&vec![data(1, 0, "x"); BATCH]).await;
            // What was echoed was read: a caller in a hurry may be taken for a flood.
            peer.expect("an echo", |heard| {
                heard.stream(1).body.len() == batch * BATCH
            })
            .await;
        }
        peer.send(&data(1, END, "")).await;
        assert!(peer.answer(1).await.is_answered());
    }
}

#[tokio::test]
async fn trailers_cross_in_both_directions() {
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::of(way).await;
        let mut peer = scene.greeted(&[]).await;
        let trailers = request(1, &[("x-checksum", "abc"), ("x-more", "yes")]);
        peer.send_all(&[post(1, "/echo"), data(1, 0, "body"), trailers])
            .await;
        let exchange = peer.answer(1).await;
        assert_eq!(
            (exchange.status(), exchange.body.as_slice()),
            (200, &b"body"[..])
        );
        assert_eq!(exchange.heads.len(), 2, "{exchange:?}");
        assert_eq!(exchange.field("x-checksum"), "abc");
        assert_eq!(exchange.field("x-more"), "yes");
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let rows = [
        ("HEAD", "/bytes/7", 200),
        ("GET", "/status/204", 204),
        ("GET", "/status/304", 304),
        ("HEAD", "/status/404", 404),
    ];
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::of(way).await;
        let mut peer = scene.greeted(&[]).await;
        for (number, (method, path, status)) in (0..).zip(rows) {
            let stream = 2 * number + 1;
            peer.send(&request(stream, &fields(method, path))).await;
            let exchange = peer.answer(stream).await;
            assert_eq!(
                (exchange.status(), exchange.body.len(), exchange.reset),
                (status, 0, None),
                "{method} {path}"
            );
            if path == "/bytes/7" {
                assert_eq!(
                    exchange.field("content-length"),
                    "7",
                    "as GET would have it"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_caller_that_waits_for_continue_gets_it() {
    // RFC 9110 §10.1.1: whoever takes the expectation from the request must answer it.
    for protocol in ["http", "http2"] {
        let app = App::start(|request| async {
            let read = request.into_body().collect().await;
            ok(read.unwrap().to_bytes())
        })
        .await;
        let (_pki, caller) = plaintext_caller(protocol, &[app.address], "").await;
        let mut peer = Peer::connect(caller.outbound()).await;
        peer.greet(&[]).await;
        let mut expecting = fields("POST", "/");
        expecting.extend([("expect", "100-continue"), ("content-length", "3")]);
        peer.send(&headers(1, 0, &expecting)).await;
        peer.expect("100 Continue", |heard| {
            heard.stream(1).statuses().first() == Some(&100)
        })
        .await;
        peer.send(&data(1, END, "abc")).await;
        let exchange = peer.answer(1).await;
        assert_eq!(
            (exchange.statuses(), exchange.body.as_slice()),
            (vec![100, 200], &b"abc"[..]),
            "{protocol}"
        );
    }
}

#[tokio::test]
async fn a_caller_that_does_not_wait_for_continue_is_served() {
    for protocol in ["http", "http2"] {
        let app = App::echo().await;
        let (_pki, caller) = plaintext_caller(protocol, &[app.address], "").await;
        let mut peer = Peer::connect(caller.outbound()).await;
        peer.greet(&[]).await;
        let mut expecting = fields("POST", "/");
        expecting.extend([("expect", "100-continue"), ("content-length", "3")]);
        peer.send_all(&[headers(1, 0, &expecting), data(1, END, "abc")])
            .await;
        let exchange = peer.answer(1).await;
        assert_eq!(
            (exchange.status(), exchange.body.as_slice()),
            (200, &b"abc"[..]),
            "{protocol}"
        );
    }
}

#[tokio::test]
async fn interim_answers_of_the_application_disturb_nothing() {
    let app = RawApp::start(|wire, _| async move {
        let mut peer = Peer::of(wire);
        peer.take_preface().await;
        peer.send(&settings(&[])).await;
        peer.wait(PATIENCE, |heard| heard.stream(1).ended).await;
        let head = |flags, status| headers(1, flags, &[(":status", status), ("link", "</a>")]);
        peer.send_all(&[head(0, "103"), head(0, "103"), head(0, "200")])
            .await;
        peer.send(&data(1, END, "whole")).await;
        while peer.listen().await {}
    })
    .await;
    let (_pki, caller) = plaintext_caller("http2", &[app.address], "").await;
    let mut peer = Peer::connect(caller.outbound()).await;
    peer.greet(&[]).await;
    peer.send(&get(1, "/")).await;
    let exchange = peer.answer(1).await;
    assert_eq!(
        (exchange.status(), exchange.body.as_slice()),
        (200, &b"whole"[..])
    );
    let interim: Vec<u16> = exchange.statuses();
    assert!(
        interim.iter().all(|status| [103, 200].contains(status)),
        "{interim:?}"
    );
}

#[tokio::test]
async fn a_reset_cancels_the_request_at_the_application() {
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::of(way).await;
        let mut peer = scene.greeted(&[]).await;
        peer.send_all(&[get(1, "/hold"), post(3, "/hold"), data(3, 0, "some")])
            .await;
        wait::until("both at the application", PATIENCE, async || {
            scene.app.count() == 2
        })
        .await;
        assert_eq!(*scene.cancelled.borrow(), 0);
        let mut cancelled = scene.cancelled.clone();
        for (stream, count) in [(1, 1), (3, 2)] {
            peer.send(&reset(stream, code::CANCEL)).await;
            wait::soon(
                "the application to hear of it",
                cancelled.wait_for(|now| *now == count),
            )
            .await
            .unwrap();
        }
        assert_eq!(next_answer(&mut peer).await.status(), 200);
    }
}

#[tokio::test]
async fn requests_cancelled_one_after_the_other_are_no_flood() {
    const REQUESTS: u32 = 300;
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene.greeted(&[]).await;
    let mut cancelled = scene.cancelled.clone();
    for number in 1..=REQUESTS {
        let stream = 2 * number - 1;
        peer.send(&get(stream, "/hold")).await;
        let count = number as usize;
        wait::until("the request at the application", PATIENCE, async || {
            scene.app.count() == count
        })
        .await;
        peer.send(&reset(stream, code::CANCEL)).await;
        wait::soon(
            "the application to hear of it",
            cancelled.wait_for(|now| *now == count),
        )
        .await
        .unwrap();
    }
    assert_eq!(next_answer(&mut peer).await.status(), 200);
}

#[tokio::test]
async fn a_caller_that_goes_cancels_its_requests_at_the_application() {
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene.greeted(&[]).await;
    peer.send_all(&[get(1, "/hold"), get(3, "/hold")]).await;
    wait::until("both at the application", PATIENCE, async || {
        scene.app.count() == 2
    })
    .await;
    drop(peer);
    let mut cancelled = scene.cancelled.clone();
    wait::soon(
        "the application to hear of it",
        cancelled.wait_for(|now| *now == 2),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stream_too_many_is_refused_and_no_other_harmed() {
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::with(way, &[("limits.streams", 8.into())]).await;
        let mut peer = scene.greeted(&[]).await;
        assert_eq!(peer.heard.setting(setting::MAX_CONCURRENT_STREAMS), 8);
        let held: Vec<Frame> = (0..8).map(|number| get(2 * number + 1, "/gate")).collect();
        peer.send_all(&held).await;
        peer.send(&get(17, "/next")).await;
        // RFC 9113 §5.1.2: either code.
        let refused = peer.answer(17).await.reset;
        let codes = [code::REFUSED_STREAM, code::PROTOCOL_ERROR].map(Some);
        assert!(codes.contains(&refused), "{refused:?}");
        // One that never came there is not cancelled there.
        wait::until("the requests at the application", PATIENCE, async || {
            scene.app.count() == 8
        })
        .await;
        peer.send(&reset(1, code::CANCEL)).await;
        let mut cancelled = scene.cancelled.clone();
        wait::soon("a free place", cancelled.wait_for(|now| *now == 1))
            .await
            .unwrap();
        assert_eq!(
            next_answer(&mut peer).await.status(),
            200,
            "a place is free"
        );
        scene.gate.send_replace(true);
        for number in 1..8 {
            assert_eq!(peer.answer(2 * number + 1).await.status(), 200);
        }
    }
}

#[tokio::test]
async fn a_field_list_that_is_too_large_costs_its_stream_alone() {
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::with(way, &[("limits.headerBytes", "16KiB".into())]).await;
        let mut peer = scene.greeted(&[]).await;
        assert_eq!(peer.heard.setting(setting::MAX_HEADER_LIST_SIZE), 16 << 10);
        let value = "v".repeat(10 << 10);
        let mut large = fields("GET", "/collect");
        large.extend([("x-a", value.as_str()), ("x-b", &value), ("x-c", &value)]);
        let mut block = hpack::block(&large);
        // The block changes the table, and counts although its request does not.
        block.extend(hpack::literal(0x40, "x-kept", "kept"));
        let (first, rest) = block.split_at(16_000);
        peer.send_all(&[
            Frame::new(kind::HEADERS, END, 1, first),
            Frame::new(kind::CONTINUATION, flag::END_HEADERS, 1, rest),
        ])
        .await;
        let exchange = peer.answer(1).await;
        assert!(
            exchange.status() == 431 || exchange.reset.is_some(),
            "{exchange:?}"
        );
        let mut next = hpack::block(&fields("GET", "/"));
        next.push(0x80 | 62);
        let next = Frame::new(kind::HEADERS, END | flag::END_HEADERS, NEXT_STREAM, next);
        peer.send(&next).await;
        assert_eq!(peer.answer(NEXT_STREAM).await.status(), 200);
        assert_eq!(scene.app.last().header("x-kept"), "kept");
        assert_eq!(scene.app.count(), 1);
    }
}

#[tokio::test]
async fn open_streams_finish_after_the_callers_goaway() {
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::of(way).await;
        let mut peer = scene.greeted(&[]).await;
        peer.send_all(&[get(1, "/gate"), post(3, "/echo"), data(3, 0, "be")])
            .await;
        wait::until("both at the application", PATIENCE, async || {
            scene.app.count() == 2
        })
        .await;
        peer.send(&goaway(0, code::NO_ERROR)).await;
        peer.send(&data(3, END, "gun")).await;
        scene.gate.send_replace(true);
        let exchange = peer.answer(1).await;
        assert_eq!(
            (exchange.status(), exchange.body.as_slice()),
            (200, &b"at last"[..])
        );
        assert_eq!(peer.answer(3).await.body, b"begun");
    }
}

#[tokio::test]
async fn a_drain_says_goaway_and_finishes_what_it_counts() {
    for way in [Way::Plaintext, Way::MutualTls] {
        let mut scene = Scene::with(way, &[("drain.timeout", "20s".into())]).await;
        let mut peer = scene.greeted(&[]).await;
        peer.send_all(&[get(1, "/next"), get(3, "/gate"), post(5, "/echo")])
            .await;
        wait::until("all at the application", PATIENCE, async || {
            scene.app.count() == 3
        })
        .await;
        scene.sidecar.terminate();
        // RFC 9113 §6.8: a first one may leave room for what is on its way.
        peer.expect("a GOAWAY", |heard| !heard.goaways.is_empty())
            .await;
        peer.expect("the last GOAWAY", |heard| {
            let last = heard.goaways.last();
            last.is_some_and(|(last, _)| *last < MOST_WINDOW)
        })
        .await;
        let goaways = peer.heard.goaways.clone();
        let codes_are_fine = goaways.iter().all(|(_, code)| *code == code::NO_ERROR);
        let none_rises = goaways.is_sorted_by(|one, next| one.0 >= next.0);
        assert!(codes_are_fine && none_rises, "{goaways:?}");
        assert_eq!(goaways.last().map(|(last, _)| *last), Some(5));
        peer.send(&data(5, END, "to the end")).await;
        scene.gate.send_replace(true);
        assert_eq!(peer.answer(3).await.body, b"at last");
        assert_eq!(peer.answer(5).await.body, b"to the end");
        peer.expect_end().await;
        let status = scene.sidecar.process.exit(Duration::from_secs(15)).await;
        assert_eq!(status.code(), Some(0));
    }
}
