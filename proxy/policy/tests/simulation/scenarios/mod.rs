//! What is promised, scenario by scenario, and what they share.

mod all_down; // callers are told at once, the service is left alone
mod budget; // the load falls to a tenth
mod cascade; // a dependency is down, other routes do without it
mod correlated; // six of ten fail together
mod flapping; // a replica is well and broken by turns
mod herd; // all come back together
mod many; // ten of fifty are bad
mod one_replica; // one of three replicas fails
mod partition; // packets are lost, and pass again
mod restart; // all are restarted, one after the other
mod routes; // the requests are to blame
mod slow; // one of ten is slow
mod storm; // retries over four hops

/// Each scenario runs under all of them.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=10;
