//! Weights of networks for images as torchvision calls them, without a configuration: names and shapes of the tensors tell it.

use super::CheckpointReader;
use super::own::{self, Own};
use crate::arch::{resnet, vgg};
use crate::checkpoint::CONFIG_FILE;
use crate::container::Tensors;
use crate::input::Scaling;
use crate::{Config, Error, ModelConfig};
use std::path::Path;

/// Mean and deviation of the colours that such networks are trained on: those of ImageNet, also for CIFAR-10.
const COLOURS: Scaling3 = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
type Scaling3 = [[f32; 3]; 2];

/// Whether a path is of weights without a configuration whose names are known.
pub(super) fn has(path: &Path) -> bool {
    let files = own::locate(path).ok().filter(|(directory, _)| !directory.join(CONFIG_FILE).exists());
    files.and_then(|(_, weights)| Tensors::open(&weights).ok()).is_some_and(|tensors| config(&tensors).is_some())
}

/// Opens a directory, or the weights file inside one.
pub(super) fn open(path: &Path) -> Result<Box<dyn CheckpointReader>, Error> {
    let (directory, weights) = own::locate(path)?;
    let tensors = Tensors::open(&weights)?;
    let config =
        config(&tensors).ok_or_else(|| Error::input(&weights, "holds no network that is known by its names"))?;
    let pixels = config.features() / COLOURS[0].len();
    let [mean, deviation] = COLOURS.map(|colours| colours.repeat(pixels));
    let text = "no config.json: the network is told by its tensors, and colours are scaled as those of ImageNet";
    let notices = vec![format!("{}: {text}", weights.display())];
    let model_config = ModelConfig { input_scaling: Some(Scaling { mean, deviation }), ..ModelConfig::new(config, 1) };
    Ok(Box::new(Own::new(directory, tensors, (model_config, notices), None)?))
}

/// The network of three colours whose tensors these are.
fn config(tensors: &Tensors) -> Option<Config> {
    let shape = |name: &str| tensors.entry(name).map(|entry| entry.shape.clone());
    let resnet = resnet::of_torch(&shape).map(Config::Resnet);
    let config = resnet.or_else(|| vgg::of_torch(&shape).map(Config::Vgg))?;
    Some(config).filter(|config| config.image().is_some_and(|[_, _, channels]| channels == COLOURS[0].len()))
}
