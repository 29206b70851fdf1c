//! What a proxy serves as a gateway: its listeners, and what is attached to
//! each. That certificates parse is seen to where they are used.

use std::sync::Arc;

use selvage_api::v1;
use selvage_policy::route::{Certificate, Gateway, Listener, ListenerProtocol, RouteTable};

use super::route::{Policies, hostname, http_route, stream_route};
use super::service::port_number;
use super::{InvalidResource, absent, invalid};

pub(super) fn gateway(message: &v1::Gateway) -> Result<Gateway, InvalidResource> {
    let v1::Gateway {
        namespace,
        name,
        listeners,
    } = message;
    let mut policies = Policies::default();
    let listeners = listeners.iter().map(|message| {
        listener(message, &mut policies)
            .map(Arc::new)
            .map_err(|error| {
                let field = format!("listener {}: {}", message.name, error.field);
                invalid(field, error.reason)
            })
    });
    Ok(Gateway {
        name: format!("{namespace}/{name}").into(),
        listeners: listeners.collect::<Result<_, _>>()?,
    })
}

fn listener(message: &v1::Listener, policies: &mut Policies) -> Result<Listener, InvalidResource> {
    let v1::Listener {
        name,
        port,
        protocol: _,
        hostname: host,
        passthrough,
        certificates,
        http_routes,
        stream_routes,
    } = message;
    let protocol = match (message.protocol(), *passthrough) {
        (v1::ListenerProtocol::Http, false) => ListenerProtocol::Http,
        (v1::ListenerProtocol::Https, false) => ListenerProtocol::Https,
        (v1::ListenerProtocol::Tls, false) => ListenerProtocol::Tls,
        (v1::ListenerProtocol::Tls, true) => ListenerProtocol::Passthrough,
        (v1::ListenerProtocol::Tcp, false) => ListenerProtocol::Tcp,
        (v1::ListenerProtocol::Unspecified, _) => return Err(absent("protocol")),
        (_, true) => return Err(invalid("passthrough", "only TLS passes unopened")),
    };
    let routes = http_routes
        .iter()
        .map(|message| http_route(message, policies))
        .collect::<Result<Vec<_>, _>>()?;
    let streams = stream_routes
        .iter()
        .map(|message| stream_route(message, policies))
        .collect::<Result<_, _>>()?;
    Ok(Listener {
        name: name.as_str().into(),
        port: port_number("port", *port)?,
        protocol,
        hostname: match host.as_str() {
            "" => None,
            host => Some(hostname(host)?),
        },
        certificates: certificates
            .iter()
            .map(certificate)
            .collect::<Result<_, _>>()?,
        routes: Arc::new(RouteTable::new(&routes)),
        streams,
    })
}

fn certificate(message: &v1::Certificate) -> Result<Certificate, InvalidResource> {
    use v1::certificate::From;
    let v1::Certificate { from } = message;
    Ok(match from.as_ref().ok_or_else(|| absent("certificate"))? {
        From::Pair(v1::KeyPair { chain, key }) => Certificate::Pair {
            chain: chain.as_slice().into(),
            key: key.as_slice().into(),
        },
        From::Files(v1::CertificateFiles { certificate, key }) => Certificate::Files {
            certificate: certificate.as_str().into(),
            key: key.as_str().into(),
        },
        From::Mesh(_) => Certificate::Mesh,
    })
}
