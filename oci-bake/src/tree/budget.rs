//! What the trees of one bake may hold together.

use std::cell::Cell;
use std::rc::Rc;

use crate::error::LayerError;

/// Bytes that the trees of one bake share.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    held: Cell<u64>,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Rc<Self> {
        Rc::new(Self {
            limit,
            held: Cell::new(0),
        })
    }

    /// Whether more than half is left.
    pub(crate) fn is_ample(&self) -> bool {
        self.held.get() < self.limit / 2
    }
}

/// What one tree holds, given back with it.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Rc<Budget>,
    held: u64,
}

impl Share {
    pub(crate) fn new(budget: &Rc<Budget>) -> Self {
        Self {
            budget: Rc::clone(budget),
            held: 0,
        }
    }

    /// Holds more.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<(), LayerError> {
        let held = self.budget.held.get().saturating_add(bytes);
        if held > self.budget.limit {
            return Err(LayerError::LimitExceeded {
                what: "bytes of names, links, attributes and inodes in all layers together",
                limit: self.budget.limit,
            });
        }
        self.budget.held.set(held);
        self.held += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.set(self.budget.held.get() - self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_share_a_budget_and_give_back_what_they_hold() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (Share::new(&budget), Share::new(&budget));
        one.take(40).unwrap();
        assert!(budget.is_ample());
        two.take(60).unwrap();
        assert!(!budget.is_ample());
        assert!(one.take(1).is_err());
        assert!(two.take(u64::MAX).is_err());
        drop(two);
        one.take(60).unwrap();
        drop(one);
        Share::new(&budget).take(100).unwrap();
    }
}
