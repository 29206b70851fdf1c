//! `backendRefs`: where a rule leads. Refuses to know whether it is there, and
//! whether it is granted.

use serde::Deserialize;

use super::MAX_NAME_BYTES;
use crate::config::Checker;
use crate::resource::service::MAX_WEIGHT;
use crate::resource::{ServiceName, check_dns_label, is_dns_label};

/// Backends of one rule, as in Gateway API.
pub const MAX_BACKENDS: usize = 16;

/// What a backend refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct BackendObjectRef {
    /// Its group: the core group or `selvage.dev` where it is a service.
    pub group: Option<String>,
    /// `Service` if left out. Others are taken, and cannot be used.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// The route's own if left out.
    pub namespace: Option<String>,
    /// Its port. A service needs one.
    pub port: Option<u16>,
}

/// A backend of a TLSRoute or TCPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StreamBackendRef {
    group: Option<String>,
    kind: Option<String>,
    name: String,
    namespace: Option<String>,
    port: Option<u16>,
    #[serde(default = "one")]
    weight: u32,
}

/// A backend of an HTTPRoute or GRPCRoute.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct HttpBackendRef<F> {
    group: Option<String>,
    kind: Option<String>,
    name: String,
    namespace: Option<String>,
    port: Option<u16>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default = "Vec::new")]
    filters: Vec<F>,
}

fn one() -> u32 {
    1
}

/// A backend with its share.
pub(crate) trait Backend {
    /// What it refers to.
    fn object(&self) -> BackendObjectRef;
    /// Its share; 0 takes none.
    fn weight(&self) -> u32;
}

macro_rules! backend {
    ($([$($parameter:ident)?] $type:ty;)*) => {$(
        impl<$($parameter)?> $type {
            /// What it refers to.
            #[must_use]
            pub fn object(&self) -> BackendObjectRef {
                BackendObjectRef {
                    group: self.group.clone(),
                    kind: self.kind.clone(),
                    name: self.name.clone(),
                    namespace: self.namespace.clone(),
                    port: self.port,
                }
            }

            /// Its share; 0 takes none.
            #[must_use]
            pub const fn weight(&self) -> u32 {
                self.weight
            }
        }

        impl<$($parameter)?> Backend for $type {
            fn object(&self) -> BackendObjectRef {
                self.object()
            }

            fn weight(&self) -> u32 {
                self.weight
            }
        }
    )*};
}

backend! {
    [] StreamBackendRef;
    [F] HttpBackendRef<F>;
}

impl<F> HttpBackendRef<F> {
    /// What is done to requests that go there, and to their responses.
    #[must_use]
    pub fn filters(&self) -> &[F] {
        &self.filters
    }
}

impl BackendObjectRef {
    /// The service meant, seen from the route's namespace; `None`: it is something else.
    #[must_use]
    pub fn service(&self, own_namespace: &str) -> Option<ServiceName> {
        let namespace = self.namespace.as_deref().unwrap_or(own_namespace);
        self.is_service()
            .then(|| ServiceName::new(namespace, &self.name))
    }

    /// The kind it says it is of, with its group, for people.
    #[must_use]
    pub fn shown_kind(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or("Service");
        match self.group.as_deref() {
            None | Some("") => kind.to_owned(),
            Some(group) => format!("{kind}.{group}"),
        }
    }

    fn is_service(&self) -> bool {
        let group = self.group.as_deref().unwrap_or_default();
        self.kind.as_deref().is_none_or(|kind| kind == "Service")
            && ["", "core", "selvage.dev"].contains(&group)
    }

    pub(crate) fn check(&self, path: &str, check: &mut Checker<'_>) {
        let name = format!("{path}.name");
        if self.is_service() {
            check_dns_label(check, name, &self.name);
            check.require(
                self.port.is_some(),
                path,
                "the key `port` is missing: a service is reached at one of its ports",
            );
        } else {
            let fits = (1..=MAX_NAME_BYTES).contains(&self.name.len());
            check.require(fits, name, format!("expected 1 to {MAX_NAME_BYTES} bytes"));
        }
        check.require(
            self.port != Some(0),
            format!("{path}.port"),
            "expected a port from 1 to 65535, found `0`",
        );
        if let Some(namespace) = &self.namespace {
            check_dns_label(check, format!("{path}.namespace"), namespace);
        }
        if let Some(kind) = &self.kind {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            check.require(
                (1..=63).contains(&kind.len()) && kind.bytes().all(allowed),
                format!("{path}.kind"),
                format!("expected the name of a kind, found `{kind}`"),
            );
        }
        if let Some(group) = &self.group {
            check.require(
                group.len() <= MAX_NAME_BYTES
                    && (group.is_empty() || group.split('.').all(is_dns_label)),
                format!("{path}.group"),
                format!("expected the name of a group, found `{group}`"),
            );
        }
    }
}

/// Checks the backends of a rule, `least` to [`MAX_BACKENDS`]. One may be given
/// twice: its shares add up.
pub(crate) fn check_backends<B: Backend>(
    backends: &[B],
    least: usize,
    rule: &str,
    check: &mut Checker<'_>,
) {
    let path = format!("{rule}.backendRefs");
    let count = backends.len();
    check.require(
        (least..=MAX_BACKENDS).contains(&count),
        path.as_str(),
        format!("expected {least} to {MAX_BACKENDS} backends, found {count}"),
    );
    for (index, backend) in backends.iter().enumerate() {
        let path = format!("{path}[{index}]");
        backend.object().check(&path, check);
        check.require(
            backend.weight() <= MAX_WEIGHT,
            format!("{path}.weight"),
            format!(
                "expected a weight from 0 to {MAX_WEIGHT}, found `{}`",
                backend.weight()
            ),
        );
    }
}
