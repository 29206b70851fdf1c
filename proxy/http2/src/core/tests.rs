//! What a connection does with frames, without a transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{Request, Response};

use super::*;
use crate::frame::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::hpack::Pseudo;
use crate::receive::Opened;

/// A connection whose peer has sent its SETTINGS.
fn greeted(config: Config, is_client: bool) -> Core {
    let mut core = Core::new(config, is_client);
    told(&mut core, SETTINGS, 0, 0, &[]).expect("valid");
    told(&mut core, SETTINGS, ACK, 0, &[]).expect("valid");
    core
}

fn told(
    core: &mut Core,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> Result<Option<Opened>, Error> {
    let head = Head {
        len: payload.len(),
        kind,
        flags,
        stream,
    };
    core.receive(head, Bytes::copy_from_slice(payload))
}

fn fields(fields: &[(Pseudo, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new();
    for (name, value) in fields {
        encoder.pseudo(*name, value.as_bytes(), &mut out);
    }
    out
}

/// A stream that the peer opens by a request without an end.
fn asked(core: &mut Core, stream: u32) -> Key {
    let head = fields(&[
        (Pseudo::Method, "POST"),
        (Pseudo::Scheme, "http"),
        (Pseudo::Path, "/"),
    ]);
    let opened = told(core, HEADERS, END_HEADERS, stream, &head).expect("valid");
    let key = opened.expect("a request").key;
    core.hold(key);
    key
}

fn answered(core: &mut Core, stream: u32) -> Key {
    let key = asked(core, stream);
    let (head, ()) = Response::new(()).into_parts();
    core.respond(key, &head, false).expect("sent");
    key
}

fn sends(core: &mut Core, key: Key, count: usize) -> Poll<Result<(), Error>> {
    let mut data = Bytes::from(vec![1; count]);
    let cx = Context::from_waker(Waker::noop());
    core.poll_send(key, &mut data, false, &cx)
}

/// As if the transport had taken everything.
fn flushed(core: &mut Core) {
    core.out = Output::default();
    core.replies = 0;
    core.give_turns();
}

fn with_room(octets: usize) -> Config {
    Config {
        send_buffer: octets,
        ..Config::default()
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn whoever_waits_for_a_turn_may_go_before_it_comes() {
    let mut core = greeted(with_room(1000), false);
    for streams in [&[1, 3][..], &[5, 7, 9]] {
        let keys: Vec<Key> = streams.iter().map(|&id| answered(&mut core, id)).collect();
        assert!(sends(&mut core, keys[0], 2000).is_ready());
        for &key in &keys {
            assert!(sends(&mut core, key, 10).is_pending());
        }
        for &key in &keys {
            told(&mut core, RST_STREAM, 0, key.id, &[0, 0, 0, 8]).expect("valid");
            core.let_go(key);
        }
        assert_eq!(core.streams.open(), 0);
        assert!(core.queue.is_empty(), "nobody waits who is gone");
        flushed(&mut core);
    }
    let next = answered(&mut core, 11);
    assert!(sends(&mut core, next, 10).is_ready());
}

#[test]
fn a_turn_that_is_not_taken_is_given_to_the_next() {
    let mut core = greeted(with_room(1000), false);
    let first = answered(&mut core, 1);
    let second = answered(&mut core, 3);
    assert!(sends(&mut core, first, 2000).is_ready());
    assert!(sends(&mut core, first, 10).is_pending());
    assert!(sends(&mut core, second, 10).is_pending());
    // A reader still holds it.
    core.hold(first);
    flushed(&mut core);
    assert!(core.streams.at(first).has_turn);
    let woken = Arc::new(Woken::default());
    core.driver = Some(Waker::from(woken.clone()));
    core.let_go(first);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    core.give_turns();
    assert!(core.streams.at(second).has_turn);
    assert!(sends(&mut core, second, 10).is_ready());
}

#[test]
fn what_all_share_is_handed_out_in_order() {
    let mut core = greeted(with_room(1000), false);
    let keys: Vec<Key> = [1, 3, 5].map(|id| answered(&mut core, id)).to_vec();
    assert!(sends(&mut core, keys[0], 2000).is_ready());
    for &key in &keys {
        assert!(sends(&mut core, key, 2000).is_pending());
    }
    for &key in &keys {
        flushed(&mut core);
        let turns = keys.iter().filter(|key| core.streams.at(**key).has_turn);
        assert_eq!(turns.count(), 1);
        assert!(sends(&mut core, key, 2000).is_ready());
    }
}

#[test]
fn a_window_is_not_overdrawn_and_opens_again() {
    let mut core = greeted(Config::default(), false);
    let key = answered(&mut core, 1);
    let mut data = Bytes::from(vec![1; 100_000]);
    let cx = Context::from_waker(Waker::noop());
    assert!(core.poll_send(key, &mut data, true, &cx).is_pending());
    assert_eq!(data.len(), 100_000 - FIRST_WINDOW as usize);
    for stream in [0, 1] {
        let more = 50_000_u32.to_be_bytes();
        told(&mut core, WINDOW_UPDATE, 0, stream, &more).expect("valid");
    }
    core.give_turns();
    assert_eq!(
        core.poll_send(key, &mut data, true, &cx),
        Poll::Ready(Ok(()))
    );
    assert!(data.is_empty());
}

#[test]
fn a_peer_that_takes_back_its_window_is_not_sent_to() {
    let mut core = greeted(Config::default(), false);
    let key = answered(&mut core, 1);
    assert!(sends(&mut core, key, 1000).is_ready());
    // SETTINGS_INITIAL_WINDOW_SIZE of 100: 900 less than were sent.
    told(&mut core, SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 100]).expect("valid");
    assert_eq!(core.streams.at(key).window_out, -900);
    assert!(sends(&mut core, key, 1).is_pending());
    told(&mut core, WINDOW_UPDATE, 0, 1, &901_u32.to_be_bytes()).expect("valid");
    assert!(sends(&mut core, key, 1).is_ready());
}

#[test]
fn only_what_was_not_answered_counts_as_cancelled() {
    let config = Config {
        cancelled: 3,
        ..Config::default()
    };
    let mut core = greeted(config, false);
    let mut ids = (1..).step_by(2);
    let mut cancel = |core: &mut Core, open: fn(&mut Core, u32) -> Key| {
        let key = open(core, ids.next().expect("endless"));
        let reset = told(core, RST_STREAM, 0, key.id, &[0, 0, 0, 8]);
        core.let_go(key);
        reset.map(drop)
    };
    for _ in 0..100 {
        cancel(&mut core, answered).expect("it had its answer");
    }
    let ended = (0..100).find_map(|_| cancel(&mut core, asked).err());
    let error = ended.expect("too many");
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
}

fn client_with(streams: u32) -> (Core, Vec<Key>) {
    let mut core = greeted(Config::default(), true);
    let (head, ()) = Request::get("http://x.shop/")
        .body(())
        .expect("valid")
        .into_parts();
    let keys = (0..streams).map(|_| {
        let key = core.open(&head, true).expect("open");
        core.hold(key);
        key
    });
    let keys = keys.collect();
    (core, keys)
}

#[test]
fn interim_answers_without_an_end_are_a_flood() {
    let (mut core, keys) = client_with(1);
    let interim = fields(&[(Pseudo::Status, "103")]);
    let ended = (0..10_000).find_map(|_| {
        let told = told(&mut core, HEADERS, END_HEADERS, keys[0].id, &interim);
        told.err()
    });
    let error = ended.expect("too many");
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
}

#[test]
fn acknowledgements_that_nobody_reads_end_whatever_else_is_sent() {
    let (mut core, keys) = client_with(1);
    let head = fields(&[(Pseudo::Status, "200")]);
    told(&mut core, HEADERS, END_HEADERS, keys[0].id, &head).expect("valid");
    let mut pings = 0;
    let error = loop {
        pings += 1;
        assert!(pings < 10_000);
        if pings % 10 == 0 {
            told(&mut core, DATA, 0, keys[0].id, b"x").expect("valid");
        }
        if let Err(error) = told(&mut core, PING, 0, 0, &[0; 8]) {
            break error;
        }
    };
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    let (mut core, _) = client_with(1);
    for _ in 0..1_000 {
        told(&mut core, PING, 0, 0, &[0; 8]).expect("read in between");
        flushed(&mut core);
    }
}

#[test]
fn a_late_answer_to_what_was_given_up_long_ago_is_passed_over() {
    let (mut core, keys) = client_with(3_000);
    for &key in &keys {
        core.let_go(key);
    }
    assert_eq!(core.streams.open(), 0);
    let head = fields(&[(Pseudo::Status, "200")]);
    for key in [keys[0], keys[2_999]] {
        told(&mut core, HEADERS, END_HEADERS, key.id, &head).expect("passed over");
        told(&mut core, DATA, END_STREAM, key.id, b"late").expect("passed over");
    }
    let idle = told(&mut core, DATA, END_STREAM, 2 * 3_000 + 1, b"x");
    assert!(idle.is_err(), "of a stream that was never opened");
}

#[test]
fn a_body_where_there_is_none_is_refused() {
    let mut core = greeted(Config::default(), true);
    for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304")] {
        let request = Request::builder().method(method).uri("http://x.shop/");
        let (head, ()) = request.body(()).expect("valid").into_parts();
        let key = core.open(&head, true).expect("open");
        core.hold(key);
        let head = fields(&[(Pseudo::Status, status)]);
        told(&mut core, HEADERS, END_HEADERS, key.id, &head).expect("valid");
        told(&mut core, DATA, 0, key.id, b"").expect("nothing");
        assert_eq!(core.streams.at(key).receiving, Receiving::Body);
        told(&mut core, DATA, 0, key.id, b"x").expect("of the stream alone");
        assert!(matches!(
            core.streams.at(key).receiving,
            Receiving::Failed(_)
        ));
    }
}

#[test]
fn a_padded_body_gives_its_padding_back() {
    let mut core = greeted(Config::default(), false);
    let key = asked(&mut core, 1);
    let mut padded = vec![200];
    padded.extend_from_slice(&[7; 10]);
    padded.extend_from_slice(&[0; 200]);
    // Far more padding than the windows would hold.
    for _ in 0..2_000 {
        told(&mut core, DATA, frame::PADDED, key.id, &padded).expect("within the windows");
        while let Some(piece) = core.streams.at(key).body.pop() {
            core.take(key, piece.len() as u32);
        }
    }
    assert!(core.window_in > 0 && core.streams.at(key).window_in > 0);
}
