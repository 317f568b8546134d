//! READ ATTRIBUTE and WRITE ATTRIBUTE: what LTFS keeps in a cartridge's memory chip.

use bytes::Bytes;

use crate::client::{Data, LogicalUnit, Reply};
use crate::suite::bench::{pattern, write_records};
use crate::suite::check::{self, Outcome, ensure, equal, equal_bytes, supported};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("attributes-of-drive-and-medium", "SPC-4, READ ATTRIBUTE command", Needs::ScratchTape, |bench| {
        Box::pin(own(bench))
    }),
    Case::new("attributes-of-programs", "SPC-4, WRITE ATTRIBUTE command", Needs::ScratchTape, |bench| Box::pin(hosts(bench))),
    Case::new("volume-change-reference", "SPC-4, VOLUME CHANGE REFERENCE attribute", Needs::ScratchTape, |bench| {
        Box::pin(change_reference(bench))
    }),
    Case::new("attribute-refused", "SPC-4, WRITE ATTRIBUTE command; READ ONLY bit", Needs::ScratchTape, |bench| {
        Box::pin(refusals(bench))
    }),
];

const CHANGE_REFERENCE: u16 = 0x0009;
const COHERENCY: u16 = 0x080C;
const FORMAT_VERSION: u16 = 0x080B;

async fn read(tape: &LogicalUnit, action: u8, first: u16) -> Outcome<Reply> {
    let [high, low] = first.to_be_bytes();
    let cdb = [0x8C, action, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 0x20, 0, 0, 0];
    supported("READ ATTRIBUTE", tape.command(&cdb, Data::In(0x2000)).await?)
}

/// The value of one attribute.
async fn value(tape: &LogicalUnit, id: u16) -> Outcome<Bytes> {
    let data = check::good("READ ATTRIBUTE", read(tape, 0, id).await?)?;
    let Some(&[a, b, _, c, d]) = data.get(4..).and_then(|rest| rest.first_chunk::<5>()) else {
        return check::fail(format!("{} bytes of attributes", data.len()));
    };
    equal("the first attribute", u16::from_be_bytes([a, b]), id)?;
    let end = 9 + usize::from(u16::from_be_bytes([c, d]));
    ensure(end <= data.len(), || "the attribute does not fit its list".into())?;
    Ok(data.slice(9..end))
}

async fn write(tape: &LogicalUnit, attribute: (u16, u8, &[u8])) -> Outcome<Reply> {
    let (id, format, value) = attribute;
    let mut list = vec![0, 0, 0, 0];
    list.extend(id.to_be_bytes());
    list.push(format);
    list.extend((value.len() as u16).to_be_bytes());
    list.extend(value);
    let length = list.len() as u32;
    list[..4].copy_from_slice(&(length - 4).to_be_bytes());
    let [a, b, c, d] = length.to_be_bytes();
    let cdb = [0x8D, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0];
    supported("WRITE ATTRIBUTE", tape.command(&cdb, Data::Out(list.into())).await?)
}

async fn own(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let list = check::good("READ ATTRIBUTE, list", read(&tape, 1, 0).await?)?;
    let ids: Vec<u16> = list[4..].chunks_exact(2).map(|id| u16::from_be_bytes([id[0], id[1]])).collect();
    ensure(ids.is_sorted_by(|a, b| a < b), || format!("identifiers do not ascend: {ids:04X?}"))?;
    let number = |value: Bytes| value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (left, maximum) = (number(value(&tape, 0x0000).await?), number(value(&tape, 0x0001).await?));
    ensure(left <= maximum && maximum > 0, || format!("{left} MiB left of {maximum}"))?;
    ensure(number(value(&tape, 0x0003).await?) > 0, || "a loaded cartridge with a load count of 0".into())?;
    let partitions = check::good("READ ATTRIBUTE, partitions", read(&tape, 3, 0).await?)?;
    equal("partition list", &partitions[..], &[0, 2, 0, 1][..])
}

async fn hosts(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let version = *b"2.4.0           ";
    check::good("WRITE ATTRIBUTE", write(&tape, (FORMAT_VERSION, 1, &version)).await?)?;
    let coherency: Vec<u8> = (0..70).collect();
    check::good("WRITE ATTRIBUTE", write(&tape, (COHERENCY, 0, &coherency)).await?)?;
    tape.unload().await?;
    tape.load().await?;
    tape.test_unit_ready().await?;
    equal_bytes("the format version after a load", &value(&tape, FORMAT_VERSION).await?, &version)?;
    equal_bytes("the coherency information after a load", &value(&tape, COHERENCY).await?, &coherency)?;
    for (id, format) in [(FORMAT_VERSION, 1), (COHERENCY, 0)] {
        check::good("WRITE ATTRIBUTE of nothing", write(&tape, (id, format, &[])).await?)?;
    }
    let gone = read(&tape, 0, COHERENCY).await?;
    check::illegal_request("READ ATTRIBUTE of one that was taken away", &gone, &[check::INVALID_FIELD_IN_CDB])
}

/// LTFS tells by it whether somebody else wrote to the tape.
async fn change_reference(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let first = value(&tape, CHANGE_REFERENCE).await?;
    write_records(&tape, &[pattern(1, 100)]).await?;
    tape.write_filemarks(1).await?;
    let second = value(&tape, CHANGE_REFERENCE).await?;
    ensure(second != first, || format!("{first:02X?} before and after a write"))?;
    tape.rewind().await?;
    tape.read_record(100).await?;
    equal("the reference after a read", &value(&tape, CHANGE_REFERENCE).await?, &second)
}

async fn refusals(bench: &Bench) -> Outcome {
    let tape = bench.tape().await?;
    let codes = [check::INVALID_FIELD_IN_PARAMETER_LIST];
    let reply = write(&tape, (CHANGE_REFERENCE, 0, &[0, 0, 0, 9])).await?;
    check::illegal_request("WRITE ATTRIBUTE of the drive's own", &reply, &codes)?;
    let reply = write(&tape, (FORMAT_VERSION, 1, b"short")).await?;
    check::illegal_request("WRITE ATTRIBUTE of another length", &reply, &codes)
}
