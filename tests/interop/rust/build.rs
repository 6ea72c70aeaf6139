//! Generates the messages of our own .proto, which `make interop-rust` has made a descriptor set of: so that
//! nobody needs a protoc of their own.

use prost::Message;
use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let here = env::var("CARGO_MANIFEST_DIR")?;
    let file = Path::new(&here).join("../../../build/interop/detection.binpb");
    println!("cargo:rerun-if-changed={}", file.display());
    let descriptors = prost_types::FileDescriptorSet::decode(&*fs::read(file)?)?;
    // Maps in the order of their keys, as the answers need them.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
