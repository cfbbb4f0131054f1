//! Churn: clients that connect, negotiate, subscribe, receive one message and leave, again and again. One steady
//! publisher per thread greets each newcomer, whose message proves that its route is in force once it is acknowledged.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use slimline_wire::name::{Name, NameId, Prefix};

use crate::client::compose::{self, Envelope, HeaderParts};
use crate::client::{Client, Happening, Publish, Wanted, slim};
use crate::engine::{self, Arrival, Door, Outbox};
use crate::error::{BenchError, Result};
use crate::ledger::Faults;
use crate::payload::{Kind, Stamp, mix};
use crate::plan::Plan;
use crate::process::Usage;
use crate::record::Recorder;
use crate::topology::Names;

/// The greeter's slot; newcomers have the others.
const GREETER: u32 = 0;
/// A newcomer that has not been greeted by then has been forgotten.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// What a run of churn found.
#[derive(Debug, Default)]
pub(crate) struct Churned {
    pub(crate) seconds: f64,
    /// Full cycles in the measured time.
    pub(crate) cycles: u64,
    /// From connect to the first message.
    pub(crate) whole: Recorder,
    /// From connect to the acknowledged subscription.
    pub(crate) subscribed: Recorder,
    pub(crate) faults: Faults,
    pub(crate) node: Option<Usage>,
    pub(crate) generator: Usage,
    pub(crate) node_rss_before_octets: u64,
}

/// What a newcomer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Negotiation,
    Subscription,
    Greeting,
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
    /// With what the message said, if it was whole.
    Greeted(u32, Option<Stamp>),
}

struct Churn<'a> {
    plan: &'a Plan,
    address: SocketAddr,
    names: Names,
    door: Box<dyn Door>,
    visitors: Vec<Visitor>,
    next_index: u32,
    greeter: (Name, [String; 3]),
    /// Newcomers who were ready before the greeter was.
    ungreeted: Vec<u32>,
    found: Churned,
    measuring: bool,
}

/// Runs churn, the visitors spread over the plan's threads.
pub(crate) fn run(plan: &Plan, names: Names) -> Result<Churned> {
    let node = || plan.node_pid.and_then(Usage::read);
    let node_rss_before_octets = node().map_or(0, |usage| usage.rss_octets);
    let threads = plan.threads.min(plan.pubs);
    let found = std::thread::scope(|scope| -> Result<Vec<Churned>> {
        let running: Vec<_> = (0..threads)
            .map(|index| {
                let visitors = plan.pubs / threads + u32::from(index < plan.pubs % threads);
                // Threads share nothing, so neither do their names.
                let names = Names { run: names.run ^ mix(u64::from(index)) as u32 };
                scope.spawn(move || {
                    if let Some(&cpu) = plan.pin.get(index as usize) {
                        crate::machine::pin(cpu)?;
                    }
                    run_thread(&Plan { pubs: visitors, ..plan.clone() }, names)
                })
            })
            .collect();
        let joined = running.into_iter().map(|thread| {
            thread.join().map_err(|_| BenchError::Plan("a generator thread panicked (see above)".into()))?
        });
        joined.collect()
    })?;
    let mut sum = Churned { node_rss_before_octets, ..Churned::default() };
    for (index, one) in found.into_iter().enumerate() {
        sum.seconds = sum.seconds.max(one.seconds);
        sum.cycles += one.cycles;
        sum.whole.merge(&one.whole);
        sum.subscribed.merge(&one.subscribed);
        sum.faults.merge(&one.faults);
        if index == 0 {
            // Each has read the usage of whole processes, over the same span but for milliseconds.
            (sum.node, sum.generator) = (one.node, one.generator);
        }
    }
    Ok(sum)
}

/// One thread's share.
fn run_thread(plan: &Plan, names: Names) -> Result<Churned> {
    let refused = |error| BenchError::Connect { endpoint: plan.endpoint.clone(), error };
    let address = plan.endpoint.to_socket_addrs().map_err(refused)?.next();
    let address = address.ok_or_else(|| BenchError::Plan(format!("--node {}: no such address", plan.endpoint)))?;
    let text = ["bench".to_owned(), format!("run-{:08x}", names.run), "greeter".to_owned()];
    let name = Name { prefix: Prefix::of(&text[0], &text[1], &text[2]), id: NameId(1) };
    let mut churn = Churn {
        plan,
        address,
        names,
        door: engine::open(plan.engine, true)?,
        visitors: Vec::new(),
        next_index: 0,
        greeter: (name, text),
        ungreeted: Vec::new(),
        found: Churned::default(),
        measuring: false,
    };
    for slot in 0..=plan.pubs {
        let visitor = churn.arrive(slot)?;
        churn.visitors.push(visitor);
        churn.flush(slot)?;
    }
    let usage = || (plan.node_pid.and_then(Usage::read), Usage::read(std::process::id()).unwrap_or_default());
    churn.turns(plan.warmup)?;
    churn.measuring = true;
    let (node, generator) = usage();
    let start = Instant::now();
    churn.turns(plan.duration)?;
    churn.found.seconds = start.elapsed().as_secs_f64();
    let (node_after, generator_after) = usage();
    churn.found.node = node_after.zip(node).map(|(after, before)| after - before);
    churn.found.generator = generator_after - generator;
    Ok(churn.found)
}

