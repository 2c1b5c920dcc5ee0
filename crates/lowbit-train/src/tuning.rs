//! Training after quantization: codes, scales and vectors of a quantized network learn the answers of the network in full precision, all
//! matrices together (LLM-QAT: arXiv 2305.17888; BitDistiller: arXiv 2402.10631).

use crate::Error;
use crate::config::{Optimizer, Precision, Schedule, TrainConfig, out_of_range};
use crate::data::Order;
use crate::grid::{Adam, Grid};
use crate::network::Network;
use crate::optim::OptimizerState;
use crate::params::{ParamId, Params};
use crate::random::hash;
use crate::tape::{Pass, Tape, Tensor};
use lowbit_base::memory::Footprint;
use lowbit_kernels::Cpu;
use lowbit_model::arch::OutputKind;
use lowbit_model::calibrate::Quantized;
use lowbit_model::exec::Batch;
use lowbit_model::recipe::ActivationPrecision;
use lowbit_model::source::{ParamSpec, Role, Source};
use lowbit_model::{Checkpoint, Model, Param};
use std::collections::BTreeMap;

/// Sets the seeds of dropout apart from other seeds of the run.
const DROPOUT: u64 = 3;
/// Tokens of a forward pass, about.
const PASS: usize = 512;
/// The learning rate of vectors over that of codes, as a share of their mean magnitude.
const VECTORS: f32 = 0.05;
/// Share of the updates over which the learning rate rises.
const WARMUP: f64 = 0.05;
/// Passes of the text, at most a tenth of all, that are not trained on.
const HELD: usize = 8;

/// How a quantized network is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Updates.
    pub steps: u64,
    /// Tokens of an update, about; sequences of a network that does not answer tokens count theirs too.
    pub tokens: usize,
    /// Highest learning rate, in units of codes; it goes down to 0 as a cosine.
    pub learning_rate: f32,
    /// Of the products of training.
    pub precision: Precision,
    /// Of the order of the text.
    pub seed: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { steps: 300, tokens: 1024, learning_rate: 0.003, precision: Precision::Bf16, seed: 0 }
    }
}

/// What training did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuned {
    /// Matrices whose codes and scales were trained; those of other formats stayed as they were rounded.
    pub matrices: usize,
    /// Loss before, on the end of the text, which is not trained on: the mean divergence of the answers from those in full precision,
    /// nats, or the squared distance. A text of less than ten passes is measured as a whole.
    pub before: f64,
    /// The same afterwards.
    pub after: f64,
}

impl Tuned {
    /// Whether training was of use; what was rounded is kept otherwise.
    pub fn is_better(&self) -> bool {
        self.after < self.before
    }
}

/// Trains what a network was quantized to, to answer as the network in full precision does: KL divergence of the answers to the
/// sequences of some batches, or squared distance of values. Where that is not smaller afterwards, on text that was held back, the network
/// stays as it was. The result depends on the arguments and not on the number of threads.
/// `progress` is told updates done, all, and the loss of the last.
///
/// # Errors
/// When the memory does not suffice, nothing is in a format of integers in groups, inputs of products are rotated, the loss is not
/// finite, or the work is to end.
pub fn tune(
    teacher: &Checkpoint,
    quantized: Quantized,
    batches: &[Batch],
    tuning: &Tuning,
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64, u64, f64),
) -> Result<(Quantized, Tuned), Error> {
    tuning.validate()?;
    let config = tuning.config();
    tuning.need(teacher, batches).check()?;
    let mut session = Session::new(teacher, quantized.clone(), tuning.precision, cpu)?;
    let mut pieces: Vec<Batch> = batches.iter().flat_map(|batch| batch.pieces(PASS)).collect();
    let held = match (pieces.len() / 10).min(HELD) {
        0 => pieces.clone(),
        held => pieces.split_off(pieces.len() - held),
    };
    let before = session.evaluate(&held, cpu)?;
    let (mut order, mut position) = (Order::new(tuning.seed, pieces.len()), 0);
    for step in 0..tuning.steps {
        let (mut rows, mut parts, mut tokens) = (Vec::new(), Vec::new(), 0);
        while tokens < tuning.tokens.max(1) {
            order.rows(position, 1, &mut rows);
            position += 1;
            parts.push(&pieces[rows[0]]);
            tokens += pieces[rows[0]].tokens.len();
        }
        let loss = session.gradients(&parts, hash(&[tuning.seed, DROPOUT, step]), cpu)?;
        if !loss.is_finite() {
            return Err(Error::numeric(format!(
                "update {}: the divergence from full precision is {loss}, not a finite number",
                step + 1
            )));
        }
        session.update(&config, step, config.rate(step, tuning.steps));
        progress(step + 1, tuning.steps, loss);
    }
    let tuned = Tuned { matrices: session.grids.len(), before, after: session.evaluate(&held, cpu)? };
    let chosen = if tuned.is_better() { session.quantized(teacher)? } else { quantized };
    Ok((chosen, tuned))
}

