//! What a network learns from a teacher: its answers (arXiv 1503.02531), the outputs of its layers (TernaryBERT: arXiv 2009.12812), and
//! the relations between the queries, keys and values of one layer (MiniLMv2: arXiv 2012.15828; BitDistill: arXiv 2510.13998).

use crate::Error;
use crate::arena::Buffer;
use crate::config::{is_zero, out_of_range};
use crate::tape::{Tape, Tensor};
use lowbit_kernels::{Mat, gemm, ops};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// The shortest vector that is divided by its length, as in PyTorch's `normalize`.
const SHORTEST: f32 = 1e-12;
/// Values whose rows a thread takes together.
const GRAIN: usize = 1 << 14;

/// How a network learns from a teacher: the loss is `(1 - weight) * L + weight * T^2 * KL(teacher || student)`, `L` being that of the
/// targets and `KL` that of `softmax(logits / T)`, or the squared distance where the answers are values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distill {
    /// Share of the teacher's answers in the loss.
    pub weight: f32,
    /// Temperature `T`.
    pub temperature: f32,
    /// Factor of the mean squared distance between the outputs of each block of the network and of the teacher, which is summed over
    /// blocks and added to the loss; 0 for none. Both have as many blocks of one width.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden: f32,
    /// Relations between the tokens of a layer, which are added to the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<Relations>,
}

/// Relations of a layer: the softmax of the products of all pairs of tokens of a sequence, of the queries, of the keys and of the
/// values, split into heads and scaled to length 1. The loss is the sum of the three mean divergences from those of the teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relations {
    /// Factor of this part of the loss.
    pub weight: f32,
    /// The layer, counted from 0; the last if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// That of the teacher; the last if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_layer: Option<usize>,
    /// Heads that all are split into; the key and value heads of the network if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
}

impl Default for Distill {
    fn default() -> Self {
        Distill { weight: 0.5, temperature: 2.0, hidden: 0.0, attention: None }
    }
}

impl Default for Relations {
    fn default() -> Self {
        Relations { weight: 1.0, layer: None, teacher_layer: None, heads: None }
    }
}

impl Distill {
    /// Sees that all is in range.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !(0.0..=1.0).contains(&self.weight) {
            return Err(out_of_range("distill.weight", self.weight, "at least 0, at most 1"));
        }
        if !(0.01..=1000.0).contains(&self.temperature) {
            return Err(out_of_range("distill.temperature", self.temperature, "at least 0.01, at most 1000"));
        }
        if !(0.0..=1e9).contains(&self.hidden) {
            return Err(out_of_range("distill.hidden", self.hidden, "at least 0, at most 1e9"));
        }
        let Some(Relations { weight, heads, .. }) = self.attention else { return Ok(()) };
        if !(weight > 0.0 && weight <= 1e9) {
            return Err(out_of_range("distill.attention.weight", weight, "above 0, at most 1e9"));
        }
        if heads == Some(0) {
            return Err(out_of_range("distill.attention.heads", 0, "at least 1"));
        }
        Ok(())
    }
}

impl Tape {
    /// `T^2` times the sum over rows of `KL(softmax(teacher / T) || softmax(logits / T))`, in nats; seeds the backward pass with
    /// `scale` times its gradient. Rows whose target is `u32::MAX` are ignored. Both logits are `[rows, width]`.
    pub fn distill_logits(
        &mut self,
        logits: &Tensor,
        teacher: &[f32],
        targets: &[u32],
        temperature: f32,
        scale: f32,
    ) -> f64 {
        let value = self.value(logits);
        assert_eq!(value.len(), teacher.len(), "logits of the teacher are as many");
        let counts = |row: usize| targets[row] != u32::MAX;
        let both = Scores { student: &value, teacher, width: logits.width(), temperature };
        let (loss, gradient) = self.divergence(both, &counts, temperature * scale);
        self.accumulate(logits.slot(), Rc::new(gradient));
        loss * f64::from(temperature) * f64::from(temperature)
    }

    /// Mean over `tokens` and columns of the squared distance from what a teacher has, `[rows, width]`, as a part of those tokens; seeds
    /// the backward pass with `factor` times its gradient.
    pub fn distill_outputs(&mut self, output: &Tensor, taught: &[f32], tokens: usize, factor: f32) -> f64 {
        let values = tokens * output.width();
        self.squared_error(output, taught, factor / values as f32) / values as f64
    }

    /// Sum over queries, keys and values, heads and tokens of `KL(teacher || student)` of the relations of a token to all tokens of
    /// its sequence; seeds the backward pass with `scale` times its gradient. Those of the teacher are `[tokens, width]`.
    ///
    /// # Panics
    /// When the heads do not divide a width.
    pub fn distill_relations(&mut self, student: &[Tensor; 3], teacher: [&[f32]; 3], heads: usize, scale: f32) -> f64 {
        let mut loss = 0.0;
        let cu_seqlens = self.batch.cu_seqlens.clone();
        for (x, taught) in student.iter().zip(teacher) {
            let (value, width) = (self.value(x), x.width());
            let taught_width = taught.len() / x.rows();
            assert!(width.is_multiple_of(heads) && taught_width.is_multiple_of(heads), "heads divide the widths");
            let mut gradient = self.arena.take(value.len());
            for span in cu_seqlens.windows(2) {
                for head in 0..heads {
                    let own = Part::of_head(span, width, heads, head);
                    let other = Part::of_head(span, taught_width, heads, head);
                    loss += self.relation((&value, own), (taught, other), scale, &mut gradient);
                }
            }
            self.accumulate(x.slot(), Rc::new(gradient));
        }
        loss
    }

