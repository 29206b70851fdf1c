//! Blocks that are wrong, and heads that are: the first end the connection, the second only spoil
//! a message.

use bytes::Bytes;

use super::tests::read;
use super::{Decoder, Error};

fn failure(block: &[u8]) -> Error {
    read(&mut Decoder::new(4096), block).expect_err("a wrong block")
}

/// The fields of one block for a new decoder.
fn fields(block: &[u8]) -> Vec<String> {
    read(&mut Decoder::new(4096), block).expect("a sound block")
}

#[test]
fn indices_point_to_entries() {
    assert_eq!(failure(&[0x80]), Error::Index);
    assert_eq!(failure(&[0xbe]), Error::Index);
    assert_eq!(failure(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Error::Index);
    // As the name of a field that is spelled out, in each of its three forms.
    for first in [0x7e, 0x0f, 0x1f] {
        assert_eq!(failure(&[first, 0x2f, 0x01, b'a']), Error::Index);
    }
}

#[test]
fn integers_have_32_bits() {
    assert_eq!(
        failure(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        Error::Integer
    );
    assert_eq!(
        failure(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        Error::Integer
    );
    assert_eq!(failure(&[0xff, 0x80, 0xff, 0xff, 0xff, 0x0f]), Error::Index);
    assert_eq!(
        failure(&[0x00, 0x01, b'a', 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff]),
        Error::Integer
    );
}

#[test]
fn an_integer_may_be_longer_than_needed() {
    assert_eq!(
        fields(&[0x0f, 0x80, 0x80, 0x00, 0x01, b'a']),
        ["accept-charset=a"]
    );
}

#[test]
fn blocks_end_behind_a_field() {
    let whole = [0x00, 0x02, b'a', b'b', 0x02, b'c', b'd'];
    assert_eq!(fields(&whole), ["ab=cd"]);
    for length in 1..whole.len() {
        assert_eq!(failure(&whole[..length]), Error::Truncated, "{length}");
    }
    assert_eq!(failure(&[0xff]), Error::Truncated);
    assert_eq!(failure(&[0xff, 0x80]), Error::Truncated);
    assert_eq!(failure(&[0x3f]), Error::Truncated);
    assert_eq!(
        failure(&[0x00, 0x7f, 0xff, 0xff, 0xff, 0x7f]),
        Error::Truncated
    );
}

#[test]
fn an_empty_block_has_no_fields() {
    assert!(fields(&[]).is_empty());
}

/// A field whose value is this Huffman-coded string.
fn coded(string: &[u8]) -> Vec<u8> {
    [&[0x01, 0x80 | string.len() as u8], string].concat()
}

#[test]
fn padding_is_seven_ones_at_most() {
    // The code of `a` is 00011.
    assert_eq!(fields(&coded(&[0b0001_1111])), [":authority=a"]);
    assert_eq!(fields(&coded(&[])), [":authority="]);
    assert_eq!(failure(&coded(&[0b0001_1110])), Error::Huffman);
    assert_eq!(failure(&coded(&[0b0001_1011])), Error::Huffman);
    assert_eq!(failure(&coded(&[0b0001_1111, 0xff])), Error::Huffman);
    assert_eq!(failure(&coded(&[0xff])), Error::Huffman);
    assert_eq!(failure(&coded(&[0xff, 0xff])), Error::Huffman);
}

#[test]
fn the_end_of_a_string_is_not_coded() {
    assert_eq!(failure(&coded(&[0xff; 4])), Error::Huffman);
    assert_eq!(
        failure(&coded(&[0b0001_1111, 0xff, 0xff, 0xff, 0xff])),
        Error::Huffman
    );
    assert_eq!(
        failure(&coded(&[0xff, 0xff, 0xff, 0xff, 0b0001_1111])),
        Error::Huffman
    );
}

#[test]
fn the_table_is_resized_in_front_and_twice_at_most() {
    assert_eq!(fields(&[0x20, 0x3f, 0xe1, 0x1f, 0x82]), [":method=GET"]);
    assert_eq!(failure(&[0x20, 0x20, 0x20]), Error::Updates);
    assert_eq!(failure(&[0x82, 0x20]), Error::LateUpdate);
    assert_eq!(failure(&[0x20, 0x82, 0x3f]), Error::LateUpdate);
}

#[test]
fn the_table_stays_within_our_limit() {
    assert_eq!(failure(&[0x3f, 0xe2, 0x1f]), Error::Oversized);
    let mut small = Decoder::new(64);
    assert_eq!(
        read(&mut small, &[0x3f, 0x21, 0x82]),
        Ok(vec![":method=GET".to_owned()])
    );
    assert_eq!(read(&mut small, &[0x3f, 0x22, 0x82]), Err(Error::Oversized));
}

#[test]
fn resizing_pushes_entries_out() {
    let mut decoder = Decoder::new(4096);
    let entry = [0x40, 0x01, b'a', 0x01, b'b'];
    read(&mut decoder, &entry).expect("a sound block");
    assert_eq!(decoder.contents().0, 34);
    read(&mut decoder, &[0x3f, 0x02]).expect("33 octets");
    assert_eq!(decoder.contents().0, 0);
    assert_eq!(read(&mut decoder, &[0xbe]), Err(Error::Index));
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(40);
    read(&mut decoder, &[0x40, 0x01, b'a', 0x01, b'b']).expect("a sound block");
    let large = [0x7e, 0x08, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8'];
    assert_eq!(
        read(&mut decoder, &large),
        Ok(vec!["a=12345678".to_owned()])
    );
    assert_eq!(decoder.contents().0, 0);
}

#[test]
fn whoever_takes_fields_can_stop() {
    let mut taken = 0;
    let mut take = |_| {
        taken += 1;
        taken < 2
    };
    let result = Decoder::new(4096).decode(Bytes::from_static(&[0x82, 0x86, 0x84]), &mut take);
    assert_eq!((result, taken), (Err(Error::TooMuch), 2));
}

/// A field that is spelled out and enters the table.
fn spelled(name: &[u8], value: &[u8]) -> Vec<u8> {
    let lengths = [name.len() as u8, value.len() as u8];
    [&[0x40, lengths[0]], name, &[lengths[1]], value].concat()
}

#[test]
fn names_are_lowercase_tokens() {
    let proper = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
    for octet in 0..=u8::MAX {
        let field = &fields(&spelled(&[b'a', octet], b"v"))[0];
        let taken = field != "malformed 2+1";
        assert_eq!(taken, proper.contains(&octet), "{octet:#x}: {field}");
    }
    assert_eq!(fields(&spelled(b"", b"v")), ["malformed 0+1"]);
    let long = [b'x'; 70];
    assert_eq!(fields(&spelled(&long, b"")).len(), 1);
    assert_eq!(
        fields(&spelled(&[&long[..], b"\"X"].concat(), b"v")),
        ["malformed 72+1"]
    );
}

#[test]
fn pseudo_fields_are_known() {
    for name in [
        ":method",
        ":scheme",
        ":authority",
        ":path",
        ":protocol",
        ":status",
    ] {
        assert_eq!(
            fields(&spelled(name.as_bytes(), b"v")),
            [format!("{name}=v")]
        );
    }
    for name in [":", ":Path", ":paths", "::path", ":version"] {
        assert_eq!(
            fields(&spelled(name.as_bytes(), b"v")),
            [format!("malformed {}+1", name.len())]
        );
    }
}

#[test]
fn values_hold_no_control_octets() {
    for name in ["x", "host", ":path", ":protocol"] {
        for octet in 0..=u8::MAX {
            for value in [
                vec![octet],
                [&b"0123456789"[..], &[octet], b"0123456789"].concat(),
            ] {
                let field = &fields(&spelled(name.as_bytes(), &value))[0];
                let taken = !field.starts_with("malformed");
                let proper = octet == b'\t' || octet >= b' ' && octet != 0x7f;
                assert_eq!(taken, proper, "{name} {octet:#x}");
            }
        }
    }
}

#[test]
fn malformed_fields_count_in_the_table() {
    let mut decoder = Decoder::new(4096);
    let blocks = [
        spelled(b"Bad", b"v"),
        spelled(b"x-good", b"\0"),
        spelled(b":odd", b"value"),
    ];
    for block in blocks {
        read(&mut decoder, &block).expect("a sound block");
    }
    assert_eq!(decoder.contents().0, (32 + 4) + (32 + 7) + (32 + 9));
    let again = read(&mut decoder, &[0xbe, 0xbf, 0xc0]).expect("their indices");
    assert_eq!(again, ["malformed 4+5", "malformed 6+1", "malformed 3+1"]);
}

#[test]
fn a_good_name_outlives_a_bad_value() {
    let mut decoder = Decoder::new(4096);
    read(&mut decoder, &spelled(b"x-good", b"\0")).expect("a sound block");
    read(&mut decoder, &spelled(b":path", b"\0")).expect("a sound block");
    // The names of both, with a proper value.
    let block = [0x0f, 0x30, 0x01, b'v', 0x0f, 0x2f, 0x01, b'/'];
    let again = read(&mut decoder, &block).expect("their names");
    assert_eq!(again, ["x-good=v", ":path=/"]);
}
