//! One run: a node, its clients, and chance, which decides who goes next and what clients do.

use super::accounts;
use super::channel::{Kind, Plan, Target, link_id};
use super::history::{History, Summary};
use super::node::{Actor, PATIENT, STRICT, Shape, SimNode};
use super::peer::{Leave, Peer};
use crate::io::sim::{Dice, Faults, Injected};
use crate::shard::stats::Counters;
use slimline_wire::h2::Limits;
use slimline_wire::{ConnType, NameId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(super) struct Life {
    pub(super) node: SimNode,
    pub(super) peers: Vec<Peer>,
    pub(super) history: History,
    pub(super) dice: Dice,
    /// When a client acts next by itself; `None` when scenarios say what is done.
    next_act: Option<Instant>,
    habits: Habits,
    /// Goes on later than it could, now and then: what a busy core does to a thread.
    lazy: Option<Actor>,
    lazy_until: Option<Instant>,
    /// Copies and steps so far.
    pub(super) steps: u64,
    runnable: Vec<Actor>,
}

/// What clients of one run are like.
#[derive(Clone, Copy, Debug)]
struct Habits {
    peers_max: usize,
    peers_ever: usize,
    streams_max: usize,
    /// A slow reader may be dropped for and cut.
    is_strict: bool,
    /// Links without a key are taken.
    is_lax: bool,
    /// Some links are those of nodes in our domain.
    has_peers: bool,
    /// Clients send what is not allowed.
    is_rude: bool,
    /// Clients leave in the middle.
    leaves: bool,
    /// The network resets connections.
    resets: bool,
    /// Chances of a thousand that a publish is for one.
    fanout_one: u32,
    pause_max: Duration,
    /// Between two acts, now and then.
    gap_max: Duration,
    /// Many of the messages are large.
    is_heavy: bool,
    acts: u64,
}

/// What a run amounted to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) steps: u64,
    pub(super) virtual_time: Duration,
    pub(super) summary: Summary,
    pub(super) counters: Counters,
    pub(super) injected: Injected,
}

/// How a part of a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Something,
    Nothing,
}

impl Life {
    pub(super) fn new(seed: u64, shape: &Shape) -> Self {
        let node = SimNode::start(seed, shape);
        let mut dice = Dice::new(seed ^ 0x11fe);
        let lazy = match dice.below(4) {
            0 => Some(Actor::Control),
            1 => Some(Actor::Shard(dice.below(shape.shards))),
            _ => None,
        };
        Self {
            node,
            peers: Vec::new(),
            history: History::new(shape.is_full_mesh),
            dice,
            next_act: None,
            lazy,
            lazy_until: None,
            habits: Habits::quiet(shape),
            steps: 0,
            runnable: Vec::new(),
        }
    }

