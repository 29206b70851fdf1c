//! Answers to one request: a table, each row of which the application plays on
//! the connection that the sidecar happens to have.

use http::Method;
use selvage_tests::h2frames::Frame;
use selvage_tests::h2frames::frame::{
    MOST_WINDOW, code, data, flag, goaway, headers, kind, ping, priority, reset, setting, settings,
    window,
};
use selvage_tests::h2frames::hpack;
use selvage_tests::sidecar::Sidecar;

use super::{Act, Origin, Seen, ask, good, greeting, head};
use crate::http2::END;

/// Which answers the caller may get.
#[derive(Debug, Clone, Copy)]
enum Gets {
    /// The application's 200 with this body, at the first try.
    Good(&'static str),
    /// The same, at the second try: the first was not processed.
    GoodAgain,
    /// The same at the second try, or the sidecar's own: both are allowed.
    GoodAgainOr(&'static [(u16, &'static str)]),
    /// The sidecar's own, with one of these flags.
    Own(&'static [(u16, &'static str)]),
    /// The application's head, and then a broken body; or the sidecar's own answer.
    Broken,
    /// Either of these.
    GoodOrBroken(&'static str),
}
use Gets::{Broken, Good, GoodAgain, GoodAgainOr, GoodOrBroken, Own};

/// The answer is malformed.
const BAD: Gets = Own(&[(502, "bad-response")]);
/// The connection is no good: whoever waits on it is told either.
const FAILS: Gets = Own(EITHER);
const EITHER: &[(u16, &str)] = &[(502, "bad-response"), (503, "reset")];
const RESET: Gets = Own(&[(503, "reset")]);

/// One demand.
struct Row {
    name: &'static str,
    section: &'static str,
    method: Method,
    gets: Gets,
    /// What the application sends on the stream.
    act: fn(u32) -> Vec<Frame>,
    /// Whether it closes the connection then.
    leaves: bool,
}

fn row(name: &'static str, section: &'static str, gets: Gets, act: fn(u32) -> Vec<Frame>) -> Row {
    Row {
        name,
        section,
        method: Method::POST,
        gets,
        act,
        leaves: false,
    }
}

impl Row {
    fn leaving(self) -> Self {
        Self {
            leaves: true,
            ..self
        }
    }

    fn to(self, method: Method) -> Self {
        Self { method, ..self }
    }
}

#[tokio::test]
async fn whatever_an_application_says_its_caller_gets_an_answer() {
    const ROWS: usize = 61;
    let acts: Vec<_> = rows().iter().map(|row| (row.act, row.leaves)).collect();
    let origin = Origin::start(greeting(), move |path, stream, before| {
        let number = path
            .strip_prefix("/row/")
            .and_then(|word| word.parse::<usize>().ok());
        match number.map(|number| acts[number]) {
            Some((act, leaves)) if before == 0 => {
                if leaves {
                    Act::Leave(act(stream))
                } else {
                    Act::Send(act(stream))
                }
            }
            _ => Act::Send(good(stream)),
        }
    })
    .await;
    let (_pki, caller) = origin.caller().await;
    let mut wrong = Vec::new();
    let mut run = 0;
    for (number, row) in rows().iter().enumerate() {
        let judged = judge(&origin, &caller, number, row).await;
        run += 1;
        let mark = if judged.is_ok() { "ok " } else { "BAD" };
        let text = judged.as_deref().unwrap_or_else(|text| text);
        println!("{mark} {} ({}): {text}", row.name, row.section);
        if let Err(text) = judged {
            wrong.push(format!("{} ({}): {text}", row.name, row.section));
        }
    }
    assert_eq!(run, ROWS, "rows that were run");
    assert!(wrong.is_empty(), "{} of {ROWS}: {wrong:#?}", wrong.len());
}

async fn judge(
    origin: &Origin,
    caller: &Sidecar,
    number: usize,
    row: &Row,
) -> Result<String, String> {
    let path = format!("/row/{number}");
    let seen = ask(caller, &row.method, &path).await;
    let times = origin.asked(&path);
    let next = ask(caller, &Method::GET, "/next").await;
    let judged = verdict(row.gets, &seen, times)?;
    match next {
        Seen::Whole(answer) if answer.status == 200 && answer.body == "good" => Ok(judged),
        next => Err(format!("{judged}; but the next request: {next:?}")),
    }
}

