//! RODs and the tokens that were made of them: who has one may copy what a disk held at the token's moment, until it expires.
//!
//! ```text
//! POPULATE TOKEN ──▶ view of the disk (quiet window) ──▶ ROD ──▶ token ──▶ WRITE USING TOKEN
//! EXTENDED COPY BEh, BFh ────────────────────────────▶ ROD ──▶ token ──▶ EXTENDED COPY, FEh
//! ```
//!
//! A ROD holds its view, and with the last that holds the ROD the view ends. A token shows no more than the ranges it was made of, to
//! every nexus of the target that made it and to no other target. What became of one that is no good any more is kept for as long as
//! the standard wants it told. Moves no byte, and knows no parameter list.
//!
//! Follows SPC-4, "RODs and ROD tokens"; SBC-4, "Block device ROD token operations".

mod commands;
mod populate;

pub use commands::{Write, populate, write};
pub use populate::{Moment, Moments, Populated, Populating, Terms, no_view};

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use protocol::mover::ends::{Descriptor, End};
use protocol::scsi::Sense;
use protocol::scsi::designator::{Association, Designator};
use protocol::units::{BlockLength, ByteRange};
use protocol::xcopy::rod::{BlockFacts, RodToken, RodType};
use protocol::xcopy::{self, CscdDescriptor};
use tracing::{debug, info};

use crate::lun::common::LogicalUnit;
use crate::lun::disk::{Copying, Disk};
use crate::snapshot::View;
use crate::store::{BlockStore, LocalEnd};
use crate::sys;

/// Tokens that are good at one time. Each keeps a view, which costs every write to its disk.
const LIMIT: usize = 128;
/// Of them, those that one I_T nexus made: it cannot use up those of the others.
const LIMIT_EACH: usize = 32;
/// How long a token is left alone at most: who watches one that is good no more ends then.
const LOOK: Duration = Duration::from_secs(60);
/// Records of tokens that are good no more; then the oldest go.
const RECORDS: usize = 1024;

/// What a token stands for: bytes of a disk as it was at one moment, in an order of their own.
#[derive(Debug)]
pub struct Rod {
    view: Arc<View>,
    parts: Vec<ByteRange>,
    block_length: BlockLength,
    bytes: u64,
}

impl Rod {
    /// `parts` of a view, whole blocks each.
    #[must_use]
    pub fn new(view: Arc<View>, parts: Vec<ByteRange>, block_length: BlockLength) -> Self {
        let bytes = parts.iter().map(|part| part.len).sum();
        Self { view, parts, block_length, bytes }
    }

    /// NUMBER OF BYTES REPRESENTED.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of one of its blocks.
    #[must_use]
    pub const fn block_length(&self) -> BlockLength {
        self.block_length
    }

    /// The files of which a mover reads it.
    ///
    /// # Errors
    /// For want of descriptors.
    pub fn source(&self) -> io::Result<LocalEnd> {
        let mut local = self.view.source(self.block_length.0)?;
        if let End::View { parts, .. } = &mut local.end {
            parts.clone_from(&self.parts);
        }
        Ok(local)
    }

    /// Bytes saved by copy on write so far.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.view.copied_bytes()
    }

    /// Its data can still be had: the view is kept, and the disk has not been made smaller.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let (range, size) = (self.view.range(), self.view.volume().store().size());
        self.view.failure().is_none() && self.parts.iter().all(|part| range.start + part.end() <= size)
    }
}

/// Why a token is good no more. SPC-4, "Validation errors for generic ROD tokens".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    Expired,
    Cancelled,
    Revoked,
    Deleted,
}

impl Gone {
    const fn sense(self) -> Sense {
        match self {
            Self::Expired => Sense::INVALID_TOKEN_OPERATION_TOKEN_EXPIRED,
            Self::Cancelled => Sense::INVALID_TOKEN_OPERATION_TOKEN_CANCELLED,
            Self::Revoked => Sense::INVALID_TOKEN_OPERATION_TOKEN_REVOKED,
            Self::Deleted => Sense::INVALID_TOKEN_OPERATION_TOKEN_DELETED,
        }
    }
}

#[derive(Debug)]
struct Entry {
    token: RodToken,
    standing: Result<Arc<Rod>, Gone>,
    maker: u64,
    disk: Weak<Disk>,
    /// [`crate::lun::Device::address`] of the disk.
    device: usize,
    /// When its lifetime ends.
    ends: Instant,
    /// Until when its record is kept: twice its lifetime.
    told_until: Instant,
    inactivity: Option<Duration>,
    last_used: Instant,
    /// Copies that use it now.
    users: usize,
}

