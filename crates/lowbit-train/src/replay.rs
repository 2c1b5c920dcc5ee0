//! The interpreter that runs one block of a network again: what activation checkpointing keeps of a block is its input, and
//! the backward pass makes the records anew (arXiv 1604.06174).

use crate::params::ParamId;
use crate::tape::{Tape, Tensor};
use lowbit_model::exec::{Activation, Attention, BatchNorm, Exec, Index, NormKind, Pooling, Window, WindowPooling};

/// Runs the block of an index on a tape; every other operation yields nothing.
pub(crate) struct Replay<'t> {
    tape: &'t mut Tape,
    index: usize,
    input: Tensor,
    /// Whether the block is under way.
    inside: bool,
    output: Option<Tensor>,
}

impl<'t> Replay<'t> {
    /// The block of an index, of this input.
    pub(crate) fn new(tape: &'t mut Tape, index: usize, input: Tensor) -> Self {
        Replay { tape, index, input, inside: false, output: None }
    }

    /// What the block yielded.
    pub(crate) fn output(self) -> Tensor {
        self.output.expect("a network runs the same blocks in each pass")
    }

    fn run(&mut self, operation: impl FnOnce(&mut Tape) -> Tensor) -> Option<Tensor> {
        self.inside.then(|| operation(self.tape))
    }
}

impl Exec for Replay<'_> {
    type Tensor = Option<Tensor>;
    type Param = ParamId;

    fn embed(&mut self, table: &ParamId, index: Index) -> Option<Tensor> {
        self.run(|tape| tape.embed(table, index))
    }

    fn features(&mut self, width: usize) -> Option<Tensor> {
        self.run(|tape| tape.features(width))
    }

    fn linear(&mut self, x: &Option<Tensor>, weight: &ParamId, bias: Option<&ParamId>) -> Option<Tensor> {
        Some(self.tape.linear(x.as_ref()?, weight, bias))
    }

    fn norm(
        &mut self,
        x: &Option<Tensor>,
        kind: NormKind,
        weight: &ParamId,
        bias: Option<&ParamId>,
        eps: f32,
    ) -> Option<Tensor> {
        Some(self.tape.norm(x.as_ref()?, kind, weight, bias, eps))
    }

    fn conv(
        &mut self,
        x: &Option<Tensor>,
        weight: &ParamId,
        bias: Option<&ParamId>,
        window: &Window,
    ) -> Option<Tensor> {
        Some(self.tape.conv(x.as_ref()?, weight, bias, window))
    }

    fn batch_norm(&mut self, x: &Option<Tensor>, norm: &BatchNorm<ParamId>) -> Option<Tensor> {
        Some(self.tape.batch_norm(x.as_ref()?, norm))
    }

    fn pool_windows(&mut self, x: &Option<Tensor>, how: WindowPooling, window: &Window) -> Option<Tensor> {
        Some(self.tape.pool_windows(x.as_ref()?, how, window))
    }

    fn attend(
        &mut self,
        q: &Option<Tensor>,
        k: &Option<Tensor>,
        v: &Option<Tensor>,
        spec: &Attention,
    ) -> Option<Tensor> {
        Some(self.tape.attend(q.as_ref()?, k.as_ref()?, v.as_ref()?, spec))
    }

    fn activate(&mut self, x: &Option<Tensor>, f: Activation) -> Option<Tensor> {
        Some(self.tape.activate(x.as_ref()?, f))
    }

    fn mul(&mut self, a: &Option<Tensor>, b: &Option<Tensor>) -> Option<Tensor> {
        Some(self.tape.mul(a.as_ref()?, b.as_ref()?))
    }

    fn add(&mut self, a: &Option<Tensor>, b: &Option<Tensor>) -> Option<Tensor> {
        Some(self.tape.add(a.as_ref()?, b.as_ref()?))
    }

    fn pool(&mut self, x: &Option<Tensor>, how: Pooling) -> Option<Tensor> {
        Some(self.tape.pool(x.as_ref()?, how))
    }

    fn dropout(&mut self, x: &Option<Tensor>, p: f32) -> Option<Tensor> {
        Some(self.tape.dropout(x.as_ref()?, p))
    }

    fn block(
        &mut self,
        index: usize,
        _: &Option<Tensor>,
        body: impl FnOnce(&mut Self, &Option<Tensor>) -> Option<Tensor>,
    ) -> Option<Tensor> {
        if index == self.index {
            let input = Some(self.input.clone());
            self.inside = true;
            self.tape.enter(index);
            self.output = body(self, &input);
            self.tape.leave(self.output.as_ref());
            self.inside = false;
        }
        None
    }
}
