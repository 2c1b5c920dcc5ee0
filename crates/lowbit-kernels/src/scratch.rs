//! Buffers that each thread keeps between calls.

use std::cell::RefCell;

/// One cache line; a buffer of lines is aligned for every vector.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

impl Line {
    /// All zero.
    pub(crate) const ZERO: Line = Line([0; 64]);
}

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that returns to its thread when dropped.
pub(crate) struct Scratch(Vec<Line>);

/// A buffer of at least `bytes` bytes whose content is unspecified but initialised.
pub(crate) fn take(bytes: usize) -> Scratch {
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let lines = bytes.div_ceil(64);
    if buffer.len() < lines {
        buffer.resize(lines, Line::ZERO);
    }
    Scratch(buffer)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        FREE.with_borrow_mut(|free| free.push(buffer));
    }
}

impl Scratch {
    /// The buffer as f32.
    pub(crate) fn floats(&mut self) -> &mut [f32] {
        // SAFETY: a line is 16 f32, any bits are a valid f32, and the alignment is larger.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 16) }
    }

    /// The same, to read.
    pub(crate) fn values(&self) -> &[f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }

    /// The buffer as integers, to read.
    pub(crate) fn integers(&self) -> &[i32] {
        // SAFETY: a line is 16 i32, any bits are a valid i32, and the alignment is larger.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }

    /// The buffer as bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: a line is 64 bytes.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 64) }
    }

    /// The buffer as vectors of 16 values.
    pub(crate) fn lanes(&mut self) -> &mut [[u32; 16]] {
        // SAFETY: a line is 16 u32, any bits are a valid u32, and the alignment is larger.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len()) }
    }
}
