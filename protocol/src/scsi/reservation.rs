//! Persistent reservations as bytes: the types, the parameter lists of PERSISTENT RESERVE OUT, the data of PERSISTENT RESERVE IN.
//!
//! Who may do what is decided by the device server; which commands a reservation lets through stands in [`super::conflict`].
//! Follows SPC-4, "PERSISTENT RESERVE IN command" and "PERSISTENT RESERVE OUT command".

use serde::{Deserialize, Serialize};

use super::transport_id::{InitiatorPort, TransportId};
use super::{Cdb, FieldPointer, Sense};

/// TYPE of a persistent reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum ReservationType {
    WriteExclusive = 0x1,
    ExclusiveAccess = 0x3,
    WriteExclusiveRegistrantsOnly = 0x5,
    ExclusiveAccessRegistrantsOnly = 0x6,
    WriteExclusiveAllRegistrants = 0x7,
    ExclusiveAccessAllRegistrants = 0x8,
}

impl ReservationType {
    /// All, in the standard's order.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    /// `None` for a code that is obsolete or reserved.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// Every registered nexus holds it.
    #[must_use]
    pub const fn is_all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// Every registered nexus may do what its holder may: "registrants only" and "all registrants".
    #[must_use]
    pub const fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Others may read.
    #[must_use]
    pub const fn admits_readers(self) -> bool {
        matches!(self, Self::WriteExclusive | Self::WriteExclusiveRegistrantsOnly | Self::WriteExclusiveAllRegistrants)
    }
}

/// SERVICE ACTION of PERSISTENT RESERVE OUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum ReserveOutAction {
    Register = 0x00,
    Reserve = 0x01,
    Release = 0x02,
    Clear = 0x03,
    Preempt = 0x04,
    PreemptAndAbort = 0x05,
    RegisterAndIgnoreExistingKey = 0x06,
    RegisterAndMove = 0x07,
}

impl ReserveOutAction {
    const ALL: [Self; 8] = [
        Self::Register,
        Self::Reserve,
        Self::Release,
        Self::Clear,
        Self::Preempt,
        Self::PreemptAndAbort,
        Self::RegisterAndIgnoreExistingKey,
        Self::RegisterAndMove,
    ];

    /// SCOPE and TYPE of the CDB are looked at.
    const fn has_type(self) -> bool {
        matches!(self, Self::Reserve | Self::Release | Self::Preempt | Self::PreemptAndAbort)
    }
}

/// A PERSISTENT RESERVE OUT whose CDB and parameter list agree with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReserveOut {
    /// What to do.
    pub action: ReserveOutAction,
    /// TYPE, for the actions that look at it.
    pub kind: Option<ReservationType>,
    /// RESERVATION KEY: the one that the nexus is registered with.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub action_key: u64,
    /// APTPL.
    pub persist: bool,
    /// ALL_TG_PT: register with all target ports.
    pub all_target_ports: bool,
    /// The TransportIDs that come with SPEC_I_PT; empty without.
    pub others: Vec<TransportId>,
    /// SPEC_I_PT.
    pub specifies_others: bool,
    /// Where a reservation is to be moved to, with REGISTER AND MOVE.
    pub destination: Option<MoveDestination>,
}

/// The nexus that REGISTER AND MOVE gives a reservation to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveDestination {
    /// Its initiator port.
    pub port: InitiatorPort,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub target_port: u16,
    /// UNREG: the nexus that moves it is unregistered.
    pub unregister: bool,
}

/// Bytes of the basic parameter list, and of that of REGISTER AND MOVE up to its TransportID.
const LIST: usize = 24;
/// Parameter lists beyond this are refused: room for some 250 TransportIDs.
pub const LIST_MAX: usize = 64 << 10;

