//! The header MAC: HMAC-SHA256 over a pre-image of the header, verified on the way in and made anew on the way out.
//!
//! It is the largest cost of a message after the kernel's, so the keyed states of HMAC are kept for the life of the link,
//! and for each flow (a source and a destination) the hash state behind the names, which stay while identities change
//! in every message.

use super::LinkKey;
use crate::error::WireError;
use crate::message::{Header, MAC_OCTETS, NameView, parse};
use sha2::block_api::compress256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What every pre-image begins with.
const DOMAIN: &[u8; 15] = b"SLIM-DP-HDR-v1\0";

/// Flows whose hash state a link remembers.
pub const FLOWS_MAX: usize = 64;
const _: () = assert!(FLOWS_MAX.is_power_of_two(), "slots are found by mask");

/// The longest pair of encoded names that is remembered; longer ones are hashed anew every time.
const FLOW_KEY_OCTETS_MAX: usize = 256;

/// Whether `recv_from` and `forward_to` feed the pre-image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopFields {
    /// As the previous hop sent them: to verify.
    AsReceived,
    /// As the next hop will see them, not at all: to sign.
    Cleared,
}

/// The MAC state of one link; key material, wiped when dropped.
///
/// Bounds: [`FLOWS_MAX`] flows of some 400 octets each, reached only by a link that has that many.
pub struct HeaderMac {
    keyed: Keyed,
    /// The pre-image up to the names: domain, length and link id.
    head: Box<[u8]>,
    /// A table in which each flow has two slots, side by side; doubles when a new flow finds both taken.
    flows: Vec<Flow>,
    /// What is hashed next; kept for its allocation.
    buffer: Vec<u8>,
}

impl HeaderMac {
    /// The state of a fresh link.
    ///
    /// # Panics
    /// If `link_id` is longer than 4 GiB.
    #[must_use]
    pub fn new(key: &LinkKey, link_id: &str) -> Self {
        let mut head = Vec::with_capacity(DOMAIN.len() + 4 + link_id.len());
        head.extend_from_slice(DOMAIN);
        put_text(link_id, &mut head);
        Self { keyed: Keyed::new(key.as_octets()), head: head.into(), flows: Vec::new(), buffer: Vec::new() }
    }

    /// The tag of a header as it leaves with `ttl`.
    ///
    /// Source: slim-wire §4.4; the `hmac` crate over [`preimage`] is the oracle (`tests/link_mac.rs`).
    pub fn tag(&mut self, header: &Header<'_>, ttl: u32, hop: HopFields) -> [u8; MAC_OCTETS] {
        let (mut state, hashed) = self.enter_flow(header);
        put_varying(header, ttl, hop, &mut self.buffer);
        pad(hashed, &mut self.buffer);
        compress256(&mut state, self.buffer.as_chunks().0);
        self.keyed.finish(state)
    }

    /// Whether the header carries the tag it should, in constant time; without a tag it does not.
    pub fn verify(&mut self, header: &Header<'_>) -> bool {
        let Some(mac) = header.header_mac.and_then(|mac| <&[u8; MAC_OCTETS]>::try_from(mac).ok()) else { return false };
        let tag = self.tag(header, header.ttl, HopFields::AsReceived);
        words(&tag).ct_eq(&words(mac)).into()
    }

    /// The hash state behind both names, with the octets that did not fill a block in `buffer`; and how many octets
    /// are hashed into the state.
    #[inline]
    fn enter_flow(&mut self, header: &Header<'_>) -> (State, usize) {
        let names = [header.source.encoded, header.destination.encoded];
        let spread = spread(header);
        let at = slot(spread, self.flows.len());
        for at in [at, at ^ 1] {
            if let Some(flow) = self.flows.get(at)
                && flow.is_of(spread, names)
            {
                self.buffer.clear();
                self.buffer.extend_from_slice(&flow.tail[..flow.tail_length]);
                return (flow.state, flow.hashed);
            }
        }
        self.begin_flow(header, names, spread)
    }

