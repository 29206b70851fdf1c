//! What a stream's state allows, what SETTINGS, PING and WINDOW_UPDATE may say,
//! and how header blocks hold together (RFC 9113 §5.1, §6).

use selvage_tests::h2frames::frame::{
    MOST_WINDOW, code, data, flag, headers, kind, ping, priority, reset, setting, settings, window,
};
use selvage_tests::h2frames::hpack;
use selvage_tests::h2frames::{Frame, Heard};

use super::rows::Expects::{
    self, Answer, ConnectionError, Nothing, NothingOr, StreamError, StreamOr,
};
use super::rows::{Row, Step, run};
use super::{END, Way, fields, get, post};

const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
const CLOSED: &[u32] = &[code::STREAM_CLOSED];
/// RFC 9113 §5.1 and §5.1.1 or §6 name different codes for the same thing.
const CLOSED_OR_PROTOCOL: &[u32] = &[code::STREAM_CLOSED, code::PROTOCOL_ERROR];
const FLOW: &[u32] = &[code::FLOW_CONTROL_ERROR];
const ENDS: Expects = ConnectionError(PROTOCOL);

#[tokio::test]
async fn a_streams_state_says_what_may_come() {
    run(states(), 33, Way::Plaintext).await;
}

#[tokio::test]
async fn a_streams_state_says_what_may_come_under_mutual_tls() {
    run(states(), 33, Way::MutualTls).await;
}

#[tokio::test]
async fn settings_pings_and_windows_are_taken_at_their_word() {
    run(said(), 19, Way::Plaintext).await;
}

#[tokio::test]
async fn settings_pings_and_windows_are_taken_at_their_word_under_mutual_tls() {
    run(said(), 19, Way::MutualTls).await;
}

