//! `library.json`: where each cartridge is, kept so that no crash leaves a cartridge nowhere or in two places.
//!
//! The file is replaced whole: written beside it, synchronized, renamed over it, and the folder synchronized. Whatever moment the
//! target or the machine dies at, the file tells the library before the last change or after it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::inventory::{Held, Inventory, Layout, Place};

/// Name of the file in the library's folder.
pub const FILE_NAME: &str = "library.json";
/// What is written before it takes that name.
const NEW_NAME: &str = "library.json.new";

/// The only format there is.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    drives: u16,
    slots: u16,
    mail: u16,
    cartridges: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    place: Place,
    folder: String,
    barcode: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    worm: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Place>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    by_operator: bool,
}

impl Entry {
    fn new(place: Place, held: Held) -> Self {
        let Held { folder, barcode, worm, source, by_operator } = held;
        Self { place, folder, barcode, worm, source, by_operator }
    }
}

/// Reads the record of a library; `None` where there is none yet.
///
/// # Errors
/// The file system's own; `InvalidData` for a record that was not written here, which is left alone: nobody knows where the
/// cartridges are then.
pub fn load(folder: &Path) -> io::Result<Option<Inventory>> {
    let text = match fs::read(folder.join(FILE_NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let record: Record = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    if record.version != VERSION {
        return Err(invalid(format!("version is {}, only {VERSION} is known", record.version)));
    }
    let layout = Layout { drives: record.drives, slots: record.slots, mail: record.mail };
    layout.check().map_err(invalid)?;
    let mut inventory = Inventory::new(layout);
    for Entry { place, folder, barcode, worm, source, by_operator } in record.cartridges {
        let held = Held { folder, barcode, worm, source, by_operator };
        if inventory.held().any(|(_, other)| other.folder == held.folder) {
            return Err(invalid(format!("cartridge {} is in two places", held.folder)));
        }
        // A name and no path: nothing outside the library's folder is reached.
        if Path::new(&held.folder).file_name().is_none_or(|name| name != held.folder.as_str()) {
            return Err(invalid(format!("{:?} is no name of a folder", held.folder)));
        }
        inventory.put(place, held).map_err(|held| invalid(format!("cartridge {} cannot be in {place}", held.folder)))?;
    }
    Ok(Some(inventory))
}

/// Writes the record. When this has returned, it survives a power loss.
///
/// # Errors
/// The file system's own; the record may then be the old or the new one.
pub fn store(folder: &Path, inventory: &Inventory) -> io::Result<()> {
    let Layout { drives, slots, mail } = inventory.layout();
    let cartridges = inventory.held().map(|(place, held)| Entry::new(place, held.clone())).collect();
    let record = Record { version: VERSION, drives, slots, mail, cartridges };
    let new = folder.join(NEW_NAME);
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(&record)?)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(new, folder.join(FILE_NAME))?;
    File::open(folder)?.sync_all()
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Inventory {
        let mut inventory = Inventory::new(Layout { drives: 1, slots: 2, mail: 1 });
        let (folder, barcode) = ("A".into(), "OFH001L8".into());
        let held = Held { folder, barcode, worm: true, source: Some(Place::Slot(1)), by_operator: false };
        inventory.put(Place::Drive(0), held).unwrap();
        inventory
    }

    #[test]
    fn what_is_stored_is_loaded_and_people_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), None);
        store(folder.path(), &one()).unwrap();
        assert_eq!(load(folder.path()).unwrap(), Some(one()));
        let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        assert!(text.contains(r#""place": "drive 1""#) && text.contains(r#""source": "slot 2""#), "{text}");
    }

    #[test]
    fn a_record_that_cannot_be_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), &one()).unwrap();
        let path = folder.path().join(FILE_NAME);
        let good = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("drive 1", "drive 9"),
            ("drive 1", "cupboard 1"),
            (r#""folder": "A""#, r#""folder": "../A""#),
            (r#""folder": "A""#, r#""folder": """#),
            (r#""version": 1"#, r#""version": 2"#),
            (r#""slots": 2"#, r#""slots": 0"#),
            ("]", ""),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            fs::write(&path, &bad).unwrap();
            assert_eq!(load(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidData, "{from} as {to}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        let twice = good.replace("\"cartridges\": [", r#""cartridges": [ {"place":"slot 1","folder":"A","barcode":"B"},"#);
        fs::write(&path, twice).unwrap();
        assert!(load(folder.path()).unwrap_err().to_string().contains("in two places"));
    }

    #[test]
    fn a_torn_new_record_is_of_no_account() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), &one()).unwrap();
        fs::write(folder.path().join(NEW_NAME), b"{ \"version\"").unwrap();
        assert_eq!(load(folder.path()).unwrap(), Some(one()));
        store(folder.path(), &one()).unwrap();
    }
}