fn verdict(gets: Gets, seen: &Seen, times: usize) -> Result<String, String> {
    let is_good = |body: &str| matches!(seen, Seen::Whole(answer) if answer.status == 200 && answer.flag().is_empty() && answer.body == body);
    let is_own = |flags: &[(u16, &str)]| {
        matches!(seen, Seen::Whole(answer)
            if flags.contains(&(answer.status.as_u16(), answer.flag()))
                && answer.header("proxy-status").starts_with("selvage; error="))
    };
    let is_broken = matches!(seen, Seen::Broken(_)) || is_own(EITHER);
    let is_allowed = match gets {
        Good(body) => is_good(body) && times == 1,
        GoodAgain => is_good("good") && times == 2,
        GoodAgainOr(flags) => (is_good("good") && times == 2) || (is_own(flags) && times == 1),
        Own(flags) => is_own(flags) && times == 1,
        Broken => is_broken && times == 1,
        GoodOrBroken(body) => (is_good(body) || is_broken) && times == 1,
    };
    let text = match seen {
        Seen::Whole(answer) => format!("{} {}", answer.status, answer.flag()),
        Seen::Broken(error) => format!("broke off: {error}"),
        Seen::Hangs => "hangs".to_owned(),
    };
    if is_allowed {
        Ok(text)
    } else {
        Err(format!("{text}, after {times} tries: {seen:?}"))
    }
}

fn block(stream: u32, flags: u8, octets: &[u8]) -> Frame {
    Frame::new(kind::HEADERS, flags | flag::END_HEADERS, stream, octets)
}

/// A head of these fields alone, and the end.
fn only(stream: u32, fields: &[(&str, &str)]) -> Vec<Frame> {
    vec![headers(stream, END, fields)]
}

/// A 200 with one more field, and the end.
fn with(stream: u32, name: &str, value: &str) -> Vec<Frame> {
    only(stream, &[(":status", "200"), (name, value)])
}

