//! The backward pass: one gradient per kind of record.
//!
//! Gradients of activations are handed from consumer to producer and freed on the way; two tensors may share one (both
//! summands of an addition have the gradient of the sum), which is copied only when one of them has to change.

use crate::arena::Buffer;
use crate::images::{Conv, Normalized, Pooled};
use crate::lora::Adapter;
use crate::params::ParamId;
use crate::tape::{Tape, Tensor};
use lowbit_kernels::ops::{self, AttentionShape, Function};
use lowbit_kernels::{Mat, gemm_in};
use lowbit_model::exec::{NormKind, Pooling};
use lowbit_model::rope::Rope;
use std::rc::Rc;

/// A value with the slot of its gradient.
type Saved = (Rc<Buffer>, usize);

/// What the backward pass of one operation needs. `x` and `y` are slots of input and output.
pub(crate) enum Record {
    Embed {
        table: ParamId,
        rows: Vec<u32>,
        y: usize,
    },
    /// `input` is what was multiplied: quantized where the layer is.
    Linear {
        input: Rc<Buffer>,
        weight: ParamId,
        bias: Option<ParamId>,
        x: usize,
        y: usize,
    },
    Norm {
        kind: NormKind,
        value: Rc<Buffer>,
        weight: ParamId,
        bias: Option<ParamId>,
        eps: f32,
        x: usize,
        y: usize,
    },
    Conv {
        of: Conv,
        y: usize,
    },
    BatchNorm {
        of: Normalized,
        y: usize,
    },
    PoolWindows {
        of: Pooled,
        y: usize,
    },
    /// `q` and `k` after rotation.
    Attend {
        shape: AttentionShape,
        rope: Option<Rope>,
        q: Saved,
        k: Saved,
        v: Saved,
        y: Saved,
        logsumexp: Buffer,
    },
    Activate {
        f: Function,
        value: Rc<Buffer>,
        x: usize,
        y: usize,
    },
    Gate {
        f: Function,
        gate: Saved,
        up: Saved,
        y: usize,
    },
    Mul {
        a: Saved,
        b: Saved,
        y: usize,
    },
    Add {
        a: usize,
        b: usize,
        y: usize,
    },
    /// `x` with its number of values.
    Pool {
        how: Pooling,
        width: usize,
        x: (usize, usize),
        y: usize,
    },
    Dropout {
        p: f32,
        seed: u64,
        x: usize,
        y: usize,
    },
    /// A block that has kept its input alone.
    Block {
        index: usize,
        input: Tensor,
        y: usize,
    },
}

/// A block that has to run again before the backward pass goes on.
pub(crate) struct Again {
    pub(crate) index: usize,
    pub(crate) input: Tensor,
    /// Gradient of its output.
    pub(crate) dy: Rc<Buffer>,
}

impl Record {
    fn output(&self) -> usize {
        match self {
            Record::Attend { y, .. } => y.1,
            Record::Embed { y, .. }
            | Record::Linear { y, .. }
            | Record::Norm { y, .. }
            | Record::Conv { y, .. }
            | Record::BatchNorm { y, .. }
            | Record::PoolWindows { y, .. }
            | Record::Activate { y, .. }
            | Record::Gate { y, .. }
            | Record::Mul { y, .. }
            | Record::Add { y, .. }
            | Record::Pool { y, .. }
            | Record::Block { y, .. }
            | Record::Dropout { y, .. } => *y,
        }
    }
}

impl Tape {
    /// Runs the recorded operations backwards from the seeded gradients; gradients of parameters add up until the next
    /// update.
    ///
    /// # Panics
    /// When the forward pass was that of a network with [`checkpointing`](crate::Network::set_checkpointing), which has a
    /// backward pass of its own.
    pub fn backward(&mut self) {
        assert!(self.backward_to_block().is_none(), "the backward pass is that of the network");
    }

    /// Runs recorded operations backwards up to a block that has to run again; none at the end.
    pub(crate) fn backward_to_block(&mut self) -> Option<Again> {
        while let Some(record) = self.records.pop() {
            let Some(dy) = self.gradients.get_mut(record.output()).and_then(Option::take) else { continue };
            match record {
                Record::Block { index, input, .. } => return Some(Again { index, input, dy }),
                record => self.reverse(record, dy),
            }
        }
        self.gradients.clear();
        None
    }

