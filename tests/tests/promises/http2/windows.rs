//! Flow control (RFC 9113 §5.2, §6.9): the sidecar sends no octet that its
//! caller has not allowed, and holds its caller to what it allowed itself.

use selvage_tests::h2frames::frame::{self, code, data, setting, settings, window};
use selvage_tests::h2frames::{Peer, Waited};
use selvage_tests::wait::PATIENCE;

use super::{END, Scene, Way, get, next_answer, post};

/// What every connection may send at first (RFC 9113 §6.9.2).
const FIRST_WINDOW: usize = 65_535;

fn received(peer: &Peer, stream: u32) -> usize {
    peer.heard.stream(stream).body.len()
}

/// Listens until a stream's body has grown to `length`; more must not have come.
async fn grows_to(peer: &mut Peer, stream: u32, length: usize) {
    let what = format!("{length} octets on stream {stream}");
    peer.expect(&what, |heard| heard.stream(stream).body.len() >= length)
        .await;
    assert_stays(peer, stream, length).await;
}

/// Whatever the sidecar had to send before it answers a PING and a request, it has sent then.
async fn assert_stays(peer: &mut Peer, stream: u32, length: usize) {
    peer.settle().await;
    let other = 2 * u32::try_from(peer.heard.pongs.len()).unwrap() + 501;
    peer.send(&get(other, "/")).await;
    assert_eq!(peer.answer(other).await.status(), 200);
    assert_eq!(received(peer, stream), length, "octets on stream {stream}");
}

#[tokio::test]
async fn a_window_of_one_octet_is_honoured() {
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene.greeted(&[(setting::INITIAL_WINDOW_SIZE, 1)]).await;
    peer.send(&get(1, "/bytes/5")).await;
    grows_to(&mut peer, 1, 1).await;
    for length in 2..5 {
        peer.send(&window(1, 1)).await;
        grows_to(&mut peer, 1, length).await;
    }
    peer.send(&window(1, 1)).await;
    let exchange = peer.answer(1).await;
    assert_eq!((exchange.status(), exchange.body.len()), (200, 5));
    assert!(
        exchange.pieces.iter().all(|length| *length <= 1),
        "{:?}",
        exchange.pieces
    );
}

#[tokio::test]
async fn a_window_of_zero_stops_the_body_and_not_the_head() {
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene.greeted(&[(setting::INITIAL_WINDOW_SIZE, 0)]).await;
    peer.send(&get(1, "/bytes/5")).await;
    peer.expect("the head", |heard| heard.stream(1).status() == 200)
        .await;
    assert_stays(&mut peer, 1, 0).await;
    peer.send(&window(1, 5)).await;
    assert_eq!(peer.answer(1).await.body.len(), 5);
}

#[tokio::test]
async fn a_changed_initial_window_counts_for_open_streams() {
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene.greeted(&[(setting::INITIAL_WINDOW_SIZE, 10)]).await;
    peer.send_all(&[get(1, "/bytes/1000"), get(3, "/bytes/1000")])
        .await;
    grows_to(&mut peer, 1, 10).await;
    grows_to(&mut peer, 3, 10).await;
    peer.send(&settings(&[(setting::INITIAL_WINDOW_SIZE, 110)]))
        .await;
    grows_to(&mut peer, 1, 110).await;
    grows_to(&mut peer, 3, 110).await;
}

#[tokio::test]
async fn a_window_below_zero_is_filled_up_first() {
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene.greeted(&[(setting::INITIAL_WINDOW_SIZE, 100)]).await;
    peer.send(&get(1, "/bytes/300")).await;
    grows_to(&mut peer, 1, 100).await;
    // 100 were sent and 10 are allowed: the window is 90 below zero.
    peer.send(&settings(&[(setting::INITIAL_WINDOW_SIZE, 10)]))
        .await;
    assert_stays(&mut peer, 1, 100).await;
    peer.send(&window(1, 90)).await;
    assert_stays(&mut peer, 1, 100).await;
    peer.send(&window(1, 1)).await;
    grows_to(&mut peer, 1, 101).await;
    peer.send(&settings(&[(setting::INITIAL_WINDOW_SIZE, 12)]))
        .await;
    grows_to(&mut peer, 1, 103).await;
    peer.send(&window(1, 1000)).await;
    assert_eq!(peer.answer(1).await.body.len(), 300);
}

#[tokio::test]
async fn all_streams_share_the_connections_window() {
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene
        .greeted(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)])
        .await;
    peer.send_all(&[get(1, "/bytes/50000"), get(3, "/bytes/50000")])
        .await;
    let both = |heard: &selvage_tests::h2frames::Heard| {
        heard.stream(1).body.len() + heard.stream(3).body.len()
    };
    peer.expect("the connection's window", |heard| {
        both(heard) >= FIRST_WINDOW
    })
    .await;
    peer.settle().await;
    assert_eq!(next_answer(&mut peer).await.status(), 200, "heads go on");
    assert_eq!(both(&peer.heard), FIRST_WINDOW);
    peer.send(&window(0, 7)).await;
    peer.expect("seven more", |heard| both(heard) >= FIRST_WINDOW + 7)
        .await;
    peer.settle().await;
    assert_eq!(both(&peer.heard), FIRST_WINDOW + 7);
    peer.send(&window(0, 100_000)).await;
    for stream in [1, 3] {
        assert_eq!(peer.answer(stream).await.body.len(), 50_000);
    }
}

