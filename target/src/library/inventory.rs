//! Where each cartridge of a library is: places, what is in them, and what a move makes of that.
//!
//! A value and nothing else: no file is touched and no drive is asked, so every rule can be tried without either. Which sense data a
//! refusal deserves is decided by the changer. Follows SMC-3, "MOVE MEDIUM" and "EXCHANGE MEDIUM".

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place for one cartridge, counted from 0; written `mail 1`, `drive 2`, `slot 17`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Place {
    /// Import/export element.
    Mail(u16),
    /// Data transfer element.
    Drive(u16),
    /// Storage element.
    Slot(u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, number) = match self {
            Self::Mail(number) => ("mail", number),
            Self::Drive(number) => ("drive", number),
            Self::Slot(number) => ("slot", number),
        };
        write!(f, "{name} {}", u32::from(*number) + 1)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no place: a place is written \"slot 1\", \"drive 1\" or \"mail 1\"");
        let (name, number) = text.split_once(' ').ok_or_else(wrong)?;
        let number = number.parse::<u16>().ok().and_then(|number| number.checked_sub(1)).ok_or_else(wrong)?;
        match name {
            "mail" => Ok(Self::Mail(number)),
            "drive" => Ok(Self::Drive(number)),
            "slot" => Ok(Self::Slot(number)),
            _ => Err(wrong()),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// How many places of each kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Data transfer elements.
    pub drives: u16,
    /// Storage elements.
    pub slots: u16,
    /// Import/export elements.
    pub mail: u16,
}

impl Layout {
    /// Most drives; see [`Layout::MAX_SLOTS`].
    pub const MAX_DRIVES: u16 = 0x0F00;
    /// Most slots: element addresses have 16 bits, and each kind of element a range of them.
    pub const MAX_SLOTS: u16 = 0xF000;
    /// Most import/export elements; see [`Layout::MAX_SLOTS`].
    pub const MAX_MAIL: u16 = 0x00F0;

    /// True for a place that there is.
    #[must_use]
    pub const fn has(&self, place: Place) -> bool {
        match place {
            Place::Mail(number) => number < self.mail,
            Place::Drive(number) => number < self.drives,
            Place::Slot(number) => number < self.slots,
        }
    }

    /// All places, in the order of their element addresses.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let Self { drives, slots, mail } = *self;
        (0..mail).map(Place::Mail).chain((0..drives).map(Place::Drive)).chain((0..slots).map(Place::Slot))
    }

    /// Says what is out of bounds.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        for (name, count, most) in [
            ("drives", self.drives, Self::MAX_DRIVES),
            ("slots", self.slots, Self::MAX_SLOTS),
            ("mail", self.mail, Self::MAX_MAIL),
        ] {
            if count > most {
                return Err(format!("a library has at most {most} {name}, not {count}"));
            }
        }
        if self.slots == 0 { Err("a library has one slot at least".to_owned()) } else { Ok(()) }
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self { drives: 2, slots: 20, mail: 2 }
    }
}

/// A cartridge in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Name of its folder within the library's.
    pub folder: String,
    /// Its label.
    pub barcode: String,
    /// What is written to it stays.
    pub worm: bool,
    /// The storage or import/export element it was in before it came here. SMC-3, SVALID.
    pub source: Option<Place>,
    /// An operator put it here. SMC-3, IMPEXP.
    pub by_operator: bool,
}

/// One way of one cartridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Where it is.
    pub from: Place,
    /// Where it goes.
    pub to: Place,
}

/// Why a move cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoveRefused {
    /// Nothing is there to be moved.
    #[error("{0} is empty")]
    Empty(Place),
    /// Something is there already.
    #[error("{0} is full")]
    Full(Place),
    /// The library has no such place.
    #[error("there is no {0}")]
    NoSuchPlace(Place),
}

/// Which cartridge is where. No place has two, and no cartridge two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    layout: Layout,
    held: BTreeMap<Place, Held>,
}

impl Inventory {
    /// An empty library.
    #[must_use]
    pub const fn new(layout: Layout) -> Self {
        Self { layout, held: BTreeMap::new() }
    }

    /// How many places there are.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// What is in a place.
    #[must_use]
    pub fn get(&self, place: Place) -> Option<&Held> {
        self.held.get(&place)
    }

    /// Every cartridge with its place, in the order of the places.
    pub fn held(&self) -> impl Iterator<Item = (Place, &Held)> {
        self.held.iter().map(|(place, held)| (*place, held))
    }

    /// The first place of a kind that is free, or `None`.
    #[must_use]
    pub fn free(&self, mut wanted: impl FnMut(Place) -> bool) -> Option<Place> {
        self.layout.places().filter(|place| wanted(*place)).find(|place| !self.held.contains_key(place))
    }

