//! The interpreter that quantizes: one forward pass over all calibration tokens, in which each matrix is rounded when its inputs are
//! known. Its outputs are those of the rounded weights, so that later matrices make up for the errors of earlier ones. The tokens go through
//! the network in [parts](super::parts), so that only the residual stream is in memory as a whole.

use super::Method;
use super::hessian::{self, Cross, Factor, Hessian, Order, evened, weighted};
use super::levels::{self, Known};
use super::masters::{self, Fold, Masters, Rows};
use super::observe::InputStats;
use super::parts::{self, Both, Limits, Node, Value};
use crate::cpu::Tensor;
use crate::exec::{Activation, Attention, Batch, BatchNorm, Exec, Index, NormKind, Pooling, Window, WindowPooling};
use crate::recipe::{self, ActivationPrecision};
use crate::source::{ParamSpec, Source};
use crate::{Checkpoint, CpuExec, Error, Param, Recipe};
use lowbit_kernels::{Activations, Cpu, Mat, Packed, QuantizeOptions, gemm};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

/// Tokens over which the error of outputs is measured.
const SAMPLE: usize = 256;
/// Windows of images that stand for all of a convolution: a Hessian of `n` columns is settled by a few times `n` of them.
const WINDOWS: usize = 1 << 13;
/// The share of earlier errors that a matrix makes up for: all would be fitted to the calibration tokens (QEP, arXiv 2504.09629).
const SHARE: f32 = 0.5;
/// Outputs whose errors are measured at once.
const OUTPUTS: usize = 1 << 13;

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
    pub(super) method: &'a Method,
    pub(super) exec: CpuExec,
    /// The calibration tokens, part by part.
    pub(super) parts: Vec<Batch>,
    pub(super) limits: Limits,
    pub(super) params: BTreeMap<String, Param>,
    /// Matrices in full precision, while parts are computed.
    pub(super) full: BTreeMap<String, Param>,
    /// What is known of what the last matrix read.
    inputs: Option<Inputs>,
    rounded: Vec<Rounded>,
    progress: &'a mut dyn FnMut(usize),
    fault: Option<Error>,
}

