//! The examples of RFC 7541, appendix C: what each block says, and what the table holds after it.

use bytes::Bytes;

use super::{Decoder, Error, Field};

/// A field in words, to compare and to print. What is sensitive has `!` in front.
pub(super) fn words(field: &Field) -> String {
    match field {
        Field::Pseudo(which, value) => format!("{}={}", which.as_str(), value.escape_ascii()),
        Field::Header(name, value) => {
            let mark = if value.is_sensitive() { "!" } else { "" };
            format!("{mark}{name}={}", value.as_bytes().escape_ascii())
        }
        Field::Malformed(name, value) => format!("malformed {name}+{value}"),
    }
}

/// The fields of a block, in words.
pub(super) fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Error> {
    let mut fields = Vec::new();
    decoder.decode(Bytes::copy_from_slice(block), &mut |field| {
        fields.push(words(&field));
        true
    })?;
    Ok(fields)
}

/// Octets of the table, and its entries in words, the newest first.
fn table(decoder: &Decoder) -> (usize, Vec<String>) {
    let (size, fields) = decoder.contents();
    (size, fields.iter().map(words).collect())
}

/// The octets written in hexadecimal, with spaces anywhere.
fn octets(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<_> = hexadecimal
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    let octet = |pair: &[u32]| (pair[0] << 4 | pair[1]) as u8;
    digits.chunks_exact(2).map(octet).collect()
}

/// A block, its fields, and the table after it.
type Example<'a> = (&'a str, &'a [&'a str], usize, &'a [&'a str]);

fn follow(limit: usize, examples: &[Example<'_>]) {
    let mut decoder = Decoder::new(limit);
    for (block, fields, size, entries) in examples {
        assert_eq!(read(&mut decoder, &octets(block)).expect(block), *fields);
        let (kept, kept_entries) = table(&decoder);
        assert_eq!(
            (kept, kept_entries.as_slice()),
            (*size, owned(entries).as_slice())
        );
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn single_fields_of_c_2() {
    let indexed = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    let custom = &["custom-key=custom-header"];
    follow(4096, &[(indexed, custom, 55, custom)]);
    follow(
        4096,
        &[(
            "040c 2f73 616d 706c 652f 7061 7468",
            &[":path=/sample/path"],
            0,
            &[],
        )],
    );
    let secret = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    follow(4096, &[(secret, &["!password=secret"], 0, &[])]);
    follow(4096, &[("82", &[":method=GET"], 0, &[])]);
}

const HOST: &str = ":authority=www.example.com";
const NO_CACHE: &str = "cache-control=no-cache";
const CUSTOM: &str = "custom-key=custom-value";

/// What C.3 and C.4 say, the one without and the other with Huffman codes.
fn requests(blocks: [&str; 3]) {
    let first = [":method=GET", ":scheme=http", ":path=/", HOST];
    let second = [":method=GET", ":scheme=http", ":path=/", HOST, NO_CACHE];
    let third = [
        ":method=GET",
        ":scheme=https",
        ":path=/index.html",
        HOST,
        CUSTOM,
    ];
    follow(
        4096,
        &[
            (blocks[0], &first, 57, &[HOST]),
            (blocks[1], &second, 110, &[NO_CACHE, HOST]),
            (blocks[2], &third, 164, &[CUSTOM, NO_CACHE, HOST]),
        ],
    );
}

#[test]
fn requests_of_c_3() {
    requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn huffman_coded_requests_of_c_4() {
    requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

const PRIVATE: &str = "cache-control=private";
const EARLY: &str = "date=Mon, 21 Oct 2013 20:13:21 GMT";
const LATE: &str = "date=Mon, 21 Oct 2013 20:13:22 GMT";
const LOCATION: &str = "location=https://www.example.com";
const GZIP: &str = "content-encoding=gzip";
const COOKIE: &str = "set-cookie=foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";

/// What C.5 and C.6 say: a table of 256 octets, so that entries are pushed out.
fn responses(blocks: [&str; 3]) {
    follow(
        256,
        &[
            (
                blocks[0],
                &[":status=302", PRIVATE, EARLY, LOCATION],
                222,
                &[LOCATION, EARLY, PRIVATE, ":status=302"],
            ),
            (
                blocks[1],
                &[":status=307", PRIVATE, EARLY, LOCATION],
                222,
                &[":status=307", LOCATION, EARLY, PRIVATE],
            ),
            (
                blocks[2],
                &[":status=200", PRIVATE, LATE, LOCATION, GZIP, COOKIE],
                215,
                &[COOKIE, GZIP, LATE],
            ),
        ],
    );
}

#[test]
fn responses_of_c_5() {
    responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
         6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
         3d31",
    ]);
}

#[test]
fn huffman_coded_responses_of_c_6() {
    responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}
