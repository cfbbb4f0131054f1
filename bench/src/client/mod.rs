//! One connection of the generator, sans-IO: octets in, octets out, and what happened.

pub(crate) mod compose;
pub(crate) mod nats;
pub(crate) mod relay;
pub(crate) mod slim;
pub(crate) mod tls;

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

/// What is spoken on a connection.
enum Protocol {
    Slim(Box<slim::Slim>),
    Relay(relay::Relay),
    Nats(nats::Nats),
}

/// A connection: its protocol, inside TLS or not.
pub(crate) struct Client {
    protocol: Protocol,
    tls: Option<Box<tls::Tls>>,
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
        let mut tls = match &settings.tls {
            Some(security) => Some(Box::new(tls::Tls::start(security, out)?)),
            None => None,
        };
        let out = plain(&mut tls, out);
        let protocol = match peer {
            Peer::Slim => Protocol::Slim(Box::new(slim::Slim::start(settings, out)?)),
            Peer::Relay => {
                relay::hello(publishes, group, out);
                Protocol::Relay(relay::Relay::default())
            }
            Peer::Nats => {
                nats::Nats::start(out);
                Protocol::Nats(nats::Nats::default())
            }
        };
        Ok(Self { protocol, tls })
    }

    /// Whether it is ready without an answer.
    pub(crate) fn is_ready_at_once(&self) -> bool {
        matches!(self.protocol, Protocol::Relay(_))
    }

    /// Takes what arrived; errors end the connection.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        octets: &[u8],
        out: &mut Vec<u8>,
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> Result<(), String> {
        let Self { protocol, tls } = self;
        let mut take = |octets: &[u8], out: &mut Vec<u8>| match protocol {
            Protocol::Slim(slim) => slim.receive(now, octets, out, tell),
            Protocol::Relay(relay) => relay.receive(octets, tell),
            Protocol::Nats(nats) => nats.receive(octets, out, tell),
        };
        match tls {
            None => take(octets, out),
            Some(tls) => tls.receive(octets, out, take),
        }
    }

    /// Asks for a name; true if an answer will come.
    pub(crate) fn subscribe(&mut self, wanted: &Wanted<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
        let out = plain(&mut self.tls, out);
        match &mut self.protocol {
            Protocol::Slim(slim) => slim.subscribe(wanted, out).map(|()| true),
            Protocol::Relay(_) => Ok(false),
            Protocol::Nats(nats) => {
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
        let out = plain(&mut self.tls, out);
        match &mut self.protocol {
            Protocol::Slim(slim) => slim.publish(head, envelope, octets, stamp, out),
            Protocol::Relay(relay) => relay.publish(head, envelope, octets, stamp, out),
            Protocol::Nats(nats) => nats.publish(head, octets, stamp, out),
        }
    }

    /// Signs a SLIM header in place; other protocols have nothing to sign.
    pub(crate) fn sign(&mut self, header: &mut [u8], mac_at: usize) -> Result<(), String> {
        match &mut self.protocol {
            Protocol::Slim(slim) => slim.sign(header, mac_at),
            Protocol::Relay(_) | Protocol::Nats(_) => Ok(()),
        }
    }

    /// `out` goes to the kernel now: frames in it may no longer grow, and what waits for encryption is encrypted.
    pub(crate) fn seal(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        if let Protocol::Slim(slim) = &mut self.protocol {
            slim.seal();
        }
        match &mut self.tls {
            Some(tls) => tls.seal(out),
            None => Ok(()),
        }
    }

    /// Octets that are written and wait for [`Client::seal`] to encrypt them; without TLS they are in `out`.
    pub(crate) fn unsealed(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.waiting())
    }

    /// Says goodbye as an SDK does.
    pub(crate) fn leave(&mut self, out: &mut Vec<u8>) {
        let out = plain(&mut self.tls, out);
        if let Protocol::Slim(slim) = &mut self.protocol {
            slim.leave(out);
        }
    }
}

/// Where plain octets go: into the TLS session's hands, or straight out.
fn plain<'a>(tls: &'a mut Option<Box<tls::Tls>>, out: &'a mut Vec<u8>) -> &'a mut Vec<u8> {
    match tls {
        Some(tls) => tls.plain(),
        None => out,
    }
}