/// What is known of the inputs of a product.
struct Inputs {
    /// The activation, and whether its rows are rotated.
    of: (Weak<Node>, bool),
    stats: InputStats,
    /// Factors of the tokens.
    evened: Vec<f32>,
    /// Some tokens, `[tokens, cols]`.
    sample: Vec<f32>,
    /// Mean square of each feature, no token being larger than the median one, where formats choose their scales by it.
    importance: Option<Vec<f32>>,
    /// Of the Hessian.
    factor: Option<Factor>,
    /// The damped Hessian, `[cols, cols]`, where codes are learned.
    hessian: Option<Vec<f32>>,
    /// Mean of what full precision would have them be more, times them: `[cols, cols]`, where that is known.
    drift: Option<Vec<f32>>,
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
            parts: Vec::new(),
            limits: Limits::default(),
            params: BTreeMap::new(),
            full: BTreeMap::new(),
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
        self.parts = parts::cut(batch, &self.limits);
        let parameters = self.masters.checkpoint.parameters();
        parameters.model().forward(&mut self);
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        // Those that no operation asked for.
        for spec in parameters.params() {
            self.load(spec)?;
        }
        Ok((self.params, self.rounded))
    }

    /// A parameter as the recipe has it, rounded to nearest.
    fn nearest(&self, spec: &ParamSpec) -> Result<Param, Error> {
        let Some(format) = self.recipe.format_of(spec)? else { return self.masters.read(spec).map(Param::Vector) };
        let (cpu, rotates) = (self.exec.cpu(), self.recipe.rotates(spec));
        let rows = self.masters.rows(spec, rotates.then_some(cpu.isa))?;
        let packed = self.masters.pack(spec, &rows, format, &QuantizeOptions::default(), &cpu.pool)?;
        rows.release();
        Ok(self.matrix(spec, packed))
    }

    fn matrix(&self, spec: &ParamSpec, packed: Packed) -> Param {
        let activations = self.recipe.activations_of(spec);
        let rotated = self.recipe.rotates(spec);
        Param::Matrix { name: spec.name.as_str().into(), role: spec.role, packed, activations, rotated }
    }

    /// Sees that a parameter is there.
    pub(super) fn load(&mut self, spec: &ParamSpec) -> Result<(), Error> {
        if !self.params.contains_key(&spec.name) {
            let param = self.nearest(spec)?;
            self.params.insert(spec.name.clone(), param);
        }
        Ok(())
    }

    /// Sees that a parameter, if it is a matrix, is there as it is in full precision.
    pub(super) fn load_full(&mut self, spec: &ParamSpec) -> Result<(), Error> {
        let Some(format) = recipe::find("f32")?.format_of(spec)?.filter(|_| !self.full.contains_key(&spec.name)) else {
            return Ok(());
        };
        let (rows, pool) = (self.masters.rows(spec, None)?, &self.exec.cpu().pool);
        let packed = self.masters.pack(spec, &rows, format, &QuantizeOptions::default(), pool)?;
        rows.release();
        let (name, role, activations) = (spec.name.as_str().into(), spec.role, ActivationPrecision::F32);
        self.full.insert(spec.name.clone(), Param::Matrix { name, role, packed, activations, rotated: false });
        Ok(())
    }

    /// Rounds the matrix of a product by its inputs and by what the product is added to, which are ready.
    pub(super) fn round(&mut self, spec: &ParamSpec, x: &Value, residual: Option<&Value>) -> Result<(), Error> {
        if self.rounded.iter().any(|rounded| rounded.name == spec.name) {
            return Ok(());
        }
        self.hold_inputs(x, spec.cols)?;
        let (param, rounded) = self.rounded_matrix(spec, x, residual)?;
        self.params.insert(spec.name.clone(), param);
        self.rounded.push(rounded);
        (self.progress)(self.rounded.len());
        Ok(())
    }

    fn rounded_matrix(
        &mut self,
        spec: &ParamSpec,
        x: &Value,
        residual: Option<&Value>,
    ) -> Result<(Param, Rounded), Error> {
        let (masters, cpu) = (self.masters, self.exec.cpu().clone());
        cpu.stop.check()?;
        let format = self.recipe.format_of(spec)?.expect("matrices have a format");
        let gptq = self.method.gptq && levels::takes(format);
        let inputs = self.inputs_of(spec, x, gptq, format.grouped().is_some() && !gptq)?;
        let mut weights = masters.rows(spec, self.recipe.rotates(spec).then_some(cpu.isa))?;
        let done = match &inputs.factor {
            Some(factor) if gptq => {
                if let Some(drift) = &inputs.drift {
                    let values = self.corrected(spec, &weights, (x, residual), (&inputs, factor, drift))?;
                    weights.release();
                    weights = Rows::Whole(values.into(), spec.cols);
                }
                let known = Known { factor, hessian: inputs.hessian.as_deref() };
                levels::round(format, &cpu, (&weights, spec.rows), &known, &|e| masters.checkpoint.fault(spec, &e))
            }
            _ => None,
        };
        let packed = match done {
            Some(packed) => packed?,
            None => {
                let importance = inputs.importance.clone().filter(|_| format.grouped().is_some());
                let options =
                    QuantizeOptions { outlier_columns: inputs.stats.outliers(), importance, ..Default::default() };
                masters.pack(spec, &weights, format, &options, &cpu.pool)?
            }
        };
        let error = output_error(&cpu, &inputs.sample, &weights, &packed)?;
        weights.release();
        self.inputs = Some(inputs);
        Ok((self.matrix(spec, packed), Rounded { name: spec.name.clone(), gptq, error }))
    }

    /// What is known of the inputs of a product: products of the same inputs share it.
    fn inputs_of(&mut self, spec: &ParamSpec, x: &Value, factor: bool, importance: bool) -> Result<Inputs, Error> {
        let of = (Rc::downgrade(x), self.recipe.rotates(spec));
        let same = |inputs: &Inputs| inputs.of.0.ptr_eq(&of.0) && inputs.of.1 == of.1;
        let mut inputs = match self.inputs.take().filter(same) {
            Some(inputs) => inputs,
            None => self.seen(of, x, spec.cols)?,
        };
        let (factor, importance) = (factor && inputs.factor.is_none(), importance && inputs.importance.is_none());
        if factor || importance || inputs.sample.is_empty() {
            self.summed(spec, x, &mut inputs, (factor, importance))?;
        }
        Ok(inputs)
    }

    /// The inputs of a product, rotated where they are.
    fn turned(&mut self, x: &Tensor, rotates: bool) -> Tensor {
        if rotates { self.exec.rotated(x) } else { x.clone() }
    }

    /// Magnitudes of inputs.
    fn seen(&mut self, of: (Weak<Node>, bool), x: &Value, cols: usize) -> Result<Inputs, Error> {
        let (mut stats, mut norms) = (InputStats::new(cols), Vec::new());
        self.stream(&[x], |pass, all| {
            let x = pass.turned(&all[0].rounded, of.1);
            stats.record(x.values());
            norms.extend(hessian::norms(x.values(), cols));
            Ok(())
        })?;
        let (evened, sample) = (evened(&norms), Vec::new());
        Ok(Inputs { of, stats, evened, sample, importance: None, factor: None, hessian: None, drift: None })
    }

    /// Adds to what is known of inputs what takes the factors of all tokens: the factor of the Hessian, the importance.
    fn summed(
        &mut self,
        spec: &ParamSpec,
        x: &Value,
        inputs: &mut Inputs,
        (factor, importance): (bool, bool),
    ) -> Result<(), Error> {
        let (cpu, cols, tokens, rotates) = (self.exec.cpu().clone(), spec.cols, inputs.evened.len(), inputs.of.1);
        let step = tokens.div_ceil(SAMPLE).max(1);
        let mut hessian = factor.then(|| Hessian::over(cols, tokens));
        let mut drift = (factor && self.method.learned).then(|| Cross::new(cols, cols, tokens));
        let mut squares = importance.then(|| InputStats::new(cols));
        let (mut at, mut sample) = (0, Vec::new());
        self.stream(&[x], |pass, all| {
            let exact = all[0].exact.as_ref().map(|exact| pass.turned(exact, rotates));
            let x = pass.turned(&all[0].rounded, rotates);
            let factors = &inputs.evened[at..at + x.values().len() / cols];
            let some = x.values().chunks_exact(cols).zip(at..).filter(|(_, token)| token % step == 0);
            sample.extend(some.flat_map(|(row, _)| row));
            hessian.iter_mut().for_each(|hessian| hessian.add(&cpu, x.values(), factors));
            if let (Some(drift), Some(exact)) = (&mut drift, exact) {
                drift.add(&cpu, (&less(&exact, x.values()), x.values()), factors);
            }
            if let Some(squares) = &mut squares {
                squares.record(&weighted(x.values(), cols, factors).collect::<Vec<f32>>());
            }
            at += factors.len();
            Ok(())
        })?;
        inputs.sample = sample;
        if let Some(squares) = squares {
            inputs.importance = Some(squares.mean_squares());
        }
        inputs.drift = drift.map(|drift| drift.end(&cpu));
        if let Some(hessian) = hessian.map(|hessian| hessian.end(&cpu)) {
            let text = || format!("the inputs of `{}` on the calibration text are not finite", spec.name);
            let factor = hessian.factor(&cpu, Order::Activations).ok_or_else(|| Error::numeric(text()))?;
            inputs.hessian = self.method.learned.then(|| hessian.damped(factor.damping));
            inputs.factor = Some(factor);
        }
        Ok(())
    }

    /// Weights, `[rows, cols]`, moved by a share of what makes up for the errors of their inputs, and of what outputs are added to, as far as
    /// a linear function of the inputs can: least squares.
    fn corrected(
        &mut self,
        spec: &ParamSpec,
        weights: &Rows,
        (x, residual): (&Value, Option<&Value>),
        (inputs, factor, drift): (&Inputs, &Factor, &[f32]),
    ) -> Result<Vec<f32>, Error> {
        let (cpu, rows, cols) = (self.exec.cpu().clone(), spec.rows, spec.cols);
        let mut weights = weights.get(0..rows)?.into_owned();
        let mut moves = vec![0.0; weights.len()];
        gemm(&cpu, rows, cols, cols, Mat::new(&weights, cols), Mat::new(drift, cols), false, &mut moves);
        if let Some(residual) = residual {
            let (mut missing, mut at) = (Cross::new(rows, cols, inputs.evened.len()), 0);
            self.stream(&[residual, x], |pass, all| {
                let Both { rounded, exact: Some(exact) } = &all[0] else { return Ok(()) };
                let x = pass.turned(&all[1].rounded, inputs.of.1);
                let factors = &inputs.evened[at..at + x.values().len() / cols];
                missing.add(&cpu, (&less(exact, rounded.values()), x.values()), factors);
                at += factors.len();
                Ok(())
            })?;
            moves.iter_mut().zip(missing.end(&cpu)).for_each(|(sum, missing)| *sum += missing);
        }
        factor.solve(&cpu, &mut moves);
        weights.iter_mut().zip(moves).for_each(|(weight, by)| *weight += SHARE * by);
        Ok(weights)
    }

    /// What an operation gives; nothing once something went wrong.
    fn given(&mut self, make: impl FnOnce(&mut Self) -> Result<Value, Error>) -> Value {
        if self.fault.is_some() {
            return Node::nothing();
        }
        make(self).unwrap_or_else(|fault| {
            self.fault = Some(fault);
            Node::nothing()
        })
    }

    /// An operation on activations with vectors, which is computed when it is read.
    fn later(
        &mut self,
        inputs: &[&Value],
        vectors: &[&ParamSpec],
        run: impl Fn(&mut CpuExec, &[&Tensor], &[&Param]) -> Tensor + 'static,
    ) -> Value {
        self.given(|pass| {
            vectors.iter().try_for_each(|spec| pass.load(spec))?;
            Ok(Node::waiting(inputs, vectors, false, Box::new(run)))
        })
    }
}

