//! An Envoy beside the mesh: the real binary, fetched by `tests/run`, with a
//! configuration that speaks mutual TLS with SPIFFE identities.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::client;
use crate::pki::Identity;
use crate::process::{Process, target};
use crate::wait::{self, PATIENCE};

/// A running Envoy with one listener.
pub struct Envoy {
    /// Its process.
    pub process: Process,
    /// Where its listener is bound.
    pub listener: SocketAddr,
    _folder: TempDir,
}

/// The binary: `SELVAGE_ENVOY`, else where `tests/run` puts it.
fn binary() -> PathBuf {
    let path = std::env::var_os("SELVAGE_ENVOY")
        .map_or_else(|| target().join("envoy/envoy"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is not there: `tests/run` fetches it, or set SELVAGE_ENVOY",
        path.display()
    );
    path
}

impl Envoy {
    /// An Envoy that takes plaintext HTTP/1.1 and calls `upstream` by mutual TLS, demanding `peer`.
    pub async fn caller(
        identity: &Identity,
        upstream: SocketAddr,
        peer: &str,
        http2: bool,
    ) -> Self {
        let tls = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": tls_context(identity, peer, http2),
        });
        Self::start(&json!({}), upstream, &tls, http2).await
    }

    /// An Envoy that takes mutual TLS from `peer` alone and calls the plaintext `application`.
    pub async fn server(
        identity: &Identity,
        application: SocketAddr,
        peer: &str,
        http2: bool,
    ) -> Self {
        let tls = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": tls_context(identity, peer, http2),
        });
        Self::start(&tls, application, &json!({}), false).await
    }

    async fn start(
        downstream: &Value,
        upstream: SocketAddr,
        upstream_tls: &Value,
        http2: bool,
    ) -> Self {
        let config = json!({
            "admin": { "address": address(SocketAddr::from(([127, 0, 0, 1], 0))) },
            "static_resources": {
                "listeners": [{
                    "name": "main",
                    "address": address(SocketAddr::from(([127, 0, 0, 1], 0))),
                    "filter_chains": [chain(downstream)],
                }],
                "clusters": [cluster(upstream, upstream_tls, http2)],
            },
        });
        Self::run(&config.to_string()).await
    }

    /// An Envoy with a configuration of the test's own, in YAML, whose admin port and first
    /// listener are on port 0.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn run(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let admin_address = folder.path().join("admin");
        let path = folder.path().join("envoy.yaml");
        std::fs::write(&path, config).expect("a temporary file can be written");
        let mut command = Command::new(binary());
        command
            .arg("-c")
            .arg(&path)
            .arg("--admin-address-path")
            .arg(&admin_address);
        command.args([
            "--concurrency",
            "1",
            "--log-level",
            "warning",
            "--use-dynamic-base-id",
        ]);
        let process = Process::start("envoy", command);
        let listener = listener(&admin_address).await;
        Self {
            process,
            listener,
            _folder: folder,
        }
    }
}

/// Asks Envoy's admin port, once it is there, where the listener is bound.
async fn listener(admin_address: &std::path::Path) -> SocketAddr {
    wait::until("Envoy's admin address", PATIENCE, || async {
        std::fs::read_to_string(admin_address).is_ok_and(|text| text.parse::<SocketAddr>().is_ok())
    })
    .await;
    let admin = std::fs::read_to_string(admin_address).expect("it was there just now");
    let admin = admin.parse().expect("it was an address just now");
    let bound = || async {
        let answer = client::try_get(admin, "localhost", "/listeners?format=json")
            .await
            .ok()?;
        let listeners: Value = serde_json::from_slice(&answer.body).ok()?;
        let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
        Some(SocketAddr::from(([127, 0, 0, 1], port)))
    };
    wait::until("Envoy's listener", PATIENCE, || async {
        bound().await.is_some()
    })
    .await;
    bound().await.expect("it was bound just now")
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

fn chain(tls: &Value) -> Value {
    let mut chain = json!({
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "main",
                "codec_type": "AUTO",
                "route_config": { "virtual_hosts": [{
                    "name": "all", "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
                }]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
            },
        }],
    });
    if tls.get("@type").is_some() {
        chain["transport_socket"] =
            json!({ "name": "envoy.transport_sockets.tls", "typed_config": tls });
    }
    chain
}

fn cluster(upstream: SocketAddr, tls: &Value, http2: bool) -> Value {
    let protocol = if http2 {
        "http2_protocol_options"
    } else {
        "http_protocol_options"
    };
    let mut cluster = json!({
        "name": "upstream", "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": { "cluster_name": "upstream", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": address(upstream) } },
        ]}]},
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { protocol: {} },
        }},
    });
    if tls.get("@type").is_some() {
        cluster["transport_socket"] =
            json!({ "name": "envoy.transport_sockets.tls", "typed_config": tls });
    }
    cluster
}

fn tls_context(identity: &Identity, peer: &str, http2: bool) -> Value {
    json!({
        "alpn_protocols": [if http2 { "h2" } else { "http/1.1" }],
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{
            "certificate_chain": { "filename": identity.certificate },
            "private_key": { "filename": identity.key },
        }],
        "validation_context": {
            "trusted_ca": { "filename": identity.trust_bundle },
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
        },
    })
}
