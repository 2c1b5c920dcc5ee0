//! Convolutions and what goes with them, for networks that are more than one layer after another.

use crate::Error;
use crate::exec::{BatchNorm, Window};
use crate::source::{Init, ParamSpec, Role, Source};

/// Gives the layers of a sequence names of their own: `layers.3.weight` is asked for as that of the fourth name.
pub(in crate::arch) struct Named<'a, P> {
    pub source: &'a mut dyn Source<P>,
    pub names: Vec<String>,
}

impl<P> Source<P> for Named<'_, P> {
    fn param(&mut self, spec: &ParamSpec) -> Result<P, Error> {
        let place = spec.name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
        let named = place.and_then(|(i, part)| Some(format!("{}.{part}", self.names.get(i.parse::<usize>().ok()?)?)));
        self.source.param(&ParamSpec { name: named.unwrap_or_else(|| spec.name.clone()), ..spec.clone() })
    }
}

/// Sees that an image is one, and has as many numbers as rows have, where that is known.
pub(in crate::arch) fn check_image(image: [usize; 3], features: usize) -> Result<(), Error> {
    if image.iter().any(|size| !(1..=1 << 20).contains(size)) {
        return Err(Error::config("image", format!("is {image:?}; each must lie in 1 to {}", 1 << 20)));
    }
    let values: usize = image.iter().product();
    match features == 0 || features == values {
        true => Ok(()),
        false => Err(Error::config("image", format!("is {image:?}, which are {values} numbers; rows have {features}"))),
    }
}

/// Asks a source for the parameters of convolutions and knows the size of what each reads.
pub(in crate::arch) struct Images<'a, P> {
    source: &'a mut dyn Source<P>,
    /// Height, width and channels.
    pub shape: [usize; 3],
}

impl<'a, P> Images<'a, P> {
    pub fn new(source: &'a mut dyn Source<P>, shape: [usize; 3]) -> Self {
        Images { source, shape }
    }

    /// A matrix whose columns are so many positions of the channels there are, and whose rows are the channels from here on.
    pub fn matrix(&mut self, name: &str, rows: usize, positions: usize, role: Role) -> Result<P, Error> {
        let cols = positions * self.shape[2];
        let gain = if role == Role::Head { 1.0 } else { 2.0 };
        let init = Init::Normal((gain / cols as f32).sqrt());
        self.shape[2] = rows;
        self.source.param(&ParamSpec { name: format!("{name}.weight"), rows, cols, role, init, positions })
    }

    pub fn vector(&mut self, name: String, role: Role, value: f32) -> Result<P, Error> {
        let (cols, init) = (self.shape[2], Init::Constant(value));
        self.source.param(&ParamSpec { name, rows: 1, cols, role, init, positions: 1 })
    }

    /// A window of `[kernel, stride, padding]`.
    pub fn window(&mut self, [kernel, stride, padding]: [usize; 3]) -> Result<Window, Error> {
        let [height, width, channels] = self.shape;
        let window = Window::square([height, width], channels, kernel, stride, padding);
        window.check().map_err(|text| Error::config("image", format!("is too small: {text}")))?;
        let [height, width] = window.output();
        self.shape = [height, width, channels];
        Ok(window)
    }

    /// A convolution.
    pub fn conv(&mut self, name: &str, out: usize, size: [usize; 3], role: Role) -> Result<(P, Window), Error> {
        let window = self.window(size)?;
        Ok((self.matrix(name, out, window.positions(), role)?, window))
    }

    /// Batch normalization.
    pub fn batch_norm(&mut self, name: &str) -> Result<BatchNorm<P>, Error> {
        let mut of = |part: &str, role, value| self.vector(format!("{name}.{part}"), role, value);
        Ok(BatchNorm {
            weight: of("weight", Role::Norm, 1.0)?,
            bias: of("bias", Role::Norm, 0.0)?,
            mean: of("running_mean", Role::Statistics, 0.0)?,
            variance: of("running_var", Role::Statistics, 1.0)?,
            eps: 1e-5,
            momentum: 0.1,
        })
    }
}
