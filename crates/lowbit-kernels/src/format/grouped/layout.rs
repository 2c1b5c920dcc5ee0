//! Where codes and scales of a panel of 16 rows are.

use super::super::size;
use crate::activations::BLOCK;
use crate::simd::LANES;

/// Columns of a super-block.
pub(super) const SUPER: usize = 256;

/// What is stored of the scales of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// A scale in f16 for each group of a row.
    Halves,
    /// A byte for each group of a row, at most `most`, and a scale of these in f16 for each super-block.
    Bytes {
        /// The largest scale.
        most: u8,
        /// The smallest: below 0 where bytes are signed.
        least: i8,
        /// The largest offset.
        most_offset: u8,
    },
}

/// Shape of the scales of a panel: for each super-block (or group, where there are none) 16 scales in f16, then 16 offsets if there are
/// offsets; then, in super-blocks, 16 bytes of scales and 16 of offsets of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub stored: Stored,
    /// The logarithm to base 2 of the columns of a group.
    pub log: u32,
    pub offsets: bool,
}

impl Layout {
    /// Columns of a group.
    #[inline(always)]
    pub const fn columns(&self) -> usize {
        1 << self.log
    }

    /// The logarithm to base 2 of the columns of a span.
    #[inline(always)]
    const fn span_log(&self) -> u32 {
        match self.stored {
            Stored::Halves => self.log,
            Stored::Bytes { .. } => SUPER.ilog2(),
        }
    }

    /// Columns whose scales are chosen at once.
    #[inline(always)]
    pub const fn span(&self) -> usize {
        1 << self.span_log()
    }

    /// Vectors of scales and offsets.
    #[inline(always)]
    const fn vectors(&self) -> usize {
        1 + self.offsets as usize
    }

    /// Bytes of 16 scales in f16, and 16 offsets.
    #[inline(always)]
    pub const fn head(&self) -> usize {
        2 * LANES * self.vectors()
    }

    /// Bytes of what follows for each group of a span.
    #[inline(always)]
    pub const fn group(&self) -> usize {
        match self.stored {
            Stored::Halves => 0,
            Stored::Bytes { .. } => LANES * self.vectors(),
        }
    }

    /// Groups of a row of so many columns; those of whole blocks.
    pub fn groups(&self, cols: usize) -> usize {
        size(&[cols.div_ceil(BLOCK), BLOCK]).div_ceil(self.columns())
    }

    /// Spans of a row of so many columns.
    pub fn spans(&self, cols: usize) -> usize {
        cols.div_ceil(self.span())
    }

    /// Bytes of the scales of a panel, without factors.
    pub fn bytes(&self, cols: usize) -> usize {
        size(&[self.spans(cols), self.head()]).saturating_add(size(&[self.groups(cols), self.group()]))
    }

    /// Where the scales of the span of a column begin in a panel, and the bytes of its group.
    #[inline(always)]
    pub fn place(&self, col: usize) -> (usize, usize) {
        let per = self.span_log() - self.log;
        let (span, group) = (col >> self.span_log(), col >> self.log);
        let at = span * (self.head() + (self.group() << per));
        (at, at + self.head() + (group - (span << per)) * self.group())
    }
}