/// Mean over some tokens, `[tokens, cols]`, of the squared error of the outputs of a rounded matrix as a share of their squares.
fn output_error(cpu: &Cpu, sample: &[f32], weights: &Rows, packed: &Packed) -> Result<f64, Error> {
    let (rows, cols) = (packed.rows(), packed.cols());
    let tokens = sample.len() / cols;
    let mut rounded = vec![0.0; tokens * rows];
    packed.matmul(cpu, Activations::F32(sample), &mut rounded);
    // Of each token: all, and what is wrong.
    let mut squares = vec![[0.0f64; 2]; tokens];
    let square = |v: f32| f64::from(v) * f64::from(v);
    for first in (0..rows).step_by(OUTPUTS) {
        let some = first..(first + OUTPUTS).min(rows);
        let (width, weights) = (some.len(), weights.get(some.clone())?);
        let mut exact = vec![0.0; tokens * width];
        gemm(cpu, tokens, width, cols, Mat::new(sample, cols), Mat::new(&weights, cols).t(), false, &mut exact);
        let outputs = exact.chunks_exact(width).zip(rounded.chunks_exact(rows)).zip(&mut squares);
        for ((exact, rounded), [all, wrong]) in outputs {
            exact.iter().for_each(|v| *all += square(*v));
            exact.iter().zip(&rounded[some.clone()]).for_each(|(a, b)| *wrong += square(a - b));
        }
    }
    let errors = squares.iter().map(|[all, wrong]| if *all > 0.0 { wrong / all } else { 0.0 });
    Ok(errors.sum::<f64>() / tokens.max(1) as f64)
}

