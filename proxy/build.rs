//! Generates the client stubs of the control plane's services, and of gRPC's
//! health checking, without protoc,
//! and notes the compiler's version for `selvage_build_info`.

use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["discovery", "identity", "registry"].map(|name| format!("selvage/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=../control-plane/api/proto");
    let descriptors = protox::compile(files, ["../control-plane/api/proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".selvage.v1", "::selvage_api::v1")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["grpc/health/v1/health.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)?;
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("--version").output()?;
    println!(
        "cargo::rustc-env=SELVAGE_RUSTC={}",
        String::from_utf8_lossy(&version.stdout).trim()
    );
    Ok(())
}