    #[cold]
    fn begin_flow(&mut self, header: &Header<'_>, names: [&[u8]; 2], spread: u64) -> (State, usize) {
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.head);
        put_name(&header.source, &mut self.buffer);
        put_name(&header.destination, &mut self.buffer);
        let mut state = self.keyed.inner;
        let (blocks, tail) = self.buffer.as_chunks();
        compress256(&mut state, blocks);
        let hashed = BLOCK_OCTETS + blocks.len() * BLOCK_OCTETS; // the keyed block counts
        let tail_at = hashed - BLOCK_OCTETS;
        if names[0].len() + names[1].len() <= FLOW_KEY_OCTETS_MAX {
            let mut whole = [0; BLOCK_OCTETS];
            whole[..tail.len()].copy_from_slice(tail);
            let tail_length = tail.len();
            self.room(spread).fill(names, spread, state, hashed, whole, tail_length);
        }
        self.buffer.drain(..tail_at);
        (state, hashed)
    }

    /// The slot a new flow goes to: a free one of its two if the table can be made to have one.
    fn room(&mut self, spread: u64) -> &mut Flow {
        loop {
            let at = slot(spread, self.flows.len());
            let is_free = |at: usize| self.flows.get(at).is_some_and(|flow| !flow.is_taken());
            if is_free(at) {
                return &mut self.flows[at];
            }
            if is_free(at ^ 1) {
                return &mut self.flows[at ^ 1];
            }
            if self.flows.len() == FLOWS_MAX {
                let evicted = at ^ (spread & 1) as usize; // either of the two
                return &mut self.flows[evicted];
            }
            self.widen();
        }
    }

    /// Doubles the table. Pairs of slots split into two pairs, so nothing is evicted.
    fn widen(&mut self) {
        let wide = vec![Flow::EMPTY; (self.flows.len() * 2).max(2)];
        let narrow = std::mem::replace(&mut self.flows, wide);
        for flow in narrow.iter().filter(|flow| flow.is_taken()) {
            *self.room(flow.spread) = flow.clone(); // the old one wipes itself
        }
    }
}

impl std::fmt::Debug for HeaderMac {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HeaderMac").field("flows", &self.flows.len()).finish_non_exhaustive()
    }
}

/// A tag in four words: as constant in time to compare as octets are, at an eighth of the steps.
fn words(tag: &[u8; MAC_OCTETS]) -> [u64; 4] {
    let (words, _) = tag.as_chunks();
    std::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}

/// Signs a message that was built with a placeholder of 32 octets.
///
/// Errors: a message that does not parse. One without a header, or without a placeholder, is left as it is.
pub fn sign(message: &mut [u8], mac: &mut HeaderMac) -> Result<(), WireError> {
    let view = parse(message)?;
    if let Some(header) = view.header()
        && let Some(patch) = header.patch()
    {
        let ttl = header.ttl;
        let tag = mac.tag(header, ttl, HopFields::Cleared);
        patch.apply(message, ttl, &tag);
    }
    Ok(())
}

/// Appends the whole pre-image of a header: what the tag is a MAC of.
///
/// The fast road in [`HeaderMac`] never has it in one piece; tests and tools do.
/// Source: slim-wire §4.4; integers are little-endian.
pub fn preimage(link_id: &str, header: &Header<'_>, ttl: u32, hop: HopFields, out: &mut Vec<u8>) {
    out.extend_from_slice(DOMAIN);
    put_text(link_id, out);
    put_name(&header.source, out);
    put_name(&header.destination, out);
    put_varying(header, ttl, hop, out);
}

