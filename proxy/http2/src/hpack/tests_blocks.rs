//! What the encoder sends: what enters the table and what never does, and that the decoder reads
//! the same fields from it.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::tests::{read, words};
use super::{Decoder, Encoder, Field, Pseudo};

fn header(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )
}

/// One block with one header.
fn block(encoder: &mut Encoder, (name, value): &(HeaderName, HeaderValue)) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    encoder.header(name, value, &mut out);
    out
}

#[test]
fn a_value_is_indexed_when_it_comes_again() {
    for field in [
        header("x-selvage-version", "1.1"),
        header("user-agent", "a/1"),
        header("te", ""),
    ] {
        let mut encoder = Encoder::new();
        let first = block(&mut encoder, &field);
        assert!(first[0] < 0x10, "spelled out, and not for the table");
        let second = block(&mut encoder, &field);
        assert_eq!(second[0] >> 6, 1, "for the table");
        assert_eq!(block(&mut encoder, &field), [0xbe]);
        assert_eq!(block(&mut encoder, &field), [0xbe]);
    }
}

#[test]
fn differing_values_push_nothing_out() {
    let mut encoder = Encoder::new();
    let steady = header("user-agent", "curl/8.5.0");
    block(&mut encoder, &steady);
    block(&mut encoder, &steady);
    for number in 0..1000 {
        let name = HeaderName::from_static("x-request-id");
        let value = HeaderValue::from_str(&format!("{number:036}")).expect("digits");
        assert_eq!(block(&mut encoder, &(name, value))[0], 0x00);
    }
    assert_eq!(block(&mut encoder, &steady), [0xbe]);
    assert_eq!(encoder.contents().1, 1);
}

#[test]
fn all_repeating_fields_of_a_head_are_indexed() {
    let head: Vec<_> = (0..20)
        .map(|number| {
            let name = HeaderName::try_from(format!("x-field-number-{number}")).expect("a token");
            (name, HeaderValue::from(number))
        })
        .collect();
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    for _ in 0..4 {
        out.clear();
        encoder.begin(&mut out);
        for (name, value) in &head {
            encoder.header(name, value, &mut out);
        }
    }
    // Only five fields in one bucket of four would lose each other, and the seed is random.
    let indexed = out.iter().filter(|octet| **octet >= 0x80).count();
    assert!(indexed >= 13, "{indexed}");
}

#[test]
fn secrets_are_never_indexed() {
    let mut secret = header("x-token", "abc");
    secret.1.set_sensitive(true);
    let mut known = header("user-agent", "abc");
    known.1.set_sensitive(true);
    let credentials = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
    ];
    let named = credentials.map(|name| header(name, "abc"));
    let empty = credentials.map(|name| header(name, ""));
    let mut encoder = Encoder::new();
    for field in [secret, known].iter().chain(&named).chain(&empty) {
        for _ in 0..4 {
            let sent = block(&mut encoder, field);
            assert_eq!(sent[0] >> 4, 1, "{field:?}");
            let (name, value) = field;
            let marked = format!("!{name}={}", value.to_str().expect("text"));
            assert_eq!(read(&mut Decoder::new(4096), &sent), Ok(vec![marked]));
        }
    }
    assert_eq!(encoder.contents(), (0, 0));
}

#[test]
fn a_secret_is_not_taken_for_its_public_twin() {
    let mut field = header("x-token", "abc");
    let mut encoder = Encoder::new();
    for _ in 0..3 {
        block(&mut encoder, &field);
    }
    field.1.set_sensitive(true);
    assert_eq!(block(&mut encoder, &field)[0], 0x10);
}

#[test]
fn single_use_fields_have_their_names_index() {
    let mut encoder = Encoder::new();
    for _ in 0..3 {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.pseudo(Pseudo::Path, b"/a", &mut out);
        let (name, value) = header("content-length", "12");
        encoder.header(&name, &value, &mut out);
        assert_eq!(out, [0x04, 2, b'/', b'a', 0x0f, 28 - 15, 2, b'1', b'2']);
    }
    assert_eq!(encoder.contents(), (0, 0));
}

#[test]
fn static_fields_are_one_octet_at_once() {
    let pseudo = [
        (Pseudo::Authority, "", 1),
        (Pseudo::Method, "GET", 2),
        (Pseudo::Method, "POST", 3),
        (Pseudo::Path, "/", 4),
        (Pseudo::Path, "/index.html", 5),
        (Pseudo::Scheme, "http", 6),
        (Pseudo::Scheme, "https", 7),
        (Pseudo::Status, "200", 8),
        (Pseudo::Status, "204", 9),
        (Pseudo::Status, "206", 10),
        (Pseudo::Status, "304", 11),
        (Pseudo::Status, "400", 12),
        (Pseudo::Status, "404", 13),
        (Pseudo::Status, "500", 14),
    ];
    for (which, value, index) in pseudo {
        let mut out = Vec::new();
        Encoder::new().pseudo(which, value.as_bytes(), &mut out);
        assert_eq!(out, [0x80 | index], "{which:?} {value}");
    }
    assert_eq!(
        block(
            &mut Encoder::new(),
            &header("accept-encoding", "gzip, deflate")
        ),
        [0x90]
    );
    assert_eq!(
        block(&mut Encoder::new(), &header("www-authenticate", "")),
        [0xbd]
    );
}

