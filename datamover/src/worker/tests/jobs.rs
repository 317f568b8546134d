//! A job is the target's word; whatever it says, a mover ends it, with an outcome and without a panic.

use proptest::prelude::*;
use protocol::mover::ends::Index;
use protocol::mover::{Destination, Source, SpaceOver};

use super::*;

/// Small numbers, which reach something, and those that overflow.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..5000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(i64::MAX as u64)]
}

fn short() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..2000_u32, 1 => any::<u32>(), 1 => Just(512)]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    (0..5_u16).prop_map(Descriptor)
}

fn index() -> impl Strategy<Value = EndIndex> {
    (0..6_u16).prop_map(EndIndex)
}

fn position() -> impl Strategy<Value = TapePosition> {
    (number(), number(), number()).prop_map(|(object, file, offset)| TapePosition { object, file, offset })
}

fn range() -> impl Strategy<Value = ByteRange> {
    (number(), number()).prop_map(|(start, len)| ByteRange { start, len })
}

fn end() -> impl Strategy<Value = End> {
    let index = prop::option::of((descriptor(), number()));
    let cartridge = (descriptor(), index, position(), position(), any::<bool>(), any::<bool>(), any::<bool>());
    prop_oneof![
        4 => (descriptor(), range(), prop_oneof![4 => Just(512), 1 => short()])
            .prop_map(|(file, within, block_length)| End::Raw { file, within, block_length }),
        4 => cartridge.prop_map(|(image, index, at, end_of_data, writable, publishes, aligned)| End::Cartridge {
            image,
            index: index.map(|(file, objects)| Index { file, objects }),
            at,
            end_of_data,
            // What a mover may fill, so that no run takes long.
            capacity: 100_000,
            early_warning: 90_000,
            layout: if aligned { Layout::Aligned } else { Layout::Plain },
            writable,
            publishes,
        }),
        1 => (descriptor(), range(), descriptor(), descriptor(), any::<u64>()).prop_map(|(live, within, copies, table, generation)| {
            End::View { live, within, parts: Vec::new(), copies, table, generation, block_length: 512 }
        }),
        1 => short().prop_map(|block_length| End::NullBlock { block_length }),
        1 => Just(End::NullStream),
    ]
}

fn transfer() -> impl Strategy<Value = Transfer> {
    (short(), prop_oneof![4 => Just(1), 1 => short()], any::<bool>()).prop_map(|(record, records, fixed)| Transfer {
        record,
        records,
        fixed,
    })
}

fn movement() -> impl Strategy<Value = Action> {
    let from = prop_oneof![
        (index(), number()).prop_map(|(end, at)| Source::Blocks { end, at }),
        (index(), number(), number()).prop_map(|(end, at, len)| Source::Bytes { end, at, len }),
        (index(), transfer()).prop_map(|(end, transfer)| Source::Stream { end, transfer }),
        (short(), short()).prop_map(|(offset, len)| Source::Inline { offset, len }),
    ];
    let to = prop_oneof![
        (index(), number()).prop_map(|(end, at)| Destination::Blocks { end, at }),
        (index(), number()).prop_map(|(end, at)| Destination::Bytes { end, at }),
        (index(), transfer()).prop_map(|(end, transfer)| Destination::Stream { end, transfer }),
        Just(Destination::Discard),
    ];
    let counts = (prop::option::of(number()), prop::option::of(number()), any::<bool>(), any::<bool>(), any::<bool>());
    (from, to, counts).prop_map(|(from, to, (process, output, source_pad, destination_pad, hold))| {
        Action::Move(Move { from, to, process, output, source_pad, destination_pad, hold })
    })
}

fn action() -> impl Strategy<Value = Action> {
    let over = prop_oneof![Just(SpaceOver::LogicalBlocks), Just(SpaceOver::Filemarks), Just(SpaceOver::EndOfData)];
    prop_oneof![
        6 => movement(),
        1 => (index(), short(), any::<bool>())
            .prop_map(|(end, count, immediate)| Action::WriteFilemarks { end, count, immediate }),
        1 => (index(), over, any::<i32>()).prop_map(|(end, over, count)| Action::Space { end, over, count }),
        1 => (index(), number()).prop_map(|(end, object)| Action::Locate { end, object }),
    ]
}

/// Grants everything, and keeps nothing: where these jobs claim that a tape ends, nothing is.
struct Indulgent;

impl Link for Indulgent {
    fn ask(&self, question: Question) -> Result<Option<File>, FaultKind> {
        Ok(matches!(question, Question::Append { .. }).then(|| tempfile::tempfile().unwrap()))
    }

    fn give_back(&self, _: EndIndex) {}

    fn tape(&self, _: EndIndex, _: TapeReport) {}

    fn held(&self, _: Vec<u8>, _: bool) {}

    fn progress(&self, _: u32, _: u64, _: ByMethod) {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_job_of_any_numbers_ends(
        ends in prop::collection::vec(end(), 1..6),
        actions in prop::collection::vec((action(), any::<bool>()), 1..5),
        inline in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut rig = Rig { in_memory: true, ..Rig::default() };
        rig.tape(&vec![Some(noise(512, 1)), None, Some(noise(100, 2)), Some(noise(512, 3))], 0);
        rig.disk(&noise(8192, 4));
        rig.disk(&noise(4096, 5));
        rig.file(&[]);
        rig.ends = ends;
        let steps = actions.into_iter().enumerate().map(|(segment, (action, cat))| Step { segment: segment as u32, cat, action });
        let outcome = run(rig.job(steps.collect(), &inline), &rig.files, &Indulgent, control());
        prop_assert!(outcome != Outcome::Cancelled);
    }
}
