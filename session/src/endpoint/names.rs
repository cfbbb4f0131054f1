//! What the node routes to us: service names of the application, channels of its sessions; over reconnects too.

use std::collections::BTreeMap;

use slimline_wire::pb;

use super::{AppEvent, Endpoint, SUBSCRIBE_RETRY, SessionId, Subscription};
use crate::error::SessionError;
use crate::message::{Now, VERSION};
use crate::name::Name;

impl Endpoint {
    /// Asks the node for messages to a service name (with our id). [`AppEvent::Subscribed`] follows.
    pub fn subscribe(&mut self, now: Now, name: &Name) {
        let full = name.with_id(self.local.id());
        self.add_route(now, full, true, None);
    }

    /// Asks the node for no more of them.
    pub fn unsubscribe(&mut self, now: Now, name: &Name) {
        self.remove_route(now, &name.with_id(self.local.id()));
    }

    pub(super) fn add_route(&mut self, now: Now, name: Name, own: bool, waiting: Option<SessionId>) {
        self.touch_names(own);
        let id = self.next_subscription;
        let known = self.subscriptions.entry(name.clone());
        let fresh = matches!(known, std::collections::btree_map::Entry::Vacant(_));
        let subscription = known.or_insert_with(|| Subscription {
            id,
            acked: false,
            routed: false,
            due: now.instant + SUBSCRIBE_RETRY,
            own,
            users: 0,
            waiting: Vec::new(),
        });
        // Sessions share channels; the application has a name or has it not.
        subscription.users = if own { 1 } else { subscription.users + 1 };
        if fresh {
            self.next_subscription = self.next_subscription.wrapping_add(1).max(1);
        }
        if subscription.acked {
            if let Some(session) = waiting {
                self.route_added(now, session);
            } else {
                self.events.push_back(AppEvent::Subscribed(name));
            }
        } else {
            subscription.waiting.extend(waiting);
            if fresh && self.connected {
                self.write_subscribe(now, &name);
            }
        }
    }

    pub(super) fn write_subscribe(&mut self, now: Now, name: &Name) {
        let Some(subscription) = self.subscriptions.get(name) else { return };
        let subscription_id = subscription.id;
        let Some(header) = self.route_header(now, name, subscription.own) else {
            tracing::warn!(%name, "not subscribed for now: our identity makes no token");
            return;
        };
        let subscribe = pb::Subscribe { header: Some(header), subscription_id };
        self.out.push_back(pb::Message {
            metadata: BTreeMap::new(),
            message_type: Some(pb::message::MessageType::Subscribe(subscribe)),
        });
    }

    pub(super) fn route_header(&self, now: Now, name: &Name, own: bool) -> Option<pb::SlimHeader> {
        let identity = if own { self.credentials.provider.token(now.unix_s).ok()? } else { String::new() };
        Some(pb::SlimHeader {
            source: Some(self.local.to_wire()),
            destination: Some(name.to_wire()),
            identity,
            fanout: 1,
            version: VERSION.to_owned(),
            ttl: 8,
            ..Default::default()
        })
    }

    pub(super) fn remove_route(&mut self, now: Now, name: &Name) {
        let Some(subscription) = self.subscriptions.get_mut(name) else { return };
        subscription.users = subscription.users.saturating_sub(1);
        if subscription.users > 0 {
            return;
        }
        let (subscription_id, own) = (subscription.id, subscription.own);
        self.subscriptions.remove(name);
        self.touch_names(own);
        if let Some(header) = self.route_header(now, name, own).filter(|_| self.connected) {
            let unsubscribe = pb::Unsubscribe { header: Some(header), subscription_id };
            self.out.push_back(pb::Message {
                metadata: BTreeMap::new(),
                message_type: Some(pb::message::MessageType::Unsubscribe(unsubscribe)),
            });
        }
    }

    pub(super) fn handle_subscription_ack(&mut self, now: Now, ack: &pb::SubscriptionAck) {
        let found = self.subscriptions.iter_mut().find(|(_, subscription)| subscription.id == ack.subscription_id);
        let Some((name, subscription)) = found else { return };
        if subscription.acked {
            return;
        }
        if !ack.success {
            let name = name.clone();
            return self.not_subscribed(now, name, &ack.error);
        }
        (subscription.acked, subscription.routed) = (true, true);
        let (name, own, waiting) = (name.clone(), subscription.own, std::mem::take(&mut subscription.waiting));
        if own {
            self.events.push_back(AppEvent::Subscribed(name));
        }
        for session in waiting {
            self.route_added(now, session);
        }
    }

    /// The node will not route a name to us: whoever wanted it is told. A name that was routed before (the node restarted, or
    /// changed its mind) is asked for again when its time comes.
    fn not_subscribed(&mut self, now: Now, name: Name, why: &str) {
        tracing::warn!(?name, why, "the node refused to subscribe a name");
        let Some(subscription) = self.subscriptions.get_mut(&name) else { return };
        if subscription.routed {
            return;
        }
        let (own, waiting) = (subscription.own, std::mem::take(&mut subscription.waiting));
        self.subscriptions.remove(&name);
        self.touch_names(own);
        for id in waiting {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.end(now, SessionError::NotRouted { name: name.clone(), why: why.to_owned() });
            }
            self.collect(now, id);
        }
        if own {
            self.events.push_back(AppEvent::NotSubscribed(name, why.to_owned()));
        }
    }

    pub(super) fn route_added(&mut self, now: Now, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.route_added(now);
        }
        self.collect(now, session);
    }

    /// A node listens now: every name is subscribed (again), under the id it had.
    pub fn connected(&mut self, now: Now) {
        self.connected = true;
        let names: Vec<Name> = self.subscriptions.keys().cloned().collect();
        for name in names {
            if let Some(subscription) = self.subscriptions.get_mut(&name) {
                subscription.acked = false;
                subscription.due = now.instant + SUBSCRIBE_RETRY;
            }
            self.write_subscribe(now, &name);
        }
    }

    /// No node listens: what is not acknowledged is sent again later, by the sessions themselves.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.out.clear();
        self.out_octets = 0;
        self.nothing_waits();
    }
}
