//! A library with real drives and real files: moves, what a crash finds, and what an operator does.

use bytes::Bytes;
use protocol::scsi::Status;

use super::*;
use crate::cartridge::{Absent, Stored};
use crate::lun::Device;
use crate::lun::common::{Common, Identity};
use crate::lun::tape::Taken;
use crate::lun::testing::{finish, nexus, task};

const NAME: &str = "iqn.2026-01.org.offhost:library";

struct Served {
    library: Arc<Library>,
    drives: Vec<Arc<Tape>>,
}

/// A library of two drives, six slots and two import/export elements on a folder; four cartridges when it is new.
fn serve(folder: &Path) -> Served {
    let wanted =
        Wanted { drives: Some(2), slots: Some(6), mail: Some(2), cartridges: Some(4), new: NewMedium::of_capacity(64 << 20) };
    let library = Library::open(folder).unwrap();
    library.arrange(&wanted).unwrap();
    let drive = |number: u16| {
        let tape = Tape::empty(Common::new(Identity::new(NAME, &format!("drive {number}"), "TAPE"), None));
        library.attach(number, &tape).unwrap();
        tape
    };
    Served { drives: vec![drive(0), drive(1)], library }
}

impl Served {
    fn barcode(&self, place: Place) -> Option<String> {
        self.library.inventory().get(place).map(|held| held.barcode.clone())
    }

    fn places(&self) -> Vec<(Place, String)> {
        self.library.inventory().held().map(|(place, held)| (place, held.barcode.clone())).collect()
    }
}

#[test]
fn a_new_library_has_cartridges_and_empty_drives() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let barcodes: Vec<_> = served.places().into_iter().map(|(place, barcode)| (place.to_string(), barcode)).collect();
    let wanted = ["OFH001L8", "OFH002L8", "OFH003L8", "OFH004L8"];
    assert_eq!(barcodes, (1..).zip(wanted).map(|(n, name)| (format!("slot {n}"), name.to_owned())).collect::<Vec<_>>());
    assert!(served.drives.iter().all(|drive| drive.cartridge().is_none()));
}

#[test]
fn a_move_loads_and_unloads_the_drives() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    served.library.move_medium(Place::Slot(1), Place::Drive(0)).unwrap();
    assert_eq!(served.drives[0].barcode().as_deref(), Some("OFH002L8"));
    served.library.move_medium(Place::Drive(0), Place::Drive(1)).unwrap();
    assert_eq!((served.drives[0].barcode(), served.drives[1].barcode().as_deref()), (None, Some("OFH002L8")));
    served.library.exchange_medium(Place::Slot(0), Place::Drive(1), Place::Slot(0)).unwrap();
    assert_eq!(served.drives[1].barcode().as_deref(), Some("OFH001L8"));
    assert_eq!(served.barcode(Place::Slot(0)).as_deref(), Some("OFH002L8"));
    served.library.move_medium(Place::Drive(1), Place::Mail(0)).unwrap();
    assert_eq!(served.drives[1].cartridge(), None);
}

#[test]
fn a_target_that_starts_again_finds_everything_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let before = {
        let served = serve(folder.path());
        served.library.move_medium(Place::Slot(3), Place::Drive(1)).unwrap();
        served.library.move_medium(Place::Slot(0), Place::Mail(1)).unwrap();
        served.places()
    };
    let served = serve(folder.path());
    assert_eq!(served.places(), before);
    assert_eq!(served.drives[1].barcode().as_deref(), Some("OFH004L8"));
    assert_eq!(served.library.inventory().get(Place::Drive(1)).unwrap().source, Some(Place::Slot(3)));
}

/// What a target leaves that dies after a drive was loaded or unloaded and before the move was recorded.
#[test]
fn the_record_says_where_a_cartridge_is_and_not_the_drive() {
    let folder = tempfile::tempdir().unwrap();
    {
        let served = serve(folder.path());
        served.library.move_medium(Place::Slot(0), Place::Drive(0)).unwrap();
        // The record as it was before the move is what a crash in the middle of one leaves.
        let unrecorded = served.library.inventory();
        served.library.move_medium(Place::Slot(1), Place::Drive(1)).unwrap();
        served.library.move_medium(Place::Drive(0), Place::Slot(0)).unwrap();
        record::store(folder.path(), &unrecorded).unwrap();
    }
    let served = serve(folder.path());
    assert_eq!((served.drives[0].barcode().as_deref(), served.drives[1].barcode()), (Some("OFH001L8"), None));
    assert_eq!(served.barcode(Place::Slot(1)).as_deref(), Some("OFH002L8"));
}

