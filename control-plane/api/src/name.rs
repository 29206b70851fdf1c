//! Names of resources. The first thing either half looks at in a message, and
//! the key of everything they remember. Knows the form of a name, not whether
//! anything of that name exists.

use crate::v1::{ResourceName, ResourceType};

/// The longest name of a resource, in bytes. Twice a DNS name: room for a
/// namespace, a slash and a name.
pub const MAX_NAME_BYTES: usize = 512;

/// How many names one stream may be subscribed to at a time.
pub const MAX_SUBSCRIPTIONS: usize = 4096;

/// A name that neither half accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The number of its type is unknown to this version, or unspecified.
    #[error("resource type {0} is not known")]
    UnknownType(i32),
    /// Empty, or longer than [`MAX_NAME_BYTES`].
    #[error("a resource name has 1 to {MAX_NAME_BYTES} bytes, not {0}")]
    Length(usize),
}

/// The name of the workload resource of `namespace/workload`.
pub fn workload(namespace: &str, workload: &str) -> ResourceName {
    of(ResourceType::Workload, format!("{namespace}/{workload}"))
}

/// The name of the service `namespace/service`.
pub fn service(namespace: &str, service: &str) -> ResourceName {
    of(ResourceType::Service, format!("{namespace}/{service}"))
}

/// The name of the trust bundle of a trust domain.
pub fn trust_bundle(trust_domain: &str) -> ResourceName {
    of(ResourceType::TrustBundle, trust_domain.to_owned())
}

/// The name of the gateway `namespace/name`.
pub fn gateway(namespace: &str, name: &str) -> ResourceName {
    of(ResourceType::Gateway, format!("{namespace}/{name}"))
}

fn of(kind: ResourceType, name: String) -> ResourceName {
    ResourceName {
        r#type: kind.into(),
        name,
    }
}

/// Splits `namespace/name`; `None` where there is not exactly one slash with
/// something on both sides.
pub fn split(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.split_once('/')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then_some((namespace, name))
}

/// Checks type and length of a name that came over the wire.
///
/// # Errors
/// The type is not known, or the length is out of bounds.
pub fn check(name: &ResourceName) -> Result<ResourceType, InvalidName> {
    let kind = match ResourceType::try_from(name.r#type) {
        Ok(ResourceType::Unspecified) | Err(_) => {
            return Err(InvalidName::UnknownType(name.r#type));
        }
        Ok(kind) => kind,
    };
    match name.name.len() {
        1..=MAX_NAME_BYTES => Ok(kind),
        length => Err(InvalidName::Length(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_known_type_and_a_bounded_length() {
        assert_eq!(
            check(&service("shop", "ratings")),
            Ok(ResourceType::Service)
        );
        assert_eq!(
            check(&ResourceName::default()),
            Err(InvalidName::UnknownType(0))
        );
        assert_eq!(
            check(&ResourceName {
                r#type: 99,
                name: "a".into()
            }),
            Err(InvalidName::UnknownType(99))
        );
        assert_eq!(check(&trust_bundle("")), Err(InvalidName::Length(0)));
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        assert_eq!(check(&trust_bundle(&long)), Err(InvalidName::Length(513)));
    }

    #[test]
    fn split_wants_exactly_two_parts() {
        assert_eq!(split("shop/ratings"), Some(("shop", "ratings")));
        for bad in ["", "/", "shop", "shop/", "/ratings", "a/b/c"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
