//! Writes whose data is written as it comes: between the session, which has the data, and the logical unit, which writes it.
//!
//! Such a command has its place in the task set from its first piece on, and else is nowhere under way: it is written by the session's
//! own task, between two reads of the socket. What of its data is not taken comes with the command. Does not know what a piece is.

use std::sync::atomic::Ordering;

use protocol::iscsi::Arriving;
use tokio_util::sync::CancellationToken;

use super::commands::attribute;
use super::connection::Connection;
use crate::lun::Device;
use crate::lun::common::Place;
use crate::lun::disk::StreamedWrite;
use crate::task::Task;

/// A command of which something is written.
pub(super) struct Stream {
    pub device: Device,
    pub place: Place,
    pub write: StreamedWrite,
}

impl Connection {
    /// Writes what has come of a command's data, if it is one that is written so.
    pub(super) fn write_arrived(&mut self, tag: u32) {
        let Some(arriving) = self.session.arriving(tag) else { return };
        let open = self.streams.remove(&tag).or_else(|| self.open_stream(tag, &arriving));
        let (Some(mut stream), Some(handle)) = (open, &self.handle) else { return };
        let session = &mut self.session;
        stream.write.write(arriving.held.into(), |len| {
            handle.nexus.counters.data_out.fetch_add(len, Ordering::Relaxed);
            session.take_data_out(tag, u32::try_from(len).unwrap_or(u32::MAX))
        });
        if !stream.write.is_untouched() {
            self.streams.insert(tag, stream);
        }
    }

    /// `None` for a command that is to be carried out with all its data, as one that has to wait for others.
    fn open_stream(&self, tag: u32, arriving: &Arriving) -> Option<Stream> {
        let nexus = &self.handle.as_ref()?.nexus;
        let device = nexus.luns.get(arriving.lun)?;
        let task = Task {
            nexus: nexus.clone(),
            lun: arriving.lun,
            tag,
            attribute: attribute(arriving.attribute),
            cdb: arriving.cdb,
            data_out: Vec::new(),
            data_in_limit: 0,
            in_place: false,
            abort: CancellationToken::new(),
        };
        let attribute = task.attribute;
        let write = device.stream(task, arriving.expected.into())?;
        let place = device.common().task_set.enter(attribute, || Box::new(|| ()));
        place.may_begin().then_some(Stream { device, place, write })
    }
}
