//! The interpreter that computes nothing and names the operations of a forward pass: what counts and compares networks
//! walks this list.

use crate::Model;
use crate::exec::{Activation, Attention, Exec, Index, NormKind, Pooling};

/// What an activation has one row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// A token.
    Token,
    /// A sequence.
    Sequence,
}

/// An operation of a forward pass with its parameters of type `P`.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a, P> {
    /// [`Exec::embed`]
    Embed {
        /// The table.
        table: &'a P,
        /// Which of its rows.
        index: Index,
    },
    /// [`Exec::features`], with their width.
    Features(usize),
    /// [`Exec::linear`]
    Linear {
        /// Rows of the input.
        per: Per,
        /// Weights `[out, in]`.
        weight: &'a P,
        /// Bias `[out]`.
        bias: Option<&'a P>,
    },
    /// [`Exec::logits`]
    Logits {
        /// Rows of the input.
        per: Per,
        /// Weights `[out, in]`.
        weight: &'a P,
        /// Bias `[out]`.
        bias: Option<&'a P>,
    },
    /// [`Exec::norm`]
    Norm {
        /// Which.
        kind: NormKind,
        /// Weight vector.
        weight: &'a P,
        /// Bias vector.
        bias: Option<&'a P>,
        /// Added to the variance.
        eps: f32,
    },
    /// [`Exec::attend`]
    Attend(&'a Attention<'a>),
    /// [`Exec::activate`]
    Activate(Activation),
    /// [`Exec::mul`]
    Mul,
    /// [`Exec::add`]
    Add,
    /// [`Exec::pool`]
    Pool(Pooling),
    /// [`Exec::dropout`]
    Dropout(f32),
    /// The begin of [`Exec::block`].
    Block(usize),
}

/// Visits the operations of a forward pass in their order.
pub fn trace<P>(model: &Model<P>, visit: impl FnMut(Op<'_, P>)) {
    let mut visit = visit;
    model.forward(&mut Trace(&mut visit));
}

struct Trace<'f, P>(&'f mut dyn FnMut(Op<'_, P>));

impl<P> Exec for Trace<'_, P> {
    type Tensor = Per;
    type Param = P;

    fn embed(&mut self, table: &P, index: Index) -> Per {
        (self.0)(Op::Embed { table, index });
        Per::Token
    }
    fn features(&mut self, width: usize) -> Per {
        (self.0)(Op::Features(width));
        Per::Token
    }
    fn linear(&mut self, x: &Per, weight: &P, bias: Option<&P>) -> Per {
        (self.0)(Op::Linear { per: *x, weight, bias });
        *x
    }
    fn logits(&mut self, x: &Per, weight: &P, bias: Option<&P>) -> Per {
        (self.0)(Op::Logits { per: *x, weight, bias });
        *x
    }
    fn norm(&mut self, x: &Per, kind: NormKind, weight: &P, bias: Option<&P>, eps: f32) -> Per {
        (self.0)(Op::Norm { kind, weight, bias, eps });
        *x
    }
    fn attend(&mut self, q: &Per, _: &Per, _: &Per, spec: &Attention) -> Per {
        (self.0)(Op::Attend(spec));
        *q
    }
    fn activate(&mut self, x: &Per, f: Activation) -> Per {
        (self.0)(Op::Activate(f));
        *x
    }
    fn mul(&mut self, a: &Per, _: &Per) -> Per {
        (self.0)(Op::Mul);
        *a
    }
    fn add(&mut self, a: &Per, _: &Per) -> Per {
        (self.0)(Op::Add);
        *a
    }
    fn pool(&mut self, _: &Per, how: Pooling) -> Per {
        (self.0)(Op::Pool(how));
        Per::Sequence
    }
    fn dropout(&mut self, x: &Per, p: f32) -> Per {
        (self.0)(Op::Dropout(p));
        *x
    }
    fn block(&mut self, index: usize, x: &Per, body: impl FnOnce(&mut Self, &Per) -> Per) -> Per {
        (self.0)(Op::Block(index));
        body(self, x)
    }
}
