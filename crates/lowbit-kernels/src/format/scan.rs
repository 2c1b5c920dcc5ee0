//! bf16, and a copy in 8 bits cut into planes of 4, by which a product of one token finds its largest outputs without
//! reading most of the bf16 weights.
//!
//! A row `w` has codes `c = round(w * 127 / max|w|) + 128 = 16 high + low`. Reading the high planes alone takes
//! `w1 = scale * (16 high + 7.5 - 128)` for `w`, reading both takes `w2 = scale * (c - 128)`; activations become
//! `x' = step * (254 a + b)` with bytes `a` and `b`. By Cauchy and Schwarz
//!
//! `|w x - w1 x'| <= |w - w1| |x| + |w1| |x - x'|`,
//!
//! whose lengths are stored per row, or computed once per token; likewise for `w2`. So every row has an interval in which its
//! output lies. What ends below the `k` largest lower ends cannot be among the `k` largest outputs: first by the high planes
//! of all panels, then by both planes of those that are left. The few panels left then get the product of [`float::BF16`]
//! itself, hence its bits.

use super::codec::{self, Codec, Nibbles, UNITS};
use super::float::{self, BF16};
use super::spec::{Holds, Spec};
use super::ways::Way;
use super::{AHEAD, Format, Packed, QuantizeOptions, StoredPart, size};
use crate::pool::SharedMut;
use crate::simd::{LANES, Simd};
use crate::{Activations, Bytes, Cpu, Error, Op};

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Bf16Scan;

const SPEC: Spec = Spec { redundant: true, ..Spec::floats("bf16_scan", 24.0) };

/// Most columns for which sums stay inside 32 bits, and rounding inside [`Query::slack`].
const COLUMNS: usize = 1 << 16;
/// Bytes of activations in steps of 1, 254.
const RADIX: i32 = 254;
/// Largest activation in steps.
const LARGEST: i32 = RADIX * 127 + 127;
/// Largest length of a row, and of a token: products of two stay inside f32.
const LONGEST: f32 = (1u64 << 62) as f32;
/// Vectors per panel that bound the outputs of its rows.
const BOUNDS: usize = 4;
/// Independent accumulators, which hide the latency of additions.
const STREAMS: usize = 2;

/// Units of a plane of a panel.
fn units(cols: usize) -> usize {
    codec::units::<2>(cols)
}

/// The high and the low code of each weight, and scale, `|w - w1|`, `|w - w2|`, `|w|` of a row.
fn planes(w: &[f32], high: &mut [u8], low: &mut [u8]) -> [f32; BOUNDS] {
    let top = w.iter().fold(0.0f32, |top, w| top.max(w.abs()));
    let scale = top / 127.0;
    let factor = if top == 0.0 { 0.0 } else { 127.0 / f64::from(top) };
    let mut squares = [0.0f64; 3];
    for (w, (high, low)) in w.iter().zip(high.iter_mut().zip(low)) {
        let w = f64::from(*w);
        let code = ((w * factor).round_ties_even() + 128.0) as u8;
        (*high, *low) = (code >> 4, code & 15);
        let rough = f64::from(scale) * (16.0 * f64::from(*high) + 7.5 - 128.0);
        let fine = f64::from(scale) * (f64::from(code) - 128.0);
        for (sum, v) in squares.iter_mut().zip([w - rough, w - fine, w]) {
            *sum += v * v;
        }
    }
    let [rough, fine, length] = squares.map(|sum| above(sum.sqrt()));
    [scale, rough, fine, length]
}

/// An f32 that is not below a length in f64.
fn above(length: f64) -> f32 {
    ((length * (1.0 + 1e-6)) as f32).next_up()
}

impl Format for Bf16Scan {
    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn parts(&self, rows: usize, cols: usize, found: &[Bytes]) -> Vec<StoredPart> {
        let panels = rows.div_ceil(LANES);
        let plane = size(&[panels, units(cols), 64]);
        let mut parts = BF16.parts(rows, cols, found);
        parts.push(StoredPart { name: "high", ..StoredPart::codes(plane) });
        parts.push(StoredPart { name: "low", ..StoredPart::codes(plane) });
        parts.push(StoredPart { name: "bounds", bytes: size(&[panels, BOUNDS * LANES, 4]), holds: Holds::Scales });
        parts
    }

