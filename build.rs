//! Compiles the contract in `proto/` without needing `protoc` on the machine.

use std::{env, error::Error, fs, path::PathBuf};

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script its folder by the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    let files = ["chain", "session", "cache", "usage", "admin"].map(|name| format!("proto/kvtier/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("kvtier.v1.bin"), protox::prost::Message::encode_to_vec(&descriptors))?;
    // `bytes = Bytes`: a decoded payload is a slice of the message, not a copy of it.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
