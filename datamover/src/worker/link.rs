//! What a job needs from the target while it runs.

use std::fs::File;

use protocol::cartridge::report::TapeReport;
use protocol::mover::{ByMethod, EndIndex, FaultKind, Question};

/// Questions that wait for an answer, and reports that do not. In the process a socket, in tests a target in memory.
pub trait Link: Send + Sync {
    /// Blocks until the target has answered; [`Question::Append`] with the tape's image as it is from then on.
    ///
    /// # Errors
    /// [`FaultKind::Refused`]; also when the job was cancelled while it waited.
    fn ask(&self, question: Question) -> Result<Option<File>, FaultKind>;

    /// The range granted last on this disk will not be touched again.
    fn give_back(&self, end: EndIndex);

    /// What became of a tape.
    fn tape(&self, end: EndIndex, report: TapeReport);

    /// What was processed for the application client too, the last of it; `discarded` when there was more.
    fn held(&self, data: Vec<u8>, discarded: bool);

    /// How far it is: the segment that is being written, bytes read, bytes written.
    fn progress(&self, segment: u32, read: u64, written: ByMethod);
}
