//! The shapes of what is kept. Fields are added under new numbers, never reused: an older store stays readable.

use std::collections::BTreeMap;

use prost::Message;
use slimline_wire::pb;

use super::StoreError;

/// Key of the identity's record.
pub(crate) const IDENTITY: &[u8] = b"i";
/// Key of the application's record.
pub(crate) const APP: &[u8] = b"a";
/// First octet of every key of a session.
pub(crate) const SESSION: u8 = b's';

pub(crate) fn decode<M: Message + Default>(octets: &[u8], what: &'static str) -> Result<M, StoreError> {
    M::decode(octets).map_err(|_| StoreError::Record(what))
}

/// One commit of the log.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Commit {
    #[prost(message, repeated, tag = "1")]
    pub(crate) puts: Vec<Put>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) deletes: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Put {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Identity {
    #[prost(string, tag = "1")]
    pub(crate) subject: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) private_key: Vec<u8>,
    #[prost(bool, tag = "3")]
    pub(crate) ed25519: bool,
}

/// The names the application listens on.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct App {
    #[prost(message, repeated, tag = "1")]
    pub(crate) names: Vec<pb::Name>,
}

/// What a session is and where it stands; payloads and MLS state have records of their own.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Session {
    #[prost(int32, tag = "1")]
    pub(crate) session_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) reliable: Option<Retries>,
    #[prost(bool, tag = "3")]
    pub(crate) mls: bool,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[prost(message, optional, tag = "5")]
    pub(crate) local: Option<pb::Name>,
    #[prost(message, optional, tag = "6")]
    pub(crate) remote: Option<pb::Name>,
    #[prost(message, optional, tag = "7")]
    pub(crate) control: Option<pb::Name>,
    #[prost(message, optional, tag = "8")]
    pub(crate) moderator: Option<Moderator>,
    #[prost(bool, tag = "9")]
    pub(crate) sends: bool,
    #[prost(bool, tag = "10")]
    pub(crate) receives: bool,
    #[prost(uint32, tag = "11")]
    pub(crate) phase: u32,
    #[prost(uint32, tag = "12")]
    pub(crate) welcome_id: u32,
    #[prost(message, repeated, tag = "13")]
    pub(crate) roster: Vec<Member>,
    #[prost(uint32, tag = "14")]
    pub(crate) commit_id: u32,
    #[prost(message, repeated, tag = "15")]
    pub(crate) early: Vec<Early>,
    #[prost(bytes = "vec", optional, tag = "16")]
    pub(crate) package: Option<Vec<u8>>,
    #[prost(message, optional, tag = "17")]
    pub(crate) send: Option<SendWindow>,
    #[prost(message, repeated, tag = "18")]
    pub(crate) receive: Vec<ReceiveWindow>,
    #[prost(message, repeated, tag = "19")]
    pub(crate) alone: Vec<Heard>,
    #[prost(message, repeated, tag = "20")]
    pub(crate) tasks: Vec<Task>,
    #[prost(message, optional, tag = "21")]
    pub(crate) active: Option<Exchange>,
    #[prost(uint64, tag = "22")]
    pub(crate) commands: u64,
    #[prost(uint64, tag = "23")]
    pub(crate) publishes: u64,
    #[prost(bool, tag = "24")]
    pub(crate) subscribed: bool,
    #[prost(bool, tag = "25")]
    pub(crate) unannounced: bool,
    #[prost(message, optional, tag = "26")]
    pub(crate) group: Option<Group>,
    #[prost(uint32, tag = "27")]
    pub(crate) returned: u32,
    #[prost(uint32, tag = "28")]
    pub(crate) listed: u32,
    #[prost(uint32, optional, tag = "29")]
    pub(crate) began: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Retries {
    #[prost(uint64, tag = "1")]
    pub(crate) interval_us: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) max: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Moderator {
    #[prost(message, optional, tag = "1")]
    pub(crate) name: Option<pb::Name>,
    #[prost(string, tag = "2")]
    pub(crate) subject: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Member {
    #[prost(message, optional, tag = "1")]
    pub(crate) participant: Option<pb::Participant>,
    #[prost(bool, tag = "2")]
    pub(crate) joined: bool,
    #[prost(string, optional, tag = "3")]
    pub(crate) subject: Option<String>,
    #[prost(bool, tag = "4")]
    pub(crate) from_start: bool,
    #[prost(uint64, tag = "5")]
    pub(crate) came_in: u64,
    /// Not in stores of before: 1 then.
    #[prost(uint32, optional, tag = "6")]
    pub(crate) since: Option<u32>,
    /// The stay of a member whose ids are apart from those of its other stays.
    #[prost(uint32, optional, tag = "7")]
    pub(crate) stream: Option<u32>,
    /// The stay of another, by the list that brought it.
    #[prost(uint32, optional, tag = "8")]
    pub(crate) came_by: Option<u32>,
    #[prost(uint32, optional, tag = "9")]
    pub(crate) heard_to: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Early {
    #[prost(uint32, tag = "1")]
    pub(crate) commit_id: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) update: Option<pb::GroupUpdatePayload>,
    #[prost(message, optional, tag = "3")]
    pub(crate) heard: Option<Heard>,
}

/// A message, by who sent it and its id.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Heard {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<pb::Name>,
    #[prost(uint32, tag = "2")]
    pub(crate) id: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SendWindow {
    #[prost(uint32, tag = "1")]
    pub(crate) next: u32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) stored: Vec<Sent>,
}

