//! Discovery sessions: SendTargets, and nothing else.

use super::{SUCCESS, log_in, names};
use crate::client::discover;
use crate::suite::check::{Outcome, ensure, equal};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};
use protocol::iscsi::bhs::{self, Header};

pub const CASES: &[Case] = &[
    Case::new("discovery-send-targets", "RFC 7143, SendTargets operation", Needs::Target, |bench| Box::pin(send_targets(bench))),
    Case::new("discovery-no-commands", "RFC 7143, Discovery session", Needs::Target, |bench| Box::pin(no_commands(bench))),
    Case::new("send-targets-in-normal-session", "RFC 7143, SendTargets without a value", Needs::Target, |bench| {
        Box::pin(in_normal_session(bench))
    }),
];

async fn send_targets(bench: &Bench) -> Outcome {
    let devices = bench.devices();
    let targets = discover(&devices.unit.portal, &devices.options).await?;
    let own = targets.iter().find(|target| target.name == devices.unit.target);
    let Some(own) = own else {
        return crate::suite::check::fail(format!("{} is not among {targets:?}", devices.unit.target));
    };
    for address in &own.addresses {
        let (portal, tag) = address.rsplit_once(',').unwrap_or((address, ""));
        ensure(portal.parse::<crate::url::Portal>().is_ok() && tag.parse::<u16>().is_ok(), || {
            format!("TargetAddress={address} is no address:port,portal-group-tag")
        })?;
    }
    Ok(())
}

async fn no_commands(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let [initiator, ..] = names(bench);
    let keys = [initiator, ("SessionType", "Discovery")];
    let answer = connection.login_to_the_end(LoginHeader::default(), &keys).await?;
    equal("login status", answer.status(), SUCCESS)?;
    let command = bhs::ScsiCommand {
        opcode: 0x01,
        flags: bhs::FINAL,
        initiator_task_tag: 9.into(),
        cmd_sn: answer.header.exp_cmd_sn,
        exp_stat_sn: (answer.header.stat_sn.get().wrapping_add(1)).into(),
        ..Default::default()
    };
    connection.send(Header::ScsiCommand(command).to_bytes(), &[]).await?;
    match connection.receive().await? {
        // Refused, or the connection closed.
        None | Some((Header::Reject(_), _)) => Ok(()),
        Some((Header::ScsiResponse(response), _)) if response.response != 0 => Ok(()),
        Some((other, _)) => crate::suite::check::fail(format!("a SCSI command in a discovery session got a {}", other.name())),
    }
}

/// An empty value asks for the session's own target.
async fn in_normal_session(bench: &Bench) -> Outcome {
    let (mut connection, answer) = log_in(bench, &[]).await?;
    equal("login status", answer.status(), SUCCESS)?;
    let stat_sn = answer.header.stat_sn.get().wrapping_add(1);
    let keys = connection.text(answer.header.exp_cmd_sn.get(), stat_sn, &[("SendTargets", "")]).await?;
    let names: Vec<_> = keys.iter().filter(|(key, _)| key == "TargetName").map(|(_, value)| value.as_str()).collect();
    equal("targets told", names, vec![bench.devices().unit.target.as_str()])
}
