//! In containers, in pods and under systemd it is the same mesh. The images and
//! manifests of `examples/` are what runs here, by the commands of their READMEs,
//! with Podman in a network namespace and a storage of its own.

mod compose; // up, called through, down
mod faults; // a replica killed, paused, cut off, moved
mod images; // small, without root, without a writable root
mod lab; // Podman, and what is removed after it
mod pods; // application and sidecar in one pod
mod steady; // a load that waits for nobody
mod units; // what systemd is told
