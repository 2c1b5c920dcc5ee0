//! Quantization-aware training: body weights are ternary and their activations int8 in the forward pass; the backward pass
//! goes straight through (arXiv 2402.17764; median and small networks: arXiv 2407.09527).

use lowbit_kernels::simd::LANES;
use lowbit_kernels::{Cpu, Op, Simd};
use serde::{Deserialize, Serialize};

/// Values per task and per partial sum; part of the result, so independent of the number of threads.
const CHUNK: usize = 16_384;
/// The scale where all weights are 0.
const EPS: f32 = 1e-5;
/// The smallest scale, whose inverse is finite.
const SMALLEST: f32 = 4.0 * f32::MIN_POSITIVE;

/// What a ternary scale is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// `mean|W|`
    #[default]
    Mean,
    /// `median|W|`, the lower of the two middle values.
    Median,
}

/// What shares a ternary scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// The whole matrix.
    #[default]
    Tensor,
    /// One output feature.
    Channel,
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
    /// What the ternary scale is taken from.
    pub scale: Scale,
    /// What shares a ternary scale.
    pub granularity: Granularity,
    /// How activations enter.
    pub activations: QatActivations,
}

/// `out = clamp(round(W * s), -1, 1) / s`, `s = 1 / scale(W)`, `W` being `[rows, cols]`. Published networks have at least 1e-5
/// for the scale; here small weights keep theirs.
pub(crate) fn ternary(cpu: &Cpu, weights: &[f32], cols: usize, qat: Qat, out: &mut [f32]) {
    match qat.granularity {
        Granularity::Tensor => {
            let scale = match qat.scale {
                Scale::Mean => mean_abs(cpu, weights),
                Scale::Median => median_abs(weights, out),
            };
            let chunks = weights.len() / CHUNK * CHUNK;
            let (body, tail) = out.split_at_mut(chunks);
            cpu.pool.for_rows(chunks / CHUNK, 1, [(body, CHUNK)], |range, [out]| {
                let x = &weights[range.start * CHUNK..range.end * CHUNK];
                cpu.isa.run(Ternary { x, scale, out });
            });
            cpu.isa.run(Ternary { x: &weights[chunks..], scale, out: tail });
        }
        Granularity::Channel => {
            let grain = (CHUNK / cols).max(1);
            cpu.pool.for_rows(weights.len() / cols, grain, [(out, cols)], |range, [out]| {
                let rows = weights[range.start * cols..range.end * cols].chunks_exact(cols);
                for (x, out) in rows.zip(out.chunks_exact_mut(cols)) {
                    let scale = match qat.scale {
                        Scale::Mean => (cpu.isa.run(AbsSum(x)) / cols as f64) as f32,
                        Scale::Median => median_abs(x, out),
                    };
                    cpu.isa.run(Ternary { x, scale, out });
                }
            });
        }
    }
}

/// `mean|x|`, summed in a fixed order.
fn mean_abs(cpu: &Cpu, x: &[f32]) -> f32 {
    let mut sums = vec![0.0f64; x.len().div_ceil(CHUNK)];
    cpu.pool.for_rows(sums.len(), 1, [(&mut sums, 1)], |range, [sum]| {
        let end = (range.end * CHUNK).min(x.len());
        sum[0] = cpu.isa.run(AbsSum(&x[range.start * CHUNK..end]));
    });
    (sums.iter().sum::<f64>() / x.len() as f64) as f32
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

/// A NaN scale makes every output NaN, so that it is noticed.
struct Ternary<'a> {
    x: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl Op for Ternary<'_> {
    type Out = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let scale = match self.scale {
            0.0 => EPS,
            small if small < SMALLEST => SMALLEST,
            scale => scale,
        };
        let (factor, step) = (s.splat(1.0 / scale), s.splat(scale));
        let (low, high) = (s.splat(-1.0), s.splat(1.0));
        for (x, out) in self.x.chunks(LANES).zip(self.out.chunks_mut(LANES)) {
            let x = s.mul(s.load_part(x, 0.0), factor);
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
                    ternary(&cpu, &x, cols, Qat { scale, granularity, ..Qat::default() }, &mut got);
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
    fn the_mean_gives_the_bits_of_the_packed_formats() {
        let cpu = Cpu::new(None, Some(2)).unwrap();
        for (rows, cols) in [(16, 64), (48, 33), (384, 200)] {
            let x = sample(rows * cols);
            for (name, granularity) in [("ternary", Granularity::Tensor), ("ternary_channel", Granularity::Channel)] {
                let format = lowbit_kernels::format::find(name).unwrap();
                let expected = format.quantize(&x, rows, cols, &Default::default()).unwrap().dequantize();
                let mut got = vec![9.0; x.len()];
                ternary(&cpu, &x, cols, Qat { granularity, ..Qat::default() }, &mut got);
                let same = got.iter().zip(&expected).all(|(a, b)| a == b);
                assert!(same, "{name} [{rows}, {cols}]");
            }
        }
    }

    #[test]
    fn halves_round_to_even_and_tiny_weights_keep_their_scale() {
        let cpu = Cpu::new(None, Some(1)).unwrap();
        let mut out = vec![9.0; 4];
        ternary(&cpu, &[1.0, -0.5, 1.5, -1.0], 4, Qat::default(), &mut out);
        assert_eq!(out, [1.0, 0.0, 1.0, -1.0]);
        ternary(&cpu, &[1e-30, -1e-30, 3e-30, 0.0], 4, Qat::default(), &mut out);
        let step = out[2];
        assert!((step / 1.25e-30 - 1.0).abs() < 1e-6 && out == [step, -step, step, 0.0], "{out:?}");
        ternary(&cpu, &[0.0; 4], 4, Qat::default(), &mut out);
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn a_nan_weight_shows() {
        let cpu = Cpu::new(None, Some(1)).unwrap();
        let mut out = vec![0.0; 3];
        ternary(&cpu, &[1.0, f32::NAN, 2.0], 3, Qat::default(), &mut out);
        assert!(out.iter().all(|x| x.is_nan()));
    }
}
