//! Run lists ("mapping pairs"): which clusters a non-resident attribute occupies, in the order of its own bytes.
//!
//! A run list says nothing about the length of the value in bytes; that stands in the attribute header. A hole may be longer
//! than the volume. Follows the published on-disk format ("Data Runs").

use nom::bytes::complete::take;
use nom::number::complete::u8 as byte;
use nom::{IResult, Parser};
use serde::{Deserialize, Serialize};

/// Clusters that follow each other on the volume, or a hole of that many clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    /// First cluster on the volume; [`Run::HOLE`] for a hole.
    pub lcn: u64,
    /// In clusters, never zero.
    pub clusters: u64,
}

impl Run {
    /// No volume has a cluster of this number.
    pub const HOLE: u64 = u64::MAX;

    /// The first cluster; `None` for a hole.
    #[must_use]
    pub const fn start(&self) -> Option<u64> {
        if self.lcn == Self::HOLE { None } else { Some(self.lcn) }
    }
}

/// What is wrong with a run list, as a phrase for a note.
pub type RunProblem = &'static str;

/// Reads the runs one by one; ends behind the first problem.
#[derive(Debug, Clone)]
pub struct RunList<'a> {
    rest: &'a [u8],
    previous: i64,
    clusters: u64,
    ended: bool,
}

impl<'a> RunList<'a> {
    /// `clusters` is the length of the volume: a run that leaves it is a problem.
    #[must_use]
    pub const fn new(pairs: &'a [u8], clusters: u64) -> Self {
        Self { rest: pairs, previous: 0, clusters, ended: false }
    }

    fn step(&mut self) -> Result<Option<Run>, RunProblem> {
        let (rest, pair) = pair(self.rest).map_err(|_| "the run list ends in the middle of a run")?;
        self.rest = rest;
        let Some((length, delta)) = pair else { return Ok(None) };
        let clusters = signed(length)?;
        let clusters = u64::try_from(clusters).ok().filter(|clusters| *clusters > 0).ok_or("a run is not longer than nothing")?;
        if delta.is_empty() {
            return Ok(Some(Run { lcn: Run::HOLE, clusters }));
        }
        let lcn = self.previous.checked_add(signed(delta)?).ok_or("a run begins outside the volume")?;
        self.previous = lcn;
        // NT 3.x wrote holes so.
        if lcn == -1 {
            return Ok(Some(Run { lcn: Run::HOLE, clusters }));
        }
        let start = u64::try_from(lcn).map_err(|_| "a run begins outside the volume")?;
        match start.checked_add(clusters) {
            Some(end) if end <= self.clusters => Ok(Some(Run { lcn: start, clusters })),
            _ => Err("a run leaves the volume"),
        }
    }
}

impl Iterator for RunList<'_> {
    type Item = Result<Run, RunProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step();
        self.ended = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}

/// Length and delta of a run, as they stand.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// `None` for the zero that ends the list.
fn pair(input: &[u8]) -> IResult<&[u8], Option<Pair<'_>>> {
    let (input, header) = byte(input)?;
    if header == 0 {
        return Ok((input, None));
    }
    let (input, pair) = (take(header & 0x0F), take(header >> 4)).parse(input)?;
    Ok((input, Some(pair)))
}

fn signed(bytes: &[u8]) -> Result<i64, RunProblem> {
    let sign = bytes.last().map_or(0, |last| if last & 0x80 == 0 { 0 } else { 0xFF });
    let mut wide = [sign; 8];
    wide.get_mut(..bytes.len()).ok_or("a run's field is longer than eight bytes")?.copy_from_slice(bytes);
    Ok(i64::from_le_bytes(wide))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::wire::hex;

    /// The other direction, for round trips only: this project never writes NTFS.
    pub(crate) fn emit(runs: &[Run]) -> Vec<u8> {
        let short = |value: i64| {
            let bytes = value.to_le_bytes();
            let len = (1..8).find(|len| signed(&bytes[..*len]) == Ok(value)).unwrap_or(8);
            bytes[..len].to_vec()
        };
        let (mut bytes, mut previous) = (Vec::new(), 0);
        for run in runs {
            let length = short(run.clusters as i64);
            let delta = run.start().map_or(Vec::new(), |lcn| short(lcn as i64 - previous));
            previous = run.start().map_or(previous, |lcn| lcn as i64);
            bytes.push((delta.len() << 4 | length.len()) as u8);
            bytes.extend(length);
            bytes.extend(delta);
        }
        bytes.push(0);
        bytes
    }

    fn all(bytes: &[u8], clusters: u64) -> Result<Vec<Run>, RunProblem> {
        RunList::new(bytes, clusters).collect()
    }

    #[test]
    fn a_list_with_a_hole_and_a_step_backwards_is_read() {
        let golden = hex("31 38 738234  01 10  21 05 FBFF  11 02 03  00 FFFF");
        let expected =
            [(0x348273, 0x38), (Run::HOLE, 0x10), (0x34826E, 5), (0x348271, 2)].map(|(lcn, clusters)| Run { lcn, clusters });
        assert_eq!(all(&golden, 1 << 32), Ok(expected.to_vec()));
    }

    #[test]
    fn a_list_that_cannot_be_is_refused() {
        for (bytes, clusters) in [
            ("31 38 7382", 1 << 32),                                        // cut
            ("11 00 05 00", 100),                                           // zero clusters
            ("11 80 05 00", 1000),                                          // a negative length
            ("11 05 FE 00", 100),                                           // before the volume
            ("11 05 60 00", 100),                                           // behind it
            ("19 FFFFFFFFFFFFFFFFFF 01 00", 100),                           // nine bytes
            ("81 01 FFFFFFFFFFFFFF7F 81 01 FFFFFFFFFFFFFF7F 00", u64::MAX), // a start that does not fit
        ] {
            assert!(all(&hex(bytes), clusters).is_err(), "{bytes}");
        }
        assert_eq!(all(&hex("11 05 FF 00"), 100), Ok(vec![Run { lcn: Run::HOLE, clusters: 5 }]), "NT 3.x");
    }

    proptest! {
        #[test]
        fn runs_survive_a_round_trip(runs in prop::collection::vec((prop::option::of(0u64..1 << 40), 1u64..1 << 40), 0..40)) {
            let runs: Vec<Run> = runs.into_iter().map(|(lcn, clusters)| Run { lcn: lcn.unwrap_or(Run::HOLE), clusters }).collect();
            prop_assert_eq!(all(&emit(&runs), 1 << 42), Ok(runs));
        }

        #[test]
        fn any_bytes_end_and_stay_inside_the_volume(bytes in prop::collection::vec(any::<u8>(), 0..200), clusters in any::<u64>()) {
            for run in RunList::new(&bytes, clusters).flatten() {
                prop_assert!(run.clusters > 0 && run.start().is_none_or(|lcn| lcn.checked_add(run.clusters).unwrap() <= clusters));
            }
        }
    }
}