impl Tuning {
    /// Sees that all is in range.
    ///
    /// # Errors
    /// Of kind usage, naming field, value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        if self.steps == 0 {
            return Err(out_of_range("steps", 0, "at least 1"));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return Err(out_of_range("learning_rate", self.learning_rate, "above 0, at most 1"));
        }
        Ok(())
    }

    /// Tokens that all updates read, about.
    pub fn reads(&self) -> usize {
        (self.steps as usize).saturating_mul(self.tokens)
    }

    fn config(&self) -> TrainConfig {
        TrainConfig {
            steps: Some(self.steps),
            optimizer: Optimizer::Adamw,
            learning_rate: self.learning_rate,
            schedule: Schedule::Cosine,
            warmup_steps: (self.steps as f64 * WARMUP).ceil() as u64,
            beta1: 0.9,
            beta2: 0.95,
            // Gradients of weights are far smaller than usual: the loss is a mean over tokens.
            epsilon: 1e-20,
            weight_decay: 0.0,
            ..TrainConfig::default()
        }
    }

    /// Memory that [`tune`] takes: codes, gradients, moments and rounded weights, the network in full precision, and a pass.
    fn need(&self, teacher: &Checkpoint, batches: &[Batch]) -> Footprint {
        let parameters = teacher.parameters();
        let longest = batches.iter().flat_map(|batch| batch.cu_seqlens.windows(2)).map(|span| span[1] - span[0]).max();
        let tokens = PASS.max(longest.unwrap_or(0));
        // Logits of both, their gradient, and the softmax of both.
        let logits = 5 * 4 * tokens as u64 * parameters.params().iter().map(|spec| spec.rows as u64).max().unwrap_or(0);
        Footprint::new("take a smaller network, or another --method")
            .and("codes, gradients, moments and rounded weights", parameters.count() * 4 * 5)
            .and("the network in full precision", parameters.bytes(teacher.recipe()).unwrap_or(0))
            .and("activations", parameters.recorded_bytes(tokens, tokens, false) + logits)
    }
}

/// A quantized network in training.
struct Session {
    student: Network,
    teacher: Network,
    optimizer: OptimizerState,
    output: OutputKind,
    /// How inputs of each matrix are given, by its name.
    activations: BTreeMap<String, ActivationPrecision>,
    /// Matrices in training.
    grids: Vec<ParamId>,
}

impl Session {
    fn new(teacher: &Checkpoint, quantized: Quantized, precision: Precision, cpu: &Cpu) -> Result<Self, Error> {
        let config = &teacher.model_config().config;
        let mut codes = Codes {
            teacher,
            quantized,
            cpu,
            params: Params::default(),
            activations: BTreeMap::new(),
            grids: Vec::new(),
        };
        let model = Model::build(config, &mut codes)?;
        let Codes { params, activations, grids, .. } = codes;
        if grids.is_empty() {
            let text = "no matrix is in a format of integers in groups, whose codes are trained";
            return Err(Error::usage(format!("{text}: take a recipe such as int3_g64")));
        }
        let optimizer = OptimizerState::new(&params);
        let mut student = Network::of(model, Tape::new(cpu, params, None));
        student.set_precision(precision);
        let mut stored = Stored { checkpoint: teacher, params: Params::default() };
        let model = Model::build(config, &mut stored)?;
        let teacher = Network::of(model, Tape::new(cpu, stored.params, None));
        Ok(Session { student, teacher, optimizer, output: config.output(), activations, grids })
    }

