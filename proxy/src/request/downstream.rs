//! The connection a request came on: whose it is, and what its requests have in common.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use selvage_certs::PeerIdentity;
use selvage_policy::server::CallerLoad;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept::{Gate, Purpose};
use crate::clock;
use crate::http::door::DoorBell;
use crate::lifecycle::{Direction, Lifecycle};
use crate::telemetry::told::{Tls, Told};
use crate::upstream::Destination;
use crate::worker::{CallerSeries, Worker};

/// The connection a request came on.
#[derive(Debug)]
pub struct Downstream {
    /// Which side of the application it is on.
    pub side: Side,
    /// Who is at its other end.
    pub peer: Option<PeerIdentity>,
    /// The address of its other end.
    pub remote: SocketAddr,
    /// The port of ours.
    pub port: u16,
    /// How it is protected.
    pub tls: Tls,
    /// Told of its requests, on HTTP/1.
    pub bell: Option<Arc<DoorBell>>,
    /// Requests in flight on it.
    pub streams: Cell<usize>,
    /// When a frame of a response last left for it, or a response ended.
    pub moved: Cell<Instant>,
    /// Responses of which a frame has left and nobody asked for the next yet.
    pub owed: Cell<usize>,
    /// What the application is told of the caller, once that is known.
    pub certificate: OnceCell<HeaderValue>,
    /// What its caller has in flight, where a policy bounds that.
    pub load: OnceCell<CallerLoad>,
}

/// Which side of the application a connection is on.
#[derive(Debug)]
pub enum Side {
    /// Toward it.
    Inbound {
        /// The application's port.
        app: Rc<Destination>,
        /// What the caller is counted in.
        caller: Rc<CallerSeries>,
    },
    /// From it.
    Outbound {
        /// What the listener is for.
        purpose: Arc<Purpose>,
    },
    /// From a client outside the mesh, at a gateway.
    Gateway {
        /// The port it came to.
        gate: Gate,
        /// The name it gave in SNI, where TLS ended here.
        server_name: Option<Box<str>>,
    },
}

/// What follows a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// Another request.
    Request,
    /// The rest of the request that was answered.
    Upload,
    /// What HTTP was upgraded to.
    Tunnel,
}

impl Downstream {
    /// Which direction its requests are counted in.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        match self.side {
            Side::Inbound { .. } => Direction::Inbound,
            Side::Outbound { .. } | Side::Gateway { .. } => Direction::Outbound,
        }
    }

    /// Cancelled when it is to end.
    #[must_use]
    pub fn closing<'d>(&'d self, lifecycle: &'d Lifecycle) -> &'d CancellationToken {
        match &self.side {
            Side::Gateway { gate, .. } => &gate.closing,
            _ => lifecycle.closing(self.direction()),
        }
    }

    /// What is told of anything on it.
    #[must_use]
    pub fn told(&self, worker: &Worker) -> Told {
        let mut told = Told::new(self.direction(), SystemTime::now());
        told.peer = Some(self.remote);
        told.tls = self.tls;
        let own = worker.shared.identity.current();
        let own = own.map(|current| current.id.clone());
        match &self.side {
            Side::Inbound { app, caller } => {
                told.destination = Some(app.label.clone());
                told.source = Some(caller.source.clone());
                told.source_identity = self.peer.as_ref().map(|peer| peer.id.clone());
                told.destination_identity = own;
            }
            Side::Outbound { .. } | Side::Gateway { .. } => {
                told.source = Some(worker.own_label().clone());
                told.source_identity = own;
            }
        }
        told
    }

    /// A request's head has come.
    pub fn begins(&self) {
        if let Some(bell) = &self.bell {
            bell.request();
        }
        self.streams.set(self.streams.get() + 1);
    }

    /// A response has ended; `what` follows on the connection.
    pub(super) fn ends(&self, what: Follows) {
        if let Some(bell) = &self.bell {
            match what {
                Follows::Request => bell.response_ended(),
                Follows::Upload => bell.response_ended_early(),
                Follows::Tunnel => {}
            }
        }
        self.streams.set(self.streams.get() - 1);
        self.moved.set(clock::recent());
    }
}
