//! Layers one after another over rows of numbers or images, as a list: perceptrons, convolutional networks.
//!
//! Weights of `bit_linear` and `bit_conv2d` are those of the body, which recipes store in few bits and quantization-aware training rounds
//! (arXiv 2402.17764, 2407.09527); weights of `linear` and `conv2d` are as wide as a head.

use super::OutputKind;
use crate::Error;
use crate::exec::{Activation, BatchNorm, Exec, NormKind, Window, WindowPooling};
use crate::source::{Init, ParamSpec, Role, Source};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is read, the layers, and how many answers there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Numbers of a row.
    pub features: usize,
    /// Height, width and channels, where a row is an image; its numbers lie in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<[usize; 3]>,
    /// The layers, in their order.
    pub layers: Vec<Layer>,
    /// Classes; 1 for a network that answers with a value.
    pub classes: usize,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "snake_case")]
pub enum Layer {
    /// A linear layer with low-bit weights; of an image, over all of its pixels.
    BitLinear(Linear),
    /// A linear layer; of an image, over all of its pixels.
    Linear(Linear),
    /// A convolution with low-bit weights.
    BitConv2d(Conv2d),
    /// A convolution.
    Conv2d(Conv2d),
    /// Layer normalization of each row, or of the channels of each pixel.
    LayerNorm(Norm),
    /// RMS normalization of each row, or of the channels of each pixel.
    RmsNorm(Norm),
    /// Batch normalization of each column, or of each channel (arXiv 1502.03167).
    BatchNorm(Moments),
    /// An elementwise function.
    Activation(Elementwise),
    /// The largest value of each window, channel by channel.
    MaxPool2d(Pool2d),
    /// The mean of each window, channel by channel.
    AvgPool2d(Pool2d),
    /// The mean over all pixels, channel by channel: an image becomes a row.
    GlobalAvgPool2d,
    /// Dropout in training (arXiv 1207.0580).
    Dropout(Share),
}

/// Dimensions of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Numbers of a row that it is given, where that is to be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<usize>,
    /// Numbers of a row that it makes; absent in the last layer, which makes one per class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<usize>,
    /// Whether it adds a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

/// Dimensions of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Channels that it is given, where that is to be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<usize>,
    /// Channels that it makes.
    pub outputs: usize,
    /// Height and width of the window.
    pub kernel: usize,
    /// Pixels the window moves by.
    #[serde(default = "one")]
    pub stride: usize,
    /// Zeros around the image.
    #[serde(default)]
    pub padding: usize,
    /// Whether it adds a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

/// What normalizes rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Norm {
    /// Added to the variance or mean square.
    #[serde(default = "epsilon")]
    pub eps: f32,
}

/// What normalizes columns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// Added to the variance.
    #[serde(default = "epsilon")]
    pub eps: f32,
    /// Share of a batch in the running moments.
    #[serde(default = "tenth")]
    pub momentum: f32,
}

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elementwise {
    /// Which.
    pub function: Activation,
}

/// A window that pools.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool2d {
    /// Height and width of the window.
    pub kernel: usize,
    /// Pixels the window moves by [default: its width].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Pixels around the image that a window may cover.
    #[serde(default)]
    pub padding: usize,
}

/// A probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Of an element to become 0.
    pub p: f32,
}

impl Default for Norm {
    fn default() -> Self {
        Norm { eps: epsilon() }
    }
}

impl Default for Moments {
    fn default() -> Self {
        Moments { eps: epsilon(), momentum: tenth() }
    }
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn epsilon() -> f32 {
    1e-5
}

fn tenth() -> f32 {
    0.1
}

impl Layer {
    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            Layer::BitLinear(_) => "bit_linear",
            Layer::Linear(_) => "linear",
            Layer::BitConv2d(_) => "bit_conv2d",
            Layer::Conv2d(_) => "conv2d",
            Layer::LayerNorm(_) => "layer_norm",
            Layer::RmsNorm(_) => "rms_norm",
            Layer::BatchNorm(_) => "batch_norm",
            Layer::Activation(_) => "activation",
            Layer::MaxPool2d(_) => "max_pool2d",
            Layer::AvgPool2d(_) => "avg_pool2d",
            Layer::GlobalAvgPool2d => "global_avg_pool2d",
            Layer::Dropout(_) => "dropout",
        }
    }

    /// Whether its weights are those of the body.
    pub fn is_low_bit(&self) -> bool {
        matches!(self, Layer::BitLinear(_) | Layer::BitConv2d(_))
    }

    /// The role of its matrix.
    fn role(&self) -> Role {
        if self.is_low_bit() { Role::Body } else { Role::Head }
    }
}

