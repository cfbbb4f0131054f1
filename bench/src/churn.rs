//! Churn: clients that connect, negotiate, subscribe, receive one message and leave, again and again. One steady
//! publisher per thread greets each newcomer, whose message proves that its route is in force once it is acknowledged.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slimline_wire::name::{Name, NameId, Prefix};

use crate::client::compose::{self, Envelope, HeaderParts};
use crate::client::{Client, Happening, Publish, Wanted, slim};
use crate::engine::{self, Arrival, Door, Outbox};
use crate::error::{BenchError, Result};
use crate::fate::{self, CLOSED};
use crate::payload::{Kind, Stamp, mix};
use crate::plan::Plan;
use crate::random::Random;
use crate::shared::{Shared, Stage};
use crate::topology::Names;
use crate::worker::Leavings;

/// The greeter's slot; newcomers have the others.
const GREETER: u32 = 0;
/// A newcomer that has not been greeted by then has been forgotten.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// Longest wait: how soon a stage change is seen.
const PATIENCE: Duration = Duration::from_millis(20);

/// What a newcomer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Negotiation,
    Subscription,
    Greeting,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Negotiation => "negotiation",
            Self::Subscription => "subscription",
            Self::Greeting => "greeting",
        }
    }
}

struct Visitor {
    client: Client,
    out: Outbox,
    step: Step,
    since: Instant,
    /// Its name.
    index: u32,
}

/// What visitors' octets led to, acted upon once they are read.
enum Act {
    Ready(u32),
    Subscribed(u32),
    /// With what the message said, if it was whole, and its payload's octets.
    Greeted(u32, Option<Stamp>, usize),
}

struct Churn<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    index: usize,
    /// How many visit this thread at a time.
    places: u32,
    address: SocketAddr,
    names: Names,
    door: Box<dyn Door>,
    visitors: Vec<Visitor>,
    next_index: u32,
    greeter: (Name, [String; 3]),
    /// Newcomers who were ready before the greeter was.
    ungreeted: Vec<u32>,
    identity: Vec<u8>,
    random: Random,
    greeted: u64,
    cycles: u64,
    octets: u64,
    found: Leavings,
}

/// One thread's share of the visitors, until the measurement is over.
pub(crate) fn run(plan: &Plan, shared: &Shared, index: usize, names: Names) -> Result<Leavings> {
    if let Some(&cpu) = plan.pin.get(index) {
        crate::machine::pin(cpu)?;
    }
    shared.set_thread(index);
    let refused = |error| BenchError::Connect { endpoint: plan.endpoint.clone(), error };
    let address = plan.endpoint.to_socket_addrs().map_err(refused)?.next();
    let address = address.ok_or_else(|| BenchError::Plan(format!("--node {}: no such address", plan.endpoint)))?;
    // Threads share nothing, so neither do their names.
    let names = Names { run: names.run ^ mix(index as u64) as u32 };
    let text = ["bench".to_owned(), format!("run-{:08x}", names.run), "greeter".to_owned()];
    let name = Name { prefix: Prefix::of(&text[0], &text[1], &text[2]), id: NameId(1) };
    let door = engine::open(plan.engine, !plan.nagle)?;
    shared.set_waker(index, door.waker());
    let mut churn = Churn {
        plan,
        shared,
        index,
        places: plan.pubs / plan.threads + u32::from((index as u32) < plan.pubs % plan.threads),
        address,
        names,
        door,
        visitors: Vec::new(),
        next_index: 0,
        greeter: (name, text),
        ungreeted: Vec::new(),
        identity: vec![b'g'; plan.identity as usize],
        random: Random::new(plan.seed ^ mix(index as u64)),
        greeted: 0,
        cycles: 0,
        octets: 0,
        found: Leavings::default(),
    };
    for slot in 0..=churn.places {
        let visitor = churn.arrive(slot)?;
        churn.visitors.push(visitor);
        churn.flush(slot)?;
    }
    churn.turns()?;
    Ok(churn.found)
}