#[test]
fn a_move_that_cannot_be_recorded_has_not_happened() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    served.library.move_medium(Place::Slot(0), Place::Drive(0)).unwrap();
    let before = served.places();
    // A folder of that name cannot be written over.
    fs::create_dir(folder.path().join("library.json.new")).unwrap();
    let moved = served.library.exchange_medium(Place::Slot(1), Place::Drive(0), Place::Drive(1));
    assert!(matches!(moved, Err(MoveError::Record(_))), "{moved:?}");
    assert_eq!(served.places(), before);
    assert_eq!((served.drives[0].barcode().as_deref(), served.drives[1].barcode()), (Some("OFH001L8"), None));
    fs::remove_dir(folder.path().join("library.json.new")).unwrap();
    served.library.exchange_medium(Place::Slot(1), Place::Drive(0), Place::Drive(1)).unwrap();
    assert_eq!(served.drives[1].barcode().as_deref(), Some("OFH001L8"));
}

#[test]
fn a_cartridge_that_cannot_be_loaded_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    fs::write(folder.path().join("OFH001L8/cartridge.json"), b"{}").unwrap();
    let before = served.places();
    let moved = served.library.move_medium(Place::Slot(0), Place::Drive(0));
    assert!(matches!(moved, Err(MoveError::Drive { place: Place::Drive(0), .. })), "{moved:?}");
    assert_eq!((served.places(), served.drives[0].cartridge()), (before, None));
    let swapped = served.library.move_medium(Place::Slot(1), Place::Drive(0));
    assert!(swapped.is_ok(), "the drive is as good as before: {swapped:?}");
}

#[test]
fn a_damaged_cartridge_in_a_drive_can_be_moved_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    serve(folder.path()).library.move_medium(Place::Slot(0), Place::Drive(0)).unwrap();
    fs::write(folder.path().join("OFH001L8/cartridge.json"), b"{}").unwrap();
    let served = serve(folder.path());
    assert_eq!(served.drives[0].cartridge(), None);
    assert!(served.library.inventory().get(Place::Drive(0)).is_some(), "it lies in the drive all the same");
    served.library.move_medium(Place::Drive(0), Place::Slot(0)).unwrap();
    served.library.move_medium(Place::Slot(1), Place::Drive(0)).unwrap();
}

#[test]
fn a_drive_that_holds_its_cartridge_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    served.library.move_medium(Place::Slot(0), Place::Drive(0)).unwrap();
    let host = nexus(1, &[Device::Tape(Arc::clone(&served.drives[0]))]);
    let command = |cdb: &str| {
        // The first command is told that the medium is new.
        let _ = finish(served.drives[0].start(task(&host, "00 00 00 00 00 00", Vec::new())));
        finish(served.drives[0].start(task(&host, cdb, Vec::new())))
    };
    assert_eq!(command("1e 00 00 00 01 00").status, Status::Good);
    let prevented = served.library.move_medium(Place::Drive(0), Place::Slot(0));
    assert!(matches!(prevented, Err(MoveError::Held { source: UnloadError::Prevented, .. })), "{prevented:?}");
    assert_eq!(command("1e 00 00 00 00 00").status, Status::Good);
    let copy = served.drives[0].begin_copy().unwrap();
    let copying = served.library.move_medium(Place::Drive(0), Place::Slot(0));
    assert!(matches!(copying, Err(MoveError::Held { source: UnloadError::Copying, .. })), "{copying:?}");
    copy.finish().unwrap();
    served.library.move_medium(Place::Drive(0), Place::Slot(0)).unwrap();
}

