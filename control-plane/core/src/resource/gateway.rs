//! `Gateway`: where traffic enters the mesh, listener by listener. Refuses to
//! know other resources: which routes attach, and which certificates are there.

mod listener;
mod tls;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::NotSupportedYet;
use crate::config::Checker;
pub use listener::{
    AllowedRoutes, From, Listener, ListenerProtocol, Namespaces, RouteGroupKind, Selector,
};
pub use tls::{CertificateRef, CertificateSource, ListenerTls, TlsMode};

/// Listeners of one gateway, as in Gateway API.
pub const MAX_LISTENERS: usize = 64;

/// Longest name of a class.
const MAX_CLASS_BYTES: usize = 253;

/// `spec` of a `Gateway`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Free text: a gateway is served by the proxies that name it, whatever its class.
    pub gateway_class_name: String,
    /// Where it listens, and for what.
    pub listeners: Vec<Listener>,
    #[serde(rename = "addresses")]
    _addresses: Option<Refused>,
    #[serde(rename = "infrastructure")]
    _infrastructure: Option<Refused>,
    #[serde(rename = "backendTLS")]
    _backend_tls: Option<Refused>,
    #[serde(rename = "allowedListeners")]
    _allowed_listeners: Option<Refused>,
    #[serde(rename = "tls")]
    _tls: Option<Refused>,
}

/// [`NotSupportedYet`], never made and so always equal.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refused(#[allow(dead_code, reason = "refuses by its type")] NotSupportedYet);

impl PartialEq for Refused {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl GatewaySpec {
    pub(crate) fn check(&self, _own_namespace: &str, check: &mut Checker<'_>) {
        let class = self.gateway_class_name.len();
        check.require(
            (1..=MAX_CLASS_BYTES).contains(&class),
            "spec.gatewayClassName",
            format!("expected a name of 1 to {MAX_CLASS_BYTES} bytes"),
        );
        let count = self.listeners.len();
        check.require(
            (1..=MAX_LISTENERS).contains(&count),
            "spec.listeners",
            format!("expected 1 to {MAX_LISTENERS} listeners, found {count}"),
        );
        let mut names = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            let path = format!("spec.listeners[{index}]");
            listener.check(&path, check);
            if let Some(first) = names.insert(&listener.name, index) {
                let message = format!(
                    "the listener `{}` is given twice: also at spec.listeners[{first}]",
                    listener.name
                );
                check.error(format!("{path}.name"), message);
            }
            let place = (listener.port, listener.protocol, &listener.hostname);
            if let Some(first) = places.insert(place, index) {
                let message = format!(
                    "spec.listeners[{first}] has the same port, protocol and hostname: one connection cannot mean both"
                );
                check.error(path, message);
            }
        }
    }
}
