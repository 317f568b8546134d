//! Text of keys through the parser alone, in one piece and cut over PDUs, and each value through what its key may have.
//!
//! Input: the text; its first two bytes say where it is cut as well.

use protocol::iscsi::keys::{KEYS, Setting};
use protocol::iscsi::text;

use super::Input;

/// One input.
pub fn fuzz(data: &[u8]) {
    gathered(data);
    let Ok(pairs) = text::parse(data) else { return };
    for pair in pairs {
        for spec in KEYS {
            if let Some(value) = spec.parse(pair.value) {
                assert_eq!(spec.parse(&spec.format(value)), Some(value), "{} is written and not read", spec.name);
            }
            let _ = spec.settle(pair.value, Setting(spec.default));
        }
    }
}

/// The same text over two PDUs is the same text.
fn gathered(data: &[u8]) {
    let cut = usize::from(Input(data).short()) % (data.len() + 1);
    let mut gather = text::Gather::default();
    assert!(!matches!(gather.add(&data[..cut], true), Ok(Some(_))), "more was announced");
    if let Ok(whole) = gather.add(&data[cut..], false) {
        assert_eq!(whole.as_deref(), Some(data));
    }
}
