//! Compiles the messages of `proto/` without protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["resources", "discovery", "identity", "registry"]
        .map(|name| format!("proto/selvage/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
