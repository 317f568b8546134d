//! A copy reaches what its I_T nexus sees, and nothing else (CVE-2020-28374): every way around the LUN map is tried on a real target.
//!
//! One initiator sees all LUNs, the other one some of them. The other knows every name of a LUN that is hidden from it, and tries to
//! read and to write it by segments of all kinds, in lists of both formats.

use std::path::Path;

use offhost_tests::pattern;
use offhost_tests::programs::Target;
use protocol::scsi::SenseKey;
use protocol::units::{BlockLength, Lba};
use protocol::xcopy::{CscdDescriptor, CscdId, CscdParameters, Designator, List, ListIdUsage, Segment, SegmentDescriptor};
use sim::client::{Client, Data, LogicalUnit, Options, Reply};
use sim::url::Url;

const OWNER: &str = "iqn.2026-01.test:owner";
const GUEST: &str = "iqn.2026-01.test:guest";
const SIZE: usize = 4 << 20;
/// As the owner sees them. The guest sees OPEN as LUN 0 and PROTECTED as LUN 1.
const OPEN: u16 = 0;
const HIDDEN: u16 = 1;
const PROTECTED: u16 = 2;

const CONFIG: &str = r#"
data = "data"

[[portal]]
listen = "127.0.0.1:0"

[[target]]
name = "iqn.2026-01.org.offhost:access"

[[target.lun]]
lun = 0
disk = "open.img"

[[target.lun]]
lun = 1
disk = "hidden.img"

[[target.lun]]
lun = 2
disk = "protected.img"

[[target.access]]
initiators = ["iqn.2026-01.test:owner"]

[[target.access]]
initiators = ["iqn.2026-01.test:guest"]
luns = [0, { lun = 2, as = 1, read_only = true }]
"#;

/// COPY TARGET DEVICE NOT REACHABLE, UNREACHABLE COPY TARGET.
const UNREACHABLE: [(u8, u8); 2] = [(0x0D, 0x02), (0x08, 0x04)];
const THIRD_PARTY_DEVICE_FAILURE: (u8, u8) = (0x0D, 0x01);

