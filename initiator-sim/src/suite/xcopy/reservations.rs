//! Persistent reservations by copy: segment types 14h and 15h.

use super::parameters::{Parameters, any, block_to_block, locate, register_key};
use super::{CopyDisk, DISK, DiskAndTape, INVALID_OPERATION, TAPE, THIRD_PARTY_DEVICE_FAILURE, aborted, wants};
use crate::client::{Data, LogicalUnit};
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("register-by-copy", "SPC-4, Register persistent reservation key function (14h)", Needs::CopyDisk, |bench| {
        Box::pin(register(bench))
    }),
    Case::new("register-opens-the-way", "SPC-4, segment type 14h, order of segments", Needs::CopyDiskAndTape, |bench| {
        Box::pin(opens_the_way(bench))
    }),
    Case::new(
        "move-after-an-error",
        "SPC-4, Third party persistent reservations source I_T nexus function (15h)",
        Needs::CopyDiskAndTape,
        |bench| Box::pin(move_after_error(bench)),
    ),
];

const KEY: u64 = 0x00C0_FFEE_0000_0014;
const OTHER_KEY: u64 = 0x00C0_FFEE_0000_0015;

/// Keys that are registered. SPC-4, "PERSISTENT RESERVE IN command with READ KEYS service action".
async fn keys(unit: &LogicalUnit) -> Outcome<Vec<u64>> {
    let reply = unit.command(&[0x5E, 0, 0, 0, 0, 0, 0, 0x02, 0x00, 0], Data::In(512)).await?;
    let data = check::good("READ KEYS", reply)?;
    ensure(data.len() >= 8, || format!("{} bytes of keys", data.len()))?;
    Ok(data[8..].chunks_exact(8).map(|key| u64::from_be_bytes(*key.first_chunk().expect("eight bytes"))).collect())
}

async fn reserve_out(unit: &LogicalUnit, action: u8, kind: u8, key: u64, action_key: u64) -> Outcome {
    let list = [key.to_be_bytes(), action_key.to_be_bytes(), [0; 8]].concat();
    let reply = unit.command(&[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], Data::Out(list.into())).await?;
    check::good(&format!("PERSISTENT RESERVE OUT {action:02X}h"), reply).map(drop)
}

async fn register(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x14]).await?;
    check::good("14h", copy.run(&copy.list().with(register_key(0, 0, KEY))).await?)?;
    ensure(keys(&copy.disk.unit).await?.contains(&KEY), || "the key is not registered".into())?;
    let wrong = copy.run(&copy.list().with(register_key(0, OTHER_KEY, 1))).await?;
    aborted("14h with a wrong key", &wrong, &[THIRD_PARTY_DEVICE_FAILURE], 0)?;
    check::good("14h that takes the key away", copy.run(&copy.list().with(register_key(0, KEY, 0))).await?)?;
    ensure(!keys(&copy.disk.unit).await?.contains(&KEY), || "the key is still registered".into())
}

/// Another nexus reserves for registrants only: a copy that registers first may write.
async fn opens_the_way(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    // Sent to the tape: the disk would refuse EXTENDED COPY itself.
    wants(&devices.tape, &[0x02, 0x14]).await?;
    let run = async |list: Parameters| devices.tape.extended_copy_reply(list.emit().into()).await;
    let data = devices.disk.pattern(0x14, 1);
    devices.disk.put(0, &data).await?;
    devices.disk.put(2000, &devices.disk.pattern(0x41, 1)).await?;
    let other = bench.disk().await?.unit;
    reserve_out(&other, 0x06, 0, 0, OTHER_KEY).await?;
    // WRITE EXCLUSIVE - REGISTRANTS ONLY.
    reserve_out(&other, 0x01, 0x05, OTHER_KEY, 0).await?;
    let write = block_to_block(0, (0, 0), 1, 0, 2000);
    let shut = run(devices.list().with(write.clone())).await;
    let opened = run(devices.list().with(register_key(0, 0, KEY)).with(write)).await;
    let closed = run(devices.list().with(register_key(0, KEY, 0))).await;
    reserve_out(&other, 0x03, 0, OTHER_KEY, 0).await?;
    aborted("a copy to where another nexus has the right", &shut?, &[THIRD_PARTY_DEVICE_FAILURE], 0)?;
    check::good("14h, then 02h", opened?)?;
    check::good("14h that takes the key away", closed?)?;
    // CLEAR has left the nexus a unit attention.
    devices.disk.unit.test_unit_ready().await?;
    equal_bytes("the destination", &devices.disk.get(2000, 1).await?, &data)
}

/// A 15h before a segment that fails is done all the same; behind it, it is not. An unknown relative target port refuses the move
/// itself, which shows only where nothing failed before it.
async fn move_after_error(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    devices.wants(&[0x12, 0x14, 0x15]).await?;
    // TransportID of iSCSI (format 01b with an ISID), padded to a multiple of four.
    let mut transport_id = b"\x45\x00\x00\x00iqn.2026-01.org.offhost:moved,i,0x800000000001\0".to_vec();
    transport_id.resize(transport_id.len().next_multiple_of(4), 0);
    let length = (transport_id.len() - 4) as u16;
    transport_id[2..4].copy_from_slice(&length.to_be_bytes());
    // The parameter list of REGISTER AND MOVE: UNREG, the target port of this session, the other initiator port.
    let reservation = |key: u64| {
        let mut body = [key.to_be_bytes(), OTHER_KEY.to_be_bytes()].concat();
        body.extend([0, 0x02, 0, 1]);
        body.extend((transport_id.len() as u32).to_be_bytes());
        body.extend(&transport_id);
        any(0x15, (0, TAPE), &body)
    };
    aborted(
        "15h to a disk",
        &devices.run(&devices.list().with(any(0x15, (0, DISK), &reservation(KEY)[8..]))).await?,
        &[INVALID_OPERATION],
        0,
    )?;
    devices.copy("14h", &devices.list().with(register_key(TAPE, 0, KEY))).await?;
    // EXCLUSIVE ACCESS: only a holder can move a reservation.
    reserve_out(&devices.tape, 0x01, 0x03, KEY, 0).await.ok();
    let outcome = moved(&devices, &reservation(KEY)).await;
    // However it went: nothing of it may stay behind.
    let _ = reserve_out(&devices.tape, 0x06, 0, 0, KEY).await;
    reserve_out(&devices.tape, 0x03, 0, KEY, 0).await?;
    outcome
}

async fn moved(devices: &DiskAndTape, reservation: &[u8]) -> Outcome {
    let before = keys(&devices.tape).await?;
    let list = devices.list().with(locate(TAPE, 0x00FF_FFFF)).with(reservation.to_vec());
    aborted("an error before 15h", &devices.run(&list).await?, &[THIRD_PARTY_DEVICE_FAILURE], 0)?;
    equal("keys: 15h behind the error is not done", keys(&devices.tape).await?, before)?;
    let list = devices.list().with(reservation.to_vec()).with(locate(TAPE, 0x00FF_FFFF));
    aborted("15h and then an error", &devices.run(&list).await?, &[THIRD_PARTY_DEVICE_FAILURE], 1)?;
    equal("keys: 15h was done after the error", keys(&devices.tape).await?, vec![OTHER_KEY])
}
