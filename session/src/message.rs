//! Session messages: as they are written, and as they are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use slimline_wire::pb;
use slimline_wire::pb::command_payload::CommandPayloadType as Command;
use slimline_wire::pb::content::ContentType;

pub use slimline_wire::pb::SessionMessageType as Kind;

use crate::error::{IntegrityError, MlsError, SessionError};
use crate::identity::{Binding, Provider, UnixSeconds, Verifier};
use crate::integrity::{self, Verified};
use crate::mls;
use crate::name::Name;
use crate::roster::{ROSTER, STREAM};

/// Hops a message may take.
const TTL: u32 = 8;
/// What a group message says for "everybody".
pub(crate) const FANOUT_ALL: u32 = 256;
/// The version we announce.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Marks a message that was published to one member of a group, and its acknowledgement.
pub(crate) const PUBLISH_TO: &str = "PUBLISH_TO";
/// Marks a LEAVE_REQUEST by which a participant leaves of its own accord.
pub(crate) const LEAVING: &str = "LEAVING_SESSION";
/// Metadata that sessions put there for each other: never an application's.
const INTERNAL_KEYS: [&str; 6] =
    [integrity::PAYLOAD_SIGNATURE_KEY, integrity::PEER_SUBJECT_KEY, PUBLISH_TO, LEAVING, ROSTER, STREAM];
/// What `payload_type` says when the application says nothing.
pub const PAYLOAD_TYPE: &str = "msg";

/// The two clocks a session is driven by.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// For tokens.
    pub unix_s: UnixSeconds,
}

/// Our identity and whom we believe.
#[derive(Clone)]
pub struct Credentials {
    /// Makes our tokens.
    pub provider: Arc<dyn Provider>,
    /// Reads other people's.
    pub verifier: Arc<dyn Verifier>,
    /// How strictly.
    pub binding: Binding,
}

impl Credentials {
    /// One object for both, strict.
    #[must_use]
    pub fn new<I: Provider + Verifier + 'static>(identity: I) -> Self {
        let identity = Arc::new(identity);
        Self { provider: identity.clone(), verifier: identity, binding: Binding::default() }
    }
}

/// What all messages of one session have in common.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) credentials: Credentials,
    pub(crate) session_type: pb::SessionType,
    pub(crate) session_id: u32,
    /// Data leaves encrypted or not at all.
    pub(crate) mls: bool,
}

/// A message before it gets its token and signatures: can be sent again, each time as a new one.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) source: Name,
    pub(crate) destination: Name,
    pub(crate) fanout: u32,
    pub(crate) message_id: u32,
    pub(crate) content: ContentType,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) error: bool,
}

impl Draft {
    pub(crate) fn command(kind: Kind, source: &Name, destination: &Name, message_id: u32, command: Command) -> Self {
        Self {
            kind,
            source: source.clone(),
            destination: destination.clone(),
            fanout: 1,
            message_id,
            content: ContentType::CommandPayload(pb::CommandPayload { command_payload_type: Some(command) }),
            metadata: BTreeMap::new(),
            error: false,
        }
    }

    pub(crate) fn data(
        kind: Kind,
        source: &Name,
        destination: &Name,
        message_id: u32,
        payload_type: &str,
        blob: Vec<u8>,
    ) -> Self {
        Self {
            kind,
            source: source.clone(),
            destination: destination.clone(),
            fanout: 1,
            message_id,
            content: ContentType::AppPayload(pb::ApplicationPayload { payload_type: payload_type.to_owned(), blob }),
            metadata: BTreeMap::new(),
            error: false,
        }
    }

    pub(crate) fn for_all(self) -> Self {
        Self { fanout: FANOUT_ALL, ..self }
    }

    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Gives the message a fresh token, then encrypts data (with a group) or signs control messages.
    pub(crate) fn write(
        self,
        frame: &Frame,
        group: Option<&mut mls::Group>,
        now: UnixSeconds,
    ) -> Result<pb::Message, SessionError> {
        let mut publish = pb::Publish {
            header: Some(pb::SlimHeader {
                source: Some(self.source.to_wire()),
                destination: Some(self.destination.to_wire()),
                identity: frame.credentials.provider.token(now)?,
                fanout: self.fanout,
                version: VERSION.to_owned(),
                ttl: TTL,
                error: self.error.then_some(true),
                ..Default::default()
            }),
            session: Some(pb::SessionHeader {
                session_type: frame.session_type.into(),
                session_message_type: self.kind.into(),
                session_id: frame.session_id,
                message_id: self.message_id,
            }),
            msg: Some(pb::Content { content_type: Some(self.content) }),
        };
        if frame.mls && matches!(self.kind, Kind::Msg | Kind::RtxReply) {
            let group = group.ok_or(MlsError::NoGroup)?;
            let aad = integrity::aad(&publish)?;
            if let Some(ContentType::AppPayload(payload)) =
                publish.msg.as_mut().and_then(|content| content.content_type.as_mut())
            {
                payload.blob = group.seal(&payload.blob, aad)?;
            }
        }
        let mut message =
            pb::Message { metadata: self.metadata, message_type: Some(pb::message::MessageType::Publish(publish)) };
        if integrity::is_control(self.kind) {
            integrity::sign(&mut message, &*frame.credentials.provider)?;
        }
        Ok(message)
    }
}

