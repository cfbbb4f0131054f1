//! Links: how two nodes agree on a key, and what they do with it.
//!
//! Key agreement is X25519, optionally together with ML-KEM-768; the key then authenticates the header of every message
//! that crosses the link. Nothing here holds a socket or reads a clock.

mod key;
mod mac;
mod negotiation;

pub use key::{Initiator, KEM_CIPHERTEXT_OCTETS, KEM_PUBLIC_OCTETS, KeyError, LinkKey, PUBLIC_KEY_OCTETS, Response};
pub use key::{derive_classic, derive_hybrid, respond};
pub use mac::{FLOWS_MAX, HeaderMac, HopFields, preimage, sign};
pub use negotiation::{Accepted, NegotiationError, Policy, accept, complete, is_semantic_version, request};
