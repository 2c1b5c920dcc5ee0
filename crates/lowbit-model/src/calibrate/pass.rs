//! The interpreter that quantizes: one forward pass over all calibration tokens, in which each matrix is rounded when its inputs are
//! there. Its outputs are those of the rounded weights, so that later matrices make up for the errors of earlier ones, and the
//! full-precision weights of one matrix at a time are in memory.

use super::Method;
use super::hessian::{Factor, Hessian, Order, cross, evened, weighted};
use super::levels::{self, Known};
use super::masters::{self, Fold, Masters};
use super::observe::InputStats;
use crate::cpu::Tensor;
use crate::exec::{Activation, Attention, Batch, BatchNorm, Exec, Index, NormKind, Pooling, Window, WindowPooling};
use crate::recipe::{self, ActivationPrecision};
use crate::rotation;
use crate::source::{ParamSpec, Source};
use crate::{Checkpoint, CpuExec, Error, Param, Recipe};
use lowbit_kernels::{Activations, Cpu, Format, Mat, Packed, QuantizeOptions, gemm};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Tokens over which the error of outputs is measured.
const SAMPLE: usize = 256;
/// Windows of images that stand for all of a convolution: a Hessian of `n` columns is settled by a few times `n` of them.
const WINDOWS: usize = 1 << 13;
/// The share of earlier errors that a matrix makes up for: all would be fitted to the calibration tokens (QEP, arXiv 2504.09629).
const SHARE: f32 = 0.5;

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

/// An activation of the rounded network, and the same in full precision where a method follows it.
#[derive(Clone)]
pub(super) struct Both {
    rounded: Tensor,
    exact: Option<Tensor>,
}

/// An activation.
#[derive(Clone)]
pub(super) enum Value {
    Made(Both),
    /// A product that waits for what it is added to: its matrix can make up for the errors there.
    Product(Rc<Product>),
}

pub(super) struct Product {
    x: Both,
    weight: ParamSpec,
    bias: Option<ParamSpec>,
    /// Once it is computed.
    made: OnceCell<Both>,
}

/// Quantized parameters, ready to be written.
pub(super) struct Pass<'a> {
    masters: &'a Masters<'a>,
    recipe: &'static Recipe,
    method: &'a Method,
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
    /// The damped Hessian, `[cols, cols]`, where codes are learned.
    hessian: Option<Vec<f32>>,
    /// Mean of what full precision would have them be more, times them: `[cols, cols]`, where that is known.
    drift: Option<Vec<f32>>,
}

impl Inputs {
    /// Mean square of each feature of inputs `[tokens, cols]`, no token being larger than the median one.
    fn importance(&self, x: &[f32]) -> Vec<f32> {
        let cols = x.len() / self.evened.len().max(1);
        let mut stats = InputStats::new(cols);
        stats.record(&weighted(x, cols, &self.evened));
        stats.mean_squares()
    }

    /// Moves weights, `[rows, cols]`, by a share of what makes up for the errors of inputs `[tokens, cols]`, and of what outputs are
    /// added to, as far as a linear function of the inputs can: least squares.
    fn correct(&self, cpu: &Cpu, weights: &mut [f32], x: &[f32], residual: Option<&Both>) {
        let (Some(drift), Some(factor)) = (&self.drift, &self.factor) else { return };
        let cols = factor.cols();
        let rows = weights.len() / cols;
        let mut moves = vec![0.0; weights.len()];
        gemm(cpu, rows, cols, cols, Mat::new(weights, cols), Mat::new(drift, cols), false, &mut moves);
        if let Some(Both { rounded, exact: Some(exact) }) = residual {
            let missing = less(exact, rounded.values());
            let missing = cross(cpu, (&missing, rows), (x, cols), &self.evened);
            moves.iter_mut().zip(missing).for_each(|(sum, missing)| *sum += missing);
        }
        factor.solve(cpu, &mut moves);
        weights.iter_mut().zip(moves).for_each(|(weight, by)| *weight += SHARE * by);
    }
}

/// A tensor less values of its shape.
fn less(a: &Tensor, b: &[f32]) -> Vec<f32> {
    a.values().iter().zip(b).map(|(a, b)| a - b).collect()
}

