//! Quantization-aware training: body weights are ternary, binary or int8, and their activations int8, in the forward pass; the backward
//! pass goes straight through (ternary: arXiv 2402.17764; median and small networks: arXiv 2407.09527; binary: arXiv 2310.11453; int8:
//! arXiv 1712.05877).

use crate::Error;
use lowbit_kernels::format::{self, Scales, Spec};
use lowbit_kernels::simd::LANES;
use lowbit_kernels::{Cpu, Op, QuantizeOptions, Simd};
use lowbit_model::recipe::{self, ActivationPrecision, Rotation};
use lowbit_model::source::Role;
use lowbit_model::{Recipe, Rounding};
use serde::{Deserialize, Serialize};

/// Values per task and per partial sum; part of the result, so independent of the number of threads.
const CHUNK: usize = 16_384;
/// The ternary scale where all weights are 0.
const EPS: f32 = 1e-5;
/// The smallest ternary scale, whose inverse is finite.
const SMALLEST: f32 = 4.0 * f32::MIN_POSITIVE;
/// The largest code of int8 weights, as their formats have it.
const MOST: f32 = 127.0;
/// The largest weight below which int8 weights are multiplied by [`BOOST`] before they are divided.
const TINY: f32 = 1.0 / (1u128 << 120) as f32;
/// A power of two.
const BOOST: f32 = (1u128 << 100) as f32;

/// What weights become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QatWeights {
    /// -1, 0 or 1 times the scale.
    #[default]
    Ternary,
    /// -1 or 1 times the scale; 0 and above becomes 1. Ternary formats store them.
    Binary,
    /// -127 to 127 times `max|W| / 127`.
    Int8,
}

impl QatWeights {
    fn is_default(&self) -> bool {
        *self == QatWeights::default()
    }
}

/// The format whose groups [`Granularity::Group`] trains.
const GROUPS: &str = "ternary_g128";

/// What a ternary or binary scale is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// `mean|W|`
    #[default]
    Mean,
    /// `median|W|`, the lower of the two middle values.
    Median,
}

/// What shares a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// The whole matrix.
    #[default]
    Tensor,
    /// One output feature.
    Channel,
    /// 128 inputs of an output feature, as the format `ternary_g128` has it.
    Group,
}

/// How activations enter a quantized layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QatActivations {
    /// Int8 by absmax per token.
    #[default]
    Int8,
    /// Activations stay in f32.
    F32,
}

/// Straight-through quantization of the parameters whose role is body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Qat {
    /// What weights become.
    #[serde(skip_serializing_if = "QatWeights::is_default")]
    pub weights: QatWeights,
    /// What a ternary or binary scale is taken from.
    pub scale: Scale,
    /// What shares a scale.
    pub granularity: Granularity,
    /// How activations enter.
    pub activations: QatActivations,
}

