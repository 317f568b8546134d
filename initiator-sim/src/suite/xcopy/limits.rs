//! What the copy manager says about itself, in two places that must agree.

use bytes::Bytes;

use super::implemented;
use crate::client::LogicalUnit;
use crate::suite::bench::vpd_or_skip;
use crate::suite::check::{self, Outcome, ensure, equal, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("operating-parameters", "SPC-4, RECEIVE COPY OPERATING PARAMETERS command", Needs::CopyDisk, |bench| {
        Box::pin(operating_parameters(bench))
    }),
    Case::new(
        "operating-parameters-cut",
        "SPC-4, RECEIVE COPY OPERATING PARAMETERS, ALLOCATION LENGTH",
        Needs::CopyDisk,
        |bench| Box::pin(cut(bench)),
    ),
    Case::new("third-party-copy-page", "SPC-4, Third-party Copy VPD page", Needs::CopyDisk, |bench| Box::pin(page(bench))),
    Case::new(
        "receive-copy-service-actions",
        "SPC-4, Supported Commands third-party copy descriptor",
        Needs::CopyDisk,
        |bench| Box::pin(service_actions(bench)),
    ),
];

async fn operating_parameters(bench: &Bench) -> Outcome {
    let unit = bench.disk().await?.unit;
    let data = unit.receive_copy_operating_parameters().await?;
    ensure(data.len() >= 44, || format!("{} bytes of operating parameters", data.len()))?;
    equal("AVAILABLE DATA", u32::from_be_bytes([data[0], data[1], data[2], data[3]]) as usize + 4, data.len())?;
    equal("IMPLEMENTED DESCRIPTOR LIST LENGTH", usize::from(data[43]) + 44, data.len())?;
    let codes = &data[44..];
    ensure(codes.is_sorted_by(|a, b| a < b), || format!("descriptor type codes are not ascending: {codes:02x?}"))?;
    ensure(codes.contains(&0xE4), || "identification descriptors (E4h) are not listed".into())?;
    ensure(codes.iter().any(|code| *code < 0xE0), || "no segment descriptor type is listed".into())?;
    let (cscds, segments) = (u16::from_be_bytes([data[8], data[9]]), u16::from_be_bytes([data[10], data[11]]));
    let length = u32::from_be_bytes([data[12], data[13], data[14], data[15]]);
    ensure(cscds >= 1 && segments >= 1, || format!("{cscds} CSCD and {segments} segment descriptors"))?;
    ensure(length >= 32 + 12, || format!("MAXIMUM DESCRIPTOR LIST LENGTH {length} holds no list"))
}

async fn cut(bench: &Bench) -> Outcome {
    let unit = bench.disk().await?.unit;
    let whole = unit.receive_copy_operating_parameters().await?;
    for length in [4, 8, 44] {
        let reply = unit.receive_copy_reply(0x03, 0, length).await?;
        let data = check::good("RECEIVE COPY OPERATING PARAMETERS", reply)?;
        check::equal_bytes(&format!("with allocation length {length}"), &data, &whole[..length as usize])?;
    }
    Ok(())
}

/// Descriptors of the page by type code, which must ascend.
pub(super) fn descriptors(page: &Bytes) -> Outcome<Vec<(u16, Bytes)>> {
    let mut found = Vec::new();
    let mut rest = page.slice(4..);
    while !rest.is_empty() {
        ensure(rest.len() >= 4, || format!("the page ends in the middle of a descriptor: {rest:02x?}"))?;
        let (code, length) = (u16::from_be_bytes([rest[0], rest[1]]), usize::from(u16::from_be_bytes([rest[2], rest[3]])));
        ensure(length % 4 == 0 && length + 4 <= rest.len(), || format!("descriptor {code:04X}h has length {length}"))?;
        found.push((code, rest.slice(4..4 + length)));
        rest = rest.slice(4 + length..);
    }
    let codes: Vec<_> = found.iter().map(|(code, _)| *code).collect();
    ensure(codes.is_sorted_by(|a, b| a < b), || format!("descriptors are not ascending: {codes:04x?}"))?;
    Ok(found)
}

