//! Networks from layers: described, trained on arrays, deployed.

use super::example;
use super::{Error, Example, Fitted};
use crate::Progress;
use crate::training::{self, Work};
use lowbit_base::Error as Fault;
use lowbit_eval::read::{Rows, Targets as RowTargets};
use lowbit_kernels::Cpu;
use lowbit_model::arch::sequential::{self, Conv2d, Elementwise, Layer, Linear, Moments, Norm, Pool2d, Share};
use lowbit_model::exec::Activation;
use lowbit_model::input::Scaling;
use lowbit_model::{Config, Encoder, Inputs, ModelConfig};
use lowbit_train::{Alone, Qat, TrainConfig};

/// A network as a list of layers, and how it is trained.
///
/// ```
/// # fn main() -> Result<(), lowbit::Error> {
/// # let home = tempfile::tempdir().expect("a directory");
/// # let out = home.path().join("model");
/// let x: Vec<[f32; 2]> = (0..400).map(|i| [(i * 37 % 101) as f32 / 50.0 - 1.0, (i * 61 % 103) as f32 / 51.0 - 1.0]).collect();
/// let y: Vec<usize> = x.iter().map(|[a, b]| usize::from(a * b > 0.0)).collect();
/// let network = lowbit::Sequential::rows(2).bit_linear(64).relu().bit_linear(64).relu().linear(2);
/// let trained = network.epochs(60.0).learning_rate(5e-3).fit(&x, &y)?;
/// let packed = trained.deploy(&out)?; // ternary weights on disk: `Model::open(out)` is the same
/// assert!(packed.score(&x, &y)? > 0.9);
/// assert_eq!(packed.classify([0.5, 0.5])?.class, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sequential {
    features: usize,
    image: Option<[usize; 3]>,
    layers: Vec<Layer>,
    labels: Vec<String>,
    training: TrainConfig,
    qat: Qat,
}

/// What is right for the rows of a training: a class, or a value, for each.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Numbers of classes, from 0.
    Classes(Vec<usize>),
    /// Values.
    Values(Vec<f64>),
}

macro_rules! targets {
    ($variant:ident as $to:ty: $($from:ty),+) => {
        $(impl From<&[$from]> for Targets {
            fn from(targets: &[$from]) -> Self {
                Targets::$variant(targets.iter().map(|target| *target as $to).collect())
            }
        }
        impl From<&Vec<$from>> for Targets {
            fn from(targets: &Vec<$from>) -> Self {
                targets.as_slice().into()
            }
        })+
    };
}

targets!(Classes as usize: u8, u16, u32, usize);
targets!(Values as f64: f32, f64);

impl Targets {
    fn len(&self) -> usize {
        match self {
            Targets::Classes(classes) => classes.len(),
            Targets::Values(values) => values.len(),
        }
    }
}

/// Layers, one after another.
impl Sequential {
    /// A network that reads rows of so many numbers; each column is scaled as in the rows it is trained on.
    pub fn rows(features: usize) -> Self {
        let training = TrainConfig { epochs: Some(10.0), batch_size: 64, weight_decay: 0.01, ..TrainConfig::default() };
        Sequential { features, image: None, layers: Vec::new(), labels: Vec::new(), training, qat: Qat::default() }
    }

    /// A network that reads images, `[height, width, channels]`, row by row; all numbers are scaled alike.
    pub fn images(height: usize, width: usize, channels: usize) -> Self {
        let features = height.saturating_mul(width).saturating_mul(channels);
        Sequential { image: Some([height, width, channels]), ..Self::rows(features) }
    }

    /// The same with another layer.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// A linear layer whose weights are ternary (or as [`Sequential::quantization`] says); of an image, over all of its pixels.
    pub fn bit_linear(self, outputs: usize) -> Self {
        self.layer(Layer::BitLinear(Linear { inputs: None, outputs: Some(outputs), bias: true }))
    }

    /// A linear layer in full precision; of an image, over all of its pixels.
    pub fn linear(self, outputs: usize) -> Self {
        self.layer(Layer::Linear(Linear { inputs: None, outputs: Some(outputs), bias: true }))
    }

    /// A convolution whose weights are ternary (or as [`Sequential::quantization`] says), with a window of `kernel` by `kernel`
    /// pixels that moves by one, in an image padded so that an odd window keeps its size.
    pub fn bit_conv2d(self, outputs: usize, kernel: usize) -> Self {
        let conv = Conv2d { inputs: None, outputs, kernel, stride: 1, padding: kernel / 2, bias: true };
        self.layer(Layer::BitConv2d(conv))
    }

