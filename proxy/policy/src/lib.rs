//! Every decision of the data path, apart from any IO.
//!
//! The proxy performs what is decided here. Modules stand in the order a
//! connection, then its request, then each try of it meets them.
//!
//! What holds by absence: policy never sleeps, never spawns, never reads a
//! clock (`now` is an argument), never draws from a global random source
//! (`rng` is an argument), never opens a socket or a file, and never parses
//! configuration. It knows no async runtime and no wire format. On the path of
//! a request that succeeds at its first try it takes no lock and allocates
//! nothing, but for the two short names of [`authority::parse`].

// Everything a proxy knows of the mesh at one revision; immutable.
pub mod snapshot;

// What is spoken, from the first bytes of a connection.
pub mod sniff;

// Which service an authority names, and on which port.
pub mod authority;

// The one canonical form of a path.
pub mod path;

// Which rule a request meets, and what it does with it.
pub mod route;

// Which header fields end at this hop, and which an application may not set.
pub mod headers;

// What a gateway tells of a client.
pub mod forwarded;

// Which trace a request belongs to, and whether it is recorded.
pub mod trace;

// What the hop before says of a request.
pub mod said;

// When the caller stops waiting.
pub mod deadline;

// What crosses the application beside us.
pub mod traces;

// Who may call what.
pub mod authorize;

// How much this workload takes on, and from whom.
pub mod server;

// The live state of every known service, kept across Snapshots.
pub mod table;

// The live state of one service: limits and retry budget.
pub mod service;

// How many endpoints of one port are out of rotation, and which.
pub mod crowd;

// The endpoints a registry offers, laid out for draws by chance.
pub mod rotation;

// The key of a request, for balancers that hash.
pub mod affinity;

// Which endpoint takes the next try.
pub mod balance;

// The live state of one endpoint, and the guard of a try in flight.
pub mod endpoint;

// What an endpoint costs: peak EWMA of its latency, and penalties.
pub mod ewma;

// When an endpoint is taken out of rotation, and how it comes back.
pub mod breaker;

// Which answers a service counts as failures.
pub mod failures;

// What an outcome says of the endpoint.
pub mod classify;

// Whether a try that ran out of time says anything of its endpoint.
pub mod blame;

// When an endpoint that is asked for its health leaves, and comes back.
pub mod health;

// Whether a try is repeated.
pub mod retry;

// How many retries a service can bear.
pub mod budget;

// When a second try is sent beside one that takes long.
pub mod hedge;

// A high quantile of recent latencies.
pub mod quantile;

// Faults injected on purpose.
pub mod fault;

// What stands in for a service that fails.
pub mod fallback;

// Which requests another service gets a copy of.
pub mod mirror;

// A share of requests, drawn by chance.
pub mod share;

// The names of what went wrong, as callers, logs and metrics see them.
pub mod flag;

// What loom's models reach beside all this.
#[cfg(feature = "loom")]
pub mod exposed;

mod hash;
mod marks;
mod ring;
mod rounds;
mod since;
mod slow_start;
mod sync;
#[cfg(test)]
mod testing;