#[test]
fn an_inventory_finds_what_was_put_into_the_folder_and_what_was_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    assert!(!served.library.take_inventory(|_| true).unwrap());
    Cartridge::create(&folder.path().join("NEW"), &Metadata::new("NEW001L8", 1 << 20)).unwrap();
    served.library.move_medium(Place::Slot(1), Place::Drive(0)).unwrap();
    fs::remove_dir_all(folder.path().join("OFH001L8")).unwrap();
    fs::remove_dir_all(folder.path().join("OFH002L8")).unwrap();
    assert!(served.library.take_inventory(|place| place != Place::Slot(0)).unwrap());
    assert_eq!(served.barcode(Place::Slot(0)).as_deref(), Some("OFH001L8"), "not looked at");
    assert_eq!(served.barcode(Place::Slot(1)).as_deref(), Some("NEW001L8"));
    assert_eq!(served.barcode(Place::Drive(0)).as_deref(), Some("OFH002L8"), "the drive has it open");
    assert!(served.library.take_inventory(|_| true).unwrap());
    assert_eq!(served.barcode(Place::Slot(0)), None);
}

#[test]
fn an_operator_puts_cartridges_in_and_takes_them_out() {
    let folder = tempfile::tempdir().unwrap();
    let (shelf, outside) = (folder.path().join("library"), folder.path().join("vault"));
    let served = serve(&shelf);
    Cartridge::create(&outside.join("B"), &Metadata::new("BBB001L8", 1 << 20)).unwrap();
    assert_eq!(served.library.import(&outside.join("B")).unwrap(), Place::Mail(0));
    assert!(!outside.join("B").exists() && shelf.join("B").is_dir());
    assert_eq!(served.library.import_new("CCC001L8", &NewMedium::of_capacity(1 << 20)).unwrap(), Place::Mail(1));
    assert!(served.library.inventory().get(Place::Mail(1)).unwrap().by_operator);
    assert!(matches!(served.library.import_new("DDD001L8", &NewMedium::of_capacity(1 << 20)), Err(ImportError::NoRoom)));
    assert!(matches!(served.library.import_new("../DDD", &NewMedium::of_capacity(1 << 20)), Err(ImportError::Barcode(_))));
    served.library.move_medium(Place::Mail(0), Place::Drive(0)).unwrap();
    assert!(matches!(served.library.export("BBB001L8", None), Err(ExportError::NotThere(_))));
    served.library.move_medium(Place::Drive(0), Place::Mail(0)).unwrap();
    let to = served.library.export("BBB001L8", None).unwrap();
    assert_eq!(to, shelf.join("exported/B"));
    assert!(Cartridge::is_one(&to) && served.barcode(Place::Mail(0)).is_none());
    assert_eq!(served.library.export("CCC001L8", Some(&outside.join("C"))).unwrap(), outside.join("C"));
    drop(served);
    assert_eq!(serve(&shelf).places().len(), 4, "what was exported does not come back");
}

#[test]
fn a_library_is_served_once() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    assert!(matches!(Library::open(folder.path()), Err(LibraryError::InUse(_))));
    assert!(served.library.attach(1, &served.drives[0]).is_err());
    assert!(served.library.attach(Layout::MAX_DRIVES, &served.drives[0]).is_err());
}

#[test]
fn a_drive_that_is_not_served_takes_and_gives_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = serve(folder.path());
    served.library.move_medium(Place::Slot(0), Place::Drive(1)).unwrap();
    served.drives.pop();
    assert!(matches!(served.library.move_medium(Place::Drive(1), Place::Slot(0)), Err(MoveError::NoDrive(Place::Drive(1)))));
    let again = Tape::empty(Common::new(Identity::new(NAME, "drive 1", "TAPE"), None));
    served.library.attach(1, &again).unwrap();
    assert_eq!(again.barcode().as_deref(), Some("OFH001L8"), "it has what was left in it");
}

