//! The JSON of the control socket: what `offhost` asks the target, and what scripts read.
//!
//! HTTP/1.1 on a Unix socket, one resource a noun. Times are milliseconds, sizes bytes, unless a field's name says blocks.
//! An error is `{"error": …, "kind": …}` with a 4xx or 5xx status; [`ErrorKind`] is what programs branch on.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /status` | | [`Status`] |
//! | `POST /snapshots` | [`SnapshotRequest`] | a stream of [`SnapshotEvent`], one JSON value a line, ending with `Made` or `Failed` (with `lease` the connection then stays open) |
//! | `DELETE /snapshots/{id}` | | `{}` |
//! | `POST /imports` | [`ImportRequest`] | [`Imported`]: a cartridge is in an import/export element |
//! | `POST /exports` | [`ExportRequest`] | [`Exported`]: a cartridge is out of the library |
//! | `GET /config` | | [`Configuration`]: what runs |
//! | `GET /config.toml` | | the same as the text of a configuration file |
//! | `POST /changes` | a list of [`spec::Change`] | a list of [`spec::Effect`]; all steps are carried out or none |
//! | `POST /reload` | | a list of [`spec::Effect`]: what differed from the file |
//! | `POST /save` | | [`Saved`] |
//! | `GET /movers`, `PUT /movers` | [`MoverSettings`] | [`MoverSettings`], which hold at once |
//! | `GET /metrics` | | counters as text for Prometheus |

pub mod spec;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cartridge::layout::Layout;
use crate::mover::ByMethod;
use crate::units::{ByteRange, Lba};

/// Asks for a static view of a disk LUN, or of several at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// iSCSI name of the target whose LUNs are meant; may be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// LUN numbers of disks.
    pub luns: Vec<u16>,
    /// Blocks of the LUN the view covers (first LBA, block count); the whole LUN when absent. Only with one LUN.
    #[serde(default)]
    pub range: Option<(Lba, u64)>,
    /// How long no write may be in flight or end before the view is taken; 0 takes it at once.
    #[serde(default = "default_quiet_ms")]
    pub quiet_ms: u64,
    /// When to give up.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// The view lives only while the answer's connection is open: it goes when whoever asked dies. Otherwise it stays until
    /// `DELETE` or the target's end.
    #[serde(default)]
    pub lease: bool,
}

/// The quiet period users get when they say nothing.
pub const QUIET_MS: u64 = 3_000;
/// How long a quiet period is waited for when users say nothing.
pub const TIMEOUT_MS: u64 = 80_000;

fn default_quiet_ms() -> u64 {
    QUIET_MS
}

fn default_timeout_ms() -> u64 {
    TIMEOUT_MS
}

/// What happens while a snapshot is waited for and made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum SnapshotEvent {
    /// Still waiting; said about twice a second, and at once when a write starts the timer over.
    Waiting {
        /// Since the request.
        waited_ms: u64,
        /// Since the last write ended; 0 while one is in flight.
        quiet_for_ms: u64,
        /// Writes seen since the request.
        writes_seen: u64,
    },
    /// The view exists and is served.
    Made {
        /// One per LUN asked for, in the order asked.
        snapshots: Vec<Snapshot>,
    },
    /// Nothing was made, and nothing changed.
    Failed {
        /// Why, for programs.
        kind: ErrorKind,
        /// Why, for people.
        error: String,
    },
}

/// Which changer is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfChanger {
    /// iSCSI name of its target; may be left out where there is only one changer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its LUN; may be left out where there is only one changer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<u16>,
}

/// Puts a cartridge into an import/export element, as an operator does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    /// Where.
    #[serde(flatten)]
    pub of: OfChanger,
    /// What.
    #[serde(flatten)]
    pub what: ImportWhat,
}

