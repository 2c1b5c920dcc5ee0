//! The training interpreter: runs the forward pass and records what the backward pass needs.
//!
//! A few deep operations with hand-written gradients, no general autograd. Three things keep memory and traffic low: every
//! buffer is recycled, a tensor's value lives only as long as a handle or a record needs it, and an activation that
//! only feeds a product is computed inside that product and never stored.

use crate::arena::{Arena, Buffer};
use crate::backward::Record;
use crate::data::BatchTargets;
use crate::gradients::Gradients;
use crate::params::{ParamId, Params, Weight};
use crate::qat::{Qat, QatActivations};
use crate::random::hash;
use lowbit_kernels::ops::{self, Function};
use lowbit_kernels::{Cpu, Mat, Precision, gemm_in};
use lowbit_model::exec::{
    Activation, Attention, Batch, BatchNorm, Exec, Index, NormKind, Past, Pooling, Window, WindowPooling,
};
use std::cell::OnceCell;
use std::rc::Rc;

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Training: records the backward pass and applies dropout drawn from this seed.
    Train(u64),
    /// Evaluation: records nothing and drops nothing.
    Evaluate,
}

/// An activation `[rows, width]` on a tape. Cloning copies no data.
#[derive(Clone)]
pub struct Tensor(Rc<Node>);

struct Node {
    /// Index of its gradient.
    slot: usize,
    rows: usize,
    width: usize,
    value: OnceCell<Rc<Buffer>>,
    /// The inputs from which the value is computed on demand.
    lazy: Option<(Function, Tensor)>,
    /// The value after int8 quantization, shared by the linear layers that read it.
    quantized: OnceCell<Rc<Buffer>>,
}

/// Forward and backward passes over a set of parameters.
pub struct Tape {
    /// The parameters.
    pub params: Params,
    pub(crate) cpu: Cpu,
    pub(crate) qat: Option<Qat>,
    pub(crate) arena: Rc<Arena>,
    pub(crate) records: Vec<Record>,
    /// Gradient of each slot, `[rows, width]`.
    pub(crate) gradients: Vec<Option<Rc<Buffer>>>,
    pub(crate) gradients_of_params: Gradients,
    slots: usize,
    pub(crate) batch: Batch,
    pub(crate) positions: Vec<u32>,
    pass: Pass,
    /// Of the matrix products of training.
    pub(crate) precision: Precision,
    /// The block whose attention is watched.
    pub(crate) watch: Option<usize>,
    watched: Option<Watched>,
    /// Whether the outputs of blocks are kept for a loss.
    pub(crate) watch_outputs: bool,
    outputs: Vec<Tensor>,
    /// Whether blocks keep their input alone, and run again in the backward pass.
    pub(crate) checkpointing: bool,
    /// Whether the block under way will run again.
    unrecorded: bool,
    /// Whether blocks run again: what they moved in the first run stays.
    pub(crate) replaying: bool,
    /// The block under way, counted from 1; 0 outside of blocks.
    layer: u64,
    /// Dropouts so far in the block, or outside of blocks.
    sites: [u64; 2],
}

/// What the attention of a block was given.
#[derive(Clone)]
pub(crate) struct Watched {
    /// Queries, keys and values before rotation, `[tokens, width]`.
    pub(crate) all: [Tensor; 3],
    /// Heads of keys and values.
    pub(crate) kv_heads: usize,
}

impl Tensor {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.0.width
    }

    pub(crate) fn slot(&self) -> usize {
        self.0.slot
    }

    /// The same tensor without what was derived from it, and without what it was made of; its value is there.
    fn bare(&self) -> Tensor {
        let Node { slot, rows, width, ref value, .. } = *self.0;
        let value = value.clone();
        Tensor(Rc::new(Node { slot, rows, width, value, lazy: None, quantized: OnceCell::new() }))
    }
}

impl Tape {
    /// An empty tape over these parameters.
    pub fn new(cpu: &Cpu, params: Params, qat: Option<Qat>) -> Self {
        Tape {
            params,
            cpu: cpu.clone(),
            qat,
            arena: Rc::new(Arena::default()),
            records: Vec::new(),
            gradients: Vec::new(),
            gradients_of_params: Gradients::default(),
            slots: 0,
            batch: Batch::default(),
            positions: Vec::new(),
            pass: Pass::Evaluate,
            precision: Precision::F32,
            watch: None,
            watched: None,
            watch_outputs: false,
            outputs: Vec::new(),
            checkpointing: false,
            unrecorded: false,
            replaying: false,
            layer: 0,
            sites: [0; 2],
        }
    }