impl Churn<'_> {
    /// Connects whoever comes to `slot` next.
    fn arrive(&mut self, slot: u32) -> Result<Visitor> {
        let since = Instant::now();
        let socket = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))
            .map_err(|error| BenchError::Connect { endpoint: self.plan.endpoint.clone(), error })?;
        socket.set_nodelay(true).map_err(BenchError::system("set TCP_NODELAY"))?;
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

    fn turns(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        let mut acts = Vec::new();
        while start.elapsed() < time {
            let mut failure = None;
            let Self { door, visitors, names, .. } = self;
            let told = door.wait(Duration::from_millis(20), &mut |slot, arrival| {
                let Some(visitor) = visitors.get_mut(slot as usize) else { return };
                let end = |reason: String| BenchError::Ended { connection: slot, stage: "churn", reason };
                match arrival {
                    Arrival::Writable => visitor.out.blocked = false,
                    Arrival::Ended(error) => {
                        failure = Some(end(error.map_or_else(|| "closed by the node".into(), |e| e.to_string())));
                    }
                    Arrival::Octets(octets) => {
                        let read =
                            visitor.client.receive(Instant::now(), octets, &mut visitor.out.octets, &mut |happening| {
                                acts.push(match happening {
                                    Happening::Ready => Act::Ready(slot),
                                    Happening::Subscribed => Act::Subscribed(slot),
                                    Happening::Delivery { payload } => {
                                        Act::Greeted(slot, Stamp::read(payload, names.run, true).ok())
                                    }
                                    Happening::Damaged => Act::Greeted(slot, None),
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
        }
        Ok(())
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
                let wanted = Wanted { name, text: &text, index: visitor.index, identity: &[b't'; 229] };
                visitor.client.subscribe(&wanted, &mut visitor.out.octets).map_err(BenchError::Plan)?;
                visitor.step = Step::Subscription;
                self.flush(slot)?;
            }
            Act::Subscribed(slot) => {
                let visitor = &mut self.visitors[slot as usize];
                visitor.step = Step::Greeting;
                let (index, waited) = (visitor.index, visitor.since.elapsed());
                if self.measuring {
                    self.found.subscribed.record(waited.as_nanos() as u64);
                }
                if self.visitors[GREETER as usize].step == Step::Greeting {
                    self.greet(index)?;
                } else {
                    self.ungreeted.push(index);
                }
            }
            Act::Greeted(slot, stamp) => {
                let visitor = &mut self.visitors[slot as usize];
                match stamp {
                    None => self.found.faults.corrupt += 1,
                    Some(stamp) if stamp.name != visitor.index => self.found.faults.misrouted += 1,
                    Some(_) if visitor.step != Step::Greeting => self.found.faults.duplicated += 1,
                    Some(_) => {
                        if self.measuring {
                            self.found.cycles += 1;
                            self.found.whole.record(visitor.since.elapsed().as_nanos() as u64);
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
            identity: &[b'g'; 229],
            fanout: 1,
        };
        let mut header = Vec::new();
        let mac_at = compose::header(&parts, &mut header);
        greeter.client.sign(&mut header, mac_at).map_err(BenchError::Plan)?;
        let stamp =
            Stamp { run: self.names.run, publisher: 0, name: index, kind: Kind::Data, sequence: 0, intended_ns: 0 };
        let envelope = Envelope { session_id: 1, message_id: index, session_type: 1 };
        let octets = self.plan.sizes.max();
        if greeter.client.publish(&header, envelope, octets, &stamp, &mut greeter.out.octets) == Publish::Blocked {
            return Err(BenchError::Plan("the node stopped reading from the greeter".into()));
        }
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
        for slot in 0..=self.plan.pubs {
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
                    let reason = format!("no answer for {FORGOTTEN:?} while waiting for {step:?}");
                    return Err(BenchError::Ended { connection: slot, stage: "churn", reason });
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
