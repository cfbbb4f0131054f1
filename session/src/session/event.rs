//! What a session tells its application.

use crate::error::SessionError;
use crate::exchange::CommandId;
use crate::message::Received;
use crate::name::Name;
use crate::reliable::{Delivery, PublishId};

/// Who a member is and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its full name.
    pub name: Name,
    /// Whether it is online as far as we know.
    pub online: bool,
}

/// What an application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The session can be used.
    Established,
    /// [`crate::Session::recv`] has something.
    Readable,
    /// A publish is settled.
    Published(PublishId, Delivery),
    /// A command is settled.
    Done(CommandId, Result<(), SessionError>),
    /// Somebody is in the session now.
    Joined(Name),
    /// Somebody is not in the session any more.
    Left(Name),
    /// Nothing was heard of a member for a while, or it said goodbye for now.
    Offline(Name),
    /// It is back.
    Online(Name),
    /// The send window has room again.
    Writable,
    /// The session ended.
    Closed(SessionError),
}

/// One thing [`crate::Session::recv`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Message(Received),
    /// Messages that will not come: the sender no longer has them, or does not answer.
    Lost {
        /// Whose.
        source: Name,
        /// How many.
        count: u32,
    },
}