    fn quantize_rows(
        &'static self,
        w: &[f32],
        rows: usize,
        cols: usize,
        options: &QuantizeOptions,
    ) -> Result<Packed, Error> {
        let bf16 = BF16.quantize_rows(w, rows, cols, options)?;
        let (mut high, mut low) = (vec![0u8; rows * cols], vec![0u8; rows * cols]);
        let mut bounds = vec![0.0f32; rows.div_ceil(LANES) * BOUNDS * LANES];
        let mut row = vec![0.0; cols];
        for i in 0..rows {
            BF16.dequantize_row(&bf16, i, &mut row);
            let codes = i * cols..(i + 1) * cols;
            for (b, v) in planes(&row, &mut high[codes.clone()], &mut low[codes]).into_iter().enumerate() {
                bounds[(i / LANES * BOUNDS + b) * LANES + i % LANES] = v;
            }
        }
        let plane = |codes: &[u8]| Bytes::new(codec::pack_matrix::<Nibbles, 2>(rows, cols, units(cols), 8, codes));
        let mut parts = bf16.parts;
        parts.extend([plane(&high), plane(&low), Bytes::from_f32(&bounds)]);
        Packed::from_parts(self, rows, cols, parts)
    }

    fn ways(&self) -> Vec<Way> {
        float::ways()
    }

    fn product_bytes(&self, p: &Packed) -> usize {
        p.parts[0].len()
    }

    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        BF16.dequantize_row(p, row, out);
    }

    fn matmul(&self, cpu: &Cpu, p: &Packed, x: Activations, y: &mut [f32]) {
        BF16.matmul(cpu, p, x, y);
    }

    fn takes_bf16(&self, cpu: &Cpu, tokens: usize) -> bool {
        float::takes_bf16(cpu, tokens)
    }

    fn largest(&self, cpu: &Cpu, p: &Packed, x: &[f32], k: usize, y: &mut [f32]) -> Option<u64> {
        // More than one output per panel: most of the weights would be read in any case.
        let few = (1..=p.rows.div_ceil(LANES)).contains(&k);
        let query = Query::new(x).filter(|_| few && p.cols <= COLUMNS)?;
        Some(Scan::new(cpu, p, query).run(x, k, y))
    }

    fn validate(&self, p: &Packed) -> Result<(), Error> {
        BF16.validate(p)?;
        let wrong = super::floats(&p.parts[3]).enumerate().find(|(_, v)| !(0.0..=LONGEST).contains(v));
        if let Some((at, v)) = wrong {
            return Err(Error::Corrupt(format!(
                "{}: value {at} of `bounds` is {v}, not in 0..={LONGEST:e}",
                SPEC.name
            )));
        }
        let bounds: Vec<f32> = super::floats(&p.parts[3]).collect();
        let is_vain = |row: &usize| {
            let panel = &bounds[row / LANES * BOUNDS * LANES..];
            // The length of a row of zeros is the least number above 0.
            panel[row % LANES] == 0.0 && panel[3 * LANES + row % LANES] > f32::MIN_POSITIVE
        };
        match (0..p.rows).find(is_vain) {
            Some(row) => Err(super::vain_scale(SPEC.name, row)),
            None => Ok(()),
        }
    }
}

/// One token's activations: `x' = step * (254 a + b)`.
struct Query {
    /// `a` and `b` of each column, 0 up to whole units.
    bytes: [Vec<u8>; 2],
    /// Sums of `a` and of `b`.
    sums: [i32; 2],
    step: f32,
    /// `|x|`
    length: f32,
    /// `|x - x'|`
    error: f32,
    /// Bound of the rounding error of an output in f32, here and in the product of bf16, over `|w| |x|`: its longest chain of
    /// additions is an eighth of the columns, and some.
    slack: f32,
}

impl Query {
    /// `None` where there is nothing to tell outputs apart by.
    fn new(x: &[f32]) -> Option<Self> {
        let top = x.iter().fold(0.0f32, |top, x| top.max(x.abs()));
        if !(top.is_normal() && x.iter().all(|x| x.is_finite())) {
            return None;
        }
        let padded = units(x.len()) * 8;
        let (step, factor) = (top / LARGEST as f32, LARGEST as f32 / top);
        let mut query = Query {
            bytes: [vec![0; padded], vec![0; padded]],
            sums: [0; 2],
            step,
            length: 0.0,
            error: 0.0,
            slack: (x.len() as f32 / 8.0 + 32.0) * 2f32.powi(-22),
        };
        let mut squares = [0.0f64; 2];
        for (i, &x) in x.iter().enumerate() {
            let steps = ((x * factor).round_ties_even() as i32).clamp(-LARGEST, LARGEST);
            // The rest is in -127..=127, and so is the largest quotient.
            let a = (steps + steps.signum() * (RADIX / 2 - 1)) / RADIX;
            for (j, v) in [a, steps - RADIX * a].into_iter().enumerate() {
                query.bytes[j][i] = v as i8 as u8;
                query.sums[j] += v;
            }
            let off = f64::from(x) - f64::from(step) * f64::from(steps);
            squares = [squares[0] + f64::from(x).powi(2), squares[1] + off * off];
        }
        (query.length, query.error) = (above(squares[0].sqrt()), above(squares[1].sqrt()));
        (step.is_normal() && query.length <= LONGEST).then_some(query)
    }

