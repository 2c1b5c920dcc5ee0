//! The interpreter that quantizes: one forward pass over all calibration tokens, in which each matrix is rounded when its inputs are
//! there. Its outputs are those of the rounded weights, so that later matrices make up for the errors of earlier ones, and the
//! full-precision weights of one matrix at a time are in memory.

use super::hessian::{Factor, Hessian, Order, evened, weighted};
use super::levels;
use super::masters::Masters;
use super::observe::InputStats;
use crate::cpu::Tensor;
use crate::exec::{Activation, Attention, Batch, BatchNorm, Exec, Index, NormKind, Pooling, Window, WindowPooling};
use crate::rotation;
use crate::source::{ParamSpec, Source};
use crate::{CpuExec, Error, Param, Recipe};
use lowbit_kernels::{Activations, Cpu, Format, Mat, Packed, QuantizeOptions, gemm};
use std::collections::BTreeMap;

/// Tokens over which the error of outputs is measured.
const SAMPLE: usize = 256;
/// Windows of images that stand for all of a convolution: a Hessian of `n` columns is settled by a few times `n` of them.
const WINDOWS: usize = 1 << 13;

/// How one matrix was rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// Its name.
    pub name: String,
    /// Whether by GPTQ, else to nearest.
    pub gptq: bool,
    /// Mean over calibration tokens of the squared error of its outputs as a share of their squares.
    pub error: f64,
}

/// Quantized parameters, ready to be written.
pub(super) struct Pass<'a> {
    masters: &'a Masters<'a>,
    recipe: &'static Recipe,
    gptq: bool,
    order: Order,
    exec: CpuExec,
    params: BTreeMap<String, Param>,
    /// What the last matrix read: the stamp of the tensor, its Hessian's factor, and its statistics.
    inputs: Option<Inputs>,
    rounded: Vec<Rounded>,
    progress: &'a mut dyn FnMut(usize),
    fault: Option<Error>,
}

struct Inputs {
    stamp: u64,
    stats: InputStats,
    /// Factors of the tokens.
    evened: Vec<f32>,
    factor: Option<Factor>,
}

impl Inputs {
    /// Mean square of each feature of inputs `[tokens, cols]`, no token being larger than the median one.
    fn importance(&self, x: &[f32]) -> Vec<f32> {
        let cols = x.len() / self.evened.len().max(1);
        let mut stats = InputStats::new(cols);
        stats.record(&weighted(x, cols, &self.evened));
        stats.mean_squares()
    }
}

impl<'a> Pass<'a> {
    /// A pass under a recipe, by GPTQ or by rounding to nearest; `progress` is told how many matrices are done.
    pub fn new(
        masters: &'a Masters<'a>,
        recipe: &'static Recipe,
        order: Option<Order>,
        cpu: Cpu,
        progress: &'a mut dyn FnMut(usize),
    ) -> Self {
        Pass {
            masters,
            recipe,
            gptq: order.is_some(),
            order: order.unwrap_or(Order::Columns),
            exec: CpuExec::new(cpu),
            params: BTreeMap::new(),
            inputs: None,
            rounded: Vec::new(),
            progress,
            fault: None,
        }
    }

    /// Runs all sequences, and gives the parameters and how each matrix was rounded.
    ///
    /// # Errors
    /// When a sequence does not fit the network, masters cannot be read, inputs are not finite, or the work is to end.
    pub fn run(mut self, batch: &Batch) -> Result<(BTreeMap<String, Param>, Vec<Rounded>), Error> {
        self.exec.begin(batch)?;
        let parameters = self.masters.checkpoint.parameters();
        parameters.model().forward(&mut self);
        self.exec.end()?;
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        // Those that no operation asked for.
        for spec in parameters.params() {
            if !self.params.contains_key(&spec.name) {
                let param = self.nearest(spec)?;
                self.params.insert(spec.name.clone(), param);
            }
        }
        Ok((self.params, self.rounded))
    }

    /// A parameter as the recipe has it, rounded to nearest.
    fn nearest(&self, spec: &ParamSpec) -> Result<Param, Error> {
        let mut values = self.masters.read(spec)?;
        if self.recipe.rotates(spec) {
            rotation::hadamard(self.exec.cpu().isa, &mut values, spec.cols);
        }
        match self.recipe.format_of(spec)? {
            None => Ok(Param::Vector(values)),
            Some(format) => self.pack(spec, &values, format, &QuantizeOptions::default()).map(|p| self.matrix(spec, p)),
        }
    }

    fn pack(
        &self,
        spec: &ParamSpec,
        values: &[f32],
        format: &'static dyn Format,
        options: &QuantizeOptions,
    ) -> Result<Packed, Error> {
        self.masters.pack(spec, values, format, options, &self.exec.cpu().pool)
    }

