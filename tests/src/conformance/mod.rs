//! Gateway API's conformance, held by a runner of our own: the tests of the
//! suite as files of `tests/conformance/`, each with the resources it needs
//! and a table of requests and what must come of them. They are run with real
//! processes, as a gateway and as a mesh, from files and through a control
//! plane. It knows the specification and nothing of who implements it.

pub mod backend; // who answers, and what they saw
pub mod caller; // who asks
pub mod case; // what a file says
mod documents; // what a scene makes
pub mod judge; // whether what came is what was due
mod proxy; // a gateway, or a caller's sidecar
pub mod run; // one case, one row
pub mod scene; // what a case stands on
pub mod table; // what came of it all
