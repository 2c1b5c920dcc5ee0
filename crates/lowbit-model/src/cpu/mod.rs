//! The interpreter for inference on the CPU: kernels of `lowbit-kernels` on recycled buffers.

use crate::calibrate::Observed;
use crate::engine::unknown_token;
use crate::exec::{
    Activation, Attention, Batch, BatchNorm, Exec, Index, NormKind, Past, Pooling, Window, WindowPooling,
};
use crate::recipe::ActivationPrecision;
use crate::rotation;
use crate::source::Role;
use crate::window::affine;
use crate::{Error, Model};
use arena::Arena;
use lowbit_kernels::{Cpu, Packed, Windows, ops};
use std::sync::Arc;

mod arena;
mod cache;
mod product;
mod session;

pub use arena::Tensor;
pub use product::ProductInputs;
pub use session::{PREFILL_CHUNK, Sequences, Session};

use cache::Cache;

/// A parameter of the inference interpreter.
#[derive(Clone, Debug)]
pub enum Param {
    /// A weight matrix or table in some format.
    Matrix {
        /// Name in checkpoints.
        name: Arc<str>,
        /// What it is for.
        role: Role,
        /// The weights.
        packed: Packed,
        /// How inputs of its products are given.
        activations: ActivationPrecision,
        /// Whether its columns are rotated, and so are inputs of its products.
        rotated: bool,
    },
    /// Weight or bias vector.
    Vector(Vec<f32>),
}

impl Param {
    fn vector(&self) -> &[f32] {
        match self {
            Param::Vector(values) => values,
            Param::Matrix { name, .. } => {
                unreachable!("`{name}` is a matrix where an architecture asked for a vector")
            }
        }
    }

    fn matrix(&self) -> &Packed {
        match self {
            Param::Matrix { packed, .. } => packed,
            Param::Vector(_) => unreachable!("a vector where an architecture asked for a matrix"),
        }
    }
}

/// The interpreter for inference. One forward pass at a time; buffers are kept from pass to pass.
pub struct CpuExec {
    cpu: Cpu,
    arena: Arena,
    /// The current batch.
    batch: Batch,
    /// What each of its sequences held before.
    past: Vec<Past>,
    /// Position of each token in its sequence.
    positions: Vec<u32>,
    /// Rows of a table that are looked up.
    rows: Vec<u32>,
    /// Attentions of the pass so far: the next one's keys and values are cached under this number.
    attentions: usize,
    /// Inputs of the last products.
    inputs: ProductInputs,
    /// Windows that are gathered for a product.
    gathered: Vec<f32>,
    /// Rotated inputs of the last product that takes such, and the stamp of the tensor they were made from.
    rotated: Option<(u64, Tensor)>,
    logsumexp: Vec<f32>,
    /// Keys and values of earlier tokens by slot.
    caches: Vec<Option<Cache>>,
    /// Which cache each sequence of the batch continues; none when whole sequences are given.
    slots: Vec<usize>,
    /// Rows whose logits are wanted, ascending; all, if none.
    logit_rows: Option<Vec<usize>>,
    /// How many of the largest logits of a single row are wanted, if not all.
    largest: Option<usize>,
    /// Bytes of the head's weights read for them so far.
    largest_bytes: u64,
    /// What the matrices read, where that is asked for.
    observed: Option<Observed>,
    fault: Option<Error>,
}

impl CpuExec {
    /// An interpreter with empty buffers.
    pub fn new(cpu: Cpu) -> Self {
        CpuExec {
            cpu,
            arena: Arena::default(),
            batch: Batch::default(),
            past: Vec::new(),
            positions: Vec::new(),
            rows: Vec::new(),
            attentions: 0,
            inputs: ProductInputs::default(),
            gathered: Vec::new(),
            rotated: None,
            logsumexp: Vec::new(),
            caches: Vec::new(),
            slots: Vec::new(),
            logit_rows: None,
            largest: None,
            largest_bytes: 0,
            observed: None,
            fault: None,
        }
    }

