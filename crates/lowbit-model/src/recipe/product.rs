//! A format with the activations that its products are given.

use super::ActivationPrecision;
use crate::Error;
use lowbit_kernels::{Format, format};

/// A format of weights, and the precision of the activations that are multiplied with them.
#[derive(Clone, Copy, Debug)]
pub struct ProductFormat {
    /// How the weights are stored.
    pub format: &'static dyn Format,
    /// How the activations are rounded.
    pub activations: ActivationPrecision,
}

impl ProductFormat {
    /// A format with the activations of its recipe.
    pub fn of(format: &'static dyn Format) -> Self {
        ProductFormat { format, activations: ActivationPrecision::of(format) }
    }

    /// A format by name, or `FORMAT+act=ACTIVATIONS`, activations being `f32`, `int8`, `int8_block`, `int8_block64` or
    /// `int8_block128`.
    ///
    /// # Errors
    /// Usage, naming what is unknown, with the nearest.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, rest) = text.split_once('+').unwrap_or((text, ""));
        let product = ProductFormat::of(format::find(name)?);
        let Some(value) = rest.strip_prefix("act=") else {
            return match text.contains('+') {
                false => Ok(product),
                true => Err(Error::usage(format!("`{text}` is no format with activations, such as {name}+act=f32"))),
            };
        };
        let all = ActivationPrecision::ALL;
        match all.into_iter().find(|activations| activations.name() == value) {
            Some(activations) => Ok(ProductFormat { activations, ..product }),
            None => {
                let known = lowbit_base::alternatives(value, all.map(ActivationPrecision::name));
                Err(Error::usage(format!("`{text}`: unknown activations `{value}`{known}")))
            }
        }
    }

    /// As [`ProductFormat::parse`] takes it.
    pub fn name(&self) -> String {
        match self.activations == ActivationPrecision::of(self.format) {
            true => self.format.name().into(),
            false => format!("{}+act={}", self.format.name(), self.activations.name()),
        }
    }
}
