//! What the demo runs: services, replicas, who calls whom, and the files its processes read. Pure.
//!
//! It refuses to know processes and the network.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

/// The namespace of everything in the demo.
pub(crate) const NAMESPACE: &str = "shop";
/// The trust domain of the demo's mesh.
pub(crate) const TRUST_DOMAIN: &str = "mesh.local";
/// What is applied when the demo starts.
pub(crate) const RESOURCES: &str = include_str!("../resources/shop.yaml");
/// The replica that the schedule breaks.
pub(crate) const BROKEN: &str = "inventory-2";
/// The workload through whose sidecar the load enters the mesh.
pub(crate) const LOAD: &str = "load";
/// The service port of HTTP, and of gRPC.
pub(crate) const HTTP: u16 = 80;
/// The service port of gRPC.
pub(crate) const GRPC: u16 = 9090;

/// One service of the demo.
#[derive(Debug)]
pub(crate) struct Service {
    /// Name and service account.
    pub(crate) name: &'static str,
    /// How many replicas it has.
    pub(crate) replicas: usize,
    /// Whether it serves gRPC beside HTTP.
    pub(crate) grpc: bool,
    /// Which service ports it calls.
    pub(crate) calls: &'static [(&'static str, u16)],
}

/// The services. The load is no service: nobody calls it.
pub(crate) const SERVICES: [Service; 3] = [
    Service {
        name: "gateway",
        replicas: 2,
        grpc: true,
        calls: &[("orders", HTTP), ("inventory", HTTP), ("inventory", GRPC)],
    },
    Service {
        name: "orders",
        replicas: 3,
        grpc: false,
        calls: &[("inventory", HTTP)],
    },
    Service {
        name: "inventory",
        replicas: 3,
        grpc: true,
        calls: &[],
    },
];

const LOAD_CALLS: &[(&str, u16)] = &[("gateway", HTTP), ("gateway", GRPC)];

/// One workload: a sidecar and, but for the load, a replica of a service beside it.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// `orders-1`
    pub(crate) name: String,
    /// `orders`
    pub(crate) service: &'static str,
    /// Whether it serves anything, and gRPC.
    pub(crate) serves: Option<bool>,
    /// Which service ports it calls.
    pub(crate) calls: &'static [(&'static str, u16)],
}

impl Workload {
    /// The name of its sidecar among the processes.
    pub(crate) fn sidecar(&self) -> String {
        format!("{}.sidecar", self.name)
    }

    /// The names of the addresses that its sample service binds.
    pub(crate) fn app_ports(&self) -> Vec<String> {
        match self.serves {
            None => Vec::new(),
            Some(false) => vec!["http".to_owned()],
            Some(true) => vec!["http".to_owned(), "grpc".to_owned()],
        }
    }

    /// The names of the addresses that its sidecar binds.
    pub(crate) fn sidecar_ports(&self) -> Vec<String> {
        let mut names = vec![
            "outbound".to_owned(),
            "admin".to_owned(),
            "telemetry".to_owned(),
        ];
        names.extend(self.serves.map(|_| "inbound".to_owned()));
        names.extend(
            self.calls
                .iter()
                .map(|&(service, port)| listener(service, port)),
        );
        names
    }
}

/// The name of a sidecar's listener for one service port, as the sidecar says it.
pub(crate) fn listener(service: &str, port: u16) -> String {
    format!("listener:{service}.{NAMESPACE}:{port}")
}

/// Every workload of the demo.
pub(crate) fn workloads() -> Vec<Workload> {
    let mut workloads = Vec::new();
    for service in &SERVICES {
        workloads.extend((1..=service.replicas).map(|number| Workload {
            name: format!("{}-{number}", service.name),
            service: service.name,
            serves: Some(service.grpc),
            calls: service.calls,
        }));
    }
    workloads.push(Workload {
        name: LOAD.to_owned(),
        service: LOAD,
        serves: None,
        calls: LOAD_CALLS,
    });
    workloads
}