impl Qat {
    /// Sees that the settings fit one another.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        match (self.weights, self.scale, self.granularity) {
            (QatWeights::Int8, Scale::Median, _) => {
                let text = "train: `qat.scale` is median, and int8 weights are scaled by the largest: leave it out";
                Err(Error::usage(text))
            }
            (_, Scale::Median, Granularity::Channel) => {
                let text = "train: `qat.scale` is median, which is stored for a whole matrix, and `qat.granularity` is channel";
                Err(Error::usage(format!("{text}: change one of them")))
            }
            (weights, scale, Granularity::Group) if weights != QatWeights::Ternary || scale != Scale::Mean => {
                let text = "train: `qat.granularity` is group, which is for ternary weights and the mean";
                Err(Error::usage(format!("{text}: take tensor or channel, or leave the others out")))
            }
            _ => Ok(()),
        }
    }

    /// How checkpoints round the masters, where that is not by the rule of the format.
    pub fn rounding(&self) -> Option<Rounding> {
        let is_binary = self.weights == QatWeights::Binary;
        let rounding = Rounding { binary: is_binary, median: self.scale == Scale::Median };
        (rounding != Rounding::default()).then_some(rounding)
    }

    /// The recipe that stores what is trained.
    pub fn recipe(&self) -> Result<&'static Recipe, Error> {
        let body = match (self.weights, self.granularity) {
            (QatWeights::Int8, Granularity::Tensor) => "int8",
            (QatWeights::Int8, _) => "int8_channel",
            (_, Granularity::Tensor) => "bitnet",
            (_, Granularity::Channel) => "bitnet_channel",
            (_, Granularity::Group) => GROUPS,
        };
        match self.activations {
            QatActivations::Int8 => recipe::find(body),
            QatActivations::F32 => recipe::find(&format!("{body}+act=f32")),
        }
    }

    /// Sees that a recipe makes of the trained weights what the forward pass of training had.
    ///
    /// # Errors
    /// Usage: what differs, with both values.
    pub fn check_recipe(&self, recipe: &Recipe) -> Result<(), Error> {
        let Some(format) = recipe.format(Role::Body)? else { return Ok(()) };
        let Spec { name, levels, scales, .. } = *format.spec();
        let differs = |what: &str, trained: &str| {
            let text = format!("`qat` trains {trained} {what}, which recipe `{}` (body {name}) has not", recipe.name);
            Err(Error::usage(format!("{text}: change one of them")))
        };
        if !recipe.layers.is_empty() {
            let text = format!("`qat` trains all layers alike, and recipe `{}` has formats for some", recipe.name);
            return Err(Error::usage(format!("{text}: leave them out")));
        }
        if recipe.rotation != Rotation::None {
            let text = format!("`qat` trains weights that are not rotated, and those of recipe `{}` are", recipe.name);
            return Err(Error::usage(format!("{text}: leave `rotate` out")));
        }
        let (kind, expected) = match self.weights {
            QatWeights::Ternary => ("ternary", 3),
            QatWeights::Binary => ("binary", 3),
            QatWeights::Int8 => ("int8", 256),
        };
        if levels != Some(expected) {
            return differs("weights", kind);
        }
        let (kind, expected) = match self.granularity {
            Granularity::Tensor => ("tensor", Scales::Tensor),
            Granularity::Channel => ("channel", Scales::Row),
            Granularity::Group => ("group", Scales::Group(128)),
        };
        if scales != expected {
            return differs("scales", &format!("per-{kind}"));
        }
        match (self.activations, recipe.activations) {
            (QatActivations::Int8, ActivationPrecision::Int8) | (QatActivations::F32, ActivationPrecision::F32) => {
                Ok(())
            }
            (QatActivations::Int8, _) => differs("activations", "int8"),
            (QatActivations::F32, _) => differs("activations", "f32"),
        }
    }

    /// The values that a ternary or binary scale gives.
    fn around(self, scale: f32) -> Levels {
        Levels { binary: self.weights == QatWeights::Binary, ..Levels::ternary(scale) }
    }

    /// The values that weights of one scale become; overwrites `scratch`, which is as long as they are.
    fn levels(self, cpu: &Cpu, weights: &[f32], scratch: &mut [f32]) -> Levels {
        match (self.weights, self.scale) {
            (QatWeights::Int8, _) => Levels::int8(max_abs(cpu, weights)),
            (_, Scale::Mean) => self.around(mean_abs(cpu, weights)),
            (_, Scale::Median) => self.around(median_abs(weights, scratch)),
        }
    }
}

/// What a body matrix `[rows, cols]` becomes: `out = clamp(round(W / s), -1, 1) * s`, `s = scale(W)`, or
/// `round(W / s) * s`, `s = max|W| / 127`. Published ternary networks have at least 1e-5 for the scale; here small weights keep theirs.
pub(crate) fn quantize(cpu: &Cpu, weights: &[f32], cols: usize, qat: Qat, out: &mut [f32]) {
    match qat.granularity {
        Granularity::Tensor => {
            let levels = qat.levels(cpu, weights, out);
            let chunks = weights.len() / CHUNK * CHUNK;
            let (body, tail) = out.split_at_mut(chunks);
            cpu.pool.for_rows(chunks / CHUNK, 1, [(body, CHUNK)], |range, [out]| {
                let x = &weights[range.start * CHUNK..range.end * CHUNK];
                cpu.isa.run(Round { x, levels, out });
            });
            cpu.isa.run(Round { x: &weights[chunks..], levels, out: tail });
        }
        Granularity::Group => {
            let format = format::find(GROUPS).expect("a format that is there");
            let grain = (CHUNK / cols).max(1);
            cpu.pool.for_rows(weights.len() / cols, grain, [(out, cols)], |range, [out]| {
                let (rows, x) = (range.len(), &weights[range.start * cols..range.end * cols]);
                match format.quantize(x, rows, cols, &QuantizeOptions::default()) {
                    Ok(packed) => out.copy_from_slice(&packed.dequantize()),
                    Err(_) => out.fill(f32::NAN),
                }
            });
        }
        Granularity::Channel => {
            let grain = (CHUNK / cols).max(1);
            cpu.pool.for_rows(weights.len() / cols, grain, [(out, cols)], |range, [out]| {
                let rows = weights[range.start * cols..range.end * cols].chunks_exact(cols);
                for (x, out) in rows.zip(out.chunks_exact_mut(cols)) {
                    let levels = match (qat.weights, qat.scale) {
                        (QatWeights::Int8, _) => Levels::int8(f32::from_bits(cpu.isa.run(MaxAbs(x)))),
                        (_, Scale::Mean) => qat.around((cpu.isa.run(AbsSum(x)) / cols as f64) as f32),
                        (_, Scale::Median) => qat.around(median_abs(x, out)),
                    };
                    cpu.isa.run(Round { x, levels, out });
                }
            });
        }
    }
}

