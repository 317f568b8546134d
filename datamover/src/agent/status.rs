//! `offhost status` for people: what is served, who uses it, and what moves.
//!
//! `--json` gives the same facts as [`protocol::control::Status`] has them. Asks nobody.

use std::io::{self, Write};

use protocol::control::{LeaseStatus, LunStatus, SessionMemory, Snapshot, Status, WithoutSums};

use super::list;
use super::ui::human;

/// All of it.
///
/// # Errors
/// Those of the output.
pub fn print(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "offhost-target {}, {} open", status.version, counted(status.connections, "connection"))?;
    let SessionMemory { limit, held, most } = status.memory;
    writeln!(out, "sessions hold {} of {}, at most {} so far", human(held), human(limit), human(most))?;
    for portal in &status.portals {
        let told = portal.advertise.as_ref().map(|told| format!(", told as {told}")).unwrap_or_default();
        writeln!(out, "portal {}, group {}{told}", portal.listen, portal.tag)?;
    }
    for target in &status.targets {
        let (sessions, luns) = (counted(target.sessions, "session"), counted(target.luns, "LUN"));
        writeln!(out, "target {}: {sessions}, {luns}", target.name)?;
    }
    writeln!(out)?;
    print_luns(status, out)?;
    print_sessions(status, out)?;
    if !status.snapshots.is_empty() {
        writeln!(out)?;
        print_snapshots(&status.snapshots, out)?;
    }
    print_leases(&status.leases, out)?;
    print_copies(status, out)
}

fn print_luns(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let several = status.targets.len() > 1;
    let mut luns = list::plain(&["LUN", "kind", "size", "behind it", "state"]);
    for lun in &status.luns {
        let number = if several { format!("{} {}", lun.target, lun.lun) } else { lun.lun.to_string() };
        luns.add_row([number, lun.kind.clone(), human(lun.size), lun.backing.clone(), state(lun)]);
    }
    writeln!(out, "{luns}")?;
    for lun in &status.luns {
        for note in lun.tape.iter().flat_map(|tape| &tape.notes) {
            writeln!(out, "LUN {} of {}: {note}", lun.lun, lun.target)?;
        }
    }
    Ok(())
}

fn state(lun: &LunStatus) -> String {
    match (&lun.tape, &lun.library, lun.quiet_for_ms) {
        (Some(tape), ..) if tape.loaded => {
            let to_come = match tape.without_sums {
                WithoutSums { records: 0, .. } => String::new(),
                WithoutSums { records, bytes } => {
                    format!("; the sums of {} ({}) are still to come", counted(records, "record"), human(bytes))
                }
            };
            format!("{}: object {} of {}, {} used{to_come}", tape.barcode, tape.object, tape.objects, human(tape.used))
        }
        (Some(_), ..) => "empty".to_owned(),
        (None, Some(library), _) => {
            let (count, slots) = (library.cartridges.len(), library.slots);
            format!("{count} cartridges, {slots} slots, {} drives, {} mail", library.drives, library.mail)
        }
        (None, None, Some(quiet)) => format!("quiet for {:.1} s", quiet as f64 / 1000.0),
        (None, None, None) => String::new(),
    }
}

/// By initiator, a line each.
fn print_sessions(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let mut sessions = list::plain(&["initiator", "sessions", "now", "commands", "of them copies", "from it", "to it"]);
    for one in &status.sessions {
        sessions.add_row([
            one.initiator.clone(),
            one.sessions.to_string(),
            one.live_sessions.to_string(),
            one.commands.to_string(),
            one.extended_copies.to_string(),
            human(one.data_out),
            human(one.data_in),
        ]);
    }
    writeln!(out, "\n{sessions}")
}

/// Snapshots, a line each.
///
/// # Errors
/// As [`print`].
pub fn print_snapshots(snapshots: &[Snapshot], out: &mut dyn Write) -> io::Result<()> {
    let mut table = list::plain(&["id", "of LUN", "as LUN", "taken", "held ms", "copied", "state"]);
    for one in snapshots {
        table.add_row([
            one.id.to_string(),
            one.of_lun.to_string(),
            one.lun.to_string(),
            list::when(one.taken_unix_ms),
            format!("{:.3}", one.held_us as f64 / 1000.0),
            human(one.copied_bytes),
            live(one.live),
        ]);
    }
    writeln!(out, "{table}")
}

/// Views that are leased, a line each.
fn print_leases(leases: &[LeaseStatus], out: &mut dyn Write) -> io::Result<()> {
    if leases.is_empty() {
        return Ok(());
    }
    let mut table = list::plain(&["leased to", "of LUN", "taken", "copies now", "copied", "state"]);
    for one in leases {
        table.add_row([
            one.initiator.clone(),
            one.lun.to_string(),
            list::when(one.taken_unix_ms),
            one.copies.to_string(),
            human(one.copied_bytes),
            live(one.live),
        ]);
    }
    writeln!(out, "\n{table}")
}

/// Whether a view still shows its moment.
fn live(live: bool) -> String {
    if live { "live" } else { "FAILED" }.to_owned()
}

fn print_copies(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let copies = &status.copies;
    let ended = format!("{} running, {} done, {} failed", copies.running, copies.done, copies.failed);
    writeln!(out, "\ncopies: {ended}; {} segments, {} moved", copies.segments, human(copies.bytes_moved))?;
    let methods = copies.bytes_by_method.named().into_iter().filter(|(_, bytes)| *bytes > 0);
    let methods: Vec<_> = methods.map(|(method, bytes)| format!("{} {method}", human(bytes))).collect();
    if !methods.is_empty() {
        writeln!(out, "  moved by: {}", methods.join(", "))?;
    }
    for mover in &status.movers {
        let state = if mover.busy { "busy" } else { "idle" };
        writeln!(out, "mover {}: {state}, {} jobs, {} moved", mover.pid, mover.jobs, human(mover.bytes_moved))?;
    }
    Ok(())
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
