//! Persistent reservations: who is registered, who holds what, whom it keeps out, and who is told.

use bytes::Bytes;
use protocol::scsi::{SenseKey, Status};

use crate::client::{Data, Reply};
use crate::suite::bench::Disk;
use crate::suite::check::{self, Outcome, equal, equal_bytes, refused};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("persistent-register", "SPC-4, Registering; READ KEYS service action", Needs::ScratchDisk, |bench| {
        Box::pin(register(bench))
    }),
    Case::new(
        "persistent-types",
        "SPC-4, Reservations, table of commands allowed; SBC-4, Reservations",
        Needs::ScratchDisk,
        |bench| Box::pin(types(bench)),
    ),
    Case::new("persistent-release", "SPC-4, Releasing", Needs::ScratchDisk, |bench| Box::pin(release(bench))),
    Case::new(
        "persistent-preempt",
        "SPC-4, Preempting persistent reservations and registration handling",
        Needs::ScratchDisk,
        |bench| Box::pin(preempt(bench)),
    ),
    Case::new("persistent-clear", "SPC-4, Clearing", Needs::ScratchDisk, |bench| Box::pin(clear(bench))),
    Case::new("persistent-move", "SPC-4, Registering and moving the reservation", Needs::ScratchDisk, |bench| {
        Box::pin(register_and_move(bench))
    }),
    Case::new("persistent-outlives-the-session", "SPC-4, Persistent Reservations overview", Needs::ScratchDisk, |bench| {
        Box::pin(outlives(bench))
    }),
    Case::new(
        "reserve-keeps-others-out",
        "SPC-4, Exceptions to SPC-2 RESERVE and RELEASE behavior",
        Needs::ScratchDisk,
        |bench| Box::pin(reserve(bench)),
    ),
];

const REGISTER: u8 = 0x00;
const RESERVE: u8 = 0x01;
const RELEASE: u8 = 0x02;
const CLEAR: u8 = 0x03;
const PREEMPT: u8 = 0x04;
const REGISTER_AND_IGNORE: u8 = 0x06;
const REGISTER_AND_MOVE: u8 = 0x07;

const EXCLUSIVE_ACCESS: u8 = 0x03;
const WRITE_EXCLUSIVE: u8 = 0x01;

/// Two sessions with the disk, nothing registered: the first with key 0Ah, the second with 0Bh, once they are.
async fn pair(bench: &Bench) -> Outcome<[Disk; 2]> {
    let [a, b] = [bench.disk().await?, bench.disk().await?];
    let reply = out(&a, REGISTER_AND_IGNORE, 0, 0, 0x0A).await?;
    check::good("REGISTER AND IGNORE EXISTING KEY", check::supported("PERSISTENT RESERVE OUT", reply)?)?;
    check::good("CLEAR", out(&a, CLEAR, 0, 0x0A, 0).await?)?;
    for disk in [&a, &b] {
        disk.unit.test_unit_ready().await?;
    }
    Ok([a, b])
}

async fn registered_pair(bench: &Bench) -> Outcome<[Disk; 2]> {
    let disks = pair(bench).await?;
    for (disk, key) in disks.iter().zip([0x0A, 0x0B]) {
        check::good("REGISTER", out(disk, REGISTER, 0, 0, key).await?)?;
    }
    Ok(disks)
}

/// Nothing of it stays for the next case.
async fn clean([a, b]: &[Disk; 2]) -> Outcome {
    check::good("REGISTER AND IGNORE EXISTING KEY", out(a, REGISTER_AND_IGNORE, 0, 0, 0x0A).await?)?;
    check::good("CLEAR", out(a, CLEAR, 0, 0x0A, 0).await?)?;
    Ok(b.unit.test_unit_ready().await?)
}

async fn out(disk: &Disk, action: u8, kind: u8, key: u64, action_key: u64) -> Outcome<Reply> {
    let list = [&key.to_be_bytes()[..], &action_key.to_be_bytes(), &[0; 8]].concat();
    disk.command(&[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], Data::Out(list.into())).await
}