impl Exec for Pass<'_> {
    type Tensor = Value;
    type Param = ParamSpec;

    fn embed(&mut self, table: &ParamSpec, index: Index) -> Value {
        self.given(|pass| {
            pass.load(table)?;
            pass.now(&[], &[table], |exec, _, params| exec.embed(params[0], index))
        })
    }

    fn features(&mut self, width: usize) -> Value {
        self.given(|pass| pass.now(&[], &[], |exec, _, _| exec.features(width)))
    }

    fn linear(&mut self, x: &Value, weight: &ParamSpec, bias: Option<&ParamSpec>) -> Value {
        self.given(|pass| {
            bias.map_or(Ok(()), |bias| pass.load(bias))?;
            let params: Vec<&ParamSpec> = [Some(weight), bias].into_iter().flatten().collect();
            let run = |exec: &mut CpuExec, x: &[&Tensor], params: &[&Param]| {
                exec.linear(x[0], params[0], params.get(1).copied())
            };
            Ok(Node::waiting(&[x], &params, true, Box::new(run)))
        })
    }

    /// Logits are not computed: nothing reads them.
    fn logits(&mut self, x: &Value, weight: &ParamSpec, _: Option<&ParamSpec>) -> Value {
        self.given(|pass| {
            pass.ready(x)?;
            pass.round(weight, x, None)?;
            Ok(Node::nothing())
        })
    }

    fn norm(&mut self, x: &Value, kind: NormKind, weight: &ParamSpec, bias: Option<&ParamSpec>, eps: f32) -> Value {
        let specs: Vec<&ParamSpec> = [Some(weight), bias].into_iter().flatten().collect();
        self.later(&[x], &specs, move |exec, x, params| exec.norm(x[0], kind, params[0], params.get(1).copied(), eps))
    }

    fn conv(&mut self, x: &Value, weight: &ParamSpec, bias: Option<&ParamSpec>, window: &Window) -> Value {
        self.given(|pass| {
            bias.map_or(Ok(()), |bias| pass.load(bias))?;
            pass.hold(x)?;
            let windows = pass.now(&[x], &[], |exec, x, _| exec.sampled_windows(x[0], window, WINDOWS))?;
            pass.round(weight, &windows, None)?;
            drop(windows);
            let params: Vec<&ParamSpec> = [Some(weight), bias].into_iter().flatten().collect();
            pass.now(&[x], &params, |exec, x, params| exec.conv(x[0], params[0], params.get(1).copied(), window))
        })
    }

    fn batch_norm(&mut self, x: &Value, norm: &BatchNorm<ParamSpec>) -> Value {
        let BatchNorm { eps, momentum, .. } = *norm;
        self.later(&[x], &norm.params(), move |exec, x, params| {
            let [weight, bias, mean, variance] = [0, 1, 2, 3].map(|i: usize| params[i].clone());
            exec.batch_norm(x[0], &BatchNorm { weight, bias, mean, variance, eps, momentum })
        })
    }

    fn pool_windows(&mut self, x: &Value, how: WindowPooling, window: &Window) -> Value {
        let window = *window;
        self.later(&[x], &[], move |exec, x, _| exec.pool_windows(x[0], how, &window))
    }

    fn attend(&mut self, q: &Value, k: &Value, v: &Value, spec: &Attention) -> Value {
        self.given(|pass| pass.now(&[q, k, v], &[], |exec, x, _| exec.attend(x[0], x[1], x[2], spec)))
    }

    fn activate(&mut self, x: &Value, f: Activation) -> Value {
        self.later(&[x], &[], move |exec, x, _| exec.activate(x[0], f))
    }

    fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.later(&[a, b], &[], |exec, x, _| exec.mul(x[0], x[1]))
    }

    /// A product that is added to something makes up for the errors there.
    fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.given(|pass| {
            let (residual, last) = if a.product().is_some() { (b, a) } else { (a, b) };
            pass.ready(residual)?;
            if let Some((weight, x)) = last.product() {
                pass.ready(&x)?;
                pass.round(&weight, &x, Some(residual))?;
            }
            pass.now(&[a, b], &[], |exec, x, _| exec.add(x[0], x[1]))
        })
    }

    fn pool(&mut self, x: &Value, how: Pooling) -> Value {
        self.later(&[x], &[], move |exec, x, _| exec.pool(x[0], how))
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