impl Entry {
    /// When it expires, as things stand.
    fn expiry(&self) -> Instant {
        match self.inactivity {
            Some(timeout) if self.users == 0 => self.ends.min(self.last_used + timeout),
            _ => self.ends,
        }
    }

    fn let_go(&mut self, why: Gone) {
        if self.standing.is_ok() {
            info!(token = ?self.token, ?why, "a token is good no more");
            self.standing = Err(why);
        }
    }

    /// What time and events have made of it.
    fn look(&mut self, now: Instant) {
        match &self.standing {
            Ok(_) if now >= self.expiry() => self.let_go(Gone::Expired),
            Ok(rod) if !rod.is_kept() => self.let_go(Gone::Cancelled),
            _ => {}
        }
    }
}

/// All tokens of a process, by COPY MANAGER ROD TOKEN IDENTIFIER.
#[derive(Debug, Default)]
pub struct Tokens {
    entries: Mutex<BTreeMap<u64, Entry>>,
}

/// A token's ROD, for as long as a copy uses it: meanwhile its inactivity timeout does not run.
#[derive(Debug)]
pub struct InUse {
    rod: Arc<Rod>,
    tokens: Arc<Tokens>,
    identifier: u64,
    _copying: Copying,
}

impl InUse {
    /// What is copied.
    #[must_use]
    pub const fn rod(&self) -> &Arc<Rod> {
        &self.rod
    }

    /// DEL_TKN: it is good no more. Copies that use it still end.
    pub fn delete(&self) {
        if let Some(entry) = self.tokens.entries().get_mut(&self.identifier) {
            entry.let_go(Gone::Deleted);
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(entry) = self.tokens.entries().get_mut(&self.identifier) {
            entry.users -= 1;
            entry.last_used = Instant::now();
        }
    }
}

impl Tokens {
    /// Makes a token of a ROD of `disk` for the nexus `maker`.
    ///
    /// # Errors
    /// INSUFFICIENT RESOURCES TO CREATE ROD TOKEN when there are as many as may be.
    pub fn make(
        self: &Arc<Self>,
        maker: u64,
        disk: &Arc<Disk>,
        kind: RodType,
        rod: Arc<Rod>,
        terms: Terms,
    ) -> Result<RodToken, Sense> {
        let (identifier, token) = self.enter(maker, disk, (kind, rod), terms, Instant::now())?;
        self.let_expire(identifier);
        Ok(token)
    }

    fn enter(
        &self,
        maker: u64,
        disk: &Arc<Disk>,
        (kind, rod): (RodType, Arc<Rod>),
        terms: Terms,
        now: Instant,
    ) -> Result<(u64, RodToken), Sense> {
        let mut entries = self.entries();
        entries.values_mut().for_each(|entry| entry.look(now));
        entries.retain(|_, entry| entry.standing.is_ok() || now < entry.told_until);
        let good = || entries.values().filter(|entry| entry.standing.is_ok());
        if good().count() >= LIMIT || good().filter(|entry| entry.maker == maker).count() >= LIMIT_EACH {
            return Err(Sense::INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN);
        }
        if entries.len() >= RECORDS {
            let gone = entries.iter().filter(|(_, entry)| entry.standing.is_err());
            let oldest = gone.min_by_key(|(_, entry)| entry.told_until).map(|(identifier, _)| *identifier);
            oldest.and_then(|oldest| entries.remove(&oldest));
        }
        let identifier = std::iter::repeat_with(rand::random).find(|identifier| !entries.contains_key(identifier));
        let identifier: u64 = identifier.expect("2^64 are not taken");
        let common = disk.common();
        let designator = xcopy::Designator::naa(&common.identity.naa).expect("sixteen bytes fit");
        let creator = CscdDescriptor::disk(designator, rod.block_length.0);
        let target = &common.identity.target_name;
        // From a generator for secrets, which the system seeds.
        let token = RodToken::new(kind, identifier, &creator, rod.bytes, facts(disk), target, &rand::random());
        let (lifetime, inactivity) = (terms.lifetime(), terms.inactivity());
        let entry = Entry {
            token: token.clone(),
            standing: Ok(rod),
            maker,
            disk: Arc::downgrade(disk),
            device: std::ptr::from_ref(common).addr(),
            ends: now + lifetime,
            told_until: now + 2 * lifetime,
            inactivity,
            last_used: now,
            users: 0,
        };
        entries.insert(identifier, entry);
        drop(entries);
        info!(?token, maker, ?lifetime, ?inactivity, "token made");
        Ok((identifier, token))
    }

