//! What concerns a whole connection to an application: SETTINGS that change,
//! windows, places, GOAWAY, and answers of a shape of their own.

use std::sync::{Arc, Mutex};

use http::Method;
use selvage_tests::app::RawApp;
use selvage_tests::body;
use selvage_tests::client::{self, request};
use selvage_tests::h2frames::frame::{
    code, data, goaway, headers, request as ask_whole, reset, setting, settings, window,
};
use selvage_tests::h2frames::{Heard, Peer, Waited};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait::{self, PATIENCE};
use tokio::sync::watch;

use super::{Act, Origin, Seen, ask, ask_with, caller_of, good, greeting, head};
use crate::http2::{END, fields, get};

fn length(heard: &Heard) -> usize {
    heard
        .streams
        .values()
        .map(|exchange| exchange.body.len())
        .sum()
}

/// Allows nothing, then five octets, then all; tells what came of each.
async fn grudging(mut peer: Peer, greeted: &watch::Sender<bool>, took: &Mutex<Vec<usize>>) {
    peer.send(&settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]))
        .await;
    peer.expect("SETTINGS acknowledged", |heard| heard.acknowledged == 1)
        .await;
    greeted.send_replace(true);
    peer.expect("the request", |heard| heard.streams.contains_key(&1))
        .await;
    peer.settle().await;
    took.lock().unwrap().push(length(&peer.heard));
    peer.send(&settings(&[(setting::INITIAL_WINDOW_SIZE, 5)]))
        .await;
    peer.expect("what is allowed", |heard| length(heard) >= 5)
        .await;
    peer.settle().await;
    took.lock().unwrap().push(length(&peer.heard));
    peer.send(&window(1, 1 << 20)).await;
    peer.expect("the rest", |heard| heard.stream(1).ended).await;
    took.lock().unwrap().push(length(&peer.heard));
    peer.send_all(&good(1)).await;
    while peer.listen().await {}
}

#[tokio::test]
async fn a_window_of_zero_that_is_raised_later_is_honoured() {
    const LENGTH: usize = 20_000;
    let (greeted, mut greeting) = watch::channel(false);
    let took = Arc::new(Mutex::new(Vec::new()));
    let (greeted, counting) = (Arc::new(greeted), Arc::clone(&took));
    let app = RawApp::start(move |wire, _| {
        let (greeted, took) = (Arc::clone(&greeted), Arc::clone(&counting));
        async move {
            let mut peer = Peer::of(wire);
            peer.take_preface().await;
            grudging(peer, &greeted, &took).await;
        }
    })
    .await;
    let (_pki, caller) = caller_of(&app, "").await;
    let (feed, streamed) = body::channel();
    let asking = ask_with(&caller, request(Method::POST, ORDERS, "/", streamed));
    // The connection is there, and its SETTINGS are known, before there is a body.
    let feeding = async {
        wait::soon("the connection", greeting.wait_for(|greeted| *greeted))
            .await
            .unwrap();
        feed.data(vec![b'x'; LENGTH]).await;
        drop(feed);
    };
    let (seen, ()) = tokio::join!(asking, feeding);
    assert!(
        matches!(&seen, Seen::Whole(answer) if answer.status == 200),
        "{seen:?}"
    );
    assert_eq!(*took.lock().unwrap(), [0, 5, LENGTH]);
}

/// Answers one stream after the other, each when nothing more is on its way;
/// tells how many that were opened after SETTINGS had come were open at once.
async fn one_by_one(mut peer: Peer, most: &Mutex<usize>) {
    peer.send(&settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]))
        .await;
    if peer.wait(PATIENCE, |heard| heard.acknowledged == 1).await != Waited::Came {
        return;
    }
    let early: Vec<u32> = peer.heard.streams.keys().copied().collect();
    let mut answered = Vec::new();
    while peer.heard.closed.is_none() {
        let open = |heard: &Heard| {
            let ended = heard.streams.iter().filter(|(_, one)| one.ended);
            let streams = ended.map(|(stream, _)| *stream);
            streams
                .filter(|stream| !answered.contains(stream))
                .collect::<Vec<_>>()
        };
        if open(&peer.heard).is_empty() {
            peer.listen().await;
            continue;
        }
        peer.settle().await;
        let streams = open(&peer.heard);
        let late = streams
            .iter()
            .filter(|stream| !early.contains(stream))
            .count();
        {
            let mut most = most.lock().unwrap();
            *most = late.max(*most);
        }
        answered.push(streams[0]);
        peer.send_all(&good(streams[0])).await;
    }
}

#[tokio::test]
async fn no_more_streams_are_opened_than_the_application_allows() {
    let most = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&most);
    let app = RawApp::start(move |wire, _| {
        let most = Arc::clone(&counting);
        async move {
            let mut peer = Peer::of(wire);
            peer.take_preface().await;
            one_by_one(peer, &most).await;
        }
    })
    .await;
    let (_pki, caller) = caller_of(&app, "").await;
    let first = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(first.status, 200);
    let asking = (0..20).map(|_| ask(&caller, &Method::GET, "/"));
    for seen in futures_util::future::join_all(asking).await {
        assert!(
            matches!(&seen, Seen::Whole(answer) if answer.status == 200),
            "{seen:?}"
        );
    }
    assert_eq!(*most.lock().unwrap(), 1, "open at once");
}

