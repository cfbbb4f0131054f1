//! Order for changes of membership where no commits give it: in groups without encryption.
//!
//! A moderator of ours numbers its lists of members and says of each member where its stream begins, beside what the protocol
//! says; the reference's applications read neither and carry on as they do among themselves. So a list that comes late is known
//! to be old, one that follows a list that never came is complete, a word of a stay that ended is no part of the present one,
//! and a member that missed the last list notices by the next heartbeat.

use std::fmt;

use slimline_wire::pb;

use crate::exchange::Member;
use crate::message::{Draft, Incoming};
use crate::name::Name;
use crate::reliable::{ReceiveWindow, SEQUENCED};
use crate::session::{Event, Session};

/// Metadata of welcomes, updates, leave requests and heartbeats: the number of the list, then a [`Stay`] for each participant in
/// the message, in their order.
pub(crate) const ROSTER: &str = "slim-roster";
/// Metadata of what a participant says about itself: the first id of its stream.
pub(crate) const STREAM: &str = "slim-stream";
/// So far beyond the stream of an earlier stay begins the next one, where the earlier one is remembered.
pub(crate) const STAYS_APART: u32 = 1 << 24;

/// Tells the stays of one member apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// Its stream begins with this id, and no earlier one of its has ids near it.
    Numbered(u32),
    /// It came in by the list of this number, and its stream begins with 1 as every time: it is not of ours.
    Plain(u32),
}

impl Stay {
    /// The first id of its stream.
    pub(crate) fn first(self) -> u32 {
        match self {
            Self::Numbered(first) => first,
            Self::Plain(_) => 1,
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix('p') {
            Some(number) => number.parse().ok().map(Self::Plain),
            None => first_id(text).map(Self::Numbered),
        }
    }
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(first) => write!(f, "{first}"),
            Self::Plain(number) => write!(f, "p{number}"),
        }
    }
}

/// A list's number, and the stays it names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: u32,
    pub(crate) stays: Vec<Stay>,
}

impl Numbered {
    /// Shape:  `7`, or `7 1 804 p3`.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let number = words.next()?.parse().ok().filter(|number| *number > 0)?;
        let stays = words.map(Stay::read).collect::<Option<Vec<_>>>()?;
        Some(Self { number, stays })
    }

    /// What the message says, if it does.
    pub(crate) fn of(incoming: &Incoming) -> Option<Self> {
        Self::read(incoming.word(ROSTER)?)
    }
}

fn first_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|first| *first < SEQUENCED)
}

/// Where the sender says that its stream begins.
pub(crate) fn stream_of(incoming: &Incoming) -> Option<u32> {
    first_id(incoming.word(STREAM)?)
}

