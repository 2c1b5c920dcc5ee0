//! Buffers of activations, recycled: once a forward pass of some shape has run, another allocates nothing.

use crate::exec::Activation;
use std::sync::Arc;

/// The buffers, used and free: one is free when no tensor holds it.
#[derive(Debug, Default)]
pub(super) struct Arena {
    buffers: Vec<Arc<Buffer>>,
    /// Counts writes, so that a buffer with new content is told from the old one.
    clock: u64,
    /// Times a buffer was made or enlarged.
    pub growths: u64,
}

#[derive(Debug, Default)]
struct Buffer {
    /// As long as it ever was; the content is the first `rows * width`.
    data: Vec<f32>,
    rows: usize,
    width: usize,
    stamp: u64,
}

/// An activation `[rows, width]` of [`CpuExec`](super::CpuExec). Cloning shares the buffer.
#[derive(Clone, Debug)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    /// A function still to be applied: the product with another tensor applies it on the way.
    pub(super) pending: Option<Activation>,
}

impl Arena {
    /// A new tensor whose values `fill` writes. What it finds in the buffer is arbitrary.
    pub fn make(&mut self, rows: usize, width: usize, fill: impl FnOnce(&mut [f32])) -> Tensor {
        let len = rows * width;
        self.clock += 1;
        let free = self.free(len);
        let shared = &mut self.buffers[free];
        let buffer = Arc::get_mut(shared).expect("no tensor holds a free buffer");
        if buffer.data.len() < len {
            self.growths += 1;
            buffer.data.resize(len, 0.0);
        }
        fill(&mut buffer.data[..len]);
        (buffer.rows, buffer.width, buffer.stamp) = (rows, width, self.clock);
        Tensor { buffer: shared.clone(), pending: None }
    }

    /// Floats of all buffers.
    #[cfg(test)]
    pub fn floats(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.data.len()).sum()
    }

    /// A free buffer for `len` values: the tightest one, else the largest, else a new one.
    fn free(&mut self, len: usize) -> usize {
        let free = self.buffers.iter().enumerate().filter(|(_, buffer)| Arc::strong_count(buffer) == 1);
        let fit = |(_, buffer): &(usize, &Arc<Buffer>)| match buffer.data.len() >= len {
            true => (0, buffer.data.len() - len),
            false => (1, len - buffer.data.len()),
        };
        free.min_by_key(fit).map(|(i, _)| i).unwrap_or_else(|| {
            self.buffers.push(Arc::default());
            self.buffers.len() - 1
        })
    }
}

impl Tensor {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.buffer.rows
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.buffer.width
    }

    /// The values, `[rows, width]`.
    pub fn values(&self) -> &[f32] {
        &self.buffer.data[..self.buffer.rows * self.buffer.width]
    }

    /// Appends the values, `[rows, width]`, to a vector.
    pub fn append_to(&self, out: &mut Vec<f32>) {
        out.extend_from_slice(self.values());
    }

    /// The values, `[rows, width]`.
    pub fn to_vec(&self) -> Vec<f32> {
        self.values().to_vec()
    }

    /// Tells this content from any other of the same arena.
    pub(crate) fn stamp(&self) -> u64 {
        self.buffer.stamp
    }
}