    /// The same, which tells `observed` what each matrix reads.
    pub(crate) fn observing(cpu: Cpu, observed: Observed) -> Self {
        CpuExec { observed: Some(observed), ..CpuExec::new(cpu) }
    }

    /// What each matrix has read, of an interpreter that keeps it.
    pub(crate) fn observed(self) -> Observed {
        self.observed.unwrap_or_default()
    }

    /// Where it runs.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Times a buffer of activations was made or enlarged; constant while shapes repeat.
    pub fn buffer_growths(&self) -> u64 {
        self.arena.growths
    }

    /// Floats of all buffers of activations, used and free.
    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.arena.floats()
    }

    /// Logits of whole sequences: `[tokens, vocabulary]`, or `[sequences, classes]` for a classifier.
    ///
    /// # Errors
    /// When a sequence is empty, a token is outside its table, or the CPU's work is to end.
    pub fn forward(&mut self, model: &Model<Param>, batch: &Batch) -> Result<Tensor, Error> {
        self.begin(batch)?;
        let logits = model.forward(self);
        let logits = self.force(&logits);
        self.end()?;
        Ok(logits)
    }

    /// Prepares a pass over a batch.
    ///
    /// # Errors
    /// When a sequence is empty.
    pub(crate) fn begin(&mut self, batch: &Batch) -> Result<(), Error> {
        if !batch.is_whole() {
            let text = "a batch needs at least one sequence, and none may be empty; give an empty text a padding token";
            return Err(Error::usage(text));
        }
        self.batch.clone_from(batch);
        self.past.clear();
        let past = |i| self.slots.get(i).map_or(Past::default(), |slot: &usize| held(&self.caches, *slot).past());
        self.past.extend((0..batch.sequences()).map(past));
        self.batch.rows(Index::Positions { offset: 0 }, |i| self.past[i], &mut self.positions);
        (self.fault, self.attentions) = (None, 0);
        self.inputs.forget();
        self.rotated = None;
        Ok(())
    }

    /// Ends a pass.
    ///
    /// # Errors
    /// What went wrong in it.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        self.fault.take().map_or(Ok(()), Err)
    }

    /// Zeros in place of an activation that could not be computed, `[rows, width]`.
    fn blank(&mut self, rows: usize, width: usize) -> Tensor {
        self.arena.make(rows, width, |y| y.fill(0.0))
    }

    /// An activation of values that were computed before, so many rows.
    pub(crate) fn copied(&mut self, rows: usize, values: &[f32]) -> Tensor {
        self.arena.make(rows, values.len() / rows.max(1), |y| y.copy_from_slice(values))
    }

    /// The tensor with its pending function applied.
    pub(crate) fn force(&mut self, x: &Tensor) -> Tensor {
        let Some(f) = x.pending else { return x.clone() };
        let (rows, width) = (x.rows(), x.width());
        self.arena.make(rows, width, |y| ops::activate(&self.cpu, f.function(), x.values(), y))
    }

    /// Copies rows, `[picked, width]`.
    fn pick(&mut self, x: &Tensor, picked: impl ExactSizeIterator<Item = usize>) -> Tensor {
        let width = x.width();
        self.arena.make(picked.len(), width, |y| {
            for (row, y) in picked.zip(y.chunks_exact_mut(width)) {
                y.copy_from_slice(&x.values()[row * width..][..width]);
            }
        })
    }

    /// The tensor with rotary positions.
    fn rotate(&mut self, x: &Tensor, heads: usize, spec: &Attention) -> Tensor {
        let Some(rope) = spec.rope else {
            return x.clone();
        };
        let (sequences, caches, slots) = ((&self.positions[..], &self.batch.cu_seqlens[..]), &self.caches, &self.slots);
        // A sequence that is continued has the frequencies of what it may become: its earlier keys stay as they are.
        let own = |i: usize| sequences.1[i + 1] - sequences.1[i];
        let length = |i: usize| slots.get(i).map_or_else(|| own(i), |slot| held(caches, *slot).context());
        self.arena.make(x.rows(), x.width(), |y| {
            y.copy_from_slice(x.values());
            rope.rotate(&self.cpu, y, heads, sequences, length, false);
        })
    }

    /// The rows of a tensor, each rotated.
    pub(crate) fn rotated(&mut self, x: &Tensor) -> Tensor {
        match &self.rotated {
            Some((stamp, rotated)) if *stamp == x.stamp() => return rotated.clone(),
            _ => self.rotated = None,
        }
        let (cpu, rows, width) = (&self.cpu, x.rows(), x.width());
        let rotated = self.arena.make(rows, width, |y| {
            y.copy_from_slice(x.values());
            cpu.pool.for_rows(rows, (1 << 14) / width.max(1) + 1, [(y, width)], |_, [y]| {
                rotation::hadamard(cpu.isa, y, width);
            });
        });
        self.rotated = Some((x.stamp(), rotated.clone()));
        rotated
    }

    /// Windows of images, spread evenly over all of them and at most so many, `[windows, columns]`.
    pub(crate) fn sampled_windows(&mut self, x: &Tensor, window: &Window, most: usize) -> Tensor {
        let (all, columns) = (window.images(x.values().len()) * window.pixels(), window.columns());
        let step = all.div_ceil(most.max(1)).max(1);
        self.arena.make(all.div_ceil(step), columns, |y| {
            for (i, y) in y.chunks_exact_mut(columns).enumerate() {
                Windows::new(*window, x.values()).range(i * step..i * step + 1).gather_into(&self.cpu.pool, y);
            }
        })
    }

    /// Whether the work is to end, as of the next product.
    fn stops(&mut self) -> bool {
        match self.cpu.stop.check() {
            Ok(()) => false,
            Err(e) => {
                self.fault.get_or_insert(e);
                true
            }
        }
    }
}