async fn data(disk: &Disk, action: u8) -> Outcome<Bytes> {
    check::good("PERSISTENT RESERVE IN", disk.command(&[0x5E, action, 0, 0, 0, 0, 0, 0x10, 0, 0], Data::In(4096)).await?)
}

/// Keys and the generation before them.
async fn keys(disk: &Disk) -> Outcome<(u32, Vec<u64>)> {
    let data = data(disk, 0x00).await?;
    let generation = u32::from_be_bytes(data[..4].try_into().expect("four bytes"));
    Ok((generation, data[8..].chunks_exact(8).map(|key| u64::from_be_bytes(key.try_into().expect("eight bytes"))).collect()))
}

/// Key and type of the reservation.
async fn reservation(disk: &Disk) -> Outcome<Option<(u64, u8)>> {
    let data = data(disk, 0x01).await?;
    Ok((data.len() >= 24).then(|| (u64::from_be_bytes(data[8..16].try_into().expect("eight bytes")), data[21] & 0x0F)))
}

async fn read(disk: &Disk) -> Outcome<Status> {
    Ok(disk.command(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::In(disk.block())).await?.status)
}

async fn write(disk: &Disk) -> Outcome<Status> {
    let block = disk.pattern(0x5A, 1);
    Ok(disk.command(&[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::Out(block)).await?.status)
}

async fn conflicts(what: &str, reply: Reply) -> Outcome {
    equal(what, reply.status, Status::ReservationConflict)
}

/// The next command is told what happened.
async fn attention(what: &str, disk: &Disk, ascq: u8) -> Outcome {
    refused(what, &disk.command(&[0; 6], Data::None).await?, SenseKey::UnitAttention, &[(0x2A, ascq)])
}

async fn register(bench: &Bench) -> Outcome {
    let disks = pair(bench).await?;
    let [a, b] = &disks;
    let (before, none) = keys(a).await?;
    equal("keys after CLEAR", none, vec![])?;
    conflicts("REGISTER of an unregistered nexus with a key", out(a, REGISTER, 0, 7, 0x0A).await?).await?;
    check::good("REGISTER", out(a, REGISTER, 0, 0, 0x0A).await?)?;
    conflicts("REGISTER with the wrong key", out(a, REGISTER, 0, 7, 0x1A).await?).await?;
    check::good("REGISTER AND IGNORE EXISTING KEY", out(b, REGISTER_AND_IGNORE, 0, 7, 0x0B).await?)?;
    check::good("REGISTER that changes the key", out(a, REGISTER, 0, 0x0A, 0x1A).await?)?;
    let (after, mut both) = keys(b).await?;
    both.sort_unstable();
    equal("keys", both, vec![0x0B, 0x1A])?;
    equal("PRGENERATION, after three registrations", after.wrapping_sub(before), 3)?;
    conflicts("RESERVE with the wrong key", out(a, RESERVE, WRITE_EXCLUSIVE, 0x0A, 0).await?).await?;
    let reply = out(a, RESERVE, 0x0F, 0x1A, 0).await?;
    check::illegal_request("RESERVE with a reserved type", &reply, &[check::INVALID_FIELD_IN_CDB])?;
    let short = a.command(&[0x5F, REGISTER, 0, 0, 0, 0, 0, 0, 20, 0], Data::Out(vec![0; 20].into())).await?;
    check::illegal_request("a parameter list of 20 bytes", &short, &[check::PARAMETER_LIST_LENGTH_ERROR])?;
    check::good("REGISTER with 0 unregisters", out(a, REGISTER, 0, 0x1A, 0).await?)?;
    equal("keys", keys(a).await?.1, vec![0x0B])?;
    clean(&disks).await
}

async fn types(bench: &Bench) -> Outcome {
    let disks = registered_pair(bench).await?;
    let [a, b] = &disks;
    let stranger = bench.disk().await?;
    let (yes, no) = (Status::Good, Status::ReservationConflict);
    // Type; reads and writes of a registered nexus, then of one that is not.
    for (kind, registered, others) in [
        (1, (yes, no), (yes, no)),
        (3, (no, no), (no, no)),
        (5, (yes, yes), (yes, no)),
        (6, (yes, yes), (no, no)),
        (7, (yes, yes), (yes, no)),
        (8, (yes, yes), (no, no)),
    ] {
        check::good("RESERVE", out(a, RESERVE, kind, 0x0A, 0).await?)?;
        check::good("RESERVE again", out(a, RESERVE, kind, 0x0A, 0).await?)?;
        equal(&format!("type {kind}: holder"), (read(a).await?, write(a).await?), (yes, yes))?;
        equal(&format!("type {kind}: registered"), (read(b).await?, write(b).await?), registered)?;
        equal(&format!("type {kind}: not registered"), (read(&stranger).await?, write(&stranger).await?), others)?;
        equal(&format!("type {kind}: INQUIRY"), stranger.command(&[0x12, 0, 0, 0, 96, 0], Data::In(96)).await?.status, yes)?;
        let key = if kind >= 7 { 0 } else { 0x0A };
        equal("READ RESERVATION", reservation(&stranger).await?, Some((key, kind)))?;
        check::good("RELEASE", out(a, RELEASE, kind, 0x0A, 0).await?)?;
        b.unit.test_unit_ready().await?;
    }
    clean(&disks).await
}

async fn release(bench: &Bench) -> Outcome {
    let disks = registered_pair(bench).await?;
    let [a, b] = &disks;
    check::good("RELEASE of nothing", out(a, RELEASE, WRITE_EXCLUSIVE, 0x0A, 0).await?)?;
    check::good("RESERVE", out(a, RESERVE, 5, 0x0A, 0).await?)?;
    let wrong = out(a, RELEASE, 6, 0x0A, 0).await?;
    check::illegal_request("RELEASE of another type", &wrong, &[(0x26, 0x04)])?;
    check::good("RELEASE by another", out(b, RELEASE, 5, 0x0B, 0).await?)?;
    equal("READ RESERVATION", reservation(b).await?, Some((0x0A, 5)))?;
    check::good("RELEASE", out(a, RELEASE, 5, 0x0A, 0).await?)?;
    attention("RESERVATIONS RELEASED at the registered one", b, 0x04).await?;
    check::good("RESERVE", out(a, RESERVE, 6, 0x0A, 0).await?)?;
    check::good("REGISTER with 0, of the holder", out(a, REGISTER, 0, 0x0A, 0).await?)?;
    attention("RESERVATIONS RELEASED when the holder unregisters", b, 0x04).await?;
    equal("READ RESERVATION", reservation(b).await?, None)?;
    clean(&disks).await
}

async fn preempt(bench: &Bench) -> Outcome {
    let disks = registered_pair(bench).await?;
    let [a, b] = &disks;
    check::good("RESERVE", out(a, RESERVE, EXCLUSIVE_ACCESS, 0x0A, 0).await?)?;
    conflicts("PREEMPT of a key that nobody has", out(b, PREEMPT, WRITE_EXCLUSIVE, 0x0B, 0x0C).await?).await?;
    check::good("PREEMPT", out(b, PREEMPT, WRITE_EXCLUSIVE, 0x0B, 0x0A).await?)?;
    attention("REGISTRATIONS PREEMPTED", a, 0x05).await?;
    equal("READ RESERVATION", reservation(a).await?, Some((0x0B, WRITE_EXCLUSIVE)))?;
    equal("keys", keys(a).await?.1, vec![0x0B])?;
    equal("write of the preempted", write(a).await?, Status::ReservationConflict)?;
    clean(&disks).await
}

async fn clear(bench: &Bench) -> Outcome {
    let disks = registered_pair(bench).await?;
    let [a, b] = &disks;
    check::good("RESERVE", out(a, RESERVE, EXCLUSIVE_ACCESS, 0x0A, 0).await?)?;
    check::good("CLEAR", out(b, CLEAR, 0, 0x0B, 0).await?)?;
    attention("RESERVATIONS PREEMPTED", a, 0x03).await?;
    equal("READ RESERVATION", reservation(a).await?, None)?;
    equal("keys", keys(a).await?.1, vec![])?;
    clean(&disks).await
}

async fn register_and_move(bench: &Bench) -> Outcome {
    let disks = registered_pair(bench).await?;
    let [a, b] = &disks;
    check::good("RESERVE", out(a, RESERVE, WRITE_EXCLUSIVE, 0x0A, 0).await?)?;
    // Where to: the other session, as the target itself names it.
    let full = data(a, 0x03).await?;
    let mut rest = &full[8..];
    let mut other = None;
    while rest.len() >= 24 {
        let length = u32::from_be_bytes(rest[20..24].try_into().expect("four bytes")) as usize;
        if rest[..8] == 0x0B_u64.to_be_bytes() {
            other = Some((rest[18..20].to_vec(), rest[24..24 + length].to_vec()));
        }
        rest = &rest[24 + length..];
    }
    let Some((port, id)) = other else { return check::fail("READ FULL STATUS does not name the second session") };
    let list =
        [&0x0A_u64.to_be_bytes()[..], &0x0B_u64.to_be_bytes(), &[0, 0], &port, &(id.len() as u32).to_be_bytes(), &id].concat();
    let cdb = [0x5F, REGISTER_AND_MOVE, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    check::good("REGISTER AND MOVE", a.command(&cdb, Data::Out(list.into())).await?)?;
    equal("READ RESERVATION", reservation(a).await?, Some((0x0B, WRITE_EXCLUSIVE)))?;
    equal("writes", (write(a).await?, write(b).await?), (Status::ReservationConflict, Status::Good))?;
    clean(&disks).await
}

async fn outlives(bench: &Bench) -> Outcome {
    let disks = registered_pair(bench).await?;
    let [a, b] = &disks;
    let before = disks[1].get(0, 1).await?;
    check::good("RESERVE", out(a, RESERVE, WRITE_EXCLUSIVE, 0x0A, 0).await?)?;
    a.unit.client().logout().await?;
    equal("write after the holder's logout", write(b).await?, Status::ReservationConflict)?;
    equal_bytes("the block", &b.get(0, 1).await?, &before)?;
    check::good("PREEMPT", out(b, PREEMPT, WRITE_EXCLUSIVE, 0x0B, 0x0A).await?)?;
    check::good("CLEAR", out(b, CLEAR, 0, 0x0B, 0).await?).map(drop)
}

async fn reserve(bench: &Bench) -> Outcome {
    let disks = pair(bench).await?;
    let [a, b] = &disks;
    let reserve = check::supported("RESERVE(6)", a.command(&[0x16, 0, 0, 0, 0, 0], Data::None).await?)?;
    check::good("RESERVE(6)", reserve)?;
    equal("TEST UNIT READY of another", b.command(&[0; 6], Data::None).await?.status, Status::ReservationConflict)?;
    conflicts("PERSISTENT RESERVE OUT of another", out(b, REGISTER_AND_IGNORE, 0, 0, 0x0B).await?).await?;
    check::good("RELEASE(6)", a.command(&[0x17, 0, 0, 0, 0, 0], Data::None).await?)?;
    check::good("REGISTER", out(a, REGISTER, 0, 0, 0x0A).await?)?;
    check::good("RESERVE", out(a, RESERVE, EXCLUSIVE_ACCESS, 0x0A, 0).await?)?;
    equal("RESERVE(6) of another", b.command(&[0x16, 0, 0, 0, 0, 0], Data::None).await?.status, Status::ReservationConflict)?;
    clean(&disks).await
}
