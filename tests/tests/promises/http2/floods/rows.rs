//! The floods: what each connection says first, and what it then repeats.

use selvage_tests::h2frames::Frame;
use selvage_tests::h2frames::frame::{
    code, data, flag, headers, kind, ping, priority, request, reset, setting, settings, window,
};
use selvage_tests::h2frames::hpack::{self, literal};

use super::Must;
use crate::http2::{END, fields, get, post};

/// Requests in one write.
const BATCH: u32 = 50;
/// Frames in one write, where they are nothing but frames.
const FRAMES: usize = 1000;
/// Streams that a caller may have open at once.
const STREAMS: u32 = 90;

/// One flood.
pub(super) struct Flood {
    pub(super) name: &'static str,
    /// The advisory that tells of it.
    pub(super) seen_in: &'static str,
    /// The caller's settings.
    pub(super) settings: Vec<(u16, u32)>,
    /// What it says first.
    pub(super) begins: Vec<Frame>,
    /// What it says in each round, counted from 0; nothing: it waits.
    pub(super) round: Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>,
    /// Whether it reads what is said to it.
    pub(super) reads: bool,
    pub(super) must: Must,
    /// Whether the sidecar asks the application for what is asked of it.
    pub(super) goes_on: bool,
}

impl Flood {
    fn new(
        name: &'static str,
        seen_in: &'static str,
        must: Must,
        round: impl Fn(u32) -> Vec<Frame> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            seen_in,
            settings: Vec::new(),
            begins: Vec::new(),
            round: Box::new(move |number| round(number).iter().flat_map(Frame::encode).collect()),
            reads: true,
            must,
            goes_on: false,
        }
    }

    fn after(self, begins: Vec<Frame>) -> Self {
        Self { begins, ..self }
    }

    fn announcing(self, settings: &[(u16, u32)]) -> Self {
        let settings = settings.to_vec();
        Self { settings, ..self }
    }

    fn reaching_the_application(self) -> Self {
        Self {
            goes_on: true,
            ..self
        }
    }

    fn unread(self) -> Self {
        Self {
            reads: false,
            ..self
        }
    }
}

/// The same frame again and again.
fn repeats(frame: Frame) -> impl Fn(u32) -> Vec<Frame> {
    move |_| vec![frame.clone(); FRAMES]
}

/// What is done with each of `BATCH` new streams.
fn streams(each: fn(u32) -> Vec<Frame>) -> impl Fn(u32) -> Vec<Frame> {
    move |round| {
        let numbers = round * BATCH..(round + 1) * BATCH;
        numbers
            .flat_map(|number| each(2 * number + FIRST))
            .collect()
    }
}

/// Above every stream of `begins`.
const FIRST: u32 = 1001;

/// `STREAMS` requests of a path.
fn held(path: &str) -> Vec<Frame> {
    (0..STREAMS)
        .map(|number| get(2 * number + 1, path))
        .collect()
}

fn whole(stream: u32, block: Vec<u8>) -> Frame {
    Frame::new(kind::HEADERS, END | flag::END_HEADERS, stream, block)
}

/// A request whose block puts a field into the dynamic table and then names it `times`.
fn named(stream: u32, name: &str, value: &str, times: usize) -> Vec<Frame> {
    let mut block = hpack::block(&fields("GET", "/refuse-me"));
    block.extend(literal(0x40, name, value));
    block.extend(vec![0x80 | 62; times]);
    vec![whole(stream, block)]
}

/// A request that says it is shorter than it is.
fn too_long(stream: u32) -> Vec<Frame> {
    let mut fields = fields("POST", "/hold");
    fields.push(("content-length", "1"));
    vec![headers(stream, 0, &fields), data(stream, 0, "abc")]
}

fn upper_case(stream: u32) -> Vec<Frame> {
    let mut fields = fields("GET", "/refuse-me");
    fields.push(("X-Upper", "a"));
    vec![request(stream, &fields)]
}