/// `mean|x|`, summed in a fixed order.
fn mean_abs(cpu: &Cpu, x: &[f32]) -> f32 {
    let sums = of_chunks(cpu, x, |x| cpu.isa.run(AbsSum(x)));
    (sums.iter().sum::<f64>() / x.len() as f64) as f32
}

/// `max|x|`, NaN if a value is.
fn max_abs(cpu: &Cpu, x: &[f32]) -> f32 {
    f32::from_bits(of_chunks(cpu, x, |x| cpu.isa.run(MaxAbs(x))).into_iter().max().unwrap_or(0))
}

/// A number of each chunk.
fn of_chunks<T: Clone + Default + Send>(cpu: &Cpu, x: &[f32], of: impl Fn(&[f32]) -> T + Sync) -> Vec<T> {
    let mut found = vec![T::default(); x.len().div_ceil(CHUNK)];
    cpu.pool.for_rows(found.len(), 1, [(&mut found, 1)], |range, [found]| {
        let end = (range.end * CHUNK).min(x.len());
        found[0] = of(&x[range.start * CHUNK..end]);
    });
    found
}

/// `median|x|`; overwrites `scratch`, which is as long as `x`.
fn median_abs(x: &[f32], scratch: &mut [f32]) -> f32 {
    for (s, x) in scratch.iter_mut().zip(x) {
        *s = x.abs();
    }
    *scratch.select_nth_unstable_by((x.len() - 1) / 2, f32::total_cmp).1
}

struct AbsSum<'a>(&'a [f32]);

impl Op for AbsSum<'_> {
    type Out = f64;

    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> f64 {
        // In f64, so that the order of the sum does not reach the f32 scale.
        let mut sums = [0.0f64; LANES];
        let (body, tail) = self.0.as_chunks::<LANES>();
        for part in body {
            for (sum, x) in sums.iter_mut().zip(part) {
                *sum += x.abs() as f64;
            }
        }
        sums.iter().sum::<f64>() + tail.iter().map(|x| x.abs() as f64).sum::<f64>()
    }
}

/// The bits of the largest magnitude: those of magnitudes are in their order, NaN above all.
struct MaxAbs<'a>(&'a [f32]);

impl Op for MaxAbs<'_> {
    type Out = u32;

    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> u32 {
        let mut tops = [0u32; LANES];
        let (body, tail) = self.0.as_chunks::<LANES>();
        for part in body {
            for (top, x) in tops.iter_mut().zip(part) {
                *top = (*top).max(x.abs().to_bits());
            }
        }
        tops.into_iter().chain(tail.iter().map(|x| x.abs().to_bits())).max().unwrap_or(0)
    }
}

/// Multiples of a step: `clamp(round(x * boost * factor), -limit, limit) * step`; of binary weights `step` and `-step`.
#[derive(Clone, Copy)]
struct Levels {
    binary: bool,
    boost: f32,
    factor: f32,
    limit: f32,
    step: f32,
}

impl Levels {
    fn ternary(scale: f32) -> Self {
        let step = match scale {
            0.0 => EPS,
            small if small < SMALLEST => SMALLEST,
            scale => scale,
        };
        Levels { binary: false, boost: 1.0, factor: 1.0 / step, limit: 1.0, step }
    }

    fn int8(top: f32) -> Self {
        let boost = if top < TINY { BOOST } else { 1.0 };
        let factor = if top == 0.0 { 0.0 } else { MOST / (top * boost) };
        Levels { binary: false, boost, factor, limit: MOST, step: top / MOST }
    }
}

/// A step of NaN makes every output NaN, so that it is noticed.
struct Round<'a> {
    x: &'a [f32],
    levels: Levels,
    out: &'a mut [f32],
}

