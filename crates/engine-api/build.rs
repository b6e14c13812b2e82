//! Compiles specs/engine.proto without an installed protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when run, not when compiled: a target directory may be shared by several checkouts.
    let specs = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../specs");
    let proto = specs.join("engine.proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let descriptors = protox::compile([proto], [specs])?;
    tonic_prost_build::configure().emit_rerun_if_changed(false).compile_fds(descriptors)?;
    Ok(())
}
