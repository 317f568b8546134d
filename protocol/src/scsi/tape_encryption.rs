//! The pages of the tape data encryption security protocol (20h): what a drive can do, what holds now, and the page that sets a key.
//!
//! One algorithm, AES-256-GCM with plain-text keys. Keeps no key longer than it is asked to. Follows SSC-4, "Security protocol
//! parameters", and SPC-4, "SECURITY PROTOCOL IN".

use super::{FieldPointer, Sense};

/// SECURITY PROTOCOL 00h: which protocols there are.
pub const INFORMATION: u8 = 0x00;
/// SECURITY PROTOCOL 20h.
pub const TAPE_DATA_ENCRYPTION: u8 = 0x20;

/// Page codes: SECURITY PROTOCOL SPECIFIC.
#[allow(missing_docs)]
pub mod page {
    pub const IN_SUPPORT: u16 = 0x0000;
    pub const OUT_SUPPORT: u16 = 0x0001;
    pub const CAPABILITIES: u16 = 0x0010;
    pub const KEY_FORMATS: u16 = 0x0011;
    pub const MANAGEMENT_CAPABILITIES: u16 = 0x0012;
    pub const STATUS: u16 = 0x0020;
    pub const NEXT_BLOCK_STATUS: u16 = 0x0021;
    pub const RANDOM_NUMBER: u16 = 0x0030;
    /// Of SECURITY PROTOCOL OUT.
    pub const SET: u16 = 0x0010;
}

const IN_PAGES: &[u16] = &[
    page::IN_SUPPORT,
    page::OUT_SUPPORT,
    page::CAPABILITIES,
    page::KEY_FORMATS,
    page::MANAGEMENT_CAPABILITIES,
    page::STATUS,
    page::NEXT_BLOCK_STATUS,
    page::RANDOM_NUMBER,
];
const OUT_PAGES: &[u16] = &[page::SET];

/// ALGORITHM INDEX of the one algorithm.
pub const ALGORITHM: u8 = 0x01;
/// Bytes of a key.
pub const KEY: usize = 32;
/// Most bytes of U-KAD.
pub const MAX_UNAUTHENTICATED: usize = 32;
/// Most bytes of A-KAD.
pub const MAX_AUTHENTICATED: usize = 60;

/// A page with its header.
fn framed(code: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a page is short");
    [&code.to_be_bytes()[..], &length.to_be_bytes(), body].concat()
}

/// Security protocol information: the list of protocols, or (specific 0001h) that there is no certificate.
#[must_use]
pub fn information(specific: u16) -> Option<Vec<u8>> {
    match specific {
        0x0000 => Some(vec![0, 0, 0, 0, 0, 0, 0, 2, INFORMATION, TAPE_DATA_ENCRYPTION]),
        0x0001 => Some(vec![0; 4]),
        _ => None,
    }
}

/// A page that is the same at all times; `None` for the others.
#[must_use]
pub fn fixed_page(code: u16) -> Option<Vec<u8>> {
    let codes = |codes: &[u16]| codes.iter().flat_map(|code| code.to_be_bytes()).collect::<Vec<_>>();
    Some(match code {
        page::IN_SUPPORT => framed(code, &codes(IN_PAGES)),
        page::OUT_SUPPORT => framed(code, &codes(OUT_PAGES)),
        page::CAPABILITIES => framed(code, &capabilities()),
        // Plain-text keys.
        page::KEY_FORMATS => framed(code, &[0]),
        page::MANAGEMENT_CAPABILITIES => framed(code, &management_capabilities()),
        _ => return None,
    })
}

fn capabilities() -> Vec<u8> {
    /// CFG_P 01b: the configuration may be changed by this protocol.
    const CONFIGURABLE: u8 = 0x01;
    const HEADER: usize = 16;
    let mut body = vec![0; HEADER];
    body[0] = CONFIGURABLE;
    /// Where keys are found wrong before data goes out: MAC_C, DED_C; DECRYPT_C and ENCRYPT_C 2h.
    const MAC_DED_DECRYPT_ENCRYPT: u8 = 0x20 | 0x10 | 0x08 | 0x02;
    /// AVFCLP 0h; NONCE_C 1h: the drive makes nonces; KADF_C; UKADF and AKADF clear: lengths are not fixed.
    const NONCE_BY_DRIVE: u8 = 0x10;
    /// RDMC_C 4h: raw reads are off unless the application lets them be. EEMC_C 1h: no external mode.
    const RAW_READS_BY_CHOICE: u8 = 0x10 | 0x08;
    const AES_256_GCM: u32 = 0x0001_0014;
    body.extend([ALGORITHM, 0, 0, 20, MAC_DED_DECRYPT_ENCRYPT, NONCE_BY_DRIVE]);
    body.extend((MAX_UNAUTHENTICATED as u16).to_be_bytes());
    body.extend((MAX_AUTHENTICATED as u16).to_be_bytes());
    body.extend((KEY as u16).to_be_bytes());
    body.extend([RAW_READS_BY_CHOICE, 0, 0, 0, 0, 0, 0, 0]);
    body.extend(AES_256_GCM.to_be_bytes());
    body
}