    /// Begins a pass over a batch and forgets the one before.
    pub fn begin(&mut self, batch: &Batch, pass: Pass) {
        self.arena.tick();
        self.records.clear();
        self.gradients.clear();
        self.slots = 0;
        self.watched = None;
        self.outputs.clear();
        (self.layer, self.sites) = (0, [0; 2]);
        self.pass = pass;
        self.batch.clone_from(batch);
        batch.rows(Index::Positions { offset: 0 }, |_| Past::default(), &mut self.positions);
    }

    /// Gradient of the loss by a parameter, `[rows, cols]`; none when no backward pass since the last update gave one.
    pub fn gradient(&self, id: ParamId) -> Option<&[f32]> {
        self.gradients_of_params.get(id)
    }

    /// Bytes of memory that the activations and their gradients have taken, those that lie idle included.
    pub fn activation_bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// The values of a tensor, `[rows, width]`.
    pub fn read(&mut self, x: &Tensor) -> Vec<f32> {
        self.value(x).to_vec()
    }

    /// Sum over rows of the cross entropy of logits, in nats; seeds the backward pass with `scale` times its gradient.
    /// A target of `u32::MAX` is ignored.
    pub fn cross_entropy(&mut self, logits: &Tensor, targets: &[u32], smoothing: f32, scale: f32) -> f64 {
        let value = self.value(logits);
        let mut gradient = self.arena.take(value.len());
        let out = Some((&mut gradient[..], scale));
        let loss = ops::cross_entropy(&self.cpu, &value, logits.width(), targets, smoothing, out);
        self.accumulate(logits.slot(), Rc::new(gradient));
        loss
    }

    /// Sum over rows of the squared errors of `[rows, 1]` values; seeds the backward pass with `scale` times its gradient.
    pub fn squared_error(&mut self, values: &Tensor, targets: &[f32], scale: f32) -> f64 {
        let found = self.value(values);
        let mut gradient = self.arena.take(found.len());
        let mut loss = 0.0;
        for ((gradient, y), target) in gradient.iter_mut().zip(found.iter()).zip(targets) {
            let error = y - target;
            *gradient = 2.0 * error * scale;
            loss += f64::from(error) * f64::from(error);
        }
        self.accumulate(values.slot(), Rc::new(gradient));
        loss
    }

    /// The loss that goes with the targets: [`Tape::cross_entropy`] for classes, [`Tape::squared_error`] for values.
    pub fn loss(&mut self, output: &Tensor, targets: &BatchTargets, smoothing: f32, scale: f32) -> f64 {
        match targets {
            BatchTargets::Classes(classes) => self.cross_entropy(output, classes, smoothing, scale),
            BatchTargets::Values(values) => self.squared_error(output, values, scale),
        }
    }

    /// Seeds the backward pass with the gradient of a tensor, `[rows, width]`.
    pub fn seed_gradient(&mut self, x: &Tensor, gradient: &[f32]) {
        let buffer = self.arena.copy(&self.cpu, gradient);
        self.accumulate(x.slot(), Rc::new(buffer));
    }

    /// The value of a tensor, computed now if it was deferred.
    pub(crate) fn value(&mut self, x: &Tensor) -> Rc<Buffer> {
        if let Some(value) = x.0.value.get() {
            return value.clone();
        }
        let (f, input) = x.0.lazy.as_ref().expect("a tensor has a value or a recipe");
        let source = self.value(input);
        let mut y = self.arena.take(source.len());
        ops::activate(&self.cpu, *f, &source, &mut y);
        let value = Rc::new(y);
        self.record(|| Record::Activate { f: *f, value: source, x: input.slot(), y: x.slot() });
        x.0.value.set(value.clone()).unwrap_or_else(|_| unreachable!("just seen empty"));
        value
    }

    /// The value of a tensor as a quantized layer sees it.
    fn quantized(&mut self, x: &Tensor) -> Rc<Buffer> {
        if let Some(value) = x.0.quantized.get() {
            return value.clone();
        }
        let value = self.value(x);
        let mut y = self.arena.take(value.len());
        ops::fake_quantize_rows(&self.cpu, &value, x.width(), &mut y);
        x.0.quantized.get_or_init(|| Rc::new(y)).clone()
    }

