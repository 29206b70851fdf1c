//! The one canonical form of a path: matching, authorization and forwarding
//! all use it, so that no two of them can be made to see different paths.
//!
//! Meets a request after its headers are sane and before anything looks at
//! where it goes. It knows paths without their query, and nothing of requests.
//!
//! The form is RFC 3986 §6.2.2: unreserved characters stand decoded, other
//! percent-encodings in upper case, bytes outside ASCII encoded, `.` and `..`
//! resolved. A path that climbs above the root is refused rather than clamped:
//! what clamps differently behind us would see another path.

use std::borrow::Cow;

/// Why a path has no canonical form; the answer is `bad-request`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Neither begins with `/` nor is `*`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// `..` climbs above the root.
    #[error("the path climbs above the root")]
    AboveRoot,
    /// `%` without two hexadecimal digits.
    #[error("the path has a percent sign without two hexadecimal digits")]
    Encoding,
    /// Space, a control character, `?` or `#`.
    #[error("the path has a byte that no path may hold")]
    Byte,
    /// `%2F`, `%5C`, `\` or `;`, which servers read differently, where the path is authorized.
    #[error("the path has an encoded slash, a backslash or a semicolon where paths are authorized")]
    Ambiguous,
}

/// The canonical form of `path` (without its query). Borrowed when it is canonical already.
///
/// # Errors
/// See [`InvalidPath`].
pub fn canonical(path: &str) -> Result<Cow<'_, str>, InvalidPath> {
    canonical_form(path, false)
}

/// The canonical form where a path takes part in authorization: moreover `//`
/// is merged, and what servers read differently is refused.
///
/// # Errors
/// See [`InvalidPath`].
pub fn canonical_for_authorization(path: &str) -> Result<Cow<'_, str>, InvalidPath> {
    canonical_form(path, true)
}

fn canonical_form(path: &str, strict: bool) -> Result<Cow<'_, str>, InvalidPath> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(InvalidPath::NotAbsolute);
    }
    if is_plain(path.as_bytes(), strict) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path, strict)?;
    let resolved = resolve(&decoded, strict)?;
    Ok(if resolved == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(resolved)
    })
}

/// Whether a path is surely canonical: the test that most paths pass, in one pass.
fn is_plain(bytes: &[u8], strict: bool) -> bool {
    let mut previous = 0;
    bytes.iter().all(|&byte| {
        let plain = match byte {
            b'%' | b'?' | b'#' | b'\\' | b';' => false,
            b'.' => previous != b'/',
            b'/' => !strict || previous != b'/',
            _ => byte.is_ascii_graphic(),
        };
        previous = byte;
        plain
    })
}

/// Decodes unreserved characters and encodes what is not ASCII.
fn decode(path: &str, strict: bool) -> Result<String, InvalidPath> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = bytes
                    .next()
                    .and_then(hexadecimal)
                    .ok_or(InvalidPath::Encoding)?;
                let low = bytes
                    .next()
                    .and_then(hexadecimal)
                    .ok_or(InvalidPath::Encoding)?;
                let value = high << 4 | low;
                if is_unreserved(value) {
                    out.push(char::from(value));
                } else if strict && matches!(value, b'/' | b'\\') {
                    return Err(InvalidPath::Ambiguous);
                } else {
                    push_encoded(&mut out, value);
                }
            }
            b';' | b'\\' if strict => return Err(InvalidPath::Ambiguous),
            b'?' | b'#' => return Err(InvalidPath::Byte),
            0x21..=0x7e => out.push(char::from(byte)),
            0x80.. => push_encoded(&mut out, byte),
            _ => return Err(InvalidPath::Byte),
        }
    }
    Ok(out)
}

