//! Why a peer's message was refused, and how far the refusal reaches.

/// Why a peer's bytes were refused.
///
/// `Copy` and free of allocation: a hostile peer can make us build one per message.
/// `within` names the protobuf message that was being read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A value or a length runs past the end of what holds it.
    #[error("{within}: a field runs past the end of its message")]
    Truncated {
        /// The protobuf message that was being read.
        within: &'static str,
    },
    /// More than ten octets, or more than 64 bits.
    #[error("{within}: a varint does not fit 64 bits")]
    VarintTooLong {
        /// The protobuf message that was being read.
        within: &'static str,
    },
    /// Field number zero or beyond 2^29 - 1, or one of the two wire types that do not exist.
    #[error("{within}: {key:#x} is not a field key")]
    BadKey {
        /// The protobuf message that was being read.
        within: &'static str,
        /// The key as it was read.
        key: u64,
    },
    /// A known field in a wire type that is not its own.
    #[error("{within}: field {field} has the wrong wire type")]
    WrongWireType {
        /// The protobuf message that was being read.
        within: &'static str,
        /// Its field number.
        field: u32,
    },
    /// A group end that ends nothing, or another group than the open one.
    #[error("{within}: a group ends that was not begun")]
    StrayGroupEnd {
        /// The protobuf message that was being read.
        within: &'static str,
    },
    /// Groups nested deeper than [`crate::proto::DEPTH_MAX`].
    #[error("{within}: nested deeper than {limit} levels")]
    TooDeep {
        /// The protobuf message that was being read.
        within: &'static str,
        /// The bound.
        limit: u32,
    },
    /// A string field whose octets are not UTF-8.
    #[error("{within}: field {field} is not UTF-8")]
    NotUtf8 {
        /// The protobuf message that was being read.
        within: &'static str,
        /// Its field number.
        field: u32,
    },
    /// A field that may be there once is there again: parsers differ in which one they keep, so we keep neither.
    #[error("{within}: field {field} is repeated")]
    Repeated {
        /// The protobuf message that was being read.
        within: &'static str,
        /// Its field number.
        field: u32,
    },
    /// A second member of a oneof.
    #[error("{within}: field {field} is a second choice where one is allowed")]
    SecondChoice {
        /// The protobuf message that was being read.
        within: &'static str,
        /// The field number of the second member.
        field: u32,
    },
    /// None of the five kinds of message.
    #[error("message of no type")]
    NoType,
    /// Subscribe, Unsubscribe or Publish without a header.
    #[error("{within} without a header")]
    NoHeader {
        /// The protobuf message that was being read.
        within: &'static str,
    },
    /// A header without a source name, or with one that has no hashed components.
    #[error("header without a source name")]
    NoSource,
    /// A header without a destination name, or with one that has no hashed components.
    #[error("header without a destination name")]
    NoDestination,
    /// Publish without a session header.
    #[error("publish without a session header")]
    NoSession,
    /// Link without its negotiation payload.
    #[error("link without a negotiation")]
    NoNegotiation,
    /// A header longer than its [`crate::message::Bounds`].
    #[error("header of {length} octets, limit {limit}")]
    HeaderTooLong {
        /// Octets of the header.
        length: usize,
        /// The bound.
        limit: usize,
    },
    /// A name component longer than its [`crate::message::Bounds`].
    #[error("name component of {length} octets, limit {limit}")]
    NameComponentTooLong {
        /// Octets of the component.
        length: usize,
        /// The bound.
        limit: usize,
    },
    /// An identity longer than its [`crate::message::Bounds`].
    #[error("identity of {length} octets, limit {limit}")]
    IdentityTooLong {
        /// Octets of the identity.
        length: usize,
        /// The bound.
        limit: usize,
    },
    /// A string of the link negotiation longer than its [`crate::message::Bounds`].
    #[error("link negotiation field {field} of {length} octets, limit {limit}")]
    LinkStringTooLong {
        /// Its field number.
        field: u32,
        /// Octets of the string.
        length: usize,
        /// The bound.
        limit: usize,
    },
}

/// The smallest thing that has to go when a peer's bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// This message: skip it, count it, perhaps answer it.
    Message,
    /// The stream, and with it the connection.
    Stream,
    /// The transport and every stream on it.
    Transport,
}

impl WireError {
    /// The smallest thing that has to go.
    ///
    /// gRPC framing tells where a message ends whatever is inside, so what is wrong inside one costs that one and
    /// never mutes the link.
    #[must_use]
    pub fn reach(self) -> Reach {
        Reach::Message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_small_and_say_where() {
        assert!(size_of::<WireError>() <= 32);
        let error = WireError::NotUtf8 { within: "StringName", field: 2 };
        assert_eq!(error.to_string(), "StringName: field 2 is not UTF-8");
        assert_eq!(error.reach(), Reach::Message);
    }
}