    /// Puts a cartridge somewhere.
    ///
    /// # Errors
    /// The cartridge, when there is no such place, or one in it.
    pub fn put(&mut self, place: Place, held: Held) -> Result<(), Held> {
        if !self.layout.has(place) || self.held.contains_key(&place) {
            return Err(held);
        }
        self.held.insert(place, held);
        Ok(())
    }

    /// Takes a cartridge out of the library.
    pub fn take(&mut self, place: Place) -> Option<Held> {
        self.held.remove(&place)
    }

    /// What MOVE MEDIUM does.
    ///
    /// # Errors
    /// [`MoveRefused`]; a cartridge that is to go where it is finds its place full.
    pub fn move_medium(&self, source: Place, destination: Place) -> Result<[Leg; 1], MoveRefused> {
        self.full(source)?;
        self.empty(destination)?;
        Ok([Leg { from: source, to: destination }])
    }

    /// What EXCHANGE MEDIUM does: the second destination may be the source, which is free by then.
    ///
    /// # Errors
    /// [`MoveRefused`].
    pub fn exchange_medium(&self, source: Place, first: Place, second: Place) -> Result<[Leg; 2], MoveRefused> {
        self.full(source)?;
        self.full(first)?;
        if source == first {
            return Err(MoveRefused::Full(first));
        }
        if second != source {
            self.empty(second)?;
        }
        Ok([Leg { from: source, to: first }, Leg { from: first, to: second }])
    }

    /// The library after some legs, all at once.
    ///
    /// # Panics
    /// When they were not made by this inventory: a cartridge would be lost.
    #[must_use]
    pub fn after(&self, legs: &[Leg]) -> Self {
        let mut after = self.clone();
        let taken: Vec<Held> =
            legs.iter().map(|leg| after.held.remove(&leg.from).expect("a leg begins where a cartridge is")).collect();
        for (leg, held) in legs.iter().zip(taken) {
            let source = if matches!(leg.from, Place::Drive(_)) { held.source } else { Some(leg.from) };
            let displaced = after.held.insert(leg.to, Held { source, by_operator: false, ..held });
            assert!(displaced.is_none(), "two cartridges in {}", leg.to);
        }
        after
    }

    /// Changes how many places there are. Cartridges of places that are gone go to free slots; those that find none leave the
    /// library, and are given back.
    pub fn rearrange(&mut self, layout: Layout) -> Vec<Held> {
        self.layout = layout;
        let homeless: Vec<Place> = self.held.keys().copied().filter(|place| !layout.has(*place)).collect();
        let mut left = Vec::new();
        for place in homeless {
            let Some(held) = self.held.remove(&place) else { continue };
            match self.free(|place| matches!(place, Place::Slot(_))) {
                Some(slot) => drop(self.held.insert(slot, Held { source: None, ..held })),
                None => left.push(held),
            }
        }
        self.held.values_mut().for_each(|held| held.source = held.source.filter(|source| layout.has(*source)));
        left
    }

    fn full(&self, place: Place) -> Result<(), MoveRefused> {
        self.known(place)?;
        if self.held.contains_key(&place) { Ok(()) } else { Err(MoveRefused::Empty(place)) }
    }

    fn empty(&self, place: Place) -> Result<(), MoveRefused> {
        self.known(place)?;
        if self.held.contains_key(&place) { Err(MoveRefused::Full(place)) } else { Ok(()) }
    }