/// What is imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportWhat {
    /// The folder of a cartridge, which is moved into the library's.
    Cartridge(PathBuf),
    /// A new cartridge.
    New {
        /// Its label: 1 to 32 capital letters and digits.
        barcode: String,
        /// In bytes; that of an LTO-8 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capacity: Option<u64>,
        /// Its generation, `LTO-5` to `LTO-9`; LTO-8 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        density: Option<String>,
        /// What is written on it cannot be overwritten.
        #[serde(default)]
        worm: bool,
        /// Where the data of records lies in its image.
        #[serde(default)]
        layout: Layout,
    },
}

/// Where the cartridge is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// As in [`CartridgeStatus::place`].
    pub place: String,
}

/// Takes a cartridge out of an import/export element, as an operator does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// From where.
    #[serde(flatten)]
    pub of: OfChanger,
    /// Which cartridge.
    pub barcode: String,
    /// Where its folder goes; to `exported` in the library's folder when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<PathBuf>,
}

/// Where the cartridge's folder is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The folder.
    pub folder: PathBuf,
}

/// Why a request failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The disk was never quiet for long enough within the timeout.
    NeverQuiet,
    /// The hold could not finish in time.
    HoldTooLong,
    /// No such LUN, snapshot or device of the kind.
    NotFound,
    /// The request makes no sense.
    Invalid,
    /// The view lost its truth: the copy store was full or failed.
    SnapshotFailed,
    /// Something else on our side.
    Internal,
}

/// A live static view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Names it for `DELETE`.
    pub id: u64,
    /// iSCSI name of the target.
    pub target: String,
    /// The LUN it is a view of.
    pub of_lun: u16,
    /// The LUN under which the view is served, read-only.
    pub lun: u16,
    /// Bytes of the source LUN it covers.
    pub range: ByteRange,
    /// Block length of both.
    pub block_length: u32,
    /// Wall clock of the moment it shows, milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// From the request to the moment.
    pub waited_ms: u64,
    /// The quiet period that preceded it.
    pub quiet_for_ms: u64,
    /// How long writes were held, microseconds.
    pub held_us: u64,
    /// False once the copy store failed: reads of it fail.
    pub live: bool,
    /// Bytes saved by copy on write so far.
    pub copied_bytes: u64,
}

/// A view that a session has of a disk whose `xcopy_view` is `lease`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// iSCSI name of the target.
    pub target: String,
    /// The disk.
    pub lun: u16,
    /// iSCSI name of the initiator.
    pub initiator: String,
    /// Wall clock of the moment it shows, milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// Copies that read it now.
    pub copies: u64,
    /// Bytes saved by copy on write so far.
    pub copied_bytes: u64,
    /// False once the copy store failed: copies fail until the lease ends.
    pub live: bool,
}

/// Everything the target tells about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Crate version.
    pub version: String,
    /// iSCSI name of the first target; empty when there is none.
    pub target: String,
    /// First address listened on; empty when there is none.
    pub portal: String,
    /// All targets, by name.
    pub targets: Vec<TargetStatus>,
    /// All portals.
    pub portals: Vec<PortalStatus>,
    /// Connections that are open, logged in or not.
    #[serde(default)]
    pub connections: u64,
    /// What all sessions hold of their initiators' data.
    #[serde(default)]
    pub memory: SessionMemory,
    /// LUNs by target and number.
    pub luns: Vec<LunStatus>,
    /// Sessions that live, and those that ended (kept by initiator name, summed).
    pub sessions: Vec<SessionStatus>,
    /// Snapshots that live.
    pub snapshots: Vec<Snapshot>,
    /// Leases of views.
    #[serde(default)]
    pub leases: Vec<LeaseStatus>,
    /// Copy jobs that run and the last that ended.
    pub copies: CopyStatus,
    /// Mover processes.
    pub movers: Vec<MoverStatus>,
}

/// What sessions hold for commands, in bytes: data asked for, read, and on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionMemory {
    /// Above this each session has one reading and one writing command carried out at a time.
    pub limit: u64,
    /// Now.
    pub held: u64,
    /// The most since the target started.
    pub most: u64,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// iSCSI name.
    pub name: String,
    /// Sessions that are logged in.
    pub sessions: u64,
    /// LUNs, snapshots among them.
    pub luns: u64,
}

