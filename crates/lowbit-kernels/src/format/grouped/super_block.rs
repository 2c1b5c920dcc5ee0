//! Scales of a super-block: small integers for the scale and the offset of each group, and a scale for each of the two.

use super::super::quantizer::best;
use super::search::{Fit, Group, Rounding};
use crate::simd::Simd;
use crate::{Op, Products};
use half::f16;
use std::ops::RangeInclusive;

/// Scales of super-blocks that are tried, over the one whose largest integer is that of the largest group.
const TRIED: [f32; 3] = [1.0, 0.93, 1.07];

/// A search for the scales of the groups of one super-block.
pub(super) struct SuperBlock<'a> {
    pub w: &'a [f32],
    pub importance: Option<&'a [f32]>,
    /// Columns of a group.
    pub columns: usize,
    /// The largest code.
    pub most: u8,
    /// The code that means 0, where no offsets are stored.
    pub zero: Option<u8>,
    /// The integers that a scale may be.
    pub scales: RangeInclusive<i16>,
    /// The largest integer of an offset.
    pub most_offset: u8,
}

impl SuperBlock<'_> {
    /// Scale of the scales, that of the offsets, and both integers of each group.
    pub fn choose(&self) -> (f16, f16, Vec<[u8; 2]>) {
        let ideal: Vec<(f32, f32)> = self.groups().map(Fit::run).collect();
        let lowest = ideal.iter().fold(0.0f32, |low, (_, offset)| low.min(*offset));
        let offset = match self.zero {
            None => up(-lowest / f32::from(self.most_offset)),
            Some(_) => f16::ZERO,
        };
        let top = ideal.iter().fold(0.0f32, |top, (scale, _)| if scale.abs() > top.abs() { *scale } else { top });
        // The end of the range that is farther from 0 is that of the largest scale, whatever its sign.
        let (least, most) = (*self.scales.start(), *self.scales.end());
        let end = if -least > most { least } else { most };
        let mut found = (f64::INFINITY, f16::ZERO, vec![[0; 2]; ideal.len()]);
        for part in TRIED {
            let scale = up(top / f32::from(end) * part);
            let mut made = (0.0, scale, Vec::with_capacity(ideal.len()));
            for (fit, ideal) in self.groups().zip(&ideal) {
                let rounded = Integers { of: self, fit, ideal: *ideal, scale: scale.to_f32(), offset: offset.to_f32() };
                let (error, stored) = best().run(rounded);
                made.0 += f64::from(error);
                made.2.push(stored);
            }
            if made.0 < found.0 {
                found = made;
            }
        }
        (found.1, offset, found.2)
    }

    fn groups(&self) -> impl Iterator<Item = Fit<'_>> {
        self.w.chunks(self.columns).enumerate().map(|(g, w)| Fit {
            w,
            importance: self.importance.map(|all| &all[g * self.columns..][..w.len()]),
            most: self.most,
            zero: self.zero,
            rounding: Rounding::Later,
        })
    }
}

/// The nearest f16 that is no nearer to 0.
fn up(v: f32) -> f16 {
    let near = f16::from_f32(v);
    if near.to_f32().abs() < v.abs() { f16::from_bits(near.to_bits() + 1) } else { near }
}

/// The integers of one group of least error, near those of its own best scale and offset.
struct Integers<'a> {
    of: &'a SuperBlock<'a>,
    fit: Fit<'a>,
    ideal: (f32, f32),
    /// Scales of the super-block.
    scale: f32,
    offset: f32,
}

impl Op for Integers<'_> {
    type Out = (f32, [u8; 2]);
    const PRODUCTS: Products = Products::None;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> (f32, [u8; 2]) {
        let group = Group::new(s, &self.fit);
        let most = f32::from(self.of.most);
        let (least, last) = (*self.of.scales.start(), *self.of.scales.end());
        let near = if self.scale == 0.0 { 0.0 } else { (self.ideal.0 / self.scale).round_ties_even() };
        let mut best = (f32::INFINITY, [0; 2]);
        for step in [0.0f32, -1.0, 1.0] {
            let integer = (near + step).clamp(f32::from(least), f32::from(last));
            let scale = self.scale * integer;
            let mut second = self.second(self.ideal.1);
            for _ in 0..2 {
                let offset = self.of.zero.map_or(-self.offset * f32::from(second), |zero| -f32::from(zero) * scale);
                let sums = group.sums(s, scale, offset, most);
                if sums.error < best.0 {
                    best = (sums.error, [integer as i16 as u8, second]);
                }
                // The best offset for these codes.
                second = self.second((sums.w - scale * sums.c) / sums.a);
            }
        }
        best
    }
}

impl Integers<'_> {
    /// The integer of an offset.
    #[inline(always)]
    fn second(&self, offset: f32) -> u8 {
        match self.of.zero.is_some() || self.offset == 0.0 {
            true => 0,
            false => (-offset / self.offset).round_ties_even().clamp(0.0, f32::from(self.of.most_offset)) as u8,
        }
    }
}
