//! Metrics in the text format of Prometheus: what is counted where, and how it is told.
//!
//! | module | what |
//! |---|---|
//! | `usage` | counters of a logical unit |
//!
//! Told at `GET /metrics` on the control socket, and over TCP where an address is given. Base units; labels from fixed lists and from
//! the configuration only. PDUs by operation code are not counted. All names begin with `offhost_`; a counter's ends with `_total`, and
//! one with a unit names it. Follows the exposition format 0.0.4.

pub mod usage;

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::control::{Status, TapeStatus, TapeTotals};
use protocol::iscsi::ProtocolError;
use protocol::iscsi::pdu::FrameError;

use crate::net;
use usage::{BUCKETS_US, Op, Outcome, Total};

/// Media type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the server counts of connections.
#[derive(Debug, Default)]
pub struct Logins {
    /// Logins that succeeded, discovery among them.
    pub accepted: AtomicU64,
    /// Connections that ended without one for another reason than that the peer went away.
    pub refused: AtomicU64,
    /// Connections that a digest ended, or that a bad digest was counted on.
    pub digest_errors: AtomicU64,
    /// Connections that their peer's conduct ended behind the login, other than by a digest.
    pub protocol_errors: AtomicU64,
}

impl Logins {
    /// A login succeeded.
    pub fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended by what its peer did.
    pub fn count_end(&self, error: &ProtocolError) {
        match error {
            ProtocolError::Login(_) | ProtocolError::LoginTimeout(_) => self.refused.fetch_add(1, Ordering::Relaxed),
            ProtocolError::Frame(FrameError::HeaderDigest(_) | FrameError::DataDigest { .. }) => {
                self.digest_errors.fetch_add(1, Ordering::Relaxed)
            }
            _ => self.protocol_errors.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// A logical unit's place and counters.
#[derive(Debug)]
pub struct LunUsage {
    /// iSCSI name of the target.
    pub target: String,
    /// Number.
    pub lun: u16,
    /// What it has done.
    pub total: Total,
}

/// Everything that is told.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What the target says of itself.
    pub status: &'a Status,
    /// See [`Logins`].
    pub logins: &'a Logins,
    /// LUNs of all targets.
    pub luns: Vec<LunUsage>,
}

/// The text.
#[must_use]
pub fn text(facts: &Facts<'_>) -> String {
    let mut out = Out(String::with_capacity(16 << 10));
    server(&mut out, facts);
    luns(&mut out, &facts.luns);
    copies(&mut out, facts.status);
    snapshots(&mut out, facts.status);
    tapes(&mut out, facts.status);
    libraries(&mut out, facts.status);
    out.0
}

fn server(out: &mut Out, facts: &Facts<'_>) {
    let status = facts.status;
    out.family("build_info", "gauge", "Version of the target.");
    out.sample("build_info", &[("version", &status.version)], 1);
    out.family("iscsi_target_sessions", "gauge", "Sessions that are logged in.");
    for target in &status.targets {
        out.sample("iscsi_target_sessions", &[("target", &target.name)], target.sessions);
    }
    out.family("iscsi_target_connections", "gauge", "Connections that are open, logged in or not.");
    out.sample("iscsi_target_connections", &[], status.connections);
    out.family("iscsi_target_connection_memory_max_bytes", "gauge", "What one connection can make the target hold at most.");
    out.sample("iscsi_target_connection_memory_max_bytes", &[], net::most_held_by_connection());
    out.family("iscsi_target_session_memory_max_bytes", "gauge", "What one session can, beside its connections.");
    out.sample("iscsi_target_session_memory_max_bytes", &[], net::most_held_by_session());
    for (name, help, bytes) in [
        ("iscsi_target_memory_held_bytes", "What all sessions hold for commands.", status.memory.held),
        ("iscsi_target_memory_limit_bytes", "Above this each session has one command at a time.", status.memory.limit),
    ] {
        out.family(name, "gauge", help);
        out.sample(name, &[], bytes);
    }
    out.family("iscsi_target_logins_total", "counter", "Logins by their result.");
    for (result, count) in [("accepted", &facts.logins.accepted), ("refused", &facts.logins.refused)] {
        out.sample("iscsi_target_logins_total", &[("result", &result)], count.load(Ordering::Relaxed));
    }
    out.family("iscsi_target_errors_total", "counter", "Connections that their peer broke, by what it did.");
    for (kind, count) in [("digest", &facts.logins.digest_errors), ("protocol", &facts.logins.protocol_errors)] {
        out.sample("iscsi_target_errors_total", &[("kind", &kind)], count.load(Ordering::Relaxed));
    }
}

fn luns(out: &mut Out, luns: &[LunUsage]) {
    let pairs = |total: &Total| {
        let rows = Op::ALL
            .iter()
            .zip(total.commands)
            .flat_map(|((_, op), row)| Outcome::ALL.iter().zip(row).map(move |((_, status), count)| (*op, *status, count)));
        rows.filter(|(_, _, count)| *count > 0).collect::<Vec<_>>()
    };
    out.family("scsi_commands_total", "counter", "Commands that were answered.");
    for LunUsage { target, lun, total } in luns {
        for (op, status, count) in pairs(total) {
            out.sample("scsi_commands_total", &[("target", target), ("lun", lun), ("op", &op), ("status", &status)], count);
        }
    }
    out.family("scsi_command_duration_seconds", "histogram", "From the whole command to its status.");
    for lun in luns {
        durations(out, lun);
    }
    out.family("scsi_commands_in_flight", "gauge", "Commands that have begun and have not been answered.");
    for LunUsage { target, lun, total } in luns {
        out.sample("scsi_commands_in_flight", &[("target", target), ("lun", lun)], total.in_flight);
    }
    out.family("scsi_bytes_total", "counter", "Bytes to initiators (in) and from them (out).");
    for LunUsage { target, lun, total } in luns {
        out.sample("scsi_bytes_total", &[("target", target), ("lun", lun), ("dir", &"in")], total.data_in);
        out.sample("scsi_bytes_total", &[("target", target), ("lun", lun), ("dir", &"out")], total.data_out);
    }
    out.family("scsi_reservation_conflicts_total", "counter", "Commands that a reservation kept out.");
    for LunUsage { target, lun, total } in luns {
        let conflicts: u64 = total.commands.iter().map(|row| row[Outcome::ReservationConflict as usize]).sum();
        out.sample("scsi_reservation_conflicts_total", &[("target", target), ("lun", lun)], conflicts);
    }
}

fn durations(out: &mut Out, LunUsage { target, lun, total }: &LunUsage) {
    for (op, label) in Op::ALL {
        let buckets = total.buckets[*op as usize];
        let all: u64 = buckets.iter().sum();
        if all == 0 {
            continue;
        }
        let mut count = 0;
        for (bound, more) in BUCKETS_US.iter().zip(buckets) {
            count += more;
            let le = *bound as f64 / 1e6;
            out.sample(
                "scsi_command_duration_seconds_bucket",
                &[("target", target), ("lun", lun), ("op", label), ("le", &le)],
                count,
            );
        }
        let labels: &[(&str, &dyn Display)] = &[("target", target), ("lun", lun), ("op", label)];
        out.sample("scsi_command_duration_seconds_bucket", &[labels, &[("le", &"+Inf")]].concat(), all);
        out.sample("scsi_command_duration_seconds_sum", labels, total.nanoseconds[*op as usize] as f64 / 1e9);
        out.sample("scsi_command_duration_seconds_count", labels, all);
    }
}

fn copies(out: &mut Out, status: &Status) {
    let copies = &status.copies;
    out.family("xcopy_running", "gauge", "Copies that run.");
    out.sample("xcopy_running", &[], copies.running);
    out.family("xcopy_operations_total", "counter", "Copies that have ended.");
    out.sample("xcopy_operations_total", &[("result", &"done")], copies.done);
    out.sample("xcopy_operations_total", &[("result", &"failed")], copies.failed);
    out.family("xcopy_segments_total", "counter", "Segments carried out.");
    out.sample("xcopy_segments_total", &[], copies.segments);
    out.family("xcopy_bytes_total", "counter", "Bytes that movers wrote, by how they got there.");
    for (method, bytes) in copies.bytes_by_method.named() {
        out.sample("xcopy_bytes_total", &[("method", &method)], bytes);
    }
    out.family("movers", "gauge", "Mover processes by whether a copy runs on them.");
    for (state, busy) in [("busy", true), ("idle", false)] {
        out.sample("movers", &[("state", &state)], status.movers.iter().filter(|mover| mover.busy == busy).count());
    }
}

fn snapshots(out: &mut Out, status: &Status) {
    out.family("snapshots", "gauge", "Snapshots that are served, by whether they still show their moment.");
    for (state, live) in [("live", true), ("failed", false)] {
        out.sample("snapshots", &[("state", &state)], status.snapshots.iter().filter(|one| one.live == live).count());
    }
    out.family("snapshot_copied_bytes", "gauge", "Bytes that writes have made a snapshot keep.");
    for one in &status.snapshots {
        out.sample("snapshot_copied_bytes", &[("target", &one.target), ("lun", &one.lun)], one.copied_bytes);
    }
    out.family("xcopy_leases", "gauge", "Views of disks that are leased to sessions, by whether they still show their moment.");
    for (state, live) in [("live", true), ("failed", false)] {
        out.sample("xcopy_leases", &[("state", &state)], status.leases.iter().filter(|one| one.live == live).count());
    }
    out.family("xcopy_lease_copied_bytes", "gauge", "Bytes that writes have made a leased view keep.");
    for one in &status.leases {
        let labels: [(&str, &dyn Display); 3] = [("target", &one.target), ("lun", &one.lun), ("initiator", &one.initiator)];
        out.sample("xcopy_lease_copied_bytes", &labels, one.copied_bytes);
    }
}

/// Picks one of what a drive has done.
type Counter = fn(&TapeTotals) -> u64;

/// A counter of drives.
struct Counted {
    name: &'static str,
    help: &'static str,
    /// What tells its samples apart, where there are several.
    label: Option<&'static str>,
    samples: &'static [(&'static str, Counter)],
}