/// CKOD; AITN, LOCAL and PUBLIC scopes.
fn management_capabilities() -> Vec<u8> {
    let mut body = vec![0; 12];
    body[1] = 0x04;
    body[3] = 0x07;
    body
}

/// The random number page.
#[must_use]
pub fn random_number(number: &[u8; 32]) -> Vec<u8> {
    framed(page::RANDOM_NUMBER, number)
}

/// SCOPE of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scope {
    Public = 0,
    Local = 1,
    AllNexuses = 2,
}

/// DECRYPTION MODE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecryptionMode {
    /// Encrypted blocks cannot be read.
    #[default]
    Disable = 0,
    /// Blocks are read as they lie on the medium.
    Raw = 1,
    /// Encrypted blocks are decrypted, others refused.
    Decrypt = 2,
    /// Encrypted blocks are decrypted, others read as they are.
    Mixed = 3,
}

/// Key-associated data that goes with every block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyAssociatedData {
    /// U-KAD.
    pub unauthenticated: Vec<u8>,
    /// A-KAD.
    pub authenticated: Vec<u8>,
}

impl KeyAssociatedData {
    /// As descriptors; AUTHENTICATED is 0h where nothing lies on a medium yet, and 1h where it was not checked.
    fn emit(&self, flag: u8, into: &mut Vec<u8>) {
        for (kind, data) in [(0, &self.unauthenticated), (1, &self.authenticated)] {
            if !data.is_empty() {
                into.extend([kind, flag]);
                into.extend((data.len() as u16).to_be_bytes());
                into.extend(data);
            }
        }
    }
}

/// The data encryption status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionStatus {
    /// I_T NEXUS SCOPE.
    pub nexus_scope: Scope,
    /// LOGICAL BLOCK ENCRYPTION SCOPE.
    pub key_scope: Scope,
    /// ENCRYPTION MODE 2h.
    pub encrypt: bool,
    /// DECRYPTION MODE.
    pub decryption: DecryptionMode,
    /// KEY INSTANCE COUNTER.
    pub instance: u32,
    /// RDMD clear.
    pub raw_reads: bool,
    /// KAD FORMAT.
    pub kad_format: u8,
    /// What was set with the key.
    pub kad: KeyAssociatedData,
}

impl EncryptionStatus {
    /// As a page.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        const ENCRYPT: u8 = 2;
        let on = self.encrypt || self.decryption != DecryptionMode::Disable;
        // PARAMETERS CONTROL 1h: not exclusively controlled by something else. CEEMS 1h: no external encryption is looked for.
        let flags = 0x10 | 0x02 | u8::from(!self.raw_reads);
        let mut body = vec![(self.nexus_scope as u8) << 5 | self.key_scope as u8, if self.encrypt { ENCRYPT } else { 0 }];
        body.extend([self.decryption as u8, if on { ALGORITHM } else { 0 }]);
        body.extend(self.instance.to_be_bytes());
        body.extend([flags, self.kad_format, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.kad.emit(0, &mut body);
        framed(page::STATUS, &body)
    }
}

/// What the block at the position is, for the next block encryption status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextBlock {
    /// The end of data, or a filemark.
    NoBlock,
    /// COMPRESSION STATUS; not encrypted.
    Plain {
        /// It is compressed.
        compressed: bool,
    },
    /// Encrypted by the one algorithm.
    Encrypted {
        /// It is compressed.
        compressed: bool,
        /// The parameters that hold for the nexus decrypt it.
        readable: bool,
        /// RDMD clear.
        raw_reads: bool,
        /// What lies with it.
        kad: KeyAssociatedData,
    },
    /// In an envelope that is none of ours.
    Unknown,
}

/// The next block encryption status page.
#[must_use]
pub fn next_block_status(object: u64, block: &NextBlock) -> Vec<u8> {
    let compression = |compressed: bool| if compressed { 4 } else { 3 };
    let (compression, status, algorithm, raw_reads, kad) = match block {
        NextBlock::NoBlock => (2, 2, 0, true, None),
        NextBlock::Plain { compressed } => (compression(*compressed), 3, 0, true, None),
        NextBlock::Encrypted { compressed, readable, raw_reads, kad } => {
            (compression(*compressed), if *readable { 5 } else { 6 }, ALGORITHM, *raw_reads, Some(kad))
        }
        NextBlock::Unknown => (0, 4, 0, false, None),
    };
    let mut body = object.to_be_bytes().to_vec();
    // EMES is of external encryption, of which there is none.
    body.extend([compression << 4 | status, algorithm, u8::from(!raw_reads), 0]);
    if let Some(kad) = kad {
        kad.emit(1, &mut body);
    }
    framed(page::NEXT_BLOCK_STATUS, &body)
}

