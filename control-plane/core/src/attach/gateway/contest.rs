//! Which of the routes that may attach to a listener do. A host is served by
//! HTTPRoutes or by GRPCRoutes, whichever came first; of TCPRoutes the oldest
//! counts; and there is a bound to them all. The hosts taken so far are kept
//! in sets, so that a route is not compared with each older one. Refuses to
//! know how routes name a listener.

use std::collections::HashSet;

use super::{AttachedRoute, MAX_LISTENER_ROUTES, kind};
use crate::resource::ResourceKind;

/// The hosts that routes of one kind have taken. What of a name begins with a
/// dot and is not all of it is one of its ends: `.b.com` and `.com` of `a.b.com`.
#[derive(Debug, Default)]
struct Hosts<'r> {
    /// Whether any route is there.
    any: bool,
    /// Whether one of them takes every host.
    every: bool,
    /// Names as they are written, with `*.` before some.
    names: HashSet<&'r str>,
    /// The ends of which all names are taken.
    wild: HashSet<&'r str>,
    /// The ends of all names.
    ends: HashSet<&'r str>,
}

impl<'r> Hosts<'r> {
    fn take(&mut self, hostnames: &'r [String]) {
        self.any = true;
        self.every |= hostnames.is_empty();
        for host in hostnames {
            if self.names.insert(host) {
                self.wild.extend(host.strip_prefix('*'));
                self.ends.extend(ends(host));
            }
        }
    }

    /// Whether some host of a route is among them, as [`super::hosts::overlap`] has it.
    fn meet(&self, hostnames: &[String]) -> bool {
        if hostnames.is_empty() || self.every {
            return self.any;
        }
        hostnames.iter().any(|host| self.has(host))
    }

    fn has(&self, host: &str) -> bool {
        let own = host.strip_prefix('*');
        self.names.contains(host)
            || ends(host).any(|end| self.wild.contains(end))
            || own.is_some_and(|end| self.ends.contains(end))
    }
}

/// The ends of a name, the longest first.
fn ends(host: &str) -> impl Iterator<Item = &str> {
    let dots = host.match_indices('.');
    dots.filter(|(at, _)| *at > 0).map(|(at, _)| &host[at..])
}

/// Those of `found`, the oldest first, that nothing keeps from the listener.
pub(super) fn settle(found: Vec<AttachedRoute<'_>>) -> Vec<AttachedRoute<'_>> {
    let taken = taken(&found);
    let pairs = found.into_iter().zip(taken);
    pairs
        .filter_map(|(route, taken)| taken.then_some(route))
        .collect()
}

fn taken(found: &[AttachedRoute<'_>]) -> Vec<bool> {
    let is = |wanted: ResourceKind| found.iter().any(|it| kind(it) == wanted);
    let both = is(ResourceKind::HttpRoute) && is(ResourceKind::GrpcRoute);
    let (mut http, mut grpc) = (Hosts::default(), Hosts::default());
    let mut has_tcp = false;
    let mut count = 0;
    let mut taken = Vec::with_capacity(found.len());
    for route in found {
        let is_free = match kind(route) {
            ResourceKind::TcpRoute => !has_tcp,
            ResourceKind::HttpRoute if both => !grpc.meet(&route.hostnames),
            ResourceKind::GrpcRoute if both => !http.meet(&route.hostnames),
            _ => true,
        };
        let takes = is_free && count < MAX_LISTENER_ROUTES;
        if takes {
            count += 1;
            match kind(route) {
                ResourceKind::TcpRoute => has_tcp = true,
                ResourceKind::HttpRoute if both => http.take(&route.hostnames),
                ResourceKind::GrpcRoute if both => grpc.take(&route.hostnames),
                _ => {}
            }
        }
        taken.push(takes);
    }
    taken
}
