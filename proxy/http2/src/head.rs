//! Heads: from fields to a request, a response or trailers, with what RFC 9113
//! §8 says of each, and back.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, Version, request, response};

use crate::hpack::{Encoder, Field, Pseudo};

/// A head that is this many times larger than it may be is not read to its end.
const BEYOND: usize = 16;
/// Fields that a head has room for before its map grows.
const FIELDS: usize = 12;

/// What is wrong with a head.
pub(crate) type Fault = &'static str;

/// A head as its fields come.
#[derive(Debug)]
pub(crate) struct Reading {
    pseudo: [Option<Bytes>; 6],
    headers: HeaderMap,
    size: usize,
    limit: usize,
    /// The length that the head promises.
    length: Option<u64>,
    /// Whether a field was seen that is no pseudo field.
    regular: bool,
    /// Whether the sender waits to be told to go on (RFC 9110 §10.1.1).
    expects_continue: bool,
    fault: Option<Fault>,
}

/// A request, and what its head says of its body.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) parts: request::Parts,
    /// Octets.
    pub(crate) length: Option<u64>,
    /// Whether the body comes once its sender is told to go on.
    pub(crate) waits: bool,
}

impl Reading {
    /// `limit`: of its size as RFC 9113 §6.5.2 counts it.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            pseudo: Default::default(),
            headers: HeaderMap::with_capacity(FIELDS),
            size: 0,
            limit,
            length: None,
            regular: false,
            expects_continue: false,
            fault: None,
        }
    }

    /// Takes in a field; `false`: no more of them.
    pub(crate) fn take(&mut self, field: Field) -> bool {
        self.size += field.size();
        if self.is_too_large() {
            return self.size <= self.limit.saturating_mul(BEYOND);
        }
        let taken = match field {
            Field::Pseudo(which, value) => self.pseudo(which, value),
            Field::Header(name, value) => self.header(name, value),
            Field::Malformed(..) => Err("a field that no message has"),
        };
        if let Err(fault) = taken {
            self.fault.get_or_insert(fault);
        }
        true
    }

    /// Whether it is larger than it may be: what it says is not known then.
    pub(crate) const fn is_too_large(&self) -> bool {
        self.size > self.limit
    }

    fn pseudo(&mut self, which: Pseudo, value: Bytes) -> Result<(), Fault> {
        if self.regular {
            return Err("a pseudo field behind the others");
        }
        match self.pseudo[which as usize].replace(value) {
            None => Ok(()),
            Some(_) => Err("a pseudo field twice"),
        }
    }

    fn header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Fault> {
        self.regular = true;
        if is_of_connection(&name) {
            return Err("a field of HTTP/1 connections");
        }
        let space = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
        if space(value.as_bytes().first()) || space(value.as_bytes().last()) {
            return Err("a value between spaces");
        }
        if name == header::EXPECT {
            self.expects_continue = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        }
        if name == header::TE && value != "trailers" {
            return Err("te other than trailers");
        }
        if name == header::CONTENT_LENGTH {
            self.content_length(&value)?;
        }
        match self.headers.try_append(name, value) {
            Ok(_) => Ok(()),
            Err(_) => Err("too many fields"),
        }
    }

    fn content_length(&mut self, value: &HeaderValue) -> Result<(), Fault> {
        let digits = value.as_bytes();
        let length = std::str::from_utf8(digits)
            .ok()
            .filter(|_| digits.iter().all(u8::is_ascii_digit))
            .and_then(|text| text.parse().ok());
        match (length, self.length) {
            (None, _) => Err("a content-length that is no number"),
            (Some(length), Some(other)) if length != other => Err("content-lengths that differ"),
            (Some(length), _) => {
                self.length = Some(length);
                Ok(())
            }
        }
    }

    fn took(&mut self, which: Pseudo) -> Option<Bytes> {
        self.pseudo[which as usize].take()
    }

    /// As a request (§8.3.1).
    pub(crate) fn request(mut self, authorities: &mut Authorities) -> Result<Asked, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.took(Pseudo::Status).is_some() {
            return Err(":status in a request");
        }
        if self.took(Pseudo::Protocol).is_some() {
            return Err(":protocol, which was not offered");
        }
        let method = self.took(Pseudo::Method).ok_or("no :method")?;
        let method = Method::from_bytes(&method).map_err(|_| "a :method that is no token")?;
        let scheme = self.took(Pseudo::Scheme);
        let authority = self.took(Pseudo::Authority);
        let path = self.took(Pseudo::Path);
        let uri = if method == Method::CONNECT {
            if scheme.is_some() || path.is_some() {
                return Err("CONNECT with :scheme or :path");
            }
            let authority = authority.ok_or("CONNECT without :authority")?;
            Uri::from(authorities.parse(&authority)?)
        } else {
            let scheme = scheme.ok_or("no :scheme")?;
            let path = path.ok_or("no :path")?;
            target(&method, &scheme, authority, path, authorities)?
        };
        let mut parts = request::Request::new(()).into_parts().0;
        parts.method = method;
        parts.uri = uri;
        parts.version = Version::HTTP_2;
        parts.headers = self.headers;
        Ok(Asked {
            parts,
            length: self.length,
            waits: self.expects_continue,
        })
    }

    /// As a response, with the length that it promises (§8.3.2).
    pub(crate) fn response(mut self) -> Result<(response::Parts, Option<u64>), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let status = self.took(Pseudo::Status).ok_or("no :status")?;
        if self.pseudo.iter().any(Option::is_some) {
            return Err("a pseudo field of requests in a response");
        }
        let status = StatusCode::from_bytes(&status).map_err(|_| "a :status that is none")?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err("101, which HTTP/2 does not have");
        }
        let mut parts = response::Response::new(()).into_parts().0;
        parts.status = status;
        parts.version = Version::HTTP_2;
        parts.headers = self.headers;
        Ok((parts, self.length))
    }

    /// As trailers (§8.1).
    pub(crate) fn trailers(self) -> Result<HeaderMap, Fault> {
        if self.pseudo.iter().any(Option::is_some) {
            return Err("a pseudo field in trailers");
        }
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.headers),
        }
    }
}