impl ReserveOut {
    /// Reads CDB and parameter list; `list` is as long as PARAMETER LIST LENGTH says.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB for a scope or a type that there is not; PARAMETER LIST LENGTH ERROR, and INVALID FIELD IN PARAMETER LIST
    /// with its byte.
    pub fn parse(cdb: &Cdb, list: &[u8]) -> Result<Self, Sense> {
        let [_, action, scope_and_type, ..] = *cdb.basic();
        let action = ReserveOutAction::ALL.into_iter().find(|known| *known as u8 == action & 0x1F);
        let action = action.ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4)))?;
        let kind = match action.has_type() {
            true if scope_and_type >> 4 != 0 => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2))),
            true => {
                let unknown = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 3));
                Some(ReservationType::from_code(scope_and_type & 0x0F).ok_or(unknown)?)
            }
            false => None,
        };
        if list.len() > LIST_MAX {
            return Err(Sense::PARAMETER_LIST_LENGTH_ERROR);
        }
        let (head, rest) = list.split_first_chunk::<LIST>().ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        let number = |at: usize| u64::from_be_bytes(*head[at..].first_chunk().expect("24 bytes"));
        let out = Self {
            action,
            kind,
            key: number(0),
            action_key: number(8),
            persist: false,
            all_target_ports: false,
            others: Vec::new(),
            specifies_others: false,
            destination: None,
        };
        match action {
            ReserveOutAction::RegisterAndMove => out.with_destination(head, rest),
            _ => out.with_flags(head, rest),
        }
    }

    fn with_flags(self, head: &[u8; LIST], rest: &[u8]) -> Result<Self, Sense> {
        const SPEC_I_PT: u8 = 0x08;
        const ALL_TG_PT: u8 = 0x04;
        const APTPL: u8 = 0x01;
        let flags = head[20];
        let registers = matches!(self.action, ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnoreExistingKey);
        let specifies_others = flags & SPEC_I_PT != 0;
        if specifies_others && self.action != ReserveOutAction::Register {
            let field = FieldPointer::Parameter { byte: 20, bit: Some(3) };
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(field));
        }
        let others = match specifies_others {
            false if !rest.is_empty() => return Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
            false => Vec::new(),
            true => {
                let (length, ids) = rest.split_first_chunk().ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
                TransportId::list(declared(ids, u32::from_be_bytes(*length), 24)?, LIST + 4)?
            }
        };
        Ok(Self {
            persist: registers && flags & APTPL != 0,
            all_target_ports: registers && flags & ALL_TG_PT != 0,
            others,
            specifies_others,
            ..self
        })
    }

    fn with_destination(self, head: &[u8; LIST], rest: &[u8]) -> Result<Self, Sense> {
        const UNREG: u8 = 0x02;
        const APTPL: u8 = 0x01;
        let length = u32::from_be_bytes([head[20], head[21], head[22], head[23]]);
        let ids = TransportId::list(declared(rest, length, 20)?, LIST)?;
        // A name alone is no nexus.
        let [TransportId::Port(port)] = ids.as_slice() else {
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(LIST as u16)));
        };
        let destination = MoveDestination {
            port: port.clone(),
            target_port: u16::from_be_bytes([head[18], head[19]]),
            unregister: head[17] & UNREG != 0,
        };
        Ok(Self { persist: head[17] & APTPL != 0, destination: Some(destination), ..self })
    }
}

/// The TransportIDs that a length field at byte `at` tells of; it may tell of fewer bytes than came, not of more.
fn declared(ids: &[u8], length: u32, at: u16) -> Result<&[u8], Sense> {
    let invalid = Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(at));
    usize::try_from(length).ok().and_then(|length| ids.get(..length)).ok_or(invalid)
}

/// One registration, as READ FULL STATUS tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullStatus {
    /// RESERVATION KEY.
    pub key: u64,
    /// The reservation that this nexus holds.
    pub holds: Option<ReservationType>,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub target_port: u16,
    /// Whose it is.
    pub port: InitiatorPort,
}

/// PRGENERATION, then the length of what follows, then that.
fn with_header(generation: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a bounded number of registrations");
    [&generation.to_be_bytes()[..], &length.to_be_bytes(), body].concat()
}

/// READ KEYS parameter data.
#[must_use]
pub fn read_keys(generation: u32, keys: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let body: Vec<u8> = keys.into_iter().flat_map(u64::to_be_bytes).collect();
    with_header(generation, &body)
}

/// READ RESERVATION parameter data; the key is zero where all registrants hold it.
#[must_use]
pub fn read_reservation(generation: u32, reservation: Option<(u64, ReservationType)>) -> Vec<u8> {
    let Some((key, kind)) = reservation else { return with_header(generation, &[]) };
    let mut body = key.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 0, 0, kind as u8, 0, 0]);
    with_header(generation, &body)
}

/// READ FULL STATUS parameter data.
#[must_use]
pub fn read_full_status(generation: u32, registrations: &[FullStatus]) -> Vec<u8> {
    const R_HOLDER: u8 = 0x01;
    let mut body = Vec::new();
    for registration in registrations {
        let id = registration.port.emit();
        body.extend(registration.key.to_be_bytes());
        body.extend([0; 4]);
        body.extend([registration.holds.map_or(0, |_| R_HOLDER), registration.holds.map_or(0, |kind| kind as u8)]);
        body.extend([0; 4]);
        body.extend(registration.target_port.to_be_bytes());
        body.extend(u32::try_from(id.len()).expect("a name is short").to_be_bytes());
        body.extend(id);
    }
    with_header(generation, &body)
}

