//! Sessions that do everything wrong, kind by kind: what a broken or malicious initiator sends, for as long as it is let.
//!
//! Nothing here judges the target; the tests put a witness beside it, and a benchmark measures that one's rate. Resets of the whole
//! target are left out: they are in order, and meant to be felt by everybody. RFC 7143.

use protocol::iscsi::bhs::{self, NO_TAG};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::pdus::{
    INQUIRY, Names, READ_10, WRITE_10, command, data_out, login, login_header, longest, pdu, ping, snack, task_management, text,
};
use crate::programs::Target;

const INITIATOR: &str = "iqn.2026-01.test:wrong";
/// Connections that are kept open at a time by those who keep them.
const KEPT: usize = 200;
/// Bytes handed to the socket at once.
const GULP: usize = 64 * 1024;
const READ: u8 = bhs::READ;
const WRITE: u8 = bhs::WRITE;

/// One kind of wrongness.
#[derive(Debug, Clone, Copy)]
pub struct Wrong {
    /// In words.
    pub name: &'static str,
    opening: Opening,
    after: After,
    /// The nth thing sent on a connection.
    piece: fn(u32) -> Vec<u8>,
}

/// What comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    None,
    Login,
    /// With ErrorRecoveryLevel 1.
    Recovery,
}

/// What it does with the answers, and when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Reads them, and sends on until the target hangs up.
    Reads,
    /// Reads nothing.
    Deaf,
    /// Sends one piece, and hangs up.
    Leaves,
    /// Sends one piece, and keeps the connection open.
    Stays,
}

const fn wrong(name: &'static str, opening: Opening, after: After, piece: fn(u32) -> Vec<u8>) -> Wrong {
    Wrong { name, opening, after, piece }
}

