//! Features: words in a resource that say what its reader must understand. A
//! reader that does not know one refuses the whole push, so that a rule it
//! could not see never vanishes silently. Knows the words, not their meaning.

use crate::v1::Resource;

/// `TrafficPolicy.health_check`: endpoints are asked for their health.
pub const HEALTH_CHECK: &str = "health-check";
/// `TrafficPolicy.failures`: a service says what counts as a failure.
pub const FAILURES: &str = "failures";

/// Every feature this version understands beyond what the messages began
/// with, which needs no word. A message that gains a field with meaning gains
/// a word here.
pub const KNOWN: &[&str] = &[
    BALANCERS,
    HEALTH_CHECK,
    FAILURES,
    HEDGE,
    FALLBACK,
    FAULT,
    MIRROR,
    SERVER_POLICY,
    ROUTES,
    GATEWAY,
    RATE_LIMIT_SOURCE,
];

/// A workload's ports are protected by [`crate::v1::Workload::server`].
pub const SERVER_POLICY: &str = "server-policy";
/// `TrafficPolicy`: balancers other than peak EWMA, slow start, locality.
pub const BALANCERS: &str = "balancers";
/// `TrafficPolicy.hedge`.
pub const HEDGE: &str = "hedge";
/// `TrafficPolicy.fallback`.
pub const FALLBACK: &str = "fallback";
/// `TrafficPolicy.fault`.
pub const FAULT: &str = "fault";
/// `TrafficPolicy.mirror`.
pub const MIRROR: &str = "mirror";

/// Routes attached to a service or a listener.
pub const ROUTES: &str = "routes";
/// The Gateway a proxy serves.
pub const GATEWAY: &str = "gateway";

/// `RateLimit.key`: requests are told apart by the address of their client.
pub const RATE_LIMIT_SOURCE: &str = "rate-limit-source";

/// The first feature of a resource that this version does not understand.
pub fn first_unknown(resource: &Resource) -> Option<&str> {
    resource
        .features
        .iter()
        .map(String::as_str)
        .find(|feature| !KNOWN.contains(feature))
}
