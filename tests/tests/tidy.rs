//! Rules of the tree that a compiler does not check: the top level, the build folder, packages that do real work, unsafe code
//! in one place, no file that has become two ideas.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

fn tracked(pattern: &str) -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", pattern])
        .current_dir(root())
        .output();
    let output = output.expect("git runs");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    names.lines().filter(|name| root().join(name).exists()).map(str::to_owned).collect()
}

fn sources() -> Vec<(String, String)> {
    let files = tracked("*.rs");
    assert!(files.len() > 10, "the sources were not found");
    files
        .into_iter()
        .map(|name| (std::fs::read_to_string(root().join(&name)).expect("a source is UTF-8"), name))
        .map(|(text, name)| (name, text))
        .collect()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output();
    serde_json::from_slice(&output.expect("cargo runs").stdout).expect("cargo metadata is JSON")
}

#[test]
fn cargo_builds_into_build_and_not_into_the_crate_named_target() {
    let folder = metadata()["target_directory"].as_str().map(PathBuf::from).expect("a path");
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        assert_eq!(folder, root().join("build"));
    }
    assert!(!folder.starts_with(root().join("target")));
}

#[test]
fn the_top_level_is_the_one_that_was_agreed() {
    let allowed = BTreeSet::from([
        ".cargo",
        ".ci",
        ".gitignore",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "datamover",
        "initiator-sim",
        "protocol",
        "rustfmt.toml",
        "target",
        "tests",
    ]);
    let found: BTreeSet<String> = tracked(".").iter().filter_map(|name| name.split('/').next().map(str::to_owned)).collect();
    let extra: Vec<_> = found.iter().filter(|name| !allowed.contains(name.as_str())).collect();
    assert!(extra.is_empty(), "at the top level without an agreement: {extra:?}");
    for wanted in ["Cargo.toml", "target", "datamover", "initiator-sim", "protocol", "tests", "README.md"] {
        assert!(found.contains(wanted), "{wanted} is missing");
    }
}

#[test]
fn each_of_the_eight_packages_is_declared_and_does_work_where_it_belongs() {
    let places = [
        ("tokio", ["target", "initiator-sim"]),
        ("nom", ["protocol", "datamover"]),
        ("bytes", ["protocol", "target"]),
        ("libc", ["target", "datamover"]),
        ("nix", ["target", "datamover"]),
        ("tracing", ["target", "datamover"]),
        ("clap", ["target", "datamover"]),
        ("zerocopy", ["protocol", "datamover"]),
    ];
    let packages = metadata()["packages"].as_array().cloned().expect("a list");
    for (name, crates) in places {
        for folder in crates {
            let manifest = root().join(folder).join("Cargo.toml");
            let package =
                packages.iter().find(|p| p["manifest_path"].as_str().map(Path::new) == Some(&manifest)).expect("a member");
            let direct =
                package["dependencies"].as_array().into_iter().flatten().any(|d| d["name"] == name && d["kind"].is_null());
            assert!(direct, "{name} is no direct dependency of {folder}");
            let used = sources()
                .iter()
                .any(|(file, text)| file.starts_with(&format!("{folder}/src/")) && text.contains(&format!("{name}::")));
            assert!(used, "{name} is declared by {folder} and not used there");
        }
    }
}

#[test]
fn unsafe_code_stands_in_one_file_of_a_crate() {
    // Put together here, so that this file does not find itself.
    let forms = ["{", "fn", "impl", "trait"].map(|what| format!("{}safe {what}", "un"));
    for (name, text) in sources() {
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let offending = code.any(|line| forms.iter().any(|form| line.contains(form.as_str())));
        assert!(!offending || name.ends_with("/sys.rs"), "unsafe code in {name}");
    }
}

#[test]
fn every_source_begins_by_saying_what_it_is() {
    let silent: Vec<_> = sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(name, _)| name).collect();
    assert!(silent.is_empty(), "no module documentation: {silent:?}");
}

#[test]
fn nothing_is_left_open_in_the_code() {
    // Put together here, so that this file does not find itself.
    let open =
        ["to".to_owned() + "do!(", "unimplemen".to_owned() + "ted!(", "FIX".to_owned() + "ME", "(to be wri".to_owned() + "tten)"];
    for (name, text) in sources() {
        for mark in &open {
            assert!(!text.contains(mark.as_str()), "{mark} in {name}");
        }
    }
}

#[test]
fn no_file_has_grown_past_a_thousand_lines() {
    let large: Vec<_> =
        sources().into_iter().map(|(name, text)| (text.lines().count(), name)).filter(|(lines, _)| *lines > 1000).collect();
    assert!(large.is_empty(), "look for the second idea in {large:?}");
}

#[test]
fn no_blob_over_a_mebibyte_is_tracked() {
    for name in tracked(".") {
        let size = std::fs::metadata(root().join(&name)).map_or(0, |m| m.len());
        assert!(size <= 1 << 20, "{name} has {size} bytes");
    }
}