impl<'a> Pass<'a> {
    /// A pass under a recipe by a method; `progress` is told how many matrices are done.
    pub fn new(
        masters: &'a Masters<'a>,
        recipe: &'static Recipe,
        method: &'a Method,
        cpu: Cpu,
        progress: &'a mut dyn FnMut(usize),
    ) -> Self {
        Pass {
            masters,
            recipe,
            method,
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

    /// Rounds the matrix of a product with its inputs and what the product is added to; `false` once something went wrong.
    fn round(&mut self, spec: &ParamSpec, x: &Both, residual: Option<&Both>) -> bool {
        let done = |name: &str| self.rounded.iter().any(|rounded| rounded.name == name);
        if self.fault.is_some() || done(&spec.name) {
            return self.fault.is_none();
        }
        match self.rounded_matrix(spec, x, residual) {
            Ok((param, rounded)) => {
                self.params.insert(spec.name.clone(), param);
                self.rounded.push(rounded);
                (self.progress)(self.rounded.len());
            }
            Err(fault) => self.fault = Some(fault),
        }
        self.fault.is_none()
    }

    fn rounded_matrix(
        &mut self,
        spec: &ParamSpec,
        x: &Both,
        residual: Option<&Both>,
    ) -> Result<(Param, Rounded), Error> {
        let cpu = self.exec.cpu().clone();
        cpu.stop.check()?;
        let format = self.recipe.format_of(spec)?.expect("matrices have a format");
        let mut weights = self.masters.read(spec)?;
        let mut x = x.clone();
        if self.recipe.rotates(spec) {
            rotation::hadamard(cpu.isa, &mut weights, spec.cols);
            x = Both { exact: x.exact.map(|x| self.exec.rotated(&x)), rounded: self.exec.rotated(&x.rounded) };
        }
        let gptq = self.method.gptq && levels::takes(format);
        let inputs = self.inputs_of(spec, &x, gptq)?;
        let x = x.rounded.values();
        let done = match &inputs.factor {
            Some(factor) if gptq => {
                inputs.correct(&cpu, &mut weights, x, residual);
                let known = Known { factor, hessian: inputs.hessian.as_deref() };
                levels::round(format, &cpu, &weights, &known, Order::Activations)
            }
            _ => None,
        };
        let packed = match done {
            Some(packed) => packed.map_err(|e| self.masters.checkpoint.fault(spec, &e))?,
            None => {
                let importance = format.grouped().map(|_| inputs.importance(x));
                let outlier_columns = inputs.stats.outliers();
                self.pack(
                    spec,
                    &weights,
                    format,
                    &QuantizeOptions { outlier_columns, importance, ..Default::default() },
                )?
            }
        };
        let error = output_error(&cpu, x, &weights, &packed);
        self.inputs = Some(inputs);
        Ok((self.matrix(spec, packed), Rounded { name: spec.name.clone(), gptq, error }))
    }

    /// What is known of the inputs of a product: products of the same inputs share it.
    fn inputs_of(&mut self, spec: &ParamSpec, x: &Both, factor: bool) -> Result<Inputs, Error> {
        let (stamp, exact, x) = (x.rounded.stamp(), &x.exact, x.rounded.values());
        let mut inputs = match self.inputs.take() {
            Some(inputs) if inputs.stamp == stamp => inputs,
            _ => {
                let mut stats = InputStats::new(spec.cols);
                stats.record(x);
                Inputs { stamp, stats, evened: evened(x, spec.cols), factor: None, hessian: None, drift: None }
            }
        };
        if factor && inputs.factor.is_none() {
            let cpu = self.exec.cpu();
            let hessian = Hessian::new(cpu, x, spec.cols, &inputs.evened);
            let text = || format!("the inputs of `{}` on the calibration text are not finite", spec.name);
            let factor = hessian.factor(cpu, Order::Activations).ok_or_else(|| Error::numeric(text()))?;
            inputs.hessian = self.method.learned.then(|| hessian.damped(factor.damping));
            inputs.factor = Some(factor);
            inputs.drift = exact.as_ref().map(|exact| {
                let more = less(exact, x);
                cross(cpu, (&more, spec.cols), (x, spec.cols), &inputs.evened)
            });
        }
        Ok(inputs)
    }

    /// A matrix as it is in full precision; none once something went wrong.
    fn exact(&mut self, spec: &ParamSpec) -> Option<Param> {
        let read = || {
            let format = recipe::find("f32")?.format_of(spec)?.expect("matrices have a format");
            self.pack(spec, &self.masters.read(spec)?, format, &QuantizeOptions::default())
        };
        let packed = read().map_err(|fault| self.fault = Some(fault)).ok()?;
        let activations = ActivationPrecision::F32;
        Some(Param::Matrix { name: spec.name.as_str().into(), role: spec.role, packed, activations, rotated: false })
    }

    /// An activation that is there: a product is computed.
    fn made(&mut self, value: &Value) -> Both {
        match value {
            Value::Made(made) => made.clone(),
            Value::Product(product) => self.product(product, None),
        }
    }

    /// Computes a product, its matrix being rounded before: `residual` is what it is added to.
    fn product(&mut self, product: &Product, residual: Option<&Both>) -> Both {
        let Product { x, weight, bias, made } = product;
        if let Some(made) = made.get() {
            return made.clone();
        }
        let ready = self.round(weight, x, residual);
        let shape = [x.rounded.rows(), weight.rows];
        let run = |exec: &mut CpuExec, x: &Tensor, weight: &Param, bias: Option<&Param>| exec.linear(x, weight, bias);
        let product = self.multiply(ready, x, (weight, bias.as_ref()), shape, run);
        made.get_or_init(|| product).clone()
    }

    /// Runs an operation with a matrix that is rounded if `ready`, and with the same matrix in full precision; zeros once something went
    /// wrong.
    fn multiply(
        &mut self,
        ready: bool,
        x: &Both,
        (weight, bias): (&ParamSpec, Option<&ParamSpec>),
        [rows, width]: [usize; 2],
        run: impl Fn(&mut CpuExec, &Tensor, &Param, Option<&Param>) -> Tensor,
    ) -> Both {
        let ready = ready && bias.is_none_or(|bias| self.load(bias));
        let exact = x.exact.as_ref().filter(|_| ready).and_then(|x| Some((x, self.exact(weight)?)));
        if self.fault.is_some() {
            return Both { rounded: self.exec.blank(rows, width), exact: None };
        }
        let bias = bias.map(|bias| &self.params[&bias.name]);
        let rounded = run(&mut self.exec, &x.rounded, &self.params[&weight.name], bias);
        let exact = exact.map(|(x, weight)| run(&mut self.exec, x, &weight, bias));
        Both { rounded, exact }
    }

    /// Runs an operation on activations with vectors that are there; zeros, `[tokens, width]`, once something went wrong.
    fn run_on(
        &mut self,
        values: &[&Value],
        vectors: &[&ParamSpec],
        run: impl Fn(&mut CpuExec, &[&Tensor], &[&Param]) -> Tensor,
    ) -> Value {
        let made: Vec<Both> = values.iter().map(|value| self.made(value)).collect();
        let rounded: Vec<&Tensor> = made.iter().map(|both| &both.rounded).collect();
        if !vectors.iter().all(|spec| self.load(spec)) {
            let (rows, width) = (rounded[0].rows(), rounded[0].width());
            return Value::Made(Both { rounded: self.exec.blank(rows, width), exact: None });
        }
        let params: Vec<&Param> = vectors.iter().map(|spec| &self.params[&spec.name]).collect();
        let exact: Option<Vec<&Tensor>> = made.iter().map(|both| both.exact.as_ref()).collect();
        let exact = exact.map(|exact| run(&mut self.exec, &exact, &params));
        Value::Made(Both { rounded: run(&mut self.exec, &rounded, &params), exact })
    }

    fn forced(&mut self, value: &Value) -> Both {
        let both = self.made(value);
        Both { rounded: self.exec.force(&both.rounded), exact: both.exact.map(|exact| self.exec.force(&exact)) }
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
    type Tensor = Value;
    type Param = ParamSpec;

    fn embed(&mut self, table: &ParamSpec, index: Index) -> Value {
        let rows = self.exec.tokens();
        let exact = match self.load(table) && self.method.learned {
            true => self.exact(table).map(|exact| self.exec.embed(&exact, index)),
            false => None,
        };
        let rounded = match self.fault {
            Some(_) => self.exec.blank(rows, table.cols),
            None => self.exec.embed(&self.params[&table.name], index),
        };
        Value::Made(Both { rounded, exact })
    }

    fn features(&mut self, width: usize) -> Value {
        let rounded = self.exec.features(width);
        let exact = self.method.learned.then(|| rounded.clone());
        Value::Made(Both { rounded, exact })
    }

    fn linear(&mut self, x: &Value, weight: &ParamSpec, bias: Option<&ParamSpec>) -> Value {
        let x = self.forced(x);
        Value::Product(Rc::new(Product { x, weight: weight.clone(), bias: bias.cloned(), made: OnceCell::new() }))
    }

    /// Logits are not computed: nothing reads them.
    fn logits(&mut self, x: &Value, weight: &ParamSpec, _: Option<&ParamSpec>) -> Value {
        let x = self.forced(x);
        self.round(weight, &x, None);
        Value::Made(Both { rounded: self.exec.blank(0, weight.rows), exact: None })
    }

    fn norm(&mut self, x: &Value, kind: NormKind, weight: &ParamSpec, bias: Option<&ParamSpec>, eps: f32) -> Value {
        let specs: Vec<&ParamSpec> = [Some(weight), bias].into_iter().flatten().collect();
        self.run_on(&[x], &specs, |exec, x, params| exec.norm(x[0], kind, params[0], params.get(1).copied(), eps))
    }

    fn conv(&mut self, x: &Value, weight: &ParamSpec, bias: Option<&ParamSpec>, window: &Window) -> Value {
        let x = self.forced(x);
        let shape = [window.images(x.rounded.values().len()) * window.pixels(), weight.rows];
        let mut sampled = |x: &Tensor| self.exec.sampled_windows(x, window, WINDOWS);
        let windows = Both { rounded: sampled(&x.rounded), exact: x.exact.as_ref().map(sampled) };
        let ready = self.round(weight, &windows, None);
        drop(windows);
        let made =
            self.multiply(ready, &x, (weight, bias), shape, |exec, x, weight, bias| exec.conv(x, weight, bias, window));
        Value::Made(made)
    }

    fn batch_norm(&mut self, x: &Value, norm: &BatchNorm<ParamSpec>) -> Value {
        self.run_on(&[x], &norm.params(), |exec, x, params| {
            let [weight, bias, mean, variance] = [0, 1, 2, 3].map(|i: usize| params[i].clone());
            let BatchNorm { eps, momentum, .. } = *norm;
            exec.batch_norm(x[0], &BatchNorm { weight, bias, mean, variance, eps, momentum })
        })
    }

    fn pool_windows(&mut self, x: &Value, how: WindowPooling, window: &Window) -> Value {
        self.run_on(&[x], &[], |exec, x, _| exec.pool_windows(x[0], how, window))
    }

    fn attend(&mut self, q: &Value, k: &Value, v: &Value, spec: &Attention) -> Value {
        self.run_on(&[q, k, v], &[], |exec, x, _| exec.attend(x[0], x[1], x[2], spec))
    }

    fn activate(&mut self, x: &Value, f: Activation) -> Value {
        self.run_on(&[x], &[], |exec, x, _| exec.activate(x[0], f))
    }

    fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.run_on(&[a, b], &[], |exec, x, _| exec.mul(x[0], x[1]))
    }

    fn add(&mut self, a: &Value, b: &Value) -> Value {
        let (first, last) = if matches!(a, Value::Product(_)) { (b, a) } else { (a, b) };
        let residual = self.made(first);
        let sum = match last {
            Value::Product(product) => self.product(product, Some(&residual)),
            Value::Made(made) => made.clone(),
        };
        let [first, last] = [residual, sum].map(Value::Made);
        let (a, b) = if matches!(a, Value::Product(_)) { (last, first) } else { (first, last) };
        self.run_on(&[&a, &b], &[], |exec, x, _| exec.add(x[0], x[1]))
    }

    fn pool(&mut self, x: &Value, how: Pooling) -> Value {
        self.run_on(&[x], &[], |exec, x, _| exec.pool(x[0], how))
    }

    fn dropout(&mut self, x: &Value, _: f32) -> Value {
        x.clone()
    }
}

/// Quantized parameters by their names.
#[derive(Clone, Default)]
pub struct Quantized {
    pub(super) params: BTreeMap<String, Param>,
    /// Factors of parameters before they were rounded.
    pub(super) folds: BTreeMap<String, Fold>,
}

impl Quantized {
    /// The values of a parameter before it was rounded, `[rows, cols]`: those of the masters with scales of channels folded in.
    ///
    /// # Errors
    /// As [`Checkpoint::master`].
    pub fn master(&self, checkpoint: &Checkpoint, spec: &ParamSpec) -> Result<Vec<f32>, Error> {
        masters::read(checkpoint, &self.folds, spec)
    }
}

impl From<BTreeMap<String, Param>> for Quantized {
    fn from(params: BTreeMap<String, Param>) -> Self {
        Quantized { params, folds: BTreeMap::new() }
    }
}

impl Source<Param> for Quantized {
    /// Gives each parameter once.
    fn param(&mut self, spec: &ParamSpec) -> Result<Param, Error> {
        let missing = || Error::usage(format!("parameter `{}` was not quantized", spec.name));
        self.params.remove(&spec.name).ok_or_else(missing)
    }
}
