//! Metrics in the text format of Prometheus: what is counted where, and how it is told.
//!
//! | module | what |
//! |---|---|
//! | `usage` | counters of a logical unit |
//!
//! Told at `GET /metrics` on the control socket, and over TCP where an address is given. Base units; labels from fixed lists and from
//! the configuration only. PDUs by operation code are not counted. Follows the exposition format 0.0.4.

pub mod usage;

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::control::Status;
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
            _ => 0,
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
    /// Connections that are open.
    pub connections: u64,
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
    tapes(&mut out, facts.status);
    out.0
}

fn server(out: &mut Out, facts: &Facts<'_>) {
    let status = facts.status;
    out.family("offhost_build_info", "gauge", "Version of the target.");
    out.sample("offhost_build_info", &[("version", &status.version)], 1);
    out.family("iscsi_target_sessions", "gauge", "Sessions that are logged in.");
    for target in &status.targets {
        out.sample("iscsi_target_sessions", &[("target", &target.name)], target.sessions);
    }
    out.family("iscsi_target_connections", "gauge", "Connections that are open, logged in or not.");
    out.sample("iscsi_target_connections", &[], facts.connections);
    out.family("iscsi_target_connection_memory_max_bytes", "gauge", "What one connection can make the target hold at most.");
    out.sample("iscsi_target_connection_memory_max_bytes", &[], net::most_held_by_connection());
    out.family("iscsi_target_session_memory_max_bytes", "gauge", "What one session can, beside its connections.");
    out.sample("iscsi_target_session_memory_max_bytes", &[], net::most_held_by_session());
    out.family("iscsi_target_logins_total", "counter", "Logins by their result.");
    for (result, count) in [("accepted", &facts.logins.accepted), ("refused", &facts.logins.refused)] {
        out.sample("iscsi_target_logins_total", &[("result", &result)], count.load(Ordering::Relaxed));
    }
    out.family("iscsi_target_digest_errors_total", "counter", "Connections ended by a digest that did not fit.");
    out.sample("iscsi_target_digest_errors_total", &[], facts.logins.digest_errors.load(Ordering::Relaxed));
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
    out.family("scsi_bytes_total", "counter", "Bytes to initiators (in) and from them (out).");
    for LunUsage { target, lun, total } in luns {
        out.sample("scsi_bytes_total", &[("target", target), ("lun", lun), ("dir", &"in")], total.data_in);
        out.sample("scsi_bytes_total", &[("target", target), ("lun", lun), ("dir", &"out")], total.data_out);
    }
    out.family("reservation_conflicts_total", "counter", "Commands that a reservation kept out.");
    for LunUsage { target, lun, total } in luns {
        let conflicts: u64 = total.commands.iter().map(|row| row[Outcome::ReservationConflict as usize]).sum();
        out.sample("reservation_conflicts_total", &[("target", target), ("lun", lun)], conflicts);
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
}

fn tapes(out: &mut Out, status: &Status) {
    let tapes: Vec<_> = status.luns.iter().filter_map(|lun| Some((lun, lun.tape.as_ref()?))).collect();
    out.family("tape_position_blocks", "gauge", "Logical object number of the position.");
    for (lun, tape) in &tapes {
        out.sample("tape_position_blocks", &[("target", &lun.target), ("lun", &lun.lun)], tape.object);
    }
    out.family("tape_used_bytes", "gauge", "Bytes on the cartridge.");
    for (lun, tape) in &tapes {
        out.sample("tape_used_bytes", &[("target", &lun.target), ("lun", &lun.lun)], tape.used);
    }
}

/// Writes lines.
struct Out(String);

impl Out {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}