    /// A run whose every choice comes from the seed.
    pub(super) fn by_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let faults = match dice.below(4) {
            0 => Faults::NONE,
            1 => Faults { reset: 1, ..Faults::HARMLESS },
            _ => Faults::HARMLESS,
        };
        let is_strict = dice.happens(400);
        let slow_reader = if is_strict { STRICT } else { PATIENT };
        let (is_lax, is_full_mesh, has_peers) = (dice.happens(300), dice.happens(500), dice.happens(300));
        let shape = Shape { shards: 1 + dice.below(3), slow_reader, faults, is_lax, is_full_mesh };
        let mut life = Self::new(seed, &shape);
        life.habits = Habits {
            peers_max: 2 + dice.below(4),
            peers_ever: 4 + dice.below(8),
            streams_max: 1 + dice.below(3),
            is_strict,
            is_lax,
            has_peers,
            is_rude: dice.happens(300),
            leaves: dice.happens(600),
            resets: faults.reset > 0,
            fanout_one: [0, 500, 1000][dice.below(3)],
            pause_max: Duration::from_millis([5, 300, 15_000][dice.below(3)]),
            gap_max: Duration::from_millis([3, 3, 300][dice.below(3)]),
            is_heavy: dice.happens(250),
            acts: 100 + dice.below(300) as u64,
        };
        life.next_act = Some(life.node.net.now());
        life
    }

    /// Lives it to its end, and checks everything there is to check.
    pub(super) fn go(mut self) -> Outcome {
        let start = self.node.net.now();
        while self.habits.acts > 0 {
            self.step();
        }
        self.settle();
        let summary = self.check();
        let injected = self.node.net.injected();
        let counters = self.node.counters();
        self.leave_all();
        self.node.assert_empty();
        Outcome { steps: self.steps, virtual_time: self.node.net.now() - start, summary, counters, injected }
    }

    /// One step of somebody; time goes on when there is nobody.
    pub(super) fn step(&mut self) {
        assert!(self.steps < STEPS_MAX, "no end after {STEPS_MAX} steps: {:?}", self.node.unfinished());
        if self.one_step() == Pass::Nothing {
            let next = self.next_moment();
            let Some(next) = next else { panic!("nobody ever goes on: {:?}", self.node.unfinished()) };
            self.node.net.advance(next.saturating_duration_since(self.node.net.now()));
        }
    }

    fn one_step(&mut self) -> Pass {
        self.steps += 1;
        self.history.now += 1;
        let now = self.node.net.now();
        if self.dice.happens(50) {
            self.node.net.advance(Duration::from_nanos(self.dice.roll() % 200_000));
        }
        self.runnable.clear();
        self.node.runnable(&mut self.runnable);
        let asleep = self.lazy.filter(|_| self.lazy_until.is_some_and(|until| until > now));
        self.runnable.retain(|actor| Some(*actor) != asleep);
        let peers: Vec<usize> = (0..self.peers.len()).filter(|&peer| self.peers[peer].has_work(now)).collect();
        let acts = usize::from(self.next_act.is_some_and(|at| at <= now));
        let count = self.runnable.len() + peers.len() + acts;
        if count == 0 {
            return Pass::Nothing;
        }
        let chosen = self.dice.below(count);
        if let Some(&actor) = self.runnable.get(chosen) {
            self.node.step(actor);
            if self.lazy == Some(actor) && self.dice.happens(200) {
                self.lazy_until = Some(now + self.up_to(LAZY_MAX));
            }
        } else if let Some(&peer) = peers.get(chosen - self.runnable.len()) {
            self.peers[peer].pump(now, &mut self.history, &mut self.dice);
        } else {
            self.act(now);
        }
        tracing::trace!(tick = self.history.now, "step");
        Pass::Something
    }

    fn next_moment(&self) -> Option<Instant> {
        let peers = self.peers.iter().filter(|peer| peer.is_open()).flat_map(|peer| {
            peer.deaf_until.into_iter().chain(peer.channels.iter().filter_map(|channel| channel.withholds_until))
        });
        let now = self.node.net.now();
        let lazy_until = self.lazy_until.filter(|until| *until > now);
        let node = self.node.next_moment(self.lazy.filter(|_| lazy_until.is_some()));
        peers.filter(|at| *at > now).chain(self.next_act).chain(lazy_until).chain(node).min()
    }

    /// Lets everything come to rest: no fault happens any more, pauses end, nobody begins anything.
    pub(super) fn settle(&mut self) {
        self.next_act = None;
        (self.lazy, self.lazy_until) = (None, None);
        self.node.net.heal();
        let leaving = self.peers.iter_mut().filter(|peer| peer.is_open() && peer.is_leaving);
        leaving.for_each(|peer| peer.leave(Leave::Close, &mut self.history));
        self.run_until("everything is done", SETTLE_MAX, |life| {
            life.node.unfinished().is_none() && life.peers.iter().all(Peer::is_done)
        });
    }

    /// Keeps one from going on for a while.
    pub(super) fn sleeps(&mut self, actor: Actor, length: Duration) {
        self.lazy = Some(actor);
        self.lazy_until = Some(self.node.net.now() + length);
    }

    /// Steps until nobody can go on and `reached` holds, within so much virtual time.
    pub(super) fn run_until(&mut self, what: &str, limit: Duration, reached: impl Fn(&Self) -> bool) {
        let start = self.node.net.now();
        loop {
            if self.one_step() == Pass::Nothing {
                if reached(self) {
                    return;
                }
                let waits = self.node.net.now() - start;
                let (node, peers) = (self.node.unfinished(), self.peers_left());
                let next = self.next_moment().filter(|_| waits < limit);
                let Some(next) = next else {
                    panic!("{what}: not after {waits:?}; node: {node:?}, clients: {peers:?}")
                };
                self.node.net.advance(next.saturating_duration_since(self.node.net.now()));
            }
            assert!(self.steps < STEPS_MAX, "{what}: not after {STEPS_MAX} steps, {:?}", self.node.unfinished());
        }
    }

    fn peers_left(&self) -> Vec<usize> {
        (0..self.peers.len()).filter(|&peer| !self.peers[peer].is_done()).collect()
    }

    /// What must hold when everything has come to rest.
    pub(super) fn check(&self) -> Summary {
        self.check_after_panics(0)
    }

    /// As [`Life::check`], where so many panics were provoked.
    pub(super) fn check_after_panics(&self, panics: u64) -> Summary {
        let dropped: BTreeMap<String, u64> = self.node.dropped();
        let counters = self.node.counters();
        tracing::debug!(counters = ?counters.named().into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>());
        assert_eq!(counters.panics, panics, "panics");
        if !self.habits.is_strict {
            let drops = counters.drop_stalled + counters.drop_hard_cap + counters.stalled + counters.cut;
            assert_eq!(drops, 0, "nobody was to stall: {:?}", counters.named());
        }
        if !self.habits.is_rude {
            assert_eq!((counters.drop_mac, counters.drop_malformed), (0, 0), "everybody was polite");
        }
        let summary = self.history.check_complete(|conn| dropped.get(&link_id(conn)).copied().unwrap_or(0));
        accounts::check(self);
        summary
    }

    /// Everybody leaves, each in its way; then nothing may be left of them.
    pub(super) fn leave_all(&mut self) {
        for peer in self.peers.iter_mut().filter(|peer| peer.is_open()) {
            let how = [Leave::Finish, Leave::Close, Leave::Reset][self.dice.below(3)];
            peer.leave(how, &mut self.history);
        }
        self.run_until("everybody has left", LEAVE_MAX, |life| {
            let shards = || life.node.shards.iter().map(|shard| &shard.shard.core);
            shards()
                .all(|core| core.transports.len() == 0 && core.connections.len() == 0 && core.connections.held() == 0)
                && life.node.unfinished().is_none()
                && life.node.shards.iter().all(|shard| shard.shard.core.aging.is_empty())
        });
        self.node.wake_all();
        self.run_until("replicas are empty", LEAVE_MAX, |life| life.node.replicated_names() == 0);
    }

    /// A client connects, with one stream on its way to a link.
    pub(super) fn connect(&mut self, limits: &Limits, kind: Kind) -> usize {
        let end = self.node.net.call(self.node.door);
        let mut peer = Peer::new(end, limits);
        peer.is_excused = self.habits.resets;
        peer.open_channel(self.history.opened(kind), kind, &mut self.dice);
        self.peers.push(peer);
        self.peers.len() - 1
    }

    /// Another stream on a client's transport.
    pub(super) fn open_channel(&mut self, peer: usize, kind: Kind) {
        self.peers[peer].open_channel(self.history.opened(kind), kind, &mut self.dice);
    }

    /// A client does something of its own accord.
    fn act(&mut self, now: Instant) {
        self.habits.acts -= 1;
        let wait = if self.dice.happens(800) { Duration::ZERO } else { self.up_to(self.habits.gap_max) };
        self.next_act = Some(now + wait);
        let open = self.peers.iter().filter(|peer| peer.is_open() && !peer.is_leaving).count();
        let may_connect = open < self.habits.peers_max && self.peers.len() < self.habits.peers_ever;
        if open == 0 || may_connect && self.dice.happens(200) {
            let kind = self.kind();
            let limits = self.limits();
            self.connect(&limits, kind);
            return;
        }
        let nth = self.dice.below(open);
        let able = (0..self.peers.len()).filter(|&peer| self.peers[peer].is_open() && !self.peers[peer].is_leaving);
        let peer = able.clone().nth(nth).expect("counted");
        if self.peers[peer].channels.len() < self.habits.streams_max && self.dice.happens(100) {
            let kind = self.kind();
            return self.open_channel(peer, kind);
        }
        if self.dice.happens(40) {
            return self.act_on_transport(peer, now);
        }
        let channel = self.dice.below(self.peers[peer].channels.len());
        self.act_on_channel(peer, channel, now);
    }

    fn act_on_transport(&mut self, peer: usize, now: Instant) {
        let pause = self.up_to(self.habits.pause_max);
        let (habits, dice, history) = (self.habits, &mut self.dice, &mut self.history);
        let peer = &mut self.peers[peer];
        match dice.below(10) {
            0..6 => {
                peer.deaf_until = Some(now + pause);
                // Deaf for long it misses windows, and with them the deadline of a link it asks for.
                peer.is_excused |= habits.is_strict || pause > DEAF_MAX;
            }
            6..9 if habits.leaves => {
                peer.leave([Leave::Finish, Leave::Close, Leave::Reset][dice.below(3)], history);
            }
            9 if habits.is_rude => peer.garbage(history, dice),
            _ => {}
        }
    }

    fn act_on_channel(&mut self, peer: usize, channel: usize, now: Instant) {
        let pause = self.up_to(self.habits.pause_max);
        let target = self.target();
        let to_all = (target.0, NameId::ANY);
        let (habits, dice, history) = (self.habits, &mut self.dice, &mut self.history);
        let entry = &mut self.peers[peer];
        if !entry.channels[channel].is_up() || entry.channels[channel].queued() > QUEUED_OCTETS_MAX {
            return;
        }
        let own = &mut entry.channels[channel];
        match dice.below(100) {
            0..12 => own.subscribe(target, false, history),
            12..14 if !history.is_quiet_about(own.conn, target) => own.subscribe(target, true, history),
            14..19 => {
                let subscribed = history.subscribed_by(own.conn);
                if !subscribed.is_empty() {
                    own.unsubscribe(subscribed[dice.below(subscribed.len())], history);
                }
            }
            19 => own.unsubscribe_nonsense(history),
            20..23 => {
                own.withholds_until = Some(now + pause);
                entry.is_excused |= habits.is_strict;
            }
            23 if habits.leaves => entry.finish(channel, history),
            24 if habits.leaves => entry.reset(channel, history),
            25 if habits.is_rude => own.nonsense(dice),
            26 if habits.is_rude && dice.happens(100) => {
                own.break_framing();
                entry.is_excused = true;
                history.cut_off(entry.channels[channel].conn);
            }
            _ => {
                let plan = Plan {
                    to: if dice.happens(500) { to_all } else { target },
                    fanout: if dice.happens(habits.fanout_one) { 1 } else { 100 },
                    payload_octets: octets(dice, habits.is_heavy),
                    ttl: if dice.happens(50) { 200 } else { 8 },
                    has_incoming_conn: !dice.happens(50),
                    is_spoiled: habits.is_rude && dice.happens(20),
                };
                own.publish(&plan, history);
            }
        }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.dice.roll() % u64::try_from(most.as_nanos()).expect("short"))
    }

    fn target(&mut self) -> Target {
        (SERVICES[self.dice.below(SERVICES.len())], NameId(1 + self.dice.below(2) as u128))
    }

    fn kind(&mut self) -> Kind {
        let conn_type = match self.dice.below(100) {
            0..20 => ConnType::Remote,
            20..40 if self.habits.has_peers => ConnType::Peer,
            _ => ConnType::Edge,
        };
        Kind { conn_type, has_key: !(self.habits.is_lax && self.dice.happens(400)) }
    }

    fn limits(&mut self) -> Limits {
        let windows = [1_000, 16_384, 65_535, 1 << 20];
        Limits {
            initial_window: windows[self.dice.below(4)],
            transport_window: windows[self.dice.below(4)].max(65_535),
            max_frame_size: [16_384, 100_000][self.dice.below(2)],
            ..Limits::default()
        }
    }
}