    /// What this pass is for.
    pub(crate) fn pass(&self) -> Pass {
        self.pass
    }

    /// Whether a matrix is quantized, and the inputs of its products to 8 bits.
    pub(crate) fn quantization(&self, weight: ParamId) -> (bool, bool) {
        let quantized = self.params.get(weight).is_quantized(self.qat);
        (quantized, quantized && self.qat.is_some_and(|q| q.activations == QatActivations::Int8))
    }

    /// The precision of a product: what a quantized layer computes is what the packed one does.
    pub(crate) fn precision_of(&self, quantized: bool) -> Precision {
        let rounds = self.pass != Pass::Evaluate && !quantized;
        if rounds { self.precision } else { Precision::F32 }
    }

    pub(crate) fn record(&mut self, record: impl FnOnce() -> Record) {
        if self.pass != Pass::Evaluate && !self.unrecorded {
            self.records.push(record());
        }
    }

    pub(crate) fn tensor(&mut self, rows: usize, width: usize, value: impl Into<Rc<Buffer>>) -> Tensor {
        self.node(rows, width, OnceCell::from(value.into()), None)
    }

    fn node(
        &mut self,
        rows: usize,
        width: usize,
        value: OnceCell<Rc<Buffer>>,
        lazy: Option<(Function, Tensor)>,
    ) -> Tensor {
        let slot = self.slots;
        self.slots += 1;
        Tensor(Rc::new(Node { slot, rows, width, value, lazy, quantized: OnceCell::new() }))
    }

    /// The function and argument of a tensor whose value was put off.
    fn deferred(x: &Tensor) -> Option<(Function, Tensor)> {
        if x.0.value.get().is_none() { x.0.lazy.clone() } else { None }
    }

    /// `f(gate) * up`
    fn gate(&mut self, f: Function, gate: &Tensor, up: &Tensor) -> Tensor {
        let (a, b) = (self.value(gate), self.value(up));
        let mut y = self.arena.take(a.len());
        ops::gate(&self.cpu, f, &a, &b, &mut y);
        let out = self.tensor(gate.rows(), gate.width(), y);
        let (gate, up, y) = ((a, gate.slot()), (b, up.slot()), out.slot());
        self.record(|| Record::Gate { f, gate, up, y });
        out
    }

    /// Queries or keys after rotation, `[tokens, heads * head_dim]`.
    fn rotated(&mut self, x: &Tensor, heads: usize, spec: &Attention) -> Rc<Buffer> {
        let value = self.value(x);
        let Some(rope) = spec.rope else { return value };
        let mut y = self.arena.copy(&self.cpu, &value);
        let length = |i: usize| self.batch.cu_seqlens[i + 1] - self.batch.cu_seqlens[i];
        rope.rotate(&self.cpu, &mut y, heads, (&self.positions, &self.batch.cu_seqlens), length, false);
        Rc::new(y)
    }
}

impl Exec for Tape {
    type Tensor = Tensor;
    type Param = ParamId;

    fn embed(&mut self, table: &ParamId, index: Index) -> Tensor {
        let param = self.params.get(*table);
        let width = param.spec.cols;
        let mut rows = Vec::new();
        self.batch.rows(index, |_| Past::default(), &mut rows);
        let mut y = self.arena.take(rows.len() * width);
        match &param.weight {
            Weight::Master(_) if param.grid.is_some() => {
                ops::gather(&self.cpu, &self.params.effective(&self.cpu, *table, None), width, &rows, &mut y);
            }
            Weight::Master(values) => ops::gather(&self.cpu, values, width, &rows, &mut y),
            Weight::Frozen(packed) => {
                for (row, y) in rows.iter().zip(y.chunks_exact_mut(width)) {
                    packed.format().dequantize_row(packed, *row as usize, y);
                }
            }
        }
        let out = self.tensor(rows.len(), width, y);
        self.record(|| Record::Embed { table: *table, rows, y: out.slot() });
        out
    }

    fn features(&mut self, width: usize) -> Tensor {
        let rows = self.batch.tokens.len();
        let y = self.arena.copy(&self.cpu, &self.batch.features);
        assert_eq!(y.len(), rows * width, "numbers of the rows");
        self.tensor(rows, width, y)
    }

