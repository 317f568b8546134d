//! `kill -9` of a target whose changer moves cartridges: each is in one element afterwards, and the drives have what the changer says.

use std::collections::BTreeMap;
use std::time::Duration;

use offhost_tests::programs::Target;
use protocol::scsi::smc::ElementType;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sim::client::{Client, LogicalUnit, Options, TapeRead};

const FLAGS: [&str; 2] = ["--library", "shelf:64MiB,drives=2,slots=5,mail=1,cartridges=4"];
const CHANGER: u16 = 0;
const CARTRIDGES: [&str; 4] = ["OFH001L8", "OFH002L8", "OFH003L8", "OFH004L8"];
/// Kills, each at another moment of the moves.
const ROUNDS: u64 = 12;

/// Which cartridge is in which element.
type Places = BTreeMap<u16, String>;

async fn changer(target: &Target) -> LogicalUnit {
    let unit = Client::connect(&target.url(CHANGER).parse().unwrap(), Options::default()).await.unwrap().unit();
    unit.test_unit_ready().await.unwrap();
    unit
}

async fn places(changer: &LogicalUnit) -> Places {
    let full = changer.elements(None).await.unwrap().into_iter().filter(|element| element.full);
    full.map(|element| (element.address, element.volume_tag.expect("every cartridge has a label"))).collect()
}

/// One step: a move to an empty element, or an exchange of two cartridges.
#[derive(Debug, Clone)]
enum Step {
    Move(u16, u16),
    Exchange(u16, u16),
}

impl Step {
    fn any(random: &mut SmallRng, places: &Places, all: &[u16]) -> Self {
        let full: Vec<u16> = places.keys().copied().collect();
        let source = full[random.random_range(0..full.len())];
        let other = loop {
            let other = all[random.random_range(0..all.len())];
            if other != source {
                break other;
            }
        };
        if places.contains_key(&other) { Self::Exchange(source, other) } else { Self::Move(source, other) }
    }

    async fn carry_out(&self, changer: &LogicalUnit) -> bool {
        match *self {
            Self::Move(source, destination) => changer.move_medium(source, destination).await.is_ok(),
            Self::Exchange(source, other) => changer.exchange_medium(source, other, source).await.is_ok(),
        }
    }

    fn after(&self, places: &Places) -> Places {
        let mut places = places.clone();
        let (Self::Move(source, other) | Self::Exchange(source, other)) = *self;
        let (first, second) = (places.remove(&source), places.remove(&other));
        places.extend(first.map(|first| (other, first)));
        places.extend(second.map(|second| (source, second)));
        places
    }
}

/// Writes each cartridge's name on it, in the first drive.
async fn label(changer: &LogicalUnit, places: &Places, drive_element: u16, lun: u16) {
    let drive = changer.client().lun(lun);
    for (slot, name) in places {
        changer.move_medium(*slot, drive_element).await.unwrap();
        drive.test_unit_ready().await.unwrap();
        drive.write_record(name.clone().into_bytes().into()).await.unwrap();
        drive.write_filemarks(1).await.unwrap();
        changer.move_medium(drive_element, *slot).await.unwrap();
    }
}

/// What is written on the cartridge in a drive; `None` where there is none.
async fn read_label(drive: &LogicalUnit) -> Option<String> {
    drive.test_unit_ready().await.ok()?;
    drive.rewind().await.unwrap();
    match drive.read_record(64).await.unwrap() {
        TapeRead::Record(name) => Some(String::from_utf8(name.to_vec()).unwrap()),
        other => panic!("{other:?} and no label"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_target_has_every_cartridge_in_one_element_and_its_drives_agree() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SmallRng::seed_from_u64(20_260_101);
    let mut target = Target::start(folder.path(), &FLAGS).unwrap();
    let arm = changer(&target).await;
    let elements = arm.elements(None).await.unwrap();
    let all: Vec<u16> =
        elements.iter().filter(|element| element.kind != ElementType::MediumTransport).map(|element| element.address).collect();
    let drives: Vec<u16> =
        elements.iter().filter(|element| element.kind == ElementType::DataTransfer).map(|element| element.address).collect();
    let mut known = places(&arm).await;
    assert_eq!(known.values().collect::<Vec<_>>(), CARTRIDGES);
    label(&arm, &known, drives[0], 1).await;
    let mut moved = 0;
    for round in 0..ROUNDS {
        let arm = changer(&target).await;
        let (mut steps, start, elements) = (SmallRng::seed_from_u64(random.random()), known.clone(), all.clone());
        let mover = tokio::spawn(async move {
            let (mut places, mut done) = (start, 0);
            loop {
                let step = Step::any(&mut steps, &places, &elements);
                let after = step.after(&places);
                if !step.carry_out(&arm).await {
                    // The one that was under way may have happened or not.
                    return (places, after, done);
                }
                (places, done) = (after, done + 1);
            }
        });
        tokio::time::sleep(Duration::from_millis(30 + 17 * round)).await;
        target.kill();
        let (acknowledged, tried, done) = mover.await.unwrap();
        moved += done;
        target = Target::start(folder.path(), &FLAGS).unwrap();
        let arm = changer(&target).await;
        known = places(&arm).await;
        assert!(known == acknowledged || known == tried, "round {round}: {known:?} is neither {acknowledged:?} nor {tried:?}");
        let mut names: Vec<_> = known.values().cloned().collect();
        names.sort();
        assert_eq!(names, CARTRIDGES, "round {round}");
        for (lun, element) in (1..).zip(&drives) {
            let written = read_label(&arm.client().lun(lun)).await;
            assert_eq!(written.as_ref(), known.get(element), "round {round}: drive {lun}\n{}", target.log());
        }
    }
    assert!(moved >= ROUNDS, "only {moved} moves in {ROUNDS} rounds: nothing was interrupted");
}
