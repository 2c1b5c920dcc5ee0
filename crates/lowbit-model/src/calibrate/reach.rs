//! Scales of groups that change after they were chosen, as a format stores them.

use half::f16;
use lowbit_kernels::format::{Grouped, SpanScales};

/// The smallest and largest integers that stand for scales of groups in the super-blocks of a matrix, and the largest for offsets: what is
/// between them a format can store.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reach {
    scales: (f32, f32),
    offset: f32,
}

impl Reach {
    /// Of the spans of a matrix.
    pub fn of(spans: &[SpanScales]) -> Self {
        let mut reach = Reach::default();
        for span in spans.iter().filter(|span| span.scale.to_f32() != 0.0) {
            for (stored, (scale, _)) in span.stored.iter().zip(&span.groups) {
                let integer = (scale / (span.factor * span.scale.to_f32())).round_ties_even();
                reach.scales = (reach.scales.0.min(integer), reach.scales.1.max(integer));
                reach.offset = reach.offset.max(f32::from(stored[1]));
            }
        }
        reach
    }

    /// The integers nearest to a scale and an offset in a super-block whose scales are these.
    fn integers(&self, (scale, offset): (f32, f32), [of_scales, of_offsets]: [f32; 2]) -> [u8; 2] {
        let nearest = |value: f32, unit: f32| if unit == 0.0 { 0.0 } else { (value / unit).round_ties_even() };
        let scale = nearest(scale, of_scales).clamp(self.scales.0, self.scales.1);
        let offset = nearest(-offset, of_offsets).clamp(0.0, self.offset);
        [scale as i16 as u8, offset as u8]
    }

    /// The scales of a span that are nearest to a scale and an offset wished for one of its groups, the others staying as they are.
    pub(super) fn with_group(
        &self,
        grouped: &dyn Grouped,
        scales: &SpanScales,
        group: usize,
        (scale, offset): (f32, f32),
    ) -> SpanScales {
        let wished = (scale / scales.factor, offset / scales.factor);
        let found = match scales.stored.get(group) {
            None => grouped.scales(f16::from_f32(wished.0), f16::from_f32(wished.1), &[]),
            Some(_) => {
                let units = [scales.scale.to_f32(), scales.offset.to_f32()];
                let mut stored = scales.stored.clone();
                let [integer, second] = self.integers(wished, units);
                stored[group][0] = integer;
                if units[1] != 0.0 && grouped.zero().is_none() {
                    stored[group][1] = second;
                }
                grouped.scales(scales.scale, scales.offset, &stored)
            }
        };
        found.times(scales.factor)
    }

    /// The scales of a span, of a row that is divided by a power of two, that are nearest to a scale and an offset wished for each of
    /// its groups. The scales of a super-block are those of its largest groups.
    pub fn nearest(&self, grouped: &dyn Grouped, factor: f32, wished: &[(f32, f32)]) -> SpanScales {
        let wished: Vec<(f32, f32)> = wished.iter().map(|(scale, offset)| (scale / factor, offset / factor)).collect();
        // The end that is farther from 0 is that of the largest scale, whatever its sign.
        let end = if -self.scales.0 > self.scales.1 { self.scales.0 } else { self.scales.1 };
        if end == 0.0 {
            let (scale, offset) = wished[0];
            let whole = wished.len() == 1;
            return match whole {
                true => grouped.scales(f16::from_f32(scale), f16::from_f32(offset), &[]).times(factor),
                // All scales of the matrix are 0.
                false => grouped.scales(f16::ZERO, f16::ZERO, &vec![[0; 2]; wished.len()]).times(factor),
            };
        }
        let top = wished.iter().fold(0.0f32, |top, (scale, _)| if scale.abs() > top.abs() { *scale } else { top });
        let lowest = wished.iter().fold(0.0f32, |low, (_, offset)| low.min(*offset));
        let has_offsets = grouped.zero().is_none() && self.offset > 0.0;
        let of_scales = up(top / end);
        let of_offsets = if has_offsets { up(-lowest / self.offset) } else { f16::ZERO };
        let units = [of_scales.to_f32(), of_offsets.to_f32()];
        let stored: Vec<[u8; 2]> = wished.iter().map(|wished| self.integers(*wished, units)).collect();
        grouped.scales(of_scales, of_offsets, &stored).times(factor)
    }
}

/// The nearest f16 that is no nearer to 0.
fn up(v: f32) -> f16 {
    let near = f16::from_f32(v);
    if near.to_f32().abs() < v.abs() { f16::from_bits(near.to_bits() + 1) } else { near }
}
