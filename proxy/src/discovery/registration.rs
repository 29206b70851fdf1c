//! This workload's entry in the registry: registered once it can serve,
//! extended by heartbeats that carry the application's health, taken back at
//! drain.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use selvage_api::v1;
use selvage_policy::snapshot::WorkloadName;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tonic::Code;

use super::health::Healths;
use crate::identity::Identity;
use crate::identity::attest::{Backoff, ControlPlane, channel};
use crate::identity::place::Place;
use crate::lifecycle::Lifecycle;
use crate::stubs::registry_client::RegistryClient;

/// A lease that the server does not name.
const LEASE: Duration = Duration::from_secs(15);
/// Deregistration is a courtesy at the end: it does not hold the drain up.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often we look whether the machine has got another address. It asks the kernel alone.
const MOVED_EVERY: Duration = Duration::from_secs(1);

/// What is registered.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Who.
    pub workload: WorkloadName,
    /// Where callers reach its sidecar.
    pub address: Reached,
    /// Service port and protocol, in the order of the health reports.
    pub ports: Vec<(u16, v1::Protocol)>,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// Where Prometheus scrapes it.
    pub telemetry: Option<Reached>,
}

/// Where others reach one of our ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Always there.
    At(SocketAddr),
    /// On the address of ours from which the control plane is reached: it is what others can most
    /// likely reach us at, and another one after the machine or the pod has moved.
    OnRoute(u16),
}

impl Reached {
    const fn from(self, ip: IpAddr) -> SocketAddr {
        match self {
            Self::At(address) => address,
            Self::OnRoute(port) => SocketAddr::new(ip, port),
        }
    }
}

impl Registration {
    fn ports(&self, healths: &[bool]) -> Vec<v1::RegisteredPort> {
        self.ports
            .iter()
            .zip(healths)
            .map(|((port, protocol), healthy)| v1::RegisteredPort {
                service_port: u32::from(*port),
                protocol: (*protocol).into(),
                health: if *healthy {
                    v1::Health::Healthy
                } else {
                    v1::Health::Unhealthy
                }
                .into(),
            })
            .collect()
    }
}

/// The way to the control plane, as the kernel knows it.
#[derive(Debug, Clone, Copy)]
struct Route {
    control_plane: SocketAddr,
    /// Ours.
    source: IpAddr,
}

