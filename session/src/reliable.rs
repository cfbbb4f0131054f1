//! Reliability: what was sent and who has it; what arrived and what is missing.

use std::time::Duration;

use crate::name::Name;

mod receive;
mod send;

pub(crate) use receive::{Arrival, ReceiveWindow, Released};
pub(crate) use send::{Expired, SendWindow, Stored};

/// Messages kept for retransmission, as the reference keeps.
pub const SEND_WINDOW: usize = 512;
/// Octets of them, metadata included. Those that are settled are forgotten before a publisher has to wait.
pub const SEND_WINDOW_OCTETS: usize = 16 << 20;
/// How far ahead of a gap messages are held: the sender keeps no more.
pub const RECEIVE_WINDOW: u32 = 512;
/// Octets held ahead of gaps in one stream: a sender like us keeps no more.
pub const RECEIVE_WINDOW_OCTETS: usize = SEND_WINDOW_OCTETS;
/// Octets held ahead of gaps in all streams of a session. Beyond either bound only what comes next in its stream is taken;
/// everything else is not acknowledged, and comes again.
pub const HELD_OCTETS_MAX: usize = 64 << 20;
/// Missing messages asked for at once; the others wait an interval.
const REQUESTS_AT_ONCE: usize = 64;
/// Sequenced ids lie below; ids of `publish_to` above.
pub(crate) const SEQUENCED: u32 = 1 << 31;
/// Up to this distance an id lies ahead, further it lies behind.
const AHEAD: u32 = 1 << 30;

/// How often, and how many times, something is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Time between two sends.
    pub interval: Duration,
    /// Sends after the first.
    pub max: u32,
}

impl Retries {
    /// How long until it is given up.
    #[must_use]
    pub fn give_up_after(self) -> Duration {
        self.interval * (self.max + 1)
    }
}

/// Names one publish; its outcome comes as an event with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublishId(pub u64);

/// What became of a publish at one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It acknowledged.
    Delivered,
    /// It did not, after all retries.
    TimedOut,
    /// It went offline or left meanwhile.
    Gone,
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// One line per recipient; empty in sessions that are not reliable.
    pub recipients: Vec<(Name, Outcome)>,
}

impl Delivery {
    /// Whether every recipient acknowledged (also true when no acknowledgement was asked for).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.recipients.iter().all(|(_, outcome)| *outcome == Outcome::Delivered)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Instant;

    use super::*;
    use crate::message::Received;

    const RETRIES: Retries = Retries { interval: Duration::from_secs(1), max: 2 };

    fn name(text: &str) -> Name {
        format!("a/b/{text}").parse().unwrap()
    }

    fn message(n: u32) -> Received {
        Received {
            source: name("s"),
            destination: name("d"),
            subject: None,
            payload_type: "msg".into(),
            payload: n.to_string().into(),
            metadata: BTreeMap::new(),
            to_us_alone: false,
        }
    }

    /// Feeds ids and shows what comes out: `3` a message, `!4-6` a loss, `?2` a request.
    fn feed(window: &mut ReceiveWindow, now: Instant, ids: &[u32]) -> String {
        for id in ids {
            window.receive(now, *id, message(*id), usize::MAX);
        }
        drain(window)
    }

    fn drain(window: &mut ReceiveWindow) -> String {
        let mut out = Vec::new();
        while let Some(id) = window.poll_request() {
            out.push(format!("?{id}"));
        }
        while let Some(released) = window.poll_released() {
            out.push(match released {
                Released::Message(message) => String::from_utf8(message.payload.to_vec()).unwrap(),
                Released::Lost(first, last) => format!("!{first}-{last}"),
            });
        }
        out.join(" ")
    }

    #[test]
    fn order_is_restored() {
        let now = Instant::now();
        let window = || ReceiveWindow::new(RETRIES, Some(1));
        assert_eq!(feed(&mut window(), now, &[1, 2, 3]), "1 2 3");
        assert_eq!(feed(&mut window(), now, &[3, 1, 2]), "?1 ?2 1 2 3");
        assert_eq!(feed(&mut window(), now, &[1, 1, 2, 2, 1]), "1 2");
        assert_eq!(feed(&mut window(), now, &[2, 2]), "?1");
        let mut joined_late = ReceiveWindow::new(RETRIES, None);
        assert_eq!(feed(&mut joined_late, now, &[7, 9, 6, 6, 8]), "?8 7 6 8 9");
        let mut wrapping = ReceiveWindow::new(RETRIES, Some(SEQUENCED - 1));
        assert_eq!(feed(&mut wrapping, now, &[SEQUENCED - 1, 0, 1]), "2147483647 0 1");
    }

