//! The messages themselves, and faults as data.

use serde::{Deserialize, Serialize};

use super::job::{CopyJob, EndIndex};
use super::remote::RemoteSense;
use crate::cartridge::TapePosition;
use crate::cartridge::report::TapeReport;
use crate::scsi::sense::CopyEnd;
use crate::units::ByteRange;

/// Names a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

/// From the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMover {
    /// First message.
    Hello {
        /// [`super::VERSION`].
        version: u32,
    },
    /// Begin. So many files travel beside this message.
    Job {
        /// What to do.
        job: CopyJob,
        /// Files beside it.
        files: u16,
    },
    /// To the one question of the job that is open.
    Answer {
        /// The job.
        job: JobId,
        /// What it is told.
        answer: Answer,
    },
    /// From now on so many bytes are written a second, by one job or by all of them together; absent: as many as go.
    Throttle {
        /// The job; absent: the mover.
        job: Option<JobId>,
        /// Bytes a second.
        bytes_per_second: Option<u64>,
    },
    /// Stop at the next transfer. `Done` follows, and until then it may still write.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// Say something.
    Ping,
}

/// From a mover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromMover {
    /// First message.
    Hello {
        /// [`super::VERSION`].
        version: u32,
        /// Most bytes of buffers a job takes here.
        buffer_limit: u64,
        /// Most bytes of memory the process takes.
        memory_limit: u64,
    },
    /// Waits for an answer; a job asks one question at a time.
    Ask {
        /// The job.
        job: JobId,
        /// What it wants to do.
        question: Question,
    },
    /// A granted range is written and will not be touched again.
    GiveBack {
        /// The job.
        job: JobId,
        /// The disk.
        end: EndIndex,
    },
    /// What became of a tape.
    Tape {
        /// The job.
        job: JobId,
        /// The tape.
        end: EndIndex,
        /// As it stands now.
        report: TapeReport,
    },
    /// Data that was processed for the application client; once before `Done` where a segment had such.
    Held {
        /// The job.
        job: JobId,
        /// The last of it.
        data: Vec<u8>,
        /// There was more.
        discarded: bool,
    },
    /// Sent now and then, and once before `Done`.
    Progress {
        /// The job.
        job: JobId,
        /// Number of the segment that is being written.
        segment: u32,
        /// Bytes read from copy sources so far.
        read: u64,
        /// Bytes written to copy destinations so far.
        written: ByMethod,
    },
    /// The job has ended and touches nothing any more.
    Done {
        /// The job.
        job: JobId,
        /// How.
        outcome: Outcome,
    },
    /// To a `Ping`.
    Pong,
}

/// Bytes that copy destinations took, by how they got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByMethod {
    /// The destination refers to the source's blocks (FICLONERANGE); none of them moved.
    pub reference: u64,
    /// Copied inside the kernel (copy_file_range). A file system may have made references of these too.
    pub kernel: u64,
    /// Read into buffers and written from them.
    pub buffers: u64,
    /// Holes of the source that are holes of the destination.
    pub holes: u64,
}

impl ByMethod {
    /// Bytes by whichever method. Saturating: the numbers may come from another process.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.reference.saturating_add(self.kernel).saturating_add(self.buffers).saturating_add(self.holes)
    }

    /// With its name, one after the other.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 4] {
        [("reference", self.reference), ("kernel", self.kernel), ("buffers", self.buffers), ("holes", self.holes)]
    }

    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            reference: of(self.reference, other.reference),
            kernel: of(self.kernel, other.kernel),
            buffers: of(self.buffers, other.buffers),
            holes: of(self.holes, other.holes),
        }
    }

    /// What came since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.each(earlier, u64::saturating_sub)
    }
}

impl std::ops::AddAssign for ByMethod {
    fn add_assign(&mut self, more: Self) {
        *self = self.each(more, u64::saturating_add);
    }
}

/// What a job has to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// To write bytes of a disk, at most [`super::MAX_GRANT`] of them. The job holds one grant an end: asking gives the last back.
    Grant {
        /// The disk.
        end: EndIndex,
        /// Bytes of the end.
        range: ByteRange,
    },
    /// To append to a tape that stands at `at`: what lies behind it is cut away.
    Append {
        /// The tape.
        end: EndIndex,
        /// Where the tape stands.
        at: TapePosition,
    },
    /// Whether an [`super::Action::Ask`] may be passed: all segments before it are done.
    Segment {
        /// Its number.
        segment: u32,
    },
    /// To send commands in a session that the job has logged in itself. What has not been granted this has changed nothing there, and
    /// of what has, the target knows which session to end.
    Session {
        /// The remote end.
        end: EndIndex,
        /// Under which it logged in.
        initiator_name: String,
    },
}

/// What a job is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Go ahead.
    Granted,
    /// Append: the tape's data ends now where it stands. Its image is the one file that travels beside this message: one that was
    /// overwritten from its beginning may be another than came beside the job.
    Append,
    /// Not allowed, or not possible: an errno.
    Refused {
        /// As `std::io::Error::raw_os_error`.
        errno: i32,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All segments.
    Copied {
        /// Residue of the last segment was dropped, as CAT or PAD told.
        dropped: bool,
    },
    /// A segment could not be completed.
    Fault(Fault),
    /// As asked.
    Cancelled,
}

/// Why and where a segment ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Number of the segment.
    pub segment: u32,
    /// Which side; absent when it is the segment's own.
    pub side: Option<CopyEnd>,
    /// What happened.
    pub kind: FaultKind,
    /// Bytes this segment would have written.
    pub expected: u64,
    /// Bytes of it that the copy destination took.
    pub written: u64,
}

/// What can happen to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// Residue that neither CAT nor PAD allow.
    Inexact,
    /// A null logical unit would have to be read or written.
    Null,
    /// A record is not as long as the read. In records where the transfer is fixed, else in bytes.
    IncorrectLength {
        /// Requested minus actual; negative when the record is longer.
        residual: i64,
    },
    /// A filemark where data was wanted.
    Filemark {
        /// Requested minus actual, as above.
        residual: i64,
    },
    /// The end of the data.
    EndOfData {
        /// Requested minus actual, as above.
        residual: i64,
    },
    /// The beginning of the partition, by spacing backwards.
    BeginningOfPartition {
        /// Requested minus actual.
        residual: i64,
    },
    /// The write that ended with this was done; the medium is nearly full.
    EarlyWarning,
    /// The medium is full.
    EndOfPartition {
        /// Requested minus actual, as above.
        residual: i64,
    },
    /// The cartridge is write-protected.
    WriteProtected,
    /// The image has no whole object here.
    Torn,
    /// A record's data is not what was written: its CRC32C differs from the index's.
    WrongSum,
    /// A record is encrypted, and a mover has no keys.
    Encrypted,
    /// A static view lost its truth.
    ViewLost,
    /// Blocks behind the end's last.
    OutOfRange,
    /// A read failed: errno.
    Read(i32),
    /// A write or a synchronization failed: errno.
    Write(i32),
    /// The target did not let it be written: errno.
    Refused(i32),
    /// A remote logical unit ended a command with this.
    Remote {
        /// SCSI status code.
        status: u8,
        /// Its sense data.
        sense: RemoteSense,
    },
    /// A remote logical unit gave fewer bytes than it said it would.
    Underrun,
    /// The session with a remote target ended, or could not be had. What was under way may have been done or not.
    SessionLost,
    /// The job makes no sense: a defect of ours.
    BadJob,
}
