//! Authorization as tables: policies, a caller and an operation → the verdict.

use super::*;

const READER: &str = "spiffe://mesh.local/ns/shop/sa/reader";
const STRANGER: &str = "spiffe://mesh.local/ns/other/sa/reader";
const NO_NAMESPACE: &str = "spiffe://mesh.local/robot";

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect("a SPIFFE id")
}

fn rule(action: Action, from: Vec<Source>, to: Vec<Operation>) -> Rule {
    Rule {
        name: "rule".into(),
        action,
        from,
        to,
    }
}

fn policy(name: &str, mode: Mode, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        namespace: "shop".into(),
        name: name.into(),
        mode,
        rules,
    }
}

fn enforced(rules: Vec<Rule>) -> InboundPolicy {
    InboundPolicy {
        default_deny: false,
        authorization: vec![policy("p", Mode::Enforce, rules)],
        ..InboundPolicy::default()
    }
}

fn namespaces(names: &[&str]) -> Source {
    Source {
        namespaces: names.iter().map(|name| (*name).into()).collect(),
        ..Source::default()
    }
}

fn not_namespaces(names: &[&str]) -> Source {
    Source {
        not_namespaces: names.iter().map(|name| (*name).into()).collect(),
        ..Source::default()
    }
}

fn gets(path: &str) -> Operation {
    Operation {
        methods: vec![Method::GET],
        paths: vec![PathMatch::Prefix(path.into())],
        ..Operation::default()
    }
}

fn permits(inbound: &InboundPolicy, caller: Option<&str>, call: Option<(&Method, &str)>) -> bool {
    let identity = caller.map(id);
    let caller = Caller {
        identity: identity.as_ref(),
    };
    let operated = Operated {
        method: call.map(|c| c.0),
        path: call.map(|c| c.1),
    };
    inbound.authorize(caller, operated).permitted
}

const GET: Option<(&Method, &str)> = Some((&Method::GET, "/v1/orders"));

#[test]
fn without_policies_the_default_applies() {
    for default_deny in [false, true] {
        let inbound = InboundPolicy {
            default_deny,
            ..InboundPolicy::default()
        };
        assert_eq!(permits(&inbound, Some(READER), GET), !default_deny);
        assert_eq!(permits(&inbound, None, None), !default_deny);
    }
}

#[test]
fn an_allow_rule_denies_the_rest() {
    let inbound = enforced(vec![rule(
        Action::Allow,
        vec![namespaces(&["shop"])],
        vec![gets("/v1")],
    )]);
    let table = [
        (Some(READER), GET, true),
        (Some(READER), Some((&Method::POST, "/v1/orders")), false),
        (Some(READER), Some((&Method::GET, "/v10")), false),
        (Some(STRANGER), GET, false),
        (Some(NO_NAMESPACE), GET, false),
        (None, GET, false),
        (Some(READER), None, false),
    ];
    for (caller, call, expected) in table {
        assert_eq!(
            permits(&inbound, caller, call),
            expected,
            "{caller:?} {call:?}"
        );
    }
}

#[test]
fn deny_wins_over_allow_in_any_order() {
    let allow = rule(Action::Allow, Vec::new(), Vec::new());
    let deny = rule(Action::Deny, Vec::new(), vec![gets("/v1/orders")]);
    for rules in [vec![allow.clone(), deny.clone()], vec![deny, allow]] {
        let inbound = enforced(rules);
        assert!(!permits(&inbound, Some(READER), GET));
        assert!(permits(&inbound, Some(READER), Some((&Method::GET, "/v2"))));
    }
}

#[test]
fn deny_rules_alone_leave_the_default() {
    let deny = vec![rule(Action::Deny, vec![namespaces(&["other"])], Vec::new())];
    let mut inbound = enforced(deny);
    assert!(permits(&inbound, Some(READER), GET));
    assert!(!permits(&inbound, Some(STRANGER), GET));
    inbound.default_deny = true;
    assert!(!permits(&inbound, Some(READER), GET));
}

#[test]
fn nobody_fails_closed() {
    let table = [
        (Action::Deny, not_namespaces(&["shop"]), false),
        (Action::Allow, not_namespaces(&["other"]), false),
        (Action::Deny, namespaces(&["shop"]), true),
        (Action::Allow, namespaces(&["shop"]), false),
        (
            Action::Deny,
            Source {
                not_identities: vec![id(READER)],
                ..Source::default()
            },
            false,
        ),
        (
            Action::Allow,
            Source {
                not_identities: vec![id(STRANGER)],
                ..Source::default()
            },
            false,
        ),
        (
            Action::Deny,
            Source {
                identities: vec![id(READER)],
                ..Source::default()
            },
            true,
        ),
        (Action::Allow, Source::default(), true),
    ];
    for (action, source, expected) in table {
        let inbound = enforced(vec![rule(action, vec![source.clone()], Vec::new())]);
        assert_eq!(
            permits(&inbound, None, GET),
            expected,
            "{action:?} {source:?}"
        );
    }
}

