//! What can go wrong, told so that the reader knows what to do.

use std::time::Duration;

use crate::name::Name;
use crate::store::StoreError;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not three parts.
    #[error("a name is written organisation/namespace/service, not {0:?}")]
    Shape(String),
    /// An empty part, or one with a slash.
    #[error("name part {0:?} is empty or holds a slash")]
    Part(String),
    /// Received without hashes or without text.
    #[error("name without hashes or without text")]
    Missing,
    /// Too much text.
    #[error("a name of {octets} octets, at most {limit} are taken")]
    TooLong {
        /// Octets of its parts.
        octets: usize,
        /// The limit.
        limit: usize,
    },
    /// The text is not what was hashed.
    #[error("the text of the name does not hash to its components")]
    TextAndHash,
}

/// Why an identity was refused, or could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The shared secret is too short to be an HMAC key.
    #[error("the shared secret has {octets} octets, at least {min} are needed")]
    SecretTooShort {
        /// Octets given.
        octets: usize,
        /// Octets needed.
        min: usize,
    },
    /// The identity's base name cannot be used in a token.
    #[error("identity name {0:?} is empty, or holds a colon or white space")]
    BaseName(String),
    /// The token has the wrong shape.
    #[error("malformed identity token: {0}")]
    Malformed(&'static str),
    /// The token's time lies ahead of ours.
    #[error("identity token is dated {ahead_s} s ahead: compare the clocks")]
    FromTheFuture {
        /// Seconds ahead of this machine's clock.
        ahead_s: u64,
    },
    /// The token ended.
    #[error("identity token ended {since_s} s ago: compare the clocks, or let the peer make a new one")]
    Expired {
        /// Seconds since its end.
        since_s: u64,
    },
    /// The MAC or signature is wrong: another secret or another key.
    #[error("identity token was not made with our secret or a key we trust: both sides need the same")]
    WrongSecret,
    /// Audience or issuer are not ours.
    #[error("identity token is not for us: {0}")]
    Foreign(&'static str),
    /// A key could not be used.
    #[error("key refused: {0}")]
    Key(&'static str),
    /// No signature key, so nothing can be signed.
    #[error("this identity has no signature key: MLS and control messages need one")]
    NoKey,
    /// A file that should hold our token cannot be read.
    #[error("identity token file {path}: {why}")]
    File {
        /// Which.
        path: String,
        /// The system's reason.
        why: String,
    },
    /// Whoever issues identities gave us none.
    #[error("no identity from the Workload API: {0}")]
    Unavailable(String),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Random,
}

/// Why a control message was not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntegrityError {
    /// Its token was refused.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Part of the message that is needed to check it is missing.
    #[error("message without {0}")]
    Missing(&'static str),
    /// A name in it was refused.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The signature over the header does not verify.
    #[error("header signature does not verify")]
    HeaderSignature,
    /// The signature over the payload does not verify.
    #[error("payload signature does not verify")]
    PayloadSignature,
    /// The sender's name is not the one its identity derives.
    #[error("the source name does not belong to identity {0:?}")]
    NameAndIdentity(String),
}

/// What went wrong with encryption.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MlsError {
    /// The library refused; the text is its reason.
    #[error("{what}: {why}")]
    Library {
        /// What was tried.
        what: &'static str,
        /// The library's reason.
        why: String,
    },
    /// A member's credential was refused.
    #[error("credential of a member refused: {0}")]
    Credential(#[from] IdentityError),
    /// The credential's key is not the leaf's key.
    #[error("the key in the credential is not the leaf's key")]
    KeyMismatch,
    /// No such member.
    #[error("no such member in the group")]
    NoMember,
    /// We have no group yet, or no longer.
    #[error("no group yet")]
    NoGroup,
    /// Not the kind of message that was expected.
    #[error("not {0}")]
    Kind(&'static str),
    /// Its sender left after it was sealed, and came in anew: it is no part of what that sender says now.
    #[error("sealed in epoch {epoch}, and its sender came in anew by epoch {since}")]
    EarlierStay {
        /// When it was sealed.
        epoch: u64,
        /// When its sender came in.
        since: u64,
    },
}

/// What a session says no with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The session ended.
    #[error("session closed")]
    Closed,
    /// We said goodbye for now.
    #[error("offline in this session: rejoin before you publish")]
    Offline,
    /// A key that sessions use among themselves.
    #[error("metadata key {0:?} belongs to the session: choose another")]
    ReservedMetadata(&'static str),
    /// More to tell those who are invited than they take.
    #[error("session metadata of {octets} octets, at most {limit} are taken: publish it as a message")]
    MetadataTooLarge {
        /// Octets of keys and values.
        octets: usize,
        /// The limit.
        limit: usize,
    },
    /// The session is closing and takes nothing more.
    #[error("session is closing: no further publishes")]
    Draining,
    /// Only the moderator may do this.
    #[error("only the moderator may {0}")]
    NotModerator(&'static str),
    /// Not for this kind of session.
    #[error("{0} needs a group session")]
    NotGroup(&'static str),
    /// One instance per readable name.
    #[error("participant already in group: {0}")]
    AlreadyMember(Name),
    /// Nobody of that name is in the group.
    #[error("participant not found in group: {0}")]
    NotMember(Name),
    /// An invite, or the opening of a session, got no answer.
    #[error(
        "failed to add participant to session: {name} did not answer {stage} within {waited:?}; is it running, subscribed, and does it trust our identity (same secret, clocks that agree)?"
    )]
    NoAnswer {
        /// Who was asked.
        name: Name,
        /// Which request went unanswered.
        stage: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// A peer answered, but could not be admitted.
    #[error("failed to add participant to session: {name}: {why}")]
    Refused {
        /// Who.
        name: Name,
        /// Why.
        why: String,
    },
    /// The send window is full, by number or by octets; publish again when a delivery completed.
    #[error("{in_flight} messages await their acknowledgement; wait for one")]
    WindowFull {
        /// Messages in flight.
        in_flight: usize,
    },
    /// Too many commands wait already.
    #[error("{0} membership changes are queued already; wait for one")]
    TooManyCommands(usize),
    /// Too many sessions are open.
    #[error("the application has {0} sessions already; close some")]
    TooManySessions(usize),
    /// Larger than any node takes.
    #[error("message of {octets} octets, to be sent in pieces: the path takes {limit}")]
    TooLarge {
        /// Octets of the whole message.
        octets: usize,
        /// The limit.
        limit: usize,
    },
    /// This app does not send (its direction says so).
    #[error("this application only receives: its direction says so")]
    ReceiveOnly,
    /// We were removed by the moderator, or it closed the session.
    #[error("removed from the session by its moderator")]
    Removed,
    /// The peer is offline.
    #[error("nobody is online to receive; wait for Event::Online or Event::Joined")]
    NobodyOnline,
    /// A state change is already on its way.
    #[error("status change in progress")]
    StatusChangeInProgress,
    /// The connection was lost, and the attempts that were allowed to open it again are used up.
    #[error("no connection to {endpoint} after {attempts} attempts, the last of which failed so: {why}")]
    NodeGone {
        /// Where.
        endpoint: String,
        /// How often was tried.
        attempts: u32,
        /// What went wrong at last.
        why: String,
    },
    /// The node will not have us, and coming again is pointless.
    #[error("the node at {endpoint} does not let us in: {why}")]
    NodeRefuses {
        /// Where.
        endpoint: String,
        /// Its reason.
        why: String,
    },
    /// The task behind the application is gone, and with it the connection.
    #[error(
        "the application ended with the tokio runtime it was connected on: connect on one that lives as long as the application"
    )]
    RuntimeGone,
    /// The connection took no message for long: it is lost, or the node does not keep up. Nothing was published.
    #[error("nothing left for the node within {waited:?}: the connection is {}; the message was not published, try again later", if *connected { "full" } else { "lost" })]
    NotTaken {
        /// How long was waited.
        waited: Duration,
        /// Whether there is a connection.
        connected: bool,
    },
    /// The node does not route the session's channel to us.
    #[error("the node refused to subscribe channel {name}: {why}")]
    NotRouted {
        /// The channel.
        name: Name,
        /// The node's reason.
        why: String,
    },
    /// What has to be kept cannot be written: nothing more is sent.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`MlsError`].
    #[error(transparent)]
    Mls(#[from] MlsError),
    /// See [`IdentityError`].
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// See [`IntegrityError`].
    #[error(transparent)]
    Integrity(#[from] IntegrityError),
    /// See [`NameError`].
    #[error(transparent)]
    Name(#[from] NameError),
}
