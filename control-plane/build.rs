//! Generates the gRPC server stubs from the protos of `api/`, without protoc.
//! The messages themselves are those of `selvage-api`. Client stubs are
//! generated too: the tests call the server as a proxy does.
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=api/proto");
    let files = ["discovery", "identity", "registry"]
        .map(|name| format!("api/proto/selvage/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["api/proto"])?;
    tonic_prost_build::configure()
        .extern_path(".selvage.v1", "::selvage_api::v1")
        .compile_fds(descriptors)?;

    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout);
    let version = version.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=SELVAGE_RUSTC={version}");
    Ok(())
}
