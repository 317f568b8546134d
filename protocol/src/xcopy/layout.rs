//! Segment descriptors as they lie in the list. SPC-4, "Segment descriptors", tables 147 to 170.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{U16, U24, U32, U64};

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident: $length:literal { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name { $(pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $length);
    )*};
}

layouts! {
    /// What every segment descriptor begins with.
    Header: 8 { code: u8, flags: u8, descriptor_length: U16, source: U16, destination: U16 }
    /// 00h and 01h.
    BlockStream: 24 { header: Header, reserved_8: u8, transfer_length: U24, reserved_12: [u8; 2], blocks: U16, lba: U64 }
    /// 02h.
    BlockBlock: 28 { header: Header, reserved_8: [u8; 2], blocks: U16, from: U64, to: U64 }
    /// 03h.
    StreamStream: 20 { header: Header, reserved_8: u8, from: U24, reserved_12: u8, to: U24, bytes: U32 }
    /// 04h.
    InlineStream: 20 { header: Header, reserved_8: u8, transfer_length: U24, offset: U32, bytes: U32 }
    /// 05h, without the data behind it.
    EmbeddedStream: 16 { header: Header, reserved_8: u8, transfer_length: U24, bytes: U16, reserved_14: [u8; 2] }
    /// 06h.
    StreamDiscard: 16 { header: Header, reserved_8: u8, transfer_length: U24, bytes: U32 }
    /// 07h.
    VerifyCscd: 12 { header: Header, tur: u8, reserved_9: [u8; 3] }
    /// 08h and 09h.
    BlockOffsetStream: 28 {
        header: Header, reserved_8: u8, transfer_length: U24, bytes: U32, lba: U64, reserved_24: [u8; 2], offset: U16,
    }
    /// 0Ah.
    BlockOffsetBlockOffset: 32 { header: Header, bytes: U32, from: U64, to: U64, from_offset: U16, to_offset: U16 }
    /// 10h and 11h: `flags` is W_IMMED or CODE.
    TapeCount: 12 { header: Header, flags: u8, count: U24 }
    /// 12h.
    TapeLocate: 12 { header: Header, object: U32 }
    /// 13h.
    TapeImage: 12 { header: Header, count: U32 }
    /// 14h.
    RegisterKey: 28 { header: Header, key: U64, action_key: U64, reserved_24: [u8; 4] }
    /// 16h of the length that table 166 says.
    BlockImage32: 28 { header: Header, from: U64, to: U64, blocks: U32 }
    /// BEh, without the range descriptors behind it.
    PopulateRod: 16 { header: Header, reserved_8: [u8; 5], range_type: u8, length: U16 }
    /// BFh of the length that table 170 says.
    BlockRange32: 20 { header: Header, lba: U64, blocks: U32 }
    /// BFh with the fields that table 170 shows.
    BlockRange64: 24 { header: Header, lba: U64, blocks: U64 }
    /// 16h with the fields that table 166 shows.
    BlockImage64: 32 { header: Header, from: U64, to: U64, blocks: U64 }
}
