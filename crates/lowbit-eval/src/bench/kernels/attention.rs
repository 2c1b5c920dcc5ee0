//! Attention as a case: a prompt from an empty context, keys and values in f16, each query seeing what came before.

use super::case::{Case, Facts, Limit};
use super::shape::Heads;
use super::values;
use crate::error::{Error, Kind as Fault};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::{AttentionShape, CacheKind, CacheRows, Cached, attention_caches};
use std::hint::black_box;

/// Name of these cases where others have that of their format.
pub(super) const NAME: &str = "attention";
/// Largest error of an output; values lie in -2..2.
const TOLERANCE: f64 = 1e-4;

/// Queries, keys and values of a prompt.
pub(super) struct Prompt {
    shape: AttentionShape,
    tokens: usize,
    /// `[tokens, heads * width]`
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    keys: CacheRows,
    values: CacheRows,
}

impl Prompt {
    pub fn new(heads: Heads, tokens: usize) -> Self {
        let shape = AttentionShape::new(heads.count, heads.count, heads.width, true);
        let len = tokens * heads.count * heads.width;
        // Multiples of 1/512 are f16 as they are.
        let exact = |seed| values(len, seed).iter().map(|v| (v * 512.0).round() / 512.0).collect::<Vec<f32>>();
        let (k, v) = (exact(5), exact(9));
        let cache = |rows: &[f32]| {
            let mut cache = CacheRows::new(CacheKind::F16, heads.count, heads.width);
            cache.push(rows);
            cache
        };
        Prompt { shape, tokens, q: values(len, 3), keys: cache(&k), values: cache(&v), k, v }
    }

    fn run(&self, cpu: &Cpu, out: &mut [f32]) {
        let cached = Cached { keys: &self.keys, values: &self.values, new: self.tokens };
        attention_caches(cpu, self.shape, &self.q, 1, &|_| cached, out);
        black_box(out);
    }

    /// A checked case. Scores and sums of pairs that are seen count: `4 * width` operations each.
    pub fn case<'a>(&'a self, (machine, cpu): (usize, &'a Cpu)) -> Result<Case<'a>, Error> {
        let mut out = vec![f32::NAN; self.q.len()];
        self.run(cpu, &mut out);
        self.check(cpu, &out)?;
        let Heads { count, width } = self.heads();
        let pairs = self.tokens as f64 * (self.tokens + 1) as f64 / 2.0;
        let facts = Facts {
            format: NAME.into(),
            shape: self.heads().name(),
            sides: None,
            tokens: self.tokens,
            copies: 1,
            bytes: self.keys.bytes() + self.values.bytes(),
            ops: 4.0 * pairs * (count * width) as f64,
            limit: Limit::F32,
        };
        Ok(Case::new(facts, machine, Box::new(move || self.run(cpu, &mut out))))
    }

    fn heads(&self) -> Heads {
        Heads { count: self.shape.heads, width: self.shape.head_dim }
    }

    /// Compares some outputs with the definition in f64.
    fn check(&self, cpu: &Cpu, out: &[f32]) -> Result<(), Error> {
        let Heads { count, width } = self.heads();
        for token in [0, self.tokens / 2, self.tokens - 1] {
            for head in [0, count - 1] {
                let at = |token: usize| (token * count + head) * width;
                let expected = self.define(token, at);
                for (feature, (expected, have)) in expected.iter().zip(&out[at(token)..]).enumerate() {
                    let error = (f64::from(*have) - expected).abs();
                    if error.is_nan() || error > TOLERANCE {
                        let message = format!(
                            "attention on {}, {count} heads of {width} x {} tokens: feature {feature} of head {head} of \
                             token {token} is {have}, not {expected}: error {error:.1e}, tolerance {TOLERANCE:.0e}; it was \
                             not timed",
                            cpu.isa.name(),
                            self.tokens
                        );
                        return Err(Error::new(Fault::Check, message));
                    }
                }
            }
        }
        Ok(())
    }

    /// Softmax of the scores of one query, times the values; `at` is where a token's head begins.
    fn define(&self, token: usize, at: impl Fn(usize) -> usize) -> Vec<f64> {
        let width = self.shape.head_dim;
        let head = |x: &'_ [f32], token| x[at(token)..][..width].iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
        let q = head(&self.q, token);
        let score = |t| q.iter().zip(head(&self.k, t)).map(|(a, b)| a * b).sum::<f64>() / (width as f64).sqrt();
        let scores: Vec<f64> = (0..=token).map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sums = vec![0.0; width];
        for (t, weight) in weights.iter().enumerate() {
            sums.iter_mut().zip(head(&self.v, t)).for_each(|(sum, v)| *sum += weight / total * v);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_outputs_are_refused_by_place() {
        let cpu = Cpu::new(None, Some(2)).unwrap();
        let prompt = Prompt::new(Heads { count: 3, width: 20 }, 37);
        let mut out = vec![f32::NAN; prompt.q.len()];
        prompt.run(&cpu, &mut out);
        prompt.check(&cpu, &out).expect("the kernel is right");
        *out.last_mut().unwrap() += 1e-3;
        let failure = prompt.check(&cpu, &out).expect_err("the last output is wrong");
        assert_eq!(failure.kind, Fault::Check);
        assert!(failure.message.contains("feature 19 of head 2 of token 36"), "{failure}");
    }
}
