//! Copies of whole cartridges between layouts, and what is left of one that fails.

use std::path::{Path, PathBuf};

use protocol::cartridge::layout::{ALIGNED_LEAST, Layout};
use protocol::scsi::attribute::{Attribute, Format};

use super::*;

const LONG: usize = ALIGNED_LEAST as usize;
const FIRST: [usize; 9] = [10, LONG, 0, 0, LONG + 4465, 3, 0, LONG + 2, 0];
const SECOND: [usize; 3] = [LONG, 0, 7];

/// A WORM cartridge with two partitions, an attribute, wrapped records, and one without sums.
fn made(folder: &Path) -> PathBuf {
    let path = folder.join("A");
    Cartridge::create(&path, &Metadata::new("COPY01L8", 8 << 20)).unwrap();
    let mut cartridge = Cartridge::open(&path).unwrap();
    cartridge.format(&[4 << 20, 4 << 20]).unwrap();
    append(&mut cartridge.partitions[1], &SECOND);
    append(&mut cartridge.partitions[0], &[LONG]);
    cartridge.partitions.iter_mut().for_each(|partition| partition.sync().unwrap());
    cartridge.take_sums_away();
    drop(cartridge);
    let mut cartridge = Cartridge::open(&path).unwrap();
    cartridge.partitions[0].cut(TapePosition::BEGINNING).unwrap();
    append(&mut cartridge.partitions[0], &FIRST);
    let wrapped = record(99, 99);
    cartridge.partitions[0].append_records([Stored { parts: &wrapped, wrapped: true }]);
    let attribute = Attribute { id: 0x0806, format: Format::Ascii, read_only: false, value: b"label".to_vec() };
    cartridge
        .change(|metadata| {
            metadata.memory.set(1, attribute);
            metadata.worm = true;
        })
        .unwrap();
    cartridge.partitions.iter_mut().for_each(|partition| partition.sync().unwrap());
    path
}

fn copy(from: &Path, to: &Path, layout: Option<Layout>) -> Result<Copied, CopyError> {
    Cartridge::copy(from, to, layout, |done, total| assert!(done <= total))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_cartridge_goes_into_the_other_layout_and_back_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let plain = made(folder.path());
    let [aligned, again, same] = ["B", "C", "D"].map(|name| folder.path().join(name));
    let copied = copy(&plain, &aligned, Some(Layout::Aligned)).unwrap();
    assert_eq!((copied.records, copied.filemarks, copied.unproven), (8, 5, 2));
    copy(&aligned, &again, Some(Layout::Plain)).unwrap();
    copy(&aligned, &same, None).unwrap();

    let label = |path: &Path| Metadata::load(path).unwrap();
    assert_eq!(label(&aligned), Metadata { layout: Layout::Aligned, ..label(&plain) });
    assert_eq!((label(&again), label(&same)), (label(&plain), label(&aligned)));
    assert!(label(&again).worm && label(&again).memory.host_attributes(1).count() == 1);
    for image in ["p0.tap", "p1.tap"] {
        let bytes = |path: &Path| fs::read(path.join(image)).unwrap();
        assert!(bytes(&plain) == bytes(&again) && bytes(&aligned) == bytes(&same) && bytes(&plain) != bytes(&aligned));
    }
    for path in [&plain, &aligned, &again] {
        let cartridge = Cartridge::open(path).unwrap();
        let [first, second] = &cartridge.partitions[..] else { panic!("two partitions") };
        assert_eq!((contents(first), contents(second)), ([&FIRST[..], &[99]].concat(), SECOND.to_vec()));
        assert!(first.object(FIRST.len() as u64).unwrap().unwrap().wrapped);
        assert!(states(first).iter().all(|state| *state == SumState::Known), "these were written with theirs");
        let sums = if path == &plain { SumState::Absent } else { SumState::Recomputed };
        assert_eq!(states(second), [sums, SumState::Known, sums], "and these prove nothing in a copy either");
    }
    assert_eq!(names(folder.path()), ["A", "B", "C", "D"]);
}

#[test]
fn what_is_in_use_damaged_or_there_already_is_not_copied_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (made(folder.path()), folder.path().join("B"));
    let in_use = Cartridge::open(&from).unwrap();
    assert!(matches!(copy(&from, &to, None), Err(CopyError::Open(OpenError::InUse(_)))));
    drop(in_use);
    assert!(matches!(copy(&from, &from, None), Err(CopyError::Exists(_))));

    let image = OpenOptions::new().read(true).write(true).open(from.join("p0.tap")).unwrap();
    let flip = |at| {
        let mut byte = [0];
        image.read_exact_at(&mut byte, at).unwrap();
        image.write_all_at(&[!byte[0]], at).unwrap();
    };
    flip(LONG as u64);
    assert!(matches!(
        copy(&from, &to, None),
        Err(CopyError::Read { partition: 0, source: ReadError::Checksum { object: 1, .. } })
    ));
    flip(LONG as u64);
    let size = image.metadata().unwrap().len();
    image.write_all_at(b"more", size).unwrap();
    assert!(matches!(copy(&from, &to, None), Err(CopyError::Behind { partition: 0, bytes: 4 })));
    image.set_len(size).unwrap();

    let label = Metadata::load(&from).unwrap();
    Metadata { partitions: vec![200_000, 4 << 20], ..label.clone() }.store(&from).unwrap();
    let full = copy(&from, &to, Some(Layout::Aligned)).unwrap_err();
    assert!(
        matches!(full, CopyError::Write { partition: 0, source: WriteError::Append(AppendError::NoRoom { .. }), .. }),
        "{full}"
    );
    label.store(&from).unwrap();
    assert_eq!(names(folder.path()), ["A"]);
    copy(&from, &to, None).unwrap();
}

#[test]
fn what_a_killed_copy_has_left_is_no_cartridge_and_the_next_one_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to, left) = (made(folder.path()), folder.path().join("B"), folder.path().join(".B.copying"));
    let one_partition = folder.path().join("one");
    Cartridge::create(&one_partition, &Metadata::new("COPY02L8", CAPACITY)).unwrap();
    // Cut between its label and its name.
    copy(&from, &left, None).unwrap();
    assert_eq!(shelf::list(folder.path()).unwrap(), [from, one_partition.clone()]);
    let other = fs::File::open(&left).unwrap();
    assert!(crate::sys::try_lock(&other).unwrap());
    assert!(matches!(copy(&one_partition, &to, None), Err(CopyError::InUse(_))));
    drop(other);
    copy(&one_partition, &to, None).unwrap();
    assert!(!to.join("p1.tap").exists());
}
