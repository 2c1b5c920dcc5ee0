//! Gradients of parameters: sums over the batches of an update.

use crate::params::{ParamId, Params};

/// The gradients of all parameters, in their order.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    list: Vec<Gradient>,
}

/// The gradient of one parameter.
#[derive(Debug, Default)]
struct Gradient {
    /// `[rows, cols]`; empty before the first backward pass.
    sum: Vec<f32>,
    /// Whether this update has written it.
    touched: bool,
}

impl Gradients {
    /// The gradient of a parameter of `len` values, to be written, and whether it holds a sum to add to.
    pub(crate) fn slot(&mut self, id: ParamId, len: usize) -> (&mut [f32], bool) {
        let place = Params::place(id);
        if self.list.len() <= place {
            self.list.resize_with(place + 1, Gradient::default);
        }
        let gradient = &mut self.list[place];
        gradient.sum.resize(len, 0.0);
        (&mut gradient.sum, std::mem::replace(&mut gradient.touched, true))
    }

    /// The gradient to add to; zero at first.
    pub(crate) fn sum(&mut self, id: ParamId, len: usize) -> &mut [f32] {
        let (sum, holds) = self.slot(id, len);
        if !holds {
            sum.fill(0.0);
        }
        sum
    }

    /// The gradient of a parameter, if this update has one.
    pub(crate) fn get(&self, id: ParamId) -> Option<&[f32]> {
        self.list.get(Params::place(id)).filter(|gradient| gradient.touched).map(|gradient| &gradient.sum[..])
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, id: ParamId) -> Option<&mut [f32]> {
        let gradient = self.list.get_mut(Params::place(id)).filter(|gradient| gradient.touched)?;
        Some(&mut gradient.sum)
    }

    /// Those of this update, in the order of the parameters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.list.iter().filter(|gradient| gradient.touched).map(|gradient| &gradient.sum[..])
    }

    /// The same, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.list.iter_mut().filter(|gradient| gradient.touched).map(|gradient| &mut gradient.sum[..])
    }

    /// Forgets all: an update was made of them.
    pub(crate) fn clear(&mut self) {
        self.list.iter_mut().for_each(|gradient| gradient.touched = false);
    }
}
