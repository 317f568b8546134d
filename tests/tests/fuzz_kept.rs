//! The fuzz targets without a fuzzer: over the inputs that are kept in `tests/fuzz/seeds`, and for some seconds over changes of
//! them. `OFFHOST_FUZZ_SECONDS` makes it longer, `OFFHOST_FUZZ_SEED` other changes; what fails is written to
//! `tests/fuzz/artifacts`, to be kept as a seed when it is understood.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use offhost_tests::fuzz::{TARGETS, change_for, replay};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn kept(name: &str) {
    let replayed = replay(name);
    let (seconds, seed) = (number("OFFHOST_FUZZ_SECONDS", 8), number("OFFHOST_FUZZ_SEED", 1));
    let changed = change_for(name, Duration::from_secs(seconds), seed);
    println!("{name}: {replayed} kept inputs, {changed} changed ones in {seconds} s");
    assert!(replayed > 0 && changed > 0, "nothing was run");
}

/// A test a target, so that they run beside each other and each says its own name.
macro_rules! kept {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            kept(stringify!($name));
        })*

        #[test]
        fn every_target_is_here_has_seeds_and_is_built_by_cargo_fuzz() {
            let here = BTreeSet::from([$(stringify!($name)),*]);
            assert_eq!(here, TARGETS.iter().map(|(name, _)| *name).collect());
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            for name in here {
                assert!(folder.join("seeds").join(name).is_dir(), "no seeds of {name}");
                assert!(folder.join(format!("fuzz_targets/{name}.rs")).is_file(), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not in the manifest");
            }
        }
    };
}

kept! { pdu text login cdb xcopy_list tape_image ntfs messages image_set }