impl Exec for CpuExec {
    type Tensor = Tensor;
    type Param = Param;

    fn embed(&mut self, table: &Param, index: Index) -> Tensor {
        let table = table.matrix();
        self.batch.rows(index, |i| self.past[i], &mut self.rows);
        let rows = &self.rows;
        if let Some(row) = rows.iter().find(|row| **row as usize >= table.rows()) {
            self.fault.get_or_insert(outside(index, *row, table.rows()));
        }
        let width = table.cols();
        self.arena.make(rows.len(), width, |y| {
            self.cpu.pool.for_rows(rows.len(), 64, [(y, width)], |range, [y]| {
                for (&row, y) in rows[range].iter().zip(y.chunks_exact_mut(width)) {
                    match (row as usize) < table.rows() {
                        true => table.format().dequantize_row(table, row as usize, y),
                        false => y.fill(0.0),
                    }
                }
            });
        })
    }

    fn features(&mut self, width: usize) -> Tensor {
        let rows = self.batch.tokens.len();
        if self.batch.features.len() != rows * width {
            let found = self.batch.features.len() / rows.max(1);
            let text = format!("rows of {found} numbers for a network that reads {width}");
            self.fault.get_or_insert(Error::usage(text));
        }
        let features = &self.batch.features;
        self.arena.make(rows, width, |y| match features.len() == y.len() {
            true => y.copy_from_slice(features),
            false => y.fill(0.0),
        })
    }

    fn linear(&mut self, x: &Tensor, weight: &Param, bias: Option<&Param>) -> Tensor {
        let mut x = self.force(x);
        let Param::Matrix { name, packed, rotated, .. } = weight else { unreachable!("a product takes a matrix") };
        if self.stops() {
            return self.blank(x.rows(), packed.rows());
        }
        if let Some(observed) = &mut self.observed {
            observed.record(name, packed.cols(), x.values());
        }
        if *rotated {
            x = self.rotated(&x);
        }
        let (cpu, inputs, origin) = (&self.cpu, &mut self.inputs, Some((x.stamp(), x.width())));
        self.arena.make(x.rows(), packed.rows(), |y| {
            inputs.multiply(cpu, (x.values(), origin), (weight, bias), y);
        })
    }

