//! The interpreter that computes nothing and names the operations of a forward pass: what counts and compares networks
//! walks this list.

use crate::Model;
use crate::exec::{Activation, Attention, BatchNorm, Exec, Index, NormKind, Pooling, Window, WindowPooling};

/// What an activation has one row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// A token.
    Token,
    /// A sequence.
    Sequence,
    /// A pixel of a feature map, of so many a sequence.
    Pixel(usize),
}

impl Per {
    /// Rows for so many tokens of so many sequences.
    pub fn rows(self, tokens: usize, sequences: usize) -> usize {
        match self {
            Per::Token => tokens,
            Per::Sequence => sequences,
            Per::Pixel(pixels) => pixels * sequences,
        }
    }
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
    /// [`Exec::conv`]
    Conv {
        /// Weights `[out, columns]`.
        weight: &'a P,
        /// Bias `[out]`.
        bias: Option<&'a P>,
        /// What it slides over.
        window: &'a Window,
    },
    /// [`Exec::batch_norm`]
    BatchNorm(&'a BatchNorm<P>),
    /// [`Exec::pool_windows`]
    PoolWindows {
        /// What is taken of a window.
        how: WindowPooling,
        /// What it slides over.
        window: &'a Window,
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
    fn conv(&mut self, _: &Per, weight: &P, bias: Option<&P>, window: &Window) -> Per {
        (self.0)(Op::Conv { weight, bias, window });
        Per::Pixel(window.pixels())
    }
    fn batch_norm(&mut self, x: &Per, norm: &BatchNorm<P>) -> Per {
        (self.0)(Op::BatchNorm(norm));
        *x
    }
    fn pool_windows(&mut self, _: &Per, how: WindowPooling, window: &Window) -> Per {
        (self.0)(Op::PoolWindows { how, window });
        Per::Pixel(window.pixels())
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
