//! One generator thread: its connections, and the loop that subscribes, publishes and reads.

mod publish;

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::{Client, Wanted, slim};
use crate::engine::{self, Arrival, Door, Outbox, Waker};
use crate::error::{BenchError, Result};
use crate::fate::{self, CLOSED};
use crate::ledger::{Books, Faults, Flow, ReceiverBook};
use crate::plan::Plan;
use crate::publisher::Publisher;
use crate::receiver::{Receiver, Tallies};
use crate::record::Recorder;
use crate::scenario::{Command, Peer};
use crate::shared::{Shared, Stage};
use crate::topology::{self, Names, Part};

/// Connections opened between two looks at what the node answers.
const HANDSHAKES: usize = 16;
/// Subscriptions under way on one connection.
const SUBSCRIPTIONS_UNDER_WAY: u64 = 512;
/// Longest wait: how soon a stage change is seen without a wake-up.
const PATIENCE: Duration = Duration::from_millis(20);

/// One connection.
struct Link {
    number: u32,
    part: Part,
    client: Client,
    out: Outbox,
    receiver: Receiver,
    publisher: Option<Publisher>,
    responder: Option<Publisher>,
    asked: u64,
    dirty: bool,
}

/// What a worker leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Leavings {
    pub(crate) books: Vec<ReceiverBook>,
    pub(crate) sent: Vec<(Flow, crate::ledger::Tally)>,
    pub(crate) latencies: Recorder,
    pub(crate) lag: Recorder,
    pub(crate) unsent: u64,
    /// Faults that are in no book.
    pub(crate) faults: Faults,
    /// Churn: from connect to the acknowledged subscription.
    pub(crate) subscribed: Recorder,
}

/// See the module.
pub(crate) struct Worker<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    index: usize,
    names: Names,
    door: Box<dyn Door>,
    links: Vec<Link>,
    tallies: Tallies,
    lag: Recorder,
    sent: u64,
    failure: Option<BenchError>,
    wakers: Vec<Option<Waker>>,
}

/// Which thread drives the `index`-th connection of its kind.
fn thread_of(index: u32, threads: u32) -> u32 {
    index % threads
}

impl<'a> Worker<'a> {
    /// Runs one worker from connect to leave.
    pub(crate) fn run(plan: &'a Plan, shared: &'a Shared, index: usize, names: Names) -> Result<Leavings> {
        if let Some(&cpu) = plan.pin.get(index) {
            crate::machine::pin(cpu)?;
        }
        let door = engine::open(plan.engine, !plan.nagle)?;
        shared.set_thread(index);
        shared.set_waker(index, door.waker());
        let mut worker = Self {
            plan,
            shared,
            index,
            names,
            door,
            links: Vec::new(),
            tallies: Tallies::new(names.run, shared.credits.len(), plan.command == Command::Pingpong),
            lag: Recorder::default(),
            sent: 0,
            failure: None,
            wakers: Vec::new(),
        };
        worker.connect()?;
        worker.turns()?;
        worker.leave();
        Ok(worker.leavings())
    }

