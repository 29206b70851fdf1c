//! What a proxy tells of itself: metrics, the access log, spans, and the telemetry port.
//!
//! It stands beside the journey: workers write into cells of their own and hand over finished
//! records; everything that costs time (merging, encoding, writing) happens on other threads. It
//! knows nothing of connections, policies or certificates but their names.

pub mod access_log; // one line per request or connection, written apart from the workers
mod escape; // text that peers sent, made harmless
pub mod log_lines; // the log on stderr, never waited for
pub mod metrics; // counted in cells per worker, merged when somebody asks
pub mod server; // the telemetry port: /metrics, /live, /ready
pub mod spans; // one span per sampled request, exported apart from the workers
pub mod told; // what is told of one request or connection
