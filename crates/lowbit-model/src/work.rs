//! What a pass over a loaded network reads and computes: the numerators of every speed.

use crate::exec::Attention;
use crate::recipe::ActivationPrecision;
use crate::trace::{Op, trace};
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
pub struct PassCost {
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
pub fn count(model: &Model<Param>, pass: Pass) -> PassCost {
    let mut counter = Counter { pass, cost: PassCost::default(), seen: BTreeSet::new() };
    trace(model, |op| counter.add(op));
    counter.cost
}

struct Counter {
    pass: Pass,
    cost: PassCost,
    /// Matrices met already: a tied head is one with the table.
    seen: BTreeSet<Arc<str>>,
}

impl Counter {
    fn add(&mut self, op: Op<'_, Param>) {
        let Pass { sequences, new, head_bytes, .. } = self.pass;
        match op {
            Op::Embed { table, .. } => {
                self.read(table, |size, rows| size / rows as u64 * (sequences * new) as u64);
            }
            Op::Linear { per, weight, bias } => {
                self.product(weight, bias, per.rows(sequences * new, sequences), None);
            }
            Op::Conv { weight, bias, window } => self.product(weight, bias, sequences * window.pixels(), None),
            Op::Logits { weight, bias, .. } => self.product(weight, bias, sequences, head_bytes),
            Op::Norm { weight, bias, .. } => {
                self.read(weight, |size, _| size);
                bias.into_iter().for_each(|bias| self.read(bias, |size, _| size));
            }
            Op::BatchNorm(norm) => norm.params().into_iter().for_each(|param| self.read(param, |size, _| size)),
            Op::Attend(spec) => self.attention(spec),
            Op::PoolWindows { .. }
            | Op::Features(_)
            | Op::Activate(_)
            | Op::Mul
            | Op::Add
            | Op::Pool(_)
            | Op::Dropout(_)
            | Op::Block(_) => {}
        }
    }

    /// Notes a parameter of which `bytes` are read, given the bytes that a product reads and the rows.
    fn read(&mut self, param: &Param, bytes: impl Fn(u64, usize) -> u64) {
        match param {
            Param::Vector(values) => {
                self.cost.stored_bytes += 4 * values.len() as u64;
                self.cost.read_bytes += 4 * values.len() as u64;
            }
            Param::Matrix { name, packed, .. } => {
                if self.seen.insert(name.clone()) {
                    self.cost.stored_bytes += packed.bytes() as u64;
                }
                self.cost.read_bytes += bytes(packed.product_bytes() as u64, packed.rows());
            }
        }
    }

    /// Notes a product of `rows` rows, of whose weights so many bytes are read, if not all.
    fn product(&mut self, weight: &Param, bias: Option<&Param>, rows: usize, bytes: Option<u64>) {
        self.read(weight, |size, _| bytes.unwrap_or(size));
        bias.into_iter().for_each(|bias| self.read(bias, |size, _| size));
        let Param::Matrix { packed, activations, .. } = weight else { return };
        let ops = 2 * (rows * packed.rows() * packed.cols()) as u64;
        match activations {
            ActivationPrecision::F32 => self.cost.float_ops += ops,
            _ => self.cost.int8_ops += ops,
        }
    }

    fn attention(&mut self, spec: &Attention) {
        let Pass { sequences, past, new, cache, .. } = self.pass;
        let seen = spec.shape().reach(past..past + new, past + new).len();
        self.cost.read_bytes += 2 * (sequences * seen * cache.row_bytes(spec.kv_heads, spec.head_dim)) as u64;
        self.cost.float_ops += 4 * sequences as u64 * spec.pairs(past, new) * (spec.heads * spec.head_dim) as u64;
    }
}
