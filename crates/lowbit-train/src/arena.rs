//! Recycled buffers: a training step asks for the same sizes as the step before, so after the first one nothing is
//! allocated.

use lowbit_kernels::Cpu;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Steps that a buffer may lie unused before its memory is given back.
const PATIENCE: u64 = 4;

/// Values that a thread clears or copies at a time.
const GRAIN: usize = 1 << 16;

/// Free buffers by size.
#[derive(Default)]
pub(crate) struct Arena {
    free: RefCell<BTreeMap<usize, Vec<Idle>>>,
    clock: Cell<u64>,
    /// Values of all buffers, in use or free.
    values: Cell<usize>,
}

struct Idle {
    data: Vec<f32>,
    since: u64,
}

/// A buffer of f32 that returns to its arena when dropped.
pub(crate) struct Buffer {
    data: Vec<f32>,
    len: usize,
    home: Rc<Arena>,
}

impl Arena {
    /// A buffer with arbitrary content.
    pub(crate) fn take(self: &Rc<Self>, len: usize) -> Buffer {
        let size = size_class(len);
        let recycled = self.free.borrow_mut().get_mut(&size).and_then(Vec::pop);
        let data = recycled.map_or_else(|| self.allocate(size), |idle| idle.data);
        Buffer { data, len, home: self.clone() }
    }

    fn allocate(&self, size: usize) -> Vec<f32> {
        self.values.set(self.values.get() + size);
        vec![0.0; size]
    }

    /// Bytes of all buffers, in use or free.
    pub(crate) fn bytes(&self) -> usize {
        self.values.get() * size_of::<f32>()
    }

    /// A buffer of zeros.
    pub(crate) fn zeroed(self: &Rc<Self>, cpu: &Cpu, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.zero(cpu);
        buffer
    }

    /// A copy of these values.
    pub(crate) fn copy(self: &Rc<Self>, cpu: &Cpu, values: &[f32]) -> Buffer {
        let mut buffer = self.take(values.len());
        cpu.pool.for_rows(values.len(), GRAIN, [(&mut buffer[..], 1)], |range, [part]| {
            part.copy_from_slice(&values[range]);
        });
        buffer
    }

    /// Begins a step: buffers that lay idle for [`PATIENCE`] steps are freed.
    pub(crate) fn tick(&self) {
        let now = self.clock.get() + 1;
        self.clock.set(now);
        let mut free = self.free.borrow_mut();
        free.retain(|size, buffers| {
            let before = buffers.len();
            buffers.retain(|idle| idle.since + PATIENCE >= now);
            self.values.set(self.values.get() - (before - buffers.len()) * size);
            !buffers.is_empty()
        });
    }
}

/// Sizes are rounded up to an eighth of their power of two, so that ragged batches share buffers.
fn size_class(len: usize) -> usize {
    let granule = (len.max(1).next_power_of_two() / 16).max(16);
    len.div_ceil(granule) * granule
}

impl Buffer {
    /// Sets all values to 0.
    pub(crate) fn zero(&mut self, cpu: &Cpu) {
        cpu.pool.for_rows(self.len, GRAIN, [(&mut self[..], 1)], |_, [part]| part.fill(0.0));
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let idle = Idle { since: self.home.clock.get(), data };
        self.home.free.borrow_mut().entry(idle.data.len()).or_default().push(idle);
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_taken_again() {
        let arena = Rc::new(Arena::default());
        let start = arena.take(1000).as_ptr();
        assert_eq!(arena.take(1000).as_ptr(), start);
        assert_eq!(arena.take(995).as_ptr(), start, "sizes of one class share buffers");
        assert_ne!(arena.take(2000).as_ptr(), start);
    }

    #[test]
    fn copies_and_zeros_are_complete() {
        let (arena, cpu) = (Rc::new(Arena::default()), Cpu::new(None, Some(3)).unwrap());
        let values: Vec<f32> = (0..3 * GRAIN + 5).map(|i| i as f32).collect();
        let mut buffer = arena.copy(&cpu, &values);
        assert!(buffer[..] == values[..]);
        buffer.zero(&cpu);
        assert!(buffer.iter().all(|&x| x == 0.0));
    }

    #[test]
    fn idle_buffers_are_freed() {
        let arena = Rc::new(Arena::default());
        drop(arena.take(1000));
        assert_eq!(arena.bytes(), 4 * size_class(1000));
        for _ in 0..=PATIENCE {
            arena.tick();
        }
        assert!(arena.free.borrow().is_empty());
        assert_eq!(arena.bytes(), 0);
    }

    #[test]
    fn size_classes_waste_at_most_an_eighth() {
        for len in [256, 257, 1000, 4097, 786_432, 1_000_001] {
            let size = size_class(len);
            assert!(size >= len && size <= len + len.div_ceil(8), "{len} -> {size}");
        }
    }
}
