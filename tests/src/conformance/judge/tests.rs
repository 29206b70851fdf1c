//! What the judge must see: rows, and how much is wrong with what came.

use http::HeaderMap;
use serde_json::json;

use super::*;

fn due(text: &str) -> Expectation {
    serde_saphyr::from_str(text).expect("the row is understood")
}

fn came(status: u16, headers: &[(&'static str, &str)]) -> Came {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(*name, value.parse().expect("a value"));
    }
    Came {
        status,
        headers: all,
        account: json!({
            "backend": "infra/one", "path": "/one", "host": "a.test",
            "headers": { "x-set": "a,b" },
        }),
        ..Came::default()
    }
}

fn judged(row: &str, came: &Came) -> usize {
    let due = due(row);
    let asked = Asked {
        host: "a.test:81",
        scheme: "http",
        due: &due,
    };
    asked.judge(came).len()
}

#[test]
fn each_deviation_is_seen_once() {
    let fine = came(200, &[("x-answer", "a, b")]);
    let rows = [
        ("{ backend: one }", 0),
        ("{ backend: two }", 1),
        ("{ backend: app/one }", 1),
        ("{ status: 404 }", 1),
        ("{ status: [404, 200] }", 0),
        ("{ seen: { path: /one, host: a.test } }", 0),
        ("{ seen: { path: /, host: b.test } }", 2),
        ("{ seen: { headers: { X-Set: \"a,b\" } } }", 0),
        ("{ seen: { headers: { X-Set: a } } }", 1),
        ("{ seen: { headers: { X-None: a } } }", 1),
        ("{ seen: { absent: [X-Set, X-None] } }", 1),
        ("{ answer: { headers: { X-Answer: \"a,b\" } } }", 0),
        ("{ answer: { headers: { X-Answer: [b, c] } } }", 1),
        ("{ answer: { absent: [x-answer] } }", 1),
        ("{ answer: { body: hello } }", 1),
        ("{ speaks: grpc }", 1),
        ("{ speaks: websocket }", 1),
    ];
    for (row, wrong) in rows {
        assert_eq!(judged(row, &fine), wrong, "{row}");
    }
}

#[test]
fn a_redirect_is_held_to_every_part() {
    let to = |location| came(302, &[("location", location)]);
    let rows = [
        (
            "{ path: /x, status: 302, redirect: {} }",
            "http://a.test/x",
            0,
        ),
        (
            "{ path: /x, status: 302, redirect: {} }",
            "http://a.test:80/x",
            1,
        ),
        (
            "{ path: /x, status: 302, redirect: { port: 81 } }",
            "http://a.test:81/x",
            0,
        ),
        (
            "{ path: /x, status: 302, redirect: { scheme: https } }",
            "http://a.test/x",
            1,
        ),
        (
            "{ path: /x, status: 302, redirect: { host: b.test } }",
            "http://a.test/x",
            1,
        ),
        (
            "{ path: \"/x?q\", status: 302, redirect: { path: /y } }",
            "http://a.test/x?q",
            1,
        ),
        ("{ path: /x, status: 301, redirect: {} }", "/x", 2),
    ];
    for (row, location, wrong) in rows {
        assert_eq!(judged(row, &to(location)), wrong, "{row} to {location}");
    }
}

#[test]
fn shares_and_copies_are_counted() {
    let by =
        |one, two| BTreeMap::from([("infra/one".to_owned(), one), ("infra/two".to_owned(), two)]);
    let halves = due("{ shares: { one: 50, two: 50 } }");
    assert_eq!(shares(&halves, &by(50, 50), 100).len(), 0);
    assert_eq!(shares(&halves, &by(52, 48), 100).len(), 2);
    assert_eq!(
        shares(&due("{ shares: { one: 100 } }"), &by(100, 1), 100).len(),
        1
    );
    let arrival = |path: &str| Arrival {
        backend: "infra/two".to_owned(),
        id: String::new(),
        path: path.to_owned(),
    };
    let all = due("{ path: /a, mirrored: { two: 100 } }");
    assert_eq!(copies(&all, &[arrival("/a")], 1).len(), 0);
    assert_eq!(copies(&all, &[], 1).len(), 1);
    assert_eq!(copies(&all, &[arrival("/b")], 1).len(), 1);
    assert_eq!(copies(&all, &[arrival("/a"), arrival("/a")], 1).len(), 1);
}

#[test]
fn conditions_are_found_by_parent_and_listener() {
    let route = json!({
        "status": { "parents": [{
            "parentRef": { "name": "same" },
            "conditions": [{ "type": "Accepted", "status": "False", "reason": "NoMatchingParent" }],
        }] },
    });
    let rows = [
        (
            "{ of: HTTPRoute/infra/x, parent: Gateway/infra/same, says: { Accepted: \"False NoMatchingParent\" } }",
            0,
        ),
        (
            "{ of: HTTPRoute/infra/x, parent: Gateway/infra/same, says: { Accepted: \"False\" } }",
            0,
        ),
        (
            "{ of: HTTPRoute/infra/x, parent: Gateway/infra/same, says: { Accepted: \"True\" } }",
            1,
        ),
        (
            "{ of: HTTPRoute/infra/x, parent: Gateway/infra/same, says: { ResolvedRefs: \"True\" } }",
            1,
        ),
        (
            "{ of: HTTPRoute/infra/x, parent: Gateway/web/same, says: { Accepted: \"False\" } }",
            1,
        ),
        (
            "{ of: HTTPRoute/infra/x, parent: Gateway/web/same, nothing: true }",
            0,
        ),
    ];
    for (row, wrong) in rows {
        let due: Condition = serde_saphyr::from_str(row).expect("the row is understood");
        assert_eq!(condition(&due, &route).len(), wrong, "{row}");
    }
}