    /// The same in full precision.
    pub fn conv2d(self, outputs: usize, kernel: usize) -> Self {
        let conv = Conv2d { inputs: None, outputs, kernel, stride: 1, padding: kernel / 2, bias: true };
        self.layer(Layer::Conv2d(conv))
    }

    /// `max(x, 0)`.
    pub fn relu(self) -> Self {
        self.activation(Activation::Relu)
    }

    /// An elementwise function.
    pub fn activation(self, function: Activation) -> Self {
        self.layer(Layer::Activation(Elementwise { function }))
    }

    /// Layer normalization (arXiv 1607.06450).
    pub fn layer_norm(self) -> Self {
        self.layer(Layer::LayerNorm(Norm::default()))
    }

    /// RMS normalization (arXiv 1910.07467).
    pub fn rms_norm(self) -> Self {
        self.layer(Layer::RmsNorm(Norm::default()))
    }

    /// Batch normalization (arXiv 1502.03167).
    pub fn batch_norm(self) -> Self {
        self.layer(Layer::BatchNorm(Moments::default()))
    }

    /// The largest value of each `kernel` by `kernel` pixels, channel by channel.
    pub fn max_pool2d(self, kernel: usize) -> Self {
        self.layer(Layer::MaxPool2d(Pool2d { kernel, stride: None, padding: 0 }))
    }

    /// The mean of each `kernel` by `kernel` pixels, channel by channel.
    pub fn avg_pool2d(self, kernel: usize) -> Self {
        self.layer(Layer::AvgPool2d(Pool2d { kernel, stride: None, padding: 0 }))
    }

    /// The mean of each channel.
    pub fn global_avg_pool2d(self) -> Self {
        self.layer(Layer::GlobalAvgPool2d)
    }

    /// Dropout in training (arXiv 1207.0580).
    pub fn dropout(self, p: f32) -> Self {
        self.layer(Layer::Dropout(Share { p }))
    }
}

/// How it is trained.
impl Sequential {
    /// Names of the classes, in their order.
    pub fn labels(mut self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// What low-bit layers are trained to be: ternary, binary or int8 weights, their scale, what shares one, their activations
    /// [default: ternary, the mean, of a whole matrix, int8 activations].
    pub fn quantization(self, qat: Qat) -> Self {
        Sequential { qat, ..self }
    }

    /// Passes over the rows [default: 10].
    pub fn epochs(mut self, epochs: f64) -> Self {
        (self.training.epochs, self.training.steps) = (Some(epochs), None);
        self
    }

    /// Rows of an update [default: 64].
    pub fn batch_size(mut self, rows: usize) -> Self {
        self.training.batch_size = rows;
        self
    }

    /// Highest learning rate [default: 1e-3].
    pub fn learning_rate(mut self, rate: f32) -> Self {
        self.training.learning_rate = rate;
        self
    }

    /// Seed of weights, order and dropout [default: 0].
    pub fn seed(mut self, seed: u64) -> Self {
        self.training.seed = seed;
        self
    }

    /// The settings of training so far.
    pub fn settings(&self) -> &TrainConfig {
        &self.training
    }

    /// All settings of training; its `qat` is what [`Sequential::quantization`] says.
    pub fn training(self, training: TrainConfig) -> Self {
        Sequential { training, ..self }
    }
}

/// Training.
impl Sequential {
    /// Trains it on rows and what is right for each; on the CPU of the library, silently.
    ///
    /// # Errors
    /// [`Error::Input`] when a layer does not fit what it is given (names it, what it takes and what it is given), or a row or target is
    /// wrong; [`Error::Request`] when a setting is out of range; [`Error::NotFinite`] when training diverges.
    pub fn fit<'a>(
        &self,
        x: impl IntoIterator<Item = impl Into<Example<'a>>>,
        y: impl Into<Targets>,
    ) -> Result<Fitted, Error> {
        self.fit_on(x, y, &super::cpu()?, &mut ())
    }

