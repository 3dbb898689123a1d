//! What is going to happen, in the order of simulated time.
//!
//! Its users push and pop millions of entries a second, so the heap moves small keys and the
//! payloads lie still in slots that are used again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Payloads by time; those of one time come in the order in which they were put in.
pub(crate) struct Queue<T> {
    order: BinaryHeap<Reverse<(u64, u32, u32)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u32,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Queue {
            order: BinaryHeap::with_capacity(64),
            slots: Vec::with_capacity(64),
            free: Vec::with_capacity(64),
            sequence: 0,
        }
    }

    pub(crate) fn push(&mut self, at: u64, payload: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.slots[slot as usize] = Some(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.order.push(Reverse((at, self.sequence, slot)));
    }

    /// Takes the first entry that is not after `until`.
    pub(crate) fn pop_until(&mut self, until: u64) -> Option<(u64, T)> {
        let Reverse((at, _, _)) = *self.order.peek()?;
        if at > until {
            return None;
        }
        let Reverse((at, _, slot)) = self.order.pop()?;
        let payload = self.slots[slot as usize].take()?;
        self.free.push(slot);
        Some((at, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_by_time_and_then_in_the_order_of_their_coming() {
        let mut queue = Queue::new();
        for (at, payload) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b'), (9, 'e')] {
            queue.push(at, payload);
        }
        let mut order = Vec::new();
        while let Some((_, payload)) = queue.pop_until(5) {
            order.push(payload);
        }
        assert_eq!(order, ['a', 'b', 'c', 'd']);
        assert_eq!(queue.pop_until(9), Some((9, 'e')));
        assert_eq!(queue.pop_until(u64::MAX), None);
    }
}
