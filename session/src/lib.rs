//! What an agent developer imports: sessions, channels and end-to-end encryption. See README.md.
#![forbid(unsafe_code)]

#[expect(dead_code, reason = "message ids belong to the sessions that follow")]
mod random;

pub mod error;
pub mod identity;
pub mod integrity;
pub mod mls;
pub mod name;

pub use name::Name;
pub use slimline_wire::name::NameId;
