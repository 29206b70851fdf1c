//! What is spoken, from the first bytes of a connection.
//!
//! The first decision on a port whose protocol is `detect`, and on every
//! outbound listener. It knows no sockets: the caller peeks, asks, and peeks
//! again while the answer is [`Sniffed::NeedMore`]. How long to wait for bytes
//! that never come is the caller's business (a protocol in which the server
//! speaks first looks like silence); what came by then is opaque.

/// With this many bytes the answer is never [`Sniffed::NeedMore`].
pub const SNIFF_BYTES: usize = 64;

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// A TLS handshake record.
    Tls,
    /// Something else: bytes to be carried, not read.
    Opaque,
    /// Undecided: every byte so far is the beginning of something known.
    NeedMore,
}

/// Tells what is spoken from the first bytes of a connection.
///
/// HTTP/1 is a method and a space, then a target in one of the forms of RFC
/// 9112 §3.2: beginning with `/`, the single `*`, `http://…` or `https://…`,
/// or anything after `CONNECT`. That is what tells `GET /` from the text
/// protocols that also begin with a word (`EHLO name`, `SET key`). HTTP/2 is
/// its whole preface, TLS the type and version of a handshake record.
#[must_use]
pub fn sniff(first_bytes: &[u8]) -> Sniffed {
    let bytes = &first_bytes[..first_bytes.len().min(SNIFF_BYTES)];
    let sniffed = match bytes.first() {
        None => Sniffed::NeedMore,
        Some(0x16) => sniff_tls(bytes),
        Some(_) if bytes.starts_with(PREFACE) => Sniffed::Http2,
        Some(_) if PREFACE.starts_with(bytes) => Sniffed::NeedMore,
        Some(_) => sniff_http1(bytes),
    };
    if sniffed == Sniffed::NeedMore && first_bytes.len() >= SNIFF_BYTES {
        return Sniffed::Opaque;
    }
    sniffed
}

fn sniff_tls(bytes: &[u8]) -> Sniffed {
    match *bytes {
        [_, 0x03, 0x01..=0x04, ..] => Sniffed::Tls,
        [_] | [_, 0x03] => Sniffed::NeedMore,
        _ => Sniffed::Opaque,
    }
}

fn sniff_http1(bytes: &[u8]) -> Sniffed {
    // A server should ignore one empty line before the request line (RFC 9112 §2.2).
    let line = match *bytes {
        [b'\r'] | [b'\r', b'\n'] => return Sniffed::NeedMore,
        [b'\r', b'\n', ref rest @ ..] => rest,
        _ => bytes,
    };
    let Some(end) = line.iter().position(|byte| !is_token(*byte)) else {
        return Sniffed::NeedMore;
    };
    if end == 0 || line[end] != b' ' {
        return Sniffed::Opaque;
    }
    let (method, target) = (&line[..end], &line[end + 1..]);
    match *target {
        [] => Sniffed::NeedMore,
        [b'/', ..] => Sniffed::Http1,
        // Reserved for the preface of HTTP/2 (RFC 9113 §11.6), which this is not.
        [b'*', ..] if method == b"PRI" => Sniffed::Opaque,
        [b'*', b' ', ..] => Sniffed::Http1,
        [b'*'] => Sniffed::NeedMore,
        [first, ..] if method == b"CONNECT" && first.is_ascii_graphic() => Sniffed::Http1,
        _ => sniff_absolute(target),
    }
}

fn sniff_absolute(target: &[u8]) -> Sniffed {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let common = |scheme: &[u8]| scheme.len().min(target.len());
    let begins =
        |scheme: &&[u8]| scheme[..common(scheme)].eq_ignore_ascii_case(&target[..common(scheme)]);
    match schemes.into_iter().find(begins) {
        Some(scheme) if target.len() >= scheme.len() => Sniffed::Http1,
        Some(_) => Sniffed::NeedMore,
        None => Sniffed::Opaque,
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tells_protocols_apart() {
        let table: &[(&[u8], Sniffed)] = &[
            (b"", Sniffed::NeedMore),
            (b"G", Sniffed::NeedMore),
            (b"GET ", Sniffed::NeedMore),
            (b"GET /", Sniffed::Http1),
            (b"\r\nGET /", Sniffed::Http1),
            (b"\r", Sniffed::NeedMore),
            (b"\r\n\r\nGET /", Sniffed::Opaque),
            (b"M-SEARCH * HTTP/1.1", Sniffed::Http1),
            (b"OPTIONS *", Sniffed::NeedMore),
            (b"GET http://a/", Sniffed::Http1),
            (b"GET HTTPS://a/", Sniffed::Http1),
            (b"GET htt", Sniffed::NeedMore),
            (b"GET httpx", Sniffed::Opaque),
            (b"CONNECT a:1 HTTP/1.1", Sniffed::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Sniffed::NeedMore),
            (b"PRI", Sniffed::NeedMore),
            (b"PRI * HTTP/3", Sniffed::Opaque),
            (b"PRINT /", Sniffed::Http1),
            (b"\x16", Sniffed::NeedMore),
            (b"\x16\x03", Sniffed::NeedMore),
            (b"\x16\x03\x01", Sniffed::Tls),
            (b"\x16\x03\x04\x00", Sniffed::Tls),
            (b"\x16\x03\x05", Sniffed::Opaque),
            (b"\x16\x02", Sniffed::Opaque),
            (b"EHLO mail.example\r\n", Sniffed::Opaque),
            (b"SET key value\r\n", Sniffed::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Sniffed::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Sniffed::Opaque),
            (b" /", Sniffed::Opaque),
            (b"GET\t/", Sniffed::Opaque),
        ];
        for (bytes, expected) in table {
            assert_eq!(
                sniff(bytes),
                *expected,
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    proptest! {
        #[test]
        fn decides_with_enough_bytes(bytes in proptest::collection::vec(any::<u8>(), SNIFF_BYTES..200)) {
            prop_assert_ne!(sniff(&bytes), Sniffed::NeedMore);
        }

        #[test]
        fn a_decision_stands_whatever_follows(text in "[A-Z]{1,9} ?[/*h]?.{0,40}", more in proptest::collection::vec(any::<u8>(), 0..80)) {
            let early = sniff(text.as_bytes());
            let late = sniff(&[text.as_bytes(), &more].concat());
            prop_assert!(early == Sniffed::NeedMore || early == late);
        }

        #[test]
        fn endless_tokens_are_opaque(text in "[A-Z]{64,90}") {
            prop_assert_eq!(sniff(text.as_bytes()), Sniffed::Opaque);
        }
    }
}
