//! What is read, what is decided, and what the next hop is told.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::testing::seeded;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        );
    }
    headers
}

/// What a request says, as `trace span sampled`, with `-` for what it does not say.
fn read(fields: &[(&str, &str)]) -> String {
    let Parent { context, sampled } = Parent::read(&headers(fields));
    let context = context.map_or("-".to_owned(), |SpanContext { trace, span }| {
        format!("{trace} {span}")
    });
    format!(
        "{context} {}",
        sampled.map_or("-".to_owned(), |s| s.to_string())
    )
}

fn continued(sampled: &str) -> String {
    format!("{TRACE} {SPAN} {sampled}")
}

#[test]
fn a_traceparent_is_read_strictly() {
    let long = format!("{GOOD}-what-is-to-come");
    let table = [
        (GOOD.to_owned(), Some("true")),
        (GOOD.replace("-01", "-00"), Some("false")),
        // Of the flags one is known.
        (GOOD.replace("-01", "-ff"), Some("true")),
        (GOOD.replace("-01", "-02"), Some("false")),
        // A later version may be longer, this one may not.
        (GOOD.replace("00-", "cc-"), Some("true")),
        (long.replace("00-", "cc-"), Some("true")),
        (format!("{GOOD}-").replace("00-", "cc-"), Some("true")),
        (format!("{GOOD}.more").replace("00-", "cc-"), None),
        (format!("{GOOD}0").replace("00-", "cc-"), None),
        (long, None),
        (format!("{GOOD}-"), None),
        (GOOD.replace("00-", "ff-"), None),
        (GOOD.replace("00-", "0-"), None),
        (GOOD.replace("00-", "0x-"), None),
        (GOOD.replace("00-", "CC-"), None),
        (GOOD.to_uppercase(), None),
        (GOOD.replace(TRACE, &"0".repeat(32)), None),
        (GOOD.replace(SPAN, &"0".repeat(16)), None),
        (GOOD.replace(TRACE, &TRACE[1..]), None),
        (GOOD.replace(SPAN, &SPAN[1..]), None),
        (GOOD.replace('c', "g"), None),
        (GOOD.replace("-01", "-1"), None),
        (GOOD.replace("-01", "-0x"), None),
        (GOOD.replace("-01", "-+1"), None),
        (GOOD.replace('-', "_"), None),
        (GOOD[..GOOD.len() - 1].to_owned(), None),
        ("00".to_owned(), None),
        (String::new(), None),
    ];
    for (text, sampled) in table {
        let expected = sampled.map_or("- -".to_owned(), continued);
        assert_eq!(read(&[("traceparent", &text)]), expected, "{text}");
    }
    assert_eq!(
        read(&[("traceparent", GOOD), ("traceparent", GOOD)]),
        "- -",
        "two are none"
    );
    assert_eq!(read(&[]), "- -");
}

