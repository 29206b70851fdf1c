//! What filters change of a head: header fields, the path and the host.
//!
//! Meets the request after its rule, and its backend, are chosen, and the
//! response on its way out. It edits what it is given; whether a filter may
//! touch a field at all is asked once, when routes are compiled
//! ([`HeaderEdits::protected`]), not per request.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, Uri};

use super::{HeaderEdits, PathEdit, Rewrite};
use crate::headers::{is_hop_by_hop, is_untrusted};

/// Whether filters must leave a field alone: it is about the connection or the
/// message's framing, or Selvage's own. `host` is changed by a rewrite instead.
#[must_use]
pub fn is_protected(name: &HeaderName) -> bool {
    is_hop_by_hop(name) || is_untrusted(name) || *name == HOST || *name == CONTENT_LENGTH
}

impl HeaderEdits {
    /// Sets, adds, removes, in this order.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// The first field it names that [`is_protected`].
    #[must_use]
    pub fn protected(&self) -> Option<&HeaderName> {
        let given = self.set.iter().chain(&self.add).map(|(name, _)| name);
        given.chain(&self.remove).find(|name| is_protected(name))
    }
}

impl PathEdit {
    /// The path instead of `path`, of which `prefix` matched. Where no prefix
    /// matched there is nothing to replace, and `path` stays.
    #[must_use]
    pub fn of<'p>(&'p self, path: &'p str, prefix: Option<&str>) -> Cow<'p, str> {
        match self {
            Self::Full(whole) => rooted(whole),
            Self::Prefix(replacement) => {
                let prefix = prefix.map(|prefix| prefix.strip_suffix('/').unwrap_or(prefix));
                let Some(rest) = prefix.and_then(|prefix| path.strip_prefix(prefix)) else {
                    return Cow::Borrowed(path);
                };
                // A slash at its end is not meant: the rest has its own.
                let replacement = replacement.strip_suffix('/').unwrap_or(replacement);
                match (replacement, rest) {
                    ("", rest) => rooted(rest),
                    (replacement, "") => rooted(replacement),
                    (replacement, rest) => Cow::Owned(format!("{}{rest}", rooted(replacement))),
                }
            }
        }
    }
}

fn rooted(path: &str) -> Cow<'_, str> {
    match path {
        "" => Cow::Borrowed("/"),
        path if path.starts_with('/') => Cow::Borrowed(path),
        path => Cow::Owned(format!("/{path}")),
    }
}

/// Path and query as one; the query stays as it was sent.
pub(super) fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

impl Rewrite {
    /// The target instead of `uri`'s, of whose path `prefix` matched; `None`: it
    /// stays. A path that no request may have changes nothing.
    #[must_use]
    pub fn target(&self, uri: &Uri, prefix: Option<&str>) -> Option<PathAndQuery> {
        let edit = self.path.as_ref()?;
        if uri.path() == "*" {
            return None;
        }
        let path = edit.of(uri.path(), prefix);
        PathAndQuery::try_from(with_query(&path, uri.query())).ok()
    }

