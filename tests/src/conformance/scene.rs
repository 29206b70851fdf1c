//! The processes of a run. A [`Ground`] outlives its cases: backends, their
//! sidecars where there is a mesh around them, and a control plane if there is
//! to be one. A [`Scene`] is one case on it: its resources, and fresh proxies
//! that are told of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use http::Method;
use serde_json::{Value, json};

use super::backend::{Arrivals, Backend, Manner};
use super::case::{Case, Condition, Mode, Profile, documents};
use super::documents::{certificate, gateway_of, gateways, path_of, secret};
use super::judge;
use crate::control_plane::ControlPlane;
use crate::pki::{Identity, Pki, spiffe_id};
use crate::sidecar::Sidecar;
use crate::wait::{self, PATIENCE};

use super::proxy::Proxy;

/// HTTP backends, `namespace/name`; those in `infra` have a sidecar where there is a mesh.
const HTTP: [&str; 6] = [
    "infra/one",
    "infra/two",
    "infra/three",
    "app/one",
    "app/two",
    "web/one",
];

/// Ports of HTTP backends, and what callers may speak there.
const PORTS: [(u16, &str); 5] = [
    (80, "http"),
    (8080, "http"),
    (8081, "http2"),
    (8082, "http"),
    (7070, "grpc"),
];

/// Backends of plain bytes, on port 9000.
const BYTES: [&str; 3] = ["infra/tcp-one", "infra/tcp-two", "app/tcp"];

/// Backends that speak TLS by themselves, on port 443.
const TLS: [&str; 2] = ["infra/tls", "app/tls"];

/// Certificates of listeners, by the name of their Secret in `infra`.
const CERTIFICATES: [(&str, &[&str]); 3] = [
    (
        "certificate",
        &[
            "example.org",
            "second-example.org",
            "*.wildcard.org",
            "abc.example.com",
        ],
    ),
    ("certificate-two", &["two.example.org"]),
    ("certificate-wildcard", &["*.example.org"]),
];

/// Who terminates TLS where it passes a gateway unopened.
const BEHIND: &str = "behind";

/// What outlives a case.
pub struct Ground {
    /// How routes are used.
    pub profile: Profile,
    /// Where proxies learn of them.
    pub mode: Mode,
    /// What came to the backends.
    pub arrivals: Arrivals,
    pub(super) pki: Pki,
    pub(super) control: Option<ControlPlane>,
    /// Certificates by the name of their Secret.
    certificates: BTreeMap<String, Identity>,
    backends: BTreeMap<String, Vec<Backend>>,
    sidecars: BTreeMap<String, Sidecar>,
}

/// One case on its ground.
pub struct Scene<'a> {
    /// What it stands on.
    pub ground: &'a Ground,
    /// Gateways by `namespace/name`, callers by their namespace.
    proxies: BTreeMap<String, Proxy>,
    /// What was applied for this case, to be taken back.
    applied: Vec<String>,
}

impl Ground {
    /// Starts what cases stand on.
    pub async fn lay(profile: Profile, mode: Mode) -> Self {
        let pki = Pki::new();
        let arrivals = Arrivals::default();
        let mut certificates = BTreeMap::new();
        for (name, hosts) in CERTIFICATES {
            certificates.insert(name.to_owned(), certificate(&pki, hosts));
        }
        certificates.insert(
            BEHIND.to_owned(),
            certificate(&pki, &["behind.example.org"]),
        );
        let mut ground = Self {
            profile,
            mode,
            backends: backends(&arrivals, &certificates[BEHIND]).await,
            arrivals,
            control: match mode {
                Mode::Static => None,
                Mode::ControlPlane => Some(ControlPlane::start().await),
            },
            pki,
            certificates,
            sidecars: BTreeMap::new(),
        };
        if let Some(control) = &ground.control {
            control.apply(&ground.common()).await;
        }
        // As a gateway from files it is plaintext to the backends; everywhere else, mutual TLS.
        if (profile, mode) != (Profile::Gateway, Mode::Static) {
            ground.start_sidecars().await;
        }
        ground
    }

    async fn start_sidecars(&mut self) {
        let names = HTTP.iter().filter_map(|name| name.strip_prefix("infra/"));
        for name in names {
            let mut builder = Sidecar::builder(name).set("workload.namespace", "infra");
            for (port, protocol) in PORTS {
                builder =
                    builder.application(port, self.address(&format!("infra/{name}")), protocol);
            }
            let builder = match &self.control {
                None => builder.identity(self.pki.account("infra", name)),
                Some(control) => {
                    builder.joining(control.grpc, &token(control, "infra", name, name).await)
                }
            };
            let sidecar = builder.start(&self.pki).await;
            self.sidecars.insert(name.to_owned(), sidecar);
            if let Some(control) = &self.control {
                registered(control, "infra", name).await;
            }
        }
    }

