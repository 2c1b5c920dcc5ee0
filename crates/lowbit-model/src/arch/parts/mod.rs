//! Layers that several architectures are made of, and what they end in.

mod head;
mod images;

pub use head::Head;
pub(super) use head::Output;
pub(super) use images::{Images, Named, check_image};

use crate::Error;
use crate::exec::{Exec, NormKind};
use crate::source::{Init, ParamSpec, Role, Source};

/// Whether a number that is not given need not be written.
pub(super) fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A weight matrix, and a bias where the network has one.
pub(super) struct Linear<P> {
    pub weight: P,
    pub bias: Option<P>,
}

impl<P> Linear<P> {
    /// `x * W^T + bias`, `[rows, out]`.
    pub fn of<E: Exec<Param = P>>(&self, e: &mut E, x: &E::Tensor) -> E::Tensor {
        e.linear(x, &self.weight, self.bias.as_ref())
    }
}

/// A layer normalization (arXiv 1607.06450).
pub(super) struct LayerNorm<P> {
    weight: P,
    bias: P,
    eps: f32,
}

impl<P> LayerNorm<P> {
    /// Normalizes each row.
    pub fn of<E: Exec<Param = P>>(&self, e: &mut E, x: &E::Tensor) -> E::Tensor {
        e.norm(x, NormKind::Layer, &self.weight, Some(&self.bias), self.eps)
    }
}

/// A normalization by the root of the mean square (arXiv 1910.07467).
pub(super) struct RmsNorm<P> {
    weight: P,
    eps: f32,
}

impl<P> RmsNorm<P> {
    /// Normalizes each row.
    pub fn of<E: Exec<Param = P>>(&self, e: &mut E, x: &E::Tensor) -> E::Tensor {
        e.norm(x, NormKind::Rms, &self.weight, None, self.eps)
    }
}

/// Asks a source for the parameters of one part of a network.
pub(super) struct Parts<'a, P> {
    source: &'a mut dyn Source<P>,
    /// What their names begin with.
    prefix: String,
}

impl<'a, P> Parts<'a, P> {
    /// Parameters whose names begin with `prefix`.
    pub fn new(source: &'a mut dyn Source<P>, prefix: impl Into<String>) -> Self {
        Parts { source, prefix: prefix.into() }
    }

    /// A parameter `[rows, cols]`.
    pub fn param(&mut self, name: &str, [rows, cols]: [usize; 2], role: Role, init: Init) -> Result<P, Error> {
        self.source.param(&ParamSpec { name: format!("{}{name}", self.prefix), rows, cols, role, init, positions: 1 })
    }

    /// A table of vectors, `[entries, width]`.
    pub fn table(&mut self, name: &str, shape: [usize; 2], std: f32) -> Result<P, Error> {
        self.param(&format!("{name}.weight"), shape, Role::Embedding, Init::Normal(std))
    }

    /// A linear layer of the body, `[out, in]`, whose weights begin with a standard deviation.
    pub fn linear(&mut self, name: &str, [out, input]: [usize; 2], bias: bool, std: f32) -> Result<Linear<P>, Error> {
        let weight = self.param(&format!("{name}.weight"), [out, input], Role::Body, Init::Normal(std))?;
        let bias = bias.then(|| self.param(&format!("{name}.bias"), [1, out], Role::Bias, Init::Constant(0.0)));
        Ok(Linear { weight, bias: bias.transpose()? })
    }

    /// A layer normalization of rows of a width.
    pub fn layer_norm(&mut self, name: &str, width: usize, eps: f32) -> Result<LayerNorm<P>, Error> {
        let weight = self.param(&format!("{name}.weight"), [1, width], Role::Norm, Init::Constant(1.0))?;
        let bias = self.param(&format!("{name}.bias"), [1, width], Role::Norm, Init::Constant(0.0))?;
        Ok(LayerNorm { weight, bias, eps })
    }

    /// A normalization of rows of a width by the root of the mean square.
    pub fn rms_norm(&mut self, name: &str, width: usize, eps: f32) -> Result<RmsNorm<P>, Error> {
        let weight = self.param(&format!("{name}.weight"), [1, width], Role::Norm, Init::Constant(1.0))?;
        Ok(RmsNorm { weight, eps })
    }
}

/// Refuses a configuration in which a dimension is 0, or a probability or epsilon out of range.
///
/// # Errors
/// Names field and value.
pub(super) fn check_dimensions(positive: &[(&str, usize)], dropout: f32, eps: (&str, f32)) -> Result<(), Error> {
    if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(Error::config(field, "is 0; it must be at least 1"));
    }
    if !(0.0..1.0).contains(&dropout) {
        return Err(Error::config("dropout", format!("is {dropout}; it must lie in 0..1")));
    }
    match eps {
        (_, value) if value.is_finite() && value > 0.0 => Ok(()),
        (field, value) => Err(Error::config(field, format!("is {value}; it must be positive"))),
    }
}

/// Refuses more layers than any network has, and heads that do not share the width.
///
/// # Errors
/// Names field and value.
pub(super) fn check_layers(layers: usize, heads: usize, width: usize) -> Result<(), Error> {
    if layers > MAX_LAYERS {
        return Err(Error::config("num_hidden_layers", format!("is {layers}, more than {MAX_LAYERS}")));
    }
    if !width.is_multiple_of(heads) {
        let text = format!("is {heads}, which does not divide hidden_size {width}");
        return Err(Error::config("num_attention_heads", text));
    }
    Ok(())
}

/// Most layers.
pub(crate) const MAX_LAYERS: usize = 4096;
