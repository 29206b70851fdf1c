//! The plain values of settings that were found good.
//!
//! The only place that knows defaults; what it expects to be there was checked before.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use selvage_certs::TrustDomain;
use selvage_core::scalar;
use selvage_policy::snapshot::Protocol;

use super::check::{host_port, service_name};
use super::file::{ControlPlane, File, Listener, Local, Port, PortProtocol, Text};
use super::gateway::Gateway;
use super::{
    Config, Drain, IdentityFiles, Inbound, InboundPort, Limits, LogFormat, Outbound,
    OutboundListener, Source, Workload,
};

pub(super) const DEFAULT_NAMESPACE: &str = "default";
const DEFAULT_SERVICE_ACCOUNT: &str = "default";
const DEFAULT_TRUST_DOMAIN: &str = "mesh.local";
const DEFAULT_STATE_DIR: &str = "/var/lib/selvage";
const DEFAULT_DELAY: Duration = Duration::from_secs(1);
const DEFAULT_DRAIN: Duration = Duration::from_secs(25);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Plain values of settings without findings.
pub(super) fn build(file: File, log_format: LogFormat) -> Config {
    let [inbound, outbound, admin, telemetry] =
        <[_; 4]>::try_from(fixed_listeners(&file)).expect("there are four");
    let drain = drain(&file);
    let limits = limits(&file);
    let namespace = Gateway::namespace(&file)
        .unwrap_or(DEFAULT_NAMESPACE)
        .to_owned();
    let gateway = file.gateway.build(namespace.clone());
    // A gateway may stand beside nobody.
    let own = |name: Option<String>| {
        name.or_else(|| gateway.as_ref().map(|gateway| gateway.name.clone()))
            .expect("it was checked")
    };
    let listeners = file
        .outbound
        .listeners
        .into_iter()
        .map(|l| listener(&l, &namespace))
        .collect();
    let trust_domain = file.trust_domain.as_deref().unwrap_or(DEFAULT_TRUST_DOMAIN);
    Config {
        trust_domain: TrustDomain::parse(trust_domain).expect("it was checked"),
        source: source(file.control_plane, file.local),
        inbound: Inbound {
            address: inbound.1,
            advertise: file.inbound.advertise.map(|text| text.0),
            tls: file.inbound.tls,
            ports: file.inbound.ports.iter().map(inbound_port).collect(),
        },
        outbound: Outbound {
            address: outbound.1,
            listeners,
        },
        admin: admin.1,
        telemetry: telemetry.1,
        access_log: file.telemetry.access_log.unwrap_or_default(),
        // It stands in the environment alone.
        tracing: None,
        drain,
        limits,
        workers: file
            .workers
            .filter(|n| *n > 0)
            .unwrap_or_else(super::default_workers),
        state_dir: file
            .state_dir
            .unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR)),
        log_format,
        workload: Workload {
            name: own(file.workload.name),
            service: own(file.workload.service),
            namespace,
            service_account: file
                .workload
                .service_account
                .unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()),
            labels: file.workload.labels,
        },
        gateway,
    }
}

fn source(remote: ControlPlane, local: Local) -> Source {
    match remote.address {
        Some(address) => Source::ControlPlane {
            address: host_port(&address).expect("it was checked"),
            token: remote.token.map(|text| text.0),
        },
        None => Source::Static {
            resources: local
                .resources
                .expect("it was checked: one of the two is there"),
            identity: local.identity.certificate.map(|certificate| IdentityFiles {
                certificate,
                key: local
                    .identity
                    .key
                    .expect("it was checked: all three or none"),
                trust_bundle: local
                    .identity
                    .trust_bundle
                    .expect("it was checked: all or none"),
            }),
        },
    }
}

fn inbound_port(port: &Port) -> InboundPort {
    let protocol = match port.protocol {
        PortProtocol::Detect => Protocol::Detect,
        PortProtocol::Http => Protocol::Http,
        PortProtocol::Http2 => Protocol::Http2,
        PortProtocol::Grpc => Protocol::Grpc,
        PortProtocol::Tcp => Protocol::Tcp,
    };
    let service_port = service_port(port);
    InboundPort {
        port: port.port,
        service_port,
        protocol,
        health: port.health.build(),
    }
}

pub(super) fn service_port(port: &Port) -> u16 {
    port.service_port.unwrap_or(port.port)
}

fn listener(listener: &Listener, namespace: &str) -> OutboundListener {
    OutboundListener {
        address: listener.address.0,
        service: service_name(&listener.service, namespace).expect("it was checked"),
        port: listener.port,
    }
}

pub(super) fn drain(file: &File) -> Drain {
    Drain {
        delay: file.drain.delay.map_or(DEFAULT_DELAY, |delay| delay.0),
        timeout: file
            .drain
            .timeout
            .map_or(DEFAULT_DRAIN, |timeout| timeout.0),
    }
}

fn limits(file: &File) -> Limits {
    let limits = &file.limits;
    let bytes = |size: Option<scalar::ByteSize>, default: usize| {
        size.map_or(default, |size| {
            usize::try_from(size.0).unwrap_or(usize::MAX)
        })
    };
    let seconds = |time: Option<scalar::Duration>, default| {
        time.map_or(Duration::from_secs(default), |time| time.0)
    };
    Limits {
        header_bytes: bytes(limits.header_bytes, 64 * 1024),
        header_count: limits.header_count.unwrap_or(100),
        uri_bytes: bytes(limits.uri_bytes, 16 * 1024),
        header_timeout: seconds(limits.header_timeout, 10),
        handshake_timeout: seconds(limits.handshake_timeout, 5),
        handshakes: limits.handshakes.unwrap_or(256),
        streams: limits.streams.unwrap_or(100),
        replay_bytes: bytes(limits.replay_bytes, 64 * 1024),
        connections: limits.connections.unwrap_or(10_000),
    }
}

/// The addresses every sidecar binds, by their setting.
pub(super) fn fixed_listeners(file: &File) -> Vec<(String, SocketAddr)> {
    let address = |given: &Option<Text<SocketAddr>>, ip, port| {
        given
            .as_ref()
            .map_or(SocketAddr::new(ip, port), |text| text.0)
    };
    vec![
        (
            "inbound.address".to_owned(),
            address(&file.inbound.address, ANY, 15008),
        ),
        (
            "outbound.address".to_owned(),
            address(&file.outbound.address, LOOPBACK, 15001),
        ),
        (
            "admin.address".to_owned(),
            address(&file.admin.address, LOOPBACK, 15000),
        ),
        (
            "telemetry.address".to_owned(),
            address(&file.telemetry.address, ANY, 15020),
        ),
    ]
}