    fn connect(&mut self) -> Result<()> {
        let plan = self.plan;
        let refused = |error| BenchError::Connect { endpoint: plan.endpoint.clone(), error };
        let address = plan
            .endpoint
            .to_socket_addrs()
            .map_err(refused)?
            .next()
            .ok_or_else(|| BenchError::Plan(format!("--node {}: no such address", plan.endpoint)))?;
        let (mut subscribers, mut publishers) = (0, 0);
        for (number, part) in topology::parts(plan).into_iter().enumerate() {
            let number = number as u32;
            let thread = match part.publisher {
                Some(_) => {
                    publishers += 1;
                    thread_of(publishers - 1, plan.threads)
                }
                None => {
                    subscribers += 1;
                    thread_of(subscribers - 1, plan.threads)
                }
            };
            if thread as usize != self.index || self.shared.stage() == Stage::Stop {
                continue;
            }
            let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))
                .map_err(|error| fate::unreachable(plan, self.links.len(), error))?;
            socket.set_nodelay(!plan.nagle).map_err(BenchError::system("set TCP_NODELAY"))?;
            let settings = slim::Settings {
                authority: plan.endpoint.clone(),
                run: self.names.run,
                connection: number,
                verify_one_in: plan.verify_one_in.max(1),
                no_mac: plan.no_mac,
                tls: plan.tls.clone(),
                authorization: plan.authorization.clone(),
            };
            let mut out = Outbox::default();
            let group = part.publisher.map_or(part.subscriber, |p| p) % plan.names.max(1);
            let group =
                if plan.command == Command::Pingpong { part.publisher.map_or(part.subscriber, |p| p) } else { group };
            let client = Client::start(plan.peer, &settings, part.publisher.is_some(), group, &mut out.octets)
                .map_err(BenchError::Plan)?;
            let slot = self.links.len() as u32;
            self.door.adopt(slot, socket).map_err(BenchError::system("watch a socket"))?;
            let receiver = Receiver::new(part);
            let mut link =
                Link { number, part, client, out, receiver, publisher: None, responder: None, asked: 0, dirty: true };
            if link.client.is_ready_at_once() {
                link.receiver.ready = true;
            }
            self.links.push(link);
            if self.links.len().is_multiple_of(HANDSHAKES) {
                // A node gives each newcomer seconds to negotiate: thousands must not wait for the last to connect.
                self.flush()?;
                self.report();
                self.wait(Duration::ZERO, false)?;
            }
        }
        self.flush()
    }

    fn turns(&mut self) -> Result<()> {
        let (mut prepared, mut drained) = (false, false);
        loop {
            let stage = self.shared.stage();
            match stage {
                Stage::Stop => return Ok(()),
                Stage::Subscribe => self.subscribe()?,
                Stage::Prepare if !prepared => {
                    prepared = true;
                    self.prepare()?;
                    self.wakers = self.shared.wakers();
                    self.shared.workers[self.index].0.prepared.store(true, Ordering::Release);
                }
                Stage::Measure | Stage::Warm => {
                    self.tallies.measure_from_ns = self.shared.measure_from_ns.load(Ordering::Acquire);
                    self.tallies.measure_to_ns = self.shared.measure_to_ns.load(Ordering::Acquire);
                }
                _ => {}
            }
            // What was due in the span and is merely late is sent after it.
            let last_call = stage == Stage::Drain && !drained && self.plan.paced() && self.plan.count.is_none();
            let publishing = matches!(stage, Stage::Warm | Stage::Measure) || last_call;
            let wait = if publishing { self.publish(stage)? } else { PATIENCE };
            let wait = if publishing && self.plan.spin { Duration::ZERO } else { wait };
            self.flush()?;
            self.report();
            if stage == Stage::Drain && !drained {
                drained = true;
                self.shared.workers[self.index].0.drained.store(true, Ordering::Release);
            }
            self.wait(wait, publishing)?;
            self.act()?;
            self.hand_over();
        }
    }

    /// Sleeps or polls; what arrives is taken at once.
    fn wait(&mut self, wait: Duration, publishing: bool) -> Result<()> {
        let state = &self.shared.workers[self.index].0;
        let mut wait = wait;
        if !wait.is_zero() {
            state.parked.store(true, Ordering::SeqCst);
            // Credits that came between looking and parking would not wake us.
            if publishing && self.links.iter().any(|link| publish::may_publish(link, self.plan, self.shared)) {
                wait = Duration::ZERO;
            }
        }
        let Self { door, links, tallies, failure, shared, plan, .. } = self;
        let told = door.wait(wait, &mut |slot, arrival| {
            let now = Instant::now();
            let now_ns = (now - shared.start).as_nanos() as u64;
            let Some(link) = links.get_mut(slot as usize) else { return };
            match arrival {
                Arrival::Writable => {
                    link.out.blocked = false;
                    link.dirty |= !link.out.is_empty() || link.client.unsealed() > 0;
                }
                Arrival::Octets(octets) => {
                    let Link { client, out, receiver, .. } = link;
                    let read = client.receive(now, octets, &mut out.octets, &mut |happening| {
                        receiver.take(tallies, happening, now_ns);
                    });
                    link.dirty |= !link.out.is_empty() || link.client.unsealed() > 0;
                    if let Err(reason) = read {
                        failure.get_or_insert_with(|| ended(plan, shared, link.number, link.receiver.ready, reason));
                    }
                }
                Arrival::Ended(error) => {
                    let reason = error.map_or_else(|| CLOSED.into(), |e| e.to_string());
                    failure.get_or_insert_with(|| ended(plan, shared, link.number, link.receiver.ready, reason));
                }
            }
        });
        state.parked.store(false, Ordering::SeqCst);
        told.map_err(BenchError::system("wait for sockets"))?;
        match self.failure.take() {
            Some(_) if self.shared.stage() == Stage::Stop => Ok(()),
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn subscribe(&mut self) -> Result<()> {
        let identity = vec![b't'; self.plan.identity as usize];
        for link in &mut self.links {
            let wanted = u64::from(link.part.share.len());
            while link.asked < wanted && link.asked - link.receiver.subscribed < SUBSCRIPTIONS_UNDER_WAY {
                let share = link.part.share;
                let index = share.residue + link.asked as u32 * share.modulus;
                let text = self.names.text(index);
                let instance = if self.plan.command == Command::Pingpong {
                    topology::address_of(self.plan, self.names, index)
                } else {
                    topology::instance_of(self.plan, self.names, index, link.part.subscriber)
                };
                let wanted = Wanted { name: self.names.name(index, instance), text: &text, index, identity: &identity };
                let answered = link.client.subscribe(&wanted, &mut link.out.octets).map_err(BenchError::Plan)?;
                link.asked += 1;
                link.receiver.subscribed += u64::from(!answered);
                link.dirty = true;
            }
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<()> {
        for link in &mut self.links {
            let (plan, names) = (self.plan, self.names);
            if let Some(number) = link.part.publisher {
                let publisher = Publisher::new(plan, names, number, None, &mut link.client);
                link.publisher = Some(publisher.map_err(BenchError::Plan)?);
            }
            if let Some(number) = link.part.responder {
                let publisher = Publisher::new(plan, names, number, Some(number), &mut link.client);
                link.responder = Some(publisher.map_err(BenchError::Plan)?);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for (slot, link) in (0..).zip(&mut self.links) {
            if !std::mem::take(&mut link.dirty) || link.out.blocked {
                continue;
            }
            link.client.seal(&mut link.out.octets).map_err(BenchError::Plan)?;
            self.door
                .send(slot, &mut link.out)
                .map_err(|error| ended(self.plan, self.shared, link.number, link.receiver.ready, error.to_string()))?;
        }
        Ok(())
    }

    /// Makes this turn's counts visible and wakes those who wait for them.
    fn report(&mut self) {
        let state = &self.shared.workers[self.index].0;
        state.sent.store(self.sent, Ordering::Release);
        state.delivered.store(self.tallies.delivered, Ordering::Release);
        state.delivered_octets.store(self.tallies.delivered_octets, Ordering::Release);
        if self.shared.stage() <= Stage::Subscribe {
            state.ready.store(self.links.iter().filter(|link| link.receiver.ready).count() as u64, Ordering::Release);
            state.subscribed.store(self.links.iter().map(|link| link.receiver.subscribed).sum(), Ordering::Release);
        }
    }

    /// Credits the publishers and hands latencies over.
    fn hand_over(&mut self) {
        let mut wake = 0u64;
        while let Some(publisher) = self.tallies.touched.pop() {
            let count = std::mem::take(&mut self.tallies.credits[publisher as usize]);
            self.shared.credits[publisher as usize].0.fetch_add(u64::from(count), Ordering::SeqCst);
            wake |= 1 << (thread_of(publisher, self.plan.threads) & 63);
        }
        wake &= !(1 << (self.index & 63));
        while wake != 0 {
            let worker = wake.trailing_zeros() as usize;
            wake &= wake - 1;
            if let Some(state) = self.shared.workers.get(worker)
                && state.0.parked.swap(false, Ordering::SeqCst)
                && let Some(Some(waker)) = self.wakers.get(worker)
            {
                waker.wake();
            }
        }
        self.shared.hand_over(self.index, &mut self.tallies.latencies);
    }

    fn leave(&mut self) {
        for (slot, link) in (0..).zip(&mut self.links) {
            link.client.leave(&mut link.out.octets);
            let _ = link.client.seal(&mut link.out.octets);
            self.door.leave(slot, &mut link.out);
        }
    }

    fn leavings(self) -> Leavings {
        let mut leavings = Leavings { latencies: self.tallies.latencies, lag: self.lag, ..Leavings::default() };
        let end_ns = self.shared.measure_to_ns.load(Ordering::Acquire);
        for mut link in self.links {
            leavings.books.push(link.receiver.book);
            for publisher in [&mut link.publisher, &mut link.responder].into_iter().flatten() {
                leavings.sent.extend(publisher.tallies());
                // What a counted run was not asked for was never due.
                if publisher.pace.is_some() && end_ns != u64::MAX && self.plan.count.is_none() {
                    leavings.unsent += publisher.unsent(end_ns);
                }
            }
        }
        leavings
    }
}

fn ended(plan: &Plan, shared: &Shared, number: u32, ready: bool, reason: String) -> BenchError {
    fate::ended(plan, shared.stage().name(), number, ready, shared.sum(|w| &w.ready), reason)
}

/// A relay does not tell when it is ready: give it a moment.
pub(crate) fn settle(peer: Peer) {
    if peer == Peer::Relay {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Adds what the workers leave to the run's books.
pub(crate) fn balance(leavings: &mut [Leavings], copies: u32) -> Faults {
    let mut books = Books::default();
    let mut unbooked = Faults::default();
    for worker in leavings {
        worker.sent.drain(..).for_each(|(flow, tally)| books.sent(flow, tally));
        worker.books.drain(..).for_each(|book| books.received(book));
        unbooked.merge(&worker.faults);
    }
    let mut faults = books.balance(u64::from(copies));
    faults.merge(&unbooked);
    faults
}
