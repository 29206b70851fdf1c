//! Frames by themselves: the preface, where a kind of frame may stand, how long
//! it may be, padding, and what is to be ignored (RFC 9113 §3.4 to §6).

use selvage_tests::h2frames::Frame;
use selvage_tests::h2frames::frame::{
    PREFACE, code, data, flag, goaway, kind, ping, priority, reset, settings, window,
};
use selvage_tests::h2frames::hpack;

use super::rows::Expects::{Answer, ConnectionError, NothingOr, StreamError};
use super::rows::{Expects, Row, Step, run};
use super::{END, Way, fields, get, post};

const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR];
const ENDS: Expects = ConnectionError(PROTOCOL);
const ENDS_BY_SIZE: Expects = ConnectionError(SIZE);

#[tokio::test]
async fn frames_stand_where_they_may() {
    run(places(), 20, Way::Plaintext).await;
}

#[tokio::test]
async fn frames_stand_where_they_may_under_mutual_tls() {
    run(places(), 20, Way::MutualTls).await;
}

#[tokio::test]
async fn frames_are_as_long_as_they_may() {
    run(lengths(), 25, Way::Plaintext).await;
}

#[tokio::test]
async fn frames_are_as_long_as_they_may_under_mutual_tls() {
    run(lengths(), 25, Way::MutualTls).await;
}

#[rustfmt::skip]
fn places() -> Vec<Row> {
    let wrong = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX\0\0\0\x04\0\0\0\0\0";
    let octets = at_once().into_iter().map(|byte| Step::Bytes(vec![byte]));
    let unknown = vec![
        Frame::new(0x42, 0xff, 0, "what"), Frame::new(0x43, 0, 7, ""), post(1, "/echo"),
        Frame::new(0x44, 1, 1, "no end"), data(1, END, "end"),
    ];
    let flagged = vec![
        Frame { flags: 0x52 | END | flag::END_HEADERS, ..get(1, "/") },
        Frame { flags: 0xfe, ..ping(*b"flagged!") }, Frame { flags: 0xfe, ..settings(&[]) },
    ];
    vec![
        Row::new("a preface that is none", "9113 §3.4", vec![Step::Bytes(wrong.to_vec())], ENDS).first(),
        Row::new("a preface and no SETTINGS", "9113 §3.4", after_preface(&ping(*b"too soon")), ENDS).first(),
        Row::new("a request before SETTINGS", "9113 §3.4", after_preface(&get(1, "/")), ENDS).first(),
        Row::new("all in one write", "9113 §3.4", vec![Step::Bytes(at_once())], Answer(1, 200, None)).first(),
        Row::new("all in single octets", "9113 §3.4", octets.collect(), Answer(1, 200, None)).first(),
        Row::sends("DATA on stream 0", "9113 §6.1", vec![data(0, 0, "x")], ENDS),
        Row::sends("HEADERS on stream 0", "9113 §6.2", vec![get(0, "/")], ENDS),
        Row::sends("PRIORITY on stream 0", "9113 §6.3", vec![priority(0, 1)], ENDS),
        Row::sends("RST_STREAM on stream 0", "9113 §6.4", vec![reset(0, code::CANCEL)], ENDS),
        Row::sends("CONTINUATION on stream 0", "9113 §6.10", vec![rest(0, 0)], ENDS),
        Row::sends("SETTINGS on a stream", "9113 §6.5", vec![get(1, "/hold"), Frame::new(kind::SETTINGS, 0, 1, [])], ENDS),
        Row::sends("PING on a stream", "9113 §6.7", vec![get(1, "/hold"), Frame { stream: 1, ..ping(*b"astream!") }], ENDS),
        Row::sends("GOAWAY on a stream", "9113 §6.8", vec![get(1, "/hold"), Frame { stream: 1, ..goaway(0, 0) }], ENDS),
        Row::sends("PUSH_PROMISE from a client", "9113 §8.4", vec![post(1, "/hold"), promise(1, 2)], ENDS),
        Row::sends("frames of no known type", "9113 §5.5", unknown, Answer(1, 200, Some("end"))),
        Row::sends("flags of no known meaning", "9113 §4.1", flagged, Answer(1, 200, None)),
        Row::sends("the reserved bit of a stream's number", "9113 §4.1", vec![get(0x8000_0001, "/")], Answer(1, 200, None)),
        Row::sends("a block in pieces, one of them empty", "9113 §6.10", vec![begun(1, 9), Frame::new(kind::CONTINUATION, 0, 1, []), rest(1, 9)], Answer(1, 200, None)),
        Row::sends("HEADERS with a priority", "9113 §6.2", vec![with_priority(1, 0)], Answer(1, 200, None)),
        // RFC 7540 §5.3.1 calls it a stream error; RFC 9113 has no dependencies any more.
        Row::sends("HEADERS that depend on themselves", "9113 §5.3.2", vec![with_priority(1, 1)], NothingOr(1, PROTOCOL)),
    ]
}

