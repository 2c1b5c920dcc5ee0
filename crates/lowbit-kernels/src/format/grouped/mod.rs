//! Formats of integer codes in groups of columns of a row, `w = code * scale + offset`: scales found by search, and codes and
//! scales of other origin packed as they are.

use super::{Format, Packed};
use crate::Error;
use half::f16;

mod family;
mod folds;
mod gemv;
mod layout;
mod planes;
mod search;
mod super_block;
mod view;

pub(super) use family::*;
pub(super) use search::{Fit, Rounding, round};

/// Formats whose codes share a scale and an offset in groups of columns of a row.
pub trait Grouped: Format {
    /// Columns of a group.
    fn columns(&self) -> usize;
    /// Columns whose scales are chosen at once: a super-block, or a group where there are none. The last span of a row may be shorter.
    fn span(&self) -> usize {
        self.columns()
    }
    /// The largest code.
    fn most(&self) -> u8;
    /// The code that means 0 in every group, where offsets are not stored.
    fn zero(&self) -> Option<u8> {
        None
    }
    /// Whether scales may be negative, or 0 whatever the codes are.
    fn any_scale(&self) -> bool {
        false
    }
    /// The scales that are stored so: those of a super-block and, of each of its groups, the two small integers; without
    /// super-blocks those of a group, and no integers. Where there are no offsets, `offset` and the second integers count nothing.
    fn scales(&self, scale: f16, offset: f16, stored: &[[u8; 2]]) -> SpanScales {
        assert!(stored.is_empty(), "a format without super-blocks stores no integers");
        let offset = self.zero().map_or(offset.to_f32(), |zero| -f32::from(zero) * scale.to_f32());
        SpanScales {
            factor: 1.0,
            scale,
            offset: f16::from_f32(offset),
            stored: Vec::new(),
            groups: vec![(scale.to_f32(), offset)],
        }
    }
    /// Scales of the weights of a span, found by search for the least sum of `importance * (w - rounded w)^2`; without importance
    /// all weights count the same. Weights should be about the size of 1: see [`Grouped::factor`].
    ///
    /// # Panics
    /// When there are more weights than a span has, or not as many importances.
    fn choose(&self, w: &[f32], importance: Option<&[f32]>) -> SpanScales;
    /// The power of two that a row is divided by before [`Grouped::choose`], so that f16 holds its scales precisely: 1 for all but rows
    /// of extreme magnitude. Scales of the row become [`SpanScales::times`] it.
    fn factor(&self, row: &[f32]) -> f32 {
        super::quantizer::row_factor(super::Magnitude::of(row).largest())
    }
    /// Packs codes, `[rows, cols]`, and the scales of the spans of each row, `[rows, ceil(cols / span)]`, without rounding.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a code is too large, or scales are not finite or not of this format.
    ///
    /// # Panics
    /// When codes or scales do not fit the shape.
    fn pack(&'static self, rows: usize, cols: usize, codes: &[u8], scales: &[SpanScales]) -> Result<Packed, Error>;
    /// The codes of a row, `[cols]`, and the scales of its spans, as [`Grouped::pack`] takes them; `None` where the format does not
    /// give them back.
    ///
    /// # Panics
    /// When the matrix is of another format, or has fewer rows.
    fn unpack(&self, _packed: &Packed, _row: usize) -> Option<(Vec<u8>, Vec<SpanScales>)> {
        None
    }
}

/// Stored scales of a span of columns of one row, and what they mean.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanScales {
    /// Power of two that all weights of the row are multiplied by, the same in each of its spans.
    pub factor: f32,
    /// Scale of the super-block, or of the group where there are no super-blocks.
    pub scale: f16,
    /// The same of offsets.
    pub offset: f16,
    /// The small integers of each group of a super-block: scale and offset.
    pub stored: Vec<[u8; 2]>,
    /// Scale and offset of each group as products see them.
    pub groups: Vec<(f32, f32)>,
}

impl SpanScales {
    /// The same of weights that are a power of two larger.
    #[must_use]
    pub fn times(mut self, factor: f32) -> Self {
        self.factor *= factor;
        self.groups.iter_mut().for_each(|(scale, offset)| (*scale, *offset) = (*scale * factor, *offset * factor));
        self
    }

    /// The code, at most `most`, that is nearest to a weight of a group.
    pub fn nearest(&self, group: usize, w: f32, most: u8) -> u8 {
        match self.groups[group] {
            (0.0, _) => 0,
            (scale, offset) => ((w - offset) / scale).clamp(0.0, f32::from(most)).round_ties_even() as u8,
        }
    }
}

/// The power of two that the spans of a row share.
pub(super) fn shared_factor(row: usize, spans: &[SpanScales]) -> Result<f32, Error> {
    let factor = spans.first().map_or(1.0, |span| span.factor);
    match spans.iter().all(|span| span.factor == factor) {
        true => Ok(factor),
        false => Err(Error::Corrupt(format!("row {row}: its spans have different factors"))),
    }
}

/// Refuses codes above `most`, naming the first.
pub(super) fn check_codes(format: &str, codes: &[u8], cols: usize, most: u8) -> Result<(), Error> {
    match super::first(codes, |code| code > most) {
        Some(at) => {
            let (row, col, code) = (at / cols.max(1), at % cols.max(1), codes[at]);
            Err(Error::Corrupt(format!("{format}: row {row}, column {col}: code {code} is more than {most}")))
        }
        None => Ok(()),
    }
}