    #[test]
    fn what_does_not_come_is_reported() {
        let start = Instant::now();
        let mut window = ReceiveWindow::new(RETRIES, Some(1));
        assert_eq!(feed(&mut window, start, &[4]), "?1 ?2 ?3");
        for second in 1..=2 {
            assert_eq!(window.next_timeout(), Some(start + Duration::from_secs(second)));
            window.handle_timeout(start + Duration::from_secs(second));
            assert_eq!(drain(&mut window), "?1 ?2 ?3");
        }
        window.lost(2); // the sender said so
        assert_eq!(drain(&mut window), "");
        window.handle_timeout(start + Duration::from_secs(3));
        assert_eq!(drain(&mut window), "!1-3 4");
        assert_eq!(window.next_timeout(), None);
    }

    #[test]
    fn a_message_far_ahead_costs_little() {
        let start = Instant::now();
        let mut window = ReceiveWindow::new(RETRIES, Some(1));
        assert_eq!(window.receive(start, 20_000, message(20_000), usize::MAX), Arrival::TooFar);
        assert_eq!(drain(&mut window), "?1");
        assert_eq!(window.receive(start, 512, message(512), usize::MAX), Arrival::Taken);
        assert!(drain(&mut window).split(' ').count() < REQUESTS_AT_ONCE);
        for second in 1..=3 {
            window.handle_timeout(start + Duration::from_secs(second));
        }
        let out = drain(&mut window);
        assert!(out.ends_with("!1-511 512 !513-19999"), "{out}");
        assert_eq!(feed(&mut window, start, &[20_000]), "20000");
    }

    /// The nearest is the nearest over the end of the numbers too: what lies between is not lost.
    #[test]
    fn far_ahead_where_ids_wrap() {
        let start = Instant::now();
        let mut window = ReceiveWindow::new(RETRIES, Some(SEQUENCED - 1000));
        for far in [5, SEQUENCED - 100, 7] {
            assert_eq!(window.receive(start, far, message(far), usize::MAX), Arrival::TooFar);
        }
        for second in 1..=3 {
            window.handle_timeout(start + Duration::from_secs(second));
        }
        let out = drain(&mut window);
        assert!(out.ends_with(&format!("-{}", SEQUENCED - 101)), "{out}");
        assert_eq!(window.next, Some(SEQUENCED - 100));
    }

    #[test]
    fn acknowledged_or_not() {
        let start = Instant::now();
        let (x, y) = (name("x"), name("y"));
        let mut window = SendWindow::new(Some(RETRIES));
        let id = window.take_id();
        let both = BTreeSet::from([x.clone(), y.clone()]);
        window.store(start, PublishId(9), id, "msg".into(), vec![1], BTreeMap::new(), None, both);
        window.acknowledged(start, id, &x);
        assert_eq!(window.poll_done(), None);
        for second in 1..=2 {
            let again = window.expire(start + Duration::from_secs(second));
            assert_eq!(again, Some(Expired::Resend(id, vec![y.clone()])));
            assert_eq!(window.expire(start + Duration::from_secs(second)), None);
        }
        assert_eq!(window.expire(start + Duration::from_secs(3)), Some(Expired::GaveUp(vec![y.clone()])));
        let delivery = window.poll_done().unwrap().1;
        assert_eq!(delivery.recipients, [(x, Outcome::Delivered), (y, Outcome::TimedOut)]);
        assert!(!delivery.is_complete());
        assert!(window.get(id).is_some(), "kept for whoever asks");
        assert_eq!(window.next_timeout(), None);
    }

