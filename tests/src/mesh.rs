//! The usual scene: a caller's sidecar, mutual TLS, a server's sidecar, the
//! application; in static mode, on loopback, on ports nobody else has.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::pki::{Pki, spiffe_id};
use crate::sidecar::{Builder, ORDERS, Sidecar};

/// Two running sidecars: `client` calls `orders.shop`, port 80, whose application is given.
pub struct Mesh {
    /// Who issued their identities.
    pub pki: Pki,
    /// The caller's sidecar: outbound, and a listener of its own for `orders.shop`, port 80.
    pub client: Sidecar,
    /// The server's sidecar: inbound.
    pub server: Sidecar,
}

/// The scene before it is set.
pub struct MeshBuilder {
    pki: Pki,
    protocol: String,
    client: Builder,
    server: Builder,
}

/// One endpoint of a service: an address, and the identity of its sidecar if it has one.
pub type EndpointOf = (SocketAddr, Option<String>);

/// A Service document for port 80 of `name.shop`.
#[must_use]
pub fn service(name: &str, protocol: &str, endpoints: &[EndpointOf]) -> String {
    let list: Vec<Value> = endpoints
        .iter()
        .map(|(address, identity)| match identity {
            Some(identity) => json!({ "address": address, "identity": identity }),
            None => json!({ "address": address }),
        })
        .collect();
    let document = json!({
        "kind": "Service",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "ports": [{ "port": 80, "protocol": protocol }], "endpoints": list },
    });
    document.to_string()
}

/// A TrafficPolicy of `orders.shop` with the given spec, in flow or block YAML indented by two.
#[must_use]
pub fn traffic_policy(spec: &str) -> String {
    format!(
        "kind: TrafficPolicy\nmetadata: {{ name: orders, namespace: shop }}\nspec:\n  targetRefs: [{{ kind: Service, name: orders }}]\n{spec}"
    )
}

impl Mesh {
    /// The scene with its default settings; the port speaks `protocol`.
    pub async fn of(application: SocketAddr, protocol: &str) -> Self {
        Self::builder(application, protocol).start().await
    }

    /// The scene, to be changed before it is set.
    #[must_use]
    pub fn builder(application: SocketAddr, protocol: &str) -> MeshBuilder {
        MeshBuilder {
            pki: Pki::new(),
            protocol: protocol.to_owned(),
            client: Sidecar::builder("client").listener(ORDERS, 80),
            server: Sidecar::builder("orders").application(80, application, protocol),
        }
    }

    /// Where callers speak HTTP by authority.
    #[must_use]
    pub fn outbound(&self) -> SocketAddr {
        self.client.outbound()
    }
}

impl MeshBuilder {
    /// A setting of the caller's sidecar.
    #[must_use]
    pub fn client_set(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.client = self.client.set(path, value);
        self
    }

    /// A setting of the server's sidecar.
    #[must_use]
    pub fn server_set(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.server = self.server.set(path, value);
        self
    }

    /// A setting of both.
    #[must_use]
    pub fn set(self, path: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.client_set(path, value.clone()).server_set(path, value)
    }

    /// Resources of the caller's sidecar, beside the service it calls.
    #[must_use]
    pub fn client_resources(mut self, yaml: &str) -> Self {
        self.client = self.client.resources(yaml);
        self
    }

    /// Resources of the server's sidecar.
    #[must_use]
    pub fn server_resources(mut self, yaml: &str) -> Self {
        self.server = self.server.resources(yaml);
        self
    }

    /// The command that runs the caller's sidecar, and that of the server's.
    #[must_use]
    pub fn under(mut self, client: &[String], server: &[String]) -> Self {
        self.client = self.client.under(client);
        self.server = self.server.under(server);
        self
    }

    /// Variables in the environment of both.
    #[must_use]
    pub fn environment(mut self, variables: &[(&'static str, String)]) -> Self {
        for (name, value) in variables {
            self.client = self.client.environment(name, value);
            self.server = self.server.environment(name, value);
        }
        self
    }

    /// Starts the server's sidecar, then the caller's.
    pub async fn start(self) -> Mesh {
        let server = self.server.start(&self.pki).await;
        let endpoint = (server.inbound(), Some(spiffe_id("shop", "orders")));
        let client = self
            .client
            .resources(&service("orders", &self.protocol, &[endpoint]));
        let client = client.start(&self.pki).await;
        Mesh {
            pki: self.pki,
            client,
            server,
        }
    }
}

/// A caller's sidecar that reaches applications without one, in plaintext.
pub async fn plaintext_caller(
    protocol: &str,
    applications: &[SocketAddr],
    resources: &str,
) -> (Pki, Sidecar) {
    let pki = Pki::new();
    let endpoints: Vec<EndpointOf> = applications
        .iter()
        .map(|address| (*address, None))
        .collect();
    let mut builder = Sidecar::builder("client")
        .listener(ORDERS, 80)
        .resources(&service("orders", protocol, &endpoints));
    if !resources.is_empty() {
        builder = builder.resources(resources);
    }
    let sidecar = builder.start(&pki).await;
    (pki, sidecar)
}
