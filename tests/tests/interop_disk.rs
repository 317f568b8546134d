//! Foreign initiators agree on a disk LUN: libiscsi's tools and QEMU's block layer, each its own reading of the standards.

use std::process::Command;

use offhost_tests::control::status;
use offhost_tests::foreign::{clone, qemu_img};
use offhost_tests::programs::{Target, run};
use offhost_tests::{has, skip};
use rand::{RngExt, SeedableRng};

const SIZE: u64 = 64 << 20;

/// Random data with holes, which `convert` is tempted to get wrong.
fn image(seed: u64) -> Vec<u8> {
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    let mut image = vec![0; SIZE as usize];
    for chunk in image.chunks_mut(1 << 16) {
        if random.random_bool(0.4) {
            random.fill(chunk);
        }
    }
    image
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn libiscsi_tools_find_the_target_its_luns_and_their_size() {
    if !has("iscsi-ls") {
        skip!("iscsi-ls is missing (Debian: libiscsi-bin)");
    }
    let folder = tempfile::tempdir().unwrap();
    let target =
        Target::start(folder.path(), &["--disk", "a.img:64MiB", "--disk", "b.img:64MiB,block=4096", "--tape", "shelf"]).unwrap();
    let listing = run("iscsi-ls", ["-s", &format!("iscsi://{}", target.portal)]).unwrap();
    assert!(listing.contains(&target.name), "{listing}");
    assert!(listing.contains("DIRECT_ACCESS") && listing.contains("SEQUENTIAL_ACCESS"), "{listing}");
    let inquiry = run("iscsi-inq", [target.url(0)]).unwrap();
    assert!(inquiry.contains("DIRECT_ACCESS") && inquiry.contains("3PC:1"), "{inquiry}");
    for page in ["0", "0x80", "0x83", "0x86", "0xb0", "0xb1", "0xb2"] {
        run("iscsi-inq", ["-e", "1", "-c", page, &target.url(0)]).unwrap_or_else(|error| panic!("page {page}: {error}"));
    }
    let capacity = run("iscsi-readcapacity16", [target.url(1)]).unwrap();
    assert!(capacity.contains("4096"), "{capacity}");
}

#[test]
fn qemu_img_writes_an_image_and_reads_the_same_back() {
    let qemu = match qemu_img() {
        Ok(qemu) => qemu,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    for (seed, flags) in [(1, "lun.img:64MiB"), (2, "lun4k.img:64MiB,block=4096")] {
        let mut target = Target::start(folder.path(), &["--disk", flags]).unwrap();
        std::fs::write(file("source.img"), image(seed)).unwrap();
        output(clone(&qemu).args(["convert", "-n", "-f", "raw", "-O", "raw", &file("source.img"), &target.url(0)]));
        output(clone(&qemu).args(["convert", "-f", "raw", "-O", "raw", &target.url(0), &file("back.img")]));
        assert_eq!(std::fs::read(file("back.img")).unwrap(), image(seed), "{flags}: read back");
        target.stop().unwrap();
        let backing = flags.split(':').next().unwrap();
        assert_eq!(std::fs::read(file(backing)).unwrap(), image(seed), "{flags}: the backing file");
    }
}

#[test]
fn qemu_img_copies_between_luns_by_extended_copy() {
    let qemu = match qemu_img() {
        Ok(qemu) => qemu,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.img"), image(3)).unwrap();
    let mut target = Target::start(folder.path(), &["--disk", "a.img", "--disk", "b.img:64MiB"]).unwrap();
    output(clone(&qemu).args(["convert", "-C", "-n", "-f", "raw", "-O", "raw", &target.url(0), &target.url(1)]));
    // It falls back to reads and writes without a word: only the target knows.
    let seen = status(&target.control()).unwrap();
    assert!(seen.copies.done > 0, "no EXTENDED COPY came: {:?}", seen.copies);
    assert_eq!(seen.copies.failed, 0);
    target.stop().unwrap();
    assert_eq!(std::fs::read(folder.path().join("b.img")).unwrap(), image(3));
}
