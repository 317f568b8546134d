//! Densities and medium types: what a drive of each generation takes, and what its media are called.
//!
//! A file has no density: the code is a name on a label. Follows SSC-4, "REPORT DENSITY SUPPORT", with the codes and names that LTO
//! has registered.

use protocol::scsi::ssc_data::{Density, MediumType};

/// A generation of media.
#[derive(Debug)]
pub struct Generation {
    /// As in `ULT3580-TD5`.
    number: u8,
    /// DENSITY CODE.
    pub density: u8,
    /// MEDIUM TYPE of data media; WORM media have [`WORM`] set, too.
    medium_type: u8,
    name: &'static str,
    description: &'static str,
    tracks: u16,
    /// Bytes.
    capacity: u64,
}

/// Bit of a WORM cartridge's MEDIUM TYPE.
const WORM: u8 = 0x04;
const ORGANIZATION: &str = "LTO-CVE";
const TERABYTE: u64 = 1_000_000_000_000;

#[rustfmt::skip]
const GENERATIONS: &[Generation] = &[
    Generation { number: 5, density: 0x58, medium_type: 0x58, name: "U-516", description: "Ultrium 5/16T", tracks: 1280, capacity: 3 * TERABYTE / 2 },
    Generation { number: 6, density: 0x5A, medium_type: 0x68, name: "U-616", description: "Ultrium 6/16T", tracks: 2176, capacity: 5 * TERABYTE / 2 },
    Generation { number: 7, density: 0x5C, medium_type: 0x78, name: "U-732", description: "Ultrium 7/32T", tracks: 3584, capacity: 6 * TERABYTE },
    Generation { number: 8, density: 0x5E, medium_type: 0x88, name: "U-832", description: "Ultrium 8/32T", tracks: 6656, capacity: 12 * TERABYTE },
    Generation { number: 9, density: 0x60, medium_type: 0x98, name: "U-932", description: "Ultrium 9/32T", tracks: 8960, capacity: 18 * TERABYTE },
];

/// The generation that a drive of this product name has; `None` for a name that tells none: such a drive takes all media.
#[must_use]
pub fn of_product(product: &str) -> Option<&'static Generation> {
    let number = product.split_once("-TD").or_else(|| product.split_once("-HH"))?.1.chars().next()?.to_digit(10)?;
    GENERATIONS.iter().find(|generation| u32::from(generation.number) == number)
}

/// What a drive of this product name can have in it: a generation writes its own and the one before, and reads one more.
pub fn supported(product: &str) -> impl Iterator<Item = Density> {
    let own = of_product(product).map(|generation| generation.number);
    GENERATIONS
        .iter()
        .filter(move |media| own.is_none_or(|own| (media.number..=media.number + 2).contains(&own)))
        .map(move |media| Density { writable: own.is_none_or(|own| own <= media.number + 1), ..media.density(media.capacity) })
}

/// What a drive does with a medium that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Reads and writes it.
    Written,
    /// Reads it.
    Read,
}

/// What a drive of this product name does with a medium of this density; `None` for one that it does not take. A drive whose name tells
/// no generation takes all.
#[must_use]
pub fn taken(product: &str, code: u8) -> Option<Taken> {
    if of_product(product).is_none() {
        return Some(Taken::Written);
    }
    let density = supported(product).find(|density| density.code == code)?;
    Some(if density.writable { Taken::Written } else { Taken::Read })
}

/// The generation that is called so: `LTO-8`.
///
/// # Errors
/// In words.
pub fn by_name(name: &str) -> Result<&'static Generation, String> {
    let number = name.get(..4).filter(|prefix| prefix.eq_ignore_ascii_case("LTO-")).and_then(|_| name[4..].parse::<u8>().ok());
    GENERATIONS
        .iter()
        .find(|generation| Some(generation.number) == number)
        .ok_or_else(|| format!("density {name:?} is none that there is: LTO-5, LTO-6, LTO-7, LTO-8 and LTO-9"))
}

/// The medium with this code and room; one that has no row is named as what it is.
#[must_use]
pub fn of_medium(code: u8, capacity: u64) -> Density {
    match GENERATIONS.iter().find(|generation| generation.density == code) {
        Some(generation) => generation.density(capacity),
        None => Density {
            code,
            writable: true,
            tracks: 0,
            capacity,
            organization: "OFFHOST",
            name: "IMAGE",
            description: "tape image",
        },
    }
}

/// MEDIUM TYPE of a medium; 00h where its density tells none.
#[must_use]
pub fn medium_type(density: u8, worm: bool) -> u8 {
    let code = GENERATIONS.iter().find(|generation| generation.density == density).map_or(0, |media| media.medium_type);
    if worm && code != 0 { code | WORM } else { code }
}

/// The medium types of these densities, data and WORM.
#[must_use]
pub fn medium_types(densities: &[Density]) -> Vec<MediumType> {
    let known = GENERATIONS.iter().filter(|media| densities.iter().any(|density| density.code == media.density));
    known
        .flat_map(|media| {
            let kind = |code, description| MediumType {
                code,
                densities: std::slice::from_ref(&media.density),
                organization: ORGANIZATION,
                name: media.name,
                description,
            };
            [kind(media.medium_type, "Data"), kind(media.medium_type | WORM, "WORM")]
        })
        .collect()
}

impl Generation {
    const fn density(&self, capacity: u64) -> Density {
        Density {
            code: self.density,
            writable: true,
            tracks: self.tracks,
            capacity,
            organization: ORGANIZATION,
            name: self.name,
            description: self.description,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_writes_its_own_generation_and_the_one_before_and_reads_one_more() {
        let told = |product| supported(product).map(|density| (density.code, density.writable)).collect::<Vec<_>>();
        assert_eq!(told("ULT3580-TD7"), [(0x58, false), (0x5A, true), (0x5C, true)]);
        assert_eq!(told("ULT3580-TD5"), [(0x58, true)]);
        assert_eq!(told("TAPE").len(), GENERATIONS.len());
    }

    #[test]
    fn a_drive_takes_what_it_says() {
        assert_eq!(taken("ULT3580-TD7", 0x5C), Some(Taken::Written));
        assert_eq!(taken("ULT3580-TD7", 0x58), Some(Taken::Read));
        assert_eq!((taken("ULT3580-TD7", 0x5E), taken("ULT3580-TD8", 0x58)), (None, None));
        assert_eq!(taken("TAPE", 0x42), Some(Taken::Written));
        assert_eq!(by_name("LTO-6").unwrap().density, 0x5A);
        assert_eq!(by_name("lto-9").unwrap().density, 0x60);
        for wrong in ["", "LTO", "LTO-", "LTO-4", "LTO-10", "LTO-x", "8", "ÄÖ"] {
            assert!(by_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_worm_medium_has_a_type_of_its_own() {
        assert_eq!((medium_type(0x58, false), medium_type(0x58, true), medium_type(0x11, true)), (0x58, 0x5C, 0));
        assert_eq!(medium_types(&supported("ULT3580-TD5").collect::<Vec<_>>()).len(), 2);
    }
}