#[test]
fn b3_is_read_where_there_is_no_traceparent() {
    let long = format!("{TRACE}-{SPAN}");
    let table: &[(&[(&str, &str)], String)] = &[
        (&[("b3", &format!("{long}-1"))], continued("true")),
        (&[("b3", &format!("{long}-d"))], continued("true")),
        (&[("b3", &format!("{long}-0"))], continued("false")),
        (&[("b3", &long)], continued("-")),
        (&[("b3", &format!("{long}-1-{SPAN}"))], continued("true")),
        (&[("b3", &format!("{long}-1-{SPAN}-1"))], "- -".to_owned()),
        (&[("b3", &format!("{long}-1-5"))], "- -".to_owned()),
        (&[("b3", &format!("{long}-2"))], "- -".to_owned()),
        (&[("b3", &long.to_uppercase())], "- -".to_owned()),
        (
            &[("b3", &format!("{SPAN}-{SPAN}-1"))],
            format!("{SPAN:0>32} {SPAN} true"),
        ),
        (&[("b3", "0")], "- false".to_owned()),
        (&[("b3", "1")], "- true".to_owned()),
        (&[("b3", "d")], "- true".to_owned()),
        (&[("b3", "")], "- -".to_owned()),
        (&[("b3", TRACE)], "- -".to_owned()),
        // The single form goes before the other.
        (
            &[
                ("b3", &format!("{long}-0")),
                ("x-b3-traceid", SPAN),
                ("x-b3-spanid", SPAN),
            ],
            continued("false"),
        ),
        (
            &[
                ("X-B3-TraceId", TRACE),
                ("X-B3-SpanId", SPAN),
                ("X-B3-Sampled", "1"),
            ],
            continued("true"),
        ),
        (
            &[
                ("x-b3-traceid", TRACE),
                ("x-b3-spanid", SPAN),
                ("x-b3-sampled", "false"),
            ],
            continued("false"),
        ),
        (
            &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)],
            continued("-"),
        ),
        (
            &[
                ("x-b3-traceid", TRACE),
                ("x-b3-spanid", SPAN),
                ("x-b3-parentspanid", SPAN),
                ("x-b3-flags", "1"),
            ],
            continued("true"),
        ),
        (&[("x-b3-sampled", "0")], "- false".to_owned()),
        (&[("x-b3-sampled", "maybe")], "- -".to_owned()),
        (&[("x-b3-traceid", TRACE)], "- -".to_owned()),
        (&[("x-b3-spanid", SPAN)], "- -".to_owned()),
        (
            &[
                ("x-b3-traceid", TRACE),
                ("x-b3-traceid", TRACE),
                ("x-b3-spanid", SPAN),
            ],
            "- -".to_owned(),
        ),
        // W3C goes before both, unless it is malformed.
        (
            &[("traceparent", GOOD), ("b3", &format!("{SPAN}-{SPAN}-0"))],
            continued("true"),
        ),
        (
            &[("traceparent", "00-"), ("b3", &format!("{long}-0"))],
            continued("false"),
        ),
    ];
    for (fields, expected) in table {
        assert_eq!(&read(fields), expected, "{fields:?}");
    }
}

fn ratio(share: f64) -> Root {
    Root::Ratio(Ratio::new(share).expect("a share"))
}

#[test]
fn samplers_decide_as_they_are_named() {
    use Root::{Off, On};
    use Sampler::{Always, ParentBased};
    // The sampler, and whether it records below a parent that does, one that does not, and none.
    let table = [
        (Always(On), [true, true, true]),
        (Always(Off), [false, false, false]),
        (Always(ratio(1.0)), [true, true, true]),
        (Always(ratio(0.0)), [false, false, false]),
        (ParentBased(On), [true, false, true]),
        (ParentBased(Off), [true, false, false]),
        (ParentBased(ratio(0.0)), [true, false, false]),
        (ParentBased(ratio(1.0)), [true, false, true]),
    ];
    for (sampler, expected) in table {
        let parents = [Some(true), Some(false), None].map(|sampled| Parent {
            context: Parent::read(&headers(&[("traceparent", GOOD)])).context,
            sampled,
        });
        let decided = parents.map(|parent| Trace::begin(&parent, sampler, &mut seeded()).sampled);
        assert_eq!(decided, expected, "{sampler:?}");
    }
    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(Ratio::new(share), None, "{share}");
    }
}

#[test]
fn a_ratio_is_that_share_of_all_traces() {
    let mut rng = seeded();
    let sampler = Sampler::ParentBased(ratio(0.25));
    let sampled = (0..40_000)
        .filter(|_| Trace::begin(&Parent::default(), sampler, &mut rng).sampled)
        .count();
    assert!((9_500..10_500).contains(&sampled), "{sampled}");
    // The same for the same trace, whoever asks.
    let parent = Parent {
        sampled: None,
        ..Parent::read(&headers(&[("traceparent", GOOD)]))
    };
    let first = Trace::begin(&parent, sampler, &mut rng).sampled;
    assert_eq!(Trace::begin(&parent, sampler, &mut rng).sampled, first);
}

