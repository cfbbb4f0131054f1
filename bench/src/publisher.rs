//! One publisher: its pre-signed headers, where it stands in them, and what it has sent.

use std::collections::HashMap;

use slimline_wire::name::NameId;

use crate::client::compose::{self, Envelope, HeaderParts};
use crate::client::{Client, Publish};
use crate::ledger::{Flow, Tally};
use crate::pace::Pace;
use crate::payload::{Kind, Stamp, mix};
use crate::plan::Plan;
use crate::random::Random;
use crate::scenario::{Fanout, Peer};
use crate::topology::{self, Names};

/// All pre-signed headers of a run together stay below this.
const POOLS_OCTETS_MAX: u64 = 512 * 1024 * 1024;
/// Octets of one pre-signed header without its identity token, about.
const HEADER_OCTETS: u64 = 280;
/// What SDKs ask for when all shall get it (slim-wire §8).
const FANOUT_ALL: u32 = 256;

/// Headers of one publisher, signed before the clock starts: the MAC covers neither counters nor payload.
#[derive(Debug, Default)]
struct Pool {
    octets: Vec<u8>,
    heads: Vec<HeadAt>,
}

#[derive(Clone, Copy, Debug)]
struct HeadAt {
    at: usize,
    octets: u32,
    identity_at: u32,
    mac_at: u32,
    /// Which of the publisher's flows it belongs to.
    flow: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) number: u32,
    run: u32,
    pool: Pool,
    at: usize,
    /// Names addressed, and what was sent to each; the count is the next sequence number.
    pub(crate) flows: Vec<(u32, Tally)>,
    pub(crate) sent: u64,
    /// Measured messages among `sent`: requests, not acknowledgements or replies.
    pub(crate) requests: u64,
    /// Ping-pong: requests that have been answered.
    pub(crate) answered: u64,
    /// Flow control refused the last attempt.
    pub(crate) refused: bool,
    /// Requests before a counted run began to count.
    quota_from: Option<u64>,
    pub(crate) pace: Option<Pace>,
    /// Taken from the pace and refused by flow control.
    waiting: Option<u64>,
    sizes: crate::sizes::Sizes,
    random: Random,
    /// Apart from what makes runs differ, so that the same seed gives the same sizes.
    size_random: Random,
    identity: u32,
    fresh: bool,
    session_type: u8,
}

/// Pre-signed headers each publisher of this plan gets.
pub(crate) fn variants(plan: &Plan) -> u32 {
    let fits = POOLS_OCTETS_MAX / (HEADER_OCTETS + u64::from(plan.identity)) / u64::from(plan.pubs);
    u64::from(plan.variants).min(fits.max(16)) as u32
}

/// Writes an identity token that looks like an SDK's: printable, and never the same twice.
fn identity(random: &mut Random, out: &mut [u8]) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for piece in out.chunks_mut(10) {
        let mut bits = random.bits();
        for octet in piece {
            *octet = LETTERS[(bits & 63) as usize];
            bits >>= 6;
        }
    }
}

