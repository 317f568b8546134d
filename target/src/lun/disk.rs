//! Direct access block device. SBC-4.

use std::sync::Arc;

use crate::task::{Execution, Task};

/// A disk LUN.
#[derive(Debug)]
pub struct Disk {}

impl Disk {
    /// Begins a command; never blocks.
    #[must_use]
    pub fn start(self: Arc<Self>, _task: Task) -> Execution {
        todo!()
    }
}