    /// Lets the view go when the token expires, also when nobody asks for it again.
    fn let_expire(self: &Arc<Self>, identifier: u64) {
        let tokens = Arc::downgrade(self);
        let watch = async move {
            while let Some(next) = Weak::upgrade(&tokens).and_then(|tokens| tokens.next_look(identifier)) {
                tokio::time::sleep_until(next.into()).await;
            }
        };
        // Elsewhere than in the running target nobody waits for time to pass.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(watch)),
            Err(_) => debug!("no clock: a token expires when it is asked for"),
        }
    }

    /// When a token is to be looked at again; `None` for one that is good no more.
    fn next_look(&self, identifier: u64) -> Option<Instant> {
        let (mut entries, now) = (self.entries(), Instant::now());
        let entry = entries.get_mut(&identifier)?;
        entry.look(now);
        let idle = entry.inactivity.map_or(entry.ends, |timeout| now + timeout);
        entry.standing.is_ok().then(|| entry.expiry().min(idle).min(now + LOOK))
    }

    /// The ROD of a token that came to a logical unit of this target.
    ///
    /// # Errors
    /// INVALID TOKEN OPERATION, with the reason of the standard.
    pub fn find(self: &Arc<Self>, token: &RodToken, target: &str) -> Result<InUse, Sense> {
        self.find_at(token, target, Instant::now())
    }

    fn find_at(self: &Arc<Self>, token: &RodToken, target: &str, now: Instant) -> Result<InUse, Sense> {
        // That of another target, or of another copy manager altogether: REMOTE TOKENS is 0h.
        let ours = Designator::name_string(Association::TargetDevice, target).emit();
        let named = token.target().iter().zip(&ours).all(|(one, other)| one == other);
        if !named {
            return Err(Sense::INVALID_TOKEN_OPERATION_REMOTE_TOKEN_USAGE_NOT_SUPPORTED);
        }
        let identifier = token.identifier();
        let mut entries = self.entries();
        let entry = entries
            .get_mut(&identifier)
            .filter(|entry| entry.token.is(token))
            .ok_or(Sense::INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)?;
        entry.look(now);
        match &entry.standing {
            Ok(rod) => {
                let disk = entry.disk.upgrade().ok_or(Gone::Revoked.sense())?;
                let copying = disk.begin_copy_of_view()?;
                entry.users += 1;
                Ok(InUse { rod: Arc::clone(rod), tokens: Arc::clone(self), identifier, _copying: copying })
            }
            Err(gone) => Err(gone.sense()),
        }
    }

    /// The tokens that the copy manager of a logical unit made and that are good.
    #[must_use]
    pub fn of(&self, device: usize) -> Vec<RodToken> {
        let (mut entries, now) = (self.entries(), Instant::now());
        entries.values_mut().for_each(|entry| entry.look(now));
        let of_it = entries.values().filter(|entry| entry.device == device && entry.standing.is_ok());
        of_it.map(|entry| entry.token.clone()).collect()
    }

    /// The logical unit is no longer served: its tokens are good no more.
    pub fn revoke(&self, device: usize) {
        self.let_go(device, Gone::Revoked);
    }

    /// What the logical unit held is to be had no more. SPC-4, "ROD token lifetime": "… in response to operating conditions".
    pub fn cancel(&self, device: usize) {
        self.let_go(device, Gone::Cancelled);
    }

    fn let_go(&self, device: usize, why: Gone) {
        self.entries().values_mut().filter(|entry| entry.device == device).for_each(|entry| entry.let_go(why));
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().expect("no holder panics")
    }
}

/// So many bytes of zeros that take no memory: a file without a name, all of it a hole, as a copy's source.
///
/// # Errors
/// Whatever the system gives.
pub fn zeros(len: u64) -> io::Result<LocalEnd> {
    let file = File::from(memfd_create(c"offhost-zeros", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(len)?;
    let end = End::Raw { file: Descriptor(0), within: ByteRange { start: 0, len }, block_length: 512 };
    Ok(LocalEnd { end, files: vec![sys::reopen_read_only(&file)?] })
}

/// What READ CAPACITY(16) says.
fn facts(disk: &Disk) -> BlockFacts {
    let options = disk.options();
    BlockFacts {
        block_length: disk.block_length().0,
        physical_exponent: options.physical_exponent(),
        thin: options.thin && disk.write_protection().is_none(),
        lowest_aligned: options.lowest_aligned,
    }
}

#[cfg(test)]
mod tests;
