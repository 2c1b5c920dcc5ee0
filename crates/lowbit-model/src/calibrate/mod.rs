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
mod parts;
mod pass;
mod reach;
mod refine;

pub use imatrix::{Origin, read_imatrix, save_imatrix};
pub use observe::{InputStats, Observed, observe};
pub use pass::{Quantized, Rounded};
pub use reach::Reach;

use crate::exec::Batch;
use crate::parameter_list::bytes_of;
use crate::{Checkpoint, Error, Recipe};
use lowbit_base::alternatives;
use lowbit_base::memory::Footprint;
use lowbit_kernels::Cpu;
use masters::Masters;
use parts::Limits;
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
    /// Whether codes and scales of GPTQ are improved in turns.
    learned: bool,
    /// Whether the network is then trained as a whole.
    trained: bool,
}

const fn method(name: &'static str, [gptq, channels, learned]: [bool; 3], summary: &'static str) -> Method {
    Method { name, summary, gptq, channels, learned, trained: false }
}

const fn trained(name: &'static str, channels: bool, summary: &'static str) -> Method {
    Method { trained: true, ..method(name, [true, channels, true], summary) }
}

/// Every method.
pub static METHODS: &[Method] = &[
    method("rtn", [false; 3], "round to nearest, scales of groups chosen by the mean square of each input"),
    method("gptq", [true, false, false], "round column by column, later ones make up for earlier ones"),
    method(
        "awq",
        [false, true, false],
        "scale input channels before rounding to nearest, the operation before divides by the scales",
    ),
    method("awq+gptq", [true, true, false], "scale input channels, then round as gptq"),
    method(
        "learned",
        [true, false, true],
        "gptq, then codes by coordinate descent and scales by least squares in turns, for the outputs in full precision",
    ),
    method("awq+learned", [true, true, true], "scale input channels, then round as learned"),
    trained(
        "trained",
        false,
        "learned, then codes and scales of all matrices together by gradients, for the answers in full precision",
    ),
    trained("awq+trained", true, "scale input channels, then round and train as trained"),
];

impl Method {
    /// Whether it needs to see inputs, and not only their mean squares.
    pub fn needs_text(&self) -> bool {
        self.gptq || self.channels
    }

    /// Whether what [`quantize`] gives is then to be trained as a whole, to answer as in full precision.
    pub fn trains(&self) -> bool {
        self.trained
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
    need(checkpoint, recipe, method, batch)?.check()?;
    let mut masters = Masters { checkpoint, folds: BTreeMap::new() };
    if method.channels {
        masters.folds = channels::scales(&masters, recipe, batch, cpu)?;
    }
    let all = parameters.matrices();
    let mut tell = |done| progress(done, all);
    let (params, rounded) = pass::Pass::new(&masters, recipe, method, cpu.clone(), &mut tell).run(batch)?;
    Ok((Quantized { params, folds: masters.folds }, rounded))
}

/// What [`quantize`] takes of memory.
fn need(checkpoint: &Checkpoint, recipe: &'static Recipe, method: &Method, batch: &Batch) -> Result<Footprint, Error> {
    let (parameters, limits) = (checkpoint.parameters(), Limits::default());
    let mut largest = 0;
    for spec in parameters.params() {
        let (values, square) = (spec.rows as u64 * spec.cols as u64, spec.cols as u64 * spec.cols as u64);
        // Its codes and scales, before they are packed and after, and some rows of floats with their errors and codes; the Hessian, its factor
        // and the tokens that are added to it. What is learned takes the whole matrix, its values twice, the drift and the Hessian besides.
        let rows = 2 * values + 16 * values.min(levels::AT_ONCE as u64);
        let sums = 8 * square + 4 * hessian::TOKENS.min(batch.tokens.len()) as u64 * spec.cols as u64;
        let learned = if method.learned { 10 * values + 12 * square } else { 0 };
        largest = largest.max(bytes_of(spec, recipe)? + rows + sums + learned);
    }
    let cut = parts::cut(batch, &limits);
    let tokens = cut.iter().map(|part| part.tokens.len()).max().unwrap_or(0);
    let mut activations = parameters.pass_bytes(tokens, 0);
    if cut.len() > 1 {
        // What goes into a block and what comes out, and what is between where that is held.
        activations += parameters.held_bytes(batch.tokens.len()) + limits.held as u64;
    }
    Ok(Footprint::new("take fewer --calibration-tokens")
        .and("quantized weights", parameters.bytes(recipe)?)
        .and("the largest matrix in full precision", largest)
        .and("activations", activations * (1 + u64::from(method.learned))))
}