#[rustfmt::skip]
fn states() -> Vec<Row> {
    let open = || get(1, "/hold");
    let held = |frame: Frame| vec![Step::Send(vec![open()]), Step::Settle, Step::Send(vec![frame])];
    let answered = |frame: Frame| vec![Step::Send(vec![get(1, "/")]), Step::Answered(1), Step::Send(vec![frame])];
    let given_up = |frame: Frame| vec![Step::Send(vec![post(1, "/hold"), reset(1, code::CANCEL)]), Step::Settle, Step::Send(vec![frame])];
    vec![
        Row::sends("a stream of an even number", "9113 §5.1.1", vec![get(2, "/")], ENDS),
        Row::sends("a stream of a lower number", "9113 §5.1.1", vec![get(5, "/"), get(3, "/")], ConnectionError(CLOSED_OR_PROTOCOL)),
        Row::sends("the same stream twice", "9113 §5.1.1", vec![open(), get(1, "/")], StreamOr(1, CLOSED, PROTOCOL)),
        Row::sends("streams of numbers far apart", "9113 §5.1.1", vec![get(1, "/"), get(77, "/"), get(901, "/")], Answer(901, 200, None)),
        Row::sends("DATA on an idle stream", "9113 §5.1, §6.1", vec![data(1, 0, "x")], StreamOr(1, CLOSED, PROTOCOL)),
        Row::sends("WINDOW_UPDATE on an idle stream", "9113 §5.1", vec![window(1, 1)], ENDS),
        Row::sends("RST_STREAM on an idle stream", "9113 §6.4", vec![reset(1, code::CANCEL)], ENDS),
        Row::sends("PRIORITY on an idle stream", "9113 §5.1", vec![priority(1, 0)], Nothing),
        Row::sends("WINDOW_UPDATE on an idle stream of the server", "9113 §5.1", vec![window(2, 1)], ENDS),
        Row::sends("PRIORITY that depends on itself", "9113 §5.3.2", vec![priority(3, 3)], NothingOr(3, PROTOCOL)),
        Row::new("DATA on a half-closed stream", "9113 §5.1", held(data(1, 0, "x")), StreamError(1, CLOSED)),
        Row::new("HEADERS on a half-closed stream", "9113 §5.1", held(headers(1, END, &[("x", "y")])), StreamError(1, CLOSED)),
        Row::new("WINDOW_UPDATE on a half-closed stream", "9113 §5.1", held(window(1, 9)), Nothing),
        Row::new("PRIORITY on a half-closed stream", "9113 §5.1", held(priority(1, 0)), Nothing),
        Row::new("RST_STREAM on a half-closed stream", "9113 §5.1", held(reset(1, code::CANCEL)), Nothing),
        Row::new("DATA on an answered stream", "9113 §6.1", answered(data(1, 0, "x")), StreamError(1, CLOSED)),
        Row::new("HEADERS on an answered stream", "9113 §5.1", answered(get(1, "/")), StreamOr(1, CLOSED, PROTOCOL)),
        Row::new("CONTINUATION on an answered stream", "9113 §6.10", answered(Frame::new(kind::CONTINUATION, 4, 1, [])), ConnectionError(CLOSED_OR_PROTOCOL)),
        Row::new("WINDOW_UPDATE on an answered stream", "9113 §6.9", answered(window(1, 9)), Nothing),
        Row::new("PRIORITY on an answered stream", "9113 §5.1", answered(priority(1, 0)), Nothing),
        Row::new("RST_STREAM on an answered stream", "9113 §5.1", answered(reset(1, code::CANCEL)), Nothing),
        Row::new("DATA after one's own RST_STREAM", "9113 §6.1", given_up(data(1, 0, "x")), StreamError(1, CLOSED)),
        Row::new("HEADERS after one's own RST_STREAM", "9113 §5.1", given_up(headers(1, END, &[("x", "y")])), StreamOr(1, CLOSED, PROTOCOL)),
        Row::new("what was on its way to a stream that was reset", "9113 §5.1", late(), Answer(3, 200, None)),
        Row::sends("a PING within a block", "9113 §6.10", vec![begun(1), ping(*b"between!")], ENDS),
        Row::sends("another stream within a block", "9113 §6.10", vec![begun(1), get(3, "/")], ENDS),
        Row::sends("DATA within a block", "9113 §6.10", vec![begun(1), data(1, END, "x")], ENDS),
        Row::sends("another stream's CONTINUATION within a block", "9113 §6.10", vec![begun(1), Frame::new(kind::CONTINUATION, 4, 3, [])], ENDS),
        Row::sends("a frame of no known type within a block", "9113 §5.5", vec![begun(1), Frame::new(0x42, 0, 1, "x")], ENDS),
        Row::sends("a frame of no known type on stream 0 within a block", "9113 §5.5", vec![begun(1), Frame::new(0x42, 0, 0, "x")], ENDS),
        Row::sends("CONTINUATION after a block's end", "9113 §6.10", vec![open(), Frame::new(kind::CONTINUATION, 4, 1, [])], ENDS),
        Row::sends("CONTINUATION after DATA", "9113 §6.10", vec![post(1, "/hold"), data(1, 0, "x"), Frame::new(kind::CONTINUATION, 4, 1, [])], ENDS),
        Row::sends("CONTINUATION first", "9113 §6.10", vec![Frame::new(kind::CONTINUATION, 4, 1, hpack::block(&fields("GET", "/")))], ENDS),
    ]
}

