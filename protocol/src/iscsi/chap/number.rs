//! Binary values as text: hexadecimal behind `0x`, base64 behind `0b`. RFC 7143 (6.1).

/// The bytes of a hex-constant or base64-constant; `None` when it is neither, or comes to more than `limit` bytes.
#[must_use]
pub fn binary_value(text: &str, limit: usize) -> Option<Vec<u8>> {
    let (prefix, digits) = text.split_at_checked(2).filter(|(_, digits)| !digits.is_empty())?;
    match prefix {
        // Half a byte more than the limit cannot be, since an odd digit counts as a whole byte.
        "0x" | "0X" if digits.len().div_ceil(2) <= limit => hexadecimal(digits.as_bytes()),
        "0b" | "0B" if digits.len() / 4 * 3 <= limit + 2 => base64(digits.as_bytes()).filter(|bytes| bytes.len() <= limit),
        _ => None,
    }
}

/// Bytes as a hex-constant.
#[must_use]
pub fn hex_constant(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
    }
    text
}

/// The first of an odd number of digits is a byte of its own.
fn hexadecimal(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let (first, pairs) = digits.split_at(digits.len() % 2);
    let first = first.first().map(|byte| digit(byte).ok_or(())).transpose().ok()?;
    let rest = pairs.chunks_exact(2).map(|pair| Some(digit(&pair[0])? << 4 | digit(&pair[1])?));
    first.map(Some).into_iter().chain(rest).collect()
}

/// RFC 4648 (4): groups of four, the last one filled up with `=`; bits that no byte takes are zero.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let data = match text {
        [data @ .., b'=', b'='] | [data @ .., b'='] => data,
        data => data,
    };
    let mut bytes = Vec::with_capacity(data.len() / 4 * 3 + 2);
    for group in data.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            bits = bits << 6 | sextet(*byte)?;
        }
        bits <<= 6 * (4 - group.len());
        let whole = group.len() * 6 / 8;
        let [_, group_bytes @ ..] = bits.to_be_bytes();
        if group_bytes[whole..].iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(&group_bytes[..whole]);
    }
    Some(bytes)
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Option<Vec<u8>> {
        binary_value(text, 1024)
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(value("0x00fFa5"), Some(vec![0x00, 0xFF, 0xA5]));
        assert_eq!(value("0XABC"), Some(vec![0x0A, 0xBC]), "an odd number of digits");
        // The vectors of RFC 4648 (10).
        for (plain, encoded) in [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(value(&format!("0b{encoded}")), Some(plain.as_bytes().to_vec()));
            assert_eq!(value(&format!("0B{encoded}")), Some(plain.as_bytes().to_vec()));
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "", "0", "0x", "0b", "0x0g", "12", "abcd", "0bZg", "0bZg=", "0bZg===", "0b====", "0bZ===", "0bZh==", "0bZm9=",
            "0bZm9v\n", "ä",
        ] {
            assert_eq!(value(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_limit_counts_decoded_bytes() {
        assert_eq!(binary_value("0x0102", 2), Some(vec![1, 2]));
        assert_eq!(binary_value("0x10102", 2), None);
        assert_eq!(binary_value("0bAQI=", 2), Some(vec![1, 2]));
        assert_eq!(binary_value("0bAQID", 2), None);
        assert_eq!(binary_value(&format!("0b{}", "A".repeat(1 << 20)), 1024), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_or_none(text in ".{0,40}", tail in "0[xXbB][0-9A-Za-z+/=]{0,40}") {
            let _ = value(&text);
            let _ = value(&tail);
        }

        #[test]
        fn what_is_written_is_read(bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            prop_assert_eq!(value(&hex_constant(&bytes)), Some(bytes));
        }
    }
}