#[test]
fn other_pseudo_values_enter_the_table() {
    let fields = [
        (Pseudo::Method, "PATCH"),
        (Pseudo::Scheme, "ftp"),
        (Pseudo::Authority, "b.shop"),
        (Pseudo::Protocol, "websocket"),
        (Pseudo::Status, "418"),
    ];
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    for round in 0..3 {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (which, value) in fields {
            encoder.pseudo(which, value.as_bytes(), &mut out);
        }
        let expected: Vec<_> = fields
            .iter()
            .map(|(which, value)| format!("{}={value}", which.as_str()))
            .collect();
        assert_eq!(read(&mut decoder, &out), Ok(expected));
        assert_eq!(out.len() == fields.len(), round == 2);
    }
}

#[test]
fn changes_of_the_limit_are_told_once_smallest_and_last() {
    let begin = |encoder: &mut Encoder| {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        out
    };
    let mut encoder = Encoder::new();
    assert!(begin(&mut encoder).is_empty());
    encoder.set_limit(65_536);
    assert!(begin(&mut encoder).is_empty(), "no more than 4096 are used");
    encoder.set_limit(100);
    encoder.set_limit(0);
    encoder.set_limit(64);
    assert_eq!(begin(&mut encoder), [0x20, 0x3f, 0x21]);
    assert!(begin(&mut encoder).is_empty());
    encoder.set_limit(4096);
    assert_eq!(begin(&mut encoder), [0x3f, 0xe1, 0x1f]);
    encoder.set_limit(16);
    encoder.set_limit(4096);
    assert_eq!(begin(&mut encoder), [0x30, 0x3f, 0xe1, 0x1f]);
}

#[test]
fn a_table_of_no_octets_works() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    encoder.set_limit(0);
    for _ in 0..5 {
        let sent = block(&mut encoder, &header("x-a", "b"));
        assert_eq!(read(&mut decoder, &sent), Ok(vec!["x-a=b".to_owned()]));
        assert_eq!(encoder.contents(), (0, 0));
    }
}

#[test]
fn an_entry_as_large_as_the_table_enters_and_a_larger_one_does_not() {
    for (octets, entries) in [(4096 - 32 - 3, 1), (4096 - 32 - 2, 0)] {
        let value = HeaderValue::from_str(&"v".repeat(octets)).expect("letters");
        let field = (HeaderName::from_static("x-a"), value);
        let mut encoder = Encoder::new();
        for _ in 0..3 {
            block(&mut encoder, &field);
        }
        assert_eq!(encoder.contents().1, entries);
    }
}

#[test]
fn entries_do_not_keep_their_block_alive() {
    let block = [
        0x40, 0x03, b'x', b'-', b'a', 0x02, b'v', b'w', 0x44, 0x01, b'/',
    ];
    let block = Bytes::from(block.to_vec());
    let mut fields = Vec::new();
    let mut decoder = Decoder::new(4096);
    let mut take = |field| {
        fields.push(field);
        true
    };
    decoder
        .decode(block.clone(), &mut take)
        .expect("a sound block");
    assert!(block.is_unique());
    assert_eq!(
        fields.iter().map(words).collect::<Vec<_>>(),
        ["x-a=vw", ":path=/"]
    );
}

#[test]
fn the_static_table_goes_there_and_back() {
    for index in 1..=61_u8 {
        let mut fields = Vec::new();
        let mut take = |field| {
            fields.push(field);
            true
        };
        let block = Bytes::from(vec![0x80 | index]);
        Decoder::new(4096)
            .decode(block, &mut take)
            .expect("an index");
        let mut out = Vec::new();
        match &fields[..] {
            [Field::Pseudo(which, value)] => Encoder::new().pseudo(*which, value, &mut out),
            [Field::Header(name, value)] => Encoder::new().header(name, value, &mut out),
            other => panic!("{other:?}"),
        }
        let secret = [23, 32, 49, 55].contains(&index);
        let expected = if secret {
            vec![0x1f, index - 15, 0]
        } else {
            vec![0x80 | index]
        };
        assert_eq!(out, expected, "{fields:?}");
    }
}

#[test]
fn sizes_count_32_octets_more() {
    assert_eq!(
        Field::Pseudo(Pseudo::Path, Bytes::from_static(b"/a")).size(),
        39
    );
    let (name, value) = header("x-a", "b");
    assert_eq!(Field::Header(name, value).size(), 36);
    assert_eq!(Field::Malformed(3, 4).size(), 39);
}
