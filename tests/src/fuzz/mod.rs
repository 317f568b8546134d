//! Bytes from outside, thrown at everything that reads some: one function a target, for cargo-fuzz and for a test alike.
//!
//! | module | what it feeds |
//! |---|---|
//! | `pdu` | a target's session, before and after a login |
//! | `text` | the parser of text keys, and what their values may be |
//! | `login` | both sides of a login, with CHAP, alone and against each other over a line that changes what they say |
//! | `cdb` | every command of a disk, a tape, a changer and its drive, with its parameter list |
//! | `xcopy_list` | parameter lists of EXTENDED COPY, data of RECEIVE COPY RESULTS |
//! | `tape_image` | tape images with their indexes, opened and written behind |
//! | `ntfs` | disks that hold anything, and an NTFS volume with changed metadata |
//! | `messages` | messages between target and mover |
//! | `image_set` | records and sections of a backup set |
//!
//! `tests/fuzz` builds each with libFuzzer, which looks for inputs that reach new code; `fuzz_kept` replays what was kept of
//! that and changes it for some seconds, with nothing but the stable toolchain. A function here panics when what it drives panics
//! or answers what it must not; it says nothing of time and memory, which the caller watches.

mod cdb;
mod drive;
mod image_set;
mod input;
mod login;
mod messages;
mod ntfs;
mod pdu;
mod tape_image;
mod text;
mod xcopy_list;

pub use drive::{change_for, replay};
pub use input::{Input, Scratch};

/// A function that takes any bytes.
pub type Fuzz = fn(&[u8]);

/// All targets by name, which is that of their seeds' folder in `tests/fuzz/seeds`, too.
pub const TARGETS: &[(&str, Fuzz)] = &[
    ("pdu", pdu::fuzz),
    ("text", text::fuzz),
    ("login", login::fuzz),
    ("cdb", cdb::fuzz),
    ("xcopy_list", xcopy_list::fuzz),
    ("tape_image", tape_image::fuzz),
    ("ntfs", ntfs::fuzz),
    ("messages", messages::fuzz),
    ("image_set", image_set::fuzz),
];

/// The function of a target.
///
/// # Panics
/// When there is none of this name.
#[must_use]
pub fn target(name: &str) -> Fuzz {
    TARGETS.iter().find(|(one, _)| *one == name).unwrap_or_else(|| panic!("no fuzz target is called {name}")).1
}
