//! What contradicts itself or cannot work.
//!
//! Every finding names the setting it is about, so that it can be shown at its place in the file.
//! Nothing here looks outside the configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use selvage_certs::TrustDomain;
use selvage_policy::snapshot::ServiceName;

use super::build::{DEFAULT_NAMESPACE, drain, fixed_listeners, service_port};
use super::file::File;
use super::gateway;
use super::{HostPort, InboundTls, MAX_WORKERS, MIN_HEADER_BYTES};

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The setting, such as `inbound.ports[0].port`; empty for the whole.
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding {
            path: path.into(),
            message: message.into(),
            help: None,
        });
    }

    pub(super) fn add_with_help(&mut self, path: &str, message: &str, help: &str) {
        let help = Some(help.to_owned());
        self.0.push(Finding {
            path: path.to_owned(),
            message: message.to_owned(),
            help,
        });
    }
}

/// Everything that is wrong with the settings taken together.
pub(super) fn findings(file: &File) -> Vec<Finding> {
    let mut found = Findings::default();
    check_workload(file, &mut found);
    check_source(file, &mut found);
    check_inbound(file, &mut found);
    check_listeners(file, &mut found);
    check_bounds(file, &mut found);
    gateway::check(file, &listeners_of(file), &mut found);
    found.0
}

fn check_workload(file: &File, found: &mut Findings) {
    let workload = &file.workload;
    for (path, name) in [
        ("workload.name", &workload.name),
        ("workload.service", &workload.service),
    ] {
        if name.is_none() && !file.gateway.is_wanted() {
            found.add_with_help(path, "is missing", "a sidecar stands beside a workload");
        }
    }
    for (path, name) in [
        ("workload.name", &workload.name),
        ("workload.service", &workload.service),
        ("workload.namespace", &workload.namespace),
        ("workload.serviceAccount", &workload.service_account),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !is_label(name)) {
            found.add(path, not_a_label(name));
        }
    }
    if let Some(Err(error)) = file.trust_domain.as_deref().map(TrustDomain::parse) {
        found.add("trustDomain", error.to_string());
    }
}

fn check_source(file: &File, found: &mut Findings) {
    let (remote, local) = (&file.control_plane, &file.local);
    let identity = &local.identity;
    let identity_parts = [
        (
            "static.identity.certificate",
            identity.certificate.is_some(),
        ),
        ("static.identity.key", identity.key.is_some()),
        (
            "static.identity.trustBundle",
            identity.trust_bundle.is_some(),
        ),
    ];
    let any_identity = identity_parts.iter().any(|(_, there)| *there);
    let any_remote = remote.address.is_some() || remote.token.is_some();
    let any_local = local.resources.is_some() || any_identity;
    match (any_remote, any_local) {
        (true, true) => {
            let help = "with a control plane, resources and identity come from it";
            found.add_with_help(
                "static",
                "contradicts `controlPlane`: give one of the two",
                help,
            );
        }
        (false, false) => {
            let help = "controlPlane.address, or static.resources for local files";
            found.add_with_help("", "there is nothing to learn the mesh from", help);
        }
        (true, false) if remote.address.is_none() => {
            found.add(
                "controlPlane.address",
                "is missing beside controlPlane.token",
            );
        }
        (false, true) if local.resources.is_none() => {
            found.add("static.resources", "is missing beside static.identity");
        }
        _ => {}
    }
    if let Some(Err(message)) = remote.address.as_deref().map(host_port) {
        found.add("controlPlane.address", message);
    }
    if any_identity {
        for (path, _) in identity_parts.into_iter().filter(|(_, there)| !there) {
            found.add(
                path,
                "is missing: an identity is a certificate, its key and a trust bundle",
            );
        }
    } else if any_local
        && !file.inbound.ports.is_empty()
        && file.inbound.tls != Some(InboundTls::Permissive)
    {
        let help =
            "give static.identity, or leave out inbound.ports, or set inbound.tls: permissive";
        found.add_with_help(
            "inbound.ports",
            "cannot be served with mutual TLS without an identity",
            help,
        );
    }
    if any_local && file.inbound.advertise.is_some() {
        found.add(
            "inbound.advertise",
            "has no effect without a control plane: nothing is registered",
        );
    }
}

fn check_inbound(file: &File, found: &mut Findings) {
    let inbound = &file.inbound;
    if inbound
        .advertise
        .as_ref()
        .is_some_and(|at| at.0.ip().is_unspecified() || at.0.port() == 0)
    {
        found.add(
            "inbound.advertise",
            "must be an address others can connect to, with its port",
        );
    }
    let own: Vec<(String, SocketAddr)> = fixed_listeners(file);
    for (index, port) in inbound.ports.iter().enumerate() {
        let at = |field: &str| format!("inbound.ports[{index}].{field}");
        if port.port == 0 {
            found.add(
                at("port"),
                "must be the port the application listens on, not 0",
            );
        }
        if port.service_port == Some(0) {
            found.add(at("servicePort"), "must not be 0");
        }
        if inbound.ports[..index]
            .iter()
            .any(|before| service_port(before) == service_port(port))
        {
            let message = format!(
                "service port {} is already taken by another",
                service_port(port)
            );
            found.add(
                at(if port.service_port.is_some() {
                    "servicePort"
                } else {
                    "port"
                }),
                message,
            );
        }
        let reaches = |bound: &SocketAddr| {
            [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED]
                .map(IpAddr::V4)
                .contains(&bound.ip())
        };
        if let Some((name, _)) = own
            .iter()
            .find(|(_, bound)| port.port == bound.port() && reaches(bound))
        {
            found.add(
                at("port"),
                format!("is this proxy's own `{name}`: requests would go in a circle"),
            );
        }
        port.health.check(&at("health"), found);
    }
}

