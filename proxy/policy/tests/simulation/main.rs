//! Scenarios in virtual time: several callers' proxies, each deciding by this
//! package alone, over a simulated network and servers that fail by schedule.
//!
//! What is asserted here no table of one machine can show: what callers see,
//! what a broken service still has to bear, and how soon it is used again.
//! Every scenario runs under ten seeds and prints a line of figures for each
//! variant. What others build into the journey belongs into `proxy.rs` too.

mod client; // who calls
mod clock; // virtual time, and the tasks in it
mod figures; // what came of it
mod mesh; // a service, its callers, their load
mod network; // what lies between
mod proxy; // the journey
mod scenarios; // what is promised
mod server; // who answers
mod watch; // what must hold at every moment