    fn logits(&mut self, x: &Tensor, weight: &Param, bias: Option<&Param>) -> Tensor {
        let mut x = self.force(x);
        if let Some(logit_rows) = self.logit_rows.take_if(|logit_rows| logit_rows.len() < x.rows()) {
            x = self.pick(&x, logit_rows.iter().copied());
            self.logit_rows = Some(logit_rows);
        }
        if x.rows() == 0 {
            return self.arena.make(0, weight.matrix().rows(), |_| {});
        }
        match (self.largest, weight) {
            (Some(k), Param::Matrix { packed, activations: ActivationPrecision::F32, .. })
                if x.rows() == 1 && bias.is_none() =>
            {
                let read = &mut self.largest_bytes;
                self.arena.make(1, packed.rows(), |y| {
                    *read += packed.largest(&self.cpu, x.values(), k, y);
                })
            }
            _ => self.linear(&x, weight, bias),
        }
    }

    fn norm(&mut self, x: &Tensor, kind: NormKind, weight: &Param, bias: Option<&Param>, eps: f32) -> Tensor {
        let x = self.force(x);
        let (cpu, weight) = (&self.cpu, weight.vector());
        self.arena.make(x.rows(), x.width(), |y| match kind {
            NormKind::Rms => ops::rms_norm(cpu, x.values(), weight, eps, y),
            NormKind::Layer => ops::layer_norm(cpu, x.values(), weight, bias.map(Param::vector), eps, y),
        })
    }

    fn conv(&mut self, x: &Tensor, weight: &Param, bias: Option<&Param>, window: &Window) -> Tensor {
        let x = self.force(x);
        let Param::Matrix { name, packed, rotated, .. } = weight else { unreachable!("a product takes a matrix") };
        let (columns, out) = (packed.cols(), packed.rows());
        let all = window.images(x.values().len()) * window.pixels();
        if self.stops() {
            return self.blank(all, out);
        }
        let CpuExec { cpu, inputs, gathered, observed, arena, fault, .. } = self;
        arena.make(all, out, |y| {
            let windows = Windows::new(*window, x.values());
            if observed.is_none() && !rotated {
                match windows.stored() {
                    Some(values) => inputs.multiply(cpu, (values, Some((x.stamp(), columns))), (weight, bias), y),
                    None => inputs.convolve(cpu, windows, (weight, bias), y),
                }
            } else {
                for (i, y) in y.chunks_mut(window.at_once() * out).enumerate() {
                    let some = windows.range(i * window.at_once()..i * window.at_once() + y.len() / out);
                    gathered.resize(some.len() * columns, 0.0);
                    some.gather_into(&cpu.pool, gathered);
                    if let Some(observed) = observed {
                        observed.record(name, columns, gathered);
                    }
                    if *rotated {
                        rotation::hadamard(cpu.isa, gathered, columns);
                    }
                    inputs.multiply(cpu, (gathered, None), (weight, bias), y);
                }
            }
            if let Err(e) = cpu.stop.check() {
                fault.get_or_insert(e);
            }
        })
    }

    fn batch_norm(&mut self, x: &Tensor, norm: &BatchNorm<Param>) -> Tensor {
        let x = self.force(x);
        let [factor, summand] = affine(norm.params().map(Param::vector), norm.eps);
        self.arena.make(x.rows(), x.width(), |y| {
            ops::scale_columns(&self.cpu, x.values(), [&factor, &summand], y);
        })
    }

    fn pool_windows(&mut self, x: &Tensor, how: WindowPooling, window: &Window) -> Tensor {
        let x = self.force(x);
        let rows = window.images(x.values().len()) * window.pixels();
        self.arena.make(rows, window.channels, |y| how.pool(&self.cpu.pool, window, x.values(), y))
    }

