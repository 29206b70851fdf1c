//! Requests go where Gateway API says.

mod beside_envoy; // the same requests, the same backends
mod conformance; // its tests, one by one
mod cost; // however many they are
mod examples; // the commands of examples/routing
mod gateway; // callers outside the mesh
mod journey; // what routes do to requests, and how they change
