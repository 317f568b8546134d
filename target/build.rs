//! Stops a build into the sources: this crate's folder has the name of Cargo's default build folder.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let sources = std::env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it");
    let output = std::env::var("OUT_DIR").expect("Cargo sets it");
    if let Ok(inside) = Path::new(&output).strip_prefix(&sources)
        && !inside.starts_with("target")
    {
        println!(
            "cargo::error=Cargo is building into the sources of the crate `target`. Run it from the workspace root, or set \
             CARGO_TARGET_DIR to an absolute path elsewhere. Do NOT run `cargo clean` from here: it would delete {sources}."
        );
    }
}
