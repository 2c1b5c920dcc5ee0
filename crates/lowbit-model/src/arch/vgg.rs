//! VGG (arXiv 1409.1556): stages of 3 x 3 convolutions, each ended by pooling, then linear layers. Its tensors are called as in torchvision.

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
    /// Convolutions of each stage; 2, 2, 3, 3 and 3 of VGG-16.
    #[serde(default = "sixteen")]
    pub stages: Vec<usize>,
    /// Channels of the first stage, which double up to eight times as many.
    #[serde(default = "channels")]
    pub width: usize,
    /// Widths of the hidden linear layers: 4096 twice for ImageNet, fewer or none for small images.
    pub hidden: Vec<usize>,
    /// Whether batch normalization follows each convolution.
    #[serde(default)]
    pub batch_norm: bool,
    /// Classes; 1 for a network that answers with a value.
    pub classes: usize,
    /// Probability of dropout after each hidden linear layer.
    #[serde(default)]
    pub dropout: f32,
}

/// Height and width of what the linear layers read of a large image.
const POOLED: usize = 7;

fn sixteen() -> Vec<usize> {
    vec![2, 2, 3, 3, 3]
}
fn channels() -> usize {
    64
}

impl Config {
    /// Its layers and their names.
    ///
    /// # Errors
    /// When an image ends in a map larger than 7 x 7 that is no multiple of it: torchvision pools such maps in uneven windows.
    fn layers(&self) -> Result<(sequential::Config, Vec<String>), Error> {
        let relu = || (Layer::Activation(Elementwise { function: Activation::Relu }), String::new());
        let pool = |kernel| Pool2d { kernel, stride: None, padding: 0 };
        let mut all = Vec::new();
        // Torchvision counts functions and pooling too.
        let mut at = 0;
        for (stage, convs) in self.stages.iter().enumerate() {
            for _ in 0..*convs {
                let outputs = self.width << stage.min(3);
                let conv = Conv2d { inputs: None, outputs, kernel: 3, stride: 1, padding: 1, bias: true };
                let layer = if at == 0 { Layer::Conv2d(conv) } else { Layer::BitConv2d(conv) };
                all.push((layer, format!("features.{at}")));
                if self.batch_norm {
                    at += 1;
                    all.push((Layer::BatchNorm(Moments::default()), format!("features.{at}")));
                }
                all.push(relu());
                at += 2;
            }
            all.push((Layer::MaxPool2d(pool(2)), String::new()));
            at += 1;
        }
        match [0, 1].map(|i| self.image[i] >> self.stages.len()) {
            [height, width] if height == width && height > POOLED && height.is_multiple_of(POOLED) => {
                all.push((Layer::AvgPool2d(pool(height / POOLED)), String::new()));
            }
            [height, width] if height.max(width) > POOLED => {
                let text = format!("is {:?}, which ends in a map of {height} x {width}", self.image);
                return Err(Error::config(
                    "image",
                    format!("{text}; it must be at most {POOLED}, or a multiple of it"),
                ));
            }
            _ => {}
        }
        for (i, out) in self.hidden.iter().enumerate() {
            let linear = Linear { inputs: None, outputs: Some(*out), bias: true };
            all.push((Layer::BitLinear(linear), format!("classifier.{}", 3 * i)));
            all.push(relu());
            all.push((Layer::Dropout(Share { p: self.dropout }), String::new()));
        }
        let last = Linear { inputs: None, outputs: None, bias: true };
        all.push((Layer::Linear(last), format!("classifier.{}", 3 * self.hidden.len())));
        Ok(sequential::named(self.image, self.classes, all))
    }
}

/// The network whose tensors, told by name, have these shapes.
pub(crate) fn of_torch(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Config> {
    let first = shape("features.0.weight").filter(|first| first.len() == 4)?;
    let batch_norm = shape("features.1.running_mean").is_some();
    let (mut stages, mut at, mut out) = (vec![0], 0, 0);
    // A stage ends with pooling, after which numbers go on by one more.
    loop {
        let conv = shape(&format!("features.{at}.weight")).filter(|conv| conv.len() == 4);
        let later = shape(&format!("features.{}.weight", at + 1)).filter(|conv| conv.len() == 4);
        match (conv, later) {
            (Some(conv), _) => {
                *stages.last_mut()? += 1;
                out = conv[0];
                at += if batch_norm { 3 } else { 2 };
            }
            (None, Some(_)) => {
                stages.push(0);
                at += 1;
            }
            (None, None) => break,
        }
    }
    let linear = |i: usize| shape(&format!("classifier.{}.weight", 3 * i)).filter(|linear| linear.len() == 2);
    let mut widths: Vec<usize> = (0..16).map_while(|i| linear(i).map(|linear| linear[0])).collect();
    let (pixels, classes) = (linear(0)?[1] / out.max(1), widths.pop()?);
    let side = pixels.isqrt() << stages.len().min(16);
    Some(Config {
        image: [side, side, first[1]],
        features: 0,
        stages,
        width: first[0],
        hidden: widths,
        batch_norm,
        classes,
        dropout: 0.5,
    })
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
pub struct Vgg<P>(Sequential<P>);

impl<P> Vgg<P> {
    /// Takes every parameter from a source.
    ///
    /// # Errors
    /// When the configuration contradicts itself or the source lacks a parameter.
    pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
        if config.stages.len() > 16
            || config.stages.iter().any(|convs| !(1..=64).contains(convs))
            || config.width > 1 << 16
        {
            return Err(Error::config("stages", "must be at most 16 of 1 to 64 convolutions, `width` at most 65536"));
        }
        check_image(config.image, config.features)?;
        let (config, names) = config.layers()?;
        Sequential::build(&config, &mut Named { source, names }).map(Vgg)
    }

    /// Logits, `[images, classes]`, or values, `[images, 1]`.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        self.0.forward(e)
    }
}