    fn linear(&mut self, x: &Tensor, weight: &ParamId, bias: Option<&ParamId>) -> Tensor {
        let (quantized, int8) = self.quantization(*weight);
        let input = if int8 { self.quantized(x) } else { self.value(x) };
        let spec = &self.params.get(*weight).spec;
        let (rows, cols) = (spec.rows, spec.cols);
        assert_eq!(x.width(), cols, "input features of `{}`", spec.name);
        let mut y = self.arena.take(x.rows() * rows);
        let precision = self.precision_of(quantized);
        let effective = self.params.effective(&self.cpu, *weight, self.qat);
        let w = Mat::new(&effective, cols).t();
        gemm_in(&self.cpu, precision, x.rows(), rows, cols, Mat::new(&input, cols), w, false, &mut y);
        if let Some(bias) = bias {
            ops::add_bias(&self.cpu, &mut y, &self.params.get(*bias).values());
        }
        let out = self.tensor(x.rows(), rows, y);
        let (weight, bias) = (*weight, bias.copied());
        self.record(|| Record::Linear { input, weight, bias, x: x.slot(), y: out.slot() });
        out
    }

    fn norm(&mut self, x: &Tensor, kind: NormKind, weight: &ParamId, bias: Option<&ParamId>, eps: f32) -> Tensor {
        let value = self.value(x);
        let mut y = self.arena.take(value.len());
        let w = &self.params.get(*weight).values()[..];
        let b = bias.map(|b| self.params.get(*b).values());
        let b = b.as_deref();
        match kind {
            NormKind::Rms => {
                ops::rms_norm(&self.cpu, &value, w, eps, &mut y);
                if let Some(b) = b {
                    ops::add_bias(&self.cpu, &mut y, b);
                }
            }
            NormKind::Layer => ops::layer_norm(&self.cpu, &value, w, b, eps, &mut y),
        }
        let out = self.tensor(x.rows(), x.width(), y);
        let (weight, bias) = (*weight, bias.copied());
        self.record(|| Record::Norm { kind, value, weight, bias, eps, x: x.slot(), y: out.slot() });
        out
    }

    fn conv(&mut self, x: &Tensor, weight: &ParamId, bias: Option<&ParamId>, window: &Window) -> Tensor {
        self.convolve(x, *weight, bias.copied(), window)
    }

    fn batch_norm(&mut self, x: &Tensor, norm: &BatchNorm<ParamId>) -> Tensor {
        self.normalize_batch(x, norm)
    }

    fn pool_windows(&mut self, x: &Tensor, how: WindowPooling, window: &Window) -> Tensor {
        self.pool_images(x, how, window)
    }

    fn attend(&mut self, q: &Tensor, k: &Tensor, v: &Tensor, spec: &Attention) -> Tensor {
        self.look([q, k, v], spec);
        let shape = spec.shape();
        let queries = self.rotated(q, spec.heads, spec);
        let keys = self.rotated(k, spec.kv_heads, spec);
        let values = self.value(v);
        let mut y = self.arena.take(queries.len());
        let mut logsumexp = self.arena.take(q.rows() * spec.heads);
        ops::attention(&self.cpu, shape, &self.batch.cu_seqlens, &queries, &keys, &values, &mut y, &mut logsumexp);
        let y = Rc::new(y);
        let out = self.tensor(q.rows(), q.width(), y.clone());
        self.record(|| Record::Attend {
            shape,
            rope: spec.rope.cloned(),
            q: (queries, q.slot()),
            k: (keys, k.slot()),
            v: (values, v.slot()),
            y: (y, out.slot()),
            logsumexp,
        });
        out
    }

    fn activate(&mut self, x: &Tensor, f: Activation) -> Tensor {
        self.node(x.rows(), x.width(), OnceCell::new(), Some((f.function(), x.clone())))
    }

    fn mul(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        if let Some((f, gate)) = Self::deferred(a) {
            return self.gate(f, &gate, b);
        }
        if let Some((f, gate)) = Self::deferred(b) {
            return self.gate(f, &gate, a);
        }
        let (left, right) = (self.value(a), self.value(b));
        let mut y = self.arena.take(left.len());
        ops::mul(&self.cpu, &left, &right, &mut y);
        let out = self.tensor(a.rows(), a.width(), y);
        self.record(|| Record::Mul { a: (left, a.slot()), b: (right, b.slot()), y: out.slot() });
        out
    }