const TAPE_TOTALS: &[Counted] = &[
    Counted {
        name: "tape_loads_total",
        help: "Cartridges that were loaded.",
        label: None,
        samples: &[("", |totals| totals.loads)],
    },
    Counted {
        name: "tape_records_total",
        help: "Records to initiators (in) and from them (out).",
        label: Some("dir"),
        samples: &[("in", |totals| totals.records_read), ("out", |totals| totals.records_written)],
    },
    Counted {
        name: "tape_record_bytes_total",
        help: "Bytes of these records, as initiators have them.",
        label: Some("dir"),
        samples: &[("in", |totals| totals.bytes_read), ("out", |totals| totals.bytes_written)],
    },
    Counted {
        name: "tape_filemarks_total",
        help: "Filemarks that were written.",
        label: None,
        samples: &[("", |totals| totals.filemarks_written)],
    },
    Counted {
        name: "tape_errors_total",
        help: "Reads and writes that failed for good.",
        label: Some("op"),
        samples: &[("read", |totals| totals.read_errors), ("write", |totals| totals.write_errors)],
    },
    Counted {
        name: "tape_sums_taken_total",
        help: "Records that had no sums and got them from the medium.",
        label: None,
        samples: &[("", |totals| totals.sums_taken)],
    },
    Counted {
        name: "tape_sum_bytes_total",
        help: "Bytes of these records.",
        label: None,
        samples: &[("", |totals| totals.sum_bytes)],
    },
];