/// A session message whose shape has been checked; who sent it has not.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) source: Name,
    pub(crate) destination: Name,
    pub(crate) kind: Kind,
    pub(crate) session_type: pb::SessionType,
    pub(crate) session_id: u32,
    pub(crate) message_id: u32,
    pub(crate) error: bool,
    raw: pb::Message,
}

impl Incoming {
    /// Reads a publish.
    ///
    /// Errors: header, session header, names or content missing; unknown kinds.
    pub(crate) fn read(raw: pb::Message) -> Result<Self, IntegrityError> {
        let Some(pb::message::MessageType::Publish(publish)) = &raw.message_type else {
            return Err(IntegrityError::Missing("publish"));
        };
        let header = publish.header.as_ref().ok_or(IntegrityError::Missing("header"))?;
        let session = publish.session.as_ref().ok_or(IntegrityError::Missing("session header"))?;
        let kind = Kind::try_from(session.session_message_type).unwrap_or_default();
        let session_type = pb::SessionType::try_from(session.session_type).unwrap_or_default();
        if kind == Kind::Unspecified || session_type == pb::SessionType::Unspecified {
            return Err(IntegrityError::Missing("a session message type we know"));
        }
        Ok(Self {
            source: Name::from_wire(header.source.as_ref().ok_or(IntegrityError::Missing("source"))?)?,
            destination: Name::from_wire(header.destination.as_ref().ok_or(IntegrityError::Missing("destination"))?)?,
            kind,
            session_type,
            session_id: session.session_id,
            message_id: session.message_id,
            error: header.error.unwrap_or(false),
            raw,
        })
    }

    pub(crate) fn verify(&self, credentials: &Credentials, now: UnixSeconds) -> Result<Verified, IntegrityError> {
        integrity::verify(&self.raw, &*credentials.verifier, credentials.binding, now)
    }

    fn publish(&self) -> Option<&pb::Publish> {
        match &self.raw.message_type {
            Some(pb::message::MessageType::Publish(publish)) => Some(publish),
            _ => None,
        }
    }

    fn content(&self) -> Option<&ContentType> {
        self.publish()?.msg.as_ref()?.content_type.as_ref()
    }

    pub(crate) fn command(&self) -> Result<&Command, IntegrityError> {
        match self.content() {
            Some(ContentType::CommandPayload(payload)) => payload.command_payload_type.as_ref(),
            _ => None,
        }
        .ok_or(IntegrityError::Missing("command payload"))
    }

    pub(crate) fn payload(&self) -> Result<&pb::ApplicationPayload, IntegrityError> {
        match self.content() {
            Some(ContentType::AppPayload(payload)) => Ok(payload),
            _ => Err(IntegrityError::Missing("application payload")),
        }
    }

    pub(crate) fn aad(&self) -> Result<Vec<u8>, IntegrityError> {
        integrity::aad(self.publish().ok_or(IntegrityError::Missing("publish"))?)
    }

    pub(crate) fn says(&self, key: &str) -> bool {
        self.raw.metadata.get(key).is_some_and(|value| value == "TRUE")
    }

    /// What is said under a key beside the message.
    pub(crate) fn word(&self, key: &str) -> Option<&str> {
        self.raw.metadata.get(key).map(String::as_str)
    }

    /// The application's metadata: what sessions put there for each other is left out.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        let ours = self.raw.metadata.iter().filter(|(key, _)| !INTERNAL_KEYS.contains(&key.as_str()));
        ours.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// That nothing in an application's metadata would be taken for a word between sessions.
pub(crate) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), SessionError> {
    match INTERNAL_KEYS.iter().find(|key| metadata.contains_key(**key)) {
        Some(key) => Err(SessionError::ReservedMetadata(key)),
        None => Ok(()),
    }
}

/// Octets that metadata takes in memory.
pub(crate) fn metadata_octets(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(key, value)| key.len() + value.len()).sum()
}

impl Received {
    /// What counts against the bounds in octets.
    pub(crate) fn octets(&self) -> usize {
        self.payload.len() + self.payload_type.len() + metadata_octets(&self.metadata)
    }
}

/// A message as the application receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it: a full name, to answer to.
    pub source: Name,
    /// Where it was sent.
    pub destination: Name,
    /// The sender's identity, proved by MLS; `None` without MLS.
    pub subject: Option<Arc<str>>,
    /// What it is, in the application's words.
    pub payload_type: String,
    /// What was said.
    pub payload: Bytes,
    /// What was said beside it.
    pub metadata: BTreeMap<String, String>,
    /// Whether it was meant for us alone, in a group.
    pub to_us_alone: bool,
}