/// RFC 3986 §5.2.4, but above the root is an error. `strict` merges empty
/// segments, after `..` has taken its one segment.
fn resolve(path: &str, strict: bool) -> Result<String, InvalidPath> {
    let mut segments = Vec::new();
    let mut ends_in_slash = false;
    for segment in path[1..].split('/') {
        ends_in_slash = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop().ok_or(InvalidPath::AboveRoot)?;
            }
            _ => segments.push(segment),
        }
    }
    let last = segments.len().saturating_sub(1);
    let mut out = String::with_capacity(path.len());
    for (at, segment) in segments.iter().enumerate() {
        let merged = strict && segment.is_empty() && (at != last || ends_in_slash);
        if !merged {
            out.push('/');
            out.push_str(segment);
        }
    }
    if (ends_in_slash || out.is_empty()) && !(strict && out.ends_with('/')) {
        out.push('/');
    }
    Ok(out)
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hexadecimal(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

fn push_encoded(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_form_for_routing() {
        let table: &[(&str, Result<&str, InvalidPath>)] = &[
            ("/", Ok("/")),
            ("*", Ok("*")),
            ("/v1/orders", Ok("/v1/orders")),
            ("/%76%31", Ok("/v1")),
            ("/a/./b", Ok("/a/b")),
            ("/a/../b", Ok("/b")),
            ("/a/%2e%2E/b", Ok("/b")),
            ("/a/.", Ok("/a/")),
            ("/a/..", Ok("/")),
            ("/a/b/..", Ok("/a/")),
            ("/.", Ok("/")),
            ("/.hidden", Ok("/.hidden")),
            ("/a//b", Ok("/a//b")),
            ("//", Ok("//")),
            ("/a//../b", Ok("/a/b")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a;v=1", Ok("/a;v=1")),
            ("/caf\u{e9}", Ok("/caf%C3%A9")),
            ("/caf%c3%a9", Ok("/caf%C3%A9")),
            ("/%252e", Ok("/%252e")),
            ("/..", Err(InvalidPath::AboveRoot)),
            ("/a/../../b", Err(InvalidPath::AboveRoot)),
            ("/%2e%2e/b", Err(InvalidPath::AboveRoot)),
            ("/%", Err(InvalidPath::Encoding)),
            ("/%2", Err(InvalidPath::Encoding)),
            ("/%zz", Err(InvalidPath::Encoding)),
            ("/%%32e", Err(InvalidPath::Encoding)),
            ("/a b", Err(InvalidPath::Byte)),
            ("/a\0", Err(InvalidPath::Byte)),
            ("/a#b", Err(InvalidPath::Byte)),
            ("", Err(InvalidPath::NotAbsolute)),
            ("a", Err(InvalidPath::NotAbsolute)),
            ("http://a/", Err(InvalidPath::NotAbsolute)),
        ];
        for (path, expected) in table {
            assert_eq!(canonical(path).as_deref(), expected.as_deref(), "{path:?}");
        }
    }

    #[test]
    fn stricter_where_paths_are_authorized() {
        let table: &[(&str, Result<&str, InvalidPath>)] = &[
            ("/a//b", Ok("/a/b")),
            ("//a", Ok("/a")),
            ("//", Ok("/")),
            ("/a//", Ok("/a/")),
            ("/a//.", Ok("/a/")),
            ("/a//../b", Ok("/a/b")),
            ("//..//a", Ok("/a")),
            ("/a%2Fb", Err(InvalidPath::Ambiguous)),
            ("/a%5cb", Err(InvalidPath::Ambiguous)),
            ("/a\\b", Err(InvalidPath::Ambiguous)),
            ("/a;v=1", Err(InvalidPath::Ambiguous)),
            ("/a/..;/b", Err(InvalidPath::Ambiguous)),
        ];
        for (path, expected) in table {
            let form = canonical_for_authorization(path);
            assert_eq!(form.as_deref(), expected.as_deref(), "{path:?}");
        }
    }

    #[test]
    fn what_is_canonical_is_borrowed() {
        for path in ["/", "/v1/orders/7.json", "/a%2Fb", "/a;b", "/.hidden"] {
            assert!(matches!(canonical(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #[test]
        fn idempotent_and_without_dots(path in "/([a.%/;]|%2[ef]|%5c|//|\\.\\./|\\PC){0,12}", strict: bool) {
            if let Ok(once) = canonical_form(&path, strict) {
                let twice = canonical_form(&once, strict);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(!once.split('/').any(|segment| matches!(segment, "." | "..")));
                prop_assert!(!strict || !once.contains("//"));
                prop_assert!(once.starts_with('/'));
            }
        }

        #[test]
        fn never_panics(path in "\\PC{0,60}") {
            let _ = canonical(&path);
            let _ = canonical_for_authorization(&path);
        }

        #[test]
        fn strict_accepts_no_more(path in "/[a-z.%/2ef;]{0,20}") {
            if canonical_for_authorization(&path).is_ok() {
                prop_assert!(canonical(&path).is_ok());
            }
        }
    }
}