impl super::Dimensions for Config {
    fn output(&self) -> OutputKind {
        OutputKind::of_classes(self.classes)
    }

    fn features(&self) -> usize {
        self.features
    }

    fn image(&self) -> Option<[usize; 3]> {
        self.image
    }
}

/// The configuration of named layers over images, and the names.
pub(super) fn named(image: [usize; 3], classes: usize, layers: Vec<(Layer, String)>) -> (Config, Vec<String>) {
    let (layers, names) = layers.into_iter().unzip();
    let features = image.iter().fold(1usize, |n, size| n.saturating_mul(*size));
    (Config { features, image: Some(image), layers, classes }, names)
}

/// What goes from one layer to the next.
#[derive(Clone, Copy)]
enum Shape {
    Row(usize),
    Image { input: [usize; 2], channels: usize },
}

impl Shape {
    /// Numbers of a row of the activation.
    fn width(self) -> usize {
        match self {
            Shape::Row(width) => width,
            Shape::Image { channels, .. } => channels,
        }
    }

    /// All numbers of an example.
    fn values(self) -> usize {
        match self {
            Shape::Row(width) => width,
            Shape::Image { input: [height, width], channels } => height * width * channels,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Row(width) => write!(f, "rows of {width} numbers"),
            Shape::Image { input: [height, width], channels } => {
                write!(f, "images of {height} x {width} pixels and {channels} channels")
            }
        }
    }
}

/// A layer with its parameters.
enum Built<P> {
    Linear { weight: P, bias: Option<P>, window: Option<Window> },
    Norm { kind: NormKind, weight: P, bias: Option<P>, eps: f32 },
    BatchNorm(BatchNorm<P>),
    Activation(Activation),
    Pool(WindowPooling, Window),
    Dropout(f32),
}

/// The parameters of one network.
pub struct Sequential<P> {
    features: usize,
    layers: Vec<Built<P>>,
}

/// Builds layers, one after another.
struct Builder<'a, P> {
    source: &'a mut dyn Source<P>,
    classes: usize,
    shape: Shape,
    /// Number of the layer, how many there are, and its name.
    at: (usize, usize, &'static str),
}

impl<P> Sequential<P> {
    /// Takes every parameter from a source.
    ///
    /// # Errors
    /// When a layer does not fit what it is given: names the layer, what it takes and what it is given. When the source lacks a
    /// parameter.
    pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
        let &Config { features, image, classes, .. } = config;
        if features == 0 {
            return Err(Error::config("features", "is 0; it must be at least 1"));
        }
        if classes == 0 {
            return Err(Error::config("classes", "is 0; it must be at least 2, or 1 for a value"));
        }
        let shape = match image {
            None => Shape::Row(features),
            Some([height, width, channels]) => {
                let pixels = height.checked_mul(width).and_then(|n| n.checked_mul(channels));
                if pixels != Some(features) {
                    let text =
                        format!("is [{height}, {width}, {channels}], which is not the {features} numbers of a row");
                    return Err(Error::config("image", text));
                }
                Shape::Image { input: [height, width], channels }
            }
        };
        let count = config.layers.len();
        let mut builder = Builder { source, classes, shape, at: (0, count, "") };
        let mut layers = Vec::with_capacity(count);
        for (i, layer) in config.layers.iter().enumerate() {
            builder.at = (i, count, layer.name());
            layers.push(builder.layer(layer)?);
        }
        match builder.shape {
            Shape::Row(width) if width == classes && count > 0 => Ok(Sequential { features, layers }),
            shape => {
                let text = format!("end in {shape}, and the network answers with rows of {classes}");
                Err(Error::config("layers", format!("{text}: end with a linear layer of {classes} outputs")))
            }
        }
    }

    /// Logits, `[examples, classes]`, or values, `[examples, 1]`.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        let mut x = e.features(self.features);
        for (i, layer) in self.layers.iter().enumerate() {
            x = match layer {
                Built::Linear { weight, bias, window: Some(window) } => e.conv(&x, weight, bias.as_ref(), window),
                Built::Linear { weight, bias, window: None } if i + 1 == self.layers.len() => {
                    e.logits(&x, weight, bias.as_ref())
                }
                Built::Linear { weight, bias, window: None } => e.linear(&x, weight, bias.as_ref()),
                Built::Norm { kind, weight, bias, eps } => e.norm(&x, *kind, weight, bias.as_ref(), *eps),
                Built::BatchNorm(norm) => e.batch_norm(&x, norm),
                Built::Activation(function) => e.activate(&x, *function),
                Built::Pool(how, window) => e.pool_windows(&x, *how, window),
                Built::Dropout(p) => e.dropout(&x, *p),
            };
        }
        x
    }
}