    fn reverse(&mut self, record: Record, dy: Rc<Buffer>) {
        match record {
            Record::Embed { table, rows, .. } => {
                let param = self.params.get(table);
                if param.trained().is_some() {
                    let sum = self.gradients_of_params.sum(table, param.len());
                    ops::scatter_add(&self.cpu, &dy, param.spec.cols, &rows, sum);
                }
            }
            Record::Linear { input, weight, bias, x, .. } => self.reverse_linear(&input, weight, bias, x, &dy),
            Record::Norm { kind, value, weight, bias, eps, x, .. } => {
                self.reverse_norm(kind, &value, (weight, bias), eps, x, &dy);
            }
            Record::Conv { of, .. } => self.reverse_conv(&of, &dy),
            Record::BatchNorm { of, .. } => self.reverse_batch_norm(&of, &dy),
            Record::PoolWindows { of, .. } => self.reverse_pool_windows(&of, &dy),
            Record::Attend { shape, rope, q, k, v, y, logsumexp } => {
                self.reverse_attend(shape, rope, [q, k, v], &y.0, &logsumexp, &dy);
            }
            Record::Activate { f, value, x, .. } => {
                let mut dx = self.open_sum(x, value.len());
                ops::activate_backward(&self.cpu, f, &value, &dy, &mut dx);
                self.close(x, dx);
            }
            Record::Gate { f, gate, up, .. } => {
                let mut dgate = self.open_sum(gate.1, gate.0.len());
                let mut dup = self.open_sum(up.1, up.0.len());
                ops::gate_backward(&self.cpu, f, &gate.0, &up.0, &dy, &mut dgate, &mut dup);
                self.close(gate.1, dgate);
                self.close(up.1, dup);
            }
            Record::Mul { a, b, .. } => self.reverse_mul(a, b, &dy),
            Record::Add { a, b, .. } => {
                self.accumulate(a, dy.clone());
                self.accumulate(b, dy);
            }
            Record::Pool { how, width, x: (x, len), .. } => {
                let mut dx = self.open_sum(x, len);
                match self.picked(how) {
                    None => ops::pool_mean_backward(&self.cpu, &dy, width, &self.batch.cu_seqlens, &mut dx),
                    Some(rows) => ops::scatter_add(&self.cpu, &dy, width, &rows, &mut dx),
                }
                self.close(x, dx);
            }
            Record::Dropout { p, seed, x, .. } => {
                let mut dx = self.arena.take(dy.len());
                ops::dropout(&self.cpu, &dy, p, seed, &mut dx);
                self.accumulate(x, Rc::new(dx));
            }
            Record::Block { .. } => unreachable!("blocks run again"),
        }
    }

    /// `dW = dy^T x`, `dx = dy W`, straight through any quantization of `W` and `x`.
    fn reverse_linear(&mut self, input: &[f32], weight: ParamId, bias: Option<ParamId>, x: usize, dy: &[f32]) {
        if let Some(bias) = bias {
            self.reverse_bias(bias, dy);
        }
        let param = self.params.get(weight);
        let (rows, cols) = (param.spec.rows, param.spec.cols);
        let (tokens, precision) = (dy.len() / rows, self.precision);
        let (is_trained, adapter) = (param.trained().is_some(), param.adapter);
        let left = Mat::new(dy, rows);
        if self.is_read(x) {
            let (mut dx, holds) = self.open(x, input.len());
            let effective = self.params.effective(&self.cpu, weight, self.qat);
            let right = Mat::new(&effective, cols);
            gemm_in(&self.cpu, precision, tokens, cols, rows, left, right, holds, &mut dx);
            drop(effective);
            self.close(x, dx);
        }
        if is_trained {
            let (dw, holds) = self.gradients_of_params.slot(weight, rows * cols);
            gemm_in(&self.cpu, precision, rows, cols, tokens, left.t(), Mat::new(input, cols), holds, dw);
        }
        if let Some(adapter) = adapter {
            self.reverse_adapter(adapter, input, dy, [tokens, rows, cols]);
        }
    }

    /// `dB = scale * dy^T (x A^T)`, `dA = scale * (dy B)^T x`: what the gradient `dy^T x` of the sum means for the factors.
    fn reverse_adapter(&mut self, adapter: Adapter, input: &[f32], dy: &[f32], [tokens, rows, cols]: [usize; 3]) {
        let (cpu, precision, Adapter { a, b, scale, rank }) = (&self.cpu, self.precision, adapter);
        let (scaled_a, scaled_b) = (self.params.scaled(a, scale), self.params.scaled(b, scale));
        let mut inner = self.arena.take(tokens * rank);
        gemm_in(
            cpu,
            precision,
            tokens,
            rank,
            cols,
            Mat::new(input, cols),
            Mat::new(&scaled_a, cols).t(),
            false,
            &mut inner,
        );
        let (db, holds) = self.gradients_of_params.slot(b, rows * rank);
        gemm_in(cpu, precision, rows, rank, tokens, Mat::new(dy, rows).t(), Mat::new(&inner, rank), holds, db);
        gemm_in(cpu, precision, tokens, rank, rows, Mat::new(dy, rows), Mat::new(&scaled_b, rank), false, &mut inner);
        let (da, holds) = self.gradients_of_params.slot(a, rank * cols);
        gemm_in(cpu, precision, rank, cols, tokens, Mat::new(&inner, rank).t(), Mat::new(input, cols), holds, da);
    }

