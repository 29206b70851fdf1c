//! Routes and requests drawn by chance, of so few words that they often meet.

use std::fmt::Write as _;

use fastrand::Rng;

/// How many backends there are.
pub(super) const BACKENDS: usize = 12;
const ROUTES: usize = 40;
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const WORDS: [&str; 5] = ["a", "b", "ab", "v1", "cart"];
const FIELDS: [&str; 3] = ["x-user", "x-tenant", "x-flag"];
const VALUES: [&str; 4] = ["a", "b", "ab", "a,b"];
const EXPRESSIONS: [&str; 5] = [
    "/a(/.*)?",
    "/[ab]+/v[0-9]+",
    "/.*/cart",
    "/(a|b)/.+",
    "/v1/?",
];
const VALUE_EXPRESSIONS: [&str; 3] = ["a.*", "[ab]+", "(a|b)"];
const HOSTNAMES: [&str; 8] = [
    "shop.example",
    "a.shop.example",
    "b.a.shop.example",
    "other.example",
    "*.example",
    "*.shop.example",
    "*.a.shop.example",
    "*.other.example",
];
const HOSTS: [&str; 12] = [
    "shop.example",
    "Shop.Example",
    "a.shop.example",
    "A.shop.EXAMPLE",
    "b.a.shop.example",
    "c.b.a.shop.example",
    "other.example",
    "x.other.example",
    "new.example",
    "a.shop.example:8080",
    "X.Shop.Example:80",
    "elsewhere.test",
];

/// An HTTPRoute.
pub(super) struct Route {
    pub(super) hostnames: Vec<&'static str>,
    pub(super) rules: Vec<Rule>,
}

/// One rule, which leads to one backend.
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) backend: usize,
    /// Stands beside it with weight 0.
    pub(super) idle: Option<usize>,
}

/// What a request must have.
#[derive(Clone)]
pub(super) struct Match {
    pub(super) path: Path,
    pub(super) method: Option<&'static str>,
    pub(super) headers: Vec<Field>,
    pub(super) query: Vec<Field>,
}

/// What its path must be.
#[derive(Clone)]
pub(super) enum Path {
    Exact(String),
    Prefix(String),
    Expression(&'static str),
}

/// A header or a query parameter.
#[derive(Clone)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    pub(super) expression: bool,
}

/// A request.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) host: &'static str,
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

/// Routes, oldest first; without hostnames where the parent is a service.
pub(super) fn routes(rng: &mut Rng, with_hosts: bool) -> Vec<Route> {
    let route = |rng: &mut Rng| {
        let hosts = if with_hosts { rng.usize(0..3) } else { 0 };
        let mut hostnames: Vec<_> = (0..hosts).map(|_| pick(rng, &HOSTNAMES)).collect();
        hostnames.sort_unstable();
        hostnames.dedup();
        Route {
            hostnames,
            rules: many(rng, 1..4, rule),
        }
    };
    (0..ROUTES).map(|_| route(rng)).collect()
}

/// A request of the same words.
pub(super) fn ask(rng: &mut Rng) -> Ask {
    let target = target(rng);
    Ask {
        host: pick(rng, &HOSTS),
        method: pick(rng, &METHODS),
        target,
        headers: many(rng, 0..4, |rng| (pick(rng, &FIELDS), pick(rng, &VALUES))),
    }
}

fn rule(rng: &mut Rng) -> Rule {
    Rule {
        matches: many(rng, 1..4, matched),
        backend: rng.usize(0..BACKENDS),
        idle: rng.bool().then(|| rng.usize(0..BACKENDS)),
    }
}

fn matched(rng: &mut Rng) -> Match {
    let path = match rng.u8(0..4) {
        0 => Path::Exact(path(rng, 0..4)),
        1 => Path::Expression(pick(rng, &EXPRESSIONS)),
        // Prefixes of at least a segment: one `/` takes everything.
        _ => Path::Prefix(path(rng, 1..4)),
    };
    Match {
        path,
        method: (rng.u8(0..3) == 0).then(|| pick(rng, &METHODS)),
        headers: fields(rng),
        query: fields(rng),
    }
}

/// None, one or two of different names.
fn fields(rng: &mut Rng) -> Vec<Field> {
    let mut names = FIELDS;
    rng.shuffle(&mut names);
    let count = [0, 0, 1, 2][rng.usize(0..4)];
    let field = |name: &&'static str| {
        let expression = rng.u8(0..4) == 0;
        let values = if expression {
            &VALUE_EXPRESSIONS[..]
        } else {
            &VALUES[..]
        };
        Field {
            name,
            value: pick(rng, values),
            expression,
        }
    };
    names[..count].iter().map(field).collect()
}

/// Canonical, at times with a slash at its end.
fn path(rng: &mut Rng, segments: std::ops::Range<usize>) -> String {
    let mut path = String::new();
    for _ in 0..rng.usize(segments) {
        let _ = write!(path, "/{}", pick(rng, &WORDS));
    }
    if path.is_empty() || rng.u8(0..5) == 0 {
        path.push('/');
    }
    path
}

/// Of a request: also with empty segments, and a query of some parameters, known or not.
fn target(rng: &mut Rng) -> String {
    let mut target = path(rng, 0..5);
    if rng.u8(0..10) == 0 {
        target.insert(0, '/');
    }
    let parameters = many(rng, 0..4, |rng| match rng.u8(0..6) {
        0 => pick(rng, &FIELDS).to_owned(),
        1 => format!("other={}", pick(rng, &VALUES)),
        _ => format!("{}={}", pick(rng, &FIELDS), pick(rng, &VALUES)),
    });
    match parameters.is_empty() {
        true => target,
        false => format!("{target}?{}", parameters.join("&")),
    }
}

fn many<T>(
    rng: &mut Rng,
    count: std::ops::Range<usize>,
    mut one: impl FnMut(&mut Rng) -> T,
) -> Vec<T> {
    (0..rng.usize(count)).map(|_| one(rng)).collect()
}

fn pick<T: Copy>(rng: &mut Rng, among: &[T]) -> T {
    among[rng.usize(0..among.len())]
}
