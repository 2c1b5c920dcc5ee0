//! Packing by ranges of rows on all threads: only a few panels of the weights are in memory in another form.

use super::{Format, Magnitude, Packed, QuantizeOptions};
use crate::bytes::temporary;
use crate::pool::SharedMut;
use crate::{Bytes, Error, Pool};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

/// Weights of a task, at least.
const GRAIN: usize = 1 << 17;

/// The ranges of rows of the tasks.
struct Ranges {
    rows: usize,
    grain: usize,
}

impl Ranges {
    fn new(format: &dyn Format, rows: usize, cols: usize) -> Self {
        Ranges { rows, grain: (GRAIN / cols.max(1)).next_multiple_of(format.spec().block).max(format.spec().block) }
    }

    fn count(&self) -> usize {
        self.rows.div_ceil(self.grain)
    }

    fn get(&self, task: usize) -> Range<usize> {
        (task * self.grain).min(self.rows)..((task + 1) * self.grain).min(self.rows)
    }

    /// Calls `make` for each range from `first` on, on the threads of a pool.
    ///
    /// # Errors
    /// One that `make` gives; no range is begun after it.
    fn each<E: Send + Sync>(
        &self,
        first: usize,
        pool: &Pool,
        make: impl Fn(usize, Range<usize>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let fault: OnceLock<E> = OnceLock::new();
        pool.run(self.count().saturating_sub(first), &|task| {
            let task = first + task;
            if fault.get().is_none()
                && let Err(e) = make(task, self.get(task))
            {
                drop(fault.set(e));
            }
        });
        fault.into_inner().map_or(Ok(()), Err)
    }
}

impl Packed {
    /// A matrix whose rows `make` packs, range by range, on the threads of a pool. Ranges begin with a block
    /// ([`Spec::block`](super::Spec::block)); a part that all rows share is taken from the first range.
    ///
    /// # Errors
    /// One that `make` gives.
    ///
    /// # Panics
    /// When a packed range has not the parts of its shape.
    pub fn from_row_ranges<E: Send + Sync>(
        format: &'static dyn Format,
        rows: usize,
        cols: usize,
        pool: &Pool,
        make: impl Fn(Range<usize>) -> Result<Packed, E> + Sync,
    ) -> Result<Packed, E> {
        let ranges = Ranges::new(format, rows, cols);
        let make = |range| temporary(|| make(range));
        // The first tells the sizes that the shape does not.
        let head = make(ranges.get(0))?;
        let bytes =
            |rows: usize| format.parts(rows, cols, &head.parts).into_iter().map(|p| p.bytes).collect::<Vec<_>>();
        let mut result = Ok(());
        let parts = Bytes::build(&bytes(rows), |mut parts| {
            for (part, found) in parts.iter_mut().zip(&head.parts) {
                part[..found.len()].copy_from_slice(found);
            }
            let parts: Vec<SharedMut<u8>> = parts.into_iter().map(SharedMut::new).collect();
            result = ranges.each(1, pool, |_, range| {
                let packed = make(range.clone())?;
                let (from, to) = (bytes(range.start), bytes(range.end));
                for (i, (part, found)) in parts.iter().zip(&packed.parts).enumerate() {
                    let place = from[i]..to[i];
                    if place.is_empty() {
                        continue; // shared by all rows
                    }
                    // SAFETY: ranges of rows are disjoint and a task runs once, so places are disjoint.
                    unsafe { part.slice(place) }.copy_from_slice(found);
                }
                Ok(())
            });
        });
        result.map(|()| Packed { format, rows, cols, parts })
    }

    /// Quantizes weights that `read` gives range by range, `[rows, cols]`, on the threads of a pool. Where all rows share a
    /// scale, each range is read twice.
    ///
    /// # Errors
    /// One that `read` gives, or what `fault` makes of one of [`Format::quantize`], whose rows are those of the matrix.
    pub fn quantize<'w, E: Send + Sync>(
        format: &'static dyn Format,
        [rows, cols]: [usize; 2],
        options: &QuantizeOptions,
        pool: &Pool,
        read: impl Fn(Range<usize>) -> Result<Cow<'w, [f32]>, E> + Sync,
        fault: impl Fn(Error) -> E + Sync,
    ) -> Result<Packed, E> {
        let mut options = options.clone();
        if format.spec().shares_scale() {
            let ranges = Ranges::new(format, rows, cols);
            let mut found = vec![Magnitude::default(); ranges.count()];
            let places = SharedMut::new(&mut found);
            ranges.each(0, pool, |task, range| {
                let magnitude = Magnitude::of(&read(range)?);
                // SAFETY: a task runs once.
                unsafe { places.slice(task..task + 1) }.fill(magnitude);
                Ok(())
            })?;
            options.whole = Some(found.into_iter().fold(Magnitude::default(), Magnitude::and));
        }
        let made = Packed::from_row_ranges(format, rows, cols, pool, |range| {
            let weights = read(range.clone())?;
            format.quantize_rows(&weights, range.len(), cols, &options).map_err(|e| {
                fault(match e {
                    Error::NonFinite { row, col } => Error::NonFinite { row: row + range.start, col },
                    Error::Range { row, col, format } => Error::Range { row: row + range.start, col, format },
                    other => other,
                })
            })
        });
        made.map(|packed| format.settle(packed))
    }
}
