//! Buffers of activations, recycled: once a forward pass of some shape has run, another allocates nothing.

use crate::exec::Activation;
use std::cell::RefCell;
use std::rc::Rc;

/// The buffers, used and free.
#[derive(Debug, Default)]
pub(super) struct Arena {
    slots: Vec<Slot>,
    /// Counts writes, so that a slot with new content is told from the old one.
    clock: u64,
    /// Times a buffer was made or enlarged.
    pub growths: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// As long as it ever was; the content is the first `rows * width`.
    data: Vec<f32>,
    rows: usize,
    width: usize,
    references: usize,
    stamp: u64,
}

/// An activation `[rows, width]` of [`CpuExec`](super::CpuExec). Cloning shares the buffer; the last clone returns it.
pub struct Tensor {
    arena: Rc<RefCell<Arena>>,
    slot: usize,
    /// A function still to be applied: the product with another tensor applies it on the way.
    pub(super) pending: Option<Activation>,
}

impl Arena {
    /// Takes a free buffer of at least `len` values out of its slot: the tightest one, else the largest.
    fn lease(&mut self, len: usize) -> (usize, Vec<f32>) {
        let free = self.slots.iter().enumerate().filter(|(_, s)| s.references == 0);
        let fit = |(_, s): &(usize, &Slot)| match s.data.len() >= len {
            true => (0, s.data.len() - len),
            false => (1, len - s.data.len()),
        };
        let slot = free.min_by_key(fit).map_or(self.slots.len(), |(i, _)| i);
        if slot == self.slots.len() {
            self.slots.push(Slot::default());
        }
        let mut data = std::mem::take(&mut self.slots[slot].data);
        if data.len() < len {
            self.growths += 1;
            data.resize(len, 0.0);
        }
        self.slots[slot].references = 1;
        (slot, data)
    }

    /// Puts a leased buffer back, now holding `[rows, width]`.
    fn store(&mut self, slot: usize, data: Vec<f32>, rows: usize, width: usize) {
        self.clock += 1;
        let stamp = self.clock;
        self.slots[slot] = Slot { data, rows, width, references: 1, stamp };
    }

    /// The values of a tensor.
    pub fn values(&self, tensor: &Tensor) -> &[f32] {
        let slot = &self.slots[tensor.slot];
        &slot.data[..slot.rows * slot.width]
    }
}

impl Tensor {
    /// A new tensor whose values `fill` writes; it may read others from the arena. What it finds in the buffer is
    /// arbitrary.
    pub(super) fn make(
        arena: &Rc<RefCell<Arena>>,
        rows: usize,
        width: usize,
        fill: impl FnOnce(&Arena, &mut [f32]),
    ) -> Tensor {
        let (slot, mut data) = arena.borrow_mut().lease(rows * width);
        fill(&arena.borrow(), &mut data[..rows * width]);
        arena.borrow_mut().store(slot, data, rows, width);
        Tensor { arena: arena.clone(), slot, pending: None }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.arena.borrow().slots[self.slot].rows
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.arena.borrow().slots[self.slot].width
    }

    /// Appends the values, `[rows, width]`, to a vector.
    pub fn append_to(&self, out: &mut Vec<f32>) {
        out.extend_from_slice(self.arena.borrow().values(self));
    }

    /// The values, `[rows, width]`.
    pub fn to_vec(&self) -> Vec<f32> {
        self.arena.borrow().values(self).to_vec()
    }

    /// Tells this content from any other of the same arena.
    pub(super) fn stamp(&self) -> u64 {
        self.arena.borrow().slots[self.slot].stamp
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        self.arena.borrow_mut().slots[self.slot].references += 1;
        Tensor { arena: self.arena.clone(), ..*self }
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        self.arena.borrow_mut().slots[self.slot].references -= 1;
    }
}
