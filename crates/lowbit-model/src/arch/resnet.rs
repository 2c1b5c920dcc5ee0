//! Residual networks (arXiv 1512.03385) with stems for large and for small images. Tensors are called as in torchvision; its networks have
//! projections as shortcuts, those of the publication for CIFAR-10 zeros for the channels that are new.

use super::OutputKind;
use super::parts::{Images, check_image, is_zero};
use crate::Error;
use crate::exec::{Activation, BatchNorm, Exec, Window, WindowPooling};
use crate::source::{Role, Source};
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
    /// How it begins.
    pub stem: Stem,
    /// What it repeats.
    pub block: Block,
    /// Blocks of each stage: 2, 2, 2, 2 of ResNet-18, 3, 4, 6, 3 of ResNet-50, 3, 3, 3 of ResNet-20.
    pub stages: Vec<usize>,
    /// Channels of the first stage, which double with each.
    pub width: usize,
    /// What leads past a block that changes the size.
    #[serde(default)]
    pub shortcut: Shortcut,
    /// Classes; 1 for a network that answers with a value.
    pub classes: usize,
}

/// How a residual network begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// Windows of 7 x 7 at every second pixel, then the maximum of 3 x 3 at every second.
    Imagenet,
    /// Windows of 3 x 3 at every pixel.
    Cifar,
}

/// What a residual network repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Two convolutions of 3 x 3.
    Basic,
    /// 1 x 1, 3 x 3, and 1 x 1 with four times the channels.
    Bottleneck,
}

/// What leads past a block that changes the size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortcut {
    /// A convolution of 1 x 1.
    #[default]
    Projection,
    /// The pixels that remain, with zeros for new channels: half before, half after.
    Padding,
}

impl super::Dimensions for Config {
    fn output(&self) -> OutputKind {
        OutputKind::of_classes(self.classes)
    }

    fn image(&self) -> Option<[usize; 3]> {
        Some(self.image)
    }
}