    /// The sum of `254 a + b` over all columns.
    fn total(&self) -> f32 {
        (self.sums[0] * RADIX + self.sums[1]) as f32
    }
}

/// Which planes of a panel are added to its outputs.
#[derive(Clone, Copy)]
enum Plane {
    High,
    Low,
}

/// The largest outputs of one token.
struct Scan<'a> {
    cpu: &'a Cpu,
    p: &'a Packed,
    query: Query,
    panels: usize,
    /// The largest lower end and the largest upper end of the intervals of each panel.
    lower: Vec<f32>,
    upper: Vec<f32>,
}

impl<'a> Scan<'a> {
    fn new(cpu: &'a Cpu, p: &'a Packed, query: Query) -> Self {
        let panels = p.rows.div_ceil(LANES);
        let ends = || vec![f32::NEG_INFINITY; panels];
        Scan { cpu, p, query, panels, lower: ends(), upper: ends() }
    }

    /// Writes the outputs; returns the bytes of weights that were read.
    fn run(mut self, x: &[f32], k: usize, y: &mut [f32]) -> u64 {
        let all: Vec<u32> = (0..self.panels as u32).collect();
        self.narrow(Plane::High, &all, y);
        let left = self.left(&all, k);
        self.narrow(Plane::Low, &left, y);
        let last = self.left(&left, k);
        y.fill(f32::NEG_INFINITY);
        let out = SharedMut::new(y);
        self.cpu.pool.run(last.len(), &|i| {
            let panel = last[i] as usize;
            float::one_token(self.cpu, self.p, panel..panel + 1, x, &out);
        });
        let bytes = |part: usize, panels: usize| self.p.parts[part].len() as u64 * panels as u64 / self.panels as u64;
        bytes(1, self.panels) + bytes(2, left.len()) + bytes(3, self.panels + left.len()) + bytes(0, last.len())
    }

    /// Panels that may hold one of the `k` largest outputs.
    fn left(&self, panels: &[u32], k: usize) -> Vec<u32> {
        // The k best panels have k outputs that are not below the least of their lower ends.
        let least = match k {
            1 => self.lower.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            _ => *self.lower.clone().select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1,
        };
        panels.iter().copied().filter(|panel| self.upper[*panel as usize] >= least).collect()
    }

    /// Adds a plane to the outputs of some panels, and narrows their intervals.
    fn narrow(&mut self, plane: Plane, panels: &[u32], y: &mut [f32]) {
        let bytes = units(self.p.cols) * 64;
        let grain = super::stream_grain(bytes, panels.len());
        let (lower, upper) = (SharedMut::new(&mut self.lower), SharedMut::new(&mut self.upper));
        let (p, query, out) = (self.p, &self.query, SharedMut::new(y));
        let isa = self.cpu.isa;
        self.cpu.pool.run(panels.len().div_ceil(grain), &|task| {
            let panels = &panels[task * grain..((task + 1) * grain).min(panels.len())];
            isa.run(Narrow { p, query, plane, panels, out: &out, lower: &lower, upper: &upper });
        });
    }
}

/// Some panels of [`Scan::narrow`].
struct Narrow<'a> {
    p: &'a Packed,
    query: &'a Query,
    plane: Plane,
    panels: &'a [u32],
    out: &'a SharedMut<'a, f32>,
    lower: &'a SharedMut<'a, f32>,
    upper: &'a SharedMut<'a, f32>,
}

impl Op for Narrow<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for panel in self.panels.iter().map(|panel| *panel as usize) {
            self.panel(s, panel);
        }
    }
}

