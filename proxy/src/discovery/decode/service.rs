//! A service with its ports, and the endpoints that serve each of them. What
//! its traffic is promised stands in [`super::traffic`]; who is healthy is taken as said.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use selvage_api::v1;
use selvage_certs::SpiffeId;
use selvage_policy::snapshot::{
    Endpoint, EndpointKey, Protocol, Service, ServiceName, ServicePort,
};

use super::route::Attached;
use super::traffic::traffic_policy;
use super::{InvalidResource, absent, invalid};

pub(super) fn decode_service(message: &v1::Service) -> Result<Service, InvalidResource> {
    let v1::Service {
        namespace,
        name,
        ports,
        endpoints,
        policy,
        http_routes,
        stream_routes,
    } = message;
    let service = ServiceName::new(namespace, name);
    let policy = policy.as_ref().ok_or_else(|| absent("policy"))?;
    let attached = Attached::decode(http_routes, stream_routes)?;
    let mut decoded = Vec::with_capacity(ports.len());
    for message in ports {
        let v1::ServicePort {
            port,
            target_port,
            protocol: _,
        } = message;
        let port = port_number("port", *port)?;
        let target = port_number("target_port", *target_port)?;
        let mut serving = Vec::new();
        for endpoint in endpoints {
            if let Some(endpoint) = decode_endpoint(endpoint, &service, port, target)? {
                serving.push(Arc::new(endpoint));
            }
        }
        serving.sort_by(|a, b| a.key.cmp(&b.key));
        // Two of one key would be one endpoint with one state.
        serving.dedup_by(|a, b| a.key == b.key);
        decoded.push(Arc::new(ServicePort {
            service: service.clone(),
            port,
            protocol: protocol(message.protocol())?,
            endpoints: serving,
            routes: attached.routes(port),
            streams: attached.streams(port),
        }));
    }
    decoded.sort_by_key(|port| port.port);
    Ok(Service {
        name: service,
        ports: decoded,
        policy: Arc::new(traffic_policy(policy)?),
    })
}

pub(super) fn port_number(field: &str, number: u32) -> Result<u16, InvalidResource> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| invalid(field, format!("{number} is not a port")))
}

fn protocol(protocol: v1::Protocol) -> Result<Protocol, InvalidResource> {
    match protocol {
        v1::Protocol::Detect => Ok(Protocol::Detect),
        v1::Protocol::Http => Ok(Protocol::Http),
        v1::Protocol::Http2 => Ok(Protocol::Http2),
        v1::Protocol::Grpc => Ok(Protocol::Grpc),
        v1::Protocol::Tcp => Ok(Protocol::Tcp),
        v1::Protocol::Unspecified => Err(absent("protocol")),
    }
}

/// The endpoint as it serves this port; `None` where it does not.
fn decode_endpoint(
    message: &v1::Endpoint,
    service: &ServiceName,
    service_port: u16,
    target_port: u16,
) -> Result<Option<Endpoint>, InvalidResource> {
    let v1::Endpoint {
        id,
        address,
        port,
        identity,
        weight,
        labels,
        ports,
    } = message;
    let healthy = if ports.is_empty() {
        true
    } else {
        let serves = |serving: &&v1::EndpointPort| serving.port == u32::from(service_port);
        match ports.iter().find(serves) {
            None => return Ok(None),
            Some(serving) => match serving.health() {
                v1::Health::Healthy => true,
                v1::Health::Unhealthy => false,
                v1::Health::Unspecified => return Err(absent("endpoint.health")),
            },
        }
    };
    let ip: IpAddr = address
        .parse()
        .map_err(|error| invalid("endpoint.address", error))?;
    let port = if *port == 0 {
        target_port
    } else {
        port_number("endpoint.port", *port)?
    };
    let identity = match identity.as_str() {
        "" => None,
        text => Some(SpiffeId::parse(text).map_err(|error| invalid("endpoint.identity", error))?),
    };
    Ok(Some(Endpoint {
        key: EndpointKey {
            service: service.clone(),
            port: service_port,
            address: SocketAddr::new(ip, port),
            identity,
        },
        id: id.as_str().into(),
        weight: *weight,
        labels: labels.clone(),
        healthy,
    }))
}
