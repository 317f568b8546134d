//! The window of CmdSNs: filled, opened again, and what takes no place in it.

use protocol::iscsi::bhs::{self, Header};
use protocol::iscsi::serial_less;

use super::{FIRST, INQUIRY, Peer};
use crate::suite::check::{Outcome, ensure, equal, fail};
use crate::suite::raw::LoginHeader;
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("window-fills-and-opens", "RFC 7143, Command Numbering and Acknowledging", Needs::Unit, |bench| {
        Box::pin(fills_and_opens(bench))
    }),
    Case::new("duplicate-cmd-sn", "RFC 7143, Command Numbering and Acknowledging", Needs::Unit, |bench| {
        Box::pin(duplicate(bench))
    }),
    Case::new("immediate-command-takes-no-number", "RFC 7143, Command Numbering and Acknowledging", Needs::Unit, |bench| {
        Box::pin(immediate(bench))
    }),
];

/// Enough to see a window move, also where it is much wider.
const MOST: u32 = 256;

/// All commands that the window lets in are sent at once; MaxCmdSN never goes back, and in the end there is room again.
async fn fills_and_opens(bench: &Bench) -> Outcome {
    let mut peer = Peer::enter(bench, LoginHeader::default(), &[]).await?;
    let (exp_cmd_sn, mut max_cmd_sn) = (peer.login.header.exp_cmd_sn.get(), peer.login.header.max_cmd_sn.get());
    equal("ExpCmdSN behind the login", exp_cmd_sn, FIRST)?;
    let window = max_cmd_sn.wrapping_sub(exp_cmd_sn).wrapping_add(1);
    ensure((1..1 << 31).contains(&window), || format!("a window from {exp_cmd_sn} to {max_cmd_sn} is closed"))?;
    let count = window.min(MOST);
    for number in 0..count {
        peer.inquire(number + 1, FIRST + number).await?;
    }
    let mut last = (0, 0);
    for _ in 0..count {
        let answer = match peer.next().await? {
            (Header::DataIn(header), _) if header.flags & bhs::STATUS != 0 => (header.exp_cmd_sn.get(), header.max_cmd_sn.get()),
            (Header::ScsiResponse(header), _) => (header.exp_cmd_sn.get(), header.max_cmd_sn.get()),
            // Data-In whose status comes on its own.
            (Header::DataIn(_), _) => continue,
            (other, _) => return fail(format!("expected the end of an INQUIRY, got a {}", other.name())),
        };
        ensure(!serial_less(answer.1, max_cmd_sn), || format!("MaxCmdSN went back from {max_cmd_sn} to {}", answer.1))?;
        max_cmd_sn = answer.1;
        last = answer;
    }
    equal("ExpCmdSN when all are answered", last.0, FIRST + count)?;
    ensure(!serial_less(last.1, last.0), || format!("all is answered, and the window is closed: from {} to {}", last.0, last.1))?;
    peer.serves(count + 1, FIRST + count).await
}

/// It is ignored in silence.
async fn duplicate(bench: &Bench) -> Outcome {
    let mut peer = Peer::enter(bench, LoginHeader::default(), &[]).await?;
    peer.serves(1, FIRST).await?;
    peer.inquire(2, FIRST).await?;
    peer.serves(3, FIRST + 1).await
}

/// It bears the number of the next command, and does not use it up.
async fn immediate(bench: &Bench) -> Outcome {
    let mut peer = Peer::enter(bench, LoginHeader::default(), &[]).await?;
    for tag in 1..4 {
        peer.command_as(bhs::IMMEDIATE, tag, FIRST, bhs::READ, 36, &INQUIRY).await?;
        equal("status of an immediate INQUIRY", peer.ends(tag).await?.0, 0)?;
    }
    peer.serves(4, FIRST).await?;
    peer.serves(5, FIRST + 1).await
}
