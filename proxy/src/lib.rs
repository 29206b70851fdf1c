//! The Selvage data plane: a sidecar that performs what policy decides.
//!
//! Modules stand in the order a connection and its request meet them; each
//! imports only from those below it. The life of a connection reads top to
//! bottom in `connection`, that of a request in `request`.

// The proxy put together.
pub mod app;

// What would become of a request, asked of resources.
pub mod explain;

// The admin port: what the proxy shows and does for its operator.
pub mod admin;
// One connection's life.
pub mod connection;

// One request's life.
pub mod request;

// Opaque bytes in both directions.
pub mod forward;
// Heads made safe, bodies that are replayed or carry their record.
pub mod http;

// One thread with its own connections, pools and caches.
pub mod worker;

// The way to a service: endpoints, connections, tries.
pub mod upstream;

// What a gateway serves: its ports and certificates.
pub mod gateway;

// Listeners, and how a connection reaches a worker.
pub mod accept;
// What is known of the mesh, and how it is learnt.
pub mod discovery;

// TLS between sidecars.
pub mod tls;

// Who this proxy is.
pub mod identity;

// What is counted and logged.
pub mod telemetry;

// The last transitions of breakers.
pub mod journal;

// What a restart finds again.
pub mod state;

// Readiness and the drain.
pub mod lifecycle;

// sidecar.yaml, flags and environment.
pub mod config;

// What a caller is told when the application did not answer.
pub mod error;

// The time, looked at once per wake-up.
pub mod clock;

// Timers that are lent out.
pub mod timers;

// What bytes pass through on their way.
pub mod buffers;

// A running proxy asked from outside.
pub mod probe;

// The gRPC stubs of the control plane.
mod stubs;

pub use app::{Role, run, run_beside};
