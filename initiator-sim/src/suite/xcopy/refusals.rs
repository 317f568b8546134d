//! Lists that are refused before the first segment: a real sense key, no INFORMATION, nothing moved.

use super::parameters::{Cscd, any, block_to_block, inline_to_stream};
use super::{
    CopyDisk, DiskAndTape, TAPE, TOO_MANY_CSCDS, TOO_MANY_SEGMENTS, UNSUPPORTED_CSCD, UNSUPPORTED_SEGMENT, implemented, wants,
};
use crate::client::{Data, Reply};
use crate::suite::check::{
    self, INVALID_FIELD_IN_PARAMETER_LIST, Outcome, PARAMETER_LIST_LENGTH_ERROR, ensure, equal, equal_bytes, skip,
};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::FieldPointer;

pub const CASES: &[Case] = &[
    Case::new("list-truncated", "SPC-4, EXTENDED COPY(LID1) parameter list", Needs::CopyDisk, |bench| Box::pin(truncated(bench))),
    Case::new("cscds-too-many", "SPC-4, MAXIMUM CSCD DESCRIPTOR COUNT field", Needs::CopyDisk, |bench| {
        Box::pin(too_many_cscds(bench))
    }),
    Case::new("segments-too-many", "SPC-4, MAXIMUM SEGMENT DESCRIPTOR COUNT field", Needs::CopyDisk, |bench| {
        Box::pin(too_many_segments(bench))
    }),
    Case::new("cscd-type-unknown", "SPC-4, CSCD descriptor type codes", Needs::CopyDisk, |bench| Box::pin(cscd_type(bench))),
    Case::new("segment-type-unknown", "SPC-4, Segment descriptor type codes", Needs::CopyDisk, |bench| {
        Box::pin(segment_type(bench))
    }),
    Case::new("segment-length-wrong", "SPC-4, DESCRIPTOR LENGTH field", Needs::CopyDisk, |bench| Box::pin(segment_length(bench))),
    Case::new("list-id-usage-reserved", "SPC-4, LIST ID USAGE field", Needs::CopyDisk, |bench| Box::pin(usage(bench))),
    Case::new("tape-fixed-without-length", "SPC-4, Stream device transfer lengths", Needs::CopyDiskAndTape, |bench| {
        Box::pin(fixed_without_length(bench))
    }),
    Case::new(
        "refused-list-moves-nothing",
        "SPC-4, errors detected before segment descriptor processing",
        Needs::CopyDisk,
        |bench| Box::pin(moves_nothing(bench)),
    ),
];

/// ILLEGAL REQUEST, VALID=0, and the pointer, where there is one, at `byte`.
fn refused_at(what: &str, reply: &Reply, codes: &[(u8, u8)], byte: Option<u16>) -> Outcome {
    check::illegal_request(what, reply, codes)?;
    let sense = reply.sense.as_ref().expect("checked above");
    equal(&format!("{what}: INFORMATION"), sense.information, None)?;
    match (sense.field, byte) {
        (Some(FieldPointer::Parameter { byte: told, .. }), Some(byte)) => equal(&format!("{what}: field pointer"), told, byte),
        (None, _) | (_, None) => Ok(()),
        (Some(other), _) => check::fail(format!("{what}: the field pointer says {other}")),
    }
}

async fn truncated(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    let list = copy.list().with(block_to_block(0, (0, 0), 1, 0, 2000)).emit();
    for length in [1, 15, 16, 47, list.len() - 1] {
        let reply = copy.disk.unit.extended_copy_reply(list[..length].to_vec().into()).await?;
        refused_at(&format!("a list cut to {length} bytes"), &reply, &[PARAMETER_LIST_LENGTH_ERROR], None)?;
    }
    Ok(())
}

/// A limit of OPERATING PARAMETERS and one more, where a list of that size can be sent.
async fn over_limit(copy: &CopyDisk, at: usize) -> Outcome<usize> {
    let parameters = copy.disk.unit.receive_copy_operating_parameters().await?;
    let limit = parameters.get(at..at + 2).map_or(0, |field| usize::from(u16::from_be_bytes([field[0], field[1]])));
    // The length field of the CSCD list holds 2047 descriptors.
    if limit == 0 || limit > 0x7FE && at == 8 { skip(format!("the limit of {limit} cannot be exceeded")) } else { Ok(limit + 1) }
}

async fn too_many_cscds(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    let count = over_limit(&copy, 8).await?;
    let mut list = copy.list();
    list.cscds = vec![copy.cscd.clone(); count];
    refused_at(&format!("{count} CSCD descriptors"), &copy.run(&list).await?, &[TOO_MANY_CSCDS], None)
}