/// What a list is about, for those who take it.
#[derive(Clone, Copy)]
pub(crate) enum About<'a> {
    /// It welcomes us.
    Welcome,
    /// We were away, and are told who is here now.
    Return,
    /// Somebody else came or came back.
    Other(&'a Name),
    /// Somebody else went.
    Gone(&'a Name),
}

impl Session {
    /// We are invited to a group, perhaps again: where our stream begins, and what we heard before.
    pub(crate) fn enter(&mut self, former: Option<&Session>) {
        if !self.is_group() || self.mls.is_some() {
            return;
        }
        let former = former.filter(|former| former.moderator == self.moderator && former.remote == self.remote);
        let first = match former {
            Some(former) => former.send.upcoming().wrapping_add(STAYS_APART),
            None => self.ids.within(1, SEQUENCED),
        };
        self.send.begin(first);
        if let Some(former) = former {
            self.alone.clone_from(&former.alone);
            let heard = former.roster.values().filter_map(|member| Some((member.stay?, member.heard_to?, member)));
            self.former = heard.map(|(stay, next, member)| (member.name.clone(), (stay, next))).collect();
        }
    }

    /// We number the lists.
    pub(crate) fn numbers_lists(&self) -> bool {
        self.began.is_some() && self.is_moderator()
    }

    /// A new list is made.
    pub(crate) fn number_list(&mut self) {
        if self.numbers_lists() {
            self.commit_id += 1;
        }
    }

    /// Puts our number, and the stays of those in [`Session::all_members`], beside a message.
    pub(crate) fn with_list(&self, draft: Draft) -> Draft {
        let Some(ours) = self.began.filter(|_| self.numbers_lists()) else { return draft };
        let others = self.roster.values().map(|member| member.stay.unwrap_or(Stay::Plain(0)));
        let stays = std::iter::once(Stay::Numbered(ours)).chain(others);
        let text = stays.fold(self.commit_id.to_string(), |text, stay| format!("{text} {stay}"));
        draft.with(ROSTER, &text)
    }

    /// Puts only our number beside a message.
    pub(crate) fn with_number(&self, draft: Draft) -> Draft {
        if self.numbers_lists() { draft.with(ROSTER, &self.commit_id.to_string()) } else { draft }
    }

    /// Says which stay of ours a message is about, where lists are numbered.
    pub(crate) fn with_stream(&self, draft: Draft) -> Draft {
        match self.began {
            Some(first) => draft.with(STREAM, &first.to_string()),
            None => draft,
        }
    }

    /// The sender speaks of a stay that ended.
    pub(crate) fn is_of_earlier_stay(&self, incoming: &Incoming) -> bool {
        let known = self.roster.get(&incoming.source).and_then(|member| member.stay);
        match (known, stream_of(incoming)) {
            (Some(known), Some(first)) => known != Stay::Numbered(first),
            _ => false,
        }
    }

    /// A message with this id is no part of the stream of its sender's present stay, or came to us in an earlier stay of ours.
    pub(crate) fn is_of_another_stream(&self, source: &Name, id: u32) -> bool {
        let Some(member) = self.roster.get(source).filter(|_| id < SEQUENCED) else { return false };
        let from = member.stay.map(Stay::first).into_iter().chain(member.heard_to);
        from.into_iter().any(|from| ReceiveWindow::ahead(from, id).is_none())
    }

    /// The list in a message, each member with its stay; `None` if it is not numbered.
    pub(crate) fn numbered_list(
        &self,
        incoming: &Incoming,
        participants: &[pb::Participant],
    ) -> Option<(u32, Vec<Member>)> {
        if !self.is_group() || self.mls.is_some() {
            return None;
        }
        let numbered = Numbered::of(incoming).filter(|numbered| numbered.stays.len() == participants.len())?;
        let members = participants.iter().zip(numbered.stays).map(|(participant, stay)| {
            let member = Member::from_wire(participant)?;
            Some(Member { stay: Some(stay), ..member })
        });
        Some((numbered.number, members.collect::<Option<Vec<_>>>()?))
    }

    /// Takes a complete list for ours, whatever we missed before it.
    pub(crate) fn take_numbered(&mut self, number: u32, listed: Vec<Member>, about: About<'_>) {
        self.commit_id = number;
        let mut before = std::mem::take(&mut self.roster);
        for listed in listed {
            let (name, stay) = (listed.name.clone(), listed.stay);
            if name == self.local {
                self.stays_as(stay);
                continue;
            }
            if matches!(about, About::Gone(gone) if *gone == name) {
                continue;
            }
            let member = match before.remove(&name) {
                Some(known) if known.stay == stay => match about {
                    About::Welcome | About::Return => Member { online: listed.online, ..known },
                    About::Other(who) if *who == name => Member { online: true, heard: true, ..known },
                    _ => known,
                },
                // It left and came again, and we missed it.
                Some(_) => {
                    self.send.gone(&name);
                    self.leave_stream(&name, stay);
                    self.events.extend([Event::Left(name.clone()), Event::Joined(name.clone())]);
                    let from_start = !matches!(about, About::Return);
                    Member { from_start, ..listed }
                }
                None if matches!(about, About::Welcome) => {
                    let known = self.former.remove(&name).filter(|(of, _)| Some(*of) == stay);
                    Member { from_start: false, heard_to: known.map(|(_, next)| next), ..listed }
                }
                None => {
                    self.events.push_back(Event::Joined(name.clone()));
                    let from_start = !matches!(about, About::Return);
                    Member { from_start, ..listed }
                }
            };
            self.roster.insert(name, member);
        }
        for name in before.into_keys() {
            self.send.gone(&name);
            self.finish_stream(&name);
            self.events.push_back(Event::Left(name));
        }
        self.former.clear();
        self.collect_deliveries();
    }

    /// Where our own stream begins, as everybody is told: what was said before that counts for nobody any more.
    fn stays_as(&mut self, stay: Option<Stay>) {
        if let Some(Stay::Numbered(first)) = stay {
            self.began = Some(first);
            self.send.gone_before(first);
        }
    }

    /// The stream of an earlier stay ends, unless it led over into the present one already.
    fn leave_stream(&mut self, source: &Name, stay: Option<Stay>) {
        let next = self.receive.get(source).and_then(|window| window.next);
        if let (Some(Stay::Numbered(first)), Some(next)) = (stay, next)
            && ReceiveWindow::ahead(first, next).is_some_and(|beyond| beyond < STAYS_APART / 2)
        {
            return;
        }
        if let Some(window) = self.receive.get_mut(source) {
            window.far = None; // it belongs to the stream that begins
        }
        self.finish_stream(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_written() {
        let read = |text| Numbered::read(text);
        let stays = vec![Stay::Numbered(1), Stay::Numbered(804), Stay::Plain(3)];
        assert_eq!(read("7 1 804 p3"), Some(Numbered { number: 7, stays }));
        assert_eq!(read("7"), Some(Numbered { number: 7, stays: vec![] }));
        for wrong in ["", "0", "0 1", "7 ", "7 x", "7 p", "-1", "7 2147483648", "4294967296"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
