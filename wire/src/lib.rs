//! SLIM on the wire: bytes ⇄ meaning. No socket, no clock, no unsafe code.
#![forbid(unsafe_code)]

pub mod name;

pub use name::{ConnType, Name, NameId, Prefix};