/// One portal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortalStatus {
    /// Address listened on, with the port that it was given.
    pub listen: SocketAddr,
    /// What discovery tells instead.
    pub advertise: Option<String>,
    /// Target portal group tag.
    pub tag: u16,
}

/// One LUN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LunStatus {
    /// iSCSI name of its target.
    pub target: String,
    /// Number.
    pub lun: u16,
    /// `disk`, `tape`, `changer`, `snapshot`.
    pub kind: String,
    /// Bytes; on a tape its capacity.
    pub size: u64,
    /// Disk only.
    pub block_length: Option<u32>,
    /// The file, folder or device behind it.
    pub backing: String,
    /// NAA designator as hexadecimal digits.
    pub naa: String,
    /// Tape only: logical object number, tape file number and bytes used.
    pub tape: Option<TapeStatus>,
    /// Disk only: microseconds since the last write ended; absent if none did.
    pub quiet_for_ms: Option<u64>,
    /// Changer only: what is where in its library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<LibraryStatus>,
}

/// What a changer's library has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryStatus {
    /// Data transfer elements.
    pub drives: u16,
    /// Storage elements.
    pub slots: u16,
    /// Import/export elements.
    pub mail: u16,
    /// Cartridges, in the order of their element addresses.
    pub cartridges: Vec<CartridgeStatus>,
    /// What its arm has done.
    #[serde(default)]
    pub moves: LibraryMoves,
}

/// What the arm of a library has done since the target started, by whoever asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LibraryMoves {
    /// Cartridges moved; an exchange moves two.
    pub done: u64,
    /// Moves that the places or a drive in use did not allow.
    pub refused: u64,
    /// Moves that a drive, a cartridge or the record made fail.
    pub failed: u64,
}

/// Where a cartridge of a library is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartridgeStatus {
    /// Barcode.
    pub barcode: String,
    /// `slot 1`, `drive 1`, `mail 1`: counted from 1, as the programs for changers do.
    pub place: String,
    /// ELEMENT ADDRESS of that place.
    pub element: u16,
}

/// What a drive knows of its cartridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TapeStatus {
    /// False when no cartridge is loaded.
    pub loaded: bool,
    /// Barcode.
    pub barcode: String,
    /// Logical object number of the position.
    pub object: u64,
    /// Filemarks before the position.
    pub file: u64,
    /// Objects on the medium.
    pub objects: u64,
    /// Bytes of the image.
    pub used: u64,
    /// Said aloud when the image was opened: a torn tail that was cut, an index that was rebuilt.
    pub notes: Vec<String>,
    /// Records on the cartridge whose sums are still to come: they were placed by reference.
    #[serde(default)]
    pub without_sums: WithoutSums,
    /// What the drive has done.
    #[serde(default)]
    pub totals: TapeTotals,
}

/// Records without sums. The target takes these in the background; VERIFY takes them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WithoutSums {
    /// How many.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What a drive has done since the target started, by commands: what a copy moves is counted with the copies. LOG SELECT does not
/// reset it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TapeTotals {
    /// Cartridges loaded.
    pub loads: u64,
    /// Records written.
    pub records_written: u64,
    /// Records read.
    pub records_read: u64,
    /// Bytes of the records written, uncompressed.
    pub bytes_written: u64,
    /// Bytes of the records read, uncompressed.
    pub bytes_read: u64,
    /// Filemarks written.
    pub filemarks_written: u64,
    /// Writes that failed for good.
    pub write_errors: u64,
    /// Reads that failed for good.
    pub read_errors: u64,
    /// Records whose sums were taken from the medium, since they had none.
    #[serde(default)]
    pub sums_taken: u64,
    /// Bytes of these.
    #[serde(default)]
    pub sum_bytes: u64,
}

