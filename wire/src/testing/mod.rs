//! What tests and fuzz targets share: properties that hold for any octets, messages made up by seed, and a scripted
//! HTTP/2 peer with a small server to talk to.

#[cfg(feature = "prost")]
mod compose;
pub mod dialogue;
#[cfg(feature = "prost")]
pub mod message;
pub mod props;
pub mod server;
#[cfg(feature = "prost")]
pub mod targets;
