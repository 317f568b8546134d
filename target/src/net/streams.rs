//! Writes whose data is written as it comes: between the session, which has the data, and the logical unit, which writes it.
//!
//! Such a command has its place in the task set from its first piece on, and else is nowhere under way: it is written by the session's
//! own task, between two reads of the socket. What of its data is not taken comes with the command. Does not know what a piece is.

use std::sync::atomic::Ordering;

use protocol::iscsi::Arriving;
use protocol::scsi::Status;
use tokio_util::sync::CancellationToken;

use super::commands::attribute;
use super::connection::Connection;
use super::hops::Job;
use super::management::Message;
use crate::lun::Device;
use crate::lun::common::Place;
use crate::lun::disk::StreamedWrite;
use crate::task::{Response, Task};

/// A command that may be written as its data comes.
pub(super) struct Stream {
    pub device: Device,
    pub write: StreamedWrite,
    /// From its first piece on.
    pub place: Option<Place>,
}

impl Connection {
    /// Writes what has come of a command's data, if it is one that is written so.
    pub(super) fn write_arrived(&mut self, tag: u32) {
        let Some(arriving) = self.session.arriving(tag) else { return };
        let Some(mut stream) = self.streams.remove(&tag).or_else(|| self.open_stream(tag, &arriving)) else {
            // It never will be: a look at every piece of it would only cost time.
            return self.session.keep_data_out(tag);
        };
        self.write_piece(tag, &mut stream, arriving.held.into());
        if let Some(work) = stream.write.work_ahead() {
            self.work_ahead(tag, work);
        }
        self.streams.insert(tag, stream);
    }

    /// What a write in pieces waited for is done.
    pub(super) fn write_on(&mut self, tag: u32) {
        // Not one that has the tag now and may not begin before its data has come.
        if self.streams.contains_key(&tag) {
            self.write_arrived(tag);
        }
    }

    fn write_piece(&mut self, tag: u32, stream: &mut Stream, held: u64) {
        let Some(handle) = &self.handle else { return };
        let enter = |device: &Device| device.common().task_set.enter(stream.write.attribute(), || Box::new(|| ()));
        let place = stream.place.take().unwrap_or_else(|| enter(&stream.device));
        if !place.may_begin() {
            return;
        }
        let session = &mut self.session;
        stream.write.write(held, |len| {
            handle.nexus.counters.data_out.fetch_add(len, Ordering::Relaxed);
            session.take_data_out(tag, u32::try_from(len).unwrap_or(u32::MAX))
        });
        stream.place = (!stream.write.is_untouched()).then_some(place);
    }

    /// Does what has to be done on a thread that may block before the next piece can be written, which is tried again then.
    fn work_ahead(&mut self, tag: u32, work: impl FnOnce() + Send + 'static) {
        let sender = self.sender.clone();
        let work = Box::new(move || {
            work();
            let _ = sender.send(Message::Writable(tag));
            Response::status(Status::Good)
        });
        // No command: nobody looks for its end.
        let run = self.next_run;
        self.next_run += 1;
        self.hops.start(vec![Job { run, abort: CancellationToken::new(), work }]);
    }

    /// `None` for a command that is to be carried out with all its data.
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
        let write = device.stream(task, arriving.expected.into())?;
        Some(Stream { device, write, place: None })
    }
}
