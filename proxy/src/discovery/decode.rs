//! From wire messages to the Snapshot: the one place where a resource becomes
//! policy. Messages are destructured whole, so that a new field breaks the
//! build here instead of vanishing; what is malformed is refused by name.

mod authorization;
mod balancer;
mod gateway;
mod health;
mod route;
mod server;
mod service;
mod traffic;

use std::collections::HashMap;
use std::sync::Arc;

use selvage_api::v1;
use selvage_certs::TrustDomain;
use selvage_policy::route::Gateway;
use selvage_policy::snapshot::{
    InboundPolicy, Mesh, MutualTls, Service, ServiceName, Snapshot, WorkloadName,
};

use self::authorization::policy;
use self::gateway::gateway;
use self::server::server_policies;
use self::service::decode_service;

/// A resource this proxy cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidResource {
    field: String,
    reason: String,
}

fn invalid(field: impl Into<String>, reason: impl std::fmt::Display) -> InvalidResource {
    InvalidResource {
        field: field.into(),
        reason: reason.to_string(),
    }
}

fn absent(field: &str) -> InvalidResource {
    invalid(field, "is missing or has an unknown value")
}

/// A refused resource, by name.
pub type Refusal = (Option<v1::ResourceName>, InvalidResource);

/// Services and gateways as they were decoded last, by version: of a push that
/// is about others they are taken over, with all their routes.
#[derive(Debug, Default)]
pub struct Known {
    services: HashMap<ServiceName, (u64, Arc<Service>)>,
    gateway: Option<(u64, Arc<Gateway>)>,
}

impl Known {
    fn service(&self, message: &v1::Service, version: u64) -> Option<Arc<Service>> {
        let name = ServiceName::new(&message.namespace, &message.name);
        let (known, service) = self.services.get(&name)?;
        (*known == version).then(|| service.clone())
    }

    fn gateway(&self, message: &v1::Gateway, version: u64) -> Option<Arc<Gateway>> {
        let (known, gateway) = self.gateway.as_ref()?;
        let name = gateway.name.split_once('/');
        let same = name == Some((&message.namespace, &message.name));
        (*known == version && same).then(|| gateway.clone())
    }
}

/// Makes a Snapshot from everything held. Needs the workload among it.
///
/// # Errors
/// Every resource that cannot be taken, with the reason; the caller goes on
/// with the Snapshot it has.
pub fn snapshot<'a>(
    workload: &WorkloadName,
    revision: u64,
    resources: impl Iterator<Item = &'a v1::Resource>,
) -> Result<Snapshot, Vec<Refusal>> {
    snapshot_beside(workload, revision, resources, &mut Known::default())
}

/// The same, beside what is known already: what has the version it had is not
/// decoded again.
///
/// # Errors
/// As [`snapshot`].
pub fn snapshot_beside<'a>(
    workload: &WorkloadName,
    revision: u64,
    resources: impl Iterator<Item = &'a v1::Resource>,
    known: &mut Known,
) -> Result<Snapshot, Vec<Refusal>> {
    let mut refused = Vec::new();
    let mut own = None;
    let mut now = Known::default();
    for resource in resources {
        let v1::Resource {
            name,
            version,
            features: _,
            body,
        } = resource;
        let result = match body {
            Some(v1::resource::Body::Workload(message)) => {
                decode_workload(message).map(|decoded| own = Some(decoded))
            }
            Some(v1::resource::Body::Service(message)) => known
                .service(message, *version)
                .map_or_else(|| decode_service(message).map(Arc::new), Ok)
                .map(|service| {
                    let name = service.name.clone();
                    now.services.insert(name, (*version, service));
                }),
            Some(v1::resource::Body::Gateway(message)) => known
                .gateway(message, *version)
                .map_or_else(|| gateway(message).map(Arc::new), Ok)
                .map(|decoded| now.gateway = Some((*version, decoded))),
            // The bundle goes to the identity, not into the Snapshot.
            Some(v1::resource::Body::TrustBundle(_)) => Ok(()),
            None => Err(absent("body")),
        };
        if let Err(error) = result {
            refused.push((name.clone(), error));
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let Some((mesh, inbound)) = own else {
        return Err(vec![(None, absent("workload"))]);
    };
    *known = now;
    let services = known.services.values();
    Ok(Snapshot {
        revision,
        workload: workload.clone(),
        mesh,
        inbound,
        services: services
            .map(|(_, service)| (service.name.clone(), service.clone()))
            .collect(),
        gateway: known.gateway.as_ref().map(|(_, it)| it.clone()),
    })
}

fn decode_workload(message: &v1::Workload) -> Result<(Mesh, InboundPolicy), InvalidResource> {
    let v1::Workload {
        trust_domain,
        mutual_tls: _,
        authorization_default: _,
        authorization,
        series_limit,
        server,
    } = message;
    let mutual_tls = match message.mutual_tls() {
        v1::MutualTls::Strict => MutualTls::Strict,
        v1::MutualTls::Permissive => MutualTls::Permissive,
        v1::MutualTls::Unspecified => return Err(absent("mutual_tls")),
    };
    let default_deny = match message.authorization_default() {
        v1::AuthorizationDefault::Allow => false,
        v1::AuthorizationDefault::Deny => true,
        v1::AuthorizationDefault::Unspecified => return Err(absent("authorization_default")),
    };
    let trust_domain =
        TrustDomain::parse(trust_domain).map_err(|error| invalid("trust_domain", error))?;
    let authorization = authorization.iter().map(policy).collect::<Result<_, _>>()?;
    Ok((
        Mesh {
            trust_domain,
            mutual_tls,
            series_limit: *series_limit as usize,
        },
        InboundPolicy {
            default_deny,
            authorization,
            server: server_policies(server)?,
        },
    ))
}

fn method(field: &str, text: &str) -> Result<http::Method, InvalidResource> {
    http::Method::from_bytes(text.as_bytes()).map_err(|error| invalid(field, error))
}

/// The trust bundle among the resources, if there is one.
pub fn trust_bundle<'a>(
    resources: impl Iterator<Item = &'a v1::Resource>,
) -> Option<&'a v1::TrustBundle> {
    resources
        .into_iter()
        .find_map(|resource| match &resource.body {
            Some(v1::resource::Body::TrustBundle(bundle)) => Some(bundle),
            _ => None,
        })
}