    /// Rows of answers to some passes.
    fn rows<'b>(&self, parts: impl IntoIterator<Item = &'b Batch>) -> usize {
        let is_language = self.output == OutputKind::Tokens;
        parts.into_iter().map(|batch| if is_language { batch.tokens.len() } else { batch.sequences() }).sum()
    }

    /// Adds up the gradients of an update; returns the loss.
    fn gradients(&mut self, parts: &[&Batch], seed: u64, cpu: &Cpu) -> Result<f64, Error> {
        let (rows, mut loss) = (self.rows(parts.iter().copied()), 0.0);
        for (at, batch) in parts.iter().enumerate() {
            cpu.stop.check()?;
            loss += self.pass(batch, Pass::Train(hash(&[seed, at as u64])), 1.0 / rows as f32);
            self.student.backward();
        }
        Ok(loss / rows as f64)
    }

    /// The loss over some passes.
    fn evaluate(&mut self, parts: &[Batch], cpu: &Cpu) -> Result<f64, Error> {
        let mut loss = 0.0;
        for batch in parts {
            cpu.stop.check()?;
            loss += self.pass(batch, Pass::Evaluate, 0.0);
        }
        Ok(loss / self.rows(parts) as f64)
    }

    /// Runs both networks, seeds the backward pass with `scale` times the gradient of the sum of losses over rows, and returns that.
    fn pass(&mut self, batch: &Batch, pass: Pass, scale: f32) -> f64 {
        let taught = self.teacher.forward(batch, Pass::Evaluate);
        let answers = self.teacher.tape.value(&taught);
        drop(taught);
        let output = self.student.forward(batch, pass);
        self.loss(&output, &answers, scale)
    }

    fn loss(&mut self, output: &Tensor, answers: &[f32], scale: f32) -> f64 {
        let tape = &mut self.student.tape;
        match self.output {
            OutputKind::Tokens | OutputKind::Classes(_) => {
                tape.distill_logits(output, answers, &vec![0; output.rows()], 1.0, scale)
            }
            OutputKind::Value | OutputKind::Embedding { .. } => tape.squared_error(output, answers, scale),
        }
    }

    fn update(&mut self, config: &TrainConfig, step: u64, rate: f32) {
        update((&mut self.student.tape, &self.grids), &mut self.optimizer, config, step, rate);
    }

    /// The network as it is stored.
    fn quantized(mut self, teacher: &Checkpoint) -> Result<Quantized, Error> {
        let cpu = self.student.tape.cpu.clone();
        let params = &mut self.student.tape.params;
        let mut all = BTreeMap::new();
        for id in params.ids().collect::<Vec<_>>() {
            // Holds codes within reach.
            drop(params.effective(&cpu, id, None));
            let param = params.get(id);
            let (spec, name) = (&param.spec, param.spec.name.clone());
            let made = match self.activations.get(&name) {
                None => Param::Vector(param.values().into_owned()),
                Some(activations) => {
                    let packed = match (&param.grid, &param.weight) {
                        (Some(grid), _) => {
                            let packed = grid.pack(param.master().unwrap_or_default());
                            packed.map_err(|e| {
                                Error::numeric(format!("{}: tensor `{name}`: {e}", teacher.path().display()))
                            })?
                        }
                        (None, crate::Weight::Frozen(packed)) => packed.clone(),
                        (None, crate::Weight::Master(_)) => unreachable!("matrices are packed"),
                    };
                    let (role, activations) = (spec.role, *activations);
                    Param::Matrix { name: name.as_str().into(), role, packed, activations, rotated: false }
                }
            };
            all.insert(name, made);
        }
        Ok(all.into())
    }
}

/// One update, counted from 0: scales and offsets of some matrices by the gradients of their weights, then codes and vectors.
fn update(
    (tape, grids): (&mut Tape, &[ParamId]),
    optimizer: &mut OptimizerState,
    config: &TrainConfig,
    step: u64,
    rate: f32,
) {
    let TrainConfig { beta1, beta2, epsilon, .. } = *config;
    for id in grids {
        let param = tape.params.get_mut(*id);
        let Some(gradient) = tape.gradients_of_params.get_mut(*id) else { continue };
        let mut grid = param.grid.take().expect("a matrix in training");
        let adam = Adam { rate, beta1, beta2, epsilon, step: step + 1 };
        grid.learn(&tape.cpu, param.master().unwrap_or_default(), gradient, adam);
        param.grid = Some(grid);
    }
    optimizer.update(tape, config, step, rate, 1.0);
}

/// Parameters of a quantized network as they are trained.
struct Codes<'a> {
    teacher: &'a Checkpoint,
    quantized: Quantized,
    cpu: &'a Cpu,
    params: Params,
    activations: BTreeMap<String, ActivationPrecision>,
    grids: Vec<ParamId>,
}