impl<P> Builder<'_, P> {
    fn layer(&mut self, layer: &Layer) -> Result<Built<P>, Error> {
        match *layer {
            Layer::BitLinear(linear) | Layer::Linear(linear) => self.linear(linear, layer.role()),
            Layer::BitConv2d(conv) | Layer::Conv2d(conv) => self.conv(conv, layer.role()),
            Layer::LayerNorm(norm) => self.norm(NormKind::Layer, norm.eps),
            Layer::RmsNorm(norm) => self.norm(NormKind::Rms, norm.eps),
            Layer::BatchNorm(moments) => self.batch_norm(moments),
            Layer::Activation(elementwise) => Ok(Built::Activation(elementwise.function)),
            Layer::MaxPool2d(pool) => self.pool(WindowPooling::Max, pool),
            Layer::AvgPool2d(pool) => self.pool(WindowPooling::Mean, pool),
            Layer::GlobalAvgPool2d => {
                let (input, channels) = self.image()?;
                self.shape = Shape::Row(channels);
                Ok(Built::Pool(WindowPooling::Mean, Window::whole(input, channels)))
            }
            Layer::Dropout(Share { p }) if (0.0..1.0).contains(&p) => Ok(Built::Dropout(p)),
            Layer::Dropout(Share { p }) => Err(self.fault(format!("has p = {p}; it must lie in 0..1"))),
        }
    }

    /// A fault of the layer.
    fn fault(&self, text: impl fmt::Display) -> Error {
        let (i, _, name) = self.at;
        Error::config(&format!("layers[{i}]"), format!("({name}) {text}"))
    }

    /// What an image layer is given.
    fn image(&self) -> Result<([usize; 2], usize), Error> {
        match self.shape {
            Shape::Image { input, channels } => Ok((input, channels)),
            shape => Err(self.fault(format!("takes images, and is given {shape}: say what `image` a row is"))),
        }
    }

    fn param(
        &mut self,
        name: &str,
        [rows, cols]: [usize; 2],
        role: Role,
        init: Init,
        positions: usize,
    ) -> Result<P, Error> {
        let name = format!("layers.{}.{name}", self.at.0);
        self.source.param(&ParamSpec { name, rows, cols, role, init, positions })
    }

    /// Weight and bias of a product.
    fn product(
        &mut self,
        shape: [usize; 2],
        role: Role,
        bias: bool,
        positions: usize,
    ) -> Result<(P, Option<P>), Error> {
        // Before the last layer a function halves the variance (arXiv 1502.01852).
        let gain = if self.at.0 + 1 == self.at.1 { 1.0f32 } else { 2.0 };
        let weight = self.param("weight", shape, role, Init::Normal((gain / shape[1] as f32).sqrt()), positions)?;
        let bias = bias.then(|| self.param("bias", [1, shape[0]], Role::Bias, Init::Constant(0.0), 1)).transpose()?;
        Ok((weight, bias))
    }

    fn linear(&mut self, linear: Linear, role: Role) -> Result<Built<P>, Error> {
        let (cols, last) = (self.shape.values(), self.at.0 + 1 == self.at.1);
        if let Some(inputs) = linear.inputs.filter(|inputs| *inputs != cols) {
            return Err(self.fault(format!("takes rows of {inputs} numbers, and is given {}", self.given(cols))));
        }
        let rows = match linear.outputs.or(last.then_some(self.classes)) {
            None | Some(0) => return Err(self.fault("makes no numbers: give `outputs`, at least 1")),
            Some(outputs) => outputs,
        };
        let window = match self.shape {
            Shape::Row(_) => None,
            Shape::Image { input, channels } => Some(Window::whole(input, channels)),
        };
        let (weight, bias) =
            self.product([rows, cols], role, linear.bias, window.map_or(1, |window| window.positions()))?;
        self.shape = Shape::Row(rows);
        Ok(Built::Linear { weight, bias, window })
    }

    /// What the layer is given, with its numbers where it is an image.
    fn given(&self, values: usize) -> String {
        match self.shape {
            Shape::Row(_) => self.shape.to_string(),
            Shape::Image { .. } => format!("{}, {values} numbers", self.shape),
        }
    }

    fn conv(&mut self, conv: Conv2d, role: Role) -> Result<Built<P>, Error> {
        let (input, channels) = self.image()?;
        if let Some(inputs) = conv.inputs.filter(|inputs| *inputs != channels) {
            return Err(self.fault(format!("takes {inputs} channels, and is given {}", self.shape)));
        }
        if conv.outputs == 0 {
            return Err(self.fault("makes no channels: give `outputs`, at least 1"));
        }
        let window = Window::square(input, channels, conv.kernel, conv.stride, conv.padding);
        window.check().map_err(|text| self.fault(text))?;
        let shape = [conv.outputs, window.columns()];
        let (weight, bias) = self.product(shape, role, conv.bias, window.positions())?;
        self.shape = Shape::Image { input: window.output(), channels: conv.outputs };
        Ok(Built::Linear { weight, bias, window: Some(window) })
    }

    fn pool(&mut self, how: WindowPooling, pool: Pool2d) -> Result<Built<P>, Error> {
        let (input, channels) = self.image()?;
        let window = Window::square(input, channels, pool.kernel, pool.stride.unwrap_or(pool.kernel), pool.padding);
        window.check().map_err(|text| self.fault(text))?;
        self.shape = Shape::Image { input: window.output(), channels };
        Ok(Built::Pool(how, window))
    }

    fn norm(&mut self, kind: NormKind, eps: f32) -> Result<Built<P>, Error> {
        self.check_eps(eps)?;
        let width = self.shape.width();
        let weight = self.param("weight", [1, width], Role::Norm, Init::Constant(1.0), 1)?;
        let bias = (kind == NormKind::Layer)
            .then(|| self.param("bias", [1, width], Role::Norm, Init::Constant(0.0), 1))
            .transpose()?;
        Ok(Built::Norm { kind, weight, bias, eps })
    }

    fn batch_norm(&mut self, Moments { eps, momentum }: Moments) -> Result<Built<P>, Error> {
        self.check_eps(eps)?;
        if !(momentum > 0.0 && momentum <= 1.0) {
            return Err(self.fault(format!("has momentum = {momentum}; it must be above 0, at most 1")));
        }
        let shape = [1, self.shape.width()];
        Ok(Built::BatchNorm(BatchNorm {
            weight: self.param("weight", shape, Role::Norm, Init::Constant(1.0), 1)?,
            bias: self.param("bias", shape, Role::Norm, Init::Constant(0.0), 1)?,
            mean: self.param("running_mean", shape, Role::Statistics, Init::Constant(0.0), 1)?,
            variance: self.param("running_var", shape, Role::Statistics, Init::Constant(1.0), 1)?,
            eps,
            momentum,
        }))
    }

    fn check_eps(&self, eps: f32) -> Result<(), Error> {
        match eps > 0.0 && eps <= 1.0 {
            true => Ok(()),
            false => Err(self.fault(format!("has eps = {eps}; it must be above 0, at most 1"))),
        }
    }
}
