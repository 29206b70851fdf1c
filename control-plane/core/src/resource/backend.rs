//! References to services that requests are sent to beside their own, and the
//! headers of such requests and answers. Refuses to know whether they are there.

use serde::Deserialize;

use super::{ServiceName, check_dns_label};
use crate::config::Checker;

/// A service, and its port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BackendRef {
    /// Its name.
    pub name: String,
    /// Its namespace; the referrer's if left out.
    pub namespace: Option<String>,
    /// Its port; the only one if left out, else the one an authority without a port means.
    pub port: Option<u16>,
}

impl BackendRef {
    /// The service meant, seen from the referrer's namespace.
    #[must_use]
    pub fn service(&self, own_namespace: &str) -> ServiceName {
        ServiceName::new(
            self.namespace.as_deref().unwrap_or(own_namespace),
            &self.name,
        )
    }

    /// The same with its namespace spelt out.
    #[must_use]
    pub fn within(&self, own_namespace: &str) -> Self {
        let namespace = self.namespace.clone();
        Self {
            namespace: namespace.or_else(|| Some(own_namespace.to_owned())),
            ..self.clone()
        }
    }

    pub(crate) fn check(&self, path: &str, check: &mut Checker<'_>) {
        check_dns_label(check, format!("{path}.name"), &self.name);
        if let Some(namespace) = &self.namespace {
            check_dns_label(check, format!("{path}.namespace"), namespace);
        }
        check.require(
            self.port != Some(0),
            format!("{path}.port"),
            "expected a port from 1 to 65535, found `0`",
        );
    }
}

/// A header, compared or sent as it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// Its name, in whatever case.
    pub name: String,
    /// Its value, whole.
    pub value: String,
}

/// Headers of one answer, or of one match.
pub const MAX_HEADERS: usize = 16;
/// Bytes of one value.
const MAX_VALUE_BYTES: usize = 4096;

/// Reports names and values that are none (RFC 9110, 5.1 and 5.5), and too many of them.
pub(crate) fn check_headers(headers: &[Header], path: &str, check: &mut Checker<'_>) {
    let count = headers.len();
    check.require(
        count <= MAX_HEADERS,
        path,
        format!("expected at most {MAX_HEADERS} headers, found {count}"),
    );
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    for (index, Header { name, value }) in headers.iter().enumerate() {
        check.require(
            !name.is_empty() && name.len() <= 256 && name.bytes().all(token),
            format!("{path}[{index}].name"),
            format!("expected the name of a header, found `{name}`"),
        );
        let is_text = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        check.require(
            is_text && value.trim() == value && value.len() <= MAX_VALUE_BYTES,
            format!("{path}[{index}].value"),
            format!("expected at most {MAX_VALUE_BYTES} visible ASCII characters, without spaces around them"),
        );
    }
}