/// REPORT CAPABILITIES parameter data: all types, SPEC_I_PT, ALL_TG_PT, the exceptions for RESERVE and RELEASE (CRH), and, where there
/// is a place to keep them in, persistence through power loss.
#[must_use]
pub fn report_capabilities(can_persist: bool, persists: bool) -> [u8; 8] {
    const CRH_SIP_ATP: u8 = 0x1C;
    const PTPL_C: u8 = 0x01;
    const TMV: u8 = 0x80;
    /// TEST UNIT READY passes all reservations, MODE SENSE and its like those that admit readers.
    const ALLOW_COMMANDS: u8 = 3 << 4;
    const PTPL_A: u8 = 0x01;
    const ALL_TYPES: [u8; 2] = [0xEA, 0x01];
    let capable = CRH_SIP_ATP | if can_persist { PTPL_C } else { 0 };
    let active = TMV | ALLOW_COMMANDS | if persists { PTPL_A } else { 0 };
    [0, 8, capable, active, ALL_TYPES[0], ALL_TYPES[1], 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;
    use proptest::prelude::*;

    fn parse(cdb: &str, list: &str) -> Result<ReserveOut, Sense> {
        ReserveOut::parse(&Cdb::new(&hex(cdb)).unwrap(), &hex(list))
    }

    #[test]
    fn a_basic_list_tells_keys_and_flags_where_they_count() {
        let list = "0000000000000001 0000000000000002 00000000 05 00 0000";
        let register = parse("5f 00 00 0000 00000018 00", list).unwrap();
        assert_eq!((register.key, register.action_key), (1, 2));
        assert!(register.persist && register.all_target_ports && register.kind.is_none());
        let reserve = parse("5f 01 05 0000 00000018 00", list).unwrap();
        assert_eq!(reserve.kind, Some(ReservationType::WriteExclusiveRegistrantsOnly));
        assert!(!reserve.persist && !reserve.all_target_ports, "ignored");
    }

    #[test]
    fn scope_type_and_lengths_are_checked() {
        let list = "0000000000000001 0000000000000002 00000000 00 00 0000";
        assert_eq!(parse("5f 01 15 0000 00000018 00", list).unwrap_err().field, Some(FieldPointer::cdb(2)));
        assert_eq!(parse("5f 01 02 0000 00000018 00", list).unwrap_err().field, Some(FieldPointer::cdb_bit(2, 3)));
        assert_eq!(parse("5f 08 01 0000 00000018 00", list).unwrap_err().field, Some(FieldPointer::cdb_bit(1, 4)));
        assert_eq!(parse("5f 00 00 0000 00000017 00", &list[..list.len() - 2]), Err(Sense::PARAMETER_LIST_LENGTH_ERROR));
        assert_eq!(parse("5f 00 00 0000 00000019 00", &format!("{list}00")), Err(Sense::PARAMETER_LIST_LENGTH_ERROR));
        let specifies = "0000000000000001 0000000000000002 00000000 08 00 0000 00000000";
        assert!(parse("5f 00 00 0000 0000001c 00", specifies).unwrap().specifies_others);
        let field = FieldPointer::Parameter { byte: 20, bit: Some(3) };
        assert_eq!(parse("5f 06 00 0000 0000001c 00", specifies).unwrap_err().field, Some(field));
        let too_long = "0000000000000001 0000000000000002 00000000 08 00 0000 00000004";
        assert_eq!(parse("5f 00 00 0000 0000001c 00", too_long).unwrap_err().field, Some(FieldPointer::parameter(24)));
    }

    #[test]
    fn a_move_names_one_port() {
        let head = "0000000000000001 0000000000000002 00 03 0007";
        let port = "45 00 001c 69716e2e613a62 2c692c3078 303030323364303030303031 00000000";
        let out = parse("5f 07 00 0000 00000038 00", &format!("{head} 00000020 {port}")).unwrap();
        let destination = out.destination.unwrap();
        assert_eq!((destination.target_port, destination.unregister, out.persist), (7, true, true));
        assert_eq!(destination.port.name, "iqn.a:b");
        let name_alone = "05 00 0014 69716e2e613a62 00000000000000000000000000";
        let refused = parse("5f 07 00 0000 00000030 00", &format!("{head} 00000018 {name_alone}")).unwrap_err();
        assert_eq!(refused.field, Some(FieldPointer::parameter(24)));
    }

    #[test]
    fn status_is_told_with_generation_and_lengths() {
        assert_eq!(read_keys(5, [1, 2]), hex("00000005 00000010 0000000000000001 0000000000000002"));
        assert_eq!(read_reservation(5, None), hex("00000005 00000000"));
        let held = read_reservation(5, Some((1, ReservationType::ExclusiveAccess)));
        assert_eq!(held, hex("00000005 00000010 0000000000000001 00000000 00 03 0000"));
        let port = InitiatorPort { name: "iqn.a:b".into(), isid: [0, 2, 0x3D, 0, 0, 1] };
        let status = FullStatus { key: 9, holds: Some(ReservationType::WriteExclusive), target_port: 1, port: port.clone() };
        let head = hex("00000005 00000038 0000000000000009 00000000 01 01 00000000 0001 00000020");
        assert_eq!(read_full_status(5, &[status]), [head, port.emit()].concat());
        assert_eq!(report_capabilities(true, false), *hex("0008 1d b0 ea01 0000").first_chunk().unwrap());
    }

    proptest! {
        #[test]
        fn arbitrary_lists_never_panic(action in 0_u8..32, kind: u8, list in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ReserveOut::parse(&Cdb::new(&[0x5F, action, kind]).unwrap(), &list);
        }
    }
}
