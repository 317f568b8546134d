//! How a connection joins a session: it logs in as a session of its own, and is then handed to the one that it names.
//!
//! Who may join is the caller's decision. Keys that count for the whole session are those of its leading login. Follows RFC 7143
//! (6.3.1), (6.3.4).

use super::super::super::Parameters;
use super::super::super::login::{LoggedIn, LoginStatus};
use super::super::{ConnectionId, Link, Session};
use super::{Answer, Target};

/// A connection whose login is done but for the last answer.
#[derive(Debug)]
pub struct Joining {
    link: Link<Target>,
    answer: Answer,
    logged_in: LoggedIn,
}

impl Joining {
    /// What its login is about.
    #[must_use]
    pub fn logged_in(&self) -> &LoggedIn {
        &self.logged_in
    }
}

impl Session<Target> {
    /// The connection that asked to join another session.
    ///
    /// # Errors
    /// Nobody asked.
    pub fn into_joining(mut self) -> Result<Joining, Box<Self>> {
        match self.links.first().lane.joining.take() {
            Some(joining) => {
                let (answer, logged_in) = *joining;
                Ok(Joining { link: self.links.all.remove(0), answer, logged_in })
            }
            None => Err(Box::new(self)),
        }
    }

    /// CID of the connection that asks to join another session.
    #[must_use]
    pub fn asked_cid(&self) -> Option<u16> {
        self.links.all.iter().find_map(|link| link.lane.joining.as_ref()).map(|joining| joining.1.cid)
    }

    /// Ends a login that asked to join, with this status.
    pub fn refuse(&mut self, status: LoginStatus) {
        let on = self.links.first().id;
        let Some(joining) = self.links.first().lane.joining.take() else { return };
        let (mut answer, _) = *joining;
        answer.header.flags = 0;
        (answer.header.status_class, answer.header.status_detail) = (status.class, status.detail);
        answer.text.clear();
        self.role.send_login_answer(&mut self.links, on, answer);
        self.links.first().closing = true;
    }

    /// Takes a connection in, and gives its number in this session. One with the same CID must have been taken out before: see
    /// [`Session::with_cid`].
    pub fn join(&mut self, joining: Joining) -> ConnectionId {
        let Joining { mut link, answer, logged_in } = joining;
        let id = ConnectionId(self.role.next_connection);
        self.role.next_connection = self.role.next_connection.wrapping_add(1);
        self.role.joined = true;
        let own = logged_in.parameters;
        let parameters = Parameters {
            digests: own.digests,
            max_recv_data_segment_length: own.max_recv_data_segment_length,
            max_send_data_segment_length: own.max_send_data_segment_length,
            ..*self.parameters()
        };
        link.id = id;
        self.links.all.push(link);
        self.role.send_login_answer(&mut self.links, id, answer);
        self.links[id].begin(&logged_in, parameters);
        id
    }

    /// The connection with this CID.
    #[must_use]
    pub fn with_cid(&self, cid: u16) -> Option<ConnectionId> {
        self.links.all.iter().find(|link| link.lane.cid == cid).map(|link| link.id)
    }

    /// CID of a connection.
    #[must_use]
    pub fn cid(&self, connection: ConnectionId) -> Option<u16> {
        self.links.all.iter().find(|link| link.id == connection).map(|link| link.lane.cid)
    }

    /// True while there may be one more connection, not counting the one with this CID.
    #[must_use]
    pub fn has_room_for(&self, cid: u16) -> bool {
        let others = self.links.all.iter().filter(|link| link.lane.cid != cid).count();
        others < usize::from(self.parameters().max_connections)
    }
}
