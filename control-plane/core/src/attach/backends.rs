//! What the backends of routes lead to, or why they lead nowhere. Stands
//! between the routes and the views. Refuses to know weights.

use super::grants::{GATEWAY_GROUP, granted};
use super::services::{Ports, Services};
use crate::resource::route::BackendObjectRef;
use crate::resource::service::Protocol;
use crate::resource::{ResourceKind, ServiceName};

/// Who refers to a backend.
#[derive(Debug, Clone, Copy)]
pub struct Referrer<'r> {
    /// The kind of the route.
    pub kind: ResourceKind,
    /// Its namespace.
    pub namespace: &'r str,
    /// The service it is attached to, if that is a service: it needs no grant
    /// for what is beside that.
    pub parent: Option<&'r ServiceName>,
}

/// A port of a service that is there and may be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolved {
    /// The service.
    pub service: ServiceName,
    /// Its port; `None`: the only one.
    pub port: Option<u16>,
}

/// Why a backend cannot be used, in the terms of Gateway API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// Why, as a word.
    pub reason: &'static str,
    /// Why, as a sentence.
    pub message: String,
}

/// The port of the service a reference means.
///
/// # Errors
/// It is of another kind, not granted, not there, has no such port, or speaks
/// something else there.
pub fn resolve(
    services: Services<'_>,
    referrer: Referrer<'_>,
    object: &BackendObjectRef,
) -> Result<Resolved, Unresolved> {
    let refuse = |reason, message| Err(Unresolved { reason, message });
    let Some(service) = object.service(referrer.namespace) else {
        let message = format!("a backend is a Service, not a {}", object.shown_kind());
        return refuse("InvalidKind", message);
    };
    let beside_parent = referrer
        .parent
        .is_some_and(|parent| parent.namespace == service.namespace);
    let permitted = beside_parent
        || granted(
            services.world,
            GATEWAY_GROUP,
            referrer.kind.as_str(),
            referrer.namespace,
            ResourceKind::Service,
            &service.namespace,
            &service.name,
        );
    if !permitted {
        let message = format!(
            "no ReferenceGrant in namespace `{}` lets a {} of namespace `{}` refer to the service {service}",
            service.namespace, referrer.kind, referrer.namespace
        );
        return refuse("RefNotPermitted", message);
    }
    let Some(ports) = services.ports(&service) else {
        return refuse("BackendNotFound", format!("there is no service {service}"));
    };
    if let (Ports::Known(ports), Some(number)) = (&ports, object.port) {
        let Some(port) = ports.get(&number) else {
            let message = format!("the service {service} has no port {number}");
            return refuse("BackendNotFound", message);
        };
        let is_http = matches!(
            referrer.kind,
            ResourceKind::HttpRoute | ResourceKind::GrpcRoute
        );
        if is_http && port.protocol == Protocol::Tcp {
            let message = format!("port {number} of the service {service} does not speak HTTP");
            return refuse("UnsupportedProtocol", message);
        }
    }
    Ok(Resolved {
        service,
        port: object.port,
    })
}