    /// The divergence of the relations of one head and sequence; writes its part of the gradient.
    fn relation(
        &self,
        (value, own): (&[f32], Part),
        (taught, other): (&[f32], Part),
        scale: f32,
        out: &mut [f32],
    ) -> f64 {
        let (tokens, cpu) = (own.rows[1] - own.rows[0], &self.cpu);
        let products = |unit: &[f32]| {
            let (mut scores, d) = (self.arena.take(tokens * tokens), unit.len() / tokens);
            gemm(cpu, tokens, tokens, d, Mat::new(unit, d), Mat::new(unit, d).t(), false, &mut scores);
            scores
        };
        let (unit, lengths) = own.units(value);
        let (scores, taught) = (products(&unit), products(&other.units(taught).0));
        let both = Scores { student: &scores, teacher: &taught, width: tokens, temperature: 1.0 };
        let (loss, ds) = self.divergence(both, &|_| true, scale);
        // `S = N N^T`, so that `dN = (dS + dS^T) N`; then through the division by the length.
        let (d, mut dn) = (unit.len() / tokens, self.arena.take(unit.len()));
        let (ds, n) = (Mat::new(&ds, tokens), Mat::new(&unit, d));
        gemm(cpu, tokens, d, tokens, ds, n, false, &mut dn);
        gemm(cpu, tokens, d, tokens, ds.t(), n, true, &mut dn);
        for (row, (n, dn)) in unit.chunks_exact(d).zip(dn.chunks_exact(d)).enumerate() {
            let along: f32 = n.iter().zip(dn).map(|(n, dn)| n * dn).sum();
            let at = (own.rows[0] + row) * own.width + own.columns[0];
            for ((out, n), dn) in out[at..at + d].iter_mut().zip(n).zip(dn) {
                *out = (dn - n * along) / lengths[row];
            }
        }
        loss
    }

    /// Sum of `KL(softmax(teacher / T) || softmax(student / T))` over the rows that count, and `scale` times its gradient by the
    /// student's scores times `T`.
    fn divergence(&self, both: Scores, counts: &(dyn Fn(usize) -> bool + Sync), scale: f32) -> (f64, Buffer) {
        let Scores { student, teacher, width, temperature } = both;
        let (cpu, inverse) = (&self.cpu, 1.0 / temperature);
        let softmax = |scores: &[f32]| {
            let mut out = self.arena.take(scores.len());
            cpu.pool.for_rows(scores.len(), GRAIN, [(&mut out[..], 1)], |range, [out]| {
                out.iter_mut().zip(&scores[range]).for_each(|(out, v)| *out = v * inverse);
            });
            ops::softmax(cpu, &mut out, width);
            out
        };
        let (mut of_student, of_teacher) = (softmax(student), softmax(teacher));
        let (rows, grain) = (student.len() / width, GRAIN.div_ceil(width));
        let (of_teacher, mut losses) = (&of_teacher[..], vec![0.0f64; rows]);
        let own = &of_student[..];
        cpu.pool.for_rows(rows, grain, [(&mut losses, 1)], |range, [losses]| {
            for (row, loss) in range.zip(losses).filter(|(row, _)| counts(*row)) {
                let span = row * width..(row + 1) * width;
                let student = LogShares::of(&student[span.clone()], &own[span.clone()], inverse);
                let shares = &of_teacher[span.clone()];
                let teacher = LogShares::of(&teacher[span], shares, inverse);
                let term = |(i, share): (usize, &f32)| f64::from(*share) * (teacher.at(i) - student.at(i));
                *loss = shares.iter().enumerate().map(term).sum();
            }
        });
        cpu.pool.for_rows(rows, grain, [(&mut of_student[..], width)], |range, [out]| {
            for (row, out) in range.zip(out.chunks_exact_mut(width)) {
                let scale = if counts(row) { scale } else { 0.0 };
                let taught = &of_teacher[row * width..(row + 1) * width];
                out.iter_mut().zip(taught).for_each(|(own, taught)| *own = scale * (*own - taught));
            }
        });
        (losses.iter().sum(), of_student)
    }
}

/// Scores whose softmax is compared, `[rows, width]` each.
#[derive(Clone, Copy)]
struct Scores<'a> {
    student: &'a [f32],
    teacher: &'a [f32],
    width: usize,
    temperature: f32,
}

/// Logarithms of a row's softmax.
struct LogShares<'a> {
    scores: &'a [f32],
    inverse: f32,
    /// `ln(sum(exp(scores)))`
    total: f64,
}

impl<'a> LogShares<'a> {
    fn of(scores: &'a [f32], shares: &[f32], inverse: f32) -> Self {
        let top = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0);
        LogShares { scores, inverse, total: f64::from(scores[top] * inverse) - f64::from(shares[top]).ln() }
    }

    fn at(&self, i: usize) -> f64 {
        f64::from(self.scores[i] * self.inverse) - self.total
    }
}

/// Rows and columns of a matrix of so many columns.
#[derive(Clone, Copy)]
struct Part {
    rows: [usize; 2],
    width: usize,
    columns: [usize; 2],
}

impl Part {
    /// The columns of a head of so many.
    fn of_head(rows: &[usize], width: usize, heads: usize, head: usize) -> Self {
        let wide = width / heads;
        Part { rows: [rows[0], rows[1]], width, columns: [head * wide, (head + 1) * wide] }
    }

    /// Its rows divided by their lengths, and the lengths.
    fn units(&self, values: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let Part { rows, width, columns: [from, to] } = *self;
        let (mut units, mut lengths) = (Vec::new(), Vec::new());
        for row in rows[0]..rows[1] {
            let row = &values[row * width + from..row * width + to];
            let squares: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            let length = (squares.sqrt() as f32).max(SHORTEST);
            units.extend(row.iter().map(|v| v / length));
            lengths.push(length);
        }
        (units, lengths)
    }
}
