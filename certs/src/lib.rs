//! Identities of the mesh: SPIFFE ids, certificates, trust bundles and TLS configurations.
//!
//! Values in, values out: nothing here opens a socket or a file, reads a clock or waits.

mod id; // who somebody is

pub use id::{InvalidSpiffeId, SPIFFE_ID_BYTES, SpiffeId, TRUST_DOMAIN_BYTES, TrustDomain};
