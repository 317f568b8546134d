//! Sequential access device. SSC-4.

use std::sync::Arc;

use super::common::Common;
use crate::task::{Execution, Task};

/// A tape LUN.
#[derive(Debug)]
pub struct Tape {
    common: Common,
}

impl Tape {
    /// Begins a command; never blocks.
    #[must_use]
    pub fn start(self: &Arc<Self>, _task: Task) -> Execution {
        todo!()
    }

    /// What every logical unit has.
    #[must_use]
    pub fn common(&self) -> &Common {
        &self.common
    }
}
