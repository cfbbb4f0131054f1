//! What an agent developer imports: sessions between applications over SLIM nodes, encrypted end to end.
//!
//! An [`App`] is a program that holds a name on a node. It opens sessions with others, or listens for those that others open.
//! A [`SessionHandle`] is one conversation: with one peer, or with a group on a channel. Applications of the SLIM SDKs
//! (3.4.6) can be on the other side, in every role.
//!
//! # A first application
//!
//! Start a node (`slimline`, or any other SLIM node), then two programs that share a secret of at least 32 octets.
//! One answers:
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use slimline_session::{App, ConnectConfig};
//!
//! let secret = std::env::var("SLIM_SHARED_SECRET")?;
//! let node = ConnectConfig::new("http://127.0.0.1:46357");
//! let app = App::with_secret("acme/agents/bob", &secret)?.connect(node).await?;
//! loop {
//!     let session = app.listen().await?; // somebody calls
//!     tokio::spawn(async move {
//!         while let Ok(message) = session.recv().await {
//!             println!("{}: {}", message.source, String::from_utf8_lossy(&message.payload));
//!             let _ = session.publish("heard").await;
//!         }
//!     });
//! }
//! # }
//! ```
//!
//! The other calls it by name, and learns what became of its message:
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use slimline_session::{App, ConnectConfig, SessionConfig};
//!
//! let secret = std::env::var("SLIM_SHARED_SECRET")?;
//! let node = ConnectConfig::new("http://127.0.0.1:46357");
//! let app = App::with_secret("acme/agents/alice", &secret)?.connect(node).await?;
//! let session = app.create_session(SessionConfig::point_to_point(), &"acme/agents/bob".parse()?).await?;
//! let publication = session.publish("hello").await?;
//! let answer = session.recv_within(Duration::from_secs(5)).await?;
//! println!("{}", String::from_utf8_lossy(&answer.payload));
//! assert!(publication.delivered().await?.is_complete());
//! session.close().await?;
//! app.shut_down().await;
//! # Ok(())
//! # }
//! ```
//!
//! A group has a moderator, who founds the channel and invites; whoever is invited finds the session by [`App::listen`]:
//!
//! ```no_run
//! # async fn run(app: slimline_session::App) -> Result<(), Box<dyn std::error::Error>> {
//! use slimline_session::SessionConfig;
//!
//! let session = app.create_session(SessionConfig::group(), &"acme/agents/room".parse()?).await?;
//! session.invite(&"acme/agents/bob".parse()?).await?;
//! let delivery = session.publish("Hello group!").await?.delivered().await?;
//! for (name, outcome) in &delivery.recipients {
//!     println!("{name}: {outcome:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - Sessions are reliable (five retries, a second apart) and encrypted by MLS unless [`SessionConfig`] says otherwise.
//! - Every call has a limit of time, told at the call, but for those that wait for others by their nature: [`App::listen`],
//!   [`SessionHandle::recv`], [`SessionHandle::event`], [`SessionHandle::closed`]. All may be dropped while they wait.
//! - Errors are types whose text says what happened and what to do: [`ConnectError`] until there is an application,
//!   [`error::SessionError`] in a session, [`ReceiveError`] from reading.
//! - A connection that is lost is opened again by itself; sessions go on.
//! - Everything is [`Send`]; handles can be cloned and shared between tasks.
//!
//! # Coming from slim_bindings
//!
//! | there | here |
//! |---|---|
//! | `Service.connect`, `create_app_with_secret`, `subscribe` (own name) | [`App::with_secret`] and [`AppBuilder::connect`] |
//! | `new_config_from_json` | [`ConnectConfig::parse`], [`ConnectConfig::load`] |
//! | `listen_for_session` | [`App::listen`] |
//! | `get_message(timeout)`, `MessageContext` | [`SessionHandle::recv_within`], [`Received`] |
//! | `publish`, `publish_to(context, ..)` | [`SessionHandle::publish`], [`SessionHandle::publish_to`] with [`Received::source`] |
//! | `publish(.., payload_type, metadata)` | [`Publish`] |
//! | `CompletionHandle.wait`, `wait_for` | [`Publication::delivered`], [`Publication::delivered_within`]; `invite` and `remove` wait by themselves |
//! | `participants_list` | [`SessionHandle::participants`] |
//! | `delete_session`, `close` | [`SessionHandle::close`] |
//! | `Service.shutdown` | [`App::shut_down`] |
//! | `close_with_mode(SOFT)`, `rejoin` | [`SessionHandle::go_offline`], [`SessionHandle::rejoin`] |
//! | `create_app_with_persistence`, `restore_sessions` | [`AppBuilder::store`], [`App::resumed`] |
//! | `create_app(name, provider, verifier)` | [`App::with_credentials`] and [`identity`] |
//! | `set_route`, `set_default_gateway` | not needed: an application has one connection |
//!
//! # Below the async face
//!
//! [`Endpoint`] is one application as a state machine, [`Session`] one conversation: they take messages and time, and return
//! messages, events and the time they want to be called next. [`drive`] runs them on tokio. README.md tells more, of the store
//! and of what is not promised.
#![forbid(unsafe_code)]

mod data;
mod exchange;
mod moderator;
mod participant;
mod presence;
mod random;
mod roster;

pub mod drive;
pub mod endpoint;
pub mod error;
pub mod identity;
pub mod integrity;
pub mod message;
pub mod mls;
pub mod name;
pub mod reliable;
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