    /// The same on a CPU of the caller's choice, with news on the way.
    ///
    /// # Errors
    /// As [`Sequential::fit`]; [`Error::Stopped`] when the stop of the CPU is set.
    pub fn fit_on<'a>(
        &self,
        x: impl IntoIterator<Item = impl Into<Example<'a>>>,
        y: impl Into<Targets>,
        cpu: &Cpu,
        progress: &mut dyn Progress,
    ) -> Result<Fitted, Error> {
        let rows = self.checked(example::inputs(x)?, y.into())?;
        let config = self.train_config();
        let model_config = self.model_config(&rows)?;
        let encoder = Encoder::Features(model_config.input_scaling.clone().expect("rows of numbers have one"));
        let data = training::labelled(&rows, &encoder, &model_config)?;
        let work = Work {
            name: "network",
            model_config: &model_config,
            tokenizer: None,
            data: &data,
            from: None,
            teacher: None,
            validation: None,
            held_out: None,
            config: &config,
            ranks: &Alone,
        };
        Fitted::of(|directory| Ok(training::run(&work, directory, cpu, progress)?), cpu)
    }

    /// The settings of training; without low-bit layers nothing is rounded.
    fn train_config(&self) -> TrainConfig {
        let is_low_bit = self.layers.iter().any(Layer::is_low_bit);
        TrainConfig { qat: is_low_bit.then_some(self.qat), ..self.training.clone() }
    }

    /// Answers of the last layer that says how many it gives.
    fn outputs(&self) -> Option<usize> {
        self.layers.iter().rev().find_map(|layer| match layer {
            Layer::BitLinear(linear) | Layer::Linear(linear) => linear.outputs,
            Layer::BitConv2d(conv) | Layer::Conv2d(conv) => Some(conv.outputs),
            _ => None,
        })
    }

    /// Everything about the network but its weights, for rows to be trained on.
    fn model_config(&self, rows: &Rows) -> Result<ModelConfig, Error> {
        let values = matches!(rows.targets, RowTargets::Values(_));
        let classes = match (values, self.outputs()) {
            (true, _) => 1,
            (false, Some(outputs)) => outputs,
            (false, None) => self.labels.len(),
        };
        if let (false, 1) = (values, classes) {
            let text = "a network with one output answers with a value, and the targets are classes";
            return Err(Error::Request(format!("{text}: give targets of f32 or f64, or an output per class")));
        }
        let &Sequential { features, image, .. } = self;
        let config = sequential::Config { features, image, layers: self.layers.clone(), classes };
        let qat = self.train_config().qat;
        let scaling = if image.is_some() { Scaling::shared(&rows.inputs) } else { Scaling::of(&rows.inputs) };
        let model_config = ModelConfig {
            labels: self.labels.clone(),
            input_scaling: Some(scaling),
            target_scaling: values.then(|| Scaling::of_values(rows.values())),
            trained_for: qat.map(|qat| qat.recipe().map(|recipe| recipe.name.to_string())).transpose()?,
            rounding: qat.and_then(|qat| qat.rounding()),
            ..ModelConfig::new(Config::Sequential(config), 1)
        };
        if !model_config.labels.is_empty() && model_config.labels.len() != classes {
            let text = format!("{} labels for {classes} classes", model_config.labels.len());
            return Err(Error::Request(format!("{text}: give one for each")));
        }
        Ok(model_config)
    }

    /// Rows and targets that fit one another and the network.
    fn checked(&self, inputs: Inputs, targets: Targets) -> Result<Rows, Error> {
        if self.layers.is_empty() {
            return Err(Error::Request(
                "a network without layers: end with a linear layer that has an output per class".into(),
            ));
        }
        let (rows, found) = (inputs.len(), targets.len());
        if rows != found {
            return Err(Error::Request(format!("{rows} rows and {found} targets; give one target per row")));
        }
        if rows == 0 {
            return Err(Error::Request("no rows to train on".into()));
        }
        if inputs.width() != self.features {
            let text = format!("rows of {} numbers, and the network reads rows of {}", inputs.width(), self.features);
            return Err(Error::Request(format!("x: {text}; give [rows, {}]", self.features)));
        }
        let targets = match targets {
            Targets::Classes(classes) => {
                let most = self.outputs().unwrap_or(self.labels.len());
                if let Some(row) = classes.iter().position(|class| *class >= most || *class > usize::from(u16::MAX)) {
                    let text = format!("row {row} has class {}, and the network answers with {most}", classes[row]);
                    return Err(Error::Request(format!("y: {text}; classes are numbered from 0")));
                }
                RowTargets::Classes(classes.into_iter().map(|class| class as u16).collect())
            }
            Targets::Values(values) => {
                if let Some(row) = values.iter().position(|value| !value.is_finite()) {
                    return Err(Fault::numeric(format!("y: the value of row {row} is {}", values[row])).into());
                }
                RowTargets::Values(values)
            }
        };
        Ok(Rows { inputs, targets, ..Rows::default() })
    }
}