/// Fields of RFC 9113 §8.2.2.
fn is_of_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn target(
    method: &Method,
    scheme: &Bytes,
    authority: Option<Bytes>,
    path: Bytes,
    authorities: &mut Authorities,
) -> Result<Uri, Fault> {
    let is_star = *method == Method::OPTIONS && path == "*";
    if path.first() != Some(&b'/') && !is_star {
        return Err("a :path that is none");
    }
    let path = PathAndQuery::from_maybe_shared(path).map_err(|_| "a :path that is none")?;
    let scheme = match &scheme[..] {
        b"http" => Scheme::HTTP,
        b"https" => Scheme::HTTPS,
        b"" => return Err("an empty :scheme"),
        other => Scheme::try_from(other).map_err(|_| "a :scheme that is none")?,
    };
    // Without an authority a URI has no room for the scheme; `host` says the rest.
    let Some(authority) = authority else {
        return Ok(Uri::from(path));
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authorities.parse(&authority)?);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| "a target that is none")
}

/// The authority that was last seen: most requests of a connection have the same.
#[derive(Debug, Default)]
pub(crate) struct Authorities {
    last: Option<Authority>,
}

impl Authorities {
    fn parse(&mut self, bytes: &Bytes) -> Result<Authority, Fault> {
        if let Some(last) = &self.last
            && last.as_str().as_bytes() == &bytes[..]
        {
            return Ok(last.clone());
        }
        // User information is not sent (§8.3.1). A copy, lest it hold a whole buffer.
        if bytes.contains(&b'@') {
            return Err("an :authority with user information");
        }
        let authority =
            Authority::try_from(&bytes[..]).map_err(|_| "an :authority that is none")?;
        self.last = Some(authority.clone());
        Ok(authority)
    }
}

/// Writes the fields of a request.
pub(crate) fn write_request(parts: &request::Parts, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let uri = &parts.uri;
    encoder.pseudo(Pseudo::Method, parts.method.as_str().as_bytes(), out);
    let authority = uri.authority().map(Authority::as_str);
    if parts.method == Method::CONNECT {
        encoder.pseudo(
            Pseudo::Authority,
            authority.unwrap_or_default().as_bytes(),
            out,
        );
    } else {
        let scheme = uri.scheme_str().unwrap_or("http");
        encoder.pseudo(Pseudo::Scheme, scheme.as_bytes(), out);
        if let Some(authority) = authority {
            encoder.pseudo(Pseudo::Authority, authority.as_bytes(), out);
        }
        encoder.pseudo(Pseudo::Path, path(parts).as_bytes(), out);
    }
    write_headers(&parts.headers, encoder, out);
}

fn path(parts: &request::Parts) -> &str {
    match parts.uri.path_and_query().map_or("", PathAndQuery::as_str) {
        "" if parts.method == Method::OPTIONS => "*",
        "" => "/",
        path => path,
    }
}

/// Writes the fields of a response.
pub(crate) fn write_response(parts: &response::Parts, encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.pseudo(Pseudo::Status, parts.status.as_str().as_bytes(), out);
    write_headers(&parts.headers, encoder, out);
}

/// Writes fields that are no pseudo fields.
pub(crate) fn write_headers(headers: &HeaderMap, encoder: &mut Encoder, out: &mut Vec<u8>) {
    for (name, value) in headers {
        // RFC 9113 §8.2.2: whoever still has one would make a message of it that is none.
        if !is_of_connection(name) {
            encoder.header(name, value, out);
        }
    }
}

#[cfg(test)]
mod tests;
