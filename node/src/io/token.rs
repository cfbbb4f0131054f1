//! What travels through the kernel with an operation, and the table it is looked up in.

use super::Key;

/// Which operation a completion belongs to; one octet of the 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    /// A socket in general: epoll events.
    Socket = 1,
    Receive,
    Send,
    Connect,
    Cancel,
    Unregister,
    Option,
    Accept,
    CancelAccept,
    Wake,
}

impl Op {
    const ALL: [Self; 10] = [
        Self::Socket,
        Self::Receive,
        Self::Send,
        Self::Connect,
        Self::Cancel,
        Self::Unregister,
        Self::Option,
        Self::Accept,
        Self::CancelAccept,
        Self::Wake,
    ];
}

/// Packs operation, generation and slot.
pub(super) fn pack(op: Op, key: Key) -> u64 {
    let generation = u64::from(key.generation & (Key::GENERATIONS - 1));
    (op as u64) << 56 | generation << 32 | u64::from(key.slot)
}

/// Undoes [`pack`]; `None` = nothing we ever packed.
pub(super) fn unpack(token: u64) -> Option<(Op, Key)> {
    let op = *Op::ALL.get(usize::try_from(token >> 56).ok()?.checked_sub(1)?)?;
    let [_, _, _, _, s0, s1, s2, s3] = token.to_be_bytes();
    let [_, g0, g1, g2, ..] = token.to_be_bytes();
    let key = Key { slot: u32::from_be_bytes([s0, s1, s2, s3]), generation: u32::from_be_bytes([0, g0, g1, g2]) };
    Some((op, key))
}

/// The engine's side of the owner's slots: what is known of each living key.
#[derive(Debug)]
pub(super) struct Table<T> {
    rows: Vec<Option<(u32, T)>>,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Panics if the slot is taken: the owner reuses a slot only after `Closed`.
    pub(super) fn insert(&mut self, key: Key, value: T) {
        assert!(key.generation < Key::GENERATIONS, "generations count modulo 2^24");
        let index = key.slot as usize;
        if index >= self.rows.len() {
            self.rows.resize_with(index + 1, || None);
        }
        assert!(self.rows[index].is_none(), "{key:?} adopted over a slot in use");
        self.rows[index] = Some((key.generation, value));
    }

    /// `None` for any key but the living one of the slot.
    pub(super) fn find(&mut self, key: Key) -> Option<&mut T> {
        match self.rows.get_mut(key.slot as usize) {
            Some(Some((generation, value))) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// As [`Table::find`], to look at.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        match self.rows.get(key.slot as usize) {
            Some(Some((generation, value))) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The living key's value; anything else is the owner's bug.
    pub(super) fn live(&mut self, key: Key) -> &mut T {
        match self.find(key) {
            Some(value) => value,
            None => panic!("{key:?} is not open here"),
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.find(key)?;
        self.rows[key.slot as usize].take().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_unpacks_to_what_was_packed() {
        for op in Op::ALL {
            for (slot, generation) in [(0, 0), (u32::MAX, 0), (0, Key::GENERATIONS - 1), (7, 9)] {
                let key = Key { slot, generation };
                assert_eq!(unpack(pack(op, key)), Some((op, key)));
            }
        }
        assert_eq!(unpack(0), None);
        assert_eq!(unpack(u64::MAX), None);
    }

    #[test]
    fn a_late_key_finds_nothing_in_a_reused_slot() {
        let mut table = Table::new();
        let old = Key { slot: 3, generation: 1 };
        let new = Key { slot: 3, generation: 2 };
        table.insert(old, 'a');
        assert_eq!(table.remove(old), Some('a'));
        table.insert(new, 'b');
        assert_eq!(table.find(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.find(new), Some(&mut 'b'));
    }
}