    /// Whoever is on its way to a message gets it again only when it stops, or has acknowledged one that came after it.
    #[test]
    fn nobody_is_hurried() {
        let (start, x, y) = (Instant::now(), name("x"), name("y"));
        let at = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let mut window = SendWindow::new(Some(RETRIES));
        for n in 1..=4 {
            let both = BTreeSet::from([x.clone(), y.clone()]);
            let (id, to) = (window.take_id(), None);
            window.store(start, PublishId(n), id, "msg".into(), vec![1], BTreeMap::new(), to, both);
        }
        let alone = BTreeSet::from([x.clone()]);
        let to = Some(x.clone());
        window.store(start, PublishId(5), SEQUENCED + 7, "msg".into(), vec![1], BTreeMap::new(), to, alone);
        window.acknowledged(at(5), 1, &x);
        window.acknowledged(at(6), 3, &x);
        let expire = |window: &mut SendWindow, tenths| {
            let again = std::iter::from_fn(|| window.expire(at(tenths)));
            again
                .map(|again| if let Expired::Resend(id, who) = again { (id, who) } else { panic!("{again:?}") })
                .collect()
        };
        let both = vec![x.clone(), y.clone()];
        let expected = [
            (1, vec![y.clone()]),
            (2, both.clone()),
            (3, vec![y.clone()]),
            (4, vec![y.clone()]),
            (SEQUENCED + 7, vec![x.clone()]),
        ];
        let again: Vec<(u32, Vec<Name>)> = expire(&mut window, 10);
        assert_eq!(again, expected, "4 is on its way to x; one to x alone has no order");
        window.acknowledged(at(11), 1, &x); // again: it says nothing new
        let again: Vec<(u32, Vec<Name>)> = expire(&mut window, 20);
        assert_eq!(again.iter().find(|(id, _)| *id == 4), Some(&(4, both)), "x stopped");
    }

    #[test]
    fn a_full_window_says_so() {
        let now = Instant::now();
        let x = name("x");
        let mut window = SendWindow::new(Some(RETRIES));
        for n in 0..512 {
            assert!(window.has_room(0));
            let id = window.take_id();
            window.store(
                now,
                PublishId(n),
                id,
                String::new(),
                vec![],
                BTreeMap::new(),
                None,
                BTreeSet::from([x.clone()]),
            );
        }
        assert!(!window.has_room(0));
        window.acknowledged(now, 2, &x);
        assert!(!window.has_room(0), "the oldest still waits");
        window.acknowledged(now, 1, &x);
        assert!(window.has_room(0));
    }
    #[test]
    fn a_window_full_of_octets_says_so() {
        let now = Instant::now();
        let x = name("x");
        let mut window = SendWindow::new(Some(RETRIES));
        let store = |window: &mut SendWindow, octets: usize| {
            let (id, to) = (window.take_id(), BTreeSet::from([x.clone()]));
            window.store(now, PublishId(u64::from(id)), id, "msg".into(), vec![0; octets], BTreeMap::new(), None, to);
        };
        for _ in 0..15 {
            assert!(window.has_room(1 << 20));
            store(&mut window, 1 << 20);
        }
        assert!(window.has_room(1 << 20) && !window.has_room((1 << 20) + 1));
        window.acknowledged(now, 1, &name("x"));
        window.acknowledged(now, 2, &name("x"));
        assert!(window.has_room(3 << 20) && !window.has_room((3 << 20) + 1), "settled ones make room, in order");
        assert!(window.get(1).is_some(), "and are kept until it is needed");
        store(&mut window, 3 << 20);
        assert_eq!((window.get(1).is_some(), window.get(2).is_some(), window.get(3).is_some()), (false, false, true));
        assert_eq!(window.octets, SEND_WINDOW_OCTETS);
        assert!(!window.has_room(1));
    }

    #[test]
    fn what_is_held_has_a_bound_in_octets() {
        let now = Instant::now();
        let large = |n: u32| Received { payload: vec![0; 5 << 20].into(), ..message(n) };
        let mut window = ReceiveWindow::new(RETRIES, Some(1));
        for id in 2..=4 {
            assert_eq!(window.receive(now, id, large(id), usize::MAX), Arrival::Taken);
        }
        assert_eq!(window.receive(now, 5, large(5), usize::MAX), Arrival::NoRoom);
        assert_eq!(window.receive(now, 6, message(6), 0), Arrival::NoRoom, "other streams hold too much");
        assert_eq!(window.receive(now, 4, large(4), 0), Arrival::Duplicate);
        assert!(window.held_octets() <= RECEIVE_WINDOW_OCTETS);
        assert_eq!(window.receive(now, 1, large(1), 0), Arrival::Taken, "what comes next needs no room");
        assert_eq!(window.held_octets(), 0);
        let released = std::iter::from_fn(|| window.poll_released()).count();
        assert_eq!(released, 4);
        assert_eq!(window.receive(now, 5, large(5), 0), Arrival::Taken);
    }
}
