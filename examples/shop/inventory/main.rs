//! The shop's inventory: an HTTP service over a Redis, of which any number of replicas may run.
//!
//! `GET /stock` tells what is left, `PUT /reservations/ORDER` takes some of it, `DELETE` gives it
//! back. It speaks plain HTTP on loopback and knows nothing of a mesh. So that one can watch a
//! replica fail, SIGUSR1 makes it answer 503 to everything and SIGUSR2 heals it.

mod api; // what requests mean
mod stock; // what Redis keeps

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use api::Inventory;
use stock::{Stock, Supply};

/// How long to wait after accepting failed (descriptors ran out, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The shop's inventory: stock and reservations, kept in Redis.
#[derive(Debug, Parser)]
#[command(name = "shop-inventory", version)]
struct Arguments {
    /// Where to serve HTTP
    #[arg(long, value_name = "IP:PORT", env = "LISTEN")]
    listen: SocketAddr,
    /// Redis, such as unix:///run/redis.sock or redis://127.0.0.1:6379
    #[arg(long, value_name = "URL", env = "REDIS_URL")]
    redis: String,
    /// What a shop that never had any begins with, such as wool=40,linen=25
    #[arg(long, value_name = "SKU=N", env = "STOCK", value_delimiter = ',')]
    stock: Vec<Supply>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stock = Stock::open(&arguments.redis).context("the URL of Redis")?;
    stock.supply(&arguments.stock).await.context("Redis")?;
    let inventory = Arc::new(Inventory::new(stock));
    obey_signals(&inventory)?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(inventory.clone(), stream))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(inventory: Arc<Inventory>, stream: TcpStream) {
    // Without it the connection works as well, only later.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let inventory = inventory.clone();
        async move { Ok::<_, Infallible>(api::handle(&inventory, request).await) }
    });
    // A connection's error is its peer's affair: the peer sees it as well.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Breaks and heals as signals say, and tells when that has taken effect.
fn obey_signals(inventory: &Arc<Inventory>) -> std::io::Result<()> {
    let mut breaks = signal(SignalKind::user_defined1())?;
    let mut heals = signal(SignalKind::user_defined2())?;
    let inventory = inventory.clone();
    tokio::spawn(async move {
        loop {
            let broken = tokio::select! {
                _ = breaks.recv() => true,
                _ = heals.recv() => false,
            };
            inventory.broken.store(broken, Relaxed);
            println!("{}", if broken { "broken" } else { "healed" });
        }
    });
    Ok(())
}
