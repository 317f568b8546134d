//! The 48-byte basic header segment of every PDU.
//!
//! Fixed layouts only: which fields are allowed to hold what is checked by whoever acts on them. RFC 7143 (11).

use crate::wire::{U16, U24, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a basic header segment.
pub const LENGTH: usize = 48;
/// I bit of byte 0: the request is for immediate delivery.
pub const IMMEDIATE: u8 = 0x40;
/// The operation code in byte 0.
pub const OPCODE_MASK: u8 = 0x3F;
/// F bit of byte 1; in login PDUs the T bit.
pub const FINAL: u8 = 0x80;
/// C bit of text and login PDUs: the text goes on in the next one.
pub const CONTINUE: u8 = 0x40;
/// R bit of a SCSI command.
pub const READ: u8 = 0x40;
/// W bit of a SCSI command.
pub const WRITE: u8 = 0x20;
/// A bit of Data-In: asks for a SNACK; only above ErrorRecoveryLevel 0.
pub const ACKNOWLEDGE: u8 = 0x40;
/// O bit: residual overflow.
pub const OVERFLOW: u8 = 0x04;
/// U bit: residual underflow.
pub const UNDERFLOW: u8 = 0x02;
/// S bit of Data-In: status and residual are valid.
pub const STATUS: u8 = 0x01;
/// The tag that stands for none.
pub const NO_TAG: u32 = 0xFFFF_FFFF;

/// A basic header segment whose fields are known.
pub trait Bhs: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    /// Operation code without the I bit.
    const OPCODE: u8;
}

