//! Paths of routes: what can be one, and the form in which they are compared.
//! Refuses to know what they are compared with.

/// Why a text is no path that a request could have, nor one to send it with.
pub(crate) fn never_a_path(path: &str, max_bytes: usize) -> Option<String> {
    if path.len() > max_bytes {
        return Some(format!("expected at most {max_bytes} bytes"));
    }
    if !path.starts_with('/') {
        return Some(format!(
            "expected a path that starts with `/`, found `{path}`"
        ));
    }
    if let Some(part) = ["//", "%2f", "%2F"]
        .into_iter()
        .find(|part| path.contains(part))
    {
        return Some(format!("a path here holds no `{part}`"));
    }
    if path
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return Some("paths are compared with `.` and `..` resolved".to_owned());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    if let Some(other) = path.chars().find(|c| !u8::try_from(*c).is_ok_and(allowed)) {
        let help =
            "as it stands in a request: no query, no fragment, no characters that need encoding";
        return Some(format!(
            "expected a path {help}; found `{}`",
            other.escape_debug()
        ));
    }
    let mut escapes = path
        .match_indices('%')
        .map(|(at, _)| path.get(at + 1..at + 3));
    // Not by parsing a number: that would take a sign.
    let hexadecimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    escapes
        .any(|digits| !digits.is_some_and(hexadecimal))
        .then(|| "`%` stands before two hexadecimal digits".to_owned())
}

/// The form in which the paths of requests are compared: unreserved characters
/// stand decoded, other encodings in upper case (RFC 3986, 6.2.2).
pub(crate) fn canonical(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        out.push_str(before);
        let (escape, after) = encoded.split_at_checked(3).unwrap_or((encoded, ""));
        let byte = u8::from_str_radix(escape.get(1..).unwrap_or_default(), 16);
        match byte {
            Ok(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => out.push(b.into()),
            _ => out.push_str(&escape.to_ascii_uppercase()),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_request_can_have_is_no_path() {
        for path in [
            "/", "/v1", "/v1/", "/a%20b", "/a;b=c", "/@x:y", "/a.b..c", "/...",
        ] {
            assert_eq!(never_a_path(path, 1024), None, "{path}");
        }
        for path in [
            "", "v1", "//", "/a//b", "/./a", "/a/..", "/a/.", "/a%2fb", "/a%2Fb", "/a#b", "/a?b",
            "/a b", "/a%", "/a%2", "/a%zz", "/é", "/a%+1",
        ] {
            assert!(never_a_path(path, 1024).is_some(), "{path}");
        }
        assert!(never_a_path(&format!("/{}", "a".repeat(1024)), 1024).is_some());
    }

    #[test]
    fn unreserved_characters_stand_decoded() {
        for (path, expected) in [
            ("/a", "/a"),
            ("/%41%7e", "/A~"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/%20/b", "/%20/b"),
        ] {
            assert_eq!(canonical(path), expected);
        }
    }
}
