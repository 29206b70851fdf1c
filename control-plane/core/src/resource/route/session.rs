//! `sessionPersistence`: a client stays with its endpoint (GEP-1619). Refuses
//! to know how a token is made.

use serde::Deserialize;

use super::header::{is_header_name, reserved};
use crate::config::Checker;
use crate::scalar::Duration;

/// Bytes of the name of a session, as in Gateway API.
const MAX_NAME_BYTES: usize = 128;
const ZERO: Duration = Duration(std::time::Duration::ZERO);

/// How a client stays with its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPersistence {
    /// The name of the cookie or the header; one of the rule's own if left out.
    pub session_name: Option<String>,
    /// Ends however much it is used.
    pub absolute_timeout: Option<Duration>,
    /// Ends unused.
    pub idle_timeout: Option<Duration>,
    /// Where its token travels.
    #[serde(rename = "type", default)]
    pub kind: SessionType,
    /// Of cookies alone.
    pub cookie_config: Option<CookieConfig>,
}

/// Where a session's token travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum SessionType {
    /// In a cookie.
    #[default]
    Cookie,
    /// In a header.
    Header,
}

/// What is particular to cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CookieConfig {
    /// How long it lives.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,
}

/// How long a cookie lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum CookieLifetime {
    /// As long as the browser's session.
    #[default]
    Session,
    /// Until `absoluteTimeout`.
    Permanent,
}

impl SessionPersistence {
    /// Whether its cookie outlives the browser's session.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.cookie_config
            .is_some_and(|config| config.lifetime_type == CookieLifetime::Permanent)
    }

    pub(crate) fn check(&self, rule: &str, check: &mut Checker<'_>) {
        let path = format!("{rule}.sessionPersistence");
        if let Some(name) = &self.session_name {
            check.require(
                is_header_name(name) && name.len() <= MAX_NAME_BYTES,
                format!("{path}.sessionName"),
                format!("expected the name of a cookie or a header, of at most {MAX_NAME_BYTES} bytes, found `{name}`"),
            );
            if let (SessionType::Header, Some(reason)) = (self.kind, reserved(name)) {
                check.error(format!("{path}.sessionName"), format!("`{name}` {reason}"));
            }
        }
        check.require(
            self.kind == SessionType::Cookie || self.cookie_config.is_none(),
            format!("{path}.cookieConfig"),
            "a session of type `Header` has no cookie",
        );
        check.require(
            !self.is_permanent() || self.absolute_timeout.is_some(),
            format!("{path}.absoluteTimeout"),
            "a permanent cookie needs an end: expected `absoluteTimeout`",
        );
        for (key, timeout) in [
            ("absoluteTimeout", self.absolute_timeout),
            ("idleTimeout", self.idle_timeout),
        ] {
            check.require(
                timeout != Some(ZERO),
                format!("{path}.{key}"),
                "expected more than 0s; leave the key out for no limit",
            );
        }
    }
}