/// The addresses that are bound whatever is configured; a gateway has neither side of a sidecar.
fn listeners_of(file: &File) -> Vec<(String, SocketAddr)> {
    let mut bound = fixed_listeners(file);
    if file.gateway.is_wanted() {
        bound.retain(|(path, _)| !matches!(path.as_str(), "inbound.address" | "outbound.address"));
    }
    bound
}

fn check_listeners(file: &File, found: &mut Findings) {
    let mut bound = listeners_of(file);
    for (index, listener) in file.outbound.listeners.iter().enumerate() {
        let at = |field: &str| format!("outbound.listeners[{index}].{field}");
        bound.push((at("address"), listener.address.0));
        if service_name(&listener.service, DEFAULT_NAMESPACE).is_none() {
            let message = format!(
                "expected NAME or NAME.NAMESPACE, found `{}`",
                listener.service
            );
            found.add(at("service"), message);
        }
        if listener.port == Some(0) {
            found.add(at("port"), "must not be 0");
        }
    }
    for (index, (path, address)) in bound.iter().enumerate() {
        // Port 0 is another one each time.
        let same = |other: &&(String, SocketAddr)| address.port() != 0 && other.1 == *address;
        if let Some((before, _)) = bound[..index].iter().find(same) {
            found.add(path, format!("{address} is already taken by `{before}`"));
        }
    }
    if file
        .admin
        .address
        .as_ref()
        .is_some_and(|address| !address.0.ip().is_loopback())
    {
        let help = "such as 127.0.0.1:15000; /metrics and /ready are on telemetry.address";
        found.add_with_help("admin.address", "must be a loopback address", help);
    }
}

fn check_bounds(file: &File, found: &mut Findings) {
    let drain = drain(file);
    if drain.timeout <= drain.delay {
        let path = if file.drain.timeout.is_some() {
            "drain.timeout"
        } else {
            "drain.delay"
        };
        found.add(
            path,
            "drain.timeout covers all of the drain: it must be longer than drain.delay",
        );
    }
    if file.workers.is_some_and(|workers| workers > MAX_WORKERS) {
        found.add("workers", format!("at most {MAX_WORKERS}"));
    }
    let limits = &file.limits;
    if limits
        .header_bytes
        .is_some_and(|size| size.0 < MIN_HEADER_BYTES as u64)
    {
        found.add("limits.headerBytes", "must be at least 8KiB");
    }
    let sizes = [
        ("limits.headerBytes", limits.header_bytes),
        ("limits.uriBytes", limits.uri_bytes),
        ("limits.replayBytes", limits.replay_bytes),
    ];
    for (path, size) in sizes {
        if size.is_some_and(|size| u32::try_from(size.0).is_err()) {
            found.add(path, "must be less than 4GiB");
        }
    }
    let durations =
        [limits.header_timeout, limits.handshake_timeout].map(|d| d.map(|d| d.0.is_zero()));
    let zeros = [
        ("limits.headerCount", limits.header_count.map(|n| n == 0)),
        ("limits.uriBytes", limits.uri_bytes.map(|size| size.0 == 0)),
        ("limits.headerTimeout", durations[0]),
        ("limits.handshakeTimeout", durations[1]),
        ("limits.handshakes", limits.handshakes.map(|n| n == 0)),
        ("limits.streams", limits.streams.map(|n| n == 0)),
        ("limits.connections", limits.connections.map(|n| n == 0)),
    ];
    for (path, zero) in zeros {
        if zero == Some(true) {
            found.add(path, "must not be 0: nothing would get through");
        }
    }
    if limits.streams.is_some_and(|n| u32::try_from(n).is_err()) {
        found.add("limits.streams", "HTTP/2 numbers streams with 31 bits");
    }
}

/// A DNS label (RFC 1123): what names of workloads, services, namespaces and accounts are.
pub(super) fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

pub(super) fn not_a_label(name: &str) -> String {
    format!("expected a DNS label (at most 63 of a-z, 0-9 and `-` within), found `{name}`")
}

/// `name` or `name.namespace`.
pub(super) fn service_name(text: &str, namespace: &str) -> Option<ServiceName> {
    let (name, namespace) = text.split_once('.').unwrap_or((text, namespace));
    (is_label(name) && is_label(namespace)).then(|| ServiceName::new(namespace, name))
}

pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    let invalid = || format!("expected HOST:PORT such as 127.0.0.1:15010, found `{text}`");
    let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
    let port = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(invalid)?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .filter(|v6| v6.parse::<IpAddr>().is_ok()),
        None if host.contains(':') => None,
        None => Some(host),
    };
    let is_name = |host: &str| host.parse::<IpAddr>().is_ok() || host.split('.').all(is_label);
    let host = bare
        .filter(|host| host.len() <= 253 && is_name(host))
        .ok_or_else(invalid)?;
    Ok(HostPort {
        host: host.to_owned(),
        port,
    })
}
