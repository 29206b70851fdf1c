//! What holds for all heads, and for all octets a peer may send.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{read, words};
use super::{Decoder, Encoder, Error, Field, Pseudo};

/// What happens on one connection, in turn.
#[derive(Clone, Debug)]
enum Event {
    Head(Vec<Field>),
    Limit(u32),
}

/// Few names and values, so that they come again, and some of any kind.
fn header() -> impl Strategy<Value = Field> {
    let name = prop_oneof![
        3 => prop::sample::select(vec![
            "accept", "accept-encoding", "user-agent", "content-length", "cookie", "authorization",
            "via", "x-request-id", "te", "x-a-name-of-more-than-sixteen-octets",
        ]).prop_map(str::to_owned),
        1 => "[a-z0-9!#$%&'*+.^_`|~-]{1,80}",
    ];
    let value = prop_oneof![
        3 => "[a-d]{0,1}".prop_map(String::into_bytes),
        1 => "a value of more than sixteen octets [a-b]".prop_map(String::into_bytes),
        1 => vec(prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xff_u8], 0..300),
    ];
    (name, value, prop::bool::weighted(0.1)).prop_map(|(name, value, sensitive)| {
        let mut value = HeaderValue::from_bytes(&value).expect("allowed octets");
        value.set_sensitive(sensitive);
        Field::Header(HeaderName::try_from(name).expect("a token"), value)
    })
}

fn pseudo() -> impl Strategy<Value = Field> {
    let which = prop::sample::select(vec![
        Pseudo::Method,
        Pseudo::Scheme,
        Pseudo::Authority,
        Pseudo::Path,
        Pseudo::Protocol,
        Pseudo::Status,
    ]);
    let value = prop_oneof!["GET|https|/|200|[a-b]", "[ -~]{0,40}"];
    (which, value).prop_map(|(which, value)| Field::Pseudo(which, Bytes::from(value)))
}

fn event() -> impl Strategy<Value = Event> {
    let field = prop_oneof![1 => pseudo(), 3 => header()];
    let limit = prop_oneof![Just(0), Just(40), 0..400_u32, Just(4096), Just(u32::MAX)];
    prop_oneof![
        5 => vec(field, 0..20).prop_map(Event::Head),
        1 => limit.prop_map(Event::Limit),
    ]
}

fn write(encoder: &mut Encoder, head: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for field in head {
        match field {
            Field::Pseudo(which, value) => encoder.pseudo(*which, value, &mut out),
            Field::Header(name, value) => encoder.header(name, value, &mut out),
            Field::Malformed(..) => unreachable!("no strategy makes one"),
        }
    }
    out
}

/// The field as it arrives: credentials and cookies are marked on the way.
fn arrived(field: &Field) -> String {
    let mut field = field.clone();
    if let Field::Header(name, value) = &mut field
        && ["cookie", "authorization"].contains(&name.as_str())
    {
        value.set_sensitive(true);
    }
    words(&field)
}

/// Octets that look like blocks more often than mere chance has it.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        vec(any::<u8>(), 0..40),
        prop::sample::select(vec![
            vec![0x82],
            vec![0xbe],
            vec![0x3f, 0xe1, 0x1f],
            vec![0x20],
            vec![0x40, 0x01, b'a', 0x01, b'b'],
            vec![0x40, 0x01, b'A', 0x01, b'b'],
            vec![0x40, 0x81, 0x1f, 0x83, 0xff, 0xff, 0xff],
            vec![0x7e, 0x01, 0x00],
            vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ]),
        vec(b'a'..=b'c', 0..120).prop_map(|text| [&[0x44, text.len() as u8], &text[..]].concat()),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    // Each case is a connection with hundreds of fields.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn heads_go_there_and_back(events in vec(event(), 1..40)) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        for event in &events {
            match event {
                Event::Limit(limit) => encoder.set_limit(*limit),
                Event::Head(head) => {
                    let block = write(&mut encoder, head);
                    let expected: Vec<_> = head.iter().map(arrived).collect();
                    prop_assert_eq!(read(&mut decoder, &block), Ok(expected));
                    let (size, entries) = decoder.contents();
                    prop_assert_eq!(encoder.contents(), (size, entries.len()));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn no_octets_harm_the_decoder(blocks in vec(hostile(), 1..8), limit in 0..5000_usize) {
        let mut decoder = Decoder::new(limit);
        for block in &blocks {
            let mut fields = 0;
            let result = decoder.decode(Bytes::copy_from_slice(block), &mut |_| {
                fields += 1;
                true
            });
            prop_assert!(fields <= block.len());
            prop_assert_ne!(result, Err(Error::TooMuch));
            let (size, entries) = decoder.contents();
            prop_assert!(size <= limit);
            prop_assert_eq!(size, entries.iter().map(Field::size).sum::<usize>());
        }
    }

    #[test]
    fn huffman_strings_are_bounded(coded in vec(any::<u8>(), 0..400)) {
        let mut out = Vec::new();
        let _ = super::huffman::decode(&coded, &mut out);
        prop_assert!(out.len() <= super::huffman::longest(coded.len()));
    }
}
