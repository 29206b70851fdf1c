//! Identities of the mesh: SPIFFE ids, certificates, trust bundles and TLS configurations.
//!
//! Values in, values out: nothing here opens a socket or a file, reads a clock or waits. Where time
//! matters `now` is an argument; during a handshake rustls brings its own.

// who somebody is
mod id;

// what proves it
mod key;

// asking for a certificate
mod csr;

// giving one
mod ca;

// how long it lasts
mod life;

// what a certificate says
mod leaf;

// a certificate with its key
mod svid;

// whose certificates count
mod bundle;

// whether a peer is who it must be
mod chain;

// chains verified lately
mod proven;

// the same, as rustls asks it
mod verifier;

// configurations of both sides
mod tls;

// certificates that strangers are shown
mod pair;

// how a server shows them
mod presented;

// which port is meant
mod sni;

// how a handshake ended
mod outcome;

// the next certificate, after the last has expired
mod renewal;

// the first certificate
mod token;

// small tools: text and clocks
mod hex;
mod pem;
mod time;

pub use bundle::{InvalidTrustBundle, ROOTS, TrustBundle, fingerprint};
pub use ca::{CaError, IntermediateCa, IssuedSvid, RootCa};
pub use chain::{INTERMEDIATES, PeerIdentity, RefusedPeer, peer_identity, recheck};
pub use csr::{CSR_BYTES, Csr, InvalidCsr};
pub use id::{InvalidSpiffeId, SPIFFE_ID_BYTES, SpiffeId, TRUST_DOMAIN_BYTES, TrustDomain};
pub use key::{InvalidKey, KeyPair, PublicKey};
pub use leaf::{CERTIFICATE_BYTES, InvalidSvid};
pub use life::{BACK_DATED, LONGEST_TTL};
pub use outcome::{HandshakeOutcome, handshake_outcome};
pub use pair::{InvalidPair, PAIR_BYTES, ServerPair};
pub use pem::certificates_to_pem;
pub use presented::{CHAIN, InvalidPresented, Presented, presenting_server_config};
pub use renewal::{RefusedRenewal, verify_renewal};
pub use sni::{InvalidSni, SNI_BYTES, Sni, parse_sni, sni_for};
pub use svid::Svid;
pub use tls::{
    ALPN_H2, ALPN_HTTP11, ALPN_TCP, CLIENT_SESSIONS, InvalidTls, MeshTls, SERVER_SESSIONS,
    bootstrap_client_config, control_plane_client_config, control_plane_server_config,
};
pub use token::{InvalidJoinToken, JoinToken, secrets_equal};
