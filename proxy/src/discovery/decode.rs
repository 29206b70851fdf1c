//! From wire messages to the Snapshot: the one place where a resource becomes
//! policy. Messages are destructured whole, so that a new field breaks the
//! build here instead of vanishing; what is malformed is refused by name.

mod authorization;
mod balancer;
mod health;
mod server;
mod service;
mod traffic;

use std::collections::HashMap;
use std::sync::Arc;

use selvage_api::v1;
use selvage_certs::TrustDomain;
use selvage_policy::snapshot::{InboundPolicy, Mesh, MutualTls, Snapshot, WorkloadName};

use self::authorization::policy;
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
    let mut refused = Vec::new();
    let mut own = None;
    let mut services = HashMap::new();
    for resource in resources {
        let v1::Resource {
            name,
            version: _,
            features: _,
            body,
        } = resource;
        let result = match body {
            Some(v1::resource::Body::Workload(message)) => {
                decode_workload(message).map(|decoded| own = Some(decoded))
            }
            Some(v1::resource::Body::Service(message)) => decode_service(message).map(|service| {
                services.insert(service.name.clone(), Arc::new(service));
            }),
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
    Ok(Snapshot {
        revision,
        workload: workload.clone(),
        mesh,
        inbound,
        services,
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