/// One row per PDU: operation code, layout, and its place in [`Header`]. Bytes 0 (operation code), 4 (TotalAHSLength) and
/// 5 to 7 (DataSegmentLength) belong to the framing, which writes them.
macro_rules! headers {
    ($($(#[$doc:meta])* $name:ident = $opcode:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
            #[repr(C)]
            #[allow(missing_docs)]
            pub struct $name {
                /// With the I bit ([`IMMEDIATE`]).
                pub opcode: u8,
                pub flags: u8,
                $($(#[$field_doc])* pub $field: $type,)*
            }

            const _: () = assert!(size_of::<$name>() == LENGTH);

            impl Bhs for $name {
                const OPCODE: u8 = $opcode;
            }
        )*

        /// A basic header segment by its operation code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Header {
            $($(#[$doc])* $name($name),)*
            /// An operation code RFC 7143 does not have.
            Unknown([u8; LENGTH]),
        }

        impl Header {
            /// Every pattern of 48 bytes is some header.
            #[must_use]
            pub fn parse(bytes: &[u8; LENGTH]) -> Self {
                match bytes[0] & OPCODE_MASK {
                    $($opcode => Self::$name(zerocopy::transmute!(*bytes)),)*
                    _ => Self::Unknown(*bytes),
                }
            }

            /// As it came.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; LENGTH] {
                match self {
                    $(Self::$name(header) => zerocopy::transmute!(*header),)*
                    Self::Unknown(bytes) => *bytes,
                }
            }

            /// The standard's name, for messages.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                    Self::Unknown(_) => "unknown PDU",
                }
            }
        }
    };
}

headers! {
    /// RFC 7143 (11.18).
    NopOut = 0x00 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, target_transfer_tag: U32, cmd_sn: U32, exp_stat_sn: U32, reserved_32: [u8; 16],
    }
    /// RFC 7143 (11.3). `flags`: F, R, W and the task attribute in the low three bits.
    ScsiCommand = 0x01 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32,
        /// In bytes.
        expected_data_transfer_length: U32,
        cmd_sn: U32, exp_stat_sn: U32, cdb: [u8; 16],
    }
    /// RFC 7143 (11.5). `flags`: 80h and the function.
    TaskManagementRequest = 0x02 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, referenced_task_tag: U32, cmd_sn: U32, exp_stat_sn: U32,
        ref_cmd_sn: U32, exp_data_sn: U32, reserved_40: [u8; 8],
    }
    /// RFC 7143 (11.12). `flags`: T, C, CSG and NSG.
    LoginRequest = 0x03 {
        version_max: u8, version_min: u8, ahs_length: u8, data_length: U24, isid: [u8; 6], tsih: U16,
        initiator_task_tag: U32, cid: U16, reserved_22: [u8; 2], cmd_sn: U32, exp_stat_sn: U32, reserved_32: [u8; 16],
    }
    /// RFC 7143 (11.10). `flags`: F and C.
    TextRequest = 0x04 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, target_transfer_tag: U32, cmd_sn: U32, exp_stat_sn: U32, reserved_32: [u8; 16],
    }
    /// RFC 7143 (11.7).
    DataOut = 0x05 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, target_transfer_tag: U32, reserved_24: [u8; 4], exp_stat_sn: U32, reserved_32: [u8; 4],
        data_sn: U32,
        /// In bytes from the start of the command's data.
        buffer_offset: U32,
        reserved_44: [u8; 4],
    }
    /// RFC 7143 (11.14). `flags`: 80h and the reason.
    LogoutRequest = 0x06 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, reserved_8: [u8; 8],
        initiator_task_tag: U32, cid: U16, reserved_22: [u8; 2], cmd_sn: U32, exp_stat_sn: U32, reserved_32: [u8; 16],
    }
    /// RFC 7143 (11.16).
    SnackRequest = 0x10 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, target_transfer_tag: U32, reserved_24: [u8; 4], exp_stat_sn: U32, reserved_32: [u8; 8],
        beg_run: U32, run_length: U32,
    }
    /// RFC 7143 (11.19).
    NopIn = 0x20 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, target_transfer_tag: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        reserved_36: [u8; 12],
    }
    /// RFC 7143 (11.4).
    ScsiResponse = 0x21 {
        response: u8, status: u8, ahs_length: u8, data_length: U24, reserved_8: [u8; 8],
        initiator_task_tag: U32, snack_tag: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, exp_data_sn: U32,
        bidirectional_read_residual_count: U32,
        /// In bytes.
        residual_count: U32,
    }
    /// RFC 7143 (11.6).
    TaskManagementResponse = 0x22 {
        response: u8, reserved_3: u8, ahs_length: u8, data_length: U24, reserved_8: [u8; 8],
        initiator_task_tag: U32, reserved_20: [u8; 4], stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, reserved_36: [u8; 12],
    }
    /// RFC 7143 (11.13). `flags`: T, C, CSG and NSG.
    LoginResponse = 0x23 {
        version_max: u8, version_active: u8, ahs_length: u8, data_length: U24, isid: [u8; 6], tsih: U16,
        initiator_task_tag: U32, reserved_20: [u8; 4], stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        status_class: u8, status_detail: u8, reserved_38: [u8; 10],
    }
    /// RFC 7143 (11.11). `flags`: F and C.
    TextResponse = 0x24 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, target_transfer_tag: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        reserved_36: [u8; 12],
    }
    /// RFC 7143 (11.7). `flags`: F, A, O, U and S.
    DataIn = 0x25 {
        reserved_2: u8, status: u8, ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, target_transfer_tag: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, data_sn: U32,
        /// In bytes from the start of the command's data.
        buffer_offset: U32,
        /// In bytes.
        residual_count: U32,
    }
    /// RFC 7143 (11.15).
    LogoutResponse = 0x26 {
        response: u8, reserved_3: u8, ahs_length: u8, data_length: U24, reserved_8: [u8; 8],
        initiator_task_tag: U32, reserved_20: [u8; 4], stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, reserved_36: [u8; 4],
        /// In seconds.
        time2wait: U16,
        /// In seconds.
        time2retain: U16,
        reserved_44: [u8; 4],
    }
    /// Ready to transfer. RFC 7143 (11.8).
    R2t = 0x31 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, target_transfer_tag: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, r2t_sn: U32,
        /// In bytes from the start of the command's data.
        buffer_offset: U32,
        /// In bytes.
        desired_data_transfer_length: U32,
    }
    /// RFC 7143 (11.9).
    AsyncMessage = 0x32 {
        reserved_2: [u8; 2], ahs_length: u8, data_length: U24, lun: [u8; 8],
        initiator_task_tag: U32, reserved_20: [u8; 4], stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        async_event: u8, async_vcode: u8, parameter_1: U16, parameter_2: U16, parameter_3: U16, reserved_44: [u8; 4],
    }
    /// RFC 7143 (11.17). Its data segment is the header it rejects.
    Reject = 0x3F {
        reason: u8, reserved_3: u8, ahs_length: u8, data_length: U24, reserved_8: [u8; 8],
        initiator_task_tag: U32, reserved_20: [u8; 4], stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        data_sn: U32, reserved_40: [u8; 8],
    }
}

