//! REQUEST SENSE answers GOOD, in the format asked for.

use crate::client::Data;
use crate::suite::check::{self, Outcome, ensure, equal};
use crate::suite::{Bench, Case, Needs};
use protocol::scsi::{Sense, SenseKey, Status};

pub const CASES: &[Case] = &[
    Case::new("request-sense-fixed", "SPC-4, REQUEST SENSE command, DESC=0", Needs::Unit, |bench| Box::pin(fixed(bench))),
    Case::new("request-sense-descriptor", "SPC-4, REQUEST SENSE command, DESC=1", Needs::Unit, |bench| {
        Box::pin(descriptor(bench))
    }),
];

async fn fixed(bench: &Bench) -> Outcome {
    let data = bench.unit().await?.request_sense(false).await?;
    ensure(data.len() >= 18, || format!("{} bytes of fixed format sense data", data.len()))?;
    equal("RESPONSE CODE", data[0] & 0x7F, 0x70)?;
    let sense = Sense::parse(&data).map_err(|error| check::Stop::Fail(error.to_string()))?;
    equal("sense key with nothing to tell", sense.key, SenseKey::NoSense)?;
    let cut = bench.unit().await?.command(&[3, 0, 0, 0, 4, 0], Data::In(252)).await?;
    equal("bytes with allocation length 4", check::good("REQUEST SENSE", cut)?.len(), 4)
}

async fn descriptor(bench: &Bench) -> Outcome {
    let reply = bench.unit().await?.command(&[3, 1, 0, 0, 252, 0], Data::In(252)).await?;
    if reply.status == Status::CheckCondition {
        // "If descriptor format is not supported": the command is refused.
        return check::illegal_request("REQUEST SENSE with DESC=1", &reply, &[check::INVALID_FIELD_IN_CDB]);
    }
    let data = check::good("REQUEST SENSE", reply)?;
    ensure(data.len() >= 8, || format!("{} bytes of descriptor format sense data", data.len()))?;
    equal("RESPONSE CODE", data[0] & 0x7F, 0x72)
}
