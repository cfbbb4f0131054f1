//! Names as people write them: `o/n/app/7`, and who holds them: `o/n/app/7@3`.
//!
//! ```text
//! name       = component "/" component "/" component "/" id
//! aggregate  = component "/" [ component "/" ] "*"
//! component  = text | "0x" 16 hex digits, where only the hash is known
//! id         = "*" (any) | decimal | UUID
//! connection = [ kind ":" ] ( slot | "s" shard "." slot "#" generation )
//! ```
//!
//! A connection's kind is `edge` unless said otherwise, its shard and generation 0.

use crate::rib::IdText;
use crate::{Aggregate, ConnId, Rib};
use slimline_wire::name::component_hash;
use slimline_wire::{ConnType, Name, NameId, Prefix};
use std::fmt::{self, Write as _};

/// What stands before an `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Three components and an id.
    Name(Name),
    /// One or two components and a star.
    Aggregate(Aggregate),
}

/// Why a text is not a name or a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseError {
    text: String,
    expected: &'static str,
}

/// Reads a name: `o/n/app/7`, `o/n/app/*`.
///
/// Errors: [`ParseError`] with the part that did not fit.
pub fn parse_name(text: &str) -> Result<Name, ParseError> {
    match parse_target(text)? {
        Target::Name(name) => Ok(name),
        Target::Aggregate(_) => Err(error(text, "a name of three components and an id")),
    }
}

/// Reads a name or an aggregate: `o/n/*`, `o/*`.
///
/// Errors: as [`parse_name`].
pub fn parse_target(text: &str) -> Result<Target, ParseError> {
    let parts: Vec<&str> = text.split('/').collect();
    Ok(match parts[..] {
        [organisation, "*"] => Target::Aggregate(Aggregate::Organisation([component(organisation)?])),
        [organisation, namespace, "*"] => {
            Target::Aggregate(Aggregate::Namespace([component(organisation)?, component(namespace)?]))
        }
        [organisation, namespace, service, id] => {
            let prefix = Prefix([component(organisation)?, component(namespace)?, component(service)?]);
            Target::Name(Name { prefix, id: parse_id(id)? })
        }
        _ => return Err(error(text, "a name or an aggregate")),
    })
}

/// Reads a connection: `3`, `peer:3`, `s1.3#2`, `remote:s1.3#2`.
///
/// Errors: as [`parse_name`].
pub fn parse_conn(text: &str) -> Result<(ConnId, ConnType), ParseError> {
    let (kind, place) = match text.split_once(':') {
        None => (ConnType::Edge, text),
        Some((kind, place)) => (parse_kind(kind)?, place),
    };
    let not_it = || error(text, "a connection");
    let conn = match place.strip_prefix('s') {
        None => ConnId { shard: 0, slot: place.parse().map_err(|_| not_it())?, generation: 0 },
        Some(place) => {
            let (shard, place) = place.split_once('.').ok_or_else(not_it)?;
            let (slot, generation) = place.split_once('#').ok_or_else(not_it)?;
            ConnId {
                shard: shard.parse().map_err(|_| not_it())?,
                slot: slot.parse().map_err(|_| not_it())?,
                generation: generation.parse().map_err(|_| not_it())?,
            }
        }
    };
    Ok((conn, kind))
}

/// Writes every subscription of `rib`, one a line, sorted, for people and for comparing two nodes.
///
/// Shape:  `o/n/app/7@3 17`: name, connection, subscription id.
/// Errors: only those of `out`.
pub fn write_rib(rib: &Rib, out: &mut impl fmt::Write) -> fmt::Result {
    let mut records: Vec<_> = rib.records().collect();
    records.sort_unstable();
    for record in records {
        let name = NameText { name: record.name, text: rib.text_of(&record.name.prefix) };
        writeln!(out, "{name}@{} {}", ConnText(record.conn, record.kind), record.subscription_id)?;
    }
    Ok(())
}

/// A name with what is known of its text.
#[derive(Clone, Copy, Debug)]
pub struct NameText<'a> {
    /// The name.
    pub name: Name,
    /// Its components' texts, as [`Rib::text_of`] gives them.
    pub text: [Option<&'a str>; 3],
}

impl fmt::Display for NameText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (hash, text) in self.name.prefix.0.iter().zip(self.text) {
            match text.filter(|text| is_plain(text)) {
                Some(text) => f.write_str(text)?,
                None => write!(f, "0x{hash:016x}")?,
            }
            f.write_char('/')?;
        }
        match self.name.id {
            NameId::ANY => f.write_char('*'),
            NameId(small) if small <= u128::from(u32::MAX) => write!(f, "{small}"),
            id => write!(f, "{}", IdText(id)),
        }
    }
}