/// The network whose tensors, told by name, have these shapes. Their size of an image is that of the data such stems are for.
pub(crate) fn of_torch(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Config> {
    let &[width, channels, kernel, _] = &shape("conv1.weight")?[..] else { return None };
    let blocks =
        |stage: &usize| (0..256).take_while(|i| shape(&format!("layer{stage}.{i}.conv1.weight")).is_some()).count();
    let stages: Vec<usize> = (1..=8).map(|stage| blocks(&stage)).take_while(|blocks| *blocks > 0).collect();
    let classes = *shape("fc.weight").or_else(|| shape("linear.weight"))?.first()?;
    let (stem, side) = if kernel == 7 { (Stem::Imagenet, 224) } else { (Stem::Cifar, 32) };
    let has = |name: &str| shape(name).is_some();
    let block = if has("layer1.0.conv3.weight") { Block::Bottleneck } else { Block::Basic };
    let projects = has("layer1.0.downsample.0.weight") || has("layer2.0.downsample.0.weight");
    let shortcut = if projects || stages.len() < 2 { Shortcut::Projection } else { Shortcut::Padding };
    (!stages.is_empty()).then_some(Config {
        image: [side, side, channels],
        features: 0,
        stem,
        block,
        stages,
        width,
        shortcut,
        classes,
    })
}

/// A convolution and its normalization.
struct Unit<P> {
    weight: P,
    window: Window,
    norm: BatchNorm<P>,
}

impl<P> Unit<P> {
    fn build(
        images: &mut Images<P>,
        [conv, norm]: [&str; 2],
        out: usize,
        size: [usize; 3],
        role: Role,
    ) -> Result<Self, Error> {
        let (weight, window) = images.conv(conv, out, size, role)?;
        Ok(Unit { weight, window, norm: images.batch_norm(norm)? })
    }

    fn of<E: Exec<Param = P>>(&self, e: &mut E, x: &E::Tensor) -> E::Tensor {
        let x = e.conv(x, &self.weight, None, &self.window);
        e.batch_norm(&x, &self.norm)
    }
}

/// What leads past a block.
enum Past<P> {
    Same,
    Projection(Unit<P>),
    /// The pixels that remain, and zeros around their channels.
    Padding(Window, Window),
}

struct Residual<P> {
    units: Vec<Unit<P>>,
    past: Past<P>,
}

impl<P> Residual<P> {
    fn build(images: &mut Images<P>, config: &Config, name: &str, width: usize, stride: usize) -> Result<Self, Error> {
        let before = images.shape;
        let (sizes, out) = match config.block {
            Block::Basic => (vec![(width, [3, stride, 1]), (width, [3, 1, 1])], width),
            Block::Bottleneck => (vec![(width, [1, 1, 0]), (width, [3, stride, 1]), (4 * width, [1, 1, 0])], 4 * width),
        };
        let mut units = Vec::new();
        for (i, (out, size)) in (1..).zip(sizes) {
            let names = [format!("{name}.conv{i}"), format!("{name}.bn{i}")];
            units.push(Unit::build(images, [&names[0], &names[1]], out, size, Role::Body)?);
        }
        let after = images.shape;
        let past = match config.shortcut {
            _ if before == after => Past::Same,
            Shortcut::Projection => {
                images.shape = before;
                let names = [format!("{name}.downsample.0"), format!("{name}.downsample.1")];
                Past::Projection(Unit::build(images, [&names[0], &names[1]], out, [1, stride, 0], Role::Body)?)
            }
            Shortcut::Padding => {
                let [height, width, channels] = before;
                let remain = Window::square([height, width], channels, 1, stride, 0);
                let side = (out - channels) / 2;
                // The channels of a pixel as a row of pixels, so that padding puts zeros around them.
                let pixels = Window { padding: [0, side], ..Window::square([remain.pixels(), channels], 1, 1, 1, 0) };
                Past::Padding(remain, pixels)
            }
        };
        images.shape = after;
        Ok(Residual { units, past })
    }

    fn of<E: Exec<Param = P>>(&self, e: &mut E, x: &E::Tensor) -> E::Tensor {
        let (last, units) = self.units.split_last().expect("a block has units");
        let inner = units.iter().fold(x.clone(), |y, unit| {
            let y = unit.of(e, &y);
            e.activate(&y, Activation::Relu)
        });
        let y = last.of(e, &inner);
        let past = match &self.past {
            Past::Same => x.clone(),
            Past::Projection(unit) => unit.of(e, x),
            Past::Padding(remain, pixels) => {
                let x = e.pool_windows(x, WindowPooling::Mean, remain);
                e.pool_windows(&x, WindowPooling::Mean, pixels)
            }
        };
        let sum = e.add(&y, &past);
        e.activate(&sum, Activation::Relu)
    }
}

/// The parameters of one network.
pub struct Resnet<P> {
    features: usize,
    stem: Unit<P>,
    /// What is pooled after the stem.
    max: Option<Window>,
    blocks: Vec<Residual<P>>,
    /// The mean of all pixels.
    mean: Window,
    head: P,
    head_bias: Option<P>,
}

impl<P> Resnet<P> {
    /// Takes every parameter from a source.
    ///
    /// # Errors
    /// When the configuration contradicts itself or the source lacks a parameter.
    pub fn build(config: &Config, source: &mut dyn Source<P>) -> Result<Self, Error> {
        let image = config.image;
        check_image(image, config.features)?;
        if config.classes == 0 {
            return Err(Error::config("classes", "is 0; it must be at least 2, or 1 for a value"));
        }
        let (stages, width) = (config.stages.len(), config.width);
        if !(1..=8).contains(&stages) || config.stages.iter().any(|blocks| !(1..=256).contains(blocks)) {
            return Err(Error::config(
                "stages",
                format!("is {:?}; it must be 1 to 8 stages of 1 to 256 blocks", config.stages),
            ));
        }
        if !(1..=1 << 16).contains(&width) || config.shortcut == Shortcut::Padding && !width.is_multiple_of(2) {
            return Err(Error::config(
                "width",
                format!("is {width}; it must lie in 1 to 65536, and be even with padding"),
            ));
        }
        if config.shortcut == Shortcut::Padding && config.block != Block::Basic {
            return Err(Error::config("shortcut", "is padding; blocks of the kind bottleneck take projection"));
        }
        let mut images = Images::new(source, image);
        let size = match config.stem {
            Stem::Imagenet => [7, 2, 3],
            Stem::Cifar => [3, 1, 1],
        };
        let stem = Unit::build(&mut images, ["conv1", "bn1"], width, size, Role::Head)?;
        let max = (config.stem == Stem::Imagenet).then(|| images.window([3, 2, 1])).transpose()?;
        let mut blocks = Vec::new();
        for (stage, count) in config.stages.iter().enumerate() {
            for block in 0..*count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                blocks.push(Residual::build(&mut images, config, &name, width << stage, stride)?);
            }
        }
        let [height, width, channels] = images.shape;
        let mean = Window::whole([height, width], channels);
        let head = images.matrix("fc", config.classes, 1, Role::Head)?;
        let head_bias = Some(images.vector("fc.bias".into(), Role::Bias, 0.0)?);
        Ok(Resnet { features: image.iter().product(), stem, max, blocks, mean, head, head_bias })
    }

    /// Logits, `[images, classes]`, or values, `[images, 1]`.
    pub fn forward<E: Exec<Param = P>>(&self, e: &mut E) -> E::Tensor {
        let x = e.features(self.features);
        let x = self.stem.of(e, &x);
        let mut x = e.activate(&x, Activation::Relu);
        if let Some(window) = &self.max {
            x = e.pool_windows(&x, WindowPooling::Max, window);
        }
        for (i, block) in self.blocks.iter().enumerate() {
            x = e.block(i, &x, |e, x| block.of(e, x));
        }
        let x = e.pool_windows(&x, WindowPooling::Mean, &self.mean);
        e.logits(&x, &self.head, self.head_bias.as_ref())
    }
}
