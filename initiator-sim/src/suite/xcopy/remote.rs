//! CSCD descriptors with IP addresses are names: what no configuration allows is not reachable, whoever may listen there, and the
//! second half of one is no CSCD.

use super::parameters::{Cscd, block_to_block};
use super::{CopyDisk, NOT_REACHABLE, UNREACHABLE, aborted, implemented};
use crate::client::Reply;
use crate::suite::check::{INVALID_FIELD_IN_PARAMETER_LIST, Outcome, equal, refused, skip};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::{FieldPointer, SenseKey};

pub const CASES: &[Case] = &[
    Case::new("cscd-ip-unknown", "SPC-4, iSCSI IPv4 CSCD descriptor; errors …, unreachable CSCD", Needs::CopyDisk, |bench| {
        Box::pin(unknown(bench))
    }),
    Case::new(
        "cscd-extension-missing",
        "SPC-4, iSCSI IPv6 CSCD descriptor, EXTENSION DESCRIPTOR TYPE CODE field",
        Needs::CopyDisk,
        |bench| Box::pin(extension_missing(bench)),
    ),
    Case::new("cscd-extension-named", "SPC-4, The CSCD descriptor extension", Needs::CopyDisk, |bench| {
        Box::pin(extension_named(bench))
    }),
];

/// An address for documentation (RFC 5737, RFC 3849), at which nobody listens.
const V4: [u8; 4] = [192, 0, 2, 1];
const V6: [u8; 16] = [0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const PORT: [u8; 2] = 3260_u16.to_be_bytes();
const TCP: u8 = 6;

fn ipv4(block_length: u32) -> Vec<Cscd> {
    let mut bytes = disk(0xE5, block_length);
    bytes[12..16].copy_from_slice(&V4);
    bytes[22..24].copy_from_slice(&PORT);
    bytes[27] = TCP;
    vec![Cscd(bytes)]
}

fn ipv6(block_length: u32) -> Vec<Cscd> {
    let (mut bytes, mut extension) = (disk(0xEA, block_length), [0; 32]);
    bytes[12..28].copy_from_slice(&V6);
    extension[0] = 0xFF;
    extension[2..4].copy_from_slice(&PORT);
    extension[5] = TCP;
    vec![Cscd(bytes), Cscd(extension)]
}

/// LUN 0 of a disk.
fn disk(code: u8, block_length: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = code;
    bytes[28..].copy_from_slice(&block_length.to_be_bytes());
    bytes
}

async fn knows(copy: &CopyDisk, code: u8) -> Outcome {
    match implemented(&copy.disk.unit).await?.contains(&code) {
        true => Ok(()),
        false => skip(format!("the copy manager does not list CSCD descriptor type {code:02X}h")),
    }
}

fn points_at(what: &str, reply: &Reply, byte: u16) -> Outcome {
    match reply.sense.as_ref().and_then(|sense| sense.field) {
        Some(FieldPointer::Parameter { byte: told, .. }) => equal(&format!("{what}: field pointer"), told, byte),
        _ => Ok(()),
    }
}

async fn unknown(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    knows(&copy, 0xE5).await?;
    let mut kinds = vec![("E5h", ipv4(copy.disk.block()))];
    if implemented(&copy.disk.unit).await?.contains(&0xEA) {
        kinds.push(("EAh", ipv6(copy.disk.block())));
    }
    for (name, cscds) in kinds {
        // As the source, and as the destination; each after a segment that can be done.
        for ids in [(1, 0), (0, 1)] {
            let mut list = copy.list().with(block_to_block(0, (0, 0), 1, 0, 2000)).with(block_to_block(0, ids, 1, 0, 2000));
            list.cscds.extend(cscds.clone());
            let what = format!("{name} that nobody has allowed, ids {ids:?}");
            let reply = copy.run(&list).await?;
            aborted(&what, &reply, &[NOT_REACHABLE, UNREACHABLE], 1)?;
            points_at(&what, &reply, 48)?;
        }
    }
    Ok(())
}

async fn extension_missing(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    knows(&copy, 0xEA).await?;
    let mut list = copy.list().with(block_to_block(0, (0, 0), 1, 0, 2000));
    list.cscds.extend(ipv6(copy.disk.block()));
    for code in [0x00, 0xE4] {
        list.cscds[2].0[0] = code;
        let what = format!("EAh with {code:02X}h where its extension begins");
        let reply = copy.run(&list).await?;
        refused(&what, &reply, SenseKey::CopyAborted, &[INVALID_FIELD_IN_PARAMETER_LIST])?;
        points_at(&what, &reply, 80)?;
    }
    Ok(())
}

async fn extension_named(bench: &Bench) -> Outcome {
    let copy = CopyDisk::new(bench).await?;
    knows(&copy, 0xEA).await?;
    // CSCD 0 is the disk, 1 the descriptor, 2 its extension, 3 the disk again.
    let mut list = copy.list().with(block_to_block(0, (0, 3), 1, 0, 2000)).with(block_to_block(0, (2, 0), 1, 0, 2000));
    list.cscds.extend(ipv6(copy.disk.block()));
    list.cscds.push(copy.cscd.clone());
    let reply = copy.run(&list).await?;
    aborted("a segment that names an extension", &reply, &[INVALID_FIELD_IN_PARAMETER_LIST], 1)
}
