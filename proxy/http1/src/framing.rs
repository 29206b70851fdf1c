//! How a message says where its body ends (RFC 9112 §6.3).

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};

use crate::Error;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many octets.
    Length(u64),
    /// After its last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Of a response. Whatever two recipients could read in two ways is refused; a length that is said several times
/// is said once afterwards (RFC 9110 §8.6).
pub(crate) fn of_response(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<Framing, Error> {
    let length = length(headers)?;
    if let Some(length) = length {
        say_once(length, headers);
    }
    let is_chunked = is_chunked(headers)?;
    if *method == Method::HEAD || matches!(status.as_u16(), 204 | 304) {
        return Ok(Framing::Length(0));
    }
    match (is_chunked, length) {
        (true, Some(_)) => Err(Error::Malformed("content-length beside transfer-encoding")),
        (true, None) if version < Version::HTTP_11 => {
            Err(Error::Malformed("transfer-encoding in HTTP/1.0"))
        }
        (true, None) => Ok(Framing::Chunked),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::UntilClose),
    }
}

/// What `content-length` says; the same said twice is said once.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let text = value.to_str().unwrap_or_default();
        for part in text.split(',').map(str::trim) {
            let length = part
                .parse()
                .ok()
                .filter(|_| part.bytes().all(|octet| octet.is_ascii_digit()))
                .ok_or(Error::Malformed("a content-length that is no number"))?;
            if found.is_some_and(|other: u64| other != length) {
                return Err(Error::Malformed("content-lengths that differ"));
            }
            found = Some(length);
        }
    }
    Ok(found)
}

fn say_once(length: u64, headers: &mut HeaderMap) {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let is_list = |value: &HeaderValue| value.as_bytes().contains(&b',');
    if values.next().is_some_and(is_list) || values.next().is_some() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Whether `transfer-encoding` is `chunked`, which is the only coding that is read.
fn is_chunked(headers: &HeaderMap) -> Result<bool, Error> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Error::Malformed("a transfer-encoding other than chunked")),
    }
}

/// Whether the connection may be used again after this response (RFC 9112 §9.3). `asked` is the request's version.
pub(crate) fn persists(
    asked: Version,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> bool {
    // It cannot have a body; what says so may send one all the same.
    let declares = |name| headers.get(name).is_some_and(|value| value != "0");
    if status == StatusCode::NO_CONTENT && (declares(CONTENT_LENGTH) || declares(TRANSFER_ENCODING))
    {
        return false;
    }
    let says = |token: &str| {
        let values = headers.get_all(CONNECTION).iter();
        let mut tokens = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','));
        tokens.any(|other| other.trim().eq_ignore_ascii_case(token))
    };
    if version.min(asked) >= Version::HTTP_11 {
        !says("close")
    } else {
        says("keep-alive") && !says("close")
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        use Framing::{Chunked, Length, UntilClose};
        let length = ("content-length", "5");
        let chunked = ("transfer-encoding", "chunked");
        type Row = (
            &'static str,
            u16,
            Version,
            Vec<(&'static str, &'static str)>,
            Option<Framing>,
        );
        let table: Vec<Row> = vec![
            ("GET", 200, Version::HTTP_11, vec![length], Some(Length(5))),
            (
                "GET",
                200,
                Version::HTTP_11,
                vec![length, length],
                Some(Length(5)),
            ),
            (
                "GET",
                200,
                Version::HTTP_11,
                vec![("content-length", "5, 5")],
                Some(Length(5)),
            ),
            ("GET", 200, Version::HTTP_11, vec![chunked], Some(Chunked)),
            ("GET", 200, Version::HTTP_11, vec![], Some(UntilClose)),
            ("GET", 200, Version::HTTP_10, vec![], Some(UntilClose)),
            ("HEAD", 200, Version::HTTP_11, vec![length], Some(Length(0))),
            ("GET", 204, Version::HTTP_11, vec![], Some(Length(0))),
            ("GET", 304, Version::HTTP_11, vec![length], Some(Length(0))),
            ("GET", 200, Version::HTTP_11, vec![length, chunked], None),
            ("GET", 200, Version::HTTP_10, vec![chunked], None),
            (
                "GET",
                200,
                Version::HTTP_11,
                vec![length, ("content-length", "6")],
                None,
            ),
            (
                "GET",
                200,
                Version::HTTP_11,
                vec![("content-length", "+5")],
                None,
            ),
            (
                "GET",
                200,
                Version::HTTP_11,
                vec![("content-length", "")],
                None,
            ),
            (
                "GET",
                200,
                Version::HTTP_11,
                vec![("content-length", "18446744073709551616")],
                None,
            ),
            (
                "GET",
                200,
                Version::HTTP_11,
                vec![("transfer-encoding", "gzip, chunked")],
                None,
            ),
            ("GET", 200, Version::HTTP_11, vec![chunked, chunked], None),
            (
                "HEAD",
                200,
                Version::HTTP_11,
                vec![("content-length", "x")],
                None,
            ),
        ];
        for (method, status, version, fields, expected) in table {
            let method: Method = method.parse().expect("a method");
            let status = StatusCode::from_u16(status).expect("a status");
            let mut headers = headers(&fields);
            let found = of_response(&method, status, version, &mut headers);
            assert_eq!(found.ok(), expected, "{method} {status} {fields:?}");
            let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
            let is_sure = lengths.is_empty() || lengths == ["5"];
            assert!(is_sure || expected.is_none(), "{lengths:?}");
        }
    }

    #[test]
    fn a_connection_persists_unless_somebody_says_otherwise() {
        const OLD: Version = Version::HTTP_10;
        const NEW: Version = Version::HTTP_11;
        type Row = (
            Version,
            u16,
            Version,
            &'static [(&'static str, &'static str)],
            bool,
        );
        let table: [Row; 11] = [
            (NEW, 200, NEW, &[], true),
            (NEW, 200, NEW, &[("connection", "close")], false),
            (NEW, 200, NEW, &[("connection", "x, Close")], false),
            (
                NEW,
                200,
                NEW,
                &[("connection", "x"), ("connection", "close")],
                false,
            ),
            (NEW, 200, OLD, &[], false),
            (NEW, 200, OLD, &[("connection", "Keep-Alive")], true),
            (NEW, 200, OLD, &[("connection", "keep-alive, close")], false),
            (OLD, 200, NEW, &[], false),
            (OLD, 200, NEW, &[("connection", "keep-alive")], true),
            (NEW, 204, NEW, &[("content-length", "0")], true),
            (NEW, 204, NEW, &[("content-length", "5")], false),
        ];
        for (asked, status, version, fields, expected) in table {
            let status = StatusCode::from_u16(status).expect("a status");
            let found = persists(asked, status, version, &headers(fields));
            assert_eq!(found, expected, "{asked:?} {status} {version:?} {fields:?}");
        }
    }
}
