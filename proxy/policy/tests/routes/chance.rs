//! Routes and requests by chance, of a few words each, so that they meet
//! often. One number is one match or one request, spent digit by digit: it
//! shrinks to a plainer one.

use crate::plain::{Field, Path, Request, Route, Text, Wanted};

struct Digits(u64);

impl Digits {
    fn below(&mut self, count: usize) -> usize {
        let digit = self.0 % count as u64;
        self.0 /= count as u64;
        usize::try_from(digit).expect("below a usize")
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const HOSTNAMES: [&[&str]; 8] = [
    &[],
    &["b.a.com"],
    &["*.a.com"],
    &["a.com"],
    &["*.com", "c.b.a.com"],
    &["*.b.a.com"],
    &["*.com"],
    &["a.com", "*.a.com"],
];

const HOSTS: [Option<&str>; 12] = [
    Some("b.a.com"),
    Some("c.b.a.com"),
    Some("a.com"),
    None,
    Some("B.A.Com"),
    Some("d.c.b.a.com"),
    Some("x.com"),
    Some("a.com."),
    Some("org"),
    Some("bb.a.com"),
    Some(""),
    Some("com"),
];

const PATHS: [Path; 24] = [
    Path::Prefix("/a"),
    Path::Exact("/a/b"),
    Path::Regex("/a.*"),
    Path::Any,
    Path::Prefix("/"),
    Path::Exact("/a"),
    Path::Regex("/[a-c]/b"),
    Path::Prefix("/a/b"),
    Path::Regex("/.*"),
    Path::Prefix("/a/"),
    Path::Exact("/a/"),
    Path::Regex("/a|/b"),
    Path::Prefix("/ab"),
    Path::Exact("/"),
    Path::Regex("/a/b(/.*)?"),
    Path::Prefix("/a/b/c"),
    Path::Exact("/ab"),
    Path::Regex("/(?i)A/?.?"),
    Path::Prefix("/b/"),
    Path::Regex("/b.?"),
    Path::Regex(".*b"),
    Path::Exact("/s.S/M"),
    Path::Regex("/[^/]+/(b|M)"),
    Path::Prefix("/s.S"),
];

const SERVICES: [Option<Text>; 6] = [
    Some(Text::Exact("s.S")),
    None,
    Some(Text::Exact("a")),
    Some(Text::Regex("[as].*")),
    Some(Text::Regex("a")),
    Some(Text::Regex(".*/b")),
];

const METHODS: [Option<Text>; 6] = [
    None,
    Some(Text::Exact("M")),
    Some(Text::Exact("b")),
    Some(Text::Regex("b|M")),
    Some(Text::Regex(".")),
    Some(Text::Regex("[^M]")),
];

const ASKED: [&str; 17] = [
    "/a", "/a/b", "/", "/a/", "/ab", "/a/b/c", "/b", "/s.S/M", "/s.S/b", "/a/M", "/a//b", "*",
    "/A", "/abc", "/b/a", "/a/b/", "/c/b",
];

const HEADER_NAMES: [&str; 4] = ["x-a", "x-b", "X-A", "x-c"];

const VALUES: [Text; 7] = [
    Text::Exact("1"),
    Text::Exact("2"),
    Text::Regex("[12]"),
    Text::Exact("1,2"),
    Text::Regex("1.*"),
    Text::Exact(""),
    Text::Exact("+"),
];

const SENT: [&[&[u8]]; 7] = [
    &[],
    &[b"1"],
    &[b"2"],
    &[b"1", b"2"],
    &[b"1\xff"],
    &[b""],
    &[b"1,2"],
];

const PARAMETER_NAMES: [&str; 4] = ["a", "b", "a+b", "a b"];

const QUERIES: [Option<&str>; 14] = [
    None,
    Some("a=1"),
    Some("a=1&b=2"),
    Some("a=2&a=1"),
    Some("%61=%31"),
    Some("a=%31&b=1%2C2"),
    Some("a"),
    Some("a+b=1&b=1"),
    Some("a%20b=1&a=1"),
    Some("&&a=1&=2"),
    Some("b=+&a=%2"),
    Some("b=2&a=1,2"),
    Some("A=1&b=1"),
    Some("a=1=2&b=%2b"),
];

const REQUEST_METHODS: [&str; 4] = ["GET", "GET", "POST", "OPTIONS"];

/// What is alike in all matches of a table, so that some tables are told
/// apart by one thing alone.
#[derive(Debug, Clone, Copy)]
struct Shape {
    one_host: bool,
    one_path: bool,
    grpc: bool,
    conditions: usize,
}

/// Routes by a word for the table and one for each match.
pub(crate) fn routes(table: u64, matches: &[u64]) -> Vec<Route> {
    let mut table = Digits(table);
    let shape = Shape {
        one_host: table.below(2) == 1,
        one_path: table.below(4) == 3,
        grpc: table.below(4) == 3,
        conditions: table.below(3),
    };
    let mut routes: Vec<Route> = Vec::new();
    for word in matches {
        let mut digits = Digits(*word);
        // A rule's next match, a route's next rule, or another route.
        let place = digits.below(4);
        let hostnames = if shape.one_host {
            0
        } else {
            digits.below(HOSTNAMES.len())
        };
        let wanted = wanted(&mut digits, shape);
        match (place, routes.last_mut()) {
            (1, Some(route)) => match route.rules.last_mut() {
                Some(rule) if !rule.is_empty() => rule.push(wanted),
                _ => route.rules.push(vec![wanted]),
            },
            (2, Some(route)) => route.rules.push(vec![wanted]),
            (3, Some(route)) if digits.below(8) == 7 => route.rules.push(Vec::new()),
            _ => routes.push(Route {
                hostnames: HOSTNAMES[hostnames].to_vec(),
                rules: vec![vec![wanted]],
            }),
        }
    }
    routes
}

fn wanted(digits: &mut Digits, shape: Shape) -> Wanted {
    let path = if shape.one_path {
        Path::Prefix("/a")
    } else if shape.grpc && digits.below(2) == 1 {
        Path::Grpc(digits.of(&SERVICES), digits.of(&METHODS))
    } else {
        digits.of(&PATHS)
    };
    let method = digits.of(&[None, None, Some("GET"), Some("POST")]);
    let headers = (0..digits.below(shape.conditions + 1)).map(|_| Field {
        name: digits.of(&HEADER_NAMES),
        value: digits.of(&VALUES),
    });
    let headers = headers.collect();
    let query = (0..digits.below(shape.conditions + 1)).map(|_| Field {
        name: digits.of(&PARAMETER_NAMES),
        value: digits.of(&VALUES),
    });
    Wanted {
        path,
        method,
        headers,
        query: query.collect(),
    }
}

/// A request by a word.
pub(crate) fn request(word: u64) -> Request {
    let mut digits = Digits(word);
    let mut request = Request {
        host: digits.of(&HOSTS),
        path: digits.of(&ASKED),
        method: digits.of(&REQUEST_METHODS),
        query: digits.of(&QUERIES),
        headers: Vec::new(),
    };
    for name in ["x-a", "X-B", "x-c", "x-d"] {
        for value in digits.of(&SENT) {
            request.headers.push((name, value));
        }
    }
    request
}
