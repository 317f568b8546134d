//! Tape data encryption: who set which key, and for whom it holds; SECURITY PROTOCOL IN and OUT.
//!
//! Keys live in memory only, and end with the nexus that set them for itself, with CKOD when the medium is unloaded, or when
//! somebody sets others. Follows SSC-4, "Tape data encryption"; the pages are in [`protocol::scsi::tape_encryption`].

use std::sync::{Arc, Weak};

use aes_gcm::aead::OsRng;
use aes_gcm::aead::rand_core::RngCore;
use protocol::cartridge::ObjectKind;
use protocol::cartridge::envelope::Envelope;
use protocol::scsi::ssc::SecurityProtocolCdb;
use protocol::scsi::tape_encryption::{
    self, DecryptionMode, EncryptionStatus, KEY, KeyAssociatedData, NextBlock, Scope, SetEncryption, page,
};
use protocol::scsi::{FieldPointer, Sense};
use zeroize::Zeroizing;

use super::Tape;
use super::codec::{Decoder, Encoder, Encrypting, Key};
use super::drive::Drive;
use super::mode::Settings;
use crate::cartridge::ReadError;
use crate::lun::common::{Reply, data_in, parameter_list};
use crate::nexus::Nexus;
use crate::task::{Response, Task};

/// What was set, and for whom.
#[derive(Debug, Default)]
pub struct Parameters {
    /// For all nexuses that have none of their own.
    shared: Option<(Set, Weak<Nexus>)>,
    /// For one nexus alone.
    local: Vec<(Set, Weak<Nexus>)>,
    /// KEY INSTANCE COUNTER: counts the keys that were set.
    instance: u32,
}

/// One set of parameters.
#[derive(Debug, Clone)]
struct Set {
    encrypt: bool,
    decryption: DecryptionMode,
    raw_reads: bool,
    clear_on_demount: bool,
    kad_format: u8,
    kad: KeyAssociatedData,
    key: Option<Arc<Key>>,
    instance: u32,
}

impl Parameters {
    /// What holds for a nexus, and whether that is its own.
    fn of(&self, nexus: &Nexus) -> Option<(&Set, Scope)> {
        let own = self.local.iter().find(|(_, owner)| is(owner, nexus)).map(|(set, _)| (set, Scope::Local));
        own.or(self.shared.as_ref().map(|(set, _)| (set, Scope::AllNexuses)))
    }

    fn set(&mut self, nexus: &Arc<Nexus>, scope: Scope, set: Option<Set>) {
        self.local.retain(|(_, owner)| owner.strong_count() > 0 && !is(owner, nexus));
        match (scope, set) {
            (Scope::Local, Some(set)) => self.local.push((set, Arc::downgrade(nexus))),
            (Scope::AllNexuses, set) => self.shared = set.map(|set| (set, Arc::downgrade(nexus))),
            _ => {}
        }
    }

    /// The medium is gone: keys that go with it.
    pub fn demounted(&mut self) {
        self.local.retain(|(set, owner)| !set.clear_on_demount && owner.strong_count() > 0);
        self.shared.take_if(|(set, _)| set.clear_on_demount);
    }

    /// Somebody wants what is written encrypted.
    pub fn encrypts(&self) -> bool {
        let local = self.local.iter().filter(|(_, owner)| owner.strong_count() > 0).map(|(set, _)| set);
        self.shared.iter().map(|(set, _)| set).chain(local).any(|set| set.encrypt)
    }
}

fn is(owner: &Weak<Nexus>, nexus: &Nexus) -> bool {
    owner.upgrade().is_some_and(|owner| owner.id == nexus.id)
}

impl Tape {
    /// How a command's records get onto the medium.
    pub(super) fn encoder(&self, task: &Task, settings: &Settings) -> Result<Encoder, Sense> {
        let parameters = self.encryption();
        let encrypt = match parameters.of(&task.nexus).map(|(set, _)| set).filter(|set| set.encrypt) {
            None => None,
            Some(Set { key: Some(key), raw_reads, kad, .. }) => {
                Some(Encrypting { key: Arc::clone(key), raw_reads: *raw_reads, kad: kad.clone() })
            }
            Some(_) => return Err(Sense::INTERNAL_TARGET_FAILURE),
        };
        Ok(Encoder { compress: settings.compress, encrypt })
    }

    /// How a command's records come off the medium.
    pub(super) fn decoder(&self, task: &Task) -> Decoder {
        match self.encryption().of(&task.nexus) {
            Some((set, _)) => Decoder { mode: set.decryption, key: set.key.clone() },
            None => Decoder { mode: DecryptionMode::Disable, key: None },
        }
    }
}

/// What a copy may do for a nexus: a mover has no keys, so it neither writes what is to be encrypted nor reads what was.
impl Tape {
    /// Why a copy for this nexus may not write records; `None` when it may.
    #[must_use]
    pub fn refuses_copied_records(&self, nexus: &Nexus) -> Option<Sense> {
        self.encryption().of(nexus).filter(|(set, _)| set.encrypt).map(|_| Sense::SECURITY_ERROR)
    }

    /// Why a copy for this nexus may not read records; `None` when it may read those that are not encrypted.
    #[must_use]
    pub fn refuses_records_to_copies(&self, nexus: &Nexus) -> Option<Sense> {
        let only_encrypted = |set: &Set| set.decryption == DecryptionMode::Decrypt;
        self.encryption().of(nexus).filter(|(set, _)| only_encrypted(set)).map(|_| Sense::UNABLE_TO_DECRYPT_DATA)
    }
}

