//! Link negotiation on an accepted stream (slim-wire §4.2). Sans-IO: one message in, one out or an end.

use super::core::Core;
use super::receive::Flow;
use crate::conn::connection::{Link, LinkFacts, Phase};
use slimline_wire::ConnType;
use slimline_wire::grpc::Status;
use slimline_wire::link::{HeaderMac, Policy, accept};
use slimline_wire::message::{LinkNegotiation, MessageView, build_link};
use std::sync::Arc;
use std::time::Instant;

/// The version we announce in negotiation: our own, semver.
const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a stream hears that begins with anything else.
const NOT_A_LINK: &str = "link negotiation expected: the first message on a link must be a LinkNegotiation";

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
        let MessageView::Link(request) = request else {
            return self.refuse_link(slot, generation, Status::INVALID_ARGUMENT, NOT_A_LINK);
        };
        let policy = Policy { require_header_mac: settings.require_header_mac, enforce_pqc: false };
        let accepted = match self.reading.run(|| accept(request, policy)) {
            Ok(accepted) => accepted,
            Err(error) => {
                return self.refuse_link(slot, generation, Status::INVALID_ARGUMENT, &error.to_string());
            }
        };
        let mut reply = Vec::with_capacity(256);
        build_link(&accepted.reply(request, OUR_VERSION, &settings.node_id, &settings.deployment_name), &mut reply);
        self.send_own(slot, generation, &reply, now);
        if let Some(text) = peer_objection(request, &settings.node_id, &settings.deployment_name) {
            return self.refuse_link(slot, generation, Status::PERMISSION_DENIED, text);
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
        let mac = accepted.key.as_ref().map(|key| Box::new(HeaderMac::new(key, request.link_id)));
        connection.phase = Phase::Up(Box::new(Link { kind: request.connection_type, mac }));
        self.counters.links_up += 1;
        Flow::Next
    }

    fn refuse_link(&mut self, slot: u32, generation: u32, status: Status, text: &str) -> Flow {
        self.counters.links_refused += 1;
        self.end_connection(slot, generation, status, text);
        Flow::Ended
    }
}