/// Reason of a Reject. RFC 7143 (11.17.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum RejectReason {
    DataDigestError = 0x02,
    SnackReject = 0x03,
    ProtocolError = 0x04,
    CommandNotSupported = 0x05,
    TooManyImmediateCommands = 0x06,
    TaskInProgress = 0x07,
    InvalidPduField = 0x09,
    LongOperationReject = 0x0A,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    /// Reads `golden` as `H`, and writes it back into 48 bytes.
    fn both_ways(golden: &str) -> Header {
        let bytes: [u8; LENGTH] = hex(golden).try_into().expect("48 bytes");
        let header = Header::parse(&bytes);
        assert_eq!(header.to_bytes(), bytes);
        header
    }

    #[test]
    fn a_read_10_command_has_its_fields_where_the_rfc_draws_them() {
        let header = both_ways(
            "01 c1 0000 00 000000  0001 000000000000  00000007 00001000 00000002 00000003
             28 00 00000010 00 0008 00 000000000000",
        );
        let Header::ScsiCommand(command) = header else { panic!("{header:?}") };
        assert_eq!(command.flags, FINAL | READ | 1);
        assert_eq!(command.lun, [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(command.initiator_task_tag.get(), 7);
        assert_eq!(command.expected_data_transfer_length.get(), 4096);
        assert_eq!((command.cmd_sn.get(), command.exp_stat_sn.get()), (2, 3));
        assert_eq!(command.cdb[..6], [0x28, 0, 0, 0, 0, 0x10]);
    }

    #[test]
    fn a_data_in_has_its_fields_where_the_rfc_draws_them() {
        let header = both_ways(
            "25 83 00 02 00 000200  0000000000000000  00000007 ffffffff 00000003 00000004 00000083
             00000001 00040000 00000e00",
        );
        let Header::DataIn(data_in) = header else { panic!("{header:?}") };
        assert_eq!(data_in.flags, FINAL | UNDERFLOW | STATUS);
        assert_eq!((data_in.status, data_in.data_length.get()), (2, 512));
        assert_eq!((data_in.stat_sn.get(), data_in.exp_cmd_sn.get(), data_in.max_cmd_sn.get()), (3, 4, 0x83));
        assert_eq!((data_in.data_sn.get(), data_in.buffer_offset.get(), data_in.residual_count.get()), (1, 0x4_0000, 0xE00));
    }

    #[test]
    fn a_login_response_has_its_fields_where_the_rfc_draws_them() {
        let header = both_ways(
            "23 87 00 00 00 000010  400001370000 0005  00000001 00000000 00000009 0000000a 0000004a
             02 07 00000000000000000000",
        );
        let Header::LoginResponse(login) = header else { panic!("{header:?}") };
        assert_eq!((login.isid, login.tsih.get()), ([0x40, 0, 1, 0x37, 0, 0], 5));
        assert_eq!((login.status_class, login.status_detail), (2, 7));
        assert_eq!((login.stat_sn.get(), login.exp_cmd_sn.get(), login.max_cmd_sn.get()), (9, 10, 0x4A));
    }

    #[test]
    fn r2t_logout_async_and_reject_end_where_the_rfc_says() {
        let Header::R2t(r2t) = both_ways(
            "31 80 0000 00 000000  0000000000000000  00000001 00000002 00000003 00000004 00000005
             00000006 00000007 00000008",
        ) else {
            panic!()
        };
        assert_eq!((r2t.r2t_sn.get(), r2t.buffer_offset.get(), r2t.desired_data_transfer_length.get()), (6, 7, 8));
        let Header::LogoutResponse(logout) = both_ways(
            "26 80 01 00 00 000000  0000000000000000  00000001 00000000 00000003 00000004 00000005
             00000000 0002 0014 00000000",
        ) else {
            panic!()
        };
        assert_eq!((logout.response, logout.time2wait.get(), logout.time2retain.get()), (1, 2, 20));
        let Header::AsyncMessage(message) = both_ways(
            "32 80 0000 00 000000  0000000000000000  ffffffff 00000000 00000003 00000004 00000005
             01 02 0003 0004 0005 00000000",
        ) else {
            panic!()
        };
        assert_eq!((message.async_event, message.async_vcode, message.parameter_3.get()), (1, 2, 5));
        let Header::Reject(reject) = both_ways(
            "3f 80 04 00 00 000030  0000000000000000  ffffffff 00000000 00000003 00000004 00000005
             00000006 0000000000000000",
        ) else {
            panic!()
        };
        assert_eq!((reject.reason, reject.data_sn.get()), (RejectReason::ProtocolError as u8, 6));
    }

    #[test]
    fn an_unknown_operation_code_keeps_its_bytes() {
        let mut bytes = [0xA5; LENGTH];
        bytes[0] = 0x1E;
        assert_eq!(Header::parse(&bytes), Header::Unknown(bytes));
    }
}