/// The set data encryption page, checked.
#[derive(PartialEq, Eq)]
pub struct SetEncryption {
    /// SCOPE. With `Public` nothing else counts.
    pub scope: Scope,
    /// ENCRYPTION MODE 2h.
    pub encrypt: bool,
    /// DECRYPTION MODE.
    pub decryption: DecryptionMode,
    /// RDMC 2h: blocks may be read raw.
    pub raw_reads: bool,
    /// CKOD: the key goes with the medium.
    pub clear_on_demount: bool,
    /// KAD FORMAT.
    pub kad_format: u8,
    /// Byte of the page at which the key of [`KEY`] bytes stands; `None` where none is needed.
    pub key_at: Option<usize>,
    /// Key-associated data.
    pub kad: KeyAssociatedData,
}

impl SetEncryption {
    /// Reads the page.
    ///
    /// # Errors
    /// PARAMETER LIST LENGTH ERROR when it is cut off; INVALID FIELD IN PARAMETER LIST for what the capabilities do not offer.
    pub fn parse(list: &[u8]) -> Result<Self, Sense> {
        const FIXED: usize = 20;
        let &[
            page_high,
            page_low,
            length_high,
            length_low,
            scope,
            control,
            encryption,
            decryption,
            algorithm,
            format,
            kad_format,
            ..,
        ] = list.first_chunk::<FIXED>().ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        if u16::from_be_bytes([page_high, page_low]) != page::SET {
            return Err(invalid(0));
        }
        let end = 4 + usize::from(u16::from_be_bytes([length_high, length_low]));
        let list = list.get(..end).filter(|list| list.len() >= FIXED).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        let lock = scope & 0x01 != 0;
        let scope = match scope >> 5 {
            0 => Scope::Public,
            1 => Scope::Local,
            2 => Scope::AllNexuses,
            _ => return Err(invalid(4)),
        };
        let encrypt = match encryption {
            0 => false,
            2 => true,
            _ => return Err(invalid(6)),
        };
        let decryption = match decryption {
            0 => DecryptionMode::Disable,
            1 => DecryptionMode::Raw,
            2 => DecryptionMode::Decrypt,
            3 => DecryptionMode::Mixed,
            _ => return Err(invalid(7)),
        };
        let mut set = Self {
            scope,
            encrypt,
            decryption,
            raw_reads: false,
            clear_on_demount: control & 0x04 != 0,
            kad_format: 0,
            key_at: None,
            kad: KeyAssociatedData::default(),
        };
        if scope == Scope::Public {
            return Ok(set);
        }
        // LOCK, SDK, CKORP and CKORL are not offered; of CEEM 0h and 1h, which look for no external encryption.
        let unserved = lock || control & 0x0B != 0 || control >> 6 > 1;
        if unserved {
            return Err(invalid(if lock { 4 } else { 5 }));
        }
        set.raw_reads = match control >> 4 & 0x03 {
            0 | 3 => false,
            2 => true,
            _ => return Err(invalid(5)),
        };
        if !encrypt && decryption == DecryptionMode::Disable {
            // Whatever key comes along is of no use.
            return Ok(set);
        }
        if algorithm != ALGORITHM {
            return Err(invalid(8));
        }
        if format != 0 {
            return Err(invalid(9));
        }
        if kad_format > 2 {
            return Err(invalid(10));
        }
        set.kad_format = kad_format;
        set.take_key(list)?;
        Ok(set)
    }

    fn take_key(&mut self, list: &[u8]) -> Result<(), Sense> {
        let length = usize::from(u16::from_be_bytes([list[18], list[19]]));
        let needed = self.encrypt || self.decryption != DecryptionMode::Raw;
        if length != KEY && (needed || length != 0) {
            return Err(invalid(18));
        }
        let mut at = 20 + length;
        if at > list.len() {
            return Err(Sense::PARAMETER_LIST_LENGTH_ERROR);
        }
        self.key_at = (length == KEY).then_some(20);
        while at < list.len() {
            let header = list[at..].first_chunk::<4>().ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let data = list.get(at + 4..at + 4 + length).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
            let (place, longest) = match header[0] {
                0 => (&mut self.kad.unauthenticated, MAX_UNAUTHENTICATED),
                1 => (&mut self.kad.authenticated, MAX_AUTHENTICATED),
                _ => return Err(invalid(at)),
            };
            if length > longest || !place.is_empty() {
                return Err(invalid(at + 2));
            }
            place.extend(data);
            at += 4 + length;
        }
        Ok(())
    }
}