fn tapes(out: &mut Out, status: &Status) {
    let tapes: Vec<_> = status.luns.iter().filter_map(|lun| Some((lun, lun.tape.as_ref()?))).collect();
    let mut family = |name: &str, help: &str, value: &dyn Fn(&TapeStatus) -> u64| {
        out.family(name, "gauge", help);
        for (lun, tape) in &tapes {
            out.sample(name, &[("target", &lun.target), ("lun", &lun.lun)], value(tape));
        }
    };
    family("tape_loaded", "1 where a cartridge is in the drive.", &|tape| tape.loaded.into());
    family("tape_position_blocks", "Logical object number of the position.", &|tape| tape.object);
    family("tape_used_bytes", "Bytes on the cartridge.", &|tape| tape.used);
    family("tape_records_without_sums", "Records whose sums are still to come.", &|tape| tape.without_sums.records);
    family("tape_bytes_without_sums", "Bytes of these records.", &|tape| tape.without_sums.bytes);
    for counted in TAPE_TOTALS {
        out.family(counted.name, "counter", counted.help);
        for (lun, tape) in &tapes {
            for (word, value) in counted.samples {
                let place: [(&str, &dyn Display); 2] = [("target", &lun.target), ("lun", &lun.lun)];
                let labels = place.into_iter().chain(counted.label.map(|label| (label, word as &dyn Display)));
                out.sample(counted.name, &labels.collect::<Vec<_>>(), value(&tape.totals));
            }
        }
    }
}

fn libraries(out: &mut Out, status: &Status) {
    let libraries: Vec<_> = status.luns.iter().filter_map(|lun| Some((lun, lun.library.as_ref()?))).collect();
    out.family("library_elements", "gauge", "Places of a library by their kind.");
    for (lun, library) in &libraries {
        for (kind, count) in [("drive", library.drives), ("slot", library.slots), ("mail", library.mail)] {
            out.sample("library_elements", &[("target", &lun.target), ("lun", &lun.lun), ("kind", &kind)], count);
        }
    }
    out.family("library_moves_total", "counter", "Cartridges moved, and moves that were not done, by their result.");
    for (lun, library) in &libraries {
        let moves = library.moves;
        for (result, count) in [("done", moves.done), ("refused", moves.refused), ("failed", moves.failed)] {
            out.sample("library_moves_total", &[("target", &lun.target), ("lun", &lun.lun), ("result", &result)], count);
        }
    }
    out.family("library_cartridges", "gauge", "Cartridges of a library by the kind of their place.");
    for (lun, library) in &libraries {
        for kind in ["drive", "slot", "mail"] {
            let count = library.cartridges.iter().filter(|one| one.place.starts_with(kind)).count();
            out.sample("library_cartridges", &[("target", &lun.target), ("lun", &lun.lun), ("kind", &kind)], count);
        }
    }
}

/// Stands before the names of all families.
const PREFIX: &str = "offhost_";

/// Writes lines.
struct Out(String);

impl Out {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.0.push_str(PREFIX);
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}
