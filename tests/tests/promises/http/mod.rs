//! HTTP crosses the mesh as if nothing were in between.

mod bodies; // of any size, at any pace
mod departures; // either side goes away, at every stage
mod framing; // where a body ends
mod headers; // what is set, stripped and kept
mod interim; // 1xx and Expect
mod round_trips; // versions, methods, forms, trailers
mod upgrades; // WebSocket, other upgrades, CONNECT
