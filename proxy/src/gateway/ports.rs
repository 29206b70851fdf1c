//! The sockets of a gateway: one for each port that listeners name, wherever
//! the configuration has it bound.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use selvage_policy::route;
use tokio_util::sync::CancellationToken;

use crate::accept::{Gate, Listener, Purpose};
use crate::config;
use crate::lifecycle::{Direction, Lifecycle};

/// A port that listeners name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortShown {
    /// As they name it.
    pub port: u16,
    /// Where it is bound, or why it is not.
    pub bound: Result<SocketAddr, String>,
}

#[derive(Debug)]
struct Bound {
    closing: CancellationToken,
    address: SocketAddr,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ports {
    bound: BTreeMap<u16, Bound>,
    /// Ports that could not be bound, and why.
    refused: BTreeMap<u16, String>,
}

impl Ports {
    /// Binds what is wanted and closes what is not; the sockets that are new.
    pub(super) fn refresh(
        &mut self,
        wanted: &route::Gateway,
        settings: &config::Gateway,
        lifecycle: &Lifecycle,
    ) -> Vec<Listener> {
        let wanted: BTreeSet<u16> = wanted.listeners.iter().map(|it| it.port).collect();
        self.refused.retain(|port, _| wanted.contains(port));
        self.bound.retain(|port, bound| {
            let stays = wanted.contains(port);
            if !stays {
                tracing::info!(port, address = %bound.address, "listener closes");
                bound.closing.cancel();
            }
            stays
        });
        let missing = wanted
            .into_iter()
            .filter(|port| !self.bound.contains_key(port));
        let missing: Vec<u16> = missing.collect();
        let mut new = Vec::new();
        for port in missing {
            let place = settings.ports.get(&port).copied().unwrap_or(port);
            let address = SocketAddr::new(settings.address, place);
            let closing = lifecycle.closing(Direction::Outbound).child_token();
            let purpose = Purpose::Gateway(Gate {
                port,
                closing: closing.clone(),
            });
            match Listener::bind(format!("gateway:{port}"), purpose, address) {
                Ok(listener) => {
                    self.refused.remove(&port);
                    let address = listener.address;
                    self.bound.insert(port, Bound { closing, address });
                    new.push(listener);
                }
                Err(error) => self.refuse(port, address, &error),
            }
        }
        new
    }

    fn refuse(&mut self, port: u16, address: SocketAddr, error: &std::io::Error) {
        let why = format!("cannot listen on {address}: {error}");
        if self.refused.get(&port) != Some(&why) {
            tracing::error!(
                port,
                "{why}; it is tried again, the other ports are served (gateway.ports binds it elsewhere)"
            );
            self.refused.insert(port, why);
        }
    }

    /// Forgets a socket that nobody accepts from.
    pub(super) fn forget(&mut self, port: u16) {
        self.bound.remove(&port);
    }

    /// Whether all that is wanted is bound.
    pub(super) fn is_complete(&self) -> bool {
        self.refused.is_empty()
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.bound.values().map(|bound| bound.address).collect()
    }

    pub(super) fn shown(&self) -> Vec<PortShown> {
        let bound = self.bound.iter().map(|(port, bound)| PortShown {
            port: *port,
            bound: Ok(bound.address),
        });
        let refused = self.refused.iter().map(|(port, why)| PortShown {
            port: *port,
            bound: Err(why.clone()),
        });
        let mut all: Vec<PortShown> = bound.chain(refused).collect();
        all.sort_by_key(|shown| shown.port);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::path::PathBuf;
    use std::sync::Arc;

    use selvage_policy::route::{ListenerProtocol, RouteTable};

    use super::*;

    fn wanted(ports: &[u16]) -> route::Gateway {
        let listener = |port: &u16| {
            Arc::new(route::Listener {
                name: port.to_string().into(),
                port: *port,
                protocol: ListenerProtocol::Http,
                hostname: None,
                certificates: Vec::new(),
                routes: Arc::new(RouteTable::new(&[])),
                streams: Vec::new(),
            })
        };
        route::Gateway {
            name: "shop/public".into(),
            listeners: ports.iter().map(listener).collect(),
        }
    }

    fn settings(ports: &[(u16, u16)]) -> config::Gateway {
        config::Gateway {
            namespace: "shop".to_owned(),
            name: "public".to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            ports: ports.iter().copied().collect(),
            trusted_hops: 0,
            folder: PathBuf::new(),
        }
    }

    #[test]
    fn what_stays_is_not_touched() {
        let lifecycle = Lifecycle::new();
        let settings = settings(&[(80, 0), (81, 0)]);
        let mut ports = Ports::default();
        let first = ports.refresh(&wanted(&[80, 80]), &settings, &lifecycle);
        assert_eq!(first.len(), 1, "one socket for all listeners of a port");
        let [address] = ports.addresses()[..] else {
            panic!("one address")
        };
        let second = ports.refresh(&wanted(&[80, 81]), &settings, &lifecycle);
        assert_eq!(second.len(), 1);
        assert!(ports.addresses().contains(&address), "80 is where it was");
        let third = ports.refresh(&wanted(&[81]), &settings, &lifecycle);
        assert!(third.is_empty());
        let closing = |listener: &Listener| listener.purpose.closing(&lifecycle).is_cancelled();
        assert!(closing(&first[0]), "80 has left");
        assert!(!closing(&second[0]), "81 stays");
    }

    #[test]
    fn a_port_that_is_taken_is_shown_and_bound_once_it_is_free() {
        let lifecycle = Lifecycle::new();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let place = taken.local_addr().expect("bound").port();
        let settings = settings(&[(80, place), (81, 0)]);
        let mut ports = Ports::default();
        let bound = ports.refresh(&wanted(&[80, 81]), &settings, &lifecycle);
        assert_eq!(bound.len(), 1, "81 goes on");
        assert!(!ports.is_complete());
        assert!(ports.shown()[0].bound.is_err());
        drop(taken);
        assert_eq!(
            ports
                .refresh(&wanted(&[80, 81]), &settings, &lifecycle)
                .len(),
            1
        );
        assert!(ports.is_complete());
    }
}