/// The part that changes from message to message.
#[inline]
fn put_varying(header: &Header<'_>, ttl: u32, hop: HopFields, out: &mut Vec<u8>) {
    put_text(header.identity, out);
    let fanout = header.fanout.to_le_bytes();
    match (hop, header.recv_from, header.forward_to) {
        (HopFields::Cleared, ..) | (HopFields::AsReceived, None, None) => {
            out.extend([fanout[0], fanout[1], fanout[2], fanout[3], 0, 0]);
        }
        (HopFields::AsReceived, recv_from, forward_to) => {
            out.extend(fanout);
            put_option(recv_from, out);
            put_option(forward_to, out);
        }
    }
    let ttl = ttl.to_le_bytes();
    match header.error {
        None => out.extend([0, ttl[0], ttl[1], ttl[2], ttl[3]]),
        Some(error) => out.extend([1, error.into(), ttl[0], ttl[1], ttl[2], ttl[3]]),
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    let length = u32::try_from(text.len()).expect("shorter than 4 GiB");
    out.extend(length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_option(value: Option<u64>, out: &mut Vec<u8>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Name and hashes are always there, else the header would not have parsed; id and text may be absent.
fn put_name(view: &NameView<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[1, 1]);
    for component in view.name.prefix.0 {
        out.extend_from_slice(&component.to_le_bytes());
    }
    out.push(view.has_id.into());
    if view.has_id {
        for half in view.name.id.halves() {
            out.extend_from_slice(&half.to_le_bytes());
        }
    }
    out.push(view.text.is_some().into());
    for component in view.text.iter().flatten() {
        put_text(component, out);
    }
}

/// The hash state behind a flow's names.
///
/// Only `state` depends on the key; the rest could be read off the wire.
#[derive(Clone)]
struct Flow {
    /// Encoded source and destination, one behind the other; no source at all marks a free slot.
    names: [u8; FLOW_KEY_OCTETS_MAX],
    source_length: usize,
    names_length: usize,
    /// Octets hashed into `state`, the keyed block counted.
    hashed: usize,
    spread: u64,
    state: State,
    /// What did not fill a block.
    tail: [u8; BLOCK_OCTETS],
    tail_length: usize,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.state.zeroize();
    }
}

impl Flow {
    const EMPTY: Self = Self {
        names: [0; FLOW_KEY_OCTETS_MAX],
        source_length: 0,
        names_length: 0,
        hashed: 0,
        spread: 0,
        state: [0; 8],
        tail: [0; BLOCK_OCTETS],
        tail_length: 0,
    };

    /// Takes over the slot for another flow. The names fit: the caller looked.
    fn fill(
        &mut self,
        [source, destination]: [&[u8]; 2],
        spread: u64,
        state: State,
        hashed: usize,
        tail: [u8; BLOCK_OCTETS],
        tail_length: usize,
    ) {
        let length = source.len() + destination.len();
        self.names[..source.len()].copy_from_slice(source);
        self.names[source.len()..length].copy_from_slice(destination);
        self.source_length = source.len();
        self.names_length = length;
        self.hashed = hashed;
        self.spread = spread;
        self.state = state;
        self.tail = tail;
        self.tail_length = tail_length;
    }

    fn is_taken(&self) -> bool {
        self.source_length != 0
    }

    #[inline]
    fn is_of(&self, spread: u64, [source, destination]: [&[u8]; 2]) -> bool {
        let split = self.source_length;
        self.spread == spread
            && split == source.len()
            && self.names_length == source.len() + destination.len()
            && self.names[..split] == *source
            && self.names[split..split + destination.len()] == *destination
    }
}

/// Spreads flows over slots. A peer that aims at one slot slows down its own messages by two blocks of hashing.
#[inline]
fn spread(header: &Header<'_>) -> u64 {
    let mut spread = 0_u64;
    for name in [&header.source.name, &header.destination.name] {
        let [high, low] = name.id.halves();
        let word = name.prefix.0[2] ^ name.prefix.0[1].rotate_left(21) ^ high ^ low;
        spread = (spread.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    spread
}

/// The first of a flow's two slots, out of a power of two of them; the other is its neighbour.
#[inline]
fn slot(spread: u64, slots: usize) -> usize {
    (spread >> 32) as usize & slots.wrapping_sub(1) & !1
}

type State = [u32; 8];

/// Octets of a SHA-256 block.
const BLOCK_OCTETS: usize = 64;

/// SHA-256's initial state. Source: FIPS 180-4 §5.3.3.
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// HMAC's two keyed states. Source: RFC 2104, §4 of which suggests just this.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Keyed {
    inner: State,
    outer: State,
}

impl Keyed {
    fn new(key: &[u8; 32]) -> Self {
        Self { inner: absorb(key, 0x36), outer: absorb(key, 0x5c) }
    }

    /// From the inner hash to the tag.
    #[inline]
    fn finish(&self, inner: State) -> [u8; MAC_OCTETS] {
        let mut block = [0; BLOCK_OCTETS];
        for (octets, word) in block.chunks_exact_mut(4).zip(inner) {
            octets.copy_from_slice(&word.to_be_bytes());
        }
        block[MAC_OCTETS] = 0x80;
        let bits = (BLOCK_OCTETS + MAC_OCTETS) as u64 * 8;
        block[BLOCK_OCTETS - 8..].copy_from_slice(&bits.to_be_bytes());
        let mut state = self.outer;
        compress256(&mut state, &[block]);
        let mut tag = [0; MAC_OCTETS];
        for (octets, word) in tag.chunks_exact_mut(4).zip(state) {
            octets.copy_from_slice(&word.to_be_bytes());
        }
        tag
    }
}

fn absorb(key: &[u8; 32], mask: u8) -> State {
    let mut block = [mask; BLOCK_OCTETS];
    for (octet, key) in block.iter_mut().zip(key) {
        *octet ^= key;
    }
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    block.zeroize();
    state
}

/// Pads `buffer` to whole blocks, `hashed` octets having gone before.
#[inline]
fn pad(hashed: usize, buffer: &mut Vec<u8>) {
    let bits = (hashed + buffer.len()) as u64 * 8;
    buffer.push(0x80);
    buffer.resize((buffer.len() + 8).next_multiple_of(BLOCK_OCTETS), 0);
    if let Some(last) = buffer.last_chunk_mut() {
        *last = bits.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{HeaderParts, NameParts, build_subscribe};
    use crate::{Name, NameId, Prefix};

    fn subscribe(id: u64, text: &str) -> Vec<u8> {
        let name = Name { prefix: Prefix([1, 2, 3]), id: NameId::from_halves([0, id]) };
        let name = NameParts { name, text: Some(["o", "n", text]) };
        let header = HeaderParts {
            source: name,
            destination: name,
            identity: "token",
            fanout: 1,
            version: "0.1.0",
            ttl: 8,
            incoming_conn: None,
            error: None,
            header_mac: Some([0; MAC_OCTETS]),
            e2e_header_sig: None,
        };
        let mut message = Vec::new();
        build_subscribe(&header, 1, &mut message);
        message
    }

    #[test]
    fn flows_are_remembered_within_a_bound() {
        let mut mac = HeaderMac::new(&LinkKey::from_octets([7; 32]), "link");
        assert_eq!(mac.flows.capacity(), 0, "an idle link remembers nothing");
        let mut tags = Vec::new();
        for round in 0..2 {
            for id in 0..1000 {
                let message = subscribe(id, "service");
                let view = parse(&message).unwrap();
                let tag = mac.tag(view.header().unwrap(), 7, HopFields::Cleared);
                if round == 0 {
                    tags.push(tag);
                } else {
                    assert_eq!(tags[usize::try_from(id).unwrap()], tag);
                }
                assert!(mac.flows.len() <= FLOWS_MAX);
            }
        }
        assert_eq!(mac.flows.len(), FLOWS_MAX);
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), 1000);
    }

    #[test]
    fn one_flow_takes_one_pair_of_slots() {
        let mut mac = HeaderMac::new(&LinkKey::from_octets([7; 32]), "link");
        for _ in 0..3 {
            let message = subscribe(1, "service");
            mac.tag(parse(&message).unwrap().header().unwrap(), 7, HopFields::Cleared);
        }
        assert_eq!(mac.flows.len(), 2);
        assert_eq!(mac.flows.iter().filter(|flow| flow.is_taken()).count(), 1);
        // Names too long to be remembered.
        let message = subscribe(1, &"long".repeat(200));
        mac.tag(parse(&message).unwrap().header().unwrap(), 7, HopFields::Cleared);
        assert_eq!(mac.flows.iter().filter(|flow| flow.is_taken()).count(), 1);
    }

    #[test]
    fn a_signed_message_verifies_and_a_changed_one_does_not() {
        let key = LinkKey::from_octets([7; 32]);
        let mut mac = HeaderMac::new(&key, "link");
        let mut message = subscribe(1, "service");
        assert!(!mac.verify(parse(&message).unwrap().header().unwrap()));
        sign(&mut message, &mut mac).unwrap();
        let verifies = |message: &[u8], mac: &mut HeaderMac| mac.verify(parse(message).unwrap().header().unwrap());
        assert!(verifies(&message, &mut mac));
        assert!(verifies(&message, &mut HeaderMac::new(&key, "link")));
        assert!(!verifies(&message, &mut HeaderMac::new(&key, "other link")));
        assert!(!verifies(&message, &mut HeaderMac::new(&LinkKey::from_octets([8; 32]), "link")));
        let at = message.windows(5).position(|window| window == b"token").unwrap();
        message[at] ^= 1;
        assert!(!verifies(&message, &mut mac));
    }
}