#[test]
fn a_trace_is_continued_below_the_callers_span() {
    let mut rng = seeded();
    let on = Sampler::ParentBased(Root::On);
    let begun = Trace::begin(&Parent::default(), on, &mut rng);
    assert_eq!((begun.parent, begun.sampled), (None, true));
    let parent = Parent::read(&headers(&[("traceparent", GOOD)]));
    let trace = Trace::begin(&parent, on, &mut rng);
    assert_eq!(trace.context.trace.to_string(), TRACE);
    assert_eq!(trace.parent.expect("there is one").to_string(), SPAN);
    assert_ne!(trace.context.span.to_string(), SPAN);
    // What nobody records names nobody new.
    let unsampled = Parent {
        sampled: Some(false),
        ..parent
    };
    let trace = Trace::begin(&unsampled, on, &mut rng);
    assert_eq!(Some(trace.context), unsampled.context);
    // Where the caller recorded it and we do not, the change of mind has a span of its own.
    let trace = Trace::begin(&parent, Sampler::Always(Root::Off), &mut rng);
    assert_ne!(trace.context.span.to_string(), SPAN);
    assert!(!trace.sampled);
}

/// What `fields` become when their trace is continued, sorted by name; our span is `OURS`.
fn forwarded(fields: &[(&str, &str)], sampler: Sampler) -> Vec<(String, String)> {
    let mut map = headers(fields);
    let trace = Trace::begin(&Parent::read(&map), sampler, &mut seeded());
    trace.write(&mut map);
    let ours = trace.context.span.to_string();
    let mut fields: Vec<_> = map
        .iter()
        .map(|(name, value)| {
            let value = value.to_str().expect("ASCII").replace(&ours, "OURS");
            (name.to_string(), value)
        })
        .collect();
    fields.sort();
    fields
}

