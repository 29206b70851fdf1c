//! Who somebody is: trust domains and SPIFFE ids, parsed strictly by the SPIFFE specification.
//!
//! Every certificate, verifier and authorization rule of the mesh speaks of these two types. They
//! know nothing of certificates, and nothing is ever normalised: what is not in the one canonical
//! form is refused, so that two ids are the same exactly when their bytes are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest trust domain in bytes (SPIFFE-ID, section 2.1).
pub const TRUST_DOMAIN_BYTES: usize = 255;
/// Longest whole id in bytes (SPIFFE-ID, section 2.3).
pub const SPIFFE_ID_BYTES: usize = 2048;

const SCHEME: &str = "spiffe://";
const CONTROL_PLANE_NAMESPACE: &str = "selvage-system";
const CONTROL_PLANE_ACCOUNT: &str = "control-plane";

/// Why a text is not a trust domain or not a SPIFFE id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// The text does not begin with `spiffe://` in lower case.
    #[error("must begin with `spiffe://`")]
    Scheme,
    /// The trust domain is empty.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// The trust domain has a byte outside `a-z 0-9 . - _` (so also a port or user info).
    #[error("the trust domain may only hold a-z, 0-9, `.`, `-` and `_`")]
    TrustDomainCharacter,
    /// The trust domain, or the whole id, is too long.
    #[error("too long: at most 255 bytes of trust domain and 2048 bytes in all")]
    TooLong,
    /// A path segment is empty: `//`, or a slash at the end.
    #[error("a path segment is empty, or the path ends with `/`")]
    EmptySegment,
    /// A path segment is `.` or `..`.
    #[error("`.` and `..` are no path segments")]
    DotSegment,
    /// A path segment has a byte outside `a-z A-Z 0-9 . - _` (so also a query or fragment).
    #[error("a path segment may only hold a-z, A-Z, 0-9, `.`, `-` and `_`")]
    SegmentCharacter,
}

/// A trust domain such as `mesh.local`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses the bare name, without a scheme.
    pub fn parse(text: &str) -> Result<Self, InvalidSpiffeId> {
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }

    /// The bare name, as in `mesh.local`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE id such as `spiffe://mesh.local/ns/shop/sa/ratings`. Cheap to clone; compared whole.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    whole: Arc<str>,
    /// Where the path begins: the length of the scheme and the trust domain.
    path_at: u16,
}