impl Op for Round<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Levels { binary, boost, factor, limit, step } = self.levels;
        if binary {
            return self.x.iter().zip(self.out).for_each(|(x, out)| *out = if *x < 0.0 { -step } else { step });
        }
        let (boost, factor, step) = (s.splat(boost), s.splat(factor), s.splat(step));
        let (low, high) = (s.splat(-limit), s.splat(limit));
        for (x, out) in self.x.chunks(LANES).zip(self.out.chunks_mut(LANES)) {
            let x = s.mul(s.mul(s.load_part(x, 0.0), boost), factor);
            let q = s.to_f(s.round_i(s.min(s.max(x, low), high)));
            s.store_part(out, s.mul(q, step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: usize) -> Vec<f32> {
        let mut random = lowbit_base::SplitMix64::new(5);
        (0..n).map(|_| crate::random::normal(&mut random)).collect()
    }

    /// The formula, word for word.
    fn oracle(x: &[f32], scale: f64) -> Vec<f32> {
        let s = 1.0 / scale as f32;
        x.iter().map(|w| (w * s).round_ties_even().clamp(-1.0, 1.0) / s).collect()
    }

    fn mean(x: &[f32]) -> f64 {
        x.iter().map(|w| w.abs() as f64).sum::<f64>() / x.len() as f64
    }

    fn median(x: &[f32]) -> f64 {
        let mut x: Vec<f32> = x.iter().map(|w| w.abs()).collect();
        x.sort_by(f32::total_cmp);
        x[(x.len() - 1) / 2] as f64
    }

    #[test]
    fn every_variant_follows_its_formula() {
        let cpu = Cpu::new(None, Some(2)).unwrap();
        for (rows, cols) in [(1, 1), (3, 5), (48, 33), (70, 700)] {
            let x = sample(rows * cols);
            for (scale, of) in [(Scale::Mean, mean as fn(&[f32]) -> f64), (Scale::Median, median)] {
                for granularity in [Granularity::Tensor, Granularity::Channel] {
                    let span = if granularity == Granularity::Tensor { rows * cols } else { cols };
                    let expected: Vec<f32> = x.chunks(span).flat_map(|x| oracle(x, of(x))).collect();
                    let mut got = vec![9.0; x.len()];
                    quantize(&cpu, &x, cols, Qat { scale, granularity, ..Qat::default() }, &mut got);
                    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                        let close = (got - expected).abs() <= 2e-7 * expected.abs();
                        assert!(close, "{scale:?} {granularity:?} [{rows}, {cols}] at {i}: {got}, not {expected}");
                    }
                }
            }
        }
    }

    /// What is trained is what is packed.
    #[test]
    fn training_gives_the_bits_of_the_packed_formats() {
        let cpu = Cpu::new(None, Some(2)).unwrap();
        for (rows, cols) in [(16, 64), (48, 33), (384, 200)] {
            let mut x = sample(rows * cols);
            x[..cols].iter_mut().for_each(|w| *w *= 1e-37);
            x[cols..2 * cols].fill(0.0);
            for (name, weights, granularity) in [
                ("ternary", QatWeights::Ternary, Granularity::Tensor),
                ("ternary_channel", QatWeights::Ternary, Granularity::Channel),
                ("int8", QatWeights::Int8, Granularity::Tensor),
                ("int8_channel", QatWeights::Int8, Granularity::Channel),
            ] {
                let format = lowbit_kernels::format::find(name).unwrap();
                let expected = format.quantize(&x, rows, cols, &Default::default()).unwrap().dequantize();
                let mut got = vec![9.0; x.len()];
                quantize(&cpu, &x, cols, Qat { weights, granularity, ..Qat::default() }, &mut got);
                let same = got.iter().zip(&expected).all(|(a, b)| a == b);
                assert!(same, "{name} [{rows}, {cols}]");
            }
        }
    }

    #[test]
    fn binary_weights_are_never_0() {
        let cpu = Cpu::new(None, Some(2)).unwrap();
        let mut x = sample(70 * 700);
        (x[0], x[1]) = (0.0, -0.0);
        for (scale, of) in [(Scale::Mean, mean as fn(&[f32]) -> f64), (Scale::Median, median)] {
            for granularity in [Granularity::Tensor, Granularity::Channel] {
                let span = if granularity == Granularity::Tensor { x.len() } else { 700 };
                let qat = Qat { weights: QatWeights::Binary, scale, granularity, ..Qat::default() };
                let mut got = vec![9.0; x.len()];
                quantize(&cpu, &x, 700, qat, &mut got);
                for (x, got) in x.chunks(span).zip(got.chunks(span)) {
                    let step = of(x) as f32;
                    let fits =
                        |(x, got): (&f32, &f32)| (got.abs() / step - 1.0).abs() < 1e-6 && (*got < 0.0) == (*x < 0.0);
                    assert!(x.iter().zip(got).all(fits), "{scale:?} {granularity:?}");
                }
            }
        }
    }

    #[test]
    fn groups_have_the_bits_of_their_format() {
        let cpu = Cpu::new(None, Some(2)).unwrap();
        let (rows, cols) = (70, 300);
        let x = sample(rows * cols);
        let format = lowbit_kernels::format::find(GROUPS).unwrap();
        let expected = format.quantize(&x, rows, cols, &Default::default()).unwrap().dequantize();
        let mut got = vec![9.0; x.len()];
        quantize(&cpu, &x, cols, Qat { granularity: Granularity::Group, ..Qat::default() }, &mut got);
        assert!(got.iter().zip(&expected).all(|(a, b)| a == b));
    }

    #[test]
    fn halves_round_to_even_and_tiny_weights_keep_their_scale() {
        let cpu = Cpu::new(None, Some(1)).unwrap();
        let mut out = vec![9.0; 4];
        quantize(&cpu, &[1.0, -0.5, 1.5, -1.0], 4, Qat::default(), &mut out);
        assert_eq!(out, [1.0, 0.0, 1.0, -1.0]);
        quantize(&cpu, &[1e-30, -1e-30, 3e-30, 0.0], 4, Qat::default(), &mut out);
        let step = out[2];
        assert!((step / 1.25e-30 - 1.0).abs() < 1e-6 && out == [step, -step, step, 0.0], "{out:?}");
        quantize(&cpu, &[0.0; 4], 4, Qat::default(), &mut out);
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn a_nan_weight_shows() {
        let cpu = Cpu::new(None, Some(1)).unwrap();
        for weights in [QatWeights::Ternary, QatWeights::Int8] {
            for granularity in [Granularity::Tensor, Granularity::Channel] {
                let mut out = vec![0.0; 3];
                quantize(&cpu, &[1.0, f32::NAN, 2.0], 3, Qat { weights, granularity, ..Qat::default() }, &mut out);
                assert!(out.iter().all(|x| x.is_nan()), "{weights:?} {granularity:?}");
            }
        }
    }

    #[test]
    fn a_recipe_keeps_what_was_trained_or_is_refused() {
        let int8 = Qat { weights: QatWeights::Int8, ..Qat::default() };
        let channel = |qat| Qat { granularity: Granularity::Channel, ..qat };
        for (qat, recipe, word) in [
            (Qat::default(), "bitnet", ""),
            (Qat::default(), "bitnet_b3_head4", ""),
            (channel(Qat::default()), "bitnet_channel", ""),
            (int8, "int8", ""),
            (channel(int8), "int8_channel", ""),
            (int8, "bitnet", "int8 weights"),
            (Qat::default(), "bitnet+rotate=hadamard", "leave `rotate` out"),
            (Qat::default(), "bitnet+layers.0=int8_channel", "formats for some"),
            (Qat::default(), "int8", "ternary weights"),
            (Qat::default(), "f32", "ternary weights"),
            (int8, "int8_channel", "per-tensor scales"),
            (channel(Qat::default()), "bitnet", "per-channel scales"),
            (Qat { activations: QatActivations::F32, ..int8 }, "int8", "f32 activations"),
            (Qat { weights: QatWeights::Binary, ..Qat::default() }, "bitnet", ""),
            (Qat { granularity: Granularity::Group, ..Qat::default() }, "ternary_g128", ""),
            (Qat { granularity: Granularity::Group, ..Qat::default() }, "bitnet", "per-group scales"),
        ] {
            let found = qat.check_recipe(lowbit_model::recipe::find(recipe).unwrap());
            let found = found.map_or_else(|e| e.message, |()| String::new());
            assert!(found.contains(word) && found.is_empty() == word.is_empty(), "{recipe}: {found}");
        }
        let median = Qat { scale: Scale::Median, ..int8 };
        assert!(median.validate().unwrap_err().message.contains("`qat.scale`"));
        let channels = channel(Qat { scale: Scale::Median, ..Qat::default() });
        assert!(channels.validate().unwrap_err().message.contains("stored for a whole matrix"));
        let groups = Qat { granularity: Granularity::Group, ..int8 };
        assert!(groups.validate().unwrap_err().message.contains("`qat.granularity`"));
    }

    #[test]
    fn every_valid_setting_has_a_recipe() {
        for weights in [QatWeights::Ternary, QatWeights::Binary, QatWeights::Int8] {
            for scale in [Scale::Mean, Scale::Median] {
                for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Group] {
                    for activations in [QatActivations::Int8, QatActivations::F32] {
                        let qat = Qat { weights, scale, granularity, activations };
                        if qat.validate().is_ok() {
                            qat.check_recipe(qat.recipe().unwrap()).unwrap();
                        }
                    }
                }
            }
        }
    }
}
