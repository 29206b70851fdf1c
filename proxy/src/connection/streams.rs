//! Opaque bytes from the application to a service: by the TLSRoute or TCPRoute
//! attached to the port, else straight to its endpoints. A ClientHello is
//! looked at where a route asks for its server name, and passes unopened.

use std::rc::Rc;
use std::sync::Arc;

use selvage_policy::flag::Flag;
use selvage_policy::route::{StreamRoute, stream};
use selvage_policy::sniff::{Sniffed, sniff};
use tokio::net::TcpStream;

use super::log::ConnectionLog;
use super::prefixed::Prefixed;
use super::serve::{opaque, opaque_by};
use super::{DETECT_TIMEOUT, Rest};
use crate::forward::Abort;
use crate::request::Downstream;
use crate::upstream::Destination;
use crate::worker::Worker;

/// Serves one connection; `None` where no route takes it.
pub(super) async fn to_service(
    worker: Rc<Worker>,
    stream: Prefixed<TcpStream>,
    downstream: Downstream,
    destination: Option<Rc<Destination>>,
) -> Option<Rest> {
    let Some(destination) = destination.filter(|it| !it.port.streams.is_empty()) else {
        return Some(opaque(worker, stream, downstream));
    };
    let routes = &destination.port.streams;
    let (route, stream) = if routes.iter().any(|route| route.tls) {
        let (hello, stream) = stream.hello(DETECT_TIMEOUT).await?;
        let is_tls = sniff(stream.prefix()) == Sniffed::Tls;
        (choose(routes, hello.server_name.as_deref(), is_tls), stream)
    } else {
        (choose(routes, None, false), stream)
    };
    if let Some(route) = route {
        return Some(opaque_by(worker, stream, downstream, route));
    }
    tracing::debug!(
        destination = &*destination.label,
        "no route takes the connection"
    );
    destination.tcp.open(worker.index).set_flag(Flag::NoRoute);
    let mut log = ConnectionLog::begin(&worker, &downstream);
    log.goes_to(&destination);
    log.ends(Some(Flag::NoRoute));
    stream.abort();
    None
}

/// A TLSRoute takes TLS alone, whatever its hostnames.
fn choose(
    routes: &[Arc<StreamRoute>],
    server_name: Option<&str>,
    is_tls: bool,
) -> Option<Arc<StreamRoute>> {
    if is_tls {
        return stream(routes, server_name).cloned();
    }
    routes.iter().find(|route| !route.tls).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvage_policy::route::Hostname;

    fn route(label: &str, tls: bool, host: Option<&str>) -> Arc<StreamRoute> {
        Arc::new(StreamRoute {
            label: label.into(),
            hostnames: host
                .map(|host| Hostname::Exact(host.into()))
                .into_iter()
                .collect(),
            tls,
            backends: Vec::new(),
        })
    }

    #[test]
    fn what_is_no_tls_meets_no_tls_route() {
        let tls = [
            route("any", true, None),
            route("one", true, Some("one.example")),
        ];
        let label = |routes: &[Arc<StreamRoute>], name, is_tls| {
            choose(routes, name, is_tls).map(|route| route.label.to_string())
        };
        assert_eq!(
            label(&tls, Some("one.example"), true).as_deref(),
            Some("one")
        );
        assert_eq!(
            label(&tls, Some("two.example"), true).as_deref(),
            Some("any")
        );
        assert_eq!(label(&tls, None, true).as_deref(), Some("any"));
        assert_eq!(label(&tls, None, false), None);
        assert_eq!(
            label(&[route("tcp", false, None)], None, false).as_deref(),
            Some("tcp")
        );
    }
}
