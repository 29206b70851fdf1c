//! Who is at the other end of a gRPC connection. Filled in once, after the
//! handshake; read by every service. Takes nothing from messages.

use std::net::SocketAddr;
use std::time::SystemTime;

use selvage_certs::{PeerIdentity, SpiffeId};
use tonic::{Request, Status};

/// A connection's client, as the handshake proved it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Absent where it presented no certificate, as a workload that attests.
    pub(crate) identity: Option<PeerIdentity>,
    pub(crate) address: SocketAddr,
}

/// A workload with a certificate that is alive.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) id: SpiffeId,
    pub(crate) namespace: String,
    pub(crate) not_after: SystemTime,
    pub(crate) address: SocketAddr,
}

/// The workload that calls.
///
/// # Errors
/// It presented no certificate, its certificate has ended since, or its
/// identity is not that of a service account.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let peer = request.extensions().get::<Peer>();
    let (identity, address) = peer
        .and_then(|peer| Some((peer.identity.clone()?, peer.address)))
        .ok_or_else(|| Status::unauthenticated("a client certificate is needed here"))?;
    if identity.not_after <= SystemTime::now() {
        return Err(Status::unauthenticated(
            "the client certificate has ended since this connection began: renew and connect again",
        ));
    }
    let namespace = identity.id.namespace().map(str::to_owned).ok_or_else(|| {
        Status::permission_denied("the caller's identity is not that of a service account")
    })?;
    Ok(Caller {
        id: identity.id,
        namespace,
        not_after: identity.not_after,
        address,
    })
}