/// A good answer behind a frame.
fn first(frame: Frame, stream: u32) -> Vec<Frame> {
    [vec![frame], good(stream)].concat()
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    vec![
        // What makes a response malformed.
        row("DATA before HEADERS", "9113 §8.1", BAD, |s| vec![data(s, END, "x")]),
        row("no status", "9113 §8.3.2", BAD, |s| only(s, &[("x", "y")])),
        row("no field at all", "9113 §8.3.2", BAD, |s| vec![block(s, END, &[])]),
        row("two statuses", "9113 §8.3", BAD, |s| only(s, &[(":status", "200"), (":status", "404")])),
        row("a status of letters", "9113 §8.3.2", BAD, |s| only(s, &[(":status", "abc")])),
        row("a status of two digits", "9113 §8.3.2", BAD, |s| only(s, &[(":status", "20")])),
        row("a status of four digits", "9113 §8.3.2", BAD, |s| only(s, &[(":status", "2000")])),
        row("an empty status", "9113 §8.3.2", BAD, |s| only(s, &[(":status", "")])),
        row("a pseudo field of requests", "9113 §8.3", BAD, |s| with(s, ":path", "/")),
        row("a pseudo field of no known name", "9113 §8.3", BAD, |s| with(s, ":x", "/")),
        row("a status behind others", "9113 §8.3", BAD, |s| only(s, &[("x", "y"), (":status", "200")])),
        row("upper case in a name", "9113 §8.2", BAD, |s| with(s, "X", "y")),
        row("a LF in a value", "9113 §8.2.1", BAD, |s| with(s, "x", "a

b")),
        row("a NUL in a value", "9113 §8.2.1", BAD, |s| with(s, "x", "a\0b")),
        row("connection", "9113 §8.2.2", BAD, |s| with(s, "connection", "close")),
        row("transfer-encoding", "9113 §8.2.2", BAD, |s| with(s, "transfer-encoding", "chunked")),
        row("two lengths", "9113 §8.1.1", BAD, |s| only(s, &[(":status", "200"), ("content-length", "3"), ("content-length", "4")])),
        row("a length and the end at once", "9113 §8.1.1", Broken, |s| with(s, "content-length", "3")),
        row("a length and less DATA", "9113 §8.1.1", Broken, |s| vec![head(s, &[("content-length", "9")]), data(s, END, "short")]),
        row("a length and more DATA", "9113 §8.1.1", Broken, |s| vec![head(s, &[("content-length", "2")]), data(s, END, "abc")]),
        row("a second head", "9113 §8.1", Broken, |s| [vec![head(s, &[]), data(s, 0, "some")], good(s)].concat()),
        row("trailers that end nothing", "9113 §8.1", Broken, |s| vec![head(s, &[]), headers(s, 0, &[("x", "y")]), data(s, END, "more")]),
        row("trailers with a status", "9113 §8.1", Broken, |s| vec![head(s, &[]), data(s, 0, "some"), headers(s, END, &[(":status", "200")])]),
        row("101 Switching Protocols", "9113 §8.6", BAD, |s| first(headers(s, 0, &[(":status", "101")]), s)),
        row("an interim answer that ends", "9113 §8.1", BAD, |s| only(s, &[(":status", "103")])),
        row("an interim answer, then DATA", "9113 §8.1", BAD, |s| vec![headers(s, 0, &[(":status", "103")]), data(s, END, "x")]),
        row("a body to HEAD", "9110 §9.3.2", GoodOrBroken(""), |s| vec![head(s, &[]), data(s, END, "body")]).to(Method::HEAD),
        // What is an error of the whole connection.
        row("PUSH_PROMISE", "9113 §6.6", FAILS, |s| first(Frame::new(kind::PUSH_PROMISE, 4, s, [&[0, 0, 0, 2][..], &hpack::block(&[(":method", "GET")])].concat()), s)),
        row("ENABLE_PUSH of 1", "9113 §6.5.2", FAILS, |s| first(settings(&[(setting::ENABLE_PUSH, 1)]), s)),
        row("INITIAL_WINDOW_SIZE of 2^31", "9113 §6.5.2", FAILS, |s| first(settings(&[(setting::INITIAL_WINDOW_SIZE, MOST_WINDOW + 1)]), s)),
        row("WINDOW_UPDATE of 0 on the connection", "9113 §6.9", FAILS, |s| first(window(0, 0), s)),
        row("WINDOW_UPDATE of 0 on the stream", "9113 §6.9", FAILS, |s| first(window(s, 0), s)),
        row("the connection's window past 2^31-1", "9113 §6.9.1", FAILS, |s| first(window(0, MOST_WINDOW), s)),
        // Of a stream on which nothing more is sent.
        row("the stream's window past 2^31-1", "9113 §6.9.1", GoodOrBroken("good"), |s| first(window(s, MOST_WINDOW), s)),
        row("DATA on stream 0", "9113 §6.1", FAILS, |s| first(data(0, 0, "x"), s)),
        row("HEADERS on a stream nobody opened", "9113 §5.1.1", FAILS, |s| [good(s + 1000), good(s)].concat()),
        row("HEADERS on a stream of one's own", "9113 §5.1.1", FAILS, |s| [good(2), good(s)].concat()),
        row("PING of 7 octets", "9113 §6.7", FAILS, |s| first(Frame::new(kind::PING, 0, 0, [0; 7]), s)),
        row("a frame above the largest", "9113 §4.2", FAILS, |s| first(Frame::new(0x42, 0, 0, vec![0; 1 << 20]), s)),
        row("a PING within a block", "9113 §6.10", FAILS, |s| vec![Frame { flags: 0, ..head(s, &[]) }, ping(*b"between!")]),
        row("a block that cannot be read", "7541 §6.1", FAILS, |s| vec![block(s, END, &[0x80])]),
        row("padding longer than its frame", "9113 §6.1", Broken, |s| vec![head(s, &[]), Frame::new(kind::DATA, 9, s, [7, 0])]),
        row("a head above the limit", "9113 §10.5.1", FAILS, large_head),
        row("the end of the connection", "9113 §5.4", RESET, |_| vec![]).leaving(),
        row("the end of the connection behind the head", "9113 §5.4", Broken, |s| vec![head(s, &[])]).leaving(),
        row("the end of the connection in the body", "9113 §5.4", Broken, |s| vec![head(s, &[]), data(s, 0, "some")]).leaving(),
        // What ends one stream.
        row("RST_STREAM with CANCEL", "9113 §6.4", RESET, |s| vec![reset(s, code::CANCEL)]),
        row("RST_STREAM with INTERNAL_ERROR", "9113 §6.4", RESET, |s| vec![reset(s, code::INTERNAL_ERROR)]),
        row("RST_STREAM with NO_ERROR and no answer", "9113 §6.4", FAILS, |s| vec![reset(s, code::NO_ERROR)]),
        row("RST_STREAM in the body", "9113 §6.4", Broken, |s| vec![head(s, &[]), data(s, 0, "some"), reset(s, code::CANCEL)]),
        row("RST_STREAM with NO_ERROR in the body", "9113 §6.4", Broken, |s| vec![head(s, &[]), data(s, 0, "some"), reset(s, code::NO_ERROR)]),
        row("RST_STREAM with NO_ERROR behind a whole answer", "9113 §8.1", Good("good"), |s| [good(s), vec![reset(s, code::NO_ERROR)]].concat()),
        row("RST_STREAM with REFUSED_STREAM", "9113 §8.7", GoodAgain, |s| vec![reset(s, code::REFUSED_STREAM)]),
        row("GOAWAY below the stream", "9113 §6.8", GoodAgain, |s| vec![goaway(s.saturating_sub(2), code::NO_ERROR)]).leaving(),
        row("GOAWAY with an error below the stream", "9113 §6.8", GoodAgainOr(EITHER), |s| vec![goaway(s.saturating_sub(2), code::ENHANCE_YOUR_CALM)]).leaving(),
        // What disturbs nothing.
        row("GOAWAY that counts the stream", "9113 §6.8", Good("good"), |s| first(goaway(s, code::NO_ERROR), s)),
        row("interim answers", "9113 §8.1", Good("good"), |s| [vec![headers(s, 0, &[(":status", "100")]), headers(s, 0, &[(":status", "103"), ("x", "y")])], good(s)].concat()),
        row("frames and settings of no known kind", "9113 §5.5", Good("good"), |s| [vec![Frame::new(0x42, 9, s, "x"), settings(&[(0x42, 9)]), priority(s, 0), ping(*b"how are?")], good(s)].concat()),
        row("frames behind the end of the stream", "9113 §5.1", Good("good"), |s| [good(s), vec![window(s, 9), reset(s, code::CANCEL)]].concat()),
        row("DATA of nothing, and padding", "9113 §6.1", Good("good"), |s| vec![head(s, &[]), data(s, 0, ""), Frame::new(kind::DATA, 8, s, [&[3], &b"good"[..], &[0; 3]].concat()), data(s, END, "")]),
        row("trailers", "9113 §8.1", Good("good"), |s| vec![head(s, &[]), data(s, 0, "good"), headers(s, END, &[("x", "y")])]),
    ]
}

/// A head of 200 KiB, in frames of the size that every peer takes.
fn large_head(stream: u32) -> Vec<Frame> {
    let block = hpack::block(&[(":status", "200"), ("x", &"v".repeat(200 << 10))]);
    let pieces = block.chunks(16_384);
    let last = pieces.len() - 1;
    let frame = |(number, piece): (usize, &[u8])| {
        let (kind, first) = match number {
            0 => (kind::HEADERS, END),
            _ => (kind::CONTINUATION, 0),
        };
        let end = if number == last { flag::END_HEADERS } else { 0 };
        Frame::new(kind, first | end, stream, piece)
    };
    pieces.enumerate().map(frame).collect()
}
