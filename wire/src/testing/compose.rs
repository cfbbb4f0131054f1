//! Messages made up by seed, good ones and spoiled ones.

use crate::message::MAC_OCTETS;
use crate::message::fields::{self, Kind, Schema};
use crate::proto::{key, put_varint, wire_type};

/// A message made up by seed that has to be accepted: any type, any content, any order, unknown fields of every wire
/// type, padded varints; yet nothing singular twice, and everything there that slim-wire §5.2 asks for.
#[must_use]
pub fn compose(seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let (number, schema) = dice.pick(&[
        (fields::message::SUBSCRIBE, &fields::SUBSCRIBE),
        (fields::message::UNSUBSCRIBE, &fields::UNSUBSCRIBE),
        (fields::message::PUBLISH, &fields::PUBLISH),
        (fields::message::PUBLISH, &fields::PUBLISH),
        (fields::message::LINK, &fields::LINK),
        (fields::message::SUBSCRIPTION_ACK, &fields::SUBSCRIPTION_ACK),
    ]);
    let mut parts = vec![dice.nested(number, schema)];
    for _ in 0..dice.below(4) {
        parts.push(dice.nested(fields::message::METADATA, &fields::METADATA_ENTRY));
    }
    dice.finish(parts, fields::message::SUBSCRIPTION_ACK)
}

/// A composed message, spoiled.
#[must_use]
pub fn compose_and_spoil(seed: u64) -> Vec<u8> {
    spoil(compose(seed), !seed)
}

/// Changes, moves, repeats or cuts off a few octets.
#[must_use]
pub fn spoil(mut octets: Vec<u8>, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    for _ in 0..=dice.below(3) {
        let length = octets.len().max(1);
        let at = dice.below(length).min(octets.len());
        match dice.below(6) {
            0 => octets.truncate(at),
            1 => octets.insert(at, dice.next().to_le_bytes()[0]),
            2 => octets.splice(at.., octets[at / 2..].to_vec()).for_each(drop),
            3 if at < octets.len() => drop(octets.remove(at)),
            _ if at < octets.len() => octets[at] ^= 1 << dice.below(8),
            _ => {}
        }
    }
    octets
}

/// SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A varint, now and then longer than it needs to be.
    fn put_varint(&mut self, value: u64, out: &mut Vec<u8>) {
        let from = out.len();
        put_varint(value, out);
        if self.one_in(24) {
            while out.len() - from < 9 && !self.one_in(4) {
                *out.last_mut().expect("not empty") |= 0x80;
                out.push(0);
            }
        }
    }

    fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next() % 10,
            1 => self.pick(&[0, 1, 0x7f, 0x80, u64::from(u32::MAX), 1 << 32, u64::MAX]),
            2 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let choices = ["", "a", "org", "ünïcødé", "\u{10ffff}", "namespace", "0123456789abcdef", "名前"];
        let count = if self.one_in(8) { self.below(12) } else { self.below(3) };
        (0..count).flat_map(|_| self.pick(&choices).bytes()).collect()
    }

    fn octets(&mut self) -> Vec<u8> {
        let count = if self.one_in(3) { MAC_OCTETS } else { self.below(80) };
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn length_field(&mut self, number: u32, octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.put_varint(key(number, wire_type::LENGTH).into(), &mut out);
        self.put_varint(octets.len() as u64, &mut out);
        out.extend_from_slice(octets);
        out
    }

    fn nested(&mut self, number: u32, schema: &'static Schema) -> Vec<u8> {
        let inside = self.message(schema);
        self.length_field(number, &inside)
    }

    fn field(&mut self, number: u32, kind: Kind) -> Vec<u8> {
        match kind {
            Kind::Varint => {
                let mut out = Vec::new();
                self.put_varint(key(number, wire_type::VARINT).into(), &mut out);
                let value = self.value();
                self.put_varint(value, &mut out);
                out
            }
            Kind::Text => {
                let text = self.text();
                self.length_field(number, &text)
            }
            Kind::Bytes => {
                let octets = self.octets();
                self.length_field(number, &octets)
            }
            Kind::One(schema) | Kind::Many(schema) => self.nested(number, schema),
        }
    }

    fn message(&mut self, schema: &'static Schema) -> Vec<u8> {
        const HOP_ONLY: [u32; 2] = [fields::header::RECV_FROM, fields::header::FORWARD_TO];
        let mut parts = Vec::new();
        let is_header = schema.name == "SLIMHeader";
        let required: &[u32] = match schema.name {
            "SLIMHeader" | "Publish" => &[1, 2],
            "Name" | "Subscribe" | "Unsubscribe" | "Link" => &[1],
            _ => &[],
        };
        let chosen = self.below(schema.fields.len().max(1)) + 1;
        for (number, kind) in (1..).zip(schema.fields) {
            let times = match kind {
                _ if schema.is_choice => usize::from(chosen == number as usize),
                _ if required.contains(&number) => 1,
                Kind::Many(_) => self.below(3),
                _ if is_header && HOP_ONLY.contains(&number) => usize::from(self.one_in(4)),
                _ => usize::from(!self.one_in(4)),
            };
            for _ in 0..times {
                if is_header && number == fields::header::TTL && !self.one_in(3) {
                    parts.push(vec![0x30, self.pick(&[0, 1, 2, 7, 8, 127])]); // as on real links
                    continue;
                }
                parts.push(self.field(number, *kind));
            }
        }
        self.finish(parts, u32::try_from(schema.fields.len()).expect("few fields"))
    }

    /// Strews in unknown fields, above `last`, and perhaps shuffles.
    fn finish(&mut self, mut parts: Vec<Vec<u8>>, last: u32) -> Vec<u8> {
        if self.one_in(6) {
            for _ in 0..=self.below(2) {
                let number = last + 1 + u32::try_from(self.below(1 << 12)).expect("small");
                let mut unknown = Vec::new();
                self.unknown(number, 0, &mut unknown);
                parts.push(unknown);
            }
        }
        if self.one_in(3) {
            for index in (1..parts.len()).rev() {
                parts.swap(index, self.below(index + 1));
            }
        }
        parts.concat()
    }

    fn unknown(&mut self, number: u32, depth: usize, out: &mut Vec<u8>) {
        let kind = self.pick(&[
            wire_type::VARINT,
            wire_type::FIXED64,
            wire_type::LENGTH,
            wire_type::FIXED32,
            if depth < 8 { wire_type::GROUP } else { wire_type::VARINT },
        ]);
        self.put_varint(key(number, kind).into(), out);
        match kind {
            wire_type::VARINT => {
                let value = self.value();
                self.put_varint(value, out);
            }
            wire_type::FIXED64 => out.extend(self.next().to_le_bytes()),
            wire_type::FIXED32 => out.extend(&self.next().to_le_bytes()[..4]),
            wire_type::LENGTH => {
                let octets = self.octets();
                self.put_varint(octets.len() as u64, out);
                out.extend(octets);
            }
            _ => {
                for _ in 0..self.below(3) {
                    let inner = u32::try_from(self.below(100) + 1).expect("small");
                    self.unknown(inner, depth + 1, out);
                }
                self.put_varint(key(number, wire_type::GROUP_END).into(), out);
            }
        }
    }
}