impl Churn<'_> {
    /// Connects whoever comes to `slot` next.
    fn arrive(&mut self, slot: u32) -> Result<Visitor> {
        let since = Instant::now();
        let socket = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))
            .map_err(|error| BenchError::Connect { endpoint: self.plan.endpoint.clone(), error })?;
        socket.set_nodelay(!self.plan.nagle).map_err(BenchError::system("set TCP_NODELAY"))?;
        let mut out = Outbox::default();
        let index = self.next_index;
        self.next_index += 1;
        let settings = slim::Settings {
            authority: self.plan.endpoint.clone(),
            run: self.names.run,
            connection: index,
            verify_one_in: 1,
            tls: self.plan.tls.clone(),
            authorization: self.plan.authorization.clone(),
            no_mac: false,
        };
        let client =
            Client::start(self.plan.peer, &settings, slot == GREETER, 0, &mut out.octets).map_err(BenchError::Plan)?;
        self.door.adopt(slot, socket).map_err(BenchError::system("watch a socket"))?;
        Ok(Visitor { client, out, step: Step::Negotiation, since, index })
    }

    fn turns(&mut self) -> Result<()> {
        let mut acts = Vec::new();
        let quota = self.plan.count.map(|count| count.div_ceil(u64::from(self.plan.threads)));
        let mut cycles_before = None;
        let patience = if self.plan.spin { Duration::ZERO } else { PATIENCE };
        while self.shared.stage() < Stage::Drain {
            let mut failure = None;
            let Self { door, visitors, names, plan, .. } = self;
            let told = door.wait(patience, &mut |slot, arrival| {
                let Some(visitor) = visitors.get_mut(slot as usize) else { return };
                let ready = visitor.step != Step::Negotiation;
                let end = |reason: String| fate::ended(plan, "churn", slot, ready, 0, reason);
                match arrival {
                    Arrival::Writable => visitor.out.blocked = false,
                    Arrival::Ended(error) => {
                        failure = Some(end(error.map_or_else(|| CLOSED.into(), |e| e.to_string())));
                    }
                    Arrival::Octets(octets) => {
                        let read =
                            visitor.client.receive(Instant::now(), octets, &mut visitor.out.octets, &mut |happening| {
                                acts.push(match happening {
                                    Happening::Ready => Act::Ready(slot),
                                    Happening::Subscribed => Act::Subscribed(slot),
                                    Happening::Delivery { payload } => {
                                        let stamp = Stamp::read(payload, names.run, true);
                                        Act::Greeted(slot, stamp.ok(), payload.len())
                                    }
                                    Happening::Damaged => Act::Greeted(slot, None, 0),
                                });
                            });
                        if let Err(reason) = read {
                            failure = Some(end(reason));
                        }
                    }
                }
            });
            told.map_err(BenchError::system("wait for sockets"))?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            for act in acts.drain(..) {
                self.act(act)?;
            }
            self.sweep()?;
            let state = &self.shared.workers[self.index].0;
            state.sent.store(self.greeted, Ordering::Release);
            state.delivered.store(self.cycles, Ordering::Release);
            state.delivered_octets.store(self.octets, Ordering::Release);
            self.shared.hand_over(self.index, &mut self.found.latencies);
            if self.measures() {
                let before = *cycles_before.get_or_insert(self.cycles);
                state.finished.store(quota.is_some_and(|quota| self.cycles - before >= quota), Ordering::Release);
            }
        }
        Ok(())
    }

    fn measures(&self) -> bool {
        self.shared.stage() == Stage::Measure
    }

    fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Ready(GREETER) => {
                self.visitors[GREETER as usize].step = Step::Greeting;
                for index in std::mem::take(&mut self.ungreeted) {
                    self.greet(index)?;
                }
            }
            Act::Ready(slot) => {
                let visitor = &mut self.visitors[slot as usize];
                let text = self.names.text(visitor.index);
                let name = self.names.name(visitor.index, self.names.instance(visitor.index, 0));
                let wanted = Wanted { name, text: &text, index: visitor.index, identity: &self.identity };
                visitor.client.subscribe(&wanted, &mut visitor.out.octets).map_err(BenchError::Plan)?;
                visitor.step = Step::Subscription;
                self.flush(slot)?;
            }
            Act::Subscribed(slot) => {
                let visitor = &mut self.visitors[slot as usize];
                visitor.step = Step::Greeting;
                let (index, waited) = (visitor.index, visitor.since.elapsed());
                if self.measures() {
                    self.found.subscribed.record(waited.as_nanos() as u64);
                }
                if self.visitors[GREETER as usize].step == Step::Greeting {
                    self.greet(index)?;
                } else {
                    self.ungreeted.push(index);
                }
            }
            Act::Greeted(slot, stamp, octets) => {
                let visitor = &self.visitors[slot as usize];
                match stamp {
                    None => self.found.faults.corrupt += 1,
                    Some(stamp) if stamp.name != visitor.index => self.found.faults.misrouted += 1,
                    Some(_) if visitor.step != Step::Greeting => self.found.faults.duplicated += 1,
                    Some(_) => {
                        self.cycles += 1;
                        self.octets += octets as u64;
                        if self.measures() {
                            self.found.latencies.record(visitor.since.elapsed().as_nanos() as u64);
                        }
                        self.replace(slot)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Publishes one message to a newcomer's name.
    fn greet(&mut self, index: u32) -> Result<()> {
        let greeter = &mut self.visitors[GREETER as usize];
        let name = self.names.name(index, self.names.instance(index, 0));
        let text = self.names.text(index);
        let parts = HeaderParts {
            source: (&self.greeter.0, &self.greeter.1),
            destination: (&name, &text),
            identity: &self.identity,
            fanout: 1,
        };
        let mut header = Vec::new();
        let mac_at = compose::header(&parts, &mut header);
        greeter.client.sign(&mut header, mac_at).map_err(BenchError::Plan)?;
        let stamp =
            Stamp { run: self.names.run, publisher: 0, name: index, kind: Kind::Data, sequence: 0, intended_ns: 0 };
        let envelope = Envelope { session_id: 1, message_id: index, session_type: 1 };
        let octets = self.plan.sizes.draw(&mut self.random);
        if greeter.client.publish(&header, envelope, octets, &stamp, &mut greeter.out.octets) == Publish::Blocked {
            return Err(BenchError::Plan("the node stopped reading from the greeter".into()));
        }
        self.greeted += 1;
        self.flush(GREETER)
    }

    /// Lets a visitor go and the next one in.
    fn replace(&mut self, slot: u32) -> Result<()> {
        let visitor = &mut self.visitors[slot as usize];
        visitor.client.leave(&mut visitor.out.octets);
        visitor.client.seal(&mut visitor.out.octets).map_err(BenchError::Plan)?;
        self.door.leave(slot, &mut visitor.out);
        self.visitors[slot as usize] = self.arrive(slot)?;
        self.flush(slot)
    }

    /// Counts those who were forgotten as lost.
    fn sweep(&mut self) -> Result<()> {
        for slot in 0..=self.places {
            let visitor = &self.visitors[slot as usize];
            if visitor.since.elapsed() < FORGOTTEN || slot == GREETER {
                let waits = !visitor.out.is_empty() || visitor.client.unsealed() > 0;
                if waits && !visitor.out.blocked {
                    self.flush(slot)?;
                }
                continue;
            }
            match visitor.step {
                Step::Greeting => {
                    self.found.faults.lost += 1;
                    self.replace(slot)?;
                }
                step => {
                    let seconds = FORGOTTEN.as_secs();
                    let hint = "; does the node require TLS or authentication?";
                    return Err(BenchError::Deadline { what: step.name(), seconds, done: 0, wanted: 1, hint });
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, slot: u32) -> Result<()> {
        let visitor = &mut self.visitors[slot as usize];
        visitor.client.seal(&mut visitor.out.octets).map_err(BenchError::Plan)?;
        self.door.send(slot, &mut visitor.out).map_err(BenchError::system("send"))
    }
}