impl Habits {
    /// Nobody does anything but what the scenario says.
    fn quiet(shape: &Shape) -> Self {
        Self {
            peers_max: 0,
            peers_ever: 0,
            streams_max: 0,
            is_strict: shape.slow_reader.stall_after < PATIENT.stall_after,
            is_lax: shape.is_lax,
            has_peers: false,
            is_rude: false,
            leaves: false,
            resets: false,
            fanout_one: 0,
            pause_max: Duration::from_millis(1),
            gap_max: Duration::from_millis(1),
            is_heavy: false,
            acts: 0,
        }
    }
}

/// Mostly small, some large, few larger than every window.
fn octets(dice: &mut Dice, is_heavy: bool) -> usize {
    match dice.below(100) {
        0..50 if is_heavy => 10_000 + dice.below(60_000),
        0..80 => 16 + dice.below(300),
        80..95 => 300 + dice.below(3000),
        95..99 => 15_000 + dice.below(4000),
        _ => 200_000,
    }
}

/// What is subscribed and published to.
pub(super) const SERVICES: [[&str; 3]; 3] = [["org", "ns", "alpha"], ["org", "ns", "beta"], ["org", "other", "alpha"]];

/// A client that has this much waiting does nothing more.
const QUEUED_OCTETS_MAX: usize = 500_000;

/// A run is far shorter.
const STEPS_MAX: u64 = 2_000_000;

/// Well below the deadline for a link negotiation.
const DEAF_MAX: Duration = Duration::from_secs(2);

/// What a busy core keeps a thread from running.
const LAZY_MAX: Duration = Duration::from_millis(5);

/// Virtual time in which everything has to come to rest: longer than `cut_after`.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Virtual time in which the node has forgotten who left.
const LEAVE_MAX: Duration = Duration::from_secs(10);
