//! What a proxy tells of itself: metrics, the access log, and the telemetry port.
//!
//! It stands beside the journey: workers write into cells of their own and hand over finished
//! records; everything that costs time (merging, encoding, writing) happens on other threads. It
//! knows nothing of connections, policies or certificates but their names.

pub mod access_log; // one line per request or connection, written apart from the workers
pub mod metrics; // counted in cells per worker, merged when somebody asks
pub mod server; // the telemetry port: /metrics, /live, /ready
