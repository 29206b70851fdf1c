//! Header blocks that cannot be read (RFC 7541), and messages that can be read
//! but are malformed (RFC 9113 §8): none of them is a whole request at the
//! application.

use selvage_tests::h2frames::Frame;
use selvage_tests::h2frames::frame::{code, data, flag, headers, kind, request};
use selvage_tests::h2frames::hpack::{self, integer, literal};

use super::rows::Expects::{self, Answer, ConnectionError, Malformed};
use super::rows::{Row, Step, run};
use super::{END, Way, fields, post};

const ENDS: Expects = ConnectionError(&[code::COMPRESSION_ERROR]);

#[tokio::test]
async fn a_block_that_cannot_be_read_ends_the_connection() {
    run(blocks(), 18, Way::Plaintext).await;
}

#[tokio::test]
async fn a_block_that_cannot_be_read_ends_the_connection_under_mutual_tls() {
    run(blocks(), 18, Way::MutualTls).await;
}

#[tokio::test]
async fn a_malformed_request_ends_its_stream() {
    run(malformed(), 63, Way::Plaintext).await;
}

#[tokio::test]
async fn a_malformed_request_ends_its_stream_under_mutual_tls() {
    run(malformed(), 63, Way::MutualTls).await;
}

#[tokio::test]
async fn what_is_unusual_but_allowed_is_served() {
    run(unusual(), 9, Way::Plaintext).await;
}

#[tokio::test]
async fn what_is_unusual_but_allowed_is_served_under_mutual_tls() {
    run(unusual(), 9, Way::MutualTls).await;
}

/// A proper request with more octets behind its block.
fn with(stream: u32, octets: &[u8]) -> Frame {
    let block = hpack::block(&fields("GET", "/collect"));
    whole(stream, [&block, octets].concat())
}

fn whole(stream: u32, block: Vec<u8>) -> Frame {
    Frame::new(kind::HEADERS, END | flag::END_HEADERS, stream, block)
}

/// A literal of name `x` whose value's octets are given with their length and Huffman bit.
fn coded(value: &[u8]) -> Vec<u8> {
    [&[0, 1, b'x'], value].concat()
}

#[rustfmt::skip]
fn blocks() -> Vec<Row> {
    let entry = |index: usize| integer(0x80, 7, index);
    let size = |octets: usize| integer(0x20, 5, octets);
    let proper = || hpack::block(&fields("GET", "/"));
    let row = |name, section, octets: &[u8]| Row::sends(name, section, vec![with(1, octets)], ENDS);
    let of = |name, section, block: Vec<u8>, expects| Row::sends(name, section, vec![whole(1, block)], expects);
    let kept = [literal(0x40, "x-kept", "kept"), proper()].concat();
    let used = [proper(), entry(62)].concat();
    vec![
        row("an entry of index 0", "7541 §6.1", &[0x80]),
        row("an entry that nobody made", "7541 §2.3.3", &entry(62)),
        row("an entry far beyond the table", "7541 §2.3.3", &entry(1 << 20)),
        row("a name that nobody made", "7541 §2.3.3", &[0x7f, 0, 1, b'x']),
        row("an index past 64 bits", "7541 §5.1", &[0xff; 16]),
        row("an index without an end", "7541 §5.1", &[0xff, 0x80]),
        row("a name longer than the block", "7541 §5.2", &[0, 9, b'x']),
        row("a value longer than the block", "7541 §5.2", &[0, 1, b'x', 9, b'y']),
        row("a literal without a value", "7541 §5.2", &[0, 1, b'x']),
        row("a Huffman string padded with zeros", "7541 §5.2", &coded(&[0x81, 0x18])),
        row("a Huffman string padded with an octet", "7541 §5.2", &coded(&[0x82, 0x1f, 0xff])),
        row("a Huffman string that holds its own end", "7541 §5.2", &coded(&[0x84, 0xff, 0xff, 0xff, 0xff])),
        of("a table larger than was announced", "7541 §4.2", [size(1 << 24), proper()].concat(), ENDS),
        row("a change of the table behind a field", "7541 §4.2", &size(0)),
        of("a change of the table within its bounds", "7541 §4.2", [size(0), size(4096), proper()].concat(), Answer(1, 200, None)),
        Row::sends("an entry that was made before", "7541 §2.3.2", vec![whole(1, kept.clone()), whole(3, used.clone())], Answer(3, 200, None)),
        Row::sends("an entry that was evicted", "7541 §4.3", vec![whole(1, kept), whole(3, [size(0), size(4096), used].concat())], ENDS),
        Row::sends("a trailer block that cannot be read", "9113 §4.3", vec![post(1, "/collect"), whole(1, vec![0x80])], ENDS),
    ]
}

