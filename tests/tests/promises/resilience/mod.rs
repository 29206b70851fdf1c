//! When an endpoint fails, the cloth holds: retries where nothing was
//! processed or the policy says so, breakers, timeouts, and failing fast.

mod breaker; // taken out of rotation, probed, taken back
mod retries; // sent again where it may be
mod timeouts; // what takes too long, or is too much