    fn attend(&mut self, q: &Tensor, k: &Tensor, v: &Tensor, spec: &Attention) -> Tensor {
        let (q, k, v) = (self.force(q), self.force(k), self.force(v));
        let (q, k) = (self.rotate(&q, spec.heads, spec), self.rotate(&k, spec.kv_heads, spec));
        let (shape, layer) = (spec.shape(), self.attentions);
        self.attentions += 1;
        let (rows, width) = (q.rows(), q.width());
        if !self.slots.is_empty() {
            let kv_width = spec.kv_heads * spec.head_dim;
            for (span, slot) in self.batch.cu_seqlens.windows(2).zip(&self.slots) {
                let (new, cache) = (span[0] * kv_width..span[1] * kv_width, &mut self.caches[*slot]);
                let cache = cache.as_mut().expect("the sequence is open");
                cache.append(layer, &k.values()[new.clone()], &v.values()[new]);
            }
            let (caches, slots, cu_seqlens) = (&self.caches, &self.slots, &self.batch.cu_seqlens);
            let cached = |i: usize| held(caches, slots[i]).layer(layer, cu_seqlens[i + 1] - cu_seqlens[i]);
            return self.arena.make(rows, width, |y| {
                ops::attention_caches(&self.cpu, shape, q.values(), slots.len(), &cached, y);
            });
        }
        self.logsumexp.resize(rows * spec.heads, 0.0);
        let (cu_seqlens, logsumexp) = (&self.batch.cu_seqlens, &mut self.logsumexp);
        self.arena.make(rows, width, |y| {
            let (q, k, v) = (q.values(), k.values(), v.values());
            ops::attention(&self.cpu, shape, cu_seqlens, q, k, v, y, logsumexp);
        })
    }

    /// Deferred: the product with another tensor applies it in the same pass.
    fn activate(&mut self, x: &Tensor, f: Activation) -> Tensor {
        let mut y = self.force(x);
        y.pending = Some(f);
        y
    }

    fn mul(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        let b = self.force(b);
        let cpu = &self.cpu;
        self.arena.make(b.rows(), b.width(), |y| match a.pending {
            Some(f) => ops::gate(cpu, f.function(), a.values(), b.values(), y),
            None => ops::mul(cpu, a.values(), b.values(), y),
        })
    }

    fn add(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        let (a, b) = (self.force(a), self.force(b));
        let cpu = &self.cpu;
        self.arena.make(a.rows(), a.width(), |y| {
            ops::add(cpu, a.values(), b.values(), y);
        })
    }

    fn pool(&mut self, x: &Tensor, how: Pooling) -> Tensor {
        let x = self.force(x);
        let cu_seqlens = std::mem::take(&mut self.batch.cu_seqlens);
        let pooled = match how.picked(&cu_seqlens) {
            Some(rows) => self.pick(&x, rows),
            None => self.arena.make(cu_seqlens.len() - 1, x.width(), |y| {
                ops::pool_mean(&self.cpu, x.values(), x.width(), &cu_seqlens, y);
            }),
        };
        self.batch.cu_seqlens = cu_seqlens;
        pooled
    }

    fn dropout(&mut self, x: &Tensor, _: f32) -> Tensor {
        x.clone()
    }
}

/// The cache of an open sequence.
fn held(caches: &[Option<Cache>], slot: usize) -> &Cache {
    caches[slot].as_ref().expect("the sequence is open")
}

/// The error about a row that a table does not have.
fn outside(index: Index, row: u32, rows: usize) -> Error {
    let entries = format!("is outside the table of {rows} entries");
    match index {
        Index::Tokens | Index::Bigrams(_) => unknown_token(row, rows),
        Index::TokenTypes => Error::usage(format!("token type {row} {entries}; use fewer segments")),
        Index::Positions { offset } => Error::usage(format!("position {} {entries}; shorten the text", row - offset)),
    }
}
