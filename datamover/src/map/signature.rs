//! What a volume looks like from its first bytes, so that a copy of everything can say what it copies.
//!
//! It decides nothing but the one question whether block 0 is a volume's or a partition table's.

/// Name, byte position and bytes by which a file system or volume manager is known.
const SIGNATURES: &[(&str, usize, &[u8])] = &[
    ("NTFS", 3, b"NTFS    "),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("exFAT", 3, b"EXFAT   "),
    ("ReFS", 3, b"ReFS\0\0\0\0"),
    ("FAT", 0x36, b"FAT1"),
    ("FAT32", 0x52, b"FAT32   "),
    ("XFS", 0, b"XFSB"),
    ("LUKS", 0, b"LUKS\xBA\xBE"),
    ("LVM2 physical volume", 512, b"LABELONE"),
    ("ext2/3/4", 0x438, b"\x53\xEF"),
    ("swap", 4086, b"SWAPSPACE2"),
];

/// The name of what the first bytes show; `None` where they are unknown or all zero.
#[must_use]
pub fn guess(first: &[u8]) -> Option<&'static str> {
    let shows = |at: usize, bytes: &[u8]| first.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    SIGNATURES.iter().find(|(_, at, bytes)| shows(*at, bytes)).map(|(name, ..)| *name)
}

/// True when block 0 belongs to a volume whose boot sector carries the signature AA55h as a partition table does.
#[must_use]
pub fn is_volume(first: &[u8]) -> bool {
    matches!(guess(first), Some("NTFS" | "BitLocker" | "exFAT" | "ReFS" | "FAT" | "FAT32"))
}