impl Publisher {
    /// Builds and signs the pool; `to` overrides the destination (a ping-pong responder answers its requester).
    pub(crate) fn new(
        plan: &Plan,
        names: Names,
        number: u32,
        to: Option<u32>,
        client: &mut Client,
    ) -> Result<Self, String> {
        let count = variants(plan);
        let picks = match to {
            Some(name) => vec![name; count as usize],
            None => topology::destinations(plan, number, count),
        };
        let mut random = Random::new(plan.seed ^ mix(u64::from(names.run) << 32 | u64::from(number)));
        let (mut pool, mut flows, mut flow_of) = (Pool::default(), Vec::new(), HashMap::new());
        let source_text = ["bench".into(), format!("run-{:08x}", names.run), format!("source-{number}")];
        let source = slimline_wire::name::Name {
            prefix: slimline_wire::name::Prefix::of(&source_text[0], &source_text[1], &source_text[2]),
            id: NameId(u128::from(mix(u64::from(number))) << 64 | u128::from(number)),
        };
        let mut token = vec![0; plan.identity as usize];
        for index in picks {
            let flow = *flow_of.entry(index).or_insert_with(|| {
                flows.push((index, Tally::default()));
                (flows.len() - 1) as u32
            });
            let text = names.text(index);
            let at = pool.octets.len();
            let (mut identity_at, mut mac_at) = (0, 0);
            match plan.peer {
                Peer::Nats => pool.octets.extend_from_slice(text.join(".").as_bytes()),
                Peer::Slim | Peer::Relay => {
                    identity(&mut random, &mut token);
                    let destination = names.name(index, topology::address_of(plan, names, index));
                    let fanout = if plan.fanout == Fanout::All { FANOUT_ALL } else { 1 };
                    let parts = HeaderParts {
                        source: (&source, &source_text),
                        destination: (&destination, &text),
                        identity: &token,
                        fanout,
                    };
                    mac_at = compose::header(&parts, &mut pool.octets) - at;
                    // Behind the MAC's place nothing follows; the token ends where fanout, version, ttl,
                    // incoming_conn and the MAC's own tag begin.
                    let tail = compose::after_identity(fanout);
                    identity_at = mac_at - tail - token.len();
                    debug_assert_eq!(&pool.octets[at + identity_at..][..token.len()], token.as_slice());
                    if plan.no_mac {
                        pool.octets.truncate(at + mac_at - compose::MAC_HEAD_OCTETS);
                    } else if !plan.fresh {
                        client.sign(&mut pool.octets[at..], mac_at)?;
                    }
                }
            }
            let octets = (pool.octets.len() - at) as u32;
            pool.heads.push(HeadAt { at, octets, identity_at: identity_at as u32, mac_at: mac_at as u32, flow });
        }
        Ok(Self {
            number,
            run: names.run,
            pool,
            at: 0,
            flows,
            sent: 0,
            requests: 0,
            answered: 0,
            refused: false,
            quota_from: None,
            pace: None,
            waiting: None,
            sizes: plan.sizes.clone(),
            random,
            size_random: Random::new(plan.seed ^ mix(u64::from(number) << 1 | 1)),
            identity: plan.identity,
            fresh: plan.fresh && plan.peer == Peer::Slim,
            session_type: if plan.fanout == Fanout::All { 2 } else { 1 },
        })
    }

    /// Publishes the next message; false if flow control refuses it.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        client: &mut Client,
        intended_ns: u64,
        kind: Kind,
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        let head = self.pool.heads[self.at];
        let header = &mut self.pool.octets[head.at..head.at + head.octets as usize];
        if self.fresh {
            identity(&mut self.random, &mut header[head.identity_at as usize..][..self.identity as usize]);
            client.sign(header, head.mac_at as usize)?;
        }
        let (name, tally) = &mut self.flows[head.flow as usize];
        let stamp =
            Stamp { run: self.run, publisher: self.number, name: *name, kind, sequence: tally.count, intended_ns };
        let octets = self.sizes.draw(&mut self.size_random);
        let envelope = Envelope {
            session_id: self.number + 1,
            message_id: (tally.count & 0x7fff_ffff) as u32,
            session_type: self.session_type,
        };
        self.refused = client.publish(header, envelope, octets, &stamp, out) == Publish::Blocked;
        if self.refused {
            return Ok(false);
        }
        tally.add(stamp.sequence);
        self.sent += 1;
        self.requests += u64::from(kind == Kind::Data);
        self.at += 1;
        if self.at == self.pool.heads.len() {
            self.at = 0;
        }
        Ok(true)
    }

    /// Whether a counted run has had its share of `quota`; counting begins with the first question.
    pub(crate) fn has_had(&mut self, quota: u64) -> bool {
        self.requests - *self.quota_from.get_or_insert(self.requests) >= quota
    }

    /// The intended time of the next message if it is due: first what flow control has held back.
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<u64> {
        self.waiting.take().or_else(|| self.pace.as_mut()?.take(now_ns))
    }

    /// Puts a due message back.
    pub(crate) fn hold(&mut self, intended_ns: u64) {
        self.waiting = Some(intended_ns);
    }

    /// When the next message is due; `None` while one is held back, or without a pace.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        if self.waiting.is_some() { None } else { self.pace.as_ref().map(Pace::due_ns) }
    }

    /// Messages due before `end_ns` and not sent.
    pub(crate) fn unsent(&mut self, end_ns: u64) -> u64 {
        let held = u64::from(self.waiting.take().is_some_and(|due| due < end_ns));
        let mut count = held;
        if let Some(pace) = &mut self.pace {
            while pace.take(end_ns.saturating_sub(1)).is_some() {
                count += 1;
            }
        }
        count
    }

    /// What was sent, per flow.
    pub(crate) fn tallies(&self) -> impl Iterator<Item = (Flow, Tally)> {
        self.flows.iter().map(|&(name, tally)| (Flow { publisher: self.number, name }, tally))
    }
}
