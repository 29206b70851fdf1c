//! The worker threads: each a single-threaded runtime that accepts on its
//! listeners and serves what is handed to it.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use crate::accept::{Arrival, Dispatcher, Listener, Origin, accept_loop};
use crate::connection;
use crate::worker::{Shared, Worker};

/// Listeners on their way to a worker: more than a gateway has ports.
const ADDED: usize = 128;

/// Starts a thread per receiver. Listeners are spread over them; connections
/// are placed one by one. Further listeners go where the answer says.
pub(super) fn start(
    shared: &Arc<Shared>,
    listeners: Vec<Listener>,
    dispatcher: &Dispatcher,
    receivers: Vec<mpsc::Receiver<Arrival>>,
) -> anyhow::Result<Vec<mpsc::Sender<Listener>>> {
    let count = receivers.len();
    let mut shares: Vec<Vec<Listener>> = (0..count).map(|_| Vec::new()).collect();
    for (index, listener) in listeners.into_iter().enumerate() {
        shares[index % count].push(listener);
    }
    let mut adding = Vec::with_capacity(count);
    for (index, (receiver, listeners)) in receivers.into_iter().zip(shares).enumerate() {
        let (sender, added) = mpsc::channel(ADDED);
        adding.push(sender);
        let listeners = Listeners { listeners, added };
        let (shared, dispatcher) = (shared.clone(), dispatcher.clone());
        let runtime = move || {
            Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .map(|runtime| {
                    runtime.block_on(work(index, shared, listeners, dispatcher, receiver));
                })
        };
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                if let Err(error) = runtime() {
                    tracing::error!(worker = index, %error, "cannot start a worker");
                    std::process::exit(1);
                }
            })
            .context("cannot start a worker thread")?;
    }
    Ok(adding)
}

/// What one worker accepts on, and what is added to it.
struct Listeners {
    listeners: Vec<Listener>,
    added: mpsc::Receiver<Listener>,
}

async fn work(
    index: usize,
    shared: Arc<Shared>,
    Listeners {
        listeners,
        mut added,
    }: Listeners,
    dispatcher: Dispatcher,
    mut arrivals: mpsc::Receiver<Arrival>,
) {
    let worker = Worker::new(index, shared);
    let serve: Rc<dyn Fn(TcpStream, Origin)> = {
        let worker = worker.clone();
        Rc::new(move |stream, origin| {
            tokio::task::spawn_local(connection::serve(worker.clone(), stream, origin));
        })
    };
    let accept = {
        let serve = serve.clone();
        move |listener: Listener| {
            let (dispatcher, serve) = (dispatcher.clone(), serve.clone());
            tokio::task::spawn_local(async move {
                let name = listener.name.clone();
                if let Err(error) = accept_loop(listener, index, dispatcher, serve).await {
                    tracing::error!(listener = name, %error, "listener lost");
                }
            });
        }
    };
    for listener in listeners {
        accept(listener);
    }
    tokio::task::spawn_local(async move {
        while let Some(listener) = added.recv().await {
            accept(listener);
        }
    });
    tokio::task::spawn_local(worker.clone().tidy());
    while let Some(Arrival { stream, origin }) = arrivals.recv().await {
        match TcpStream::from_std(stream) {
            Ok(stream) => serve(stream, origin),
            Err(error) => tracing::warn!(%error, "connection dropped on its way to a worker"),
        }
    }
}