#[test]
fn a_library_grows_with_its_drives_and_keeps_its_cartridges() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let third = Tape::empty(Common::new(Identity::new(NAME, "drive 2", "TAPE"), None));
    served.library.attach(2, &third).unwrap();
    served.library.move_medium(Place::Slot(0), Place::Drive(2)).unwrap();
    assert_eq!(third.barcode().as_deref(), Some("OFH001L8"));
    drop((served, third));
    let served = Library::open(folder.path()).unwrap();
    assert_eq!(served.inventory().layout().drives, 3);
    served.arrange(&Wanted { drives: Some(1), slots: Some(4), mail: Some(0), ..Wanted::default() }).unwrap();
    assert_eq!(served.inventory().get(Place::Slot(0)).unwrap().barcode, "OFH001L8", "out of a drive that is gone");
    assert!(served.arrange(&Wanted { slots: Some(0), ..Wanted::default() }).is_err());
    assert!(served.arrange(&Wanted { mail: Some(1000), ..Wanted::default() }).is_err());
}

#[test]
fn one_folder_is_one_library_whatever_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let libraries = Libraries::default();
    let library = libraries.open(folder.path()).unwrap();
    assert!(Arc::ptr_eq(&library, &libraries.open(&folder.path().join(".")).unwrap()));
    let drive = Tape::empty(Common::new(Identity::new(NAME, "drive 0", "TAPE"), None));
    library.attach(0, &drive).unwrap();
    drop(library);
    assert!(libraries.open(folder.path()).unwrap().drive(0).is_some(), "kept for its drive");
    drop(drive);
    let elsewhere = tempfile::tempdir().unwrap();
    libraries.open(elsewhere.path()).unwrap();
    assert!(Library::open(folder.path()).is_ok(), "nobody has it any more");
}

/// Three records without sums on a cartridge that nobody has open.
fn without_sums(cartridge: &Path) {
    let mut cartridge = Cartridge::open(cartridge).unwrap();
    let record = [Bytes::from_static(b"placed by reference")];
    let partition = &mut cartridge.partitions_mut()[0];
    partition.append_records((0..3).map(|_| Stored { parts: &record, wrapped: false }));
    partition.sync().unwrap();
    cartridge.take_sums_away();
}

/// How many sums are taken until there is nothing more to do.
fn take_sums(library: &Library) -> usize {
    let mut taken = 0;
    loop {
        match library.take_sum() {
            Taken::Bytes(_) => taken += 1,
            Taken::Searched => {}
            Taken::Later => panic!("nobody has the arm"),
            Taken::Nothing => return taken,
        }
    }
}

#[test]
fn cartridges_in_slots_get_their_sums_and_a_drive_takes_them_over_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    drop(serve(folder.path()));
    let cartridge = |name: &str| folder.path().join(name);
    ["OFH001L8", "OFH002L8"].map(cartridge).iter().for_each(|path| without_sums(path));
    let Served { library, drives } = serve(folder.path());
    while library.take_sum() == Taken::Searched {}
    assert!(matches!(Cartridge::open(&cartridge("OFH001L8")), Err(OpenError::InUse(_))), "it is being looked through");
    let bell = Arc::new(Bell::default());
    library.set_bell(Arc::clone(&bell));
    library.move_medium(Place::Slot(0), Place::Drive(0)).unwrap();
    assert_eq!(drives[0].status().1.without_sums.records, 2, "one has been taken");

    assert_eq!(take_sums(&library), 3, "the other cartridge's");
    assert_eq!(Cartridge::open(&cartridge("OFH002L8")).unwrap().absent(), Absent::default());
    assert!(bell.wait(), "the move has rung it");
    library.move_medium(Place::Drive(0), Place::Mail(0)).unwrap();
    assert!(bell.wait());
    assert_eq!(take_sums(&library), 2, "what is back is looked through again");
    let exported = library.export("OFH001L8", None).unwrap();
    assert_eq!(Cartridge::open(&exported).unwrap().absent(), Absent::default());
}

#[test]
fn a_cartridge_that_cannot_get_its_sums_is_looked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    drop(serve(folder.path()));
    let path = folder.path().join("OFH003L8");
    without_sums(&path);
    Metadata { write_protect: true, ..Metadata::load(&path).unwrap() }.store(&path).unwrap();
    fs::remove_file(folder.path().join("OFH004L8/cartridge.json")).unwrap();
    let Served { library, .. } = serve(folder.path());
    assert_eq!(take_sums(&library), 0);
    assert_eq!(Cartridge::absent_in(&path).unwrap(), Absent::default(), "it cannot be given any");
}