/// A request in which `name` has this value, or is not there at all.
fn changed<'a>(name: &str, value: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let mut fields = fields("GET", "/collect");
    match value {
        Some(value) => {
            for field in fields.iter_mut().filter(|field| field.0 == name) {
                field.1 = value;
            }
        }
        None => fields.retain(|field| field.0 != name),
    }
    fields
}

/// A request with one field more.
fn more<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut fields = fields("POST", "/collect");
    fields.push((name, value));
    fields
}

#[rustfmt::skip]
fn malformed() -> Vec<Row> {
    let row = |name, section, fields: &[(&str, &str)]| Row::sends(name, section, vec![request(1, fields)], Malformed(1));
    let has = |name, section, field, value| row(name, section, &more(field, value));
    let not = |name, field| row(name, "9113 §8.3.1", &changed(field, None));
    let is = |name, field, value| row(name, "9113 §8.3.1", &changed(field, Some(value)));
    let sends = |name, lengths: &[(&'static str, &'static str)], frames: &[Frame]| {
        let head = headers(1, 0, &[more("x", "y").as_slice(), lengths].concat());
        Row::sends(name, "9113 §8.1.1", [&[head], frames].concat(), Malformed(1))
    };
    let ends_with = |name, frames: Vec<Frame>| {
        Row::sends(name, "9113 §8.1", [vec![post(1, "/collect"), data(1, 0, "abc")], frames].concat(), Malformed(1))
    };
    let late = [&[("x", "y")], fields("GET", "/collect").as_slice()].concat();
    let connect = [(":method", "CONNECT"), (":authority", "orders.shop:80"), (":path", "/"), (":scheme", "http")];
    vec![
        has("upper case in a name", "9113 §8.2", "X-Upper", "a"),
        has("an empty name", "9113 §8.2.1", "", "a"),
        has("a space in a name", "9113 §8.2.1", "x y", "a"),
        has("a colon in a name", "9113 §8.2.1", "x:y", "a"),
        has("a control in a name", "9113 §8.2.1", "x\x01y", "a"),
        has("a DEL in a name", "9113 §8.2.1", "x\x7f", "a"),
        has("a letter beyond ASCII in a name", "9113 §8.2.1", "xé", "a"),
        has("a NUL in a value", "9113 §8.2.1", "x", "a\0b"),
        has("a CR in a value", "9113 §8.2.1", "x", "a\rb"),
        has("a LF in a value", "9113 §8.2.1", "x", "a\nb"),
        has("a space before a value", "9113 §8.2.1", "x", " a"),
        has("a space behind a value", "9113 §8.2.1", "x", "a "),
        has("a tab before a value", "9113 §8.2.1", "x", "\ta"),
        has("a tab behind a value", "9113 §8.2.1", "x", "a\t"),
        has("connection", "9113 §8.2.2", "connection", "close"),
        has("connection: keep-alive", "9113 §8.2.2", "connection", "keep-alive"),
        has("proxy-connection", "9113 §8.2.2", "proxy-connection", "keep-alive"),
        has("keep-alive", "9113 §8.2.2", "keep-alive", "timeout=5"),
        has("transfer-encoding", "9113 §8.2.2", "transfer-encoding", "chunked"),
        has("upgrade", "9113 §8.2.2", "upgrade", "websocket"),
        has("te: gzip", "9113 §8.2.2", "te", "gzip"),
        has("te: trailers and more", "9113 §8.2.2", "te", "trailers, gzip"),
        not("no method", ":method"),
        not("no scheme", ":scheme"),
        not("no path", ":path"),
        row("no pseudo field at all", "9113 §8.3.1", &[("x", "y")]),
        Row::sends("no field at all", "9113 §8.3.1", vec![whole(1, Vec::new())], Malformed(1)),
        is("an empty path", ":path", ""),
        is("a path without a slash", ":path", "collect"),
        is("a path with a space", ":path", "/collect it"),
        is("an absolute path", ":path", "http://orders.shop/collect"),
        is("an empty method", ":method", ""),
        is("a method with a space", ":method", "GET /collect"),
        is("a method with CRLF", ":method", "GET\r\nx: y"),
        is("an authority with userinfo", ":authority", "me@orders.shop"),
        is("an authority with a path", ":authority", "orders.shop/collect"),
        is("an empty scheme", ":scheme", ""),
        row("two methods", "9113 §8.3", &more(":method", "POST")),
        row("two paths", "9113 §8.3", &[&[(":path", "/collect")], fields("GET", "/collect").as_slice()].concat()),
        row("two schemes", "9113 §8.3", &[&[(":scheme", "http")], fields("GET", "/collect").as_slice()].concat()),
        row("two authorities", "9113 §8.3", &[&[(":authority", "orders.shop")], fields("GET", "/collect").as_slice()].concat()),
        row("a pseudo field behind others", "9113 §8.3", &late),
        row("a pseudo field of responses", "9113 §8.3", &[&[(":status", "200")], fields("GET", "/collect").as_slice()].concat()),
        row("a pseudo field of no known name", "9113 §8.3", &[&[(":hidden", "a")], fields("GET", "/collect").as_slice()].concat()),
        row("an empty pseudo name", "9113 §8.3", &[&[(":", "a")], fields("GET", "/collect").as_slice()].concat()),
        has("a host unlike the authority", "9113 §8.3.1", "host", "other.shop"),
        row("CONNECT with a path", "9113 §8.5", &connect),
        sends("a length and less DATA", &[("content-length", "4")], &[data(1, END, "abc")]),
        sends("a length and more DATA", &[("content-length", "2")], &[data(1, END, "abc")]),
        sends("a length and more DATA in two", &[("content-length", "2")], &[data(1, 0, "ab"), data(1, END, "c")]),
        sends("a length and no DATA", &[("content-length", "4")], &[data(1, END, "")]),
        sends("a length, less DATA and trailers", &[("content-length", "4")], &[data(1, 0, "abc"), request(1, &[("x", "y")])]),
        has("a length and the end at once", "9113 §8.1.1", "content-length", "4"),
        sends("two lengths", &[("content-length", "3"), ("content-length", "4")], &[data(1, END, "abc")]),
        sends("a list of lengths", &[("content-length", "3, 4")], &[data(1, END, "abc")]),
        sends("a length with a plus", &[("content-length", "+3")], &[data(1, END, "abc")]),
        sends("a length past 64 bits", &[("content-length", "18446744073709551619")], &[data(1, END, "abc")]),
        ends_with("trailers with a pseudo field", vec![request(1, &[(":path", "/")])]),
        ends_with("trailers with a pseudo field of responses", vec![request(1, &[("x", "y"), (":status", "200")])]),
        ends_with("trailers with upper case", vec![request(1, &[("X-Upper", "y")])]),
        ends_with("trailers with connection", vec![request(1, &[("connection", "close")])]),
        ends_with("HEADERS in the middle", vec![headers(1, 0, &[("x", "y")]), data(1, END, "d")]),
        ends_with("a second head in the middle", vec![post(1, "/collect"), data(1, END, "d")]),
    ]
}