impl SpiffeId {
    /// Parses a whole id. An id without a path (that of the trust domain itself) is accepted here;
    /// a leaf certificate may not carry one.
    pub fn parse(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.len() > SPIFFE_ID_BYTES {
            return Err(InvalidSpiffeId::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidSpiffeId::Scheme)?;
        let domain_length = rest.find('/').unwrap_or(rest.len());
        check_trust_domain(&rest[..domain_length])?;
        let path = &rest[domain_length..];
        if let Some(segments) = path.strip_prefix('/') {
            segments.split('/').try_for_each(check_segment)?;
        }
        Ok(Self {
            whole: text.into(),
            path_at: path_offset(domain_length),
        })
    }

    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn of_service_account(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        check_segment(namespace)?;
        check_segment(service_account)?;
        Self::parse(&format!(
            "{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"
        ))
    }

    /// The control plane's own id, `spiffe://<trust domain>/ns/selvage-system/sa/control-plane`:
    /// demanded by every proxy, never issued to a workload.
    pub fn of_control_plane(trust_domain: &TrustDomain) -> Self {
        let path = format!("/ns/{CONTROL_PLANE_NAMESPACE}/sa/{CONTROL_PLANE_ACCOUNT}");
        Self::with_path(trust_domain, &path)
    }

    /// The id of the trust domain itself, which has no path: the subject of its root certificate.
    pub fn of_trust_domain(trust_domain: &TrustDomain) -> Self {
        Self::with_path(trust_domain, "")
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// The trust domain, as an owned value. [`SpiffeId::is_in`] compares without allocating.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_str().into())
    }

    /// Whether this id belongs to `trust_domain`.
    pub fn is_in(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain_str() == trust_domain.as_str()
    }

    /// Whether this is the control plane's own id in its trust domain.
    pub fn is_control_plane(&self) -> bool {
        self.account() == Some((CONTROL_PLANE_NAMESPACE, CONTROL_PLANE_ACCOUNT))
    }

    /// The path with its leading slash, or the empty string.
    pub fn path(&self) -> &str {
        &self.whole[usize::from(self.path_at)..]
    }

    /// The namespace, only of an id whose path is exactly `/ns/X/sa/Y`.
    pub fn namespace(&self) -> Option<&str> {
        self.account().map(|(namespace, _)| namespace)
    }

    /// The service account, only of an id whose path is exactly `/ns/X/sa/Y`.
    pub fn service_account(&self) -> Option<&str> {
        self.account().map(|(_, account)| account)
    }

    fn trust_domain_str(&self) -> &str {
        &self.whole[SCHEME.len()..usize::from(self.path_at)]
    }

    fn account(&self) -> Option<(&str, &str)> {
        let (namespace, rest) = self.path().strip_prefix("/ns/")?.split_once('/')?;
        let account = rest.strip_prefix("sa/")?;
        (!account.contains('/')).then_some((namespace, account))
    }

    /// `path` must be empty or well formed: only for the constants of this module.
    fn with_path(trust_domain: &TrustDomain, path: &str) -> Self {
        let whole = format!("{SCHEME}{trust_domain}{path}").into();
        Self {
            whole,
            path_at: path_offset(trust_domain.as_str().len()),
        }
    }
}

fn path_offset(domain_length: usize) -> u16 {
    u16::try_from(SCHEME.len() + domain_length).expect("a trust domain is at most 255 bytes long")
}

fn check_trust_domain(text: &str) -> Result<(), InvalidSpiffeId> {
    if text.is_empty() {
        return Err(InvalidSpiffeId::EmptyTrustDomain);
    }
    if text.len() > TRUST_DOMAIN_BYTES {
        return Err(InvalidSpiffeId::TooLong);
    }
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if !text.bytes().all(allowed) {
        return Err(InvalidSpiffeId::TrustDomainCharacter);
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), InvalidSpiffeId> {
    match segment {
        "" => return Err(InvalidSpiffeId::EmptySegment),
        "." | ".." => return Err(InvalidSpiffeId::DotSegment),
        _ => {}
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if !segment.bytes().all(allowed) {
        return Err(InvalidSpiffeId::SegmentCharacter);
    }
    Ok(())
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("mesh.local").expect("a valid trust domain")
    }

    #[test]
    fn canonical_ids_are_accepted_and_taken_apart() {
        let table = [
            ("spiffe://mesh.local", "", None),
            (
                "spiffe://mesh.local/ns/shop/sa/ratings",
                "/ns/shop/sa/ratings",
                Some(("shop", "ratings")),
            ),
            (
                "spiffe://mesh.local/ns/shop/sa/ratings/x",
                "/ns/shop/sa/ratings/x",
                None,
            ),
            (
                "spiffe://mesh.local/sa/ratings/ns/shop",
                "/sa/ratings/ns/shop",
                None,
            ),
            ("spiffe://mesh.local/ns/shop", "/ns/shop", None),
            ("spiffe://a_b-c.1/X/Y.z/-_", "/X/Y.z/-_", None),
            ("spiffe://m/...", "/...", None),
        ];
        for (text, path, account) in table {
            let id = SpiffeId::parse(text).expect(text);
            assert_eq!(id.path(), path, "{text}");
            assert_eq!(id.namespace().zip(id.service_account()), account, "{text}");
            assert_eq!(id.to_string(), text);
            assert!(id.is_in(&id.trust_domain()), "{text}");
        }
    }

    #[test]
    fn anything_not_canonical_is_refused() {
        use InvalidSpiffeId as E;
        let table = [
            ("", E::Scheme),
            ("spiffe:/mesh.local/a", E::Scheme),
            ("SPIFFE://mesh.local/a", E::Scheme),
            ("https://mesh.local/a", E::Scheme),
            (" spiffe://mesh.local/a", E::Scheme),
            ("spiffe://", E::EmptyTrustDomain),
            ("spiffe:///a", E::EmptyTrustDomain),
            ("spiffe://Mesh.local/a", E::TrustDomainCharacter),
            ("spiffe://mesh.local:443/a", E::TrustDomainCharacter),
            ("spiffe://user@mesh.local/a", E::TrustDomainCharacter),
            ("spiffe://mesh%2elocal/a", E::TrustDomainCharacter),
            ("spiffe://mesh.local?q", E::TrustDomainCharacter),
            ("spiffe://mesh.local#f", E::TrustDomainCharacter),
            ("spiffe://mésh/a", E::TrustDomainCharacter),
            ("spiffe://mesh.local/", E::EmptySegment),
            ("spiffe://mesh.local/a/", E::EmptySegment),
            ("spiffe://mesh.local//a", E::EmptySegment),
            ("spiffe://mesh.local/./a", E::DotSegment),
            ("spiffe://mesh.local/a/..", E::DotSegment),
            ("spiffe://mesh.local/a%20b", E::SegmentCharacter),
            ("spiffe://mesh.local/a b", E::SegmentCharacter),
            ("spiffe://mesh.local/a?q=1", E::SegmentCharacter),
            ("spiffe://mesh.local/a#f", E::SegmentCharacter),
            ("spiffe://mesh.local/a\0", E::SegmentCharacter),
            ("spiffe://mesh.local/ä", E::SegmentCharacter),
        ];
        for (text, error) in table {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
        assert_eq!(
            TrustDomain::parse(&"a".repeat(256)),
            Err(InvalidSpiffeId::TooLong)
        );
        let longest = format!("spiffe://m/{}", "a".repeat(SPIFFE_ID_BYTES - 11));
        assert!(SpiffeId::parse(&longest).is_ok());
        assert_eq!(
            SpiffeId::parse(&format!("{longest}a")),
            Err(InvalidSpiffeId::TooLong)
        );
    }

    #[test]
    fn names_cannot_smuggle_segments() {
        for name in ["", "a/b", "..", "a?b", "a b"] {
            assert!(
                SpiffeId::of_service_account(&domain(), name, "x").is_err(),
                "{name}"
            );
            assert!(
                SpiffeId::of_service_account(&domain(), "x", name).is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn the_control_plane_is_known_by_its_whole_path() {
        let own = SpiffeId::of_control_plane(&domain());
        assert_eq!(
            own.as_str(),
            "spiffe://mesh.local/ns/selvage-system/sa/control-plane"
        );
        assert_eq!(SpiffeId::parse(own.as_str()), Ok(own.clone()));
        assert!(own.is_control_plane());
        let other = SpiffeId::parse("spiffe://mesh.local/ns/selvage-system/sa/control-plane/x");
        assert!(!other.expect("a valid id").is_control_plane());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_round_trips(text in "\\PC{0,80}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn near_misses_never_panic_and_round_trip(text in "spiffe://[a-zA-Z0-9._:@%-]{0,12}(/[a-zA-Z0-9._?#%-]{0,4}){0,5}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), &text);
                let again = format!("spiffe://{}{}", id.trust_domain(), id.path());
                prop_assert_eq!(again, text);
            }
        }

        #[test]
        fn a_service_account_comes_back_as_it_went_in(namespace in "[a-z0-9-]{1,20}", account in "[a-zA-Z0-9_-]{1,20}") {
            let id = SpiffeId::of_service_account(&domain(), &namespace, &account).expect("valid names");
            prop_assert_eq!(id.namespace(), Some(namespace.as_str()));
            prop_assert_eq!(id.service_account(), Some(account.as_str()));
        }
    }
}
