//! Who hears whom, for relays with a task per connection: what one side of a group sends goes to all of the other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A side of a group: its number, and whether it publishes.
pub(super) type Side = (u32, bool);

/// The ends that can be written to, by side; one for all tasks of a relay.
pub(super) struct Groups<End>(Rc<RefCell<HashMap<Side, Vec<Rc<End>>>>>);

impl<End> Default for Groups<End> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<End> Clone for Groups<End> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<End> Groups<End> {
    /// Takes `end` in.
    pub(super) fn join(&self, side: Side, end: End) -> Rc<End> {
        let end = Rc::new(end);
        self.0.borrow_mut().entry(side).or_default().push(end.clone());
        end
    }

    /// Forgets it.
    pub(super) fn leave(&self, side: Side, end: &Rc<End>) {
        if let Some(side) = self.0.borrow_mut().get_mut(&side) {
            side.retain(|other| !Rc::ptr_eq(other, end));
        }
    }

    /// Those who hear this side.
    pub(super) fn opposite(&self, (group, publishes): Side) -> Vec<Rc<End>> {
        self.0.borrow().get(&(group, !publishes)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_heard_by_the_other_of_its_group_until_that_leaves() {
        let groups = Groups::default();
        let subscribers = [groups.join((1, false), 'a'), groups.join((1, false), 'b')];
        groups.join((2, false), 'c');
        let heard_by = |side| groups.clone().opposite(side).iter().map(|end| **end).collect::<String>();
        assert_eq!(
            (heard_by((1, true)), heard_by((1, false)), heard_by((2, true))),
            ("ab".into(), String::new(), "c".into())
        );
        groups.leave((1, false), &subscribers[0]);
        groups.leave((9, true), &subscribers[0]);
        assert_eq!(heard_by((1, true)), "b");
    }
}