#[rustfmt::skip]
pub(super) fn floods() -> Vec<Flood> {
    let began = || vec![Frame { flags: END, ..get(1, "/refuse-me") }];
    let piece = |octets: Vec<u8>| Frame::new(kind::CONTINUATION, 0, 1, octets);
    let windows = |round: u32| vec![settings(&[(setting::INITIAL_WINDOW_SIZE, 1 + round % 2)]); FRAMES];
    let nameless = |stream: u32| vec![whole(stream, [hpack::block(&fields("GET", "/refuse-me")), [0; 300].to_vec()].concat())];
    let padding = Frame::new(kind::DATA, flag::PADDED, 1, [&[255][..], &[0; 255]].concat());
    vec![
        Flood::new("requests reset at once", "CVE-2023-44487", Must::End, streams(|s| vec![get(s, "/hold"), reset(s, code::CANCEL)])).reaching_the_application(),
        Flood::new("requests that are reset for their length", "CVE-2025-8671", Must::End, streams(too_long)).reaching_the_application(),
        Flood::new("requests that are reset for their window", "CVE-2025-8671", Must::End, streams(|s| vec![get(s, "/hold"), window(s, 0)])).reaching_the_application(),
        Flood::new("requests that are reset for their fields", "CVE-2025-8671", Must::End, streams(upper_case)),
        Flood::new("requests beyond the places there are", "CVE-2025-8671", Must::End, streams(|s| vec![get(s, "/hold")])).after(held("/hold")).reaching_the_application(),
        Flood::new("CONTINUATION without end", "RUSTSEC-2024-0332", Must::End, repeats(piece(literal(0, "x", &"v".repeat(1000))))).after(began()),
        Flood::new("CONTINUATION of nothing", "RUSTSEC-2024-0332", Must::End, repeats(piece(Vec::new()))).after(began()),
        Flood::new("SETTINGS", "CVE-2019-9515", Must::Bound, repeats(settings(&[]))),
        Flood::new("SETTINGS whose acknowledgements are not read", "CVE-2019-9515", Must::Stop, repeats(settings(&[]))).unread(),
        Flood::new("SETTINGS that change all windows", "CVE-2019-9515", Must::Bound, windows).announcing(&[(setting::INITIAL_WINDOW_SIZE, 1)]).after(held("/bytes/1000")),
        Flood::new("PING", "CVE-2019-9512", Must::Bound, repeats(ping(*b"andagain"))),
        Flood::new("PING whose answers are not read", "CVE-2019-9512", Must::Stop, repeats(ping(*b"andagain"))).unread(),
        Flood::new("DATA of nothing", "CVE-2019-9518", Must::End, repeats(data(1, 0, ""))).after(vec![post(1, "/hold")]),
        Flood::new("DATA of padding", "CVE-2019-9518", Must::End, repeats(padding)).after(vec![post(1, "/hold")]),
        Flood::new("HEADERS of nothing", "CVE-2019-9518", Must::End, streams(|s| vec![whole(s, Vec::new())])),
        Flood::new("fields without names", "CVE-2019-9516", Must::End, streams(nameless)),
        Flood::new("PRIORITY", "CVE-2019-9513", Must::Bound, repeats(priority(7, 5))),
        Flood::new("WINDOW_UPDATE", "CVE-2019-9513", Must::Bound, repeats(window(0, 1))),
        Flood::new("one large field named again and again", "CVE-2026-47774", Must::Bound, streams(|s| named(s, "x", &"v".repeat(4000), 12_000))),
        Flood::new("cookies in crumbs", "CVE-2026-47774", Must::Bound, streams(|s| named(s, "cookie", "a=b", 8000))),
        Flood::new("windows of nothing", "CVE-2019-9517", Must::Bound, |_| Vec::new()).announcing(&[(setting::INITIAL_WINDOW_SIZE, 0)]).after(held("/bytes/4000000")).reaching_the_application(),
        Flood::new("windows of everything, and nobody reads", "CVE-2019-9517", Must::Bound, |_| Vec::new()).announcing(&[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]).after([vec![window(0, 1 << 30)], held("/bytes/4000000")].concat()).unread().reaching_the_application(),
    ]
}