fn own(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn every_form_names_the_same_span() {
    let on = Sampler::ParentBased(Root::On);
    let parent = format!("00-{TRACE}-OURS-01");
    let single = format!("{TRACE}-{SPAN}");
    assert_eq!(
        forwarded(
            &[
                ("traceparent", GOOD),
                ("tracestate", "a=1"),
                ("accept", "*/*")
            ],
            on
        ),
        own(&[
            ("accept", "*/*"),
            ("traceparent", &parent),
            ("tracestate", "a=1")
        ])
    );
    assert_eq!(
        forwarded(
            &[("b3", &format!("{single}-1-{SPAN}")), ("tracestate", "a=1")],
            on
        ),
        own(&[("b3", &format!("{TRACE}-OURS-1")), ("traceparent", &parent)]),
        "a tracestate belongs to a traceparent"
    );
    assert_eq!(
        forwarded(&[("b3", &format!("{single}-d"))], on)[0].1,
        format!("{TRACE}-OURS-d")
    );
    assert_eq!(
        forwarded(&[("b3", &format!("{SPAN}-{SPAN}-1"))], on),
        own(&[
            ("b3", &format!("{SPAN}-OURS-1")),
            ("traceparent", &format!("00-{SPAN:0>32}-OURS-01")),
        ]),
        "short ids stay short"
    );
    let multiple = [
        ("x-b3-parentspanid", SPAN),
        ("x-b3-spanid", SPAN),
        ("x-b3-traceid", TRACE),
    ];
    let sampled = [&multiple[..], &[("x-b3-sampled", "1")]].concat();
    assert_eq!(
        forwarded(&sampled, on),
        own(&[
            ("traceparent", &parent),
            ("x-b3-sampled", "1"),
            ("x-b3-spanid", "OURS"),
            ("x-b3-traceid", TRACE),
        ])
    );
    let debug = [&multiple[..], &[("x-b3-flags", "1")]].concat();
    assert_eq!(
        forwarded(&debug, on),
        own(&[
            ("traceparent", &parent),
            ("x-b3-flags", "1"),
            ("x-b3-spanid", "OURS"),
            ("x-b3-traceid", TRACE),
        ])
    );
    let denied = forwarded(&[("x-b3-sampled", "0")], on);
    assert!(denied[0].1.ends_with("-OURS-00"), "{denied:?}");
    assert_eq!(denied[1], ("x-b3-sampled".to_owned(), "0".to_owned()));
    // Nobody records: the caller's span goes on.
    assert_eq!(
        forwarded(&[("b3", &format!("{single}-0"))], on),
        own(&[
            ("b3", &format!("{TRACE}-OURS-0")),
            ("traceparent", &format!("00-{TRACE}-OURS-00")),
        ])
    );
}

#[test]
fn a_tracestate_travels_whole_or_not_at_all() {
    let many = |count: usize| {
        let members: Vec<_> = (0..count).map(|number| format!("k{number}=v")).collect();
        members.join(",")
    };
    let key = "k".repeat(256);
    let value = "v".repeat(256);
    let table = [
        ("a=1", true),
        ("a=1,b=2", true),
        ("a=1 , b=2", true),
        ("a=1,,b=2,", true),
        ("", true),
        ("a= b!~", true),
        ("fw529a3039@dt=FfAAA", true),
        ("0t@system=1", true),
        ("a-b*c/d_e=1", true),
        (&format!("{key}={value}"), true),
        (&many(32), true),
        (&many(33), false),
        (&format!("{key}k=v"), false),
        (&format!("a={value}v"), false),
        ("a=1,a=2", false),
        ("a", false),
        ("=1", false),
        ("a=", false),
        ("a=b=c", false),
        ("a b=1", false),
        ("A=1", false),
        ("0a=1", false),
        ("a@=1", false),
        ("@a=1", false),
        ("a@b@c=1", false),
        ("a@toolongasystems=1", false),
        ("a=\u{e9}", false),
    ];
    for (state, travels) in table {
        let fields = [("traceparent", GOOD), ("tracestate", state)];
        let state_after = forwarded(&fields, Sampler::ParentBased(Root::On))
            .into_iter()
            .find(|(name, _)| name == "tracestate");
        assert_eq!(state_after.is_some(), travels, "{state}");
    }
    let fields = [("traceparent", "00-"), ("tracestate", "a=1")];
    assert_eq!(forwarded(&fields, Sampler::ParentBased(Root::On)).len(), 1);
    let two = headers(&[("tracestate", "a=1"), ("tracestate", "a=2")]);
    assert!(!w3c::state_is_valid(&two), "two fields are one list");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(trace in 1u128.., span in 1u64.., sampled: bool) {
        let text = format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(sampled));
        let parent = Parent::read(&headers(&[("traceparent", &text)]));
        let context = parent.context.expect("it is well formed");
        prop_assert_eq!(context.trace.to_bytes(), trace.to_be_bytes());
        prop_assert_eq!(context.span.to_bytes(), span.to_be_bytes());
        prop_assert_eq!(parent.sampled, Some(sampled));
        prop_assert_eq!(w3c::encode(&context, sampled), text.as_str());
    }

    #[test]
    fn whatever_comes_is_continued_or_begun(
        name in prop_oneof!["traceparent", "b3", "tracestate", "x-b3-traceid", "x-b3-flags"],
        value in proptest::collection::vec(0x20u8..0xff, 0..80),
        spoiled in "[0-9a-f-]{0,60}",
    ) {
        for value in [&value[..], spoiled.as_bytes()] {
            let Ok(value) = HeaderValue::from_bytes(value) else { continue };
            let mut map = HeaderMap::new();
            map.insert(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
            let trace = Trace::begin(&Parent::read(&map), Sampler::ParentBased(Root::On), &mut seeded());
            trace.write(&mut map);
            let read = Parent::read(&map);
            prop_assert_eq!(read.context, Some(trace.context));
            prop_assert_eq!(read.sampled, Some(trace.sampled));
        }
    }
}
