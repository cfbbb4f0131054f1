//! SLIM on the wire: bytes ⇄ meaning. No socket, no clock, no unsafe code.
#![forbid(unsafe_code)]

pub mod error;
pub mod grpc;
pub mod h2;
pub mod link;
pub mod message;
pub mod name;
#[cfg(feature = "prost")]
pub mod pb;
pub mod proto;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Reach, WireError};
pub use name::{ConnType, Name, NameId, Prefix};
