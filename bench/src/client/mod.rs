//! One connection of the generator, sans-IO: octets in, octets out, and what happened.

pub(crate) mod compose;
pub(crate) mod nats;
pub(crate) mod relay;
pub(crate) mod slim;

use std::time::Instant;

use slimline_wire::name::Name;

use crate::payload::Stamp;
use crate::scenario::Peer;
use compose::Envelope;

/// What came of received octets.
pub(crate) enum Happening<'a> {
    /// The connection may subscribe and publish.
    Ready,
    /// One subscription is in force.
    Subscribed,
    /// A message arrived.
    Delivery { payload: &'a [u8] },
    /// Something arrived that should have been a message and is not one, or whose header MAC is wrong.
    Damaged,
}

/// What came of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    /// So many octets were appended.
    Written(usize),
    /// Flow control says no; nothing was appended.
    Blocked,
}

/// What a subscription asks for.
pub(crate) struct Wanted<'a> {
    pub(crate) name: Name,
    pub(crate) text: &'a [String; 3],
    pub(crate) index: u32,
    pub(crate) identity: &'a [u8],
}

/// A header ready to be sent, as the peer's protocol has it: a signed SLIM header, or a subject.
pub(crate) type Head<'a> = &'a [u8];

/// A connection, by protocol.
pub(crate) enum Client {
    Slim(Box<slim::Slim>),
    Relay(relay::Relay),
    Nats(nats::Nats),
}

impl Client {
    /// A new connection of protocol `peer`, its first octets in `out`.
    ///
    /// `publishes` and `group` matter to a relay only.
    pub(crate) fn start(
        peer: Peer,
        settings: &slim::Settings,
        publishes: bool,
        group: u32,
        out: &mut Vec<u8>,
    ) -> Result<Self, String> {
        Ok(match peer {
            Peer::Slim => Self::Slim(Box::new(slim::Slim::start(settings, out)?)),
            Peer::Relay => {
                relay::hello(publishes, group, out);
                Self::Relay(relay::Relay::default())
            }
            Peer::Nats => {
                nats::Nats::start(out);
                Self::Nats(nats::Nats::default())
            }
        })
    }

    /// Whether it is ready without an answer.
    pub(crate) fn is_ready_at_once(&self) -> bool {
        matches!(self, Self::Relay(_))
    }

    /// Takes what arrived; errors end the connection.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        octets: &[u8],
        out: &mut Vec<u8>,
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> Result<(), String> {
        match self {
            Self::Slim(slim) => slim.receive(now, octets, out, tell),
            Self::Relay(relay) => relay.receive(octets, tell),
            Self::Nats(nats) => nats.receive(octets, out, tell),
        }
    }

    /// Asks for a name; true if an answer will come.
    pub(crate) fn subscribe(&mut self, wanted: &Wanted<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
        match self {
            Self::Slim(slim) => slim.subscribe(wanted, out).map(|()| true),
            Self::Relay(_) => Ok(false),
            Self::Nats(nats) => {
                nats.subscribe(&wanted.text.join("."), wanted.index, out);
                Ok(true)
            }
        }
    }

    /// Publishes a payload of `octets` octets that starts with `stamp`.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        head: Head<'_>,
        envelope: Envelope,
        octets: u32,
        stamp: &Stamp,
        out: &mut Vec<u8>,
    ) -> Publish {
        match self {
            Self::Slim(slim) => slim.publish(head, envelope, octets, stamp, out),
            Self::Relay(relay) => relay.publish(head, envelope, octets, stamp, out),
            Self::Nats(nats) => nats.publish(head, octets, stamp, out),
        }
    }

    /// Signs a SLIM header in place; other protocols have nothing to sign.
    pub(crate) fn sign(&mut self, header: &mut [u8], mac_at: usize) -> Result<(), String> {
        match self {
            Self::Slim(slim) => slim.sign(header, mac_at),
            Self::Relay(_) | Self::Nats(_) => Ok(()),
        }
    }

    /// `out` goes to the kernel now: frames in it may no longer grow.
    pub(crate) fn seal(&mut self) {
        if let Self::Slim(slim) = self {
            slim.seal();
        }
    }

    /// Says goodbye as an SDK does.
    pub(crate) fn leave(&mut self, out: &mut Vec<u8>) {
        if let Self::Slim(slim) = self {
            slim.leave(out);
        }
    }
}