    fn matrix(&self, spec: &ParamSpec, packed: Packed) -> Param {
        let activations = self.recipe.activations_of(spec);
        let rotated = self.recipe.rotates(spec);
        Param::Matrix { name: spec.name.as_str().into(), role: spec.role, packed, activations, rotated }
    }

    /// Sees that a parameter is there; `false` once something went wrong.
    fn load(&mut self, spec: &ParamSpec) -> bool {
        if self.fault.is_some() || self.params.contains_key(&spec.name) {
            return self.fault.is_none();
        }
        match self.nearest(spec) {
            Ok(param) => drop(self.params.insert(spec.name.clone(), param)),
            Err(fault) => self.fault = Some(fault),
        }
        self.fault.is_none()
    }

    /// Rounds the matrix of a product with its inputs; `false` once something went wrong.
    fn round(&mut self, spec: &ParamSpec, x: &Tensor) -> bool {
        let done = |name: &str| self.rounded.iter().any(|rounded| rounded.name == name);
        if self.fault.is_some() || done(&spec.name) {
            return self.fault.is_none();
        }
        match self.rounded_matrix(spec, x) {
            Ok((param, rounded)) => {
                self.params.insert(spec.name.clone(), param);
                self.rounded.push(rounded);
                (self.progress)(self.rounded.len());
            }
            Err(fault) => self.fault = Some(fault),
        }
        self.fault.is_none()
    }

    fn rounded_matrix(&mut self, spec: &ParamSpec, x: &Tensor) -> Result<(Param, Rounded), Error> {
        let cpu = self.exec.cpu().clone();
        cpu.stop.check()?;
        let format = self.recipe.format_of(spec)?.expect("matrices have a format");
        let mut weights = self.masters.read(spec)?;
        let rotates = self.recipe.rotates(spec);
        if rotates {
            rotation::hadamard(cpu.isa, &mut weights, spec.cols);
        }
        let x = &if rotates { self.exec.rotated(x) } else { x.clone() };
        let gptq = self.gptq && levels::takes(format);
        let inputs = self.inputs_of(spec, x, gptq)?;
        let done = match &inputs.factor {
            Some(factor) if gptq => levels::round(format, &cpu, &weights, factor, self.order),
            _ => None,
        };
        let packed = match done {
            Some(packed) => packed.map_err(|e| self.masters.checkpoint.fault(spec, &e))?,
            None => {
                let importance = format.grouped().map(|_| inputs.importance(x.values()));
                let outlier_columns = inputs.stats.outliers();
                self.pack(
                    spec,
                    &weights,
                    format,
                    &QuantizeOptions { outlier_columns, importance, ..Default::default() },
                )?
            }
        };
        let error = output_error(&cpu, x.values(), &weights, &packed);
        self.inputs = Some(inputs);
        Ok((self.matrix(spec, packed), Rounded { name: spec.name.clone(), gptq, error }))
    }

    /// What is known of the inputs of a product: products of the same inputs share it.
    fn inputs_of(&mut self, spec: &ParamSpec, x: &Tensor, factor: bool) -> Result<Inputs, Error> {
        let mut inputs = match self.inputs.take() {
            Some(inputs) if inputs.stamp == x.stamp() => inputs,
            _ => {
                let mut stats = InputStats::new(spec.cols);
                stats.record(x.values());
                Inputs { stamp: x.stamp(), stats, evened: evened(x.values(), spec.cols), factor: None }
            }
        };
        if factor && inputs.factor.is_none() {
            let cpu = self.exec.cpu();
            let factor = Hessian::new(cpu, x.values(), spec.cols, &inputs.evened).factor(cpu, self.order);
            let text = || format!("the inputs of `{}` on the calibration text are not finite", spec.name);
            inputs.factor = Some(factor.ok_or_else(|| Error::numeric(text()))?);
        }
        Ok(inputs)
    }

    /// Runs an operation with parameters that are there; zeros once something went wrong.
    fn with(
        &mut self,
        specs: &[&ParamSpec],
        [rows, width]: [usize; 2],
        run: impl FnOnce(&mut CpuExec, &[&Param]) -> Tensor,
    ) -> Tensor {
        if !specs.iter().all(|spec| self.load(spec)) {
            return self.exec.blank(rows, width);
        }
        let params: Vec<&Param> = specs.iter().map(|spec| &self.params[&spec.name]).collect();
        run(&mut self.exec, &params)
    }
}