impl Route {
    async fn find(control_plane: &Place) -> io::Result<Self> {
        let mut last = io::ErrorKind::NotFound.into();
        for address in control_plane.addresses().await? {
            match source_address(address).await {
                Ok(source) => {
                    return Ok(Self {
                        control_plane: address,
                        source,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Waits until it begins at another address of ours. None at all is no move: it may come back.
    async fn moved(self) -> IpAddr {
        loop {
            tokio::time::sleep(MOVED_EVERY).await;
            match source_address(self.control_plane).await {
                Ok(now) if now != self.source => return now,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

async fn source_address(destination: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket sends nothing; it asks the kernel for the route.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(destination).await?;
    Ok(socket.local_addr()?.ip())
}

/// Keeps the registration until the drain, and then takes it back.
pub async fn run(
    registration: Registration,
    control_plane: ControlPlane,
    identity: Arc<Identity>,
    lifecycle: Arc<Lifecycle>,
    mut healths: watch::Receiver<Healths>,
) {
    let mut keeper = Keeper {
        registration,
        control_plane,
        identity,
        client: None,
    };
    tokio::select! {
        never = keeper.keep(&mut healths) => match never {},
        () = lifecycle.left() => {}
    }
    let leave = keeper.deregister();
    match tokio::time::timeout(DEREGISTER_TIMEOUT, leave).await {
        Ok(Ok(())) => tracing::info!("deregistered"),
        Ok(Err(status)) => tracing::warn!(error = status.message(), "not deregistered"),
        Err(_) => tracing::warn!("not deregistered: no answer within a second"),
    }
}

type Client = RegistryClient<tonic::transport::Channel>;

struct Keeper {
    registration: Registration,
    control_plane: ControlPlane,
    identity: Arc<Identity>,
    /// With the moment its certificate expires: later it would be refused.
    client: Option<(Client, std::time::SystemTime)>,
}

impl Keeper {
    async fn keep(&mut self, healths: &mut watch::Receiver<Healths>) -> Infallible {
        let mut backoff = Backoff::default();
        loop {
            let route = match Route::find(&self.control_plane.place).await {
                Ok(route) => route,
                Err(error) => {
                    let address = &self.control_plane.address;
                    tracing::warn!(address, %error, "no route to the control plane");
                    backoff.wait().await;
                    continue;
                }
            };
            backoff.reset();
            let moved = tokio::select! {
                never = self.keep_at(route.source, healths) => match never {},
                moved = route.moved() => moved,
            };
            tracing::info!(from = %route.source, to = %moved, "moved");
            // Its connection began at the old address.
            self.client = None;
        }
    }

    async fn keep_at(&mut self, ip: IpAddr, healths: &mut watch::Receiver<Healths>) -> Infallible {
        let mut backoff = Backoff::default();
        let mut registered = false;
        loop {
            let now = healths.borrow_and_update().clone();
            let result = if registered {
                self.heartbeat(&now).await
            } else {
                self.register(ip, &now).await
            };
            match result {
                Ok(lease) => {
                    if !registered {
                        tracing::info!(address = %self.registration.address.from(ip), "registered");
                    }
                    registered = true;
                    backoff.reset();
                    tokio::select! {
                        () = tokio::time::sleep(lease / 3) => {}
                        changed = healths.changed() => {
                            if changed.is_err() {
                                // The prober has ended; its last word stands.
                                tokio::time::sleep(lease / 3).await;
                            }
                        }
                    }
                }
                Err(status) => {
                    registered &= status.code() != Code::NotFound;
                    if status.code() != Code::NotFound {
                        tracing::warn!(error = status.message(), "registry");
                        self.client = None;
                        backoff.wait().await;
                    }
                }
            }
        }
    }

    fn client(&mut self) -> Result<Client, tonic::Status> {
        if let Some((client, expiry)) = &self.client
            && *expiry > std::time::SystemTime::now()
        {
            return Ok(client.clone());
        }
        let current = self
            .identity
            .current()
            .ok_or_else(|| tonic::Status::unavailable("no identity yet"))?;
        let config =
            selvage_certs::control_plane_client_config(&current.bundle, Some(&current.svid))
                .map_err(|error| tonic::Status::internal(error.to_string()))?;
        let client = RegistryClient::new(channel(&self.control_plane, config));
        self.client = Some((client.clone(), current.svid.not_after()));
        Ok(client)
    }

    async fn register(&mut self, ip: IpAddr, healths: &[bool]) -> Result<Duration, tonic::Status> {
        let Registration {
            workload,
            address,
            ports: _,
            labels,
            telemetry,
        } = &self.registration;
        let request = v1::RegisterRequest {
            namespace: workload.namespace.to_string(),
            workload: workload.name.to_string(),
            service: workload.service.to_string(),
            address: address.from(ip).to_string(),
            ports: self.registration.ports(healths),
            labels: labels.clone(),
            weight: 1,
            telemetry: telemetry
                .map(|address| address.from(ip).to_string())
                .unwrap_or_default(),
        };
        let mut client = self.client()?;
        let response = limited(client.register(request)).await?;
        Ok(lease(response.lease))
    }

    async fn heartbeat(&mut self, healths: &[bool]) -> Result<Duration, tonic::Status> {
        let WorkloadName {
            namespace,
            name,
            service: _,
        } = &self.registration.workload;
        let request = v1::HeartbeatRequest {
            namespace: namespace.to_string(),
            workload: name.to_string(),
            ports: self.registration.ports(healths),
        };
        let mut client = self.client()?;
        let response = limited(client.heartbeat(request)).await?;
        Ok(lease(response.lease))
    }

    async fn deregister(&mut self) -> Result<(), tonic::Status> {
        let WorkloadName {
            namespace,
            name,
            service: _,
        } = &self.registration.workload;
        let request = v1::DeregisterRequest {
            namespace: namespace.to_string(),
            workload: name.to_string(),
        };
        let mut client = self.client()?;
        limited(client.deregister(request)).await.map(|_| ())
    }
}

async fn limited<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result.map(tonic::Response::into_inner),
        Err(_) => Err(tonic::Status::deadline_exceeded("no answer within 5 s")),
    }
}

fn lease(message: Option<prost_types::Duration>) -> Duration {
    message
        .and_then(|message| Duration::try_from(message).ok())
        .filter(|lease| !lease.is_zero())
        .unwrap_or(LEASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_on_the_route_is_the_one_that_the_control_plane_is_reached_from() {
        let route = Route::find(&Place::new("127.0.0.1:15010"))
            .await
            .expect("loopback");
        assert_eq!(route.source, Ipv4Addr::LOCALHOST);
        let bound = "10.0.0.5:15008".parse().expect("an address");
        for (reached, address) in [
            (Reached::OnRoute(15008), "127.0.0.1:15008"),
            (Reached::At(bound), "10.0.0.5:15008"),
        ] {
            assert_eq!(reached.from(route.source).to_string(), address);
        }
    }

    #[tokio::test]
    async fn a_move_is_noticed() {
        let mut route = Route::find(&Place::new("127.0.0.1:15010"))
            .await
            .expect("loopback");
        // As if it had been another one before.
        route.source = Ipv4Addr::new(10, 0, 0, 5).into();
        assert_eq!(route.moved().await, Ipv4Addr::LOCALHOST);
    }
}