#[rustfmt::skip]
fn unusual() -> Vec<Row> {
    let echo = |name, section, field, value| Row::sends(name, section, vec![request(1, &more_at("/", field, value))], Answer(1, 200, None));
    let only_host = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "orders.shop")];
    let lengths = |value| headers(1, 0, &more_at("/echo", "content-length", value));
    vec![
        echo("te: trailers", "9113 §8.2.2", "te", "trailers"),
        echo("the same host and authority", "9113 §8.3.1", "host", "orders.shop"),
        echo("an empty value", "9113 §8.2.1", "x", ""),
        echo("octets beyond ASCII in a value", "9113 §8.2.1", "x", "é"),
        echo("every mark that a name may hold", "9110 §5.6.2", "!#$%&'*+-.^_`|~09az", "a"),
        Row::sends("host and no authority", "9113 §8.3.1", vec![request(1, &only_host)], Answer(1, 200, None)),
        Row::sends("a length of 0 and the end at once", "9113 §8.1.1", vec![request(1, &more_at("/", "content-length", "0"))], Answer(1, 200, None)),
        Row::new("a length that is kept in pieces", "9113 §8.1.1", vec![Step::Send(vec![lengths("3"), data(1, 0, "a"), data(1, 0, "b")]), Step::Settle, Step::Send(vec![data(1, END, "c")])], Answer(1, 200, Some("abc"))),
        Row::sends("an empty end behind a length that is kept", "9113 §8.1.1", vec![lengths("3"), data(1, 0, "abc"), data(1, END, "")], Answer(1, 200, Some("abc"))),
    ]
}

fn more_at<'a>(path: &'a str, name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut fields = fields("POST", path);
    fields.push((name, value));
    fields
}