#[rustfmt::skip]
fn said() -> Vec<Row> {
    let set = |name: u16, value: u32| vec![settings(&[(name, value)])];
    let open = |frame: Frame| vec![post(1, "/collect"), frame];
    let held = |frames: Vec<Frame>| vec![Step::Send(vec![get(1, "/hold")]), Step::Settle, Step::Send(frames)];
    vec![
        Row::sends("ENABLE_PUSH of 2", "9113 §6.5.2", set(setting::ENABLE_PUSH, 2), ENDS),
        Row::sends("INITIAL_WINDOW_SIZE of 2^31", "9113 §6.5.2", set(setting::INITIAL_WINDOW_SIZE, MOST_WINDOW + 1), ConnectionError(FLOW)),
        Row::sends("MAX_FRAME_SIZE of 16383", "9113 §6.5.2", set(setting::MAX_FRAME_SIZE, 16_383), ENDS),
        Row::sends("MAX_FRAME_SIZE of 2^24", "9113 §6.5.2", set(setting::MAX_FRAME_SIZE, 1 << 24), ENDS),
        Row::sends("the least and the most of each", "9113 §6.5.2", vec![settings(&[
            (setting::HEADER_TABLE_SIZE, 0), (setting::ENABLE_PUSH, 0), (setting::MAX_CONCURRENT_STREAMS, 0),
            (setting::INITIAL_WINDOW_SIZE, MOST_WINDOW), (setting::MAX_FRAME_SIZE, (1 << 24) - 1), (setting::MAX_HEADER_LIST_SIZE, u32::MAX),
        ])], Nothing),
        Row::sends("settings of no known name", "9113 §6.5.2", vec![settings(&[(0x42, 1), (0xffff, u32::MAX), (0, 0)])], Nothing),
        Row::sends("one setting twice: the last counts", "9113 §6.5.3", vec![settings(&[(setting::INITIAL_WINDOW_SIZE, 0), (setting::INITIAL_WINDOW_SIZE, 3)]), get(1, "/bytes/3")], Answer(1, 200, Some("xxx"))),
        Row::sends("each SETTINGS is acknowledged", "9113 §6.5.3", vec![settings(&[]), settings(&[(setting::ENABLE_PUSH, 0)]), settings(&[])], Expects::Heard(|heard| heard.acknowledged == 4)),
        Row::sends("PING is answered with its octets", "9113 §6.7", vec![ping(*b"\0\xff/ octs"), ping([0; 8])], Expects::Heard(pongs)),
        Row::sends("an answer to a PING is not answered", "9113 §6.7", vec![Frame { flags: flag::ACK, ..ping(*b"unasked!") }], Expects::Heard(|heard| heard.pongs.len() == 1)),
        Row::sends("WINDOW_UPDATE of 0 on the connection", "9113 §6.9", vec![window(0, 0)], ENDS),
        Row::sends("WINDOW_UPDATE of 0 on a stream", "9113 §6.9", open(window(1, 0)), StreamError(1, PROTOCOL)),
        Row::new("WINDOW_UPDATE of 0 on a half-closed stream", "9113 §6.9", held(vec![window(1, 0)]), StreamError(1, PROTOCOL)),
        Row::sends("the reserved bit of a WINDOW_UPDATE", "9113 §6.9", open(window(1, 0x8000_0001)), Nothing),
        Row::sends("the connection's window past 2^31-1", "9113 §6.9.1", vec![window(0, MOST_WINDOW)], ConnectionError(FLOW)),
        Row::sends("a stream's window past 2^31-1", "9113 §6.9.1", open(window(1, MOST_WINDOW)), StreamError(1, FLOW)),
        Row::new("a half-closed stream's window past 2^31-1 in two steps", "9113 §6.9.1", held(vec![window(1, 1 << 30), window(1, 1 << 30)]), StreamError(1, FLOW)),
        Row::sends("the highest window of all", "9113 §6.9.1", vec![window(0, MOST_WINDOW - 65_535), get(1, "/hold"), window(1, MOST_WINDOW - 65_535)], Nothing),
        Row::new("a stream's window past 2^31-1 by SETTINGS", "9113 §6.9.2", held(vec![window(1, MOST_WINDOW - 65_535), settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)])]), ConnectionError(FLOW)),
    ]
}

/// The PINGs of the row and the one that followed, in order.
fn pongs(heard: &Heard) -> bool {
    let sent: [&[u8]; 2] = [b"\0\xff/ octs", &[0; 8]];
    heard.pongs.len() == 3 && heard.pongs[..2].iter().eq(sent)
}

fn begun(stream: u32) -> Frame {
    Frame {
        flags: END,
        ..get(stream, "/")
    }
}

/// DATA and trailers that were sent before their sender heard of the reset are
/// read and dropped; what the trailers put into the dynamic table counts. The
/// reset is for DATA beyond the length that was promised.
fn late() -> Vec<Step> {
    let trailers = hpack::literal(0x40, "x-late", "kept");
    let trailers = Frame::new(kind::HEADERS, END | flag::END_HEADERS, 1, trailers);
    let mut block = hpack::block(&fields("GET", "/"));
    block.push(0x80 | 62); // the newest entry of the dynamic table
    let next = Frame::new(kind::HEADERS, END | flag::END_HEADERS, 3, block);
    let mut promised = fields("POST", "/hold");
    promised.push(("content-length", "2"));
    vec![
        Step::Send(vec![headers(1, 0, &promised), data(1, 0, "abc")]),
        Step::Reset(1),
        Step::Send(vec![window(1, 5), data(1, 0, "late"), trailers, next]),
    ]
}