    fn known(&self, place: Place) -> Result<(), MoveRefused> {
        if self.layout.has(place) { Ok(()) } else { Err(MoveRefused::NoSuchPlace(place)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cartridge(name: &str) -> Held {
        Held { folder: name.into(), barcode: name.into(), worm: false, source: None, by_operator: true }
    }

    fn small() -> Inventory {
        let mut inventory = Inventory::new(Layout { drives: 2, slots: 3, mail: 1 });
        inventory.put(Place::Slot(0), cartridge("A")).unwrap();
        inventory.put(Place::Slot(1), cartridge("B")).unwrap();
        inventory
    }

    #[test]
    fn a_move_remembers_the_storage_element_it_came_from() {
        let legs = small().move_medium(Place::Slot(0), Place::Drive(1)).unwrap();
        let loaded = small().after(&legs);
        assert_eq!(loaded.get(Place::Slot(0)), None);
        assert_eq!(loaded.get(Place::Drive(1)).unwrap().source, Some(Place::Slot(0)));
        let legs = loaded.move_medium(Place::Drive(1), Place::Drive(0)).unwrap();
        let moved = loaded.after(&legs);
        assert_eq!(moved.get(Place::Drive(0)).unwrap().source, Some(Place::Slot(0)), "a drive is no storage element");
        assert!(!moved.get(Place::Drive(0)).unwrap().by_operator);
    }

    #[test]
    fn an_exchange_puts_the_second_cartridge_into_the_place_of_the_first() {
        let loaded = small().after(&small().move_medium(Place::Slot(0), Place::Drive(0)).unwrap());
        let swapped = loaded.after(&loaded.exchange_medium(Place::Slot(1), Place::Drive(0), Place::Slot(1)).unwrap());
        assert_eq!(swapped.get(Place::Drive(0)).unwrap().barcode, "B");
        assert_eq!(swapped.get(Place::Slot(1)).unwrap().barcode, "A");
        let aside = loaded.after(&loaded.exchange_medium(Place::Slot(1), Place::Drive(0), Place::Mail(0)).unwrap());
        assert_eq!(aside.get(Place::Mail(0)).unwrap().barcode, "A");
    }

    #[test]
    fn what_cannot_be_moved_is_named() {
        let inventory = small();
        assert_eq!(inventory.move_medium(Place::Slot(2), Place::Drive(0)), Err(MoveRefused::Empty(Place::Slot(2))));
        assert_eq!(inventory.move_medium(Place::Slot(0), Place::Slot(1)), Err(MoveRefused::Full(Place::Slot(1))));
        assert_eq!(inventory.move_medium(Place::Slot(0), Place::Slot(0)), Err(MoveRefused::Full(Place::Slot(0))));
        assert_eq!(inventory.move_medium(Place::Slot(0), Place::Drive(2)), Err(MoveRefused::NoSuchPlace(Place::Drive(2))));
        let exchange = |source, first, second| inventory.exchange_medium(source, first, second);
        assert_eq!(exchange(Place::Slot(0), Place::Drive(0), Place::Slot(0)), Err(MoveRefused::Empty(Place::Drive(0))));
        assert_eq!(exchange(Place::Slot(0), Place::Slot(0), Place::Slot(0)), Err(MoveRefused::Full(Place::Slot(0))));
        assert_eq!(exchange(Place::Slot(0), Place::Slot(1), Place::Slot(1)), Err(MoveRefused::Full(Place::Slot(1))));
    }

    #[test]
    fn a_smaller_library_keeps_what_it_has_room_for() {
        let mut inventory = small().after(&small().move_medium(Place::Slot(1), Place::Drive(1)).unwrap());
        assert_eq!(inventory.rearrange(Layout { drives: 1, slots: 2, mail: 0 }), []);
        assert_eq!(inventory.get(Place::Slot(1)).unwrap().barcode, "B");
        let left = inventory.rearrange(Layout { drives: 1, slots: 1, mail: 0 });
        assert_eq!(left.iter().map(|held| &*held.barcode).collect::<Vec<_>>(), ["B"]);
    }

    #[test]
    fn places_are_written_as_people_count() {
        for (place, text) in [(Place::Slot(0), "slot 1"), (Place::Drive(1), "drive 2"), (Place::Mail(239), "mail 240")] {
            assert_eq!(place.to_string(), text);
            assert_eq!(text.parse(), Ok(place));
        }
        for wrong in ["slot 0", "slot", "shelf 1", "slot 65536", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![(0u16..3).prop_map(Place::Mail), (0u16..4).prop_map(Place::Drive), (0u16..6).prop_map(Place::Slot)]
    }

    proptest! {
        #[test]
        fn no_sequence_of_moves_loses_or_doubles_a_cartridge(
            steps in proptest::collection::vec((place(), place(), place(), any::<bool>()), 0..60),
        ) {
            let mut inventory = Inventory::new(Layout { drives: 2, slots: 5, mail: 2 });
            for (number, name) in ["A", "B", "C", "D"].into_iter().enumerate() {
                inventory.put(Place::Slot(number as u16), cartridge(name)).unwrap();
            }
            for (source, first, second, exchange) in steps {
                inventory = if exchange {
                    inventory.exchange_medium(source, first, second).map_or(inventory.clone(), |legs| inventory.after(&legs))
                } else {
                    inventory.move_medium(source, first).map_or(inventory.clone(), |legs| inventory.after(&legs))
                };
                let mut names: Vec<_> = inventory.held().map(|(_, held)| held.barcode.clone()).collect();
                names.sort();
                prop_assert_eq!(names, ["A", "B", "C", "D"]);
                prop_assert!(inventory.held().all(|(place, _)| inventory.layout().has(place)));
            }
        }
    }
}