/// control-plane.yaml. JSON is YAML.
pub(crate) fn control_plane_config(data: &Path, grpc: SocketAddr, http: SocketAddr) -> Value {
    json!({
        "trustDomain": TRUST_DOMAIN,
        "dataDir": data,
        "grpc": { "address": grpc.to_string() },
        "http": { "address": http.to_string() },
    })
}

/// sidecar.yaml. `bound` knows the addresses of an earlier start, `app` those of the service beside it.
pub(crate) fn sidecar_config(
    workload: &Workload,
    control_plane: SocketAddr,
    token: &Path,
    state: &Path,
    bound: impl Fn(&str) -> Option<SocketAddr>,
    app: impl Fn(&str) -> Option<SocketAddr>,
) -> Value {
    let address = |name: &str| bound(name).unwrap_or(ANY).to_string();
    let port = |name: &str, service_port: u16, protocol: &str| {
        app(name).map(|app| {
            json!({
                "port": app.port(), "servicePort": service_port, "protocol": protocol,
                "health": { "tcp": {}, "interval": "3s" },
            })
        })
    };
    let ports: Vec<Value> = [port("http", HTTP, "http"), port("grpc", GRPC, "grpc")]
        .into_iter()
        .flatten()
        .collect();
    let listeners: Vec<Value> = workload
        .calls
        .iter()
        .map(|&(service, port)| {
            json!({ "address": address(&listener(service, port)), "service": format!("{service}.{NAMESPACE}"), "port": port })
        })
        .collect();
    json!({
        "workload": {
            "name": workload.name, "service": workload.service,
            "namespace": NAMESPACE, "serviceAccount": workload.service,
        },
        "trustDomain": TRUST_DOMAIN,
        "controlPlane": { "address": control_plane.to_string(), "token": format!("file:{}", token.display()) },
        "inbound": { "address": address("inbound"), "ports": ports },
        "outbound": { "address": address("outbound"), "listeners": listeners },
        "admin": { "address": address("admin") },
        "telemetry": { "address": address("telemetry") },
        "stateDir": state,
        "workers": 1,
    })
}

/// Loopback, on a port that the system chooses.
pub(crate) const ANY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_service_that_serves_it() {
        for workload in workloads() {
            for &(service, port) in workload.calls {
                let callee = SERVICES
                    .iter()
                    .find(|candidate| candidate.name == service)
                    .expect(service);
                assert!(
                    port == HTTP || (port == GRPC && callee.grpc),
                    "{service}:{port}"
                );
            }
        }
        assert!(workloads().iter().any(|workload| workload.name == BROKEN));
        assert_eq!(workloads().len(), 9);
    }

    #[test]
    fn a_sidecar_keeps_the_addresses_of_its_first_start() {
        let workload = &workloads()[0];
        let path = Path::new("/tmp/x");
        let app =
            |name: &str| (name == "http").then(|| "127.0.0.1:8080".parse().expect("an address"));
        let first = sidecar_config(workload, ANY, path, path, |_| None, app);
        assert_eq!(first["inbound"]["address"], "127.0.0.1:0");
        assert_eq!(first["inbound"]["ports"][0]["port"], 8080);
        assert_eq!(
            first["inbound"]["ports"].as_array().map(Vec::len),
            Some(1),
            "no grpc app, no grpc port"
        );
        let again = sidecar_config(
            workload,
            ANY,
            path,
            path,
            |_| "127.0.0.1:9".parse().ok(),
            app,
        );
        assert_eq!(again["outbound"]["listeners"][0]["address"], "127.0.0.1:9");
        assert_eq!(again["outbound"]["listeners"][0]["service"], "orders.shop");
    }

    #[test]
    fn the_resources_name_only_what_runs() {
        let names: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
        for line in RESOURCES.lines().filter(|line| line.contains("targetRefs")) {
            assert!(
                names
                    .iter()
                    .any(|name| line.contains(&format!("name: {name} }}"))),
                "{line}"
            );
        }
    }
}
