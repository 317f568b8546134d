//! (to be written)
use super::Case;
pub const CASES: &[&[Case]] = &[];
