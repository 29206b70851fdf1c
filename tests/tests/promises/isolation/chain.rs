//! A chain of services, each with a sidecar, whose applications call the next
//! one for what they are asked, and pass nothing on of it but `traceparent`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use selvage_tests::app::App;
use selvage_tests::body::{self, Body};
use selvage_tests::client::{Answer, Http1, Http2, request};
use selvage_tests::grpc;
use selvage_tests::mesh::service;
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{Builder, Sidecar};

/// One service of namespace `shop`.
pub(super) struct Link {
    name: &'static str,
    pub(super) app: App,
    pub(super) sidecar: Sidecar,
}

/// How an application reaches the service that it calls.
#[derive(Clone)]
pub(super) struct Next {
    outbound: Arc<OnceLock<SocketAddr>>,
    authority: String,
}

/// What all sidecars of a chain have in common.
pub(super) struct Mesh {
    pki: Pki,
    protocol: &'static str,
    config: String,
}

/// A `traceparent` of its own for each number.
pub(super) fn traceparent(number: usize) -> String {
    format!("00-{:032x}-00f067aa0ba902b7-00", number + 1)
}

/// The fields that only sidecars may say to each other.
pub(super) fn own_fields(headers: &HeaderMap) -> Vec<&str> {
    let names = headers.keys().map(http::HeaderName::as_str);
    names
        .filter(|name| name.starts_with("x-selvage-"))
        .collect()
}

impl Mesh {
    /// `defaults`: those of the MeshConfig, in flow YAML.
    pub(super) fn new(protocol: &'static str, defaults: &str) -> Self {
        let config = format!(
            "kind: MeshConfig\nmetadata: {{ name: mesh }}\nspec: {{ trustDomain: mesh.local, defaults: {defaults} }}"
        );
        Self {
            pki: Pki::new(),
            protocol,
            config,
        }
    }

    fn reaching(&self, builder: Builder, below: Option<&Link>) -> Builder {
        let builder = builder
            .set("telemetry.accessLog", "json")
            .resources(&self.config);
        match below {
            None => builder,
            Some(Link { name, sidecar, .. }) => {
                let endpoint = (sidecar.inbound(), Some(spiffe_id("shop", name)));
                builder.resources(&service(name, self.protocol, &[endpoint]))
            }
        }
    }

    /// A service whose application answers by `handler`, and calls `below`.
    pub(super) async fn link<F, R>(
        &self,
        name: &'static str,
        below: Option<&Link>,
        tls: &str,
        handler: F,
    ) -> Link
    where
        F: Fn(Request<Incoming>, Next) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let outbound = Arc::new(OnceLock::new());
        let next = Next {
            outbound: Arc::clone(&outbound),
            authority: below.map_or_else(String::new, |link| format!("{}.shop", link.name)),
        };
        let app = App::start(move |received| handler(received, next.clone())).await;
        let builder = Sidecar::builder(name)
            .application(80, app.address, self.protocol)
            .set("inbound.tls", tls);
        let sidecar = self.reaching(builder, below).start(&self.pki).await;
        outbound.set(sidecar.outbound()).expect("it is set once");
        Link { name, app, sidecar }
    }

    /// The sidecar of who calls the first service.
    pub(super) async fn client(&self, below: &Link) -> Sidecar {
        let builder = Sidecar::builder("client");
        self.reaching(builder, Some(below)).start(&self.pki).await
    }
}

impl Next {
    /// Calls it on behalf of a request.
    pub(super) async fn get(&self, received: &HeaderMap) -> Answer {
        let trace = received.get("traceparent");
        let fields: Vec<_> = trace
            .map(|trace| ("traceparent", trace.to_str().unwrap()))
            .into_iter()
            .collect();
        get(*self.outbound.get().unwrap(), &self.authority, &fields).await
    }

    /// Calls it by gRPC on behalf of a request.
    pub(super) async fn unary(&self, received: &HeaderMap) -> grpc::Outcome {
        let connection = Http2::connect(*self.outbound.get().unwrap()).await;
        let mut sent = grpc::request(&self.authority, "Unary", body::full(grpc::frame(b"x")));
        if let Some(trace) = received.get("traceparent") {
            sent.headers_mut().insert("traceparent", trace.clone());
        }
        grpc::call(&connection, sent).await.unwrap()
    }
}

/// GET with these fields, over a connection of its own.
pub(super) async fn get(
    address: SocketAddr,
    authority: &str,
    fields: &[(&'static str, &str)],
) -> Answer {
    let mut sent = request(Method::GET, authority, "/", body::empty());
    for (name, value) in fields {
        sent.headers_mut().insert(*name, value.parse().unwrap());
    }
    Http1::connect(address).await.call(sent).await.unwrap()
}
