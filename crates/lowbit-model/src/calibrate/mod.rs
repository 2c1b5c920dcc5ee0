//! Calibration: what a network reads tells which errors of its weights matter. Quantization after training that makes use of it:
//! scales chosen by importance, GPTQ (arXiv 2210.17323), and scales of input channels as of AWQ (arXiv 2306.00978).

mod channels;
mod gptq;
mod graph;
mod hessian;
mod imatrix;
mod levels;
mod masters;
mod observe;
mod pass;

pub use imatrix::{Origin, read_imatrix, save_imatrix};
pub use observe::{InputStats, Observed, observe};
pub use pass::{Quantized, Rounded};

use crate::exec::Batch;
use crate::parameter_list::bytes_of;
use crate::{Checkpoint, Error, Recipe};
use hessian::Order;
use lowbit_base::alternatives;
use lowbit_base::memory::Footprint;
use lowbit_kernels::Cpu;
use masters::Masters;
use std::collections::BTreeMap;

/// How weights are rounded with calibration tokens at hand.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// The name on the command line.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    gptq: bool,
    /// Whether input channels are scaled.
    channels: bool,
}

/// Every method.
pub static METHODS: &[Method] = &[
    Method {
        name: "rtn",
        summary: "round to nearest, scales of groups chosen by the mean square of each input",
        gptq: false,
        channels: false,
    },
    Method {
        name: "gptq",
        summary: "round column by column, later ones make up for earlier ones",
        gptq: true,
        channels: false,
    },
    Method {
        name: "awq",
        summary: "scale input channels before rounding to nearest, the operation before divides by the scales",
        gptq: false,
        channels: true,
    },
    Method { name: "awq+gptq", summary: "scale input channels, then round as gptq", gptq: true, channels: true },
];

impl Method {
    /// Whether it needs to see inputs, and not only their mean squares.
    pub fn needs_text(&self) -> bool {
        self.gptq || self.channels
    }

    /// The method of a name.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind) naming the nearest.
    pub fn find(name: &str) -> Result<&'static Method, Error> {
        METHODS.iter().find(|method| method.name == name).ok_or_else(|| {
            let known = METHODS.iter().map(|method| method.name);
            Error::usage(format!("no method `{name}`{}", alternatives(name, known)))
        })
    }
}

/// Quantizes masters under a recipe with calibration tokens: one forward pass over all of them, in which each matrix is rounded with
/// its inputs at hand, and its outputs are those of the rounded weights. `progress` is told how many matrices are done, of how many.
///
/// # Errors
/// When the checkpoint holds no masters, the tokens do not fit the network or the memory, their activations are not finite, or the
/// work is to end.
pub fn quantize(
    checkpoint: &Checkpoint,
    recipe: &'static Recipe,
    method: &Method,
    batch: &Batch,
    cpu: &Cpu,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Quantized, Vec<Rounded>), Error> {
    let parameters = checkpoint.parameters();
    recipe.check(parameters.params())?;
    let mut largest = 0;
    for spec in parameters.params() {
        // Its values, errors and codes, and the factor of its Hessian.
        let (values, factor) = (spec.rows as u64 * spec.cols as u64, spec.cols as u64 * spec.cols as u64);
        largest = largest.max(bytes_of(spec, recipe)? + 13 * values + 12 * factor);
    }
    Footprint::new("take fewer --calibration-tokens")
        .and("quantized weights", parameters.bytes(recipe)?)
        .and("the largest matrix in full precision", largest)
        .and("activations", parameters.pass_bytes(batch.tokens.len(), 0))
        .check()?;
    let mut masters = Masters { checkpoint, folds: BTreeMap::new() };
    if method.channels {
        masters.folds = channels::scales(&masters, recipe, batch, cpu)?;
    }
    let all = parameters.matrices();
    let mut tell = |done| progress(done, all);
    let order = method.gptq.then_some(Order::Activations);
    let (params, rounded) = pass::Pass::new(&masters, recipe, order, cpu.clone(), &mut tell).run(batch)?;
    Ok((Quantized(params), rounded))
}
