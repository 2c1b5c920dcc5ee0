//! Matrices made a few panels at a time, on all threads: no more of the weights is in memory in another form.

use super::{Format, Packed};
use crate::pool::SharedMut;
use crate::{Bytes, Pool};
use std::ops::Range;
use std::sync::OnceLock;

/// Weights of a task, at least.
const GRAIN: usize = 1 << 17;

impl Packed {
    /// A matrix whose rows `make` packs, range by range, on the threads of a pool. Ranges begin with a block
    /// ([`Format::block`]); a part that all rows share is taken from the first range.
    ///
    /// # Errors
    /// One that `make` gives.
    ///
    /// # Panics
    /// When a packed range has not the parts of its shape.
    pub fn stack<E: Send + Sync>(
        format: &'static dyn Format,
        rows: usize,
        cols: usize,
        pool: &Pool,
        make: impl Fn(Range<usize>) -> Result<Packed, E> + Sync,
    ) -> Result<Packed, E> {
        let bytes = |rows: usize| format.parts(rows, cols, &[]).into_iter().map(|part| part.bytes).collect::<Vec<_>>();
        let whole = bytes(rows);
        let grain = (GRAIN / cols.max(1)).next_multiple_of(format.block()).max(format.block());
        let fault: OnceLock<E> = OnceLock::new();
        let parts = Bytes::build(&whole, |parts| {
            let parts: Vec<SharedMut<u8>> = parts.into_iter().map(SharedMut::new).collect();
            pool.run(rows.div_ceil(grain), &|task| {
                let range = task * grain..((task + 1) * grain).min(rows);
                if fault.get().is_some() {
                    return;
                }
                let packed = match make(range.clone()) {
                    Ok(packed) => packed,
                    Err(e) => return drop(fault.set(e)),
                };
                let (from, to) = (bytes(range.start), bytes(range.end));
                for (i, (part, found)) in parts.iter().zip(&packed.parts).enumerate() {
                    let place = if task == 0 { 0..to[i] } else { from[i]..to[i] };
                    if place.is_empty() {
                        continue; // shared by all rows
                    }
                    // SAFETY: ranges of rows are disjoint and a task runs once, so places are disjoint.
                    unsafe { part.slice(place) }.copy_from_slice(found);
                }
            });
        });
        match fault.into_inner() {
            Some(fault) => Err(fault),
            None => Ok(Packed { format, rows, cols, parts }),
        }
    }
}