/// A connection and its kind, as [`parse_conn`] reads them.
#[derive(Clone, Copy, Debug)]
pub struct ConnText(pub ConnId, pub ConnType);

impl fmt::Display for ConnText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(conn, kind) = *self;
        if kind != ConnType::Edge {
            write!(f, "{}:", kind_text(kind))?;
        }
        match conn {
            ConnId { shard: 0, slot, generation: 0 } => write!(f, "{slot}"),
            _ => write!(f, "{conn}"),
        }
    }
}

/// Whether a text is read back as it is written: no separator, no blank, nothing that looks like a hash or a star.
fn is_plain(text: &str) -> bool {
    let has_separator = text.contains(|c: char| c == '/' || c == '@' || c.is_whitespace() || c.is_control());
    !text.is_empty() && !has_separator && text != "*" && !text.starts_with("0x")
}

fn component(text: &str) -> Result<u64, ParseError> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).map_err(|_| error(text, "a component's hash")),
        None if text.is_empty() => Err(error(text, "a component")),
        None => Ok(component_hash(text)),
    }
}

fn parse_id(text: &str) -> Result<NameId, ParseError> {
    let not_it = || error(text, "an id");
    match text {
        "*" => Ok(NameId::ANY),
        _ if text.contains('-') => {
            let hex: String = text.split('-').collect();
            u128::from_str_radix(&hex, 16).map(NameId).map_err(|_| not_it())
        }
        _ => text.parse().map(NameId).map_err(|_| not_it()),
    }
}

fn parse_kind(text: &str) -> Result<ConnType, ParseError> {
    crate::conn::KINDS
        .into_iter()
        .find(|&kind| kind_text(kind) == text)
        .ok_or_else(|| error(text, "a kind of connection (local, remote, peer, edge)"))
}

fn kind_text(kind: ConnType) -> &'static str {
    match kind {
        ConnType::Local => "local",
        ConnType::Remote => "remote",
        ConnType::Peer => "peer",
        ConnType::Edge => "edge",
    }
}

fn error(text: &str, expected: &'static str) -> ParseError {
    ParseError { text: text.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RibLimits;

    #[test]
    fn what_is_written_is_read_back() {
        let mut rib = Rib::new(RibLimits::default());
        let told = Some(["o", "n", "app"]);
        let liar = Some(["o", "n", "other"]); // not what the hash says
        let odd = Some(["0xo", "n/", "ä"]);
        let prefix = Prefix::of("o", "n", "app");
        let edge = ConnId { shard: 0, slot: 3, generation: 0 };
        let peer = ConnId { shard: 2, slot: 1, generation: 9 };
        let subscriptions = [
            (edge, ConnType::Edge, Name { prefix, id: NameId(7) }, told, 17),
            (edge, ConnType::Edge, Name { prefix, id: NameId::ANY }, None, 18),
            (peer, ConnType::Peer, Name { prefix, id: NameId(1 << 100) }, None, 0),
            (peer, ConnType::Peer, Name { prefix: Prefix::of("o", "n", "b"), id: NameId(1) }, liar, 0),
            (peer, ConnType::Peer, Name { prefix: Prefix::of("0xo", "n/", "ä"), id: NameId(1) }, odd, 0),
        ];
        for (conn, kind, name, text, id) in subscriptions {
            rib.subscribe(conn, kind, name, text, id, &mut Vec::new()).expect("room");
        }
        let mut dump = String::new();
        write_rib(&rib, &mut dump).expect("strings take everything");
        for line in ["o/n/app/7@3 17", "o/n/app/*@3 18", "/app/00000010-0000-0000-0000-000000000000@peer:s2.1#9 0"] {
            assert!(dump.contains(line), "{line} is missing from\n{dump}");
        }
        let mut expected: Vec<_> =
            subscriptions.iter().map(|&(conn, kind, name, _, id)| (name, conn, kind, id)).collect();
        expected.sort_unstable();
        let read: Vec<_> = dump
            .lines()
            .map(|line| {
                let (line, id) = line.split_once(' ').expect("an id at the end");
                let (name, conn) = line.split_once('@').expect("a connection");
                let (conn, kind) = parse_conn(conn).expect(conn);
                (parse_name(name).expect(name), conn, kind, id.parse().expect(id))
            })
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_name_says_what_is_wrong() {
        let text = |result: Result<Name, ParseError>| result.expect_err("should not parse").to_string();
        assert_eq!(text(parse_name("o/n/*")), "`o/n/*` is not a name of three components and an id");
        assert_eq!(text(parse_name("o//app/7")), "`` is not a component");
        assert_eq!(text(parse_name("o/n/app/x")), "`x` is not an id");
        assert!(parse_conn("s1.2").is_err());
        assert!(parse_conn("friend:2").is_err());
    }
}
