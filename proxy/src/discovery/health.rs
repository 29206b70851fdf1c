//! Whether the application beside us answers, port by port: what the registry
//! is told. Probes are small and bounded; they never touch the request path.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A probe that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How a port is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It is taken to be well.
    Off,
    /// It accepts a connection.
    Tcp,
    /// It answers GET on this path with 2xx or 3xx.
    Http {
        /// The path.
        path: String,
    },
}

/// One port of the application.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Where the application listens.
    pub address: SocketAddr,
    /// How to ask it.
    pub check: Check,
    /// How often.
    pub interval: Duration,
}

/// Whether each port answers, in the order given.
pub type Healths = Vec<bool>;

/// Probes every port once, and then in its interval for as long as it is
/// polled; `sender` is told of changes only.
pub async fn run(ports: Vec<Probed>, sender: watch::Sender<Healths>) {
    let probes = ports.into_iter().enumerate().map(|(index, port)| {
        let sender = &sender;
        async move {
            loop {
                let healthy = probe(&port).await;
                sender.send_if_modified(|healths| {
                    let changed = healths[index] != healthy;
                    healths[index] = healthy;
                    changed
                });
                if port.check == Check::Off {
                    return;
                }
                tokio::time::sleep(port.interval).await;
            }
        }
    });
    futures_util::future::join_all(probes).await;
}

/// Asks one port once.
pub async fn probe(port: &Probed) -> bool {
    let asked = async {
        match &port.check {
            Check::Off => true,
            Check::Tcp => TcpStream::connect(port.address).await.is_ok(),
            Check::Http { path } => http(port.address, path).await.unwrap_or(false),
        }
    };
    tokio::time::timeout(TIMEOUT.min(port.interval), asked)
        .await
        .unwrap_or(false)
}

async fn http(address: SocketAddr, path: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "selvage-health")
        .body(Empty::<bytes::Bytes>::new())?;
    tokio::select! {
        response = sender.send_request(request) => {
            let status = response?.status();
            Ok(status.is_success() || status.is_redirection())
        }
        ended = connection => {
            ended?;
            Ok(false)
        }
    }
}