#[tokio::test]
async fn what_a_goaway_does_not_count_is_sent_again_and_nothing_else() {
    // The first of four streams is processed; the others are not, and may be sent again.
    const CALLS: usize = 4;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let app = RawApp::start(move |wire, number| {
        let kept = Arc::clone(&kept);
        async move {
            let mut peer = Peer::of(wire);
            peer.take_preface().await;
            peer.send_all(&greeting()).await;
            if number > 0 {
                return answer_and_keep(peer, &kept).await;
            }
            let all =
                |heard: &Heard| heard.streams.values().filter(|one| one.ended).count() == CALLS;
            peer.expect("all requests", all).await;
            let first = *peer.heard.streams.keys().next().unwrap();
            let path = peer.heard.stream(first).field(":path").to_owned();
            kept.lock().unwrap().push(path);
            peer.send(&goaway(first, code::NO_ERROR)).await;
            peer.settle().await;
            peer.send_all(&good(first)).await;
            while peer.listen().await {}
        }
    })
    .await;
    let (_pki, caller) = caller_of(&app, "").await;
    let paths: Vec<String> = (0..CALLS).map(|number| format!("/{number}")).collect();
    let asking = paths.iter().map(|path| ask(&caller, &Method::POST, path));
    for seen in futures_util::future::join_all(asking).await {
        assert!(
            matches!(&seen, Seen::Whole(answer) if answer.status == 200),
            "{seen:?}"
        );
    }
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, paths, "each once");
}

async fn answer_and_keep(mut peer: Peer, kept: &Mutex<Vec<String>>) {
    let mut answered = Vec::new();
    while peer.listen().await {
        let streams: Vec<u32> = peer.heard.streams.keys().copied().collect();
        for stream in streams {
            let exchange = peer.heard.stream(stream);
            if exchange.ended && !answered.contains(&stream) {
                answered.push(stream);
                kept.lock()
                    .unwrap()
                    .push(exchange.field(":path").to_owned());
                peer.send_all(&good(stream)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_always_refused_is_given_up() {
    let origin = Origin::start(greeting(), |path, stream, _| {
        Act::Send(match path {
            "/refused" => vec![reset(stream, code::REFUSED_STREAM)],
            _ => good(stream),
        })
    })
    .await;
    let (_pki, caller) = origin.caller().await;
    let seen = ask(&caller, &Method::POST, "/refused").await;
    assert!(
        matches!(&seen, Seen::Whole(answer) if answer.status == 503 && !answer.flag().is_empty()),
        "{seen:?}"
    );
    assert!(
        (2..=10).contains(&origin.asked("/refused")),
        "a bounded number of tries"
    );
    let next = ask(&caller, &Method::GET, "/next").await;
    assert!(
        matches!(&next, Seen::Whole(answer) if answer.status == 200),
        "{next:?}"
    );
}

#[tokio::test]
async fn a_grpc_answer_of_trailers_alone_stays_one() {
    let origin = Origin::start(greeting(), |_, stream, _| {
        let head = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "5"),
            ("grpc-message", "no such thing"),
        ];
        Act::Send(vec![headers(stream, END, &head)])
    })
    .await;
    let (_pki, caller) = origin.caller().await;
    let mut peer = Peer::connect(caller.outbound()).await;
    peer.greet(&[]).await;
    let mut call = fields("POST", "/shop.Orders/Get");
    call.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    peer.send(&ask_whole(1, &call)).await;
    let exchange = peer.answer(1).await;
    assert_eq!(
        (
            exchange.heads.len(),
            exchange.body.len(),
            exchange.pieces.len()
        ),
        (1, 0, 0),
        "{exchange:?}"
    );
    assert_eq!(exchange.field("grpc-status"), "5");
    assert_eq!(exchange.field("grpc-message"), "no such thing");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_whole() {
    // RFC 9113 §8.1: the application has heard enough, and stops the request without an error.
    let origin = Origin::start(greeting(), |path, stream, _| {
        Act::Send(match path {
            "/early" => {
                let early = [head(stream, &[]), data(stream, END, "enough")];
                [early.to_vec(), vec![reset(stream, code::NO_ERROR)]].concat()
            }
            _ => good(stream),
        })
    })
    .await;
    let (_pki, caller) = origin.caller().await;
    let mut peer = Peer::connect(caller.outbound()).await;
    peer.greet(&[]).await;
    peer.send_all(&[
        headers(1, 0, &fields("POST", "/early")),
        data(1, 0, "begun"),
    ])
    .await;
    let exchange = peer.answer(1).await;
    assert_eq!(
        (exchange.status(), exchange.body.as_slice()),
        (200, &b"enough"[..])
    );
    peer.send(&get(3, "/next")).await;
    assert_eq!(peer.answer(3).await.body, b"good");
}
