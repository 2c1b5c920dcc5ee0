//! Speed of the kernels, matrix products of all formats and attention, against the limits of the machine measured in the
//! same run.

use crate::bench::host;
use crate::error::Error;
use lowbit_base::memory::Footprint;
use lowbit_kernels::Cpu;
use lowbit_kernels::limits::{self, Limits};
use lowbit_model::recipe::ProductFormat;
use serde::Serialize;
use std::cell::RefCell;

pub mod against;
mod attention;
mod case;
mod plot;
mod product;
mod shape;
mod table;
pub mod ternary;

pub use plot::roofline;
pub use shape::{Heads, LAYERS, WeightShape};
pub use table::lines;

/// What is to be measured, with every number of tokens.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kernels.
    pub kernels: Kernels,
    /// Tokens of a product, or of a prompt.
    pub tokens: Vec<usize>,
    /// Samples of each case.
    pub rounds: usize,
}

/// Kernels to measure.
#[derive(Clone, Debug)]
pub enum Kernels {
    /// Products of every format with every shape.
    Products(Vec<ProductFormat>, Vec<WeightShape>),
    /// Attention with these heads.
    Attention(Vec<Heads>),
}

/// Speed of one case on one machine.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Name of the format, with the activations where they are not those of its recipe: `int8_channel+act=int8_block`; or `attention`.
    pub format: String,
    /// Name of the instruction set.
    pub isa: &'static str,
    /// Name of the shape.
    pub shape: String,
    /// Output features, where it is one matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// Input features, where it is one matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<usize>,
    /// Tokens.
    pub tokens: usize,
    /// Threads used.
    pub threads: usize,
    /// Copies of the weights that were visited in turn.
    pub copies: usize,
    /// Seconds, median of the samples.
    pub seconds_p50: f64,
    /// Seconds, fastest sample.
    pub seconds_min: f64,
    /// Seconds, slowest sample.
    pub seconds_max: f64,
    /// Samples.
    pub n: usize,
    /// Bytes of the packed weights (of an attention: keys and values) per second of the median, GB/s (10^9).
    pub weight_gbps: f64,
    /// Operations, two per multiply-add, per second of the median, 10^9/s.
    pub gops: f64,
    /// What the speed is held against: `memory`, `int8`, `bf16` or `f32`.
    pub limit: &'static str,
    /// Part of that limit, as measured in the same round, that was reached: median of the rounds.
    pub fraction_of_limit: f64,
    /// Seconds of each sample.
    pub samples: Vec<f64>,
}

/// An instruction set with a number of threads, and what it can do at most.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Name of the instruction set.
    pub isa: &'static str,
    /// Threads used.
    pub threads: usize,
    /// Median of the limits after each round.
    pub limits: Limits,
}

/// All results.
#[derive(Clone, Debug)]
pub struct Speeds {
    /// The machines, in the order they were asked for.
    pub machines: Vec<Machine>,
    /// Every case on every machine.
    pub speeds: Vec<Speed>,
}

impl Plan {
    /// Memory that the largest shape takes, on so many machines.
    fn need(&self, machines: usize) -> Footprint {
        let most = self.tokens.iter().copied().max().unwrap_or(1);
        let (weights, rest) = match &self.kernels {
            Kernels::Products(formats, shapes) => {
                let of = |shape: &WeightShape| product::memory(formats, shape, &self.tokens);
                shapes.iter().map(of).max_by_key(|(weights, rest)| weights.saturating_add(*rest)).unwrap_or_default()
            }
            Kernels::Attention(all) => {
                let rows = all.iter().map(|heads| heads.count * heads.width).max().unwrap_or(0) as u64 * most as u64;
                // Queries, keys, values and outputs in f32, keys and values in f16.
                (0, rows.saturating_mul(16 + 4 * machines as u64))
            }
        };
        let need = Footprint::new("take smaller shapes, fewer formats or fewer tokens").and("weights", weights);
        need.and("inputs and outputs", rest).and("measuring the limits", limits::BYTES as u64)
    }

    /// Format and shape of every case.
    pub fn cases(&self) -> Vec<(String, String)> {
        match &self.kernels {
            Kernels::Products(formats, shapes) => {
                shapes.iter().flat_map(|shape| formats.iter().map(|f| (f.name(), shape.name.clone()))).collect()
            }
            Kernels::Attention(all) => all.iter().map(|heads| (attention::NAME.into(), heads.name())).collect(),
        }
    }
}

/// Measures all cases on all machines. Shapes follow one another, so that the matrices of one shape are in memory at a time;
/// the cases of a shape take turns, and the limits are measured after each round.
///
/// # Errors
/// When outputs of a kernel are not what its definition says.
pub fn run(cpus: &[Cpu], plan: &Plan) -> Result<Speeds, Error> {
    plan.need(cpus.len()).check()?;
    let mut limits = vec![Vec::new(); cpus.len()];
    let mut speeds = Vec::new();
    match &plan.kernels {
        Kernels::Products(formats, shapes) => {
            for shape in shapes {
                speeds.extend(products(cpus, plan, formats, shape, &mut limits)?);
            }
        }
        Kernels::Attention(all) => {
            for heads in all {
                speeds.extend(attentions(cpus, plan, *heads, &mut limits)?);
            }
        }
    }
    let machine = |(cpu, limits): (&Cpu, &Vec<Limits>)| Machine {
        isa: cpu.isa.name(),
        threads: cpu.pool.threads(),
        limits: host::middle(limits),
    };
    Ok(Speeds { machines: cpus.iter().zip(&limits).map(machine).collect(), speeds })
}

fn products(
    cpus: &[Cpu],
    plan: &Plan,
    formats: &[ProductFormat],
    shape: &WeightShape,
    limits: &mut [Vec<Limits>],
) -> Result<Vec<Speed>, Error> {
    let weights = product::Weights::all(formats, shape, plan.tokens.contains(&1))?;
    let inputs: Vec<_> = plan.tokens.iter().map(|tokens| product::Input::new(&cpus[0], *tokens, shape)).collect();
    let outputs = RefCell::default();
    let mut cases = Vec::new();
    for machine in cpus.iter().enumerate() {
        for input in &inputs {
            for weights in &weights {
                cases.push(product::case(machine, shape, weights, input, &outputs)?);
            }
        }
    }
    case::time(cpus, cases, plan.rounds, limits)
}

fn attentions(cpus: &[Cpu], plan: &Plan, heads: Heads, limits: &mut [Vec<Limits>]) -> Result<Vec<Speed>, Error> {
    let prompts: Vec<_> = plan.tokens.iter().map(|tokens| attention::Prompt::new(heads, *tokens)).collect();
    let mut cases = Vec::new();
    for machine in cpus.iter().enumerate() {
        for prompt in &prompts {
            cases.push(prompt.case(machine)?);
        }
    }
    case::time(cpus, cases, plan.rounds, limits)
}

/// Reproducible values, roughly normal, in -2..2: the sum of four uniform ones.
fn values(n: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}
