//! The load generator of the benchmark and the backends it measures against,
//! raw and lean: what stands on the other core must not be what is measured.
//!
//! Each subcommand is one kind of load. It warms up, measures for a fixed time,
//! reads the CPU time of the processes it was told of at exactly the same two
//! moments, and prints one JSON line. It knows nothing of the peers: only
//! addresses, authorities and process ids.

mod backend; // what answers behind the proxies
mod backend_http1; // its HTTP/1.1
mod bulk; // raw bytes, both ways
mod cpu; // CPU time as the operating system counts it
mod handshakes; // TLS alone
mod http1; // closed loops over HTTP/1.1
mod http2; // closed loops over HTTP/2, gRPC too
mod idle; // connections that do nothing
#[path = "../../isolation/mod.rs"]
mod isolation; // failing services side by side: here, since each binary is linked for a minute
mod pki; // certificates for one run
mod rate; // an open loop at a fixed rate
mod response; // the least of an HTTP/1.1 parser
mod spin; // the control measurement
mod tally; // what is counted, and when

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Anything that ends a subcommand early.
type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Parser)]
#[command(name = "bench-load", about = "Load, backends and control measurements")]
struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Debug, Subcommand)]
enum Load {
    /// Answers on fixed ports until it is killed.
    Backend(backend::Options),
    /// HTTP/1.1 on keep-alive connections, closed loop.
    Http1(http1::Options),
    /// HTTP/1.1, one connection per request, closed loop.
    Connect(http1::Options),
    /// HTTP/2, many streams on few connections, closed loop.
    Http2(http2::Options),
    /// Unary gRPC calls, many streams on few connections, closed loop.
    Grpc(http2::Options),
    /// HTTP/1.1 at a fixed rate, open loop.
    Rate(rate::Options),
    /// Raw bytes through a TCP listener.
    Tcp(bulk::Options),
    /// Full mutual TLS 1.3 handshakes, each closed at once.
    Handshakes(handshakes::Options),
    /// Idle HTTP/1.1 connections, held until stdin ends.
    Idle(idle::Options),
    /// Failing services behind Selvage and behind Envoy: `tests/isolation`.
    Isolation(isolation::Options),
    /// Certificates for one run, into a folder.
    Pki(pki::Options),
    /// Prints how long a fixed amount of work took, in seconds.
    Spin,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().load {
        Load::Backend(options) => backend::run(&options),
        Load::Http1(options) => http1::run(&options, http1::Reuse::KeepAlive),
        Load::Connect(options) => http1::run(&options, http1::Reuse::Close),
        Load::Http2(options) => http2::run(&options, http2::Kind::Plain),
        Load::Grpc(options) => http2::run(&options, http2::Kind::Grpc),
        Load::Rate(options) => rate::run(&options),
        Load::Tcp(options) => bulk::run(&options),
        Load::Handshakes(options) => handshakes::run(&options),
        Load::Idle(options) => idle::run(&options),
        Load::Isolation(options) => isolation::run(&options),
        Load::Pki(options) => pki::run(&options),
        Load::Spin => {
            spin::run();
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one line that says why there is no measurement"
)]
fn tell(error: &dyn std::error::Error) {
    eprintln!("bench-load: {error}");
}