async fn page(bench: &Bench) -> Outcome {
    let unit = bench.disk().await?.unit;
    let page = vpd_or_skip(&unit, 0x8F).await?;
    let found = descriptors(&page)?;
    let parameters = unit.receive_copy_operating_parameters().await?;
    let descriptor = |wanted: u16| found.iter().find(|(code, _)| *code == wanted).map(|(_, body)| body);
    for mandatory in [0x0001, 0x0004, 0x0008, 0x000C, 0x8001] {
        ensure(descriptor(mandatory).is_some(), || format!("descriptor {mandatory:04X}h is missing"))?;
    }
    let limits = descriptor(0x0004).expect("checked above");
    check::equal_bytes("MAXIMUM CSCD and SEGMENT DESCRIPTOR COUNT", &limits[4..8], &parameters[8..12])?;
    check::equal_bytes("MAXIMUM DESCRIPTOR LIST LENGTH", &limits[8..12], &parameters[12..16])?;
    check::equal_bytes("MAXIMUM INLINE DATA LENGTH", &limits[12..16], &parameters[20..24])?;
    let list = descriptor(0x0008).expect("checked above");
    let codes = &list[1..1 + usize::from(list[0])];
    check::equal_bytes("descriptor type codes of page 8Fh", codes, &implemented(&unit).await?)?;
    // Mandatory as soon as a stream segment type is supported: 00h, 01h, 03h to 06h, 08h, 09h.
    if let Some(held) = descriptor(0xC001) {
        check::equal_bytes("HELD DATA LIMIT", &held[..4], &parameters[24..28])?;
    }
    let streams = codes.iter().any(|code| matches!(code, 0x00 | 0x01 | 0x03..=0x06 | 0x08 | 0x09));
    ensure(!streams || descriptor(0x9101).is_some(), || "descriptor 9101h is missing though streams are copied".into())
}

/// What the Supported Commands descriptor lists for an operation code; nothing without one.
pub(super) async fn service_actions_of(unit: &LogicalUnit, wanted: u8) -> Outcome<Vec<u8>> {
    let page = vpd_or_skip(unit, 0x8F).await?;
    let found = descriptors(&page)?;
    let Some((_, commands)) = found.iter().find(|(code, _)| *code == 1) else { return Ok(Vec::new()) };
    let mut rest = &commands[1..1 + usize::from(commands[0])];
    while let [opcode, count, ..] = *rest {
        let (actions, behind) = rest[2..].split_at(usize::from(count));
        if opcode == wanted {
            return Ok(actions.to_vec());
        }
        rest = behind;
    }
    Ok(Vec::new())
}

/// Every service action listed answers; every other is refused.
async fn service_actions(bench: &Bench) -> Outcome {
    let unit = bench.disk().await?.unit;
    let page = vpd_or_skip(&unit, 0x8F).await?;
    let found = descriptors(&page)?;
    let Some((_, commands)) = found.iter().find(|(code, _)| *code == 1) else { return skip("no Supported Commands descriptor") };
    let mut rest = &commands[1..1 + usize::from(commands[0])];
    while let [opcode, count, ..] = *rest {
        let actions = &rest[2..2 + usize::from(count)];
        ensure(actions.is_sorted_by(|a, b| a < b), || format!("service actions of {opcode:02X}h: {actions:02x?}"))?;
        if opcode == 0x84 {
            for action in 0..32_u8 {
                // A list identifier that no copy of this session had: an action that exists finds nothing.
                let reply = unit.receive_copy_reply(action, 0xE7, 1024).await?;
                let sense = reply.sense.as_ref().map(|sense| (sense.code, sense.field));
                let unknown = matches!(sense, Some((check::INVALID_OPERATION_CODE, _)));
                ensure(!unknown, || format!("84h/{action:02X}h answers {}", check::told(&reply)))?;
                if !actions.contains(&action) {
                    let what = format!("84h/{action:02X}h, which is not listed");
                    check::illegal_request(&what, &reply, &[check::INVALID_FIELD_IN_CDB])?;
                }
            }
        }
        rest = &rest[2 + usize::from(count)..];
    }
    Ok(())
}