#[rustfmt::skip]
fn lengths() -> Vec<Row> {
    let raw = |kind: u8, flags: u8, stream: u32, octets: &[u8]| Frame::new(kind, flags, stream, octets);
    let too_long = |kind: u8, flags: u8, stream: u32| Step::TooLong { kind, flags, stream };
    let open = |frame: Frame| vec![post(1, "/collect"), frame];
    let padded = flag::PADDED;
    vec![
        Row::new("HEADERS above the largest frame", "9113 §4.2", vec![too_long(kind::HEADERS, END | flag::END_HEADERS, 1)], ENDS_BY_SIZE),
        Row::new("DATA above the largest frame", "9113 §4.2", vec![Step::Send(vec![post(1, "/collect")]), too_long(kind::DATA, END, 1)], StreamError(1, SIZE)),
        Row::new("PING above the largest frame", "9113 §4.2", vec![too_long(kind::PING, 0, 0)], ENDS_BY_SIZE),
        Row::new("a frame of no known type above the largest", "9113 §4.2", vec![too_long(0x42, 0, 0)], ENDS_BY_SIZE),
        Row::sends("SETTINGS of 5 octets", "9113 §6.5", vec![raw(kind::SETTINGS, 0, 0, &[0; 5])], ENDS_BY_SIZE),
        Row::sends("SETTINGS of 7 octets", "9113 §6.5", vec![raw(kind::SETTINGS, 0, 0, &[0; 7])], ENDS_BY_SIZE),
        Row::sends("an acknowledgement with a payload", "9113 §6.5", vec![raw(kind::SETTINGS, flag::ACK, 0, &[0; 6])], ENDS_BY_SIZE),
        Row::sends("PING of 7 octets", "9113 §6.7", vec![raw(kind::PING, 0, 0, &[0; 7])], ENDS_BY_SIZE),
        Row::sends("PING of 9 octets", "9113 §6.7", vec![raw(kind::PING, 0, 0, &[0; 9])], ENDS_BY_SIZE),
        Row::sends("RST_STREAM of 3 octets", "9113 §6.4", open(raw(kind::RST_STREAM, 0, 1, &[0; 3])), ENDS_BY_SIZE),
        Row::sends("RST_STREAM of 5 octets", "9113 §6.4", open(raw(kind::RST_STREAM, 0, 1, &[0; 5])), ENDS_BY_SIZE),
        Row::sends("PRIORITY of 4 octets", "9113 §6.3", open(raw(kind::PRIORITY, 0, 1, &[0; 4])), StreamError(1, SIZE)),
        Row::sends("PRIORITY of 6 octets", "9113 §6.3", open(raw(kind::PRIORITY, 0, 1, &[0; 6])), StreamError(1, SIZE)),
        Row::sends("WINDOW_UPDATE of 3 octets", "9113 §6.9", vec![raw(kind::WINDOW_UPDATE, 0, 0, &[0; 3])], ENDS_BY_SIZE),
        Row::sends("WINDOW_UPDATE of 5 octets on a stream", "9113 §6.9", open(raw(kind::WINDOW_UPDATE, 0, 1, &[0; 5])), ENDS_BY_SIZE),
        Row::sends("GOAWAY of 7 octets", "9113 §4.2", vec![raw(kind::GOAWAY, 0, 0, &[0; 7])], ENDS_BY_SIZE),
        Row::sends("HEADERS too short for their priority", "9113 §4.2", vec![raw(kind::HEADERS, 0x25, 1, &[0; 4])], ENDS_BY_SIZE),
        Row::sends("DATA too short for their padding's length", "9113 §4.2", open(raw(kind::DATA, padded, 1, &[])), StreamError(1, &[code::FRAME_SIZE_ERROR, code::PROTOCOL_ERROR])),
        Row::sends("HEADERS too short for their padding's length", "9113 §4.2", vec![raw(kind::HEADERS, 0xd, 1, &[])], ConnectionError(&[code::FRAME_SIZE_ERROR, code::PROTOCOL_ERROR])),
        Row::sends("DATA with padding as long as the rest", "9113 §6.1", open(raw(kind::DATA, padded, 1, &[3, 0, 0])), ENDS),
        Row::sends("DATA with padding longer than the rest", "9113 §6.1", open(raw(kind::DATA, padded, 1, &[200, 0, 0, 0])), ENDS),
        Row::sends("HEADERS with padding longer than the rest", "9113 §6.2", vec![raw(kind::HEADERS, 0xd, 1, &[9, 0x82])], ENDS),
        Row::sends("HEADERS with padding that reaches into the priority", "9113 §6.2", vec![raw(kind::HEADERS, 0x2d, 1, &[4, 0, 0, 0, 0, 15, 0, 0])], ENDS),
        Row::sends("padding in DATA and HEADERS", "9113 §6.1", with_padding(), Answer(1, 200, Some("abcdef"))),
        Row::sends("DATA of nothing", "9113 §6.1", vec![post(1, "/echo"), data(1, 0, ""), data(1, 0, "a"), data(1, 0, ""), window(1, 1), data(1, END, "")], Answer(1, 200, Some("a"))),
    ]
}

