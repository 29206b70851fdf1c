//! What is easily got wrong, each case a line.

use selvage_policy::route::{Found, RouteTable};

use crate::plain::{Field, Path, Request, Route, Text, Wanted};

/// Which of some routes of one match each takes a request; their names are numbers.
fn found(table: &RouteTable, request: &Request) -> Option<(String, Option<String>)> {
    request.ask(|asked| {
        let found = table.find(asked)?;
        let label = found.rule.label.split('/').nth(1)?.to_owned();
        Some((label, found.prefix.map(str::to_owned)))
    })
}

fn table(routes: &[Route]) -> RouteTable {
    let decoded: Vec<_> = (0..).zip(routes).map(|(at, it)| it.decoded(at)).collect();
    RouteTable::new(&decoded)
}

fn route(hostnames: &[&'static str], wanted: Wanted) -> Route {
    Route {
        hostnames: hostnames.to_vec(),
        rules: vec![vec![wanted]],
    }
}

fn by_path(path: Path) -> Wanted {
    Wanted {
        path,
        ..Wanted::default()
    }
}

fn get(path: &'static str) -> Request {
    Request {
        path,
        method: "GET",
        ..Request::default()
    }
}

/// So many that no table is small enough to be scanned.
fn crowd() -> impl Iterator<Item = Route> {
    ["/x/1", "/x/2", "/x/3", "/x/4", "/x/5"]
        .into_iter()
        .map(|path| route(&[], by_path(Path::Exact(path))))
}

#[test]
fn paths() {
    let paths = [
        Path::Prefix("/foo/"),
        Path::Prefix("/"),
        Path::Exact("/foo"),
        Path::Exact("/%7Euser"),
        Path::Prefix("/foo/bar"),
        Path::Regex("/foo/[0-9]+"),
        Path::Exact("/foo/"),
        Path::Prefix("/a/./b"),
    ];
    let wanted = [
        ("/foo", "r2", None),
        ("/foo/", "r6", None),
        ("/foo/x", "r0", Some("/foo")),
        ("/foo/bar", "r4", Some("/foo/bar")),
        ("/foo/bar/", "r4", Some("/foo/bar")),
        ("/foo/barn", "r0", Some("/foo")),
        ("/foo/12", "r5", None),
        ("/foo/12/3", "r0", Some("/foo")),
        ("/foobar", "r1", Some("/")),
        ("/~user", "r3", None),
        ("/a/b/c", "r7", Some("/a/b")),
        ("*", "r1", Some("/")),
        ("/", "r1", Some("/")),
    ];
    let all = paths.map(|path| route(&[], by_path(path)));
    let table = table(&all);
    for (path, label, prefix) in wanted {
        let expected = Some((label.to_owned(), prefix.map(str::to_owned)));
        assert_eq!(found(&table, &get(path)), expected, "{path}");
    }
}

#[test]
fn what_a_specific_host_leaves_goes_to_a_wider_one() {
    let all = [
        route(&["*.example.com"], by_path(Path::Prefix("/wild"))),
        route(&["www.example.com"], by_path(Path::Prefix("/exact"))),
        route(&[], by_path(Path::Prefix("/any"))),
    ];
    let table = table(&all);
    let wanted = [
        (Some("www.example.com"), "/exact", Some("r1")),
        (Some("www.example.com"), "/wild", Some("r0")),
        (Some("www.example.com"), "/any", Some("r2")),
        (Some("WWW.EXAMPLE.COM."), "/wild", Some("r0")),
        (Some("a.b.example.com"), "/wild", Some("r0")),
        (Some("example.com"), "/wild", None),
        (Some("example.com"), "/any", Some("r2")),
        (Some("example.org"), "/exact", None),
        (None, "/any", Some("r2")),
        (None, "/wild", None),
    ];
    for (host, path, label) in wanted {
        let request = Request { host, ..get(path) };
        let found = found(&table, &request).map(|(label, _)| label);
        assert_eq!(found.as_deref(), label, "{host:?}{path}");
    }
}

#[test]
fn grpc_calls() {
    let exact = |text| Some(Text::Exact(text));
    let calls = [
        Path::Grpc(None, None),
        Path::Grpc(exact("pkg.Shop"), None),
        Path::Grpc(exact("pkg.Shop"), exact("Buy")),
        Path::Grpc(None, exact("Sell")),
        Path::Grpc(Some(Text::Regex("pkg\\..*")), exact("Sell")),
        Path::Grpc(Some(Text::Regex("org\\..*")), None),
    ];
    let all = calls.map(|call| route(&[], by_path(call)));
    let table = table(&all);
    let wanted = [
        ("/pkg.Shop/Buy", Some("r2")),
        ("/pkg.Shop/Sell", Some("r1")),
        ("/pkg.Stall/Sell", Some("r4")),
        ("/com.Stall/Sell", Some("r3")),
        ("/org.Stall/Ask", Some("r5")),
        ("/com.Stall/Ask", Some("r0")),
        ("/ping", None),
        ("/", None),
    ];
    for (path, label) in wanted {
        let found = found(&table, &get(path)).map(|(label, _)| label);
        assert_eq!(found.as_deref(), label, "{path}");
    }
}

/// A table with many rules on one path told apart by `field`, and one behind them.
fn told_by(fields: impl Fn(Field) -> Wanted, wanted: &[Text], name: &'static str) -> RouteTable {
    let field = |value: &Text| Field {
        name,
        value: *value,
    };
    let told = wanted.iter().map(|value| route(&[], fields(field(value))));
    let all: Vec<Route> = told.chain(crowd()).collect();
    table(&all)
}

#[test]
fn header_fields() {
    let by_header = |field| Wanted {
        headers: vec![field],
        ..Wanted::default()
    };
    let values = [
        Text::Exact("1"),
        Text::Exact("1,2"),
        Text::Regex("[3-5]"),
        Text::Exact("caf\u{e9}"),
        Text::Exact(""),
        Text::Regex("x,?y"),
    ];
    let table = told_by(by_header, &values, "X-Tenant");
    let wanted: [(&[&[u8]], Option<&str>); 10] = [
        (&[b"1"], Some("r0")),
        (&[b"1", b"2"], Some("r1")),
        (&[b"1,2"], Some("r1")),
        (&[b"2", b"1"], None),
        (&[b"4"], Some("r2")),
        (&["caf\u{e9}".as_bytes()], Some("r3")),
        (&[b"caf\xe9"], None),
        (&[b""], Some("r4")),
        (&[b"x", b"y"], Some("r5")),
        (&[], None),
    ];
    for (values, label) in wanted {
        let headers = values.iter().map(|value| ("x-tenant", *value)).collect();
        let request = Request {
            headers,
            ..get("/")
        };
        let found = found(&table, &request).map(|(label, _)| label);
        assert_eq!(found.as_deref(), label, "{values:?}");
    }
}

#[test]
fn query_parameters() {
    let by_query = |field| Wanted {
        query: vec![field],
        ..Wanted::default()
    };
    let values = [
        Text::Exact("1"),
        Text::Exact("a b"),
        Text::Exact("a+b"),
        Text::Exact(""),
        Text::Regex("[3-5]"),
        Text::Exact("%zz"),
    ];
    let table = told_by(by_query, &values, "v w");
    let wanted = [
        (Some("v%20w=1"), Some("r0")),
        (Some("v%20w=%31"), Some("r0")),
        (Some("v+w=1"), None),
        (Some("v%20w=1&v%20w=2"), Some("r0")),
        (Some("v%20w=2&v%20w=1"), None),
        (Some("x=1&%76%20w=a%20b"), Some("r1")),
        (Some("v%20w=a+b"), Some("r2")),
        (Some("v%20w"), Some("r3")),
        (Some("v%20w="), Some("r3")),
        (Some("v%20w=4"), Some("r4")),
        (Some("v%20w=%34"), Some("r4")),
        (Some("v%20w=%zz"), Some("r5")),
        (Some(""), None),
        (None, None),
    ];
    for (query, label) in wanted {
        let request = Request { query, ..get("/") };
        let found = found(&table, &request).map(|(label, _)| label);
        assert_eq!(found.as_deref(), label, "{query:?}");
    }
}

#[test]
fn of_two_conditions_of_one_name_the_first_counts() {
    let field = |name, value| Field {
        name,
        value: Text::Exact(value),
    };
    let all = [route(
        &[],
        Wanted {
            headers: vec![field("x-a", "1"), field("X-A", "2")],
            query: vec![field("q", "1"), field("q", "2")],
            ..Wanted::default()
        },
    )];
    let table = table(&all);
    let request = Request {
        headers: vec![("x-a", b"1")],
        query: Some("q=1"),
        ..get("/")
    };
    assert!(found(&table, &request).is_some());
}

#[test]
fn what_is_equal_stays_in_its_order() {
    let rule = |wanted: Wanted| vec![wanted];
    let all = [
        Route {
            hostnames: vec!["a.com", "b.com"],
            rules: vec![
                rule(by_path(Path::Prefix("/a"))),
                rule(by_path(Path::Prefix("/a"))),
                rule(by_path(Path::Regex("/b."))),
                rule(by_path(Path::Regex("/.c"))),
            ],
        },
        route(&["a.com"], by_path(Path::Prefix("/a"))),
    ];
    let table = table(&all);
    for (path, label) in [
        ("/a", "shop/r0/0"),
        ("/bc", "shop/r0/2"),
        ("/cc", "shop/r0/3"),
    ] {
        let request = Request {
            host: Some("a.com"),
            ..get(path)
        };
        request.ask(|asked| {
            let found = table.find(asked).expect("a rule");
            assert_eq!(&*found.rule.label, label, "{path}");
        });
    }
}

#[test]
fn what_is_found_is_three_words() {
    let words = size_of::<Found<'_>>() / size_of::<usize>();
    assert_eq!(words, 3);
}
