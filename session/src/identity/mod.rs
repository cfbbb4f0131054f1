//! Who somebody is: tokens that travel in every message, and the key they vouch for.
//!
//! A [`Provider`] makes our tokens, a [`Verifier`] reads other people's; both are chosen by the application. Two of them reach
//! outside by themselves: `static_jwt` reads a file, `spiffe` talks to the Workload API.

pub mod jwt;
pub mod key;
pub mod shared_secret;
pub mod spiffe;
pub mod static_jwt;
pub mod workload;

use crate::error::IdentityError;
pub use key::SigningKey;
pub use shared_secret::SharedSecret;
pub use spiffe::{Spiffe, SpiffeConfig};
pub use static_jwt::StaticJwt;

/// Seconds since 1970, as tokens count.
pub type UnixSeconds = u64;

/// Octets a token may have: what it says is remembered with every session and member. Nodes take 8 KiB, unless told otherwise.
pub const TOKEN_OCTETS_MAX: usize = 16 * 1024;

/// Errors: longer than [`TOKEN_OCTETS_MAX`].
pub(crate) fn check_length(token: &str) -> Result<(), IdentityError> {
    if token.len() <= TOKEN_OCTETS_MAX { Ok(()) } else { Err(IdentityError::Malformed("more than 16 KiB")) }
}

/// Makes the tokens of one application.
pub trait Provider: Send + Sync {
    /// The identity (`sub`); the application's id derives from it.
    fn subject(&self) -> &str;

    /// A token for one message, valid from `now`.
    fn token(&self, now: UnixSeconds) -> Result<String, IdentityError>;

    /// The key the tokens vouch for: MLS leaf key and signer of control messages at once.
    fn signing_key(&self) -> Option<&SigningKey>;
}

/// Reads the tokens of others.
pub trait Verifier: Send + Sync {
    /// Checks a token and tells what it claims.
    ///
    /// Errors: shape, time window, MAC or signature, in that order.
    fn verify(&self, token: &str, now: UnixSeconds) -> Result<Claims, IdentityError>;

    /// Checks a token whose time may have passed: that of a member whom somebody else admitted in time.
    fn verify_lapsed(&self, token: &str) -> Result<Claims, IdentityError>;
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose token it is (`sub`).
    pub subject: String,
    /// The key it vouches for.
    pub public_key: Option<Vec<u8>>,
    /// When it was made.
    pub issued: UnixSeconds,
    /// When it ends.
    pub expires: UnixSeconds,
}

/// How strictly a name, a signature and an identity have to fit each other.
///
/// Source: slim-session §1.8. The reference warns by default; we enforce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// Not checked.
    Off,
    /// Counted and logged, but let through.
    Warn,
    /// Dropped.
    #[default]
    Enforce,
}