impl TapeTotals {
    /// Nothing yet.
    pub const NONE: Self = Self {
        loads: 0,
        records_written: 0,
        records_read: 0,
        bytes_written: 0,
        bytes_read: 0,
        filemarks_written: 0,
        write_errors: 0,
        read_errors: 0,
        sums_taken: 0,
        sum_bytes: 0,
    };
}

/// Counters of one I_T nexus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// iSCSI name.
    pub initiator: String,
    /// Logged in now.
    pub live: bool,
    /// Sessions summed in this row.
    pub sessions: u64,
    /// Those of them that are logged in now.
    #[serde(default)]
    pub live_sessions: u64,
    /// SCSI commands.
    pub commands: u64,
    /// EXTENDED COPY commands among them.
    pub extended_copies: u64,
    /// Bytes of Data-Out and immediate data: from the initiator.
    pub data_out: u64,
    /// Bytes of Data-In: to the initiator.
    pub data_in: u64,
}

/// Copies since the target started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CopyStatus {
    /// Jobs that run.
    pub running: u64,
    /// Jobs that ended well.
    pub done: u64,
    /// Jobs that did not.
    pub failed: u64,
    /// Segments carried out.
    pub segments: u64,
    /// Payload bytes that movers wrote.
    pub bytes_moved: u64,
    /// The same bytes by how they got to their place.
    #[serde(default)]
    pub bytes_by_method: ByMethod,
}

/// One mover process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoverStatus {
    /// Process id; 0 for one on another host.
    pub pid: u32,
    /// What a mover on another host calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// A job runs on it.
    pub busy: bool,
    /// Jobs it ended.
    pub jobs: u64,
    /// Payload bytes it wrote.
    pub bytes_moved: u64,
    /// Bytes read by it, on-demand copies included.
    pub bytes_read: u64,
    /// Bytes of memory that it has at this moment.
    #[serde(default)]
    pub memory: u64,
    /// Bytes of memory that it takes at most.
    #[serde(default)]
    pub memory_limit: u64,
}

/// How many movers, and how fast: `GET` and `PUT /movers`. Holds from the moment it is set, for copies that run too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MoverSettings {
    /// Processes, 1 to [`MoverSettings::MOST`].
    pub movers: u8,
    /// Bytes a second that each of them writes at most; as many as go when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Bytes a second that each job writes at most; as many as go when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_bytes_per_second: Option<u64>,
    /// What the input and output of movers has in the place of a list's PRIORITY: 1 is as important as other programs, up to 7 less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}

impl MoverSettings {
    /// Whether the numbers can be.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        let zero = [self.bytes_per_second, self.job_bytes_per_second].contains(&Some(0));
        if self.movers == 0 || self.movers > Self::MOST || zero {
            return Err(format!("1 to {} movers, and rates above 0", Self::MOST));
        }
        if self.priority.is_some_and(|priority| priority > Self::PRIORITY_MOST) {
            return Err(format!("priority is 0 to {}", Self::PRIORITY_MOST));
        }
        Ok(())
    }
}

impl MoverSettings {
    /// More processes than this help nobody.
    pub const MOST: u8 = 16;
    /// The least important PRIORITY.
    pub const PRIORITY_MOST: u8 = 7;
}

impl Default for MoverSettings {
    fn default() -> Self {
        Self { movers: 1, bytes_per_second: None, job_bytes_per_second: None, priority: None }
    }
}

/// What runs. Names the files in which secrets lie, and none of the secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// How much at a time.
    pub limits: spec::LimitsSpec,
    /// Discovery sessions.
    pub discovery: spec::DiscoverySpec,
    /// Logical units of other targets that copies may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remotes: Vec<spec::RemoteSpec>,
    /// Where it listens, as it was given.
    pub portals: Vec<spec::PortalSpec>,
    /// What is served.
    pub targets: Vec<spec::TargetSpec>,
}

/// The configuration was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The file.
    pub path: PathBuf,
}

/// Body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub kind: ErrorKind,
    /// For people.
    pub error: String,
}