/// All of them.
pub const KINDS: &[Wrong] = &[
    wrong("CmdSN far outside of the window", Opening::Login, After::Reads, |n| inquiry(n * 1009 + 500)),
    wrong("the same CmdSN again and again", Opening::Login, After::Reads, |_| inquiry(1)),
    wrong("gaps between CmdSNs", Opening::Login, After::Reads, |n| inquiry(2 * n + 2)),
    wrong("early commands that wait for one that never comes", Opening::Recovery, After::Reads, |n| inquiry(2 + n % 120)),
    wrong("acknowledgements of what was never sent", Opening::Recovery, After::Reads, |n| {
        pdu(bhs::NopOut { exp_stat_sn: random(n).into(), ..ping(n) }, &[])
    }),
    wrong("DataSN and offsets out of order", Opening::Login, After::Reads, |n| {
        let write = pdu(bhs::ScsiCommand { flags: WRITE, ..command(n + 1, WRITE, 4096, &WRITE_10) }, &[]);
        [write, pdu(data_out(n + 1, NO_TAG, random(n) % 9, random(n) % 5000), &[1; 1024])].concat()
    }),
    wrong("data that nobody asked for", Opening::Login, After::Reads, |n| pdu(data_out(n, n * 7, 0, 0), &[1; 4096])),
    wrong("more immediate data than the command says", Opening::Login, After::Reads, |n| {
        pdu(command(n + 1, WRITE, 512, &WRITE_10), &[1; 8192])
    }),
    wrong("transfer lengths that fit nothing", Opening::Login, After::Reads, |n| {
        let flags = if n % 2 == 0 { READ } else { WRITE };
        pdu(command(n + 1, flags, random(n), if n % 4 < 2 { &READ_10 } else { &WRITE_10 }), &[])
    }),
    wrong("writes of a MiB whose data never comes", Opening::Login, After::Reads, |n| {
        pdu(command(n + 1, WRITE, 1 << 20, &[0x2A, 0, 0, 0, 0, 0, 0, 8, 0, 0]), &[])
    }),
    wrong("a data segment longer than was agreed to", Opening::Login, After::Reads, |n| {
        [longest(command(n + 1, WRITE, 1 << 24, &WRITE_10)), vec![1; GULP]].concat()
    }),
    wrong("flags and attributes that do not exist", Opening::Login, After::Reads, |n| {
        pdu(bhs::ScsiCommand { flags: random(n) as u8, ..command(n + 1, READ, 96, &INQUIRY) }, &[])
    }),
    wrong("task tags that are in use", Opening::Login, After::Reads, |n| {
        let tag = if n % 3 == 0 { NO_TAG } else { 7 };
        pdu(bhs::ScsiCommand { initiator_task_tag: tag.into(), ..command(n + 1, WRITE, 4096, &WRITE_10) }, &[])
    }),
    wrong("operation codes of the target's, or of nobody", Opening::Login, After::Reads, |n| {
        let mut bytes = pdu(ping(n), &[]);
        bytes[0] = bhs::IMMEDIATE | (random(n) as u8 & 0x3F);
        bytes
    }),
    wrong("a flood of task management", Opening::Login, After::Reads, |n| {
        // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, and what is none of them.
        pdu(task_management(n, [1, 2, 4, 5, 0x55][n as usize % 5], n / 2), &[])
    }),
    wrong("a flood of immediate commands", Opening::Login, After::Reads, |n| {
        pdu(bhs::ScsiCommand { opcode: bhs::IMMEDIATE, ..command(n, READ, 4096, &READ_10) }, &[])
    }),
    wrong("a flood of pings", Opening::Login, After::Reads, |n| pdu(ping(n), &[0x50; 512])),
    wrong("pings whose answers are not read", Opening::Login, After::Deaf, |n| pdu(ping(n), &[0x50; 8192])),
    wrong("reads of a MiB that are not read", Opening::Login, After::Deaf, |n| {
        let read = command(n, READ, 1 << 20, &[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
        pdu(bhs::ScsiCommand { opcode: bhs::IMMEDIATE, ..read }, &[])
    }),
    wrong("reads with recovery that are not read", Opening::Recovery, After::Deaf, |n| {
        pdu(command(n + 1, READ, 1 << 20, &[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0]), &[])
    }),
    wrong("SNACKs for everything", Opening::Recovery, After::Reads, |n| {
        let read = pdu(command(n + 1, READ, 65_536, &[0x28, 0, 0, 0, 0, 0, 0, 0, 128, 0]), &[]);
        let again: Vec<u8> = (0..4).flat_map(|kind| pdu(snack(kind, n / 2 + 1, n, 0, 0), &[])).collect();
        [read, again].concat()
    }),
    wrong("text that never ends", Opening::Login, After::Reads, |n| pdu(text(n / 1000, bhs::CONTINUE), &[b'A'; 8000])),
    wrong("a flood of text requests", Opening::Login, After::Reads, |n| pdu(text(n, bhs::FINAL), b"SendTargets=All\0X-a.b=c\0")),
    wrong("a text request of 16 MiB", Opening::Login, After::Reads, |n| {
        [longest(text(n, bhs::FINAL)), vec![b'A'; GULP]].concat()
    }),
    wrong("a login of 16 MiB", Opening::None, After::Reads, |n| [longest(login_header(n)), vec![b'A'; GULP]].concat()),
    wrong("a login key that goes on for ever", Opening::None, After::Reads, |_| {
        pdu(bhs::LoginRequest { flags: bhs::CONTINUE | 1 << 2, ..login_header(9) }, &[b'A'; 8000])
    }),
    wrong("logins that stop halfway", Opening::None, After::Stays, |n| {
        let whole = pdu(login_header(n), &[b'A'; 400]);
        whole[..random(n) as usize % whole.len()].to_vec()
    }),
    wrong("sessions that begin, ask for something and are gone", Opening::Login, After::Leaves, |n| inquiry(n + 1)),
    wrong("connections that say nothing and are gone", Opening::None, After::Leaves, |_| Vec::new()),
    wrong("garbage", Opening::None, After::Leaves, |n| noise(n, 4096)),
    wrong("garbage behind a login", Opening::Login, After::Reads, |n| noise(n, 4096)),
];

fn inquiry(number: u32) -> Vec<u8> {
    pdu(command(number, READ, 96, &INQUIRY), &[])
}

fn random(n: u32) -> u32 {
    SmallRng::seed_from_u64(n.into()).random()
}

fn noise(n: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(n.into()).fill_bytes(&mut bytes);
    bytes
}

impl Wrong {
    /// Does wrong at LUN 0 of a target until then, and gives the number of things it got rid of.
    pub async fn run(&self, target: &Target, until: Instant) -> u64 {
        let names = Names { initiator: INITIATOR, target: &target.name };
        let (mut sent, mut kept, mut round) = (0, std::collections::VecDeque::new(), 0);
        while Instant::now() < until {
            let Ok(Ok(mut stream)) = timeout_at(until, TcpStream::connect(&target.portal)).await else { continue };
            if let Ok(pieces) = timeout_at(until, self.session(&mut stream, names, round)).await {
                sent += pieces;
            } else {
                // It was still at it.
                sent += 1;
            }
            round += 1;
            if self.after == After::Stays {
                kept.push_back(stream);
                if kept.len() > KEPT {
                    kept.pop_front();
                }
            }
        }
        sent
    }

    /// One connection, up to its end.
    async fn session(&self, stream: &mut TcpStream, names: Names<'_>, round: u32) -> u64 {
        let level = if self.opening == Opening::Recovery { "1" } else { "0" };
        let keys = [("ErrorRecoveryLevel", level), ("InitialR2T", "No"), ("ImmediateData", "Yes")];
        if self.opening != Opening::None {
            let asked = stream.write_all(&login(names, 1, &keys)).await;
            let mut answer = [0; 48];
            if asked.is_err() || stream.read_exact(&mut answer).await.is_err() {
                return 0;
            }
        }
        if matches!(self.after, After::Leaves | After::Stays) {
            return u64::from(stream.write_all(&(self.piece)(round)).await.is_ok());
        }
        let (mut read, mut write) = stream.split();
        let mut sent = 0;
        let sending = async {
            let mut bytes = Vec::with_capacity(2 * GULP);
            loop {
                while bytes.len() < GULP {
                    bytes.extend((self.piece)(sent));
                    sent += 1;
                }
                if write.write_all(&bytes).await.is_err() {
                    return;
                }
                bytes.clear();
            }
        };
        let reading = async {
            let mut answers = vec![0; GULP];
            while self.after == After::Deaf || !matches!(read.read(&mut answers).await, Ok(0) | Err(_)) {
                if self.after == After::Deaf {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! { () = sending => {}, () = reading => {} }
        sent.into()
    }
}
