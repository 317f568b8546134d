//! Facts as text: sense data in words, bytes as hexadecimal, rates and times as people read them.

use protocol::scsi::{Sense, Status};

/// The standard's name of a status. SAM-5, "Status codes".
#[must_use]
pub const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Good => "GOOD",
        Status::CheckCondition => "CHECK CONDITION",
        Status::ConditionMet => "CONDITION MET",
        Status::Busy => "BUSY",
        Status::ReservationConflict => "RESERVATION CONFLICT",
        Status::TaskSetFull => "TASK SET FULL",
        Status::AcaActive => "ACA ACTIVE",
        Status::TaskAborted => "TASK ABORTED",
    }
}

/// One line: `ILLEGAL REQUEST 24h/00h INVALID FIELD IN CDB, at CDB byte 1 bit 3`.
#[must_use]
pub fn sense_line(sense: &Sense) -> String {
    sense.to_string()
}

/// Bytes as `0000: 00 01 02 …`, sixteen a line, at most `lines` lines.
#[must_use]
pub fn hex_dump(bytes: &[u8], lines: usize) -> String {
    let mut text = String::new();
    for (row, line) in bytes.chunks(16).take(lines).enumerate() {
        text.push_str(&format!("{:04x}:", row * 16));
        for byte in line {
            text.push_str(&format!(" {byte:02x}"));
        }
        text.push('\n');
    }
    let hidden = bytes.len().saturating_sub(lines * 16);
    if hidden > 0 {
        text.push_str(&format!("… and {hidden} bytes more\n"));
    }
    text
}

/// `1536` as `1.5 KiB`.
#[must_use]
pub fn bytes_short(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10) as usize;
    let value = bytes as f64 / 1024f64.powi(power as i32);
    format!("{value:.1} {}", UNITS[power - 1])
}

/// Text for an XML attribute or element: markup escaped, control characters that XML 1.0 cannot hold replaced.
#[must_use]
pub fn xml_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_a_dump_says_what_it_hides() {
        assert_eq!(bytes_short(1023), "1023 B");
        assert_eq!(bytes_short(1536), "1.5 KiB");
        assert_eq!(bytes_short(u64::MAX), "16.0 EiB");
        assert_eq!(hex_dump(&[0xAB; 18], 1), format!("0000:{}\n… and 2 bytes more\n", " ab".repeat(16)));
    }

    #[test]
    fn markup_does_not_reach_the_report() {
        assert_eq!(xml_escape("a<b & \"c\"\u{1}"), "a&lt;b &amp; &quot;c&quot;\u{FFFD}");
    }
}
