//! Sequential access device. SSC-4.

use std::sync::Arc;

use crate::task::{Execution, Task};

/// A tape LUN.
#[derive(Debug)]
pub struct Tape {}

impl Tape {
    /// Begins a command; never blocks.
    #[must_use]
    pub fn start(self: Arc<Self>, _task: Task) -> Execution {
        todo!()
    }
}