    /// Where a backend listens itself; of several replicas the first.
    #[must_use]
    pub fn address(&self, backend: &str) -> SocketAddr {
        let replicas = self
            .backends
            .get(backend)
            .unwrap_or_else(|| panic!("there is no backend `{backend}`"));
        replicas[0].address
    }

    /// The leaf of a certificate, in DER, by the name of its Secret.
    ///
    /// # Panics
    /// When there is none of the name.
    #[must_use]
    pub fn leaf(&self, name: &str) -> Vec<u8> {
        let identity = self
            .certificates
            .get(name)
            .unwrap_or_else(|| panic!("there is no certificate `{name}`"));
        identity.leaf()
    }

    /// What every case finds there.
    pub(super) fn common(&self) -> String {
        let mut all = Vec::new();
        for (name, kind) in [
            ("infra", "infra"),
            ("app", "backend"),
            ("web", "backend"),
            ("consumer", "consumer"),
        ] {
            all.push(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": name, "labels": { "conformance": kind } },
            }));
        }
        for name in HTTP {
            all.push(self.service(name, &PORTS, &[name]));
        }
        for name in BYTES {
            all.push(self.service(name, &[(9000, "tcp")], &[name]));
        }
        for name in TLS {
            all.push(self.service(name, &[(443, "tcp")], &[name]));
        }
        all.push(self.service("infra/pair", &PORTS, &["infra/pair"]));
        match self.profile {
            Profile::Mesh => {
                // What is called in the mesh: its own endpoints are two of the backends.
                all.push(self.service("infra/echo", &PORTS, &["infra/one", "infra/two"]));
                all.push(self.service("infra/tcp-echo", &[(9000, "tcp")], &["infra/tcp-one"]));
                all.push(self.service("infra/tls-echo", &[(443, "tcp")], &["infra/tls"]));
            }
            Profile::Gateway => {
                for (name, identity) in &self.certificates {
                    all.push(secret(name, identity));
                }
                all.extend(gateways());
            }
        }
        let texts: Vec<String> = all.iter().map(Value::to_string).collect();
        texts.join("\n---\n")
    }

    /// A Service document. One whose workloads register has no endpoints in it.
    fn service(&self, name: &str, ports: &[(u16, &str)], backends: &[&str]) -> Value {
        let (namespace, short) = name.split_once('/').expect("a backend has a namespace");
        let has_sidecar = (self.profile, self.mode) != (Profile::Gateway, Mode::Static)
            && HTTP.contains(&name)
            && namespace == "infra";
        let ports: Vec<Value> = ports
            .iter()
            .map(|(port, protocol)| json!({ "port": port, "protocol": protocol }))
            .collect();
        let endpoints: Vec<Value> = match (has_sidecar, self.sidecars.get(short)) {
            (true, Some(sidecar)) if self.mode == Mode::Static => vec![
                json!({ "address": sidecar.inbound(), "identity": spiffe_id(namespace, short) }),
            ],
            (true, _) => Vec::new(),
            (false, _) => {
                let replicas = backends.iter().flat_map(|name| &self.backends[*name]);
                replicas
                    .map(|one| json!({ "address": one.address }))
                    .collect()
            }
        };
        json!({
            "apiVersion": "selvage.dev/v1", "kind": "Service",
            "metadata": { "name": short, "namespace": namespace },
            "spec": { "ports": ports, "endpoints": endpoints },
        })
    }

    /// The resources of a case with everything filled in.
    fn fill(&self, text: &str) -> String {
        let parent = match self.profile {
            Profile::Gateway => "[{ name: same, namespace: infra }]",
            Profile::Mesh => "[{ group: \"\", kind: Service, name: echo, namespace: infra }]",
        };
        text.replace("${parent}", parent)
    }
}

impl<'a> Scene<'a> {
    /// Gives a case its resources, and starts its proxies.
    ///
    /// # Panics
    /// When the resources are refused, or a proxy does not come up.
    pub async fn set(ground: &'a Ground, case: &Case) -> Self {
        let resources = ground.fill(&case.resources);
        let mut scene = Self {
            ground,
            proxies: BTreeMap::new(),
            applied: Vec::new(),
        };
        let listed = documents(&resources);
        if let Some(control) = &ground.control {
            if !listed.is_empty() {
                control.apply(&resources).await;
            }
            scene.applied = listed.iter().map(path_of).collect();
        }
        match ground.profile {
            Profile::Gateway => {
                for name in &case.head.serves {
                    let gateway = gateway_of(&listed, name);
                    let proxy = Proxy::gateway(ground, name, &gateway, &resources).await;
                    scene.proxies.insert(name.clone(), proxy);
                }
            }
            Profile::Mesh => {
                let rows = case.expectations(Profile::Mesh);
                let others = rows.filter_map(|one| one.at.clone());
                let namespaces = others.filter(|at| !at.contains('.') && !at.contains('/'));
                for namespace in namespaces.chain(["infra".to_owned()]) {
                    if let Entry::Vacant(place) = scene.proxies.entry(namespace) {
                        let listeners = &case.head.listeners;
                        let proxy = Proxy::caller(ground, place.key(), listeners, &resources).await;
                        place.insert(proxy);
                    }
                }
            }
        }
        scene
    }

