//! SLIM on the wire: bytes ⇄ meaning. No socket, no clock, no unsafe code.
#![forbid(unsafe_code)]

pub mod name;
#[cfg(feature = "prost")]
pub mod pb;

pub use name::{ConnType, Name, NameId, Prefix};
