//! End-to-end encryption by MLS (RFC 9420): openmls behind our words. MLS lives here and nowhere else.

mod group;
mod hpke;
mod kept;
mod provider;
mod storage;

pub use group::{Committed, Group, Opened, REINVITE_BEFORE_S, RENEW_BEFORE_S};
pub use provider::Crypto;
