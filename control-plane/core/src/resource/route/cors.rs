//! `cors`: which scripts of other origins may call. Refuses to know how a
//! browser asks.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::header::is_header_name;
use super::is_dns_name;
use super::matching::METHODS;
use crate::config::Checker;
use crate::nearest::nearest;

/// Entries of one list but that of methods, as in Gateway API.
const MAX_ENTRIES: usize = 64;
/// Bytes of one origin.
const MAX_ORIGIN_BYTES: usize = 253;
/// What `maxAge` is if left out.
pub(crate) const DEFAULT_MAX_AGE: u32 = 5;

/// The CORS protocol, as a rule speaks it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cors {
    /// `*`, or origins; a host may begin with `*.`, or be `*`.
    pub allow_origins: Vec<String>,
    /// Whether credentials go along.
    pub allow_credentials: bool,
    /// `*`, or methods.
    pub allow_methods: Vec<String>,
    /// `*`, or headers of requests.
    pub allow_headers: Vec<String>,
    /// `*`, or headers of responses.
    pub expose_headers: Vec<String>,
    /// How long an answer to a preflight may be kept, in seconds.
    pub max_age: Option<u32>,
}

impl Cors {
    pub(crate) fn check(&self, path: &str, check: &mut Checker<'_>) {
        check.require(
            self.max_age != Some(0),
            format!("{path}.maxAge"),
            "expected at least 1 (seconds), found `0`",
        );
        let lists = [
            ("allowOrigins", &self.allow_origins, MAX_ENTRIES),
            ("allowMethods", &self.allow_methods, METHODS.len()),
            ("allowHeaders", &self.allow_headers, MAX_ENTRIES),
            ("exposeHeaders", &self.expose_headers, MAX_ENTRIES),
        ];
        for (key, list, most) in lists {
            let path = format!("{path}.{key}");
            let count = list.len();
            check.require(
                count <= most,
                path.as_str(),
                format!("expected at most {most} entries, found {count}"),
            );
            let all = list.iter().position(|entry| entry == "*");
            if let Some(index) = all
                && count > 1
                && key != "exposeHeaders"
            {
                check.error(format!("{path}[{index}]"), "`*` stands alone");
            }
            let mut seen = BTreeSet::new();
            for (index, entry) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if !seen.insert(entry.to_ascii_lowercase()) {
                    check.error(path, format!("`{entry}` is given twice"));
                } else if entry != "*" {
                    check_entry(key, entry, path, check);
                }
            }
        }
    }
}

fn check_entry(key: &str, entry: &str, path: String, check: &mut Checker<'_>) {
    match key {
        "allowOrigins" => check.require(
            is_origin(entry),
            path,
            format!(
                "expected `*` or an origin such as `https://*.example.com:8443`, found `{entry}`"
            ),
        ),
        "allowMethods" => {
            if !METHODS.contains(&entry) {
                let near = nearest(entry, METHODS).unwrap_or("GET");
                let message = format!("expected an HTTP method, found `{entry}`");
                check.error_with_help(path, message, format!("did you mean `{near}`?"));
            }
        }
        _ => check.require(
            is_header_name(entry),
            path,
            format!("expected the name of a header, found `{entry}`"),
        ),
    }
}

/// `http` or `https`, a host (whole, `*`, or `*.` before one), and perhaps a port.
fn is_origin(text: &str) -> bool {
    let rest = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let Some(rest) = rest.filter(|_| text.len() <= MAX_ORIGIN_BYTES) else {
        return false;
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let digits = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let is_port = |port: &str| digits(port) && port.parse().is_ok_and(|port: u16| port > 0);
    let name = host.strip_prefix("*.").unwrap_or(host).to_ascii_lowercase();
    (host == "*" || is_dns_name(&name)) && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn origins_are_scheme_host_and_port() {
        for text in [
            "https://www.foo.com",
            "http://*.foo.com:8080",
            "https://*",
            "https://*:8443",
            "http://localhost:3000",
            "http://10.0.0.1",
        ] {
            assert!(is_origin(text), "{text}");
        }
        for text in [
            "",
            "foo.com",
            "ftp://foo.com",
            "https://",
            "https://a.*.com",
            "https://foo.com/",
            "https://foo.com:0",
            "https://foo.com:x",
            "https://foo.com:99999",
            "https://u@foo.com",
        ] {
            assert!(!is_origin(text), "{text}");
        }
    }
}
