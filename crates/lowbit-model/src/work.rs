//! The interpreter that counts what a pass over a loaded network reads and computes: the numerators of every speed.

use crate::exec::{Activation, Attention, Batch, Exec, NormKind, Pooling};
use crate::source::Role;
use crate::{Model, Param};
use lowbit_kernels::ops::CacheKind;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A forward pass of a language model over sequences that are continued; the head gives logits of their last tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each before this pass.
    pub past: usize,
    /// New tokens of each.
    pub new: usize,
    /// How keys and values are stored.
    pub cache: CacheKind,
    /// Bytes of its weights that the head reads, where only its largest logits are wanted.
    pub head_bytes: Option<u64>,
}

/// What a pass takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes of all parameters as they lie in memory.
    pub stored_bytes: u64,
    /// Bytes of parameters, keys and values that are read, each once.
    pub read_bytes: u64,
    /// Operations of products in 8-bit integers; a multiplication and an addition count as two.
    pub int8_ops: u64,
    /// Operations of all other products, attention included.
    pub float_ops: u64,
}

/// Counts a pass.
pub fn count(model: &Model<Param>, pass: Pass) -> Work {
    let mut counter = Counter { pass, work: Work::default(), seen: BTreeSet::new() };
    model.forward(&mut counter, &Batch { tokens: vec![0], starts: vec![0, 1] });
    counter.work
}

struct Counter {
    pass: Pass,
    work: Work,
    /// Matrices met already: a tied head is one with the table.
    seen: BTreeSet<Arc<str>>,
}

impl Counter {
    /// Notes a parameter of which `bytes` are read, given the bytes that a product reads and the rows.
    fn read(&mut self, param: &Param, bytes: impl Fn(u64, usize) -> u64) {
        match param {
            Param::Vector(values) => {
                self.work.stored_bytes += 4 * values.len() as u64;
                self.work.read_bytes += 4 * values.len() as u64;
            }
            Param::Matrix { name, packed, .. } => {
                if self.seen.insert(name.clone()) {
                    self.work.stored_bytes += packed.bytes() as u64;
                }
                self.work.read_bytes += bytes(packed.product_bytes() as u64, packed.rows);
            }
        }
    }
}

impl Exec for Counter {
    type Tensor = ();
    type Param = Param;

    fn embed(&mut self, table: &Param, _: &[u32]) {
        let tokens = (self.pass.sequences * self.pass.new) as u64;
        self.read(table, |size, rows| size / rows as u64 * tokens);
    }
    fn linear(&mut self, _: &(), weight: &Param, bias: Option<&Param>) {
        let head = self.pass.head_bytes.filter(|_| matches!(weight, Param::Matrix { role, .. } if *role != Role::Body));
        self.read(weight, |size, _| head.unwrap_or(size));
        if let Some(bias) = bias {
            self.read(bias, |size, _| size);
        }
        let Param::Matrix { role, packed, int8_activations, .. } = weight else { return };
        let tokens = if *role == Role::Body { self.pass.new } else { 1 } * self.pass.sequences;
        let ops = 2 * (tokens * packed.rows * packed.cols) as u64;
        match int8_activations {
            true => self.work.int8_ops += ops,
            false => self.work.float_ops += ops,
        }
    }
    fn norm(&mut self, _: &(), _: NormKind, weight: &Param, bias: Option<&Param>, _: f32) {
        self.read(weight, |size, _| size);
        if let Some(bias) = bias {
            self.read(bias, |size, _| size);
        }
    }
    fn attend(&mut self, _: &(), _: &(), _: &(), spec: &Attention) {
        let Pass { sequences, past, new, cache, .. } = self.pass;
        let rows = sequences * (past + new);
        self.work.read_bytes += 2 * (rows * cache.row_bytes(spec.kv_heads, spec.head_dim)) as u64;
        let pairs = sequences * (new * past + new * (new + 1) / 2);
        self.work.float_ops += 4 * (pairs * spec.heads * spec.head_dim) as u64;
    }
    fn activate(&mut self, _: &(), _: Activation) {}
    fn mul(&mut self, _: &(), _: &()) {}
    fn add(&mut self, _: &(), _: &()) {}
    fn pool(&mut self, _: &(), _: Pooling) {}
    fn dropout(&mut self, _: &(), _: f32) {}
}
