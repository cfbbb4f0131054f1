//! Every field number of `dataplane.proto.v1`, in one table.
//!
//! Source: slim-wire §2; compared with `proto/dataplane.proto` by `tests/message_fields.rs`.

use crate::proto::{key, wire_type};

/// A field as messages are read: how its value is laid out, and what is inside.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Integers, booleans, enums (open: any number is accepted).
    Varint,
    /// UTF-8, at most once.
    Text,
    /// Any octets, at most once.
    Bytes,
    /// One nested message.
    One(&'static Schema),
    /// Any number of nested messages.
    Many(&'static Schema),
}

/// One protobuf message: its name and its fields, numbered from 1 without a gap.
#[derive(Debug)]
pub struct Schema {
    /// As in the .proto.
    pub name: &'static str,
    /// Field `index + 1`.
    pub fields: &'static [Kind],
    /// All fields are members of one oneof.
    pub is_choice: bool,
}

impl Schema {
    const fn new(name: &'static str, fields: &'static [Kind]) -> Self {
        assert!(fields.len() < 32, "the checker keeps a bit for each field");
        Self { name, fields, is_choice: false }
    }

    const fn choice(name: &'static str, fields: &'static [Kind]) -> Self {
        assert!(fields.len() < 32, "the checker keeps a bit for each field");
        Self { name, fields, is_choice: true }
    }
}

use Kind::{Bytes, Many, One, Text, Varint};

/// A 128-bit id in two halves.
pub static NAME_ID: Schema = Schema::new("NameId", &[Varint, Varint]);
/// Three hashes and an id.
pub static ENCODED_NAME: Schema = Schema::new("EncodedName", &[Varint, Varint, Varint, One(&NAME_ID)]);
/// The three components as text.
pub static STRING_NAME: Schema = Schema::new("StringName", &[Text, Text, Text]);
/// A name in both forms.
pub static NAME: Schema = Schema::new("Name", &[One(&ENCODED_NAME), One(&STRING_NAME)]);
/// Type, message type, session id, message id.
pub static SESSION_HEADER: Schema = Schema::new("SessionHeader", &[Varint; 4]);
/// One entry of a message's metadata.
pub static METADATA_ENTRY: Schema = Schema::new("MetadataEntry", &[Text, Text]);

/// What a publish carries. A node checks its form and reads nothing of it.
pub static CONTENT: Schema = Schema::choice("Content", &[One(&APPLICATION), One(&COMMAND)]);
static APPLICATION: Schema = Schema::new("ApplicationPayload", &[Text, Bytes]);
static COMMAND: Schema = Schema::choice(
    "CommandPayload",
    &[
        One(&DISCOVERY_REQUEST),
        One(&DISCOVERY_REPLY),
        One(&JOIN_REQUEST),
        One(&JOIN_REPLY),
        One(&LEAVE_REQUEST),
        One(&LEAVE_REPLY),
        One(&GROUP_UPDATE),
        One(&GROUP_WELCOME),
        One(&GROUP_CLOSE),
        One(&GROUP_PROPOSAL),
        One(&GROUP_ACK),
        One(&GROUP_NACK),
        One(&HEARTBEAT),
        One(&UPDATE_PARTICIPANT_STATE),
        One(&REJOIN_REQUEST),
        One(&REJOIN_REPLY),
    ],
);
static DISCOVERY_REQUEST: Schema = Schema::new("DiscoveryRequestPayload", &[]);
static DISCOVERY_REPLY: Schema = Schema::new("DiscoveryReplyPayload", &[]);
static JOIN_REQUEST: Schema =
    Schema::new("JoinRequestPayload", &[One(&TIMER_SETTINGS), One(&NAME), One(&NAME), One(&MLS_SETTINGS)]);
static TIMER_SETTINGS: Schema = Schema::new("TimerSettings", &[Varint, Varint]);
static MLS_SETTINGS: Schema = Schema::new("MlsSettings", &[Varint]);
static JOIN_REPLY: Schema = Schema::new("JoinReplyPayload", &[Bytes, One(&PARTICIPANT)]);
static LEAVE_REQUEST: Schema = Schema::new("LeaveRequestPayload", &[]);
static LEAVE_REPLY: Schema = Schema::new("LeaveReplyPayload", &[]);
static PARTICIPANT: Schema = Schema::new("Participant", &[One(&NAME), One(&PARTICIPANT_SETTINGS), Varint]);
static PARTICIPANT_SETTINGS: Schema = Schema::new("ParticipantSettings", &[Varint, Varint]);
static MLS: Schema = Schema::new("MlsPayload", &[Varint, Bytes]);
static GROUP_UPDATE: Schema =
    Schema::new("GroupUpdatePayload", &[Varint, One(&PARTICIPANT), Many(&PARTICIPANT), One(&MLS)]);
static GROUP_WELCOME: Schema = Schema::new("GroupWelcomePayload", &[Many(&PARTICIPANT), One(&MLS)]);
static GROUP_CLOSE: Schema = Schema::new("GroupClosePayload", &[Many(&NAME)]);
static GROUP_PROPOSAL: Schema = Schema::new("GroupProposalPayload", &[One(&NAME), Bytes]);
static GROUP_ACK: Schema = Schema::new("GroupAckPayload", &[]);
static GROUP_NACK: Schema = Schema::new("GroupNackPayload", &[]);
static HEARTBEAT: Schema = Schema::new("HeartbeatPayload", &[Varint]);
static UPDATE_PARTICIPANT_STATE: Schema = Schema::new("UpdateParticipantStatePayload", &[One(&NAME), Varint, Varint]);
static REJOIN_REQUEST: Schema = Schema::new("RejoinRequestPayload", &[One(&NAME), Bytes]);
static REJOIN_REPLY: Schema = Schema::new("RejoinReplyPayload", &[Varint, Bytes]);

/// What [`super::parse`] reads field by field, as schemas for those who make messages up.
#[cfg(any(test, feature = "testing"))]
mod read {
    use super::*;

    /// SLIMHeader.
    pub static HEADER: Schema = Schema::new(
        "SLIMHeader",
        &[One(&NAME), One(&NAME), Text, Varint, Text, Varint, Varint, Varint, Varint, Varint, Bytes, Bytes],
    );
    /// Subscribe.
    pub static SUBSCRIBE: Schema = Schema::new("Subscribe", &[One(&HEADER), Varint]);
    /// Unsubscribe.
    pub static UNSUBSCRIBE: Schema = Schema::new("Unsubscribe", &[One(&HEADER), Varint]);
    /// Publish.
    pub static PUBLISH: Schema = Schema::new("Publish", &[One(&HEADER), One(&SESSION_HEADER), One(&CONTENT)]);
    /// SubscriptionAck.
    pub static SUBSCRIPTION_ACK: Schema = Schema::new("SubscriptionAck", &[Varint, Varint, Text]);
    /// LinkNegotiationPayload.
    pub static LINK_NEGOTIATION: Schema =
        Schema::new("LinkNegotiationPayload", &[Text, Text, Varint, Bytes, Varint, Text, Text, Bytes]);
    /// Link.
    pub static LINK: Schema = Schema::choice("Link", &[One(&LINK_NEGOTIATION)]);
}
#[cfg(any(test, feature = "testing"))]
pub use read::{HEADER, LINK, LINK_NEGOTIATION, PUBLISH, SUBSCRIBE, SUBSCRIPTION_ACK, UNSUBSCRIBE};

/// Numbers of `Message`.
pub mod message {
    /// Subscribe.
    pub const SUBSCRIBE: u32 = 1;
    /// Unsubscribe.
    pub const UNSUBSCRIBE: u32 = 2;
    /// Publish.
    pub const PUBLISH: u32 = 3;
    /// `map<string, string>`, outside the oneof.
    pub const METADATA: u32 = 4;
    /// Link.
    pub const LINK: u32 = 5;
    /// SubscriptionAck.
    pub const SUBSCRIPTION_ACK: u32 = 6;
}

/// Numbers of `Subscribe`, `Unsubscribe` and `Publish`.
pub mod body {
    /// SLIMHeader, in all three.
    pub const HEADER: u32 = 1;
    /// In `Subscribe` and `Unsubscribe`.
    pub const SUBSCRIPTION_ID: u32 = 2;
    /// SessionHeader, in `Publish`.
    pub const SESSION: u32 = 2;
    /// Content, in `Publish`.
    pub const CONTENT: u32 = 3;
}

/// Numbers of `SLIMHeader`.
pub mod header {
    /// Name.
    pub const SOURCE: u32 = 1;
    /// Name.
    pub const DESTINATION: u32 = 2;
    /// string
    pub const IDENTITY: u32 = 3;
    /// uint32
    pub const FANOUT: u32 = 4;
    /// string
    pub const VERSION: u32 = 5;
    /// uint32
    pub const TTL: u32 = 6;
    /// optional uint64
    pub const RECV_FROM: u32 = 7;
    /// optional uint64
    pub const FORWARD_TO: u32 = 8;
    /// optional uint64
    pub const INCOMING_CONN: u32 = 9;
    /// optional bool
    pub const ERROR: u32 = 10;
    /// optional bytes
    pub const HEADER_MAC: u32 = 11;
    /// optional bytes
    pub const E2E_HEADER_SIG: u32 = 12;
    /// The highest number above.
    pub const LAST: u32 = E2E_HEADER_SIG;
}

/// Numbers of `Name`, `EncodedName`, `NameId` and `StringName`.
pub mod name {
    /// EncodedName.
    pub const ENCODED: u32 = 1;
    /// StringName.
    pub const TEXT: u32 = 2;
    /// EncodedName's id; its components are 1 to 3, as are StringName's.
    pub const ID: u32 = 4;
    /// NameId's high half.
    pub const ID_HIGH: u32 = 1;
    /// NameId's low half.
    pub const ID_LOW: u32 = 2;
}

/// Numbers of `SubscriptionAck`.
pub mod ack {
    /// uint64
    pub const SUBSCRIPTION_ID: u32 = 1;
    /// bool
    pub const SUCCESS: u32 = 2;
    /// string
    pub const ERROR: u32 = 3;
}

/// Numbers of `Link` and `LinkNegotiationPayload`.
pub mod link {
    /// The one member of `Link`.
    pub const NEGOTIATION: u32 = 1;
    /// string
    pub const LINK_ID: u32 = 1;
    /// string
    pub const SLIM_VERSION: u32 = 2;
    /// bool
    pub const IS_REPLY: u32 = 3;
    /// bytes
    pub const ECDH_PUBLIC_KEY: u32 = 4;
    /// enum LinkConnectionType
    pub const CONNECTION_TYPE: u32 = 5;
    /// string
    pub const NODE_ID: u32 = 6;
    /// string
    pub const DEPLOYMENT_NAME: u32 = 7;
    /// optional bytes
    pub const KEM_PAYLOAD: u32 = 8;
    /// The highest number above.
    pub const LAST: u32 = KEM_PAYLOAD;
}

/// The key of a varint field.
pub(crate) const fn varint(number: u32) -> u32 {
    key(number, wire_type::VARINT)
}

/// The key of a string, bytes or message field.
pub(crate) const fn length(number: u32) -> u32 {
    key(number, wire_type::LENGTH)
}