impl Narrow<'_> {
    #[inline(always)]
    fn panel<S: Simd>(&self, s: S, panel: usize) {
        let (query, rows) = (self.query, panel * LANES..self.p.rows.min((panel + 1) * LANES));
        // SAFETY: the task owns the outputs and ends of its panels, each of which is in one task.
        let (out, ends) = unsafe {
            let ends = [self.lower.slice(panel..panel + 1), self.upper.slice(panel..panel + 1)];
            (self.out.slice(rows.clone()), ends)
        };
        let bounds = &self.p.parts[3][panel * BOUNDS * LANES * 4..][..BOUNDS * LANES * 4];
        // SAFETY: four vectors, as just cut.
        let [scale, rough, fine, length] =
            std::array::from_fn(|b| s.as_f(unsafe { s.load_i(bounds.as_ptr().add(b * LANES * 4)) }));
        let (part, base, middle, off) = match self.plane {
            Plane::High => (1, s.splat(0.0), 7.5, rough),
            Plane::Low => (2, s.load_part(out, 0.0), 0.5, fine),
        };
        let mut sum = self.sums(s, part, panel);
        if let Plane::High = self.plane {
            sum = s.mul(sum, s.splat(16.0));
        }
        let sum = s.fma(s.splat(middle), s.splat(query.total()), sum);
        let value = s.fma(scale, s.mul(s.splat(query.step), sum), base);
        s.store_part(out, value);
        let coarse = s.fma(off, s.splat(query.length), s.mul(s.add(length, off), s.splat(query.error)));
        let half = s.fma(s.mul(s.add(length, off), s.splat(query.length)), s.splat(query.slack), coarse);
        // What is lost where numbers are too small for their precision.
        let half = s.add(half, s.splat(f32::MIN_POSITIVE));
        let [lower, upper] = ends;
        (lower[0], upper[0]) = match rows.len() {
            LANES => (s.max_lane(s.sub(value, half)), s.max_lane(s.add(value, half))),
            rows => (first_max(s, s.sub(value, half), rows), first_max(s, s.add(value, half), rows)),
        };
    }

    /// `sum((code - 8) * (254 a + b))` of each row over the columns.
    #[inline(always)]
    fn sums<S: Simd>(&self, s: S, part: usize, panel: usize) -> S::F {
        let bytes = units(self.p.cols) * 64;
        let codes = &self.p.parts[part][panel * bytes..(panel + 1) * bytes];
        let [a, b] = &self.query.bytes;
        let mut totals = [s.splat_i(0); 2];
        for ((codes, a), b) in codes.chunks(UNITS * 64).zip(a.chunks(UNITS * 8)).zip(b.chunks(UNITS * 8)) {
            let sums = Self::part(s, codes, [a, b]);
            totals = [s.add_i(totals[0], sums[0]), s.add_i(totals[1], sums[1])];
        }
        let centred = |j: usize| s.to_f(s.sub_i(totals[j], s.splat_i(8 * self.query.sums[j])));
        s.fma(centred(0), s.splat(RADIX as f32), centred(1))
    }

    /// The sums of codes times `a` and of codes times `b`, for at most [`UNITS`] units.
    #[inline(always)]
    fn part<S: Simd>(s: S, codes: &[u8], x: [&[u8]; 2]) -> [S::I; 2] {
        let units = codes.len() / 64;
        assert!(x.iter().all(|x| x.len() >= units * 8));
        let mut acc = [[[s.splat_i(0); 2]; 2]; STREAMS];
        let add = |mut acc: [[S::I; 2]; 2], unit: usize| {
            // SAFETY: a unit of the codes and its columns, as just checked; a prefetch may name any address.
            unsafe {
                let at = codes.as_ptr().add(unit * 64);
                s.prefetch(at.wrapping_add(AHEAD));
                let codes = s.load_i(at);
                for j in 0..2 {
                    let x = x[j].as_ptr().add(unit * 8);
                    let quad = |q: usize| s.splat_i(x.add(q * 4).cast::<i32>().read_unaligned());
                    acc[j] = Nibbles::multiply(s, codes, acc[j], quad);
                }
            }
            acc
        };
        for first in (0..units / STREAMS * STREAMS).step_by(STREAMS) {
            for i in 0..STREAMS {
                acc[i] = add(acc[i], first + i);
            }
        }
        for unit in units / STREAMS * STREAMS..units {
            acc[0] = add(acc[0], unit);
        }
        std::array::from_fn(|j| {
            let streams = std::array::from_fn(|q| acc.iter().fold(s.splat_i(0), |sum, acc| s.add_i(sum, acc[j][q])));
            Nibbles::combine(s, streams)
        })
    }
}