async fn too_many_segments(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    let count = over_limit(&copy, 10).await?;
    let mut list = copy.list();
    list.segments = vec![block_to_block(0, (0, 0), 0, 0, 0); count];
    // The list may be too long as well.
    let codes = [TOO_MANY_SEGMENTS, PARAMETER_LIST_LENGTH_ERROR];
    refused_at(&format!("{count} segment descriptors"), &copy.run(&list).await?, &codes, None)
}

async fn cscd_type(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    let known = implemented(&copy.disk.unit).await?;
    let Some(code) = [0xE0, 0xEF_u8].into_iter().find(|code| !known.contains(code)) else { return skip("E0h and EFh are known") };
    let mut unknown = copy.cscd.clone();
    unknown.0[0] = code;
    let mut list = copy.list().with(block_to_block(0, (0, 0), 1, 0, 2000));
    list.cscds.push(unknown);
    refused_at(&format!("CSCD descriptor type {code:02X}h"), &copy.run(&list).await?, &[UNSUPPORTED_CSCD], Some(48))
}

async fn segment_type(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    let known = implemented(&copy.disk.unit).await?;
    for code in [0x7F_u8, 0x03].into_iter().filter(|code| !known.contains(code)) {
        let list = copy.list().with(block_to_block(0, (0, 0), 0, 0, 0)).with(any(code, (0, 0), &[0; 12]));
        let at = list.segment_at(1);
        refused_at(&format!("segment type {code:02X}h"), &copy.run(&list).await?, &[UNSUPPORTED_SEGMENT], Some(at))?;
    }
    Ok(())
}

async fn segment_length(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    let mut segment = block_to_block(0, (0, 0), 1, 0, 2000);
    segment[3] -= 4;
    segment.truncate(24);
    let reply = copy.run(&copy.list().with(segment)).await?;
    let codes = [INVALID_FIELD_IN_PARAMETER_LIST, PARAMETER_LIST_LENGTH_ERROR];
    refused_at("02h with DESCRIPTOR LENGTH 14h", &reply, &codes, None)
}

async fn usage(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    let mut list = copy.list().with(block_to_block(0, (0, 0), 0, 0, 0));
    list.usage = 0b01;
    refused_at("LIST ID USAGE 01b", &copy.run(&list).await?, &[INVALID_FIELD_IN_PARAMETER_LIST], Some(1))?;
    // 11b: no identifier, so it has to be zero.
    (list.usage, list.id) = (0b11, 7);
    refused_at("LIST ID USAGE 11b with identifier 7", &copy.run(&list).await?, &[INVALID_FIELD_IN_PARAMETER_LIST], None)
}

async fn fixed_without_length(bench: &Bench) -> Outcome {
    let devices = DiskAndTape::new(bench).await?;
    let data = [0; 16];
    for (flags, length) in [(1, 0), (0, 2)] {
        let mut mixed = devices.tape_cscd.clone();
        (mixed.0[28], mixed.0[30]) = (flags, length);
        let mut list = devices.list().inline(&data).with(inline_to_stream(0, TAPE, 16, 0, 16));
        list.cscds[usize::from(TAPE)] = mixed;
        let what = format!("FIXED={flags} with STREAM BLOCK LENGTH {}", u32::from(length) << 8);
        refused_at(&what, &devices.run(&list).await?, &[INVALID_FIELD_IN_PARAMETER_LIST], None)?;
    }
    super::super::ssc::stands_at(&devices.tape, "after the refusals", 0).await
}

/// The first segment is right and the last is unknown: not even the first may be carried out.
async fn moves_nothing(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    wants(&copy.disk.unit, &[0x02]).await?;
    let before = copy.disk.pattern(0x99, 8);
    copy.disk.put(2000, &before).await?;
    copy.disk.put(0, &copy.disk.pattern(0x11, 8)).await?;
    let list = copy.list().with(block_to_block(0, (0, 0), 8, 0, 2000)).with(any(0x7F, (0, 0), &[0; 12]));
    check::illegal_request("a list whose last segment is unknown", &copy.run(&list).await?, &[UNSUPPORTED_SEGMENT])?;
    equal_bytes("the first segment's destination", &copy.disk.get(2000, 8).await?, &before)?;
    let reserved = copy.disk.unit.command(&[0x83, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None).await?;
    check::illegal_request("83h with service action 1Fh", &reserved, &[check::INVALID_FIELD_IN_CDB])?;
    let mut bent = Cscd(copy.cscd.0);
    bent.0[7] = 21;
    let mut list = copy.list().with(block_to_block(0, (0, 0), 8, 0, 2000));
    list.cscds[0] = bent;
    let reply = copy.run(&list).await?;
    check::illegal_request("a DESIGNATOR LENGTH of 21", &reply, &[INVALID_FIELD_IN_PARAMETER_LIST])?;
    ensure(copy.disk.get(2000, 8).await? == before, || "the destination was written all the same".into())
}