/// Mean over some tokens of the squared error of the outputs of a rounded matrix as a share of their squares.
fn output_error(cpu: &Cpu, x: &[f32], weights: &[f32], packed: &Packed) -> f64 {
    let (rows, cols) = (packed.rows(), packed.cols());
    let tokens = x.len() / cols;
    let step = tokens.div_ceil(SAMPLE).max(1);
    let sample: Vec<f32> = x.chunks_exact(cols).step_by(step).flatten().copied().collect();
    let tokens = sample.len() / cols;
    let (mut exact, mut rounded) = (vec![0.0; tokens * rows], vec![0.0; tokens * rows]);
    gemm(cpu, tokens, rows, cols, Mat::new(&sample, cols), Mat::new(weights, cols).t(), false, &mut exact);
    packed.matmul(cpu, Activations::F32(&sample), &mut rounded);
    let square = |v: f32| f64::from(v) * f64::from(v);
    let errors = exact.chunks_exact(rows).zip(rounded.chunks_exact(rows)).map(|(exact, rounded)| {
        let all: f64 = exact.iter().map(|v| square(*v)).sum();
        let wrong: f64 = exact.iter().zip(rounded).map(|(a, b)| square(a - b)).sum();
        if all > 0.0 { wrong / all } else { 0.0 }
    });
    errors.sum::<f64>() / tokens.max(1) as f64
}

impl Exec for Pass<'_> {
    type Tensor = Tensor;
    type Param = ParamSpec;

    fn embed(&mut self, table: &ParamSpec, index: Index) -> Tensor {
        let rows = self.exec.tokens();
        self.with(&[table], [rows, table.cols], |exec, params| exec.embed(params[0], index))
    }

    fn features(&mut self, width: usize) -> Tensor {
        self.exec.features(width)
    }

    fn linear(&mut self, x: &Tensor, weight: &ParamSpec, bias: Option<&ParamSpec>) -> Tensor {
        let x = self.exec.force(x);
        if !self.round(weight, &x) {
            return self.exec.blank(x.rows(), weight.rows);
        }
        let specs: Vec<&ParamSpec> = [Some(weight), bias].into_iter().flatten().collect();
        self.with(&specs, [x.rows(), weight.rows], |exec, params| exec.linear(&x, params[0], params.get(1).copied()))
    }

    /// Logits are not computed: nothing reads them.
    fn logits(&mut self, x: &Tensor, weight: &ParamSpec, _: Option<&ParamSpec>) -> Tensor {
        let x = self.exec.force(x);
        self.round(weight, &x);
        self.exec.blank(0, weight.rows)
    }

    fn norm(&mut self, x: &Tensor, kind: NormKind, weight: &ParamSpec, bias: Option<&ParamSpec>, eps: f32) -> Tensor {
        let specs: Vec<&ParamSpec> = [Some(weight), bias].into_iter().flatten().collect();
        let shape = [x.rows(), x.width()];
        self.with(&specs, shape, |exec, params| exec.norm(x, kind, params[0], params.get(1).copied(), eps))
    }

    fn conv(&mut self, x: &Tensor, weight: &ParamSpec, bias: Option<&ParamSpec>, window: &Window) -> Tensor {
        let x = self.exec.force(x);
        let shape = [window.images(x.values().len()) * window.pixels(), weight.rows];
        let windows = self.exec.sampled_windows(&x, window, WINDOWS);
        if !self.round(weight, &windows) {
            return self.exec.blank(shape[0], shape[1]);
        }
        drop(windows);
        let specs: Vec<&ParamSpec> = [Some(weight), bias].into_iter().flatten().collect();
        self.with(&specs, shape, |exec, params| exec.conv(&x, params[0], params.get(1).copied(), window))
    }

    fn batch_norm(&mut self, x: &Tensor, norm: &BatchNorm<ParamSpec>) -> Tensor {
        self.with(&norm.params(), [x.rows(), x.width()], |exec, params| {
            let [weight, bias, mean, variance] = [0, 1, 2, 3].map(|i: usize| params[i].clone());
            let BatchNorm { eps, momentum, .. } = *norm;
            exec.batch_norm(x, &BatchNorm { weight, bias, mean, variance, eps, momentum })
        })
    }

    fn pool_windows(&mut self, x: &Tensor, how: WindowPooling, window: &Window) -> Tensor {
        self.exec.pool_windows(x, how, window)
    }

    fn attend(&mut self, q: &Tensor, k: &Tensor, v: &Tensor, spec: &Attention) -> Tensor {
        self.exec.attend(q, k, v, spec)
    }

    fn activate(&mut self, x: &Tensor, f: Activation) -> Tensor {
        self.exec.activate(x, f)
    }

    fn mul(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        self.exec.mul(a, b)
    }

    fn add(&mut self, a: &Tensor, b: &Tensor) -> Tensor {
        self.exec.add(a, b)
    }

    fn pool(&mut self, x: &Tensor, how: Pooling) -> Tensor {
        self.exec.pool(x, how)
    }

    fn dropout(&mut self, x: &Tensor, p: f32) -> Tensor {
        self.exec.dropout(x, p)
    }
}

/// Quantized parameters by their names.
pub struct Quantized(pub(super) BTreeMap<String, Param>);

impl Source<Param> for Quantized {
    /// Gives each parameter once.
    fn param(&mut self, spec: &ParamSpec) -> Result<Param, Error> {
        self.0.remove(&spec.name).ok_or_else(|| Error::usage(format!("parameter `{}` was not quantized", spec.name)))
    }
}