/// A whole conversation in one write: preface, SETTINGS, a request.
fn at_once() -> Vec<u8> {
    let frames = [settings(&[]), get(1, "/at-once")];
    let frames = frames.iter().flat_map(Frame::encode);
    PREFACE.iter().copied().chain(frames).collect()
}

fn after_preface(frame: &Frame) -> Vec<Step> {
    vec![Step::Bytes([PREFACE, &frame.encode()].concat())]
}

/// HEADERS without END_HEADERS: the first `cut` octets of a proper block.
fn begun(stream: u32, cut: usize) -> Frame {
    let block = hpack::block(&fields("GET", "/begun"));
    Frame::new(kind::HEADERS, END, stream, &block[..cut])
}

/// What `begun` left of the block.
fn rest(stream: u32, cut: usize) -> Frame {
    let block = hpack::block(&fields("GET", "/begun"));
    Frame::new(kind::CONTINUATION, flag::END_HEADERS, stream, &block[cut..])
}

fn promise(on: u32, promised: u32) -> Frame {
    let block = hpack::block(&fields("GET", "/promised"));
    let payload = [promised.to_be_bytes().as_slice(), &block].concat();
    Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, on, payload)
}

/// A request with padding in each of its frames, one of which is nothing else.
fn with_padding() -> Vec<Frame> {
    let pad = |frame: Frame, length: u8| {
        let padding = vec![0; usize::from(length)];
        let payload = [&[length], frame.payload.as_slice(), &padding].concat();
        Frame::new(
            frame.kind,
            frame.flags | flag::PADDED,
            frame.stream,
            payload,
        )
    };
    vec![
        pad(post(1, "/echo"), 17),
        pad(data(1, 0, "abc"), 255),
        pad(data(1, 0, ""), 9),
        pad(data(1, END, "def"), 0),
    ]
}

fn with_priority(stream: u32, on: u32) -> Frame {
    let head = get(stream, "/");
    let payload = [priority(stream, on).payload, head.payload].concat();
    Frame::new(kind::HEADERS, head.flags | flag::PRIORITY, stream, payload)
}