    /// The authority instead of the request's, without a port; `None`: it stays.
    #[must_use]
    pub fn authority(&self) -> Option<Authority> {
        Authority::try_from(self.hostname.as_deref()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> HeaderName {
        HeaderName::try_from(text).expect("a name")
    }

    fn pairs(fields: &[(&str, &'static str)]) -> Vec<(HeaderName, HeaderValue)> {
        let pair =
            |(key, value): &(&str, &'static str)| (name(key), HeaderValue::from_static(value));
        fields.iter().map(pair).collect()
    }

    #[test]
    fn sets_adds_and_removes_in_this_order() {
        let edits = HeaderEdits {
            set: pairs(&[("x-set", "new"), ("x-both", "1")]),
            add: pairs(&[("x-add", "2"), ("x-both", "2"), ("x-gone", "2")]),
            remove: vec![name("x-gone"), name("x-never")],
        };
        let mut headers = HeaderMap::new();
        for (key, value) in pairs(&[
            ("x-set", "a"),
            ("x-set", "b"),
            ("x-add", "1"),
            ("x-gone", "1"),
        ]) {
            headers.append(key, value);
        }
        edits.apply(&mut headers);
        let all = |key: &str| headers.get_all(key).iter().collect::<Vec<_>>();
        assert_eq!(all("x-set"), ["new"]);
        assert_eq!(all("x-add"), ["1", "2"]);
        assert_eq!(all("x-both"), ["1", "2"]);
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn what_is_not_a_filters_is_named() {
        for bad in [
            "host",
            "connection",
            "te",
            "content-length",
            "x-selvage-flag",
            "x_selvage_flag",
            "x-forwarded-client-cert",
        ] {
            for at in 0..3 {
                let mut edits = HeaderEdits {
                    set: pairs(&[("x-a", "1")]),
                    ..HeaderEdits::default()
                };
                match at {
                    0 => edits.set.extend(pairs(&[(bad, "1")])),
                    1 => edits.add.extend(pairs(&[(bad, "1")])),
                    _ => edits.remove.push(name(bad)),
                }
                assert_eq!(edits.protected(), Some(&name(bad)));
            }
        }
        let fine = HeaderEdits {
            set: pairs(&[("x-forwarded-proto", "https")]),
            add: pairs(&[("cookie", "a=b")]),
            remove: vec![name("authorization")],
        };
        assert_eq!(fine.protected(), None);
    }

    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        let table = [
            // path, prefix, replacement, expected
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo", "/foo", "/xyz/", "/xyz"),
            ("/foo//bar", "/foo", "/xyz", "/xyz//bar"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
            ("/", "/", "/xyz", "/xyz/"),
            ("/foo", "/", "", "/foo"),
            ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
        ];
        for (path, prefix, replacement, expected) in table {
            let edit = PathEdit::Prefix(replacement.into());
            assert_eq!(
                edit.of(path, Some(prefix)),
                expected,
                "{path} {prefix} {replacement}"
            );
            assert_eq!(edit.of(path, None), path, "no prefix matched");
        }
        for (whole, expected) in [
            ("/one", "/one"),
            ("", "/"),
            ("one", "/one"),
            ("/one/", "/one/"),
        ] {
            assert_eq!(
                PathEdit::Full(whole.into()).of("/a/b", Some("/a")),
                expected
            );
        }
    }

    #[test]
    fn a_rewrite_keeps_the_query() {
        let rewrite = Rewrite {
            hostname: Some("one.example".into()),
            path: Some(PathEdit::Prefix("/v2".into())),
        };
        let table = [
            ("/v1/a?x=/v1&y", Some("/v2/a?x=/v1&y")),
            ("http://shop/v1?", Some("/v2?")),
            ("/v1", Some("/v2")),
            ("*", None),
        ];
        for (uri, expected) in table {
            let target = rewrite.target(&Uri::from_static(uri), Some("/v1"));
            assert_eq!(target.as_ref().map(PathAndQuery::as_str), expected, "{uri}");
        }
        assert_eq!(rewrite.authority().expect("a host"), "one.example");
        let neither = Rewrite {
            hostname: None,
            path: None,
        };
        assert_eq!(neither.target(&Uri::from_static("/a"), Some("/a")), None);
        assert_eq!(neither.authority(), None);
        let broken = Rewrite {
            hostname: Some("a b".into()),
            path: Some(PathEdit::Full("/a b".into())),
        };
        assert_eq!(broken.target(&Uri::from_static("/a"), None), None);
        assert_eq!(broken.authority(), None);
    }

    proptest! {
        #[test]
        fn a_replaced_path_is_absolute_and_ends_as_it_did(
            segments in proptest::collection::vec("[a-z%2]{0,3}", 0..4),
            prefix in "(/[a-z]{1,3}){0,3}/?",
            replacement in "/?([a-z]{0,3}/?){0,3}",
        ) {
            let rest: String = segments.iter().map(|segment| format!("/{segment}")).collect();
            let cut = prefix.strip_suffix('/').unwrap_or(&prefix);
            let path = format!("{cut}{rest}");
            let edit = PathEdit::Prefix(replacement.as_str().into());
            let edited = edit.of(&path, Some(&prefix)).into_owned();
            prop_assert!(edited.starts_with('/'));
            prop_assert!(edited.ends_with(&rest), "{edited} of {rest}");
            let whole = format!("{edited}?");
            prop_assert!(edited.contains('%') || Uri::try_from(whole).is_ok());
        }

        #[test]
        fn no_path_and_no_prefix_panic(path in "\\PC{0,20}", prefix in "\\PC{0,8}", replacement in "\\PC{0,8}") {
            for edit in [PathEdit::Prefix(replacement.as_str().into()), PathEdit::Full(replacement.as_str().into())] {
                let _ = edit.of(&path, Some(&prefix));
                let rewrite = Rewrite { hostname: Some(replacement.as_str().into()), path: Some(edit) };
                let _ = rewrite.authority();
                if let Ok(uri) = Uri::try_from(path.as_str()) {
                    let _ = rewrite.target(&uri, Some(&prefix));
                }
            }
        }
    }
}
