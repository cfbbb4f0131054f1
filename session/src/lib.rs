//! What an agent developer imports: sessions, channels and end-to-end encryption. See README.md.
#![forbid(unsafe_code)]

mod data;
mod exchange;
mod moderator;
mod participant;
mod presence;
mod random;

pub mod drive;
pub mod endpoint;
pub mod error;
pub mod identity;
pub mod integrity;
pub mod message;
pub mod mls;
pub mod name;
pub mod reliable;
mod roster;
pub mod session;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use data::{MESSAGE_OCTETS_MAX, Publish};
pub use drive::{
    App, AppBuilder, Backoff, ConnectConfig, ConnectError, GrpcStatus, Keepalive, Publication, ReceiveError, Reconnect,
    SessionHandle, TlsConfig, TlsVersion,
};
pub use endpoint::{AppEvent, Endpoint, SessionId};
pub use exchange::CommandId;
pub use message::{Credentials, Now, Received};
pub use name::Name;
pub use reliable::{Delivery, Outcome, PublishId, Retries};
pub use session::{Direction, Event, Item, Participant, Session, SessionConfig, SessionKind};
pub use slimline_wire::name::NameId;
pub use store::{Store, StoreError, StoreKey};
