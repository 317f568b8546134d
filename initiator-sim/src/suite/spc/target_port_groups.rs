//! Asymmetric access: what INQUIRY, VPD page 83h and REPORT TARGET PORT GROUPS say of the ports agrees.

use crate::client::Data;
use crate::suite::check::{self, Outcome, ensure, equal, skip};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[Case::new(
    "target-port-groups",
    "SPC-4, REPORT TARGET PORT GROUPS command; Target port group designator",
    Needs::Unit,
    |bench| Box::pin(target_port_groups(bench)),
)];

/// Relative target port and target port group among the designators of VPD page 83h.
fn port_and_group(page: &[u8]) -> (Option<u16>, Option<u16>) {
    let (mut port, mut group) = (None, None);
    let mut rest = &page[4..];
    while let [_, kind, _, length, body @ ..] = rest {
        let number = body.get(2..4).map(|number| u16::from_be_bytes([number[0], number[1]]));
        match (kind >> 4 & 3, kind & 0x0F) {
            (1, 4) => port = number,
            (1, 5) => group = number,
            _ => {}
        }
        rest = body.get(usize::from(*length)..).unwrap_or_default();
    }
    (port, group)
}

async fn target_port_groups(bench: &Bench) -> Outcome {
    let unit = bench.unit().await?;
    let inquiry = unit.inquiry().await?;
    if inquiry.raw[5] & 0x30 == 0 {
        return skip("TPGS is 0: no asymmetric access");
    }
    let page = unit.vpd(0x83).await?;
    let (Some(port), Some(group)) = port_and_group(&page) else {
        return check::fail("VPD page 83h names no relative target port, or no target port group");
    };
    let cdb = [0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
    let data = check::good("REPORT TARGET PORT GROUPS", unit.command(&cdb, Data::In(1024)).await?)?;
    equal("RETURN DATA LENGTH", u32::from_be_bytes(data[..4].try_into().expect("four bytes")) as usize, data.len() - 4)?;
    let mut rest = &data[4..];
    let mut found = false;
    while let [state, _, high, low, _, _, _, count, ports @ ..] = rest {
        ensure(state & 0x0F <= 0x03 || matches!(state & 0x0F, 0x04 | 0x0E | 0x0F), || format!("state {state:#04x}"))?;
        let (ports, behind) = ports.split_at_checked(usize::from(*count) * 4).ok_or_else(|| check::Stop::Fail("cut".into()))?;
        let here = u16::from_be_bytes([*high, *low]) == group;
        found |= here && ports.chunks(4).any(|one| u16::from_be_bytes([one[2], one[3]]) == port);
        rest = behind;
    }
    ensure(found, || format!("port {port} is not in group {group}, where VPD page 83h puts it"))?;
    let mut extended = cdb;
    extended[1] |= 0x20;
    let reply = unit.command(&extended, Data::In(1024)).await?;
    if reply.sense.is_none() {
        equal("FORMAT TYPE of the extended header", reply.data[4] >> 4 & 7, 1)?;
    }
    Ok(())
}