fn invalid(byte: usize) -> Sense {
    Sense::INVALID_FIELD_IN_PARAMETER_LIST.at(FieldPointer::parameter(u16::try_from(byte).unwrap_or(u16::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::hex;

    /// As Debian's stenc sends it, but for the key.
    fn page(head: &str) -> Vec<u8> {
        [hex(head), vec![0x5A; KEY], hex("00 00 0004 6E616D65")].concat()
    }

    #[test]
    fn the_page_that_stenc_sends_is_understood() {
        let set =
            SetEncryption::parse(&page("0010 0038 40 00 02 02 01 00 00 00000000000000 0020")).unwrap_or_else(|e| panic!("{e}"));
        assert!(set.encrypt && set.scope == Scope::AllNexuses && !set.raw_reads);
        assert_eq!(
            (set.decryption, set.key_at, set.kad.unauthenticated.as_slice()),
            (DecryptionMode::Decrypt, Some(20), &b"name"[..])
        );
        let off =
            SetEncryption::parse(&page("0010 0038 40 40 00 00 00 00 00 00000000000000 0020")).unwrap_or_else(|e| panic!("{e}"));
        assert!(!off.encrypt && off.key_at.is_none());
    }

    #[test]
    fn what_is_not_offered_is_named_by_its_byte() {
        let refused = |head: &str| SetEncryption::parse(&page(head)).err();
        assert_eq!(refused("0010 0038 41 00 02 02 01 00 00 00000000000000 0020"), Some(invalid(4)), "LOCK");
        assert_eq!(refused("0010 0038 40 08 02 02 01 00 00 00000000000000 0020"), Some(invalid(5)), "SDK");
        assert_eq!(refused("0010 0038 40 00 01 02 01 00 00 00000000000000 0020"), Some(invalid(6)), "external");
        assert_eq!(refused("0010 0038 40 00 02 04 01 00 00 00000000000000 0020"), Some(invalid(7)));
        assert_eq!(refused("0010 0038 40 00 02 02 02 00 00 00000000000000 0020"), Some(invalid(8)), "algorithm");
        assert_eq!(refused("0010 0038 40 00 02 02 01 02 00 00000000000000 0020"), Some(invalid(9)), "wrapped key");
        assert_eq!(refused("0010 0038 40 00 02 02 01 00 00 00000000000000 0010"), Some(invalid(18)), "key length");
        assert_eq!(refused("0010 0039 40 00 02 02 01 00 00 00000000000000 0020"), Some(Sense::PARAMETER_LIST_LENGTH_ERROR));
        assert_eq!(refused("0012 0038 40 00 02 02 01 00 00 00000000000000 0020"), Some(invalid(0)));
    }

    #[test]
    fn pages_have_their_bytes() {
        assert_eq!(fixed_page(page::OUT_SUPPORT).unwrap(), hex("0001 0002 0010"));
        let capabilities = fixed_page(page::CAPABILITIES).unwrap();
        assert_eq!(capabilities.len(), 4 + 16 + 24);
        assert_eq!(capabilities[20..], hex("01 00 0014 3A 10 0020 003C 0020 18 00 0000 00000000 00010014")[..]);
        let kad = KeyAssociatedData { unauthenticated: b"k".to_vec(), authenticated: Vec::new() };
        let status = EncryptionStatus {
            nexus_scope: Scope::Public,
            key_scope: Scope::AllNexuses,
            encrypt: true,
            decryption: DecryptionMode::Mixed,
            instance: 7,
            raw_reads: false,
            kad_format: 0,
            kad: kad.clone(),
        };
        assert_eq!(status.emit(), hex("0020 0019 02 02 03 01 00000007 13 00 0000 0000000000000000 00 00 0001 6B"));
        let block = NextBlock::Encrypted { compressed: false, readable: true, raw_reads: false, kad };
        assert_eq!(next_block_status(9, &block), hex("0021 0011 0000000000000009 35 01 01 00 00 01 0001 6B"));
        assert_eq!(next_block_status(9, &NextBlock::NoBlock), hex("0021 000C 0000000000000009 22 00 00 00"));
    }

    proptest! {
        #[test]
        fn arbitrary_pages_never_panic(mut list in proptest::collection::vec(any::<u8>(), 0..140), good in any::<bool>()) {
            if good && list.len() > 20 {
                let length = (list.len() - 4) as u8;
                list[..6].copy_from_slice(&[0, 0x10, 0, length, 0x40, 0]);
                list[6..20].copy_from_slice(&hex("02 02 01 00 00 00000000000000 0020"));
            }
            let _ = SetEncryption::parse(&list);
        }
    }
}
