//! UNMAP deallocates: afterwards the blocks read as the device says, and neighbours are untouched.

use bytes::Bytes;

use crate::client::Data;
use crate::suite::bench::{Disk, vpd_or_skip};
use crate::suite::check::{
    self, INVALID_FIELD_IN_CDB, INVALID_FIELD_IN_PARAMETER_LIST, LBA_OUT_OF_RANGE, Outcome, PARAMETER_LIST_LENGTH_ERROR,
    equal_bytes, skip,
};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("unmap-reads-zeros", "SBC-4, UNMAP command; READ CAPACITY(16), LBPRZ", Needs::ScratchDisk, |bench| {
        Box::pin(reads_zeros(bench))
    }),
    Case::new("unmap-empty-list", "SBC-4, UNMAP parameter list", Needs::ScratchDisk, |bench| Box::pin(empty_list(bench))),
    Case::new("unmap-refusals", "SBC-4, UNMAP command", Needs::ScratchDisk, |bench| Box::pin(refusals(bench))),
    Case::new("lba-status-after-unmap", "SBC-4, GET LBA STATUS command", Needs::ScratchDisk, |bench| Box::pin(lba_status(bench))),
];

/// The disk, or a skip where VPD page B2h does not say LBPU.
async fn thin(bench: &Bench) -> Outcome<Disk> {
    let disk = bench.disk().await?;
    let page = vpd_or_skip(&disk.unit, 0xB2).await?;
    if page.get(5).is_none_or(|flags| flags & 0x80 == 0) {
        return skip("VPD page B2h: LBPU is 0");
    }
    disk.at_least(64)?;
    Ok(disk)
}

fn list(ranges: &[(u64, u32)]) -> Bytes {
    let mut list = Vec::new();
    let body = ranges.len() as u16 * 16;
    list.extend((body + 6).to_be_bytes());
    list.extend(body.to_be_bytes());
    list.extend([0; 4]);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list.into()
}

fn cdb(parameter_list_length: usize) -> [u8; 10] {
    let [high, low] = (parameter_list_length as u16).to_be_bytes();
    [0x42, 0, 0, 0, 0, 0, 0, high, low, 0]
}

async fn reads_zeros(bench: &Bench) -> Outcome {
    let disk = thin(bench).await?;
    let mut capacity = [0; 16];
    (capacity[0], capacity[1], capacity[13]) = (0x9E, 0x10, 32);
    let capacity = check::good("READ CAPACITY(16)", disk.command(&capacity, Data::In(32)).await?)?;
    let zeros = capacity.get(14).is_some_and(|flags| flags & 0x40 != 0);
    let before = disk.pattern(0x42, 48);
    disk.put(8, &before).await?;
    // Unaligned on purpose: a device may keep a part, but not change its neighbours.
    let parameters = list(&[(12, 8), (30, 11)]);
    check::good("UNMAP of two ranges", disk.command(&cdb(parameters.len()), Data::Out(parameters)).await?)?;
    let (block, got) = (disk.block() as usize, disk.get(8, 48).await?);
    for (lba, (got, before)) in (8..).zip(got.chunks(block).zip(before.chunks(block))) {
        let unmapped = (12..20).contains(&lba) || (30..41).contains(&lba);
        if !unmapped {
            equal_bytes(&format!("LBA {lba}, which was not unmapped"), got, before)?;
        } else if zeros {
            // LBPRZ = 1 promises zeros for unmapped blocks; a device that kept one shows its old bytes.
            check::ensure(got.iter().all(|byte| *byte == 0) || got == before, || {
                format!("LBA {lba} holds neither zeros nor its data")
            })?;
        }
    }
    Ok(())
}

async fn empty_list(bench: &Bench) -> Outcome {
    let disk = thin(bench).await?;
    check::good("UNMAP with PARAMETER LIST LENGTH 0", disk.command(&cdb(0), Data::None).await?)?;
    let parameters = list(&[]);
    check::good("UNMAP without descriptors", disk.command(&cdb(parameters.len()), Data::Out(parameters)).await?)?;
    let parameters = list(&[(5, 0)]);
    check::good("UNMAP of 0 blocks", disk.command(&cdb(parameters.len()), Data::Out(parameters)).await?).map(drop)
}

async fn refusals(bench: &Bench) -> Outcome {
    let disk = thin(bench).await?;
    let parameters = list(&[(disk.last(), 2)]);
    let reply = disk.command(&cdb(parameters.len()), Data::Out(parameters)).await?;
    check::illegal_request("UNMAP beyond the end", &reply, &[LBA_OUT_OF_RANGE])?;
    let reply = disk.command(&cdb(4), Data::Out(vec![0; 4].into())).await?;
    check::illegal_request("UNMAP with a list of 4 bytes", &reply, &[PARAMETER_LIST_LENGTH_ERROR])?;
    let page = vpd_or_skip(&disk.unit, 0xB0).await?;
    let maximum = page.get(24..28).map_or(0, |field| u32::from_be_bytes(field.try_into().expect("four bytes")));
    if (1..1024).contains(&maximum) {
        let parameters = list(&vec![(0, 1); maximum as usize + 1]);
        let reply = disk.command(&cdb(parameters.len()), Data::Out(parameters)).await?;
        let codes = [INVALID_FIELD_IN_PARAMETER_LIST, INVALID_FIELD_IN_CDB];
        check::illegal_request("UNMAP with too many descriptors", &reply, &codes)?;
    }
    Ok(())
}

async fn lba_status(bench: &Bench) -> Outcome {
    let disk = thin(bench).await?;
    let mut cdb = crate::client::cdb16(0x9E, 0x12, protocol::units::Lba(8), 1024);
    let reply = disk.command(&cdb, Data::In(1024)).await?;
    if crate::suite::bench::is_illegal_request(&reply) {
        return skip("the target does not have GET LBA STATUS");
    }
    let data = check::good("GET LBA STATUS", reply)?;
    check::ensure(data.len() >= 24, || format!("{} bytes of LBA status", data.len()))?;
    let start = u64::from_be_bytes(data[8..16].try_into().expect("eight bytes"));
    check::equal("first LBA told", start, 8)?;
    cdb[2..10].copy_from_slice(&(disk.last() + 1).to_be_bytes());
    let reply = disk.command(&cdb, Data::In(1024)).await?;
    check::illegal_request("GET LBA STATUS beyond the end", &reply, &[LBA_OUT_OF_RANGE])
}
