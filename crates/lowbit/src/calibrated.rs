//! Quantization with a calibration text: matrix by matrix, and then, where the method says so, by training the whole network.

use lowbit_base::Error;
use lowbit_eval::sensitivity::Calibration;
use lowbit_kernels::Cpu;
use lowbit_model::calibrate::{self, Method, Quantized, Rounded};
use lowbit_model::{Checkpoint, Recipe};
use lowbit_train::{Tuned, Tuning, tune};

/// What a method reads.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    /// By which matrices are rounded.
    pub rounding: &'a Calibration,
    /// By which the network is then trained, and how; for methods that [train](Method::trains).
    pub training: Option<(&'a Calibration, Tuning)>,
}

/// How far quantization is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// So many matrices are rounded, of how many.
    Rounded(usize, usize),
    /// So many updates are done, of how many, and the loss of the last.
    Trained(u64, u64, f64),
}

/// What was done.
pub struct Done {
    /// The network, ready to be [saved](lowbit_model::checkpoint::save_quantized).
    pub quantized: Quantized,
    /// How each matrix was rounded.
    pub rounded: Vec<Rounded>,
    /// What training did, if there was any.
    pub tuned: Option<Tuned>,
}

/// Quantizes masters under a recipe by a method.
///
/// # Errors
/// Of kind usage when the method trains and there is no text for it, or the other way round; and as [`calibrate::quantize`] and
/// [`tune`].
pub fn quantize(
    masters: &Checkpoint,
    recipe: &'static Recipe,
    method: &Method,
    texts: Texts,
    cpu: &Cpu,
    progress: &mut dyn FnMut(Stage),
) -> Result<Done, Error> {
    if method.trains() != texts.training.is_some() {
        let what = if method.trains() { "needs a text to train by" } else { "does not train" };
        return Err(Error::usage(format!("method {} {what}", method.name)));
    }
    // Rounding takes minutes, too.
    texts.training.map_or(Ok(()), |(_, tuning)| tuning.validate())?;
    let (quantized, rounded) =
        calibrate::quantize(masters, recipe, method, &texts.rounding.joined(), cpu, &mut |done, all| {
            progress(Stage::Rounded(done, all));
        })?;
    let Some((text, tuning)) = texts.training else { return Ok(Done { quantized, rounded, tuned: None }) };
    let (quantized, tuned) = tune(masters, quantized, text.batches(), &tuning, cpu, &mut |done, all, loss| {
        progress(Stage::Trained(done, all, loss));
    })?;
    Ok(Done { quantized, rounded, tuned: Some(tuned) })
}
