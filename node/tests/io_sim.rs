//! The fake kernel keeps the contract of the real ones, and really does misbehave.

mod io_support;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use io_support::Echo;
use slimline_node::io::sim::{Dice, Endpoint, Faults, Injected, PeerSees, Sim, SimNet};
use slimline_node::io::{Io, IoCounters, IoOptions};

/// A peer that sends a text in pieces, reads the echo in pieces, and says FIN when it has sent everything.
struct Peer {
    end: Option<Endpoint>,
    sent: Vec<u8>,
    written: usize,
    back: Vec<u8>,
    outcome: Option<PeerSees>,
}

impl Peer {
    fn new(end: Endpoint, dice: &mut Dice) -> Self {
        let count = 1 + dice.below(200_000);
        Self {
            end: Some(end),
            sent: (0..count).map(|_| dice.roll().to_be_bytes()[0]).collect(),
            written: 0,
            back: Vec::new(),
            outcome: None,
        }
    }

    /// True = something moved.
    fn act(&mut self, dice: &mut Dice) -> bool {
        let Some(end) = &self.end else { return false };
        let most = 1 + dice.below(30_000);
        let rest = &self.sent[self.written..];
        let wrote = end.write(&rest[..most.min(rest.len())]);
        self.written += wrote;
        if self.written == self.sent.len() {
            end.finish();
        }
        let read = if dice.happens(700) { end.read(most, &mut self.back) } else { 0 };
        assert_eq!(self.back, self.sent[..self.back.len()], "octets come back in order, none twice");
        if end.sees() != PeerSees::Open {
            self.outcome = Some(end.sees());
            self.end = None;
        }
        wrote + read > 0
    }
}

/// One whole run; returns what to compare between runs of one seed.
fn run(seed: u64, faults: Faults) -> (u64, Injected, IoCounters) {
    let mut dice = Dice::new(seed ^ 0xD1CE);
    let net = SimNet::new(seed, faults);
    let io = net.engine(&IoOptions::small()).unwrap();
    let mut echo = Echo::new(io);
    let (listening, door) = net.listener().unwrap();
    echo.io.listen(0, listening);
    let mut peers = Vec::new();
    for _ in 0..1 + dice.below(4) {
        let (ours, end) = net.pair().unwrap();
        echo.adopt(ours);
        peers.push(Peer::new(end, &mut dice));
        peers.push(Peer::new(net.call(door), &mut dice));
    }
    let total = peers.len();
    let mut idle_turns = 0;
    while echo.ended < total {
        let before = (echo.io.counters(), echo.ended);
        echo.turn(Duration::ZERO);
        let mut moved = false;
        for peer in &mut peers {
            moved |= peer.act(&mut dice);
        }
        if moved || before.0.completions != echo.io.counters().completions || before.1 != echo.ended {
            idle_turns = 0;
            continue;
        }
        idle_turns += 1;
        assert!(idle_turns < 1000, "seed {seed}: stuck with {} of {total} ended", echo.ended);
        if let Some(due) = net.next_due() {
            net.advance(due - net.now());
        }
    }
    for (index, peer) in peers.iter_mut().enumerate() {
        while peer.end.is_some() {
            peer.act(&mut dice);
        }
        let outcome = peer.outcome.expect("ended");
        if faults.reset == 0 {
            assert_eq!(outcome, PeerSees::Eof, "seed {seed}, peer {index}");
            assert!(peer.back == peer.sent, "seed {seed}, peer {index}: everything came back");
        }
    }
    echo.io.assert_quiet();
    let mut trace = DefaultHasher::new();
    format!("{:?} {:?}", echo.io.counters(), net.injected()).hash(&mut trace);
    (trace.finish(), net.injected(), echo.io.counters())
}

fn seeds() -> u64 {
    std::env::var("SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

#[test]
fn without_faults_everything_comes_back() {
    let (_, injected, _) = run(1, Faults::NONE);
    assert_eq!(injected, Injected::default());
}

#[test]
fn harmless_faults_lose_nothing_and_all_of_them_happen() {
    let mut sum = Injected::default();
    for seed in 0..seeds() {
        let (_, injected, _) = run(seed, Faults::HARMLESS);
        sum.short_receive += injected.short_receive;
        sum.short_send += injected.short_send;
        sum.late += injected.late;
        sum.late_sent += injected.late_sent;
        sum.no_buffers += injected.no_buffers;
        sum.cq_overflow += injected.cq_overflow;
        sum.cancel_race += injected.cancel_race;
        sum.accept_error += injected.accept_error;
        sum.interrupted += injected.interrupted;
    }
    eprintln!("{sum:?}");
    let Injected { short_receive, short_send, late, late_sent, no_buffers, .. } = sum;
    let Injected { cancel_race, accept_error, interrupted, cq_overflow, .. } = sum;
    let first = [short_receive, short_send, late, late_sent, no_buffers];
    let second = [cancel_race, accept_error, interrupted, cq_overflow];
    assert!(first.iter().chain(&second).all(|&count| count > 0), "{sum:?}");
}

#[test]
fn resets_at_any_moment_leave_nothing_behind() {
    let mut resets = 0;
    for seed in 0..seeds() {
        resets += run(seed, Faults::ALL).1.reset;
    }
    assert!(resets > 0);
}

#[test]
fn a_seed_is_a_run() {
    assert_eq!(run(42, Faults::ALL).0, run(42, Faults::ALL).0);
    assert_ne!(run(42, Faults::ALL).0, run(43, Faults::ALL).0);
}

#[test]
fn a_socket_dropped_instead_of_adopted_is_closed() {
    let net = SimNet::new(1, Faults::NONE);
    let mut io: Sim = net.engine(&IoOptions::small()).unwrap();
    let (ours, end) = net.pair().unwrap();
    assert_eq!(end.sees(), PeerSees::Open);
    drop(ours);
    io.enter(None, &mut std::collections::VecDeque::new()).unwrap();
    assert_eq!(end.sees(), PeerSees::Eof);
}
