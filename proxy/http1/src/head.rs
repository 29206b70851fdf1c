//! Heads: a request's as it is written, a response's as it is read (RFC 9112 §3, §4, §5).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version, request, response};

use crate::Error;

/// Octets of a response's head.
pub(crate) const HEAD: usize = 64 * 1024;
/// Fields of a response's head, and of its trailers.
pub(crate) const FIELDS: usize = 128;

/// How the body of a request crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// There is none, and nothing is said of it.
    Nothing,
    /// So many octets.
    Length(u64),
    Chunked,
}

/// Writes the head of a request, with what says how its body crosses.
pub(crate) fn write_request(parts: &request::Parts, sent: Sent, out: &mut BytesMut) {
    let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(target.as_bytes());
    // A body of unknown length cannot cross in the version before.
    let is_old = parts.version == Version::HTTP_10 && sent != Sent::Chunked;
    out.extend_from_slice(if is_old {
        b" HTTP/1.0\r\n"
    } else {
        b" HTTP/1.1\r\n"
    });
    for (name, value) in &parts.headers {
        // Said below, once.
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            write_field(name.as_str().as_bytes(), value.as_bytes(), out);
        }
    }
    match sent {
        Sent::Nothing => {}
        Sent::Length(length) => {
            write_field(b"content-length", length.to_string().as_bytes(), out);
        }
        Sent::Chunked => write_field(b"transfer-encoding", b"chunked", out),
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(name: &[u8], value: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// How a body of that size crosses: `exact` octets, or nobody knows how many.
pub(crate) fn crossing(parts: &request::Parts, exact: Option<u64>) -> Sent {
    // Methods of which nobody expects a body are not told that there is none.
    let by_habit = matches!(
        parts.method,
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE
    );
    match exact {
        Some(0) if by_habit && !parts.headers.contains_key(CONTENT_LENGTH) => Sent::Nothing,
        Some(length) => Sent::Length(length),
        None => {
            let said = parts.headers.get(CONTENT_LENGTH);
            let length = said.and_then(|value| value.to_str().ok()?.parse().ok());
            length.map_or(Sent::Chunked, Sent::Length)
        }
    }
}

/// Heads of responses, out of what has come.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// Octets of a head that was not whole when they were looked at.
    seen: usize,
}

impl Heads {
    /// The next one in `input`, and its length; `None` where it is not whole.
    pub(crate) fn read(&mut self, input: &[u8]) -> Result<Option<(usize, response::Parts)>, Error> {
        let read = if self.may_be_whole(input) {
            read_response(input)?
        } else {
            None
        };
        let length = read.as_ref().map_or(input.len(), |(length, _)| *length);
        if length > HEAD {
            return Err(Error::Malformed("a head without end"));
        }
        self.seen = if read.is_some() { 0 } else { length };
        Ok(read)
    }

    /// Takes the next one out of what has come.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> Result<Option<response::Parts>, Error> {
        let read = self.read(input)?;
        Ok(read.map(|(length, parts)| {
            input.advance(length);
            parts
        }))
    }

    /// Whether it is worth parsing: one that comes octet by octet is not parsed as often.
    fn may_be_whole(&self, input: &[u8]) -> bool {
        let new = &input[self.seen.saturating_sub(2).min(input.len())..];
        let ends = |end: &[u8]| new.windows(end.len()).any(|window| window == end);
        !input.is_empty() && (self.seen == 0 || ends(b"\n\r\n") || ends(b"\n\n"))
    }
}

/// Fields that whoever passes a response on may have to add, `date` and `content-length`: room for them from the
/// beginning costs less than a map that grows.
const ADDED: usize = 2;