    /// Where requests go: a gateway's port, a caller's sidecar, a service's
    /// own port on the caller's machine, or a backend itself.
    ///
    /// # Panics
    /// When there is no such place.
    #[must_use]
    pub fn address(&self, at: Option<&str>, port: u16) -> SocketAddr {
        let nobody = || panic!("nothing runs at {at:?}");
        match (self.ground.profile, at) {
            (Profile::Gateway, None) => {
                let first = self.proxies.values().next();
                first.unwrap_or_else(nobody).bound(&port.to_string())
            }
            (Profile::Gateway, Some(name)) => {
                let one = self.proxies.get(name);
                one.unwrap_or_else(nobody).bound(&port.to_string())
            }
            (Profile::Mesh, None) => self.proxies["infra"].bound("outbound"),
            (Profile::Mesh, Some(name)) if name.contains('/') => self.ground.address(name),
            (Profile::Mesh, Some(name)) if name.contains('.') => self.proxies["infra"].bound(name),
            (Profile::Mesh, Some(namespace)) => {
                let one = self.proxies.get(namespace);
                one.unwrap_or_else(nobody).bound("outbound")
            }
        }
    }

    /// What is wrong with what a resource says of itself.
    pub async fn condition(&self, due: &Condition) -> Vec<String> {
        let Some(control) = &self.ground.control else {
            return Vec::new();
        };
        judge::condition(due, &control.get(&format!("/api/v1/{}", due.of)).await)
    }

    /// Takes the case's resources back.
    pub async fn clear(self) {
        let Some(control) = &self.ground.control else {
            return;
        };
        for path in self.applied.iter().rev() {
            let answer = control.ask(Method::DELETE, path, "").await;
            let answer = answer.expect("the operator API answers");
            assert!(answer.status.is_success(), "{path}: {}", answer.text());
        }
    }
}

/// A join token for workloads of `namespace/account` that stand for `service`.
pub(super) async fn token(
    control: &ControlPlane,
    namespace: &str,
    account: &str,
    service: &str,
) -> String {
    let workload = format!("{namespace}/{account}");
    let asked = json!({ "workload": workload, "services": [service], "uses": 100 }).to_string();
    let answer = control.ask(Method::POST, "/api/v1/tokens", &asked).await;
    let answer = answer.expect("the operator API answers");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let said: Value = serde_json::from_slice(&answer.body).expect("the operator API speaks JSON");
    said["token"].as_str().expect("a token is text").to_owned()
}

async fn registered(control: &ControlPlane, namespace: &str, name: &str) {
    let what = format!("a healthy workload of {namespace}/{name}");
    wait::until(&what, 3 * PATIENCE, async || {
        let services = control.get("/api/v1/services").await;
        let all = services["items"].as_array().cloned().unwrap_or_default();
        let one = all
            .iter()
            .find(|one| one["name"] == name && one["namespace"] == namespace);
        let workloads = one.and_then(|one| one["workloads"].as_array());
        workloads.is_some_and(|all| all.iter().any(|one| one["healthy"] == true))
    })
    .await;
}

async fn backends(arrivals: &Arrivals, behind: &Identity) -> BTreeMap<String, Vec<Backend>> {
    let acceptor = std::sync::Arc::new(behind.server(&["h2", "http/1.1"])).into();
    let tls = Manner::Tls(acceptor);
    let mut all = BTreeMap::new();
    let kinds = [
        (&HTTP[..], Manner::Http),
        (&BYTES[..], Manner::Bytes),
        (&TLS[..], tls),
    ];
    for (names, manner) in kinds {
        for name in names {
            let one = Backend::start(name, 0, manner.clone(), arrivals).await;
            all.insert((*name).to_owned(), vec![one]);
        }
    }
    let mut pair = Vec::new();
    for replica in 0..2 {
        pair.push(Backend::start("infra/pair", replica, Manner::Http, arrivals).await);
    }
    all.insert("infra/pair".to_owned(), pair);
    all
}
