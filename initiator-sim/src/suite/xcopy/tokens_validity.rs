//! Tokens that are not, or no longer, good: nothing is moved, and the sense data says why.

use std::time::Duration;

use super::tokens::{DEL_TKN, Tokens};
use crate::suite::check::{self, Outcome, equal_bytes};
use crate::suite::{Bench, Case, Needs};

pub const CASES: &[Case] = &[
    Case::new("token-unknown", "SPC-4, Validation errors for generic ROD tokens, 8)", Needs::CopyDisk, |bench| {
        Box::pin(unknown(bench))
    }),
    Case::new("token-damaged", "SPC-4, Validation errors for generic ROD tokens, 1) and 2)", Needs::CopyDisk, |bench| {
        Box::pin(damaged(bench))
    }),
    Case::new("token-deleted", "SPC-4, ROD token lifetime; SBC-4, DEL_TKN", Needs::CopyDisk, |bench| Box::pin(deleted(bench))),
    Case::new("token-expired", "SPC-4, ROD token lifetime, inactivity timeout", Needs::CopyDisk, |bench| {
        Box::pin(expired(bench))
    }),
];

const UNSUPPORTED_TYPE: (u8, u8) = (0x23, 0x01);
const UNKNOWN: (u8, u8) = (0x23, 0x04);
const CORRUPT: (u8, u8) = (0x23, 0x05);
const EXPIRED: (u8, u8) = (0x23, 0x07);
const DELETED: (u8, u8) = (0x23, 0x09);
const INVALID_LENGTH: (u8, u8) = (0x23, 0x0A);

/// Every bit of what cannot be guessed counts.
async fn unknown(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let disk = &tokens.copy.disk;
    let before = disk.pattern(0xD0, 8);
    disk.put(2000, &before).await?;
    let token = tokens.populate(0x7400, 0, &[(0, 8)]).await?;
    for (byte, bit) in [(256, 0), (300, 7), (511, 3)] {
        let mut other = token.to_vec();
        other[byte] ^= 1 << bit;
        let reply = tokens.write(0x7401, 0, 0, &other, &[(2000, 8)]).await?;
        check::illegal_request(&format!("a token with another bit {bit} in byte {byte}"), &reply, &[UNKNOWN, CORRUPT])?;
    }
    equal_bytes("the blocks, which nobody wrote", &disk.get(2000, 8).await?, &before)?;
    check::good("the token itself", tokens.write(0x7402, 0, 0, &token, &[(2000, 8)]).await?).map(drop)
}

async fn damaged(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let token = tokens.populate(0x7410, 0, &[(0, 8)]).await?;
    let mut length = token.to_vec();
    length[7] ^= 0x08;
    let reply = tokens.write(0x7411, 0, 0, &length, &[(2000, 8)]).await?;
    check::illegal_request("ROD TOKEN LENGTH 01F0h", &reply, &[INVALID_LENGTH])?;
    let mut kind = token.to_vec();
    kind[..4].copy_from_slice(&0xFEFF_0123_u32.to_be_bytes());
    let reply = tokens.write(0x7412, 0, 0, &kind, &[(2000, 8)]).await?;
    check::illegal_request("a reserved ROD TYPE", &reply, &[UNSUPPORTED_TYPE, CORRUPT, UNKNOWN])
}

async fn deleted(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let token = tokens.populate(0x7420, 0, &[(0, 8)]).await?;
    check::good("WRITE USING TOKEN", tokens.write(0x7421, 0, 0, &token, &[(2000, 8)]).await?)?;
    check::good("WRITE USING TOKEN again", tokens.write(0x7422, DEL_TKN, 0, &token, &[(2000, 8)]).await?)?;
    let reply = tokens.write(0x7423, 0, 0, &token, &[(2000, 8)]).await?;
    check::illegal_request("a token after DEL_TKN", &reply, &[DELETED, UNKNOWN])
}

/// The timeout begins anew with every use.
async fn expired(bench: &Bench) -> Outcome {
    let tokens = Tokens::new(bench).await?;
    let token = tokens.populate(0x7430, 2, &[(0, 8)]).await?;
    for id in 0x7431..0x7434 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        check::good("a token in time", tokens.write(id, 0, 0, &token, &[(2000, 8)]).await?)?;
    }
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let reply = tokens.write(0x7434, 0, 0, &token, &[(2000, 8)]).await?;
    check::illegal_request("a token after its inactivity timeout", &reply, &[EXPIRED])
}
