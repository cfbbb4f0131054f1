//! SLIM messages, read where they lie and written into the caller's buffer.
//!
//! [`parse()`] borrows and allocates nothing. A forward usually copies the message and patches 1 + 32 octets of the copy
//! ([`Header::patch`]); what cannot be patched is re-encoded by [`rewrite()`], which touches the header only.

mod bounds;
mod build;
mod check;
pub mod fields;
mod known;
mod parse;
mod parse_link;
mod parse_name;
mod rewrite;
mod view;

pub use bounds::Bounds;
pub use build::{
    Content, HeaderParts, NameParts, PublishParts, Session, build_ack, build_link, build_publish, build_subscribe,
    build_unsubscribe,
};
pub use known::{KNOWN_OCTETS_MAX, KnownNames};
pub use parse::{parse, parse_into, parse_within, read_header_again};
pub use rewrite::{MacOut, Patch, rewrite, rewrite_head};
pub use view::{Ack, Header, LinkNegotiation, MessageView, NameView, Publish, Subscription};

/// The longest name component, in octets of text, unless [`Bounds`] say otherwise; likewise the next three.
pub const NAME_COMPONENT_OCTETS_MAX: usize = 1024;

/// The longest identity token.
pub const IDENTITY_OCTETS_MAX: usize = 8 * 1024;

/// The longest string in a link negotiation.
pub const LINK_STRING_OCTETS_MAX: usize = 256;

/// The longest SLIM header, everything in it counted.
pub const HEADER_OCTETS_MAX: usize = 16 * 1024;

const _: () = assert!(
    IDENTITY_OCTETS_MAX + 6 * NAME_COMPONENT_OCTETS_MAX < HEADER_OCTETS_MAX,
    "a header with every part at its bound still fits"
);

/// Octets of a header MAC.
pub const MAC_OCTETS: usize = 32;
