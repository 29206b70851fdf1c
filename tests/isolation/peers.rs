//! The peers: a caller's proxy before three replicas, and a server's proxy
//! before one application, of each kind. What they are told stands in `peers/`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use selvage_tests::envoy::Envoy;
use selvage_tests::mesh::{EndpointOf, service};
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::{Builder, Sidecar};

/// Envoy's defaults as its documentation gives them, written out.
const AS_DOCUMENTED: &str = "{ consecutive_5xx: 5, consecutive_gateway_failure: 5, enforcing_consecutive_5xx: 100, enforcing_consecutive_gateway_failure: 0, interval: 10s, base_ejection_time: 30s, max_ejection_percent: 50 }";
/// What serves these scenes best: it looks every second, ejects for seconds and not for half a
/// minute, and may eject all.
const TUNED: &str = "{ consecutive_5xx: 5, consecutive_gateway_failure: 5, enforcing_consecutive_5xx: 100, enforcing_consecutive_gateway_failure: 100, interval: 1s, base_ejection_time: 1s, max_ejection_percent: 100 }";

const CALLER: &str = include_str!("peers/envoy.yaml");
const SERVER: &str = include_str!("peers/envoy-server.yaml");
const ADAPTIVE: &str = include_str!("peers/adaptive-concurrency.yaml");
const ADMISSION: &str = include_str!("peers/admission-control.yaml");
const TRAFFIC_POLICY: &str = include_str!("peers/selvage.yaml");
const SERVER_POLICY: &str = include_str!("peers/selvage-server.yaml");

/// A proxy that refuses its configuration says so sooner.
const REFUSES_WITHIN: Duration = Duration::from_secs(2);

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Peer {
    /// Selvage as shipped.
    Selvage,
    /// Envoy by its documented defaults.
    Envoy,
    /// Envoy with what serves these scenes best.
    EnvoyTuned,
    /// A proxy that protects nobody: Selvage without a policy of its server.
    Unprotected,
}

/// A running proxy.
pub(crate) struct Proxy {
    /// Where callers ask.
    pub(crate) address: SocketAddr,
    _process: Running,
}

#[expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "held to be ended with it, and one at a time"
)]
enum Running {
    Sidecar(Sidecar, Pki),
    Envoy(Envoy),
}

impl Peer {
    /// As the tables call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Selvage => "Selvage",
            Self::Envoy => "Envoy",
            Self::EnvoyTuned => "Envoy, tuned",
            Self::Unprotected => "unprotected",
        }
    }

    /// Whether it calls replicas; the one without protection is for the server's side alone.
    pub(crate) fn calls(self) -> bool {
        self != Self::Unprotected
    }

    /// A caller's proxy before three replicas.
    pub(crate) async fn before_replicas(self, replicas: &[SocketAddr]) -> Proxy {
        let (outlier_detection, panic_threshold) = match self {
            Self::Selvage | Self::Unprotected => return selvage(replicas).await,
            Self::Envoy => (AS_DOCUMENTED, "50"),
            Self::EnvoyTuned => (TUNED, "0"),
        };
        let ports: Vec<_> = replicas.iter().map(|one| one.port().to_string()).collect();
        let config = fill(
            CALLER,
            &[
                ("outlier_detection", outlier_detection),
                ("panic_threshold", panic_threshold),
                ("first", &ports[0]),
                ("second", &ports[1]),
                ("third", &ports[2]),
            ],
        );
        envoy(&config).await
    }

    /// A server's proxy before its application; why there is none.
    pub(crate) async fn before_application(self, application: SocketAddr) -> Result<Proxy, String> {
        let filters = match self {
            Self::Selvage => return protected(application, SERVER_POLICY).await,
            Self::Unprotected => return protected(application, "").await,
            Self::Envoy => format!("{ADMISSION}{ADAPTIVE}"),
            Self::EnvoyTuned => ADAPTIVE.to_owned(),
        };
        let port = application.port().to_string();
        let config = fill(
            SERVER,
            &[("filters", &indented(&filters)), ("first", &port)],
        );
        Ok(envoy(&config).await)
    }
}

async fn envoy(config: &str) -> Proxy {
    let envoy = Envoy::run(config).await;
    Proxy {
        address: envoy.listener,
        _process: Running::Envoy(envoy),
    }
}

async fn selvage(replicas: &[SocketAddr]) -> Proxy {
    let endpoints: Vec<EndpointOf> = replicas.iter().map(|one| (*one, None)).collect();
    let builder = Sidecar::builder("client")
        .resources(&service("orders", "http", &endpoints))
        .resources(TRAFFIC_POLICY);
    let pki = Pki::new();
    let sidecar = builder.start(&pki).await;
    Proxy {
        address: sidecar.outbound(),
        _process: Running::Sidecar(sidecar, pki),
    }
}

/// In plaintext, as the others: what is measured is the protection, not the handshakes.
async fn protected(application: SocketAddr, policy: &str) -> Result<Proxy, String> {
    let builder = || -> Builder {
        Sidecar::builder("orders")
            .application(80, application, "http")
            .set("inbound.tls", "permissive")
            .resources(policy)
    };
    let pki = Pki::new();
    let written = builder().write(&pki);
    let mut trial = written.command();
    let ended = tokio::time::timeout(REFUSES_WITHIN, trial.kill_on_drop(true).output()).await;
    if let Ok(output) = ended {
        let output = output.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let why = said.lines().find(|line| line.contains("error"));
        return Err(why.unwrap_or("it ended without a word").to_owned());
    }
    let sidecar = builder().start(&pki).await;
    Ok(Proxy {
        address: sidecar.inbound(),
        _process: Running::Sidecar(sidecar, pki),
    })
}

/// Puts values in the place of their @names@.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(&format!("@{name}@"), value)
        })
}

/// The list of filters as deep as its place in the template; its first line stands there already.
fn indented(filters: &str) -> String {
    let mut deep = String::new();
    for (number, line) in filters.lines().enumerate() {
        let indent = if number == 0 {
            ""
        } else {
            "                  "
        };
        let _ = writeln!(deep, "{indent}{line}");
    }
    deep.trim_end().to_owned()
}
