//! The parameter store: masters, gradients and moments of every parameter.

use crate::Error;
use crate::qat::{Qat, ternary};
use crate::random::{hash, normal};
use lowbit_base::SplitMix64;
use lowbit_kernels::Cpu;
use lowbit_model::source::{Init, ParamSpec, Role, Source};
use lowbit_model::{Config, Model};

/// Names a parameter of a [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);

/// One parameter: `[spec.rows, spec.cols]`, row-major.
#[derive(Debug)]
pub struct Param {
    /// Name, shape and role.
    pub spec: ParamSpec,
    /// The f32 master.
    pub value: Vec<f32>,
    /// Gradient of the loss; meaningful when `touched`, empty before the first backward pass.
    pub(crate) grad: Vec<f32>,
    /// Whether this step has written a gradient.
    pub(crate) touched: bool,
    /// First moment or momentum; empty before the first update.
    pub(crate) m: Vec<f32>,
    /// Second moment; empty before the first update, or when the optimizer has none.
    pub(crate) v: Vec<f32>,
    /// The quantized weights of this step.
    quantized: Vec<f32>,
    fresh: bool,
}

/// All parameters of a network, in the order its architecture asks for them.
#[derive(Debug, Default)]
pub struct Params {
    list: Vec<Param>,
}

impl Param {
    /// Gradient of the loss, or none when this step gave none.
    pub fn gradient(&self) -> Option<&[f32]> {
        self.touched.then_some(&self.grad[..])
    }

    /// The gradient to write, and whether it holds a sum to add to.
    pub(crate) fn gradient_slot(&mut self) -> (&mut [f32], bool) {
        if self.grad.is_empty() {
            self.grad = vec![0.0; self.value.len()];
        }
        (&mut self.grad, std::mem::replace(&mut self.touched, true))
    }

    /// The gradient to add to; zero at first.
    pub(crate) fn gradient_sum(&mut self) -> &mut [f32] {
        let (grad, holds) = self.gradient_slot();
        if !holds {
            grad.fill(0.0);
        }
        grad
    }

    /// Whether straight-through quantization applies.
    pub(crate) fn is_quantized(&self, qat: Option<Qat>) -> bool {
        qat.is_some() && self.spec.role == Role::Body
    }

    /// The weights the network sees: quantized once after each update, or the masters.
    pub(crate) fn effective(&mut self, cpu: &Cpu, qat: Option<Qat>) -> &[f32] {
        let Some(qat) = qat.filter(|_| self.spec.role == Role::Body) else { return &self.value };
        if !self.fresh {
            self.quantized.resize(self.value.len(), 0.0);
            ternary(cpu, &self.value, self.spec.cols, qat, &mut self.quantized);
            self.fresh = true;
        }
        &self.quantized
    }

    /// Says that the masters have changed.
    pub(crate) fn changed(&mut self) {
        self.fresh = false;
        self.touched = false;
    }
}

impl Params {
    /// A network with freshly drawn parameters. Each parameter's draw depends on the seed and its name alone.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn initialise(config: &Config, seed: u64) -> Result<(Model<ParamId>, Params), Error> {
        let mut source = Draw { params: Params::default(), seed };
        let model = Model::build(config, &mut source)?;
        Ok((model, source.params))
    }

    /// Adds a parameter, `value` being `[spec.rows, spec.cols]`.
    ///
    /// # Panics
    /// When the value does not fit the specification.
    pub fn push(&mut self, spec: ParamSpec, value: Vec<f32>) -> ParamId {
        assert_eq!(value.len(), spec.rows * spec.cols, "values of `{}`", spec.name);
        self.list.push(Param {
            spec,
            value,
            grad: Vec::new(),
            touched: false,
            m: Vec::new(),
            v: Vec::new(),
            quantized: Vec::new(),
            fresh: false,
        });
        ParamId(self.list.len() - 1)
    }

    /// The parameter of an id.
    pub fn get(&self, id: ParamId) -> &Param {
        &self.list[id.0]
    }

    pub(crate) fn get_mut(&mut self, id: ParamId) -> &mut Param {
        &mut self.list[id.0]
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.list.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        self.list.iter_mut()
    }

    /// The parameter of a name.
    pub fn by_name(&self, name: &str) -> Option<&Param> {
        self.list.iter().find(|p| p.spec.name == name)
    }

    /// Replaces the masters of a parameter, `[rows, cols]`.
    ///
    /// # Errors
    /// When there is no such parameter or it has another size.
    pub fn set(&mut self, name: &str, value: &[f32]) -> Result<(), Error> {
        let Some(param) = self.list.iter_mut().find(|p| p.spec.name == name) else {
            return Err(Error::data(format!("the network has no tensor `{name}`")));
        };
        if param.value.len() != value.len() {
            let (rows, cols) = (param.spec.rows, param.spec.cols);
            return Err(Error::data(format!("tensor `{name}` has {} values, not {rows} x {cols}", value.len())));
        }
        param.value.copy_from_slice(value);
        param.changed();
        Ok(())
    }

    /// Number of values of all parameters.
    pub fn count(&self) -> usize {
        self.list.iter().map(|p| p.value.len()).sum()
    }
}

struct Draw {
    params: Params,
    seed: u64,
}

impl Source<ParamId> for Draw {
    fn param(&mut self, spec: &ParamSpec) -> Result<ParamId, lowbit_model::Error> {
        let name: Vec<u64> = spec.name.bytes().map(u64::from).collect();
        let mut random = SplitMix64::new(hash(&[self.seed, hash(&name)]));
        let value = match spec.init {
            Init::Normal(std) => (0..spec.rows * spec.cols).map(|_| normal(&mut random) * std).collect(),
            Init::Constant(c) => vec![c; spec.rows * spec.cols],
        };
        Ok(self.params.push(spec.clone(), value))
    }
}