/// The largest of the first lanes.
#[inline(always)]
fn first_max<S: Simd>(s: S, v: S::F, lanes: usize) -> f32 {
    let mut values = [0.0; LANES];
    s.store_part(&mut values, v);
    values[..lanes].iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The ends of all panels after some planes.
#[cfg(test)]
fn intervals(cpu: &Cpu, p: &Packed, x: &[f32], planes: std::ops::Range<usize>) -> (Vec<f32>, Vec<f32>) {
    let mut scan = Scan::new(cpu, p, Query::new(x).expect("finite"));
    let all: Vec<u32> = (0..scan.panels as u32).collect();
    let mut y = vec![0.0; p.rows];
    for plane in &[Plane::High, Plane::Low][planes] {
        scan.narrow(*plane, &all, &mut y);
    }
    (scan.lower, scan.upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn noise(n: usize, mut seed: u64) -> Vec<f32> {
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| uniform() + uniform() + uniform()).collect()
    }

    /// Random weights with a few rows that are alike, far larger, or 0, and activations with an outlier.
    fn case(rows: usize, cols: usize) -> (Packed, Vec<f32>) {
        let mut w = noise(rows * cols, 3);
        for (i, v) in w.iter_mut().enumerate() {
            *v *= match i / cols {
                row if row % 11 == 3 => 0.0,
                row if row % 110 == 5 => 4.0,
                row if row % 440 == 7 && i % cols == 0 => 300.0,
                _ => 1.0,
            };
        }
        if rows > 40 {
            let (from, to) = w.split_at_mut(33 * cols);
            to[..cols].copy_from_slice(&from[..cols]);
        }
        let mut x = noise(cols, 9);
        x[cols / 2] *= 50.0;
        (Bf16Scan.quantize(&w, rows, cols, &QuantizeOptions::default()).expect("finite"), x)
    }

    #[test]
    fn every_panel_s_largest_output_lies_between_its_ends() {
        for (rows, cols) in [(1, 1), (16, 8), (50, 7), (100, 260), (33, 8200)] {
            let (p, x) = case(rows, cols);
            let w = p.dequantize();
            let exact: Vec<f64> = w
                .chunks_exact(cols)
                .map(|w| w.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum())
                .collect();
            for isa in Isa::available() {
                let cpu = Cpu::new(Some(isa.name()), Some(2)).expect("there");
                let [first, second] = [0..1, 0..2].map(|planes| intervals(&cpu, &p, &x, planes));
                for (panel, exact) in exact.chunks(LANES).enumerate() {
                    let top = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    for (lower, upper) in [&first, &second] {
                        let (lower, upper) = (f64::from(lower[panel]), f64::from(upper[panel]));
                        assert!(lower <= top && top <= upper, "{rows} x {cols}: {lower} {top} {upper}");
                    }
                    let width = |(lower, upper): &(Vec<f32>, Vec<f32>)| upper[panel] - lower[panel];
                    assert!(width(&second) <= width(&first) * 1.01, "more bits say more");
                }
            }
        }
    }

    #[test]
    fn the_largest_outputs_have_the_bits_of_the_whole_product() {
        for (rows, cols) in [(1, 1), (16, 8), (50, 7), (1000, 260), (2048, 64)] {
            let (p, x) = case(rows, cols);
            for isa in Isa::available() {
                let cpu = Cpu::new(Some(isa.name()), Some(3)).expect("there");
                let mut whole = vec![0.0; rows];
                p.matmul(&cpu, Activations::F32(&x), &mut whole);
                let mut order = whole.clone();
                order.sort_unstable_by(|a, b| b.total_cmp(a));
                for k in [1, 2, 40, 63, 64, rows, rows + 1] {
                    let mut y = vec![f32::NAN; rows];
                    let read = p.largest(&cpu, &x, k, &mut y);
                    let least = order[k.min(rows) - 1];
                    for (row, (y, whole)) in y.iter().zip(&whole).enumerate() {
                        let same = y.to_bits() == whole.to_bits();
                        assert!(
                            same || *y == f32::NEG_INFINITY && *whole < least,
                            "{k} of {rows}, row {row}: {y} {whole}"
                        );
                    }
                    if k == 1 && rows > 500 {
                        assert!(read < p.bytes() as u64, "{read} bytes of {}", p.bytes());
                        assert!(y.iter().filter(|y| y.is_finite()).count() < rows / 2, "most are left out");
                    }
                }
            }
        }
    }

    #[test]
    fn activations_without_order_get_the_whole_product() {
        let (p, x) = case(50, 20);
        let cpu = Cpu::new(None, Some(1)).expect("there");
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut y, mut whole) = (vec![0.0; 50], vec![0.0; 50]);
            let x: Vec<f32> = x.iter().enumerate().map(|(i, x)| if i == 4 { bad } else { *x }).collect();
            p.largest(&cpu, &x, 1, &mut y);
            p.matmul(&cpu, Activations::F32(&x), &mut whole);
            assert!(y.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()));
        }
        let mut y = vec![1.0; 50];
        p.largest(&cpu, &[0.0; 20], 1, &mut y);
        assert_eq!(y, [0.0; 50]);
    }
}
