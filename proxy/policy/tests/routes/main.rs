//! Tables of routes: against a plain reference that sorts and scans, in small
//! tables of what is easily got wrong, and in memory.

mod chance; // routes and requests by chance
mod details; // what is easily got wrong
mod model; // the index and the reference choose alike
mod plain; // routes as resources write them
mod reference; // the rules of precedence, sorted and scanned
