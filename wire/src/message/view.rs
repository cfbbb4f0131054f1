//! Messages as views: checked once by [`super::parse()`], then trusted.

use super::Patch;
use crate::name::{ConnType, Name};

/// One message, of one of the five kinds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MessageView<'a> {
    /// Send what is for this name over this connection.
    Subscribe(Subscription<'a>),
    /// No longer.
    Unsubscribe(Subscription<'a>),
    /// For whoever subscribed to the destination.
    Publish(Publish<'a>),
    /// First message in each direction.
    Link(LinkNegotiation<'a>),
    /// Answer to a subscribe or unsubscribe that carried an id.
    SubscriptionAck(Ack<'a>),
}

impl<'a> MessageView<'a> {
    /// Room for a view, before anything is read into it.
    ///
    /// A function: a constant would be copied whole, four fifths of it for nothing.
    #[inline]
    #[must_use]
    pub const fn blank() -> Self {
        Self::SubscriptionAck(Ack { subscription_id: 0, success: false, error: "" })
    }

    /// The SLIM header, if this kind has one.
    #[must_use]
    pub fn header(&self) -> Option<&Header<'a>> {
        match self {
            Self::Subscribe(subscription) | Self::Unsubscribe(subscription) => Some(&subscription.header),
            Self::Publish(publish) => Some(&publish.header),
            Self::Link(_) | Self::SubscriptionAck(_) => None,
        }
    }
}

/// Subscribe and Unsubscribe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subscription<'a> {
    /// The name is its destination.
    pub header: Header<'a>,
    /// Chosen by the asker; 0 asks for no answer.
    pub subscription_id: u64,
}

/// Publish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    /// From whom, to whom.
    pub header: Header<'a>,
    /// `SessionType` as its number; open, so any number passes.
    pub session_type: i32,
    /// `SessionMessageType` as its number.
    pub session_message_type: i32,
    /// Which conversation of the two ends.
    pub session_id: u32,
    /// Which message of it.
    pub message_id: u32,
    /// The encoded `Content`; its form is checked, a node reads nothing of it.
    pub content: Option<&'a [u8]>,
}

/// The header of Subscribe, Unsubscribe and Publish.
///
/// Source: slim-wire §2.1 (`SLIMHeader`), §5.1 (who sets what).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header<'a> {
    /// Who sends.
    pub source: NameView<'a>,
    /// For whom.
    pub destination: NameView<'a>,
    /// The sender's token, opaque here.
    pub identity: &'a str,
    /// 1 picks one receiver; any other number takes all.
    pub fanout: u32,
    /// The sender's SLIM version.
    pub version: &'a str,
    /// Hops it may still take, this one not yet counted.
    pub ttl: u32,
    /// Meant for one process; from the wire it feeds MAC verification and nothing else.
    pub recv_from: Option<u64>,
    /// As `recv_from`.
    pub forward_to: Option<u64>,
    /// The previous hop's own number; ignored.
    pub incoming_conn: Option<u64>,
    /// Set by endpoints.
    pub error: Option<bool>,
    /// The previous hop's tag, as it came.
    pub header_mac: Option<&'a [u8]>,
    /// End to end, opaque here.
    pub e2e_header_sig: Option<&'a [u8]>,
    pub(super) place: Place,
}

/// Where a header lies in its message, for [`super::rewrite()`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// First octet of the length of the Subscribe, Unsubscribe or Publish.
    pub(super) body_length_at: u32,
    /// Its first octet.
    pub(super) body_at: u32,
    /// Behind its last.
    pub(super) body_end: u32,
    /// First octet of the header's length.
    pub(super) length_at: u32,
    /// The header's first octet.
    pub(super) at: u32,
    /// Behind its last.
    pub(super) end: u32,
    /// The ttl, where a hop may patch it in place; else 0, where no header is.
    pub(super) ttl_at: u32,
    /// The MAC, if it has its 32 octets; else 0.
    pub(super) mac_at: u32,
}

impl Header<'_> {
    /// Where a forward that signs may patch a copy of the message: see [`Patch`].
    #[must_use]
    #[inline]
    pub fn patch(&self) -> Option<Patch> {
        let Place { ttl_at, mac_at, .. } = self.place;
        (ttl_at != 0 && mac_at != 0).then_some(Patch { ttl_at, mac_at })
    }

    /// Where a forward that leaves the MAC as it came, or absent, may patch a copy of the message: the ttl's one octet.
    ///
    /// `None` as with [`Patch`], whether or not there is a MAC.
    #[must_use]
    #[inline]
    pub fn ttl_at(&self) -> Option<u32> {
        (self.place.ttl_at != 0).then_some(self.place.ttl_at)
    }

    /// Octets of the header in its message.
    #[must_use]
    #[inline]
    pub fn octets(&self) -> usize {
        (self.place.end - self.place.at) as usize
    }

    /// Where in the message the header ends: what follows is the same for every receiver.
    #[must_use]
    #[inline]
    pub fn end(&self) -> usize {
        self.place.end as usize
    }
}

/// A name as it came.
///
/// Absent parts matter to the header MAC, not to routing, so they are told apart here only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NameView<'a> {
    /// What it routes by; an absent id is `NameId::ANY`.
    pub name: Name,
    /// Whether the id was there.
    pub has_id: bool,
    /// The three components, if text came along. Not compared with the hashes.
    pub text: Option<[&'a str; 3]>,
    /// The octets of the encoded `Name`, which decide all of the above.
    pub(crate) encoded: &'a [u8],
}

/// Link negotiation; also what [`super::build_link`] writes.
///
/// Source: slim-wire §2.1, §4.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkNegotiation<'a> {
    /// The dialler's choice, kept over reconnects.
    pub link_id: &'a str,
    /// Semantic version of the speaker.
    pub slim_version: &'a str,
    /// false from the dialler, true from the acceptor.
    pub is_reply: bool,
    /// X25519, 32 octets; empty means no key.
    pub ecdh_public_key: &'a [u8],
    /// What the dialler is to the acceptor. Unknown numbers read as Remote; Local is written as Remote.
    pub connection_type: ConnType,
    /// The speaker's name for itself.
    pub node_id: &'a str,
    /// Replicas of one deployment have it in common.
    pub deployment_name: &'a str,
    /// ML-KEM-768: encapsulation key, or ciphertext in a reply.
    pub kem_payload: Option<&'a [u8]>,
}

/// SubscriptionAck.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ack<'a> {
    /// The request's.
    pub subscription_id: u64,
    /// Whether it was done.
    pub success: bool,
    /// Why not.
    pub error: &'a str,
}
