//! Link negotiation on an accepted stream (slim-wire §4.2). Sans-IO: one message in, one out or an end.

use super::core::Core;
use super::receive::Flow;
use crate::conn::connection::{Link, LinkFacts, Phase};
use slimline_wire::ConnType;
use slimline_wire::grpc::Status;
use slimline_wire::link::{HeaderMac, KeyError, respond};
use slimline_wire::message::{LinkNegotiation, MessageView, build_link};
use std::sync::Arc;
use std::time::Instant;

/// The version we announce in negotiation: our own, semver.
pub(crate) const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a negotiation was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("link negotiation: first message on a link must be a LinkNegotiation")]
    NotALink,
    #[error("link negotiation: is_reply is set in a request")]
    IsReply,
    #[error("link negotiation: slim_version {0:?} is not a semantic version")]
    Version(String),
    #[error("link negotiation: link_id is empty")]
    NoLinkId,
    #[error("link negotiation: {0}")]
    Key(KeyError),
    #[error("link negotiation: public key length is invalid: a 32-octet X25519 key is required (require_header_mac)")]
    KeyLength,
}

/// What an acceptor decides about a request.
pub(crate) struct Accepted {
    /// The reply message, not yet gRPC-framed.
    pub(crate) reply: Vec<u8>,
    pub(crate) mac: Option<HeaderMac>,
}

/// Checks a negotiation request in upstream's order and makes the reply.
///
/// Errors: a [`Refusal`]; the stream ends with its text.
/// Source: slim-wire §4.2, §4.3.
pub(crate) fn accept(
    request: &MessageView<'_>,
    strict: bool,
    node_id: &str,
    deployment_name: &str,
) -> Result<Accepted, Refusal> {
    let MessageView::Link(request) = request else { return Err(Refusal::NotALink) };
    if request.is_reply {
        return Err(Refusal::IsReply);
    }
    if semver::Version::parse(request.slim_version).is_err() {
        return Err(Refusal::Version(request.slim_version.chars().take(64).collect()));
    }
    if strict && request.ecdh_public_key.len() != 32 {
        return Err(Refusal::KeyLength);
    }
    if request.link_id.is_empty() {
        return Err(Refusal::NoLinkId);
    }
    let agreed = match respond(request.link_id, request.ecdh_public_key, request.kem_payload) {
        Ok(response) => Some(response),
        Err(error) if strict => return Err(Refusal::Key(error)),
        Err(_) => None,
    };
    let mut reply = Vec::with_capacity(256);
    build_link(
        &LinkNegotiation {
            link_id: request.link_id,
            slim_version: OUR_VERSION,
            is_reply: true,
            ecdh_public_key: agreed.as_ref().map_or(&[][..], |agreed| &agreed.public[..]),
            connection_type: request.connection_type,
            node_id,
            deployment_name,
            kem_payload: agreed.as_ref().and_then(|agreed| agreed.kem_ciphertext.as_deref()),
        },
        &mut reply,
    );
    let mac = agreed.map(|agreed| HeaderMac::new(&agreed.key, request.link_id));
    Ok(Accepted { reply, mac })
}

/// What a Peer must not be (slim-wire §4.5); the text is what upstream sends after its normal reply.
fn peer_objection(request: &LinkNegotiation<'_>, node_id: &str, deployment_name: &str) -> Option<&'static str> {
    if request.connection_type != ConnType::Peer {
        None
    } else if request.node_id == node_id {
        Some("self-connection rejected: same node_id")
    } else if !deployment_name.is_empty() && request.deployment_name != deployment_name {
        Some("deployment_name mismatch")
    } else {
        None
    }
}

impl Core {
    /// The first message of a connection.
    pub(crate) fn negotiate(&mut self, slot: u32, generation: u32, request: &MessageView<'_>, now: Instant) -> Flow {
        let settings = Arc::clone(&self.settings);
        let strict = settings.require_header_mac;
        let accepted = match accept(request, strict, &settings.node_id, &settings.deployment_name) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                self.counters.links_refused += 1;
                self.end_connection(slot, generation, Status::INVALID_ARGUMENT, &refusal.to_string());
                return Flow::Ended;
            }
        };
        let MessageView::Link(request) = request else { return Flow::Ended };
        self.send_own(slot, generation, &accepted.reply, now);
        if let Some(text) = peer_objection(request, &settings.node_id, &settings.deployment_name) {
            self.counters.links_refused += 1;
            self.end_connection(slot, generation, Status::PERMISSION_DENIED, text);
            return Flow::Ended;
        }
        let Some(connection) = self.connections.get_mut(slot, generation) else { return Flow::Ended };
        let facts = Arc::new(LinkFacts {
            link_id: request.link_id.to_owned(),
            slim_version: request.slim_version.to_owned(),
            node_id: request.node_id.to_owned(),
            deployment_name: request.deployment_name.to_owned(),
            kind: request.connection_type,
        });
        tracing::debug!(connection = %connection.id, link_id = facts.link_id, kind = ?facts.kind,
            version = facts.slim_version, "link up");
        self.inventory.insert(connection.id, Arc::clone(&facts));
        connection.phase = Phase::Up(Box::new(Link { kind: request.connection_type, mac: accepted.mac.map(Box::new) }));
        self.counters.links_up += 1;
        Flow::Next
    }
}
