//! Slots with a generation: an index that cannot be mistaken for its successor.

/// A table whose entries are addressed by slot and generation.
///
/// A removed entry's slot is *held* until [`Table::release`]: late completions or stale routes may still name it.
pub(crate) struct Table<T> {
    /// Generations wrap around at this mask.
    mask: u32,
    slots_max: u32,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

/// Generations of transports count in 24 bits: what fits beside a slot and an operation in a completion's 64.
pub(crate) const KEY_GENERATION_MASK: u32 = 0x00ff_ffff;

impl<T> Table<T> {
    /// Units: `mask` is all ones in as many bits as generations may use.
    pub(crate) const fn new(mask: u32, slots_max: u32) -> Self {
        Self { mask, slots_max, slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Whether every slot there may be is taken, or held.
    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= self.slots_max as usize
    }

    /// Puts what `make` builds from (slot, generation) into the most recently freed slot, or a new one; whoever calls has
    /// asked whether the table [is full](Self::is_full).
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32, u32) -> T) -> (u32, u32) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, entry: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 slots")
        });
        let place = &mut self.slots[slot as usize];
        debug_assert!(place.entry.is_none(), "a free slot is empty");
        place.entry = Some(make(slot, place.generation));
        self.len += 1;
        (slot, place.generation)
    }

    /// The entry in `slot`, if it is still of this generation.
    #[inline]
    pub(crate) fn get(&self, slot: u32, generation: u32) -> Option<&T> {
        let place = self.slots.get(slot as usize)?;
        if place.generation == generation { place.entry.as_ref() } else { None }
    }

    /// As [`Table::get`], to change it.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32, generation: u32) -> Option<&mut T> {
        let place = self.slots.get_mut(slot as usize)?;
        if place.generation == generation { place.entry.as_mut() } else { None }
    }

    /// Takes the entry out; its slot stays held.
    pub(crate) fn remove(&mut self, slot: u32, generation: u32) -> Option<T> {
        let place = self.slots.get_mut(slot as usize)?;
        if place.generation != generation {
            return None;
        }
        let entry = place.entry.take()?;
        self.len -= 1;
        Some(entry)
    }

    /// Gives a removed entry's slot back for reuse under the next generation.
    pub(crate) fn release(&mut self, slot: u32, generation: u32) {
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        if place.generation == generation && place.entry.is_none() {
            place.generation = generation.wrapping_add(1) & self.mask;
            self.free.push(slot);
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Slots of removed entries that were not released yet.
    #[cfg(test)]
    pub(crate) const fn held(&self) -> usize {
        self.slots.len() - self.free.len() - self.len
    }

    /// Every live entry, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|place| place.entry.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_only_after_its_release_and_under_a_new_generation() {
        let mut table = Table::new(u32::MAX, u32::MAX);
        let (slot, generation) = table.insert(|_, _| "first");
        assert_eq!(table.remove(slot, generation), Some("first"));
        let (other, _) = table.insert(|_, _| "second");
        assert_ne!(other, slot, "the slot is held until released");
        table.release(slot, generation);
        let (again, next) = table.insert(|_, _| "third");
        assert_eq!(again, slot);
        assert_ne!(next, generation);
        assert_eq!(table.get(slot, generation), None, "the old generation finds nothing");
        assert_eq!(table.get(again, next), Some(&"third"));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_second_release_of_one_life_does_nothing() {
        let mut table = Table::new(u32::MAX, u32::MAX);
        let (slot, generation) = table.insert(|_, _| ());
        table.remove(slot, generation);
        table.release(slot, generation);
        table.release(slot, generation);
        let (a, _) = table.insert(|_, _| ());
        let (b, _) = table.insert(|_, _| ());
        assert_ne!(a, b);
    }
}