/// SECURITY PROTOCOL IN.
pub fn protocol_in(tape: &Tape, task: &Task) -> Reply {
    let cdb: SecurityProtocolCdb = task.cdb.read();
    let specific = cdb.specific.get();
    let unknown_page = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2));
    let data = match cdb.protocol {
        tape_encryption::INFORMATION => tape_encryption::information(specific).ok_or(unknown_page)?,
        tape_encryption::TAPE_DATA_ENCRYPTION => match specific {
            page::STATUS => status(tape, task).emit(),
            page::NEXT_BLOCK_STATUS => {
                let decoder = tape.decoder(task);
                let block = |drive: &mut Drive| next_block(drive, &decoder);
                return tape.with_medium(|drive| {
                    let status = tape_encryption::next_block_status(drive.position().object, &block(drive)?);
                    Ok(data_in(status, cdb.length.get()))
                });
            }
            page::RANDOM_NUMBER => {
                let mut number = [0; 32];
                OsRng.try_fill_bytes(&mut number).map_err(|_| Sense::INTERNAL_TARGET_FAILURE)?;
                tape_encryption::random_number(&number)
            }
            _ => tape_encryption::fixed_page(specific).ok_or(unknown_page)?,
        },
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(1))),
    };
    Ok(data_in(data, cdb.length.get()))
}

fn status(tape: &Tape, task: &Task) -> EncryptionStatus {
    let parameters = tape.encryption();
    let off = EncryptionStatus {
        nexus_scope: Scope::Public,
        key_scope: Scope::Public,
        encrypt: false,
        decryption: DecryptionMode::Disable,
        instance: parameters.instance,
        raw_reads: false,
        kad_format: 0,
        kad: KeyAssociatedData::default(),
    };
    let Some((set, scope)) = parameters.of(&task.nexus) else { return off };
    let owner = parameters.shared.as_ref().is_some_and(|(_, owner)| is(owner, &task.nexus));
    EncryptionStatus {
        nexus_scope: if scope == Scope::AllNexuses && !owner { Scope::Public } else { scope },
        key_scope: scope,
        encrypt: set.encrypt,
        decryption: set.decryption,
        instance: set.instance,
        raw_reads: set.raw_reads,
        kad_format: set.kad_format,
        kad: set.kad.clone(),
    }
}

/// What the object at the position is. The tape does not move.
fn next_block(drive: &mut Drive, decoder: &Decoder) -> Result<NextBlock, Sense> {
    let at = drive.position().object;
    let entry = drive.medium()?.object(at).map_err(|error| drive.read_sense(&ReadError::Io(error)))?;
    let Some(entry) = entry.filter(|entry| entry.kind == ObjectKind::Record) else { return Ok(NextBlock::NoBlock) };
    if !entry.wrapped {
        return Ok(NextBlock::Plain { compressed: false });
    }
    let record = drive.medium()?.read(&entry).map_err(|error| drive.read_sense(&error))?;
    let Ok((envelope, _)) = Envelope::parse(&record) else { return Ok(NextBlock::Unknown) };
    let compressed = envelope.compressed;
    Ok(match envelope.encryption {
        None => NextBlock::Plain { compressed },
        Some(encryption) => NextBlock::Encrypted {
            compressed,
            readable: decoder.reads(&encryption),
            raw_reads: encryption.raw_reads,
            kad: KeyAssociatedData { unauthenticated: encryption.unauthenticated, authenticated: encryption.authenticated },
        },
    })
}

/// SECURITY PROTOCOL OUT: the set data encryption page.
pub fn protocol_out(tape: &Tape, task: &Task) -> Reply {
    let cdb: SecurityProtocolCdb = task.cdb.read();
    if cdb.protocol != tape_encryption::TAPE_DATA_ENCRYPTION {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(1)));
    }
    if cdb.specific.get() != page::SET {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2)));
    }
    if cdb.length.get() == 0 {
        return Ok(Response::good());
    }
    let list = parameter_list(task, cdb.length.get() as usize)?;
    let wanted = SetEncryption::parse(&list)?;
    let key = wanted.key_at.and_then(|at| list.get(at..at + KEY)).map(|bytes| {
        let mut key = Zeroizing::new([0; KEY]);
        key.copy_from_slice(bytes);
        Key::new(key)
    });
    let mut parameters = tape.encryption();
    let on = wanted.encrypt || wanted.decryption != DecryptionMode::Disable;
    parameters.instance = parameters.instance.wrapping_add(1);
    let set = Set {
        encrypt: wanted.encrypt,
        decryption: wanted.decryption,
        raw_reads: wanted.raw_reads,
        clear_on_demount: wanted.clear_on_demount,
        kad_format: wanted.kad_format,
        kad: wanted.kad,
        key,
        instance: parameters.instance,
    };
    // A nexus may want no encryption for itself though all others have it: that, too, is a set of its own.
    let kept = (on || wanted.scope == Scope::Local).then_some(set);
    parameters.set(&task.nexus, wanted.scope, kept);
    drop(parameters);
    if wanted.scope == Scope::AllNexuses {
        let changed = Sense::DATA_ENCRYPTION_PARAMETERS_CHANGED_BY_ANOTHER_I_T_NEXUS;
        tape.common.attentions.establish_for_all(&changed, Some(task.nexus.id));
    }
    Ok(Response::good())
}