    fn add(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        let (left, right) = (self.value(a), self.value(b));
        let mut y = self.arena.take(left.len());
        ops::add(&self.cpu, &left, &right, &mut y);
        let out = self.tensor(a.rows(), a.width(), y);
        self.record(|| Record::Add { a: a.slot(), b: b.slot(), y: out.slot() });
        out
    }

    fn pool(&mut self, x: &Tensor, how: Pooling) -> Tensor {
        let value = self.value(x);
        let (sequences, width) = (self.batch.sequences(), x.width());
        let mut y = self.arena.take(sequences * width);
        match self.picked(how) {
            None => ops::pool_mean(&self.cpu, &value, width, &self.batch.cu_seqlens, &mut y),
            Some(rows) => ops::gather(&self.cpu, &value, width, &rows, &mut y),
        }
        let out = self.tensor(sequences, width, y);
        self.record(|| Record::Pool { how, width, x: (x.slot(), value.len()), y: out.slot() });
        out
    }

    fn block(&mut self, index: usize, x: &Tensor, body: impl FnOnce(&mut Self, &Tensor) -> Tensor) -> Tensor {
        let again = self.checkpointing && self.pass != Pass::Evaluate;
        if again {
            // What was put off outside of the block is recorded there.
            self.value(x);
        }
        self.enter(index);
        self.unrecorded = again;
        let mut y = body(self, x);
        self.leave((again || self.watch_outputs).then_some(&y));
        if again {
            self.unrecorded = false;
            self.record(|| Record::Block { index, input: x.bare(), y: y.slot() });
            y = y.bare();
        }
        if self.watch_outputs {
            self.outputs.push(y.clone());
        }
        y
    }

    fn dropout(&mut self, x: &Tensor, p: f32) -> Tensor {
        let Pass::Train(seed) = self.pass else { return x.clone() };
        if p == 0.0 {
            return x.clone();
        }
        // What a block draws does not depend on how often others draw.
        let site = &mut self.sites[usize::from(self.layer > 0)];
        let seed = hash(&[seed, self.layer, *site]);
        *site += 1;
        let value = self.value(x);
        let mut y = self.arena.take(value.len());
        ops::dropout(&self.cpu, &value, p, seed, &mut y);
        let out = self.tensor(x.rows(), x.width(), y);
        self.record(|| Record::Dropout { p, seed, x: x.slot(), y: out.slot() });
        out
    }
}

impl Tape {
    /// Begins a block.
    pub(crate) fn enter(&mut self, index: usize) {
        (self.layer, self.sites[1]) = (index as u64 + 1, 0);
    }

    /// Ends a block whose output nothing inside of it puts off.
    pub(crate) fn leave(&mut self, output: Option<&Tensor>) {
        output.into_iter().for_each(|y| drop(self.value(y)));
        self.layer = 0;
    }

    /// What the attention of the watched block was given in this pass.
    pub(crate) fn watched(&self) -> Watched {
        self.watched.clone().expect("a network with attention in the block")
    }

    /// The outputs of the blocks in this pass, where they are watched, `[tokens, width]` each.
    pub(crate) fn outputs(&self) -> Vec<Tensor> {
        self.outputs.clone()
    }

    /// Notes what the attention of the watched block is given; of a block that runs again, takes over the gradients that the loss
    /// has seeded.
    fn look(&mut self, all: [&Tensor; 3], spec: &Attention) {
        if self.watch.is_none_or(|block| self.layer != block as u64 + 1) {
            return;
        }
        let Some(first) = self.watched.clone() else {
            self.watched = Some(Watched { all: all.map(Tensor::clone), kv_heads: spec.kv_heads });
            return;
        };
        for (from, to) in first.all.iter().zip(all) {
            if let Some(gradient) = self.gradients.get_mut(from.slot()).and_then(Option::take) {
                self.accumulate(to.slot(), gradient);
            }
        }
    }

    /// The row of each sequence, where pooling takes that of one token.
    pub(crate) fn picked(&self, how: Pooling) -> Option<Vec<u32>> {
        Some(how.picked(&self.batch.cu_seqlens)?.map(|row| row as u32).collect())
    }
}
