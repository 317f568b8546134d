//! REPORT SUPPORTED OPERATION CODES says what the device then does, for every operation code.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::client::{Data, LogicalUnit};
use crate::suite::check::{self, INVALID_FIELD_IN_CDB, INVALID_OPERATION_CODE, Outcome, ensure, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("opcodes-reported-agree", "SPC-4, REPORT SUPPORTED OPERATION CODES command", Needs::Unit, |bench| {
        Box::pin(agree(bench))
    }),
    Case::new("opcodes-reported-usage", "SPC-4, REPORT SUPPORTED OPERATION CODES, one_command format", Needs::Unit, |bench| {
        Box::pin(usage(bench))
    }),
    Case::new("service-actions-unknown", "SPC-4, SERVICE ACTION field", Needs::Unit, |bench| {
        Box::pin(service_actions_unknown(bench))
    }),
];

/// Operation codes that change nothing with an all-zero CDB, whatever device it is.
const HARMLESS: &[u8] = &[0x00, 0x03, 0x12, 0x1A, 0x25, 0x28, 0x34, 0x3C, 0x4D, 0x5A, 0x5E, 0x84, 0x88, 0x9E, 0xA0, 0xA3, 0xA8];

/// Operation codes whose service actions all read.
const READING_SERVICE_ACTIONS: &[u8] = &[0x5E, 0x84, 0x9E, 0xA3];

/// Codes with their service actions; `None` for a command without.
type Reported = BTreeMap<u8, BTreeSet<Option<u16>>>;

async fn reported(unit: &LogicalUnit) -> Outcome<Reported> {
    let cdb = [0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0];
    let reply = supported("REPORT SUPPORTED OPERATION CODES", unit.command(&cdb, Data::In(0xFFFF)).await?)?;
    let data = check::good("REPORT SUPPORTED OPERATION CODES", reply)?;
    ensure(data.len() >= 4, || format!("{} bytes of all_commands data", data.len()))?;
    let length = u32::from_be_bytes([data[0], data[1], data[2], data[3]]) as usize;
    ensure(length + 4 == data.len() && length.is_multiple_of(8), || {
        format!("COMMAND DATA LENGTH {length} with {} bytes behind it", data.len() - 4)
    })?;
    let mut all = Reported::new();
    for one in data[4..].chunks_exact(8) {
        let action = (one[5] & 1 != 0).then(|| u16::from_be_bytes([one[2], one[3]]));
        let fresh = all.entry(one[0]).or_default().insert(action);
        ensure(fresh, || format!("{:02X}h with service action {action:02x?} is listed twice", one[0]))?;
    }
    Ok(all)
}

/// CDB length by GROUP CODE. SPC-4, "OPERATION CODE".
fn zero_cdb(opcode: u8) -> Vec<u8> {
    let length = match opcode >> 5 {
        0 => 6,
        1 | 2 => 10,
        5 => 12,
        _ => 16,
    };
    let mut cdb = vec![0; length];
    cdb[0] = opcode;
    cdb
}

async fn agree(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let all = reported(&unit).await?;
    let mut wrong = Vec::new();
    for opcode in 0..=0xFF_u8 {
        let harmless = HARMLESS.contains(&opcode);
        let listed = all.contains_key(&opcode);
        // A listed command is not executed unless harmless; one that is not listed should not do anything,
        // but a target that is wrong here might: only where data may be destroyed.
        if !harmless && (listed || !bench.devices().destroy) {
            continue;
        }
        // Room for data, though none is asked for: some targets do not survive without.
        let room = if harmless { Data::In(4096) } else { Data::None };
        let reply = unit.command(&zero_cdb(opcode), room).await?;
        let unknown = reply.sense.as_ref().is_some_and(|sense| sense.code == INVALID_OPERATION_CODE);
        if unknown == listed {
            wrong.push(format!("{opcode:02X}h is {}listed, but gave {}", if listed { "" } else { "not " }, check::told(&reply)));
        }
    }
    ensure(wrong.is_empty(), || wrong.join("\n"))
}

async fn usage(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    for (opcode, actions) in reported(&unit).await? {
        for action in actions {
            let data = one_command(&unit, opcode, action).await?;
            let what = format!("{opcode:02X}h service action {action:02x?}");
            ensure(data.len() >= 5 && data[1] & 7 == 3, || format!("{what} is listed, but SUPPORT is {:02x?}", data.get(1)))?;
            let length = usize::from(u16::from_be_bytes([data[2], data[3]]));
            ensure(data.len() >= 4 + length && length >= 6, || format!("{what}: CDB SIZE {length}, {} bytes came", data.len()))?;
            ensure(data[4] == opcode, || format!("{what}: CDB USAGE DATA begins with {:02x}", data[4]))?;
        }
    }
    let absent = one_command(&unit, 0xFF, None).await?;
    ensure(absent.len() >= 2 && absent[1] & 7 == 1, || format!("FFh: expected SUPPORT 001b, got {absent:02x?}"))
}

async fn one_command(unit: &LogicalUnit, opcode: u8, action: Option<u16>) -> Outcome<Bytes> {
    let [high, low] = action.unwrap_or(0).to_be_bytes();
    let option = if action.is_some() { 2 } else { 1 };
    let cdb = [0xA3, 0x0C, option, opcode, high, low, 0, 0, 4, 0, 0, 0];
    check::good(&format!("REPORT SUPPORTED OPERATION CODES for {opcode:02X}h"), unit.command(&cdb, Data::In(1024)).await?)
}

async fn service_actions_unknown(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let all = reported(&unit).await?;
    for opcode in READING_SERVICE_ACTIONS {
        let Some(actions) = all.get(opcode) else { continue };
        for action in (0..32_u8).filter(|action| !actions.contains(&Some((*action).into()))) {
            let mut cdb = zero_cdb(*opcode);
            cdb[1] = action;
            let reply = unit.command(&cdb, Data::In(512)).await?;
            check::illegal_request(&format!("{opcode:02X}h with service action {action:02X}h"), &reply, &[INVALID_FIELD_IN_CDB])?;
        }
    }
    Ok(())
}