#[test]
fn opaque_bytes_fail_closed_where_rules_read_requests() {
    let not = Operation {
        not_methods: vec![Method::GET],
        ..Operation::default()
    };
    let not_path = Operation {
        not_paths: vec![PathMatch::Exact("/".into())],
        ..Operation::default()
    };
    for operation in [gets("/v1"), not, not_path] {
        let deny = enforced(vec![rule(
            Action::Deny,
            Vec::new(),
            vec![operation.clone()],
        )]);
        assert!(!permits(&deny, Some(READER), None));
        let allow = enforced(vec![rule(Action::Allow, Vec::new(), vec![operation])]);
        assert!(!permits(&allow, Some(READER), None));
    }
    let other = enforced(vec![rule(
        Action::Deny,
        vec![namespaces(&["other"])],
        vec![gets("/v1")],
    )]);
    assert!(
        permits(&other, Some(READER), None),
        "a rule about others stays about others"
    );
}

#[test]
fn every_list_of_a_source_must_hold() {
    let source = Source {
        identities: vec![id(READER), id(STRANGER)],
        not_namespaces: vec!["other".into()],
        ..Source::default()
    };
    let inbound = enforced(vec![rule(Action::Allow, vec![source], Vec::new())]);
    assert!(permits(&inbound, Some(READER), GET));
    assert!(!permits(&inbound, Some(STRANGER), GET));
}

#[test]
fn methods_are_compared_in_their_own_case() {
    let inbound = enforced(vec![rule(Action::Allow, Vec::new(), vec![gets("/")])]);
    let lower = Method::from_bytes(b"get").expect("a method");
    assert!(permits(&inbound, None, Some((&Method::GET, "/x"))));
    assert!(!permits(&inbound, None, Some((&lower, "/x"))));
}

#[test]
fn prefixes_match_whole_segments() {
    let table = [
        ("/v1", "/v1", true),
        ("/v1", "/v1/", true),
        ("/v1", "/v1/orders", true),
        ("/v1/", "/v1", true),
        ("/v1/", "/v1/orders", true),
        ("/v1", "/v10", false),
        ("/v1", "/V1", false),
        ("/", "/anything", true),
        ("/", "/", true),
        ("/", "*", false),
    ];
    for (prefix, path, expected) in table {
        assert_eq!(
            PathMatch::Prefix(prefix.into()).matches(path),
            expected,
            "{prefix} {path}"
        );
    }
    assert!(!PathMatch::Exact("/v1".into()).matches("/v1/"));
}

#[test]
fn audit_reports_and_never_decides() {
    let deny = |name| {
        policy(
            name,
            Mode::Audit,
            vec![rule(Action::Deny, Vec::new(), Vec::new())],
        )
    };
    let narrow = policy(
        "narrow",
        Mode::Audit,
        vec![rule(
            Action::Allow,
            vec![namespaces(&["nowhere"])],
            Vec::new(),
        )],
    );
    let inbound = InboundPolicy {
        default_deny: false,
        authorization: vec![deny("a"), narrow.clone(), deny("b")],
        ..InboundPolicy::default()
    };
    let reader = id(READER);
    let caller = Caller {
        identity: Some(&reader),
    };
    let operated = Operated {
        method: Some(&Method::GET),
        path: Some("/"),
    };
    let verdict = inbound.authorize(caller, operated);
    assert!(verdict.permitted && verdict.policy.is_none());
    let names: Vec<_> = verdict.audited.iter().map(|policy| &*policy.name).collect();
    assert_eq!(names, ["a", "narrow", "b"]);

    let allow = policy(
        "all",
        Mode::Enforce,
        vec![rule(Action::Allow, Vec::new(), Vec::new())],
    );
    let beside = InboundPolicy {
        default_deny: true,
        authorization: vec![narrow, allow],
        ..InboundPolicy::default()
    };
    let verdict = beside.authorize(caller, operated);
    assert!(
        verdict.permitted && verdict.audited.is_empty(),
        "another allow rule lets it pass"
    );
}

#[test]
fn the_verdict_names_who_decided() {
    let inbound = InboundPolicy {
        default_deny: false,
        authorization: vec![
            policy(
                "allows",
                Mode::Enforce,
                vec![rule(Action::Allow, vec![namespaces(&["shop"])], Vec::new())],
            ),
            policy(
                "denies",
                Mode::Enforce,
                vec![rule(Action::Deny, Vec::new(), vec![gets("/admin")])],
            ),
        ],
        ..InboundPolicy::default()
    };
    let named = |caller: &str, path: &str| {
        let identity = id(caller);
        let verdict = inbound.authorize(
            Caller {
                identity: Some(&identity),
            },
            Operated {
                method: Some(&Method::GET),
                path: Some(path),
            },
        );
        (
            verdict.permitted,
            verdict.policy.map(|policy| policy.name.to_string()),
            verdict.rule.is_some(),
        )
    };
    assert_eq!(named(READER, "/"), (true, Some("allows".into()), true));
    assert_eq!(
        named(READER, "/admin"),
        (false, Some("denies".into()), true)
    );
    assert_eq!(named(STRANGER, "/"), (false, Some("allows".into()), false));
    assert!(inbound.looks_at_paths());
    assert!(!InboundPolicy::default().looks_at_paths());
}