#[tokio::test]
async fn a_large_body_comes_by_small_windows() {
    const LENGTH: usize = 1 << 20;
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::of(way).await;
        let mut peer = scene.greeted(&[]).await;
        peer.send(&get(1, &format!("/bytes/{LENGTH}"))).await;
        let mut allowed = FIRST_WINDOW;
        while !peer.heard.stream(1).ended {
            let had = received(&peer, 1);
            peer.expect("more of the body", |heard| {
                let exchange = heard.stream(1);
                exchange.ended || exchange.body.len() > had
            })
            .await;
            let came = received(&peer, 1);
            assert!(came <= allowed, "{came} of {allowed} octets");
            if came < LENGTH {
                let by = u32::try_from(came - had).unwrap();
                peer.send_all(&[window(0, by), window(1, by)]).await;
                allowed += came - had;
            }
        }
        let exchange = peer.heard.stream(1);
        assert_eq!(exchange.body.len(), LENGTH);
        let longest = exchange.pieces.iter().max();
        assert!(
            longest.is_some_and(|longest| *longest <= 16_384),
            "{longest:?}"
        );
    }
}

#[tokio::test]
async fn a_callers_octets_are_allowed_again_as_they_are_taken() {
    const LENGTH: usize = 2 << 20;
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene.greeted(&[]).await;
    peer.send(&post(1, "/collect")).await;
    let initial = u64::from(peer.heard.setting(setting::INITIAL_WINDOW_SIZE));
    let mut sent = 0;
    while sent < LENGTH {
        let room = |heard: &selvage_tests::h2frames::Heard| {
            let stream = initial + heard.windows.get(&1).copied().unwrap_or(0);
            let connection = 65_535 + heard.windows.get(&0).copied().unwrap_or(0);
            usize::try_from(stream.min(connection)).unwrap() - sent
        };
        peer.expect("a window", |heard| room(heard) > 0).await;
        let length = room(&peer.heard).min(16_384).min(LENGTH - sent);
        sent += length;
        let flags = if sent == LENGTH { END } else { 0 };
        peer.send(&data(1, flags, vec![b'x'; length])).await;
    }
    let exchange = peer.answer(1).await;
    assert_eq!(exchange.body, LENGTH.to_string().into_bytes());
}

#[tokio::test]
async fn padding_gives_back_its_share_of_the_window() {
    const FRAMES: usize = 1500;
    const LENGTH: usize = 1024;
    let scene = Scene::of(Way::Plaintext).await;
    let mut peer = scene.greeted(&[]).await;
    peer.send(&post(1, "/collect")).await;
    let initial = u64::from(peer.heard.setting(setting::INITIAL_WINDOW_SIZE));
    // 255 octets of padding and their length, in each frame: together more than the window.
    let mut payload = vec![255];
    payload.resize(LENGTH + 256, 0);
    let mut sent = 0;
    for number in 1..=FRAMES {
        let length = payload.len() as u64;
        peer.expect("a window", |heard| {
            let stream = initial + heard.windows.get(&1).copied().unwrap_or(0);
            let connection = 65_535 + heard.windows.get(&0).copied().unwrap_or(0);
            stream.min(connection) >= sent + length
        })
        .await;
        sent += length;
        let end = if number == FRAMES { END } else { 0 };
        let flags = frame::flag::PADDED | end;
        let padded = frame::Frame::new(frame::kind::DATA, flags, 1, payload.as_slice());
        peer.send(&padded).await;
    }
    let exchange = peer.answer(1).await;
    assert_eq!(exchange.body, (FRAMES * LENGTH).to_string().into_bytes());
}

#[tokio::test]
async fn a_caller_that_sends_past_the_window_is_stopped() {
    const PIECES: usize = 1024;
    for way in [Way::Plaintext, Way::MutualTls] {
        let scene = Scene::of(way).await;
        let mut peer = scene.greeted(&[]).await;
        peer.send(&post(1, "/hold")).await;
        let is_stopped = |heard: &selvage_tests::h2frames::Heard| {
            heard.stream(1).reset.is_some() || heard.blame().is_some() || heard.closed.is_some()
        };
        // 16 MiB toward an application that reads none: more than all windows on the way.
        for _ in 0..PIECES {
            peer.send(&data(1, 0, vec![0; 16_384])).await;
            if peer.wait(std::time::Duration::ZERO, is_stopped).await != Waited::Silent {
                break;
            }
        }
        assert_ne!(peer.wait(PATIENCE, is_stopped).await, Waited::Silent);
        let codes = (peer.heard.stream(1).reset, peer.heard.blame());
        let flow = Some(code::FLOW_CONTROL_ERROR);
        assert!(
            codes == (flow, None) || codes.1 == flow || codes == (None, None),
            "{codes:?}"
        );
        if codes.0 == flow && codes.1.is_none() {
            assert_eq!(next_answer(&mut peer).await.status(), 200);
        }
    }
}
