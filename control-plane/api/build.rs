//! Compiles the messages of `proto/` without protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["resources", "discovery", "identity", "registry"]
        .map(|name| format!("proto/selvage/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new()
        .btree_map(["."])
        // Names are keys of ordered maps on both sides, so that pushes are the same every time.
        .type_attribute("selvage.v1.ResourceName", "#[derive(PartialOrd, Ord)]")
        // It carries a private key: its `Debug` is written by hand and shows none of it.
        .skip_debug(["selvage.v1.KeyPair"])
        .compile_fds(descriptors)?;
    Ok(())
}