impl Source<ParamId> for Codes<'_> {
    fn param(&mut self, spec: &ParamSpec) -> Result<ParamId, Error> {
        self.cpu.stop.check()?;
        match self.quantized.param(spec)? {
            Param::Vector(values) => {
                let size = values.iter().map(|value| value.abs()).sum::<f32>() / values.len().max(1) as f32;
                let id = self.params.push(spec.clone(), values);
                let param = self.params.get_mut(id);
                param.rate = VECTORS * size;
                param.trained = spec.role != Role::Statistics;
                Ok(id)
            }
            Param::Matrix { rotated: true, .. } => {
                let text = "a recipe with rotate=hadamard is not trained: leave `rotate` out, or take another --method";
                Err(Error::usage(text))
            }
            Param::Matrix { packed, activations, .. } => {
                let id = match Grid::of(&packed, &self.quantized.master(self.teacher, spec)?) {
                    Some((grid, latents)) => {
                        let id = self.params.push(spec.clone(), latents);
                        self.params.get_mut(id).grid = Some(Box::new(grid));
                        self.grids.push(id);
                        id
                    }
                    None => self.params.push_frozen(spec.clone(), packed),
                };
                self.activations.insert(spec.name.clone(), activations);
                Ok(id)
            }
        }
    }
}

/// Parameters of a checkpoint as they are stored.
struct Stored<'a> {
    checkpoint: &'a Checkpoint,
    params: Params,
}

impl Source<ParamId> for Stored<'_> {
    fn param(&mut self, spec: &ParamSpec) -> Result<ParamId, Error> {
        match spec.role.is_vector() {
            true => Ok(self.params.push(spec.clone(), self.checkpoint.master(spec)?)),
            false => Ok(self.params.push_frozen(spec.clone(), self.checkpoint.packed(spec)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use lowbit_kernels::format;
    use lowbit_model::exec::Exec;
    use lowbit_model::source::Init;
    use serde_json::Value;

    fn floats(value: &Value) -> Vec<f32> {
        serde_json::from_value(value.clone()).expect("numbers")
    }

    /// Least squares of the outputs of one matrix: codes, scales and offsets beside those of PyTorch (`tools/golden/tuning.py`).
    #[test]
    fn updates_are_those_of_pytorch() {
        let golden: Value = serde_json::from_str(include_str!("../tests/golden_tuning.json")).expect("JSON");
        let number = |name: &str| golden[name].as_u64().expect("a number") as usize;
        let (rows, cols, tokens) = (number("rows"), number("cols"), number("tokens"));
        let (inputs, wanted, weights) =
            (floats(&golden["inputs"]), floats(&golden["wanted"]), floats(&golden["weights"]));
        let grouped = format::find("q4_1").expect("listed").grouped().expect("groups");
        let codes: Vec<u8> = serde_json::from_value(golden["codes"].clone()).expect("codes");
        let groups = floats(&golden["scales"]).into_iter().zip(floats(&golden["offsets"]));
        let spans: Vec<_> = groups.map(|(s, o)| grouped.scales(f16::from_f32(s), f16::from_f32(o), &[])).collect();
        let packed = grouped.pack(rows, cols, &codes, &spans).expect("packs");
        let (grid, latents) = Grid::of(&packed, &weights).expect("gives its codes back");
        let spec =
            ParamSpec { name: "matrix".into(), rows, cols, role: Role::Body, init: Init::Constant(0.0), positions: 1 };
        let mut params = Params::default();
        let id = params.push(spec, latents);
        params.get_mut(id).grid = Some(Box::new(grid));
        let (mut optimizer, cpu) = (OptimizerState::new(&params), Cpu::new(None, Some(2)).expect("a CPU"));
        let mut tape = Tape::new(&cpu, params, None);
        let config =
            Tuning { learning_rate: golden["rate"].as_f64().expect("a rate") as f32, ..Tuning::default() }.config();
        for (step, want) in golden["steps"].as_array().expect("a list").iter().enumerate() {
            let mut batch = Batch::default();
            inputs.chunks_exact(cols).for_each(|row| batch.push_features(row.iter().copied()));
            assert_eq!(batch.sequences(), tokens);
            tape.begin(&batch, Pass::Train(0));
            let x = tape.features(cols);
            let y = tape.linear(&x, &id, None);
            let loss = tape.squared_error(&y, &wanted, 1.0 / tokens as f32) / tokens as f64;
            let told = want["loss"].as_f64().expect("a loss");
            assert!((loss - told).abs() < 1e-4 * told, "update {step}: {loss}, not {told}");
            tape.backward();
            update((&mut tape, &[id]), &mut optimizer, &config, step as u64, config.learning_rate);
            let found = tape.params.effective(&cpu, id, None);
            let want = floats(&want["weights"]);
            let wrong = found.iter().zip(&want).position(|(a, b)| (a - b).abs() > 1e-3 * b.abs() + 1e-5);
            assert_eq!(wrong, None, "update {step}: {found:?}, not {want:?}");
        }
    }
}