    /// The gradient of a vector that is added to each row.
    pub(crate) fn reverse_bias(&mut self, bias: ParamId, dy: &[f32]) {
        let param = self.params.get(bias);
        if param.trained().is_some() {
            ops::sum_rows(&self.cpu, dy, self.gradients_of_params.sum(bias, param.len()));
        }
    }

    fn reverse_norm(
        &mut self,
        kind: NormKind,
        value: &[f32],
        (weight, bias): (ParamId, Option<ParamId>),
        eps: f32,
        x: usize,
        dy: &[f32],
    ) {
        let mut dx = self.open_sum(x, value.len());
        if let Some(bias) = bias {
            self.reverse_bias(bias, dy);
        }
        let param = self.params.get(weight);
        let w = &param.values()[..];
        let mut unused = if param.trained().is_some() { Vec::new() } else { vec![0.0; param.len()] };
        let dw = if unused.is_empty() { self.gradients_of_params.sum(weight, param.len()) } else { &mut unused };
        match kind {
            NormKind::Rms => ops::rms_norm_backward(&self.cpu, value, w, eps, dy, &mut dx, dw),
            NormKind::Layer => ops::layer_norm_backward(&self.cpu, value, w, eps, dy, &mut dx, dw, None),
        }
        self.close(x, dx);
    }

    fn reverse_attend(
        &mut self,
        shape: AttentionShape,
        rope: Option<Rope>,
        [q, k, v]: [Saved; 3],
        y: &[f32],
        logsumexp: &[f32],
        dy: &[f32],
    ) {
        let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|saved| self.arena.zeroed(&self.cpu, saved.0.len()));
        let (cpu, cu_seqlens) = (&self.cpu, &self.batch.cu_seqlens);
        ops::attention_backward(cpu, shape, cu_seqlens, &q.0, &k.0, &v.0, y, logsumexp, dy, &mut dq, &mut dk, &mut dv);
        if let Some(rope) = rope {
            let sequences = (&self.positions[..], &cu_seqlens[..]);
            let length = |i: usize| cu_seqlens[i + 1] - cu_seqlens[i];
            rope.rotate(cpu, &mut dq, shape.heads, sequences, length, true);
            rope.rotate(cpu, &mut dk, shape.kv_heads, sequences, length, true);
        }
        for (saved, gradient) in [(q, dq), (k, dk), (v, dv)] {
            self.accumulate(saved.1, Rc::new(gradient));
        }
    }

    fn reverse_mul(&mut self, a: Saved, b: Saved, dy: &[f32]) {
        let mut da = self.arena.zeroed(&self.cpu, dy.len());
        let mut db = self.arena.zeroed(&self.cpu, dy.len());
        ops::mul_backward(&self.cpu, &a.0, &b.0, dy, &mut da, &mut db);
        self.accumulate(a.1, Rc::new(da));
        self.accumulate(b.1, Rc::new(db));
    }

    /// Adds a contribution to the gradient of a slot.
    pub(crate) fn accumulate(&mut self, slot: usize, gradient: Rc<Buffer>) {
        if self.gradients.len() <= slot {
            self.gradients.resize_with(slot + 1, || None);
        }
        let sum = match self.gradients[slot].take() {
            None => gradient,
            Some(held) => {
                // Whichever nobody else reads takes the sum; addition commutes bit by bit.
                let (mut into, from) = match Rc::try_unwrap(held) {
                    Ok(held) => (held, gradient),
                    Err(held) => (self.own(gradient), held),
                };
                ops::add_assign(&self.cpu, &mut into, &from);
                Rc::new(into)
            }
        };
        self.gradients[slot] = Some(sum);
    }

    /// Whether an operation that is still to be reversed made what lies in a slot: the gradient of inputs is read by none.
    pub(crate) fn is_read(&self, slot: usize) -> bool {
        self.records.iter().any(|record| record.output() == slot)
    }

    /// The gradient of a slot, to be written, and whether it holds a sum to add to.
    pub(crate) fn open(&mut self, slot: usize, len: usize) -> (Buffer, bool) {
        match self.gradients.get_mut(slot).and_then(Option::take) {
            Some(held) => (self.own(held), true),
            None => (self.arena.take(len), false),
        }
    }

    /// The gradient of a slot, to be added to.
    pub(crate) fn open_sum(&mut self, slot: usize, len: usize) -> Buffer {
        let (mut buffer, holds) = self.open(slot, len);
        if !holds {
            buffer.zero(&self.cpu);
        }
        buffer
    }

    pub(crate) fn close(&mut self, slot: usize, gradient: Buffer) {
        self.accumulate(slot, Rc::new(gradient));
    }

    fn own(&self, shared: Rc<Buffer>) -> Buffer {
        Rc::try_unwrap(shared).unwrap_or_else(|shared| self.arena.copy(&self.cpu, &shared))
    }
}