/// A published message, without what it says.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sent {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) publish: u64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) waiting: Vec<pb::Name>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) outcomes: Vec<Outcome>,
    #[prost(bool, tag = "5")]
    pub(crate) under_way: bool,
    #[prost(uint32, tag = "6")]
    pub(crate) left: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Outcome {
    #[prost(message, optional, tag = "1")]
    pub(crate) recipient: Option<pb::Name>,
    #[prost(uint32, tag = "2")]
    pub(crate) outcome: u32,
}

/// What was said, by us or to us.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Said {
    #[prost(string, tag = "1")]
    pub(crate) payload_type: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) metadata: BTreeMap<String, String>,
    /// By us, to one member alone.
    #[prost(message, optional, tag = "4")]
    pub(crate) to: Option<pb::Name>,
    #[prost(message, optional, tag = "5")]
    pub(crate) source: Option<pb::Name>,
    #[prost(message, optional, tag = "6")]
    pub(crate) destination: Option<pb::Name>,
    #[prost(string, optional, tag = "7")]
    pub(crate) subject: Option<String>,
    #[prost(bool, tag = "8")]
    pub(crate) to_us_alone: bool,
    /// Not a message: so many of `source` were lost.
    #[prost(uint32, tag = "9")]
    pub(crate) lost: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReceiveWindow {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<pb::Name>,
    #[prost(uint32, optional, tag = "2")]
    pub(crate) next: Option<u32>,
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) held: Vec<u32>,
    /// Held places whose message was lost.
    #[prost(uint32, repeated, tag = "4")]
    pub(crate) lost: Vec<u32>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) missing: Vec<Missing>,
    #[prost(uint32, optional, tag = "6")]
    pub(crate) far: Option<u32>,
    #[prost(uint32, repeated, tag = "7")]
    pub(crate) before: Vec<u32>,
    #[prost(uint32, optional, tag = "8")]
    pub(crate) first: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Missing {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) left: u32,
}

/// An answer that was given, for when the request comes again.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(crate) request: Option<Heard>,
    #[prost(message, optional, tag = "2")]
    pub(crate) draft: Option<Draft>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Draft {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) source: Option<pb::Name>,
    #[prost(message, optional, tag = "3")]
    pub(crate) destination: Option<pb::Name>,
    #[prost(uint32, tag = "4")]
    pub(crate) fanout: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) message_id: u32,
    #[prost(message, optional, tag = "6")]
    pub(crate) content: Option<pb::Content>,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[prost(bool, tag = "8")]
    pub(crate) error: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Task {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) command: Option<u64>,
    #[prost(uint32, tag = "2")]
    pub(crate) kind: u32,
    #[prost(message, optional, tag = "3")]
    pub(crate) name: Option<pb::Name>,
    #[prost(bool, tag = "4")]
    pub(crate) flag: bool,
    #[prost(uint32, tag = "5")]
    pub(crate) request_id: u32,
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) package: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exchange {
    #[prost(message, optional, tag = "1")]
    pub(crate) task: Option<Task>,
    #[prost(uint32, tag = "2")]
    pub(crate) stage: u32,
    #[prost(message, optional, tag = "3")]
    pub(crate) direct: Option<Draft>,
    #[prost(message, optional, tag = "4")]
    pub(crate) update: Option<Draft>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) waiting: Vec<pb::Name>,
    #[prost(uint32, repeated, tag = "6")]
    pub(crate) direct_ids: Vec<u32>,
    #[prost(uint32, repeated, tag = "7")]
    pub(crate) update_ids: Vec<u32>,
    #[prost(uint32, optional, tag = "8")]
    pub(crate) answers: Option<u32>,
    #[prost(uint32, tag = "9")]
    pub(crate) left: u32,
}

/// What of a group openmls does not keep.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Group {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(crate) id: Option<Vec<u8>>,
    // 2 was when our own leaf ends, which its token says too.
    #[prost(message, repeated, tag = "3")]
    pub(crate) admitted: Vec<Admitted>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Admitted {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) credential: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) subject: String,
    #[prost(uint64, tag = "3")]
    pub(crate) expires: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) issued: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) epoch: u64,
}