fn read_response(input: &[u8]) -> Result<Option<(usize, response::Parts)>, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Error::Malformed("too many fields")),
        Err(_) => return Err(Error::Malformed("a head that is none")),
    };
    // A copy: values that last would hold all that was read with them.
    let head = Bytes::copy_from_slice(&input[..length]);
    let mut headers = HeaderMap::with_capacity(response.headers.len() + ADDED);
    for field in &*response.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Error::Malformed("a field's name"))?;
        // Where it begins in the head; an empty one may lie anywhere.
        let value = if field.value.is_empty() {
            Bytes::new()
        } else {
            let begin = field.value.as_ptr() as usize - input.as_ptr() as usize;
            head.slice(begin..begin + field.value.len())
        };
        let value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| Error::Malformed("a field's value"))?;
        if headers.try_append(name, value).is_err() {
            return Err(Error::Malformed("too many fields"));
        }
    }
    let code = response.code.unwrap_or_default();
    let mut parts = response::Response::new(()).into_parts().0;
    parts.status = StatusCode::from_u16(code).map_err(|_| Error::Malformed("a status"))?;
    parts.version = match response.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    parts.headers = headers;
    Ok(Some((length, parts)))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use http::Request;

    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = b"HTTP/1.1 201 Made\r\nServer: x\r\nempty:\r\nx-a: 1\r\nX-A:  2 \r\n\r\nrest";
        let head = text.len() - 4;
        for length in 0..head {
            let mut input = BytesMut::from(&text[..length]);
            assert!(
                matches!(Heads::default().take(&mut input), Ok(None)),
                "{length}"
            );
            assert_eq!(input.len(), length);
        }
        let mut input = BytesMut::from(&text[..]);
        let parts = Heads::default()
            .take(&mut input)
            .expect("valid")
            .expect("whole");
        assert_eq!(
            (parts.status, parts.version),
            (StatusCode::CREATED, Version::HTTP_11)
        );
        let all: Vec<_> = parts.headers.get_all("x-a").iter().collect();
        assert!(all == ["1", "2"] && parts.headers["empty"].is_empty());
        assert_eq!(&input[..], b"rest");
    }

    #[test]
    fn heads_that_come_in_any_parts_are_the_same() {
        let text = b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\na: 1\r\n\r\n";
        for step in 1..=text.len() {
            let (mut heads, mut input) = (Heads::default(), BytesMut::new());
            let mut seen = Vec::new();
            for part in text.chunks(step) {
                input.extend_from_slice(part);
                while let Some(parts) = heads.take(&mut input).expect("valid") {
                    seen.push(parts.status.as_u16());
                }
            }
            assert_eq!(seen, [103, 200], "{step}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        let endless = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(HEAD));
        for text in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno field\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
            &many,
            &endless,
        ] {
            let mut input = BytesMut::from(text.as_bytes());
            assert!(Heads::default().take(&mut input).is_err(), "{text:.60}");
        }
    }

    #[test]
    fn a_request_says_once_how_its_body_crosses() {
        type Row = (
            &'static str,
            &'static [(&'static str, &'static str)],
            Option<u64>,
            Sent,
        );
        let table: [Row; 7] = [
            ("GET", &[], Some(0), Sent::Nothing),
            ("GET", &[("content-length", "0")], Some(0), Sent::Length(0)),
            ("GET", &[], Some(3), Sent::Length(3)),
            ("POST", &[], Some(0), Sent::Length(0)),
            ("POST", &[], None, Sent::Chunked),
            ("POST", &[("content-length", "7")], None, Sent::Length(7)),
            (
                "POST",
                &[("transfer-encoding", "chunked")],
                None,
                Sent::Chunked,
            ),
        ];
        for (method, fields, exact, expected) in table {
            let mut request = Request::builder().method(method).uri("/a?b");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).expect("valid").into_parts();
            let sent = crossing(&parts, exact);
            assert_eq!(sent, expected, "{method} {fields:?} {exact:?}");
            let mut out = BytesMut::new();
            write_request(&parts, sent, &mut out);
            let text = String::from_utf8(out.to_vec()).expect("text");
            assert!(
                text.starts_with(&format!("{method} /a?b HTTP/1.1\r\n")),
                "{text}"
            );
            assert!(text.ends_with("\r\n\r\n"), "{text}");
            let said =
                text.matches("content-length").count() + text.matches("transfer-encoding").count();
            assert_eq!(said, usize::from(expected != Sent::Nothing), "{text}");
        }
    }
}