fn content(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

async fn log_in(target: &Target, name: &str) -> Client {
    let url: Url = target.url(0).parse().unwrap();
    let client = Client::connect(&url, Options::named(name)).await.unwrap();
    client.unit().test_unit_ready().await.unwrap();
    client
}

/// Every name of a LUN that a CSCD descriptor has room for: of the logical unit, of its target port, of its target device.
async fn names(unit: &LogicalUnit) -> Vec<Designator> {
    let all = unit.designators().await.unwrap();
    let fit = all.iter().filter_map(|one| Designator::new(one.code_set as u8, one.association as u8, one.kind as u8, &one.bytes));
    let names: Vec<_> = fit.collect();
    assert!(names.iter().any(|name| name.association == 0), "a LUN has a name of its own: {all:?}");
    names
}

/// Segments that read `from`, write `to`, or only look at them.
fn segments(from: CscdId, to: CscdId) -> Vec<SegmentDescriptor> {
    let blocks = Segment::BlockToBlock {
        source: from,
        destination: to,
        count_of: Default::default(),
        blocks: 8,
        from: Lba(0),
        to: Lba(0),
    };
    let (source, destination, bytes) = (from, to, 512);
    let (at, from_offset, to_offset) = (Lba(0), 0, 0);
    let range = Segment::BlockOffsetToBlockOffset { source, destination, bytes, from: at, from_offset, to: at, to_offset };
    vec![
        SegmentDescriptor { cat: false, hold: true, segment: blocks.clone() },
        blocks.into(),
        range.into(),
        Segment::BlockImage { source, destination, blocks: 0, from: at, to: at }.into(),
    ]
}

async fn send(unit: &LogicalUnit, list: &List) -> Reply {
    let action = u8::from(list.format == protocol::xcopy::ListFormat::Lid4);
    unit.third_party_copy_out(action, list.emit().into()).await.unwrap()
}

fn refused(what: &str, reply: &Reply, codes: &[(u8, u8)]) {
    let sense = reply.sense.as_ref().unwrap_or_else(|| panic!("{what}: status {:?}", reply.status));
    assert!(sense.key == SenseKey::CopyAborted && codes.contains(&sense.code), "{what}: {sense}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_list_reaches_a_lun_that_is_hidden_from_its_sender() {
    let folder = tempfile::tempdir().unwrap();
    for (index, name) in ["open.img", "hidden.img", "protected.img"].into_iter().enumerate() {
        std::fs::write(folder.path().join(name), pattern::bytes(index as u64 + 1, 0, SIZE)).unwrap();
    }
    std::fs::write(folder.path().join("offhost.toml"), CONFIG).unwrap();
    let before = ["open.img", "hidden.img", "protected.img"].map(|name| content(folder.path(), name));
    let target = Target::configured(folder.path(), "offhost.toml").unwrap();
    let (owner, guest) = (log_in(&target, OWNER).await, log_in(&target, GUEST).await);
    let unit = guest.lun(0);
    assert_eq!(guest.unit().report_luns().await.unwrap().len(), 2);

    let own = names(&owner.lun(OPEN)).await;
    let hidden = names(&owner.lun(HIDDEN)).await;
    let own_name = own.iter().find(|name| name.association == 0).unwrap().clone();
    let parameters = [
        CscdParameters::Block { device_type: 0x00, pad: false, block_length: 512 },
        CscdParameters::Block { device_type: 0x00, pad: true, block_length: 0 },
    ];
    let mut tried = 0;
    for name in &hidden {
        for parameters in parameters {
            for lid4 in [false, true] {
                for (reads, index) in [true, false].into_iter().flat_map(|reads| (0..4).map(move |index| (reads, index))) {
                    let mut list = if lid4 { List::lid4(0x77) } else { List::new(0x77) };
                    list.usage = ListIdUsage::Hold;
                    let visible = list.cscd(CscdDescriptor::disk(own_name.clone(), 512));
                    let wanted = list.cscd(CscdDescriptor::new(name.clone(), parameters));
                    let (from, to) = if reads { (wanted, visible) } else { (visible, wanted) };
                    list.segments = vec![segments(from, to).swap_remove(index)];
                    let what = format!("{name:?}, {parameters:?}, LID4 {lid4}, reads {reads}, {:?}", list.segments[0]);
                    refused(&what, &send(&unit, &list).await, &UNREACHABLE);
                    let held = unit.receive_copy_data(0x77, 1 << 17).await.unwrap();
                    assert_eq!(held[..], [0; 4], "{what}: held data");
                    tried += 1;
                }
            }
        }
        let mut list = List::new(0x78);
        let wanted = list.cscd(CscdDescriptor::disk(name.clone(), 512));
        list.push(Segment::VerifyCscd { source: wanted, test_unit_ready: false });
        refused("07h tells that it is there", &send(&unit, &list).await, &UNREACHABLE);
        list.segments = vec![Segment::RegisterKey { destination: wanted, key: 0, action_key: 0xBAD }.into()];
        refused("14h", &send(&unit, &list).await, &UNREACHABLE);
        tried += 2;
    }
    // Ids that are no descriptor's: a LUN number, a null unit, the ROD's, the highest there is.
    for id in [0x0001, HIDDEN, 0x07FF, 0x0800, 0xC000, 0xC002, 0xF800, 0xFFFE] {
        let mut list = List::new(0x79);
        let visible = list.cscd(CscdDescriptor::disk(own_name.clone(), 512));
        for (from, to) in [(CscdId(id), visible), (visible, CscdId(id))] {
            for segment in segments(from, to) {
                list.segments = vec![segment];
                refused(&format!("id {id:04x}h"), &send(&unit, &list).await, &UNREACHABLE);
                tried += 1;
            }
        }
    }
    // What is seen under another number and protected there is read, and not written.
    let mut list = List::new(0x7A);
    let visible = list.cscd(CscdDescriptor::disk(own_name.clone(), 512));
    let protected = list.cscd(CscdDescriptor::disk(owner.lun(PROTECTED).cscd_designator().await.unwrap(), 512));
    for segment in segments(visible, protected) {
        list.segments = vec![segment];
        refused("a LUN that is read-only for this initiator", &send(&unit, &list).await, &[THIRD_PARTY_DEVICE_FAILURE]);
        tried += 1;
    }
    println!("{tried} lists were tried");
    let after = ["open.img", "hidden.img", "protected.img"].map(|name| content(folder.path(), name));
    assert!(before == after, "no disk has changed");
    owner.lun(HIDDEN).test_unit_ready().await.unwrap();
    let keys = owner.lun(HIDDEN).command(&[0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0], Data::In(64)).await.unwrap();
    assert_eq!(keys.data[4..8], [0; 4], "nobody is registered with the hidden LUN");

    // The same list is good for who sees both.
    let mut list = List::new(1);
    let from = list.cscd(CscdDescriptor::disk(owner.lun(HIDDEN).cscd_designator().await.unwrap(), 512));
    let to = list.cscd(CscdDescriptor::disk(own_name, 512));
    list.segments = vec![segments(from, to).swap_remove(1)];
    assert!(send(&owner.lun(OPEN), &list).await.sense.is_none());
    let copied = owner.lun(OPEN).read(Lba(0), 8, BlockLength::B512).await.unwrap();
    assert!(copied[..] == before[1][..8 * 512]);
}
