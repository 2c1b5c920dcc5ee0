//! LeNet-5 (LeCun et al., 1998) with the functions of today: two convolutions with pooling, three linear layers. Its tensors are called as
//! in PyTorch's tutorials.

use super::OutputKind;
use super::parts::{Named, check_image, is_zero};
use super::sequential::{self, Conv2d, Elementwise, Layer, Linear, Moments, Pool2d, Sequential, Share};
use crate::Error;
use crate::exec::{Activation, Exec};
use crate::source::Source;
use serde::{Deserialize, Serialize};

/// Dimensions and switches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Height, width and channels of an image.
    pub image: [usize; 3],
    /// Numbers of a row: those of the image.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub features: usize,
    /// Channels of both convolutions and outputs of both hidden layers; 6, 16, 120 and 84 in the publication.
    #[serde(default = "published")]
    pub widths: [usize; 4],
    /// Function after each hidden layer.
    pub hidden_act: Activation,
    /// Whether batch normalization follows each hidden layer.
    #[serde(default)]
    pub batch_norm: bool,
    /// Classes; 1 for a network that answers with a value.
    pub classes: usize,
    /// Probability of dropout before the linear layers.
    #[serde(default)]
    pub dropout: f32,
}

fn published() -> [usize; 4] {
    [6, 16, 120, 84]
}

impl Config {
    /// Its layers and their names. The image keeps its size in the first convolution, as 28 x 28 pixels padded to 32 x 32 do.
    fn layers(&self) -> (sequential::Config, Vec<String>) {
        let [first, second, third, fourth] = self.widths;
        let bias = !self.batch_norm;
        let conv = |outputs, padding| Conv2d { inputs: None, outputs, kernel: 5, stride: 1, padding, bias };
        let linear = |outputs| Layer::BitLinear(Linear { inputs: None, outputs: Some(outputs), bias });
        let hidden = [
            (Layer::Conv2d(conv(first, 2)), "conv1"),
            (Layer::BitConv2d(conv(second, 0)), "conv2"),
            (linear(third), "fc1"),
            (linear(fourth), "fc2"),
        ];
        let mut all = Vec::new();
        for (i, (layer, name)) in (1..).zip(hidden) {
            if i > 2 {
                all.push((Layer::Dropout(Share { p: self.dropout }), String::new()));
            }
            all.push((layer, name.to_string()));
            if self.batch_norm {
                all.push((Layer::BatchNorm(Moments::default()), format!("bn{i}")));
            }
            all.push((Layer::Activation(Elementwise { function: self.hidden_act }), String::new()));
            if i <= 2 {
                all.push((Layer::MaxPool2d(Pool2d { kernel: 2, stride: None, padding: 0 }), String::new()));
            }
        }
        all.push((Layer::Linear(Linear { inputs: None, outputs: None, bias: true }), "fc3".into()));
        sequential::named(self.image, self.classes, all)
    }
}

impl super::Dimensions for Config {
    fn output(&self) -> OutputKind {
        OutputKind::of_classes(self.classes)
    }

    fn image(&self) -> Option<[usize; 3]> {
        Some(self.image)
    }
}

/// The parameters of one network.
pub struct Lenet<P>(Sequential<P>);

impl<P> Lenet<P> {
    /// Takes every parameter from a source.
    ///
    /// # Errors
    /// When the configuration contradicts itself or the source lacks a parameter.
    pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
        check_image(config.image, config.features)?;
        let (config, names) = config.layers();
        Sequential::build(&config, &mut Named { source, names }).map(Lenet)
    }

    /// Logits, `[images, classes]`, or values, `[images, 1]`.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        self.0.forward(e)
    }
}
