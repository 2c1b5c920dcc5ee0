//! The parameter store. Gradients lie on the tape, the optimizer's state with the optimizer.

use crate::Error;
use crate::grid::Grid;
use crate::lora::Adapter;
use crate::qat::{self, Qat};
use crate::random::{hash, normal};
use lowbit_base::SplitMix64;
use lowbit_kernels::{Cpu, Packed};
use lowbit_model::source::{Init, ParamSpec, Role, Source};
use lowbit_model::{Config, Model};
use std::borrow::Cow;

/// Names a parameter of a [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(pub(crate) usize);

/// What a parameter holds, `[rows, cols]`.
#[derive(Debug)]
pub enum Weight {
    /// f32 values that training changes.
    Master(Vec<f32>),
    /// A matrix in a low-bit format that stays as it is: gradients pass through it, and none is kept for it.
    Frozen(Packed),
}

/// One parameter: `[spec.rows, spec.cols]`, row-major.
#[derive(Debug)]
pub struct Param {
    /// Name, shape and role.
    pub spec: ParamSpec,
    /// Its values.
    pub weight: Weight,
    /// The quantized weights of this step.
    quantized: Vec<f32>,
    fresh: bool,
    /// The format of which the masters are codes, as real numbers, where they are.
    pub(crate) grid: Option<Box<Grid>>,
    /// Factor of the learning rate.
    pub(crate) rate: f32,
    /// Whether training changes it.
    pub(crate) trained: bool,
    /// The low-rank update that training changes in its place.
    pub(crate) adapter: Option<Adapter>,
    /// Whether it is a factor of such an update.
    pub(crate) is_factor: bool,
}

/// All parameters of a network, in the order its architecture asks for them.
#[derive(Debug, Default)]
pub struct Params {
    list: Vec<Param>,
}

impl Param {
    /// The f32 master, `[rows, cols]`; none of a frozen parameter.
    pub fn master(&self) -> Option<&[f32]> {
        match &self.weight {
            Weight::Master(values) => Some(values),
            Weight::Frozen(_) => None,
        }
    }

    /// The f32 master, if training changes it.
    pub(crate) fn trained_mut(&mut self) -> Option<&mut Vec<f32>> {
        match &mut self.weight {
            Weight::Master(values) if self.trained => Some(values),
            _ => None,
        }
    }

    /// The values as f32, `[rows, cols]`: the master, or what a frozen matrix stands for.
    pub fn values(&self) -> Cow<'_, [f32]> {
        match &self.weight {
            Weight::Master(values) => Cow::Borrowed(values),
            Weight::Frozen(packed) => Cow::Owned(packed.dequantize()),
        }
    }

    /// The f32 master, if training changes it.
    pub(crate) fn trained(&self) -> Option<&[f32]> {
        self.master().filter(|_| self.trained)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.spec.rows * self.spec.cols
    }

    /// Whether there are no values; never true of a parameter of a network.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether straight-through quantization applies.
    pub(crate) fn is_quantized(&self, qat: Option<Qat>) -> bool {
        qat.is_some() && self.spec.role == Role::Body && self.master().is_some()
    }

    /// The weights the network sees, without a low-rank update: quantized once after each update, the masters, or what a frozen
    /// matrix stands for, which is made anew each time.
    fn effective(&mut self, cpu: &Cpu, qat: Option<Qat>) -> Cow<'_, [f32]> {
        let values = match &mut self.weight {
            Weight::Master(values) => values,
            Weight::Frozen(packed) => return Cow::Owned(packed.dequantize()),
        };
        if let Some(grid) = &self.grid {
            if !self.fresh {
                self.quantized.resize(values.len(), 0.0);
                grid.round(cpu, values, &mut self.quantized);
                self.fresh = true;
            }
            return Cow::Borrowed(&self.quantized);
        }
        let Some(qat) = qat.filter(|_| self.spec.role == Role::Body) else { return Cow::Borrowed(values) };
        if !self.fresh {
            self.quantized.resize(values.len(), 0.0);
            qat::quantize(cpu, values, self.spec.cols, qat, &mut self.quantized);
            self.fresh = true;
        }
        Cow::Borrowed(&self.quantized)
    }

    /// Says that the masters have changed.
    pub(crate) fn changed(&mut self) {
        self.fresh = false;
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
        self.add(spec, Weight::Master(value))
    }

    /// Adds a matrix that training does not change.
    pub(crate) fn push_frozen(&mut self, spec: ParamSpec, packed: Packed) -> ParamId {
        self.add(spec, Weight::Frozen(packed))
    }

    fn add(&mut self, spec: ParamSpec, weight: Weight) -> ParamId {
        self.list.push(Param {
            spec,
            weight,
            quantized: Vec::new(),
            fresh: false,
            grid: None,
            rate: 1.0,
            trained: true,
            adapter: None,
            is_factor: false,
        });
        ParamId(self.list.len() - 1)
    }

    /// The parameter of an id.
    pub fn get(&self, id: ParamId) -> &Param {
        &self.list[id.0]
    }

    /// The place of a parameter among all.
    pub(crate) fn place(id: ParamId) -> usize {
        id.0
    }

    pub(crate) fn get_mut(&mut self, id: ParamId) -> &mut Param {
        &mut self.list[id.0]
    }

    /// The weights the network sees, `[rows, cols]`; those with a low-rank update are made anew each time.
    pub(crate) fn effective(&mut self, cpu: &Cpu, id: ParamId, qat: Option<Qat>) -> Cow<'_, [f32]> {
        let param = self.get(id);
        if param.adapter.is_none() {
            return self.get_mut(id).effective(cpu, qat);
        }
        let merged = self.merged(cpu, param).into_owned();
        if !param.is_quantized(qat) {
            return Cow::Owned(merged);
        }
        let mut quantized = vec![0.0; merged.len()];
        qat::quantize(cpu, &merged, param.spec.cols, qat.expect("quantized"), &mut quantized);
        Cow::Owned(quantized)
    }

    /// The ids of all parameters in order.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> {
        (0..self.list.len()).map(ParamId)
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
        if param.len() != value.len() {
            let (rows, cols) = (param.spec.rows, param.spec.cols);
            return Err(Error::data(format!("tensor `{name}` has {} values, not {rows} x {cols}", value.len())));
        }
        param.weight = Weight::Master(value.to_vec());
        param.changed();
        Ok(())
    }

    /// Replaces the masters of a matrix by a packed one that training does not change.
    ///
    /// # Errors
    /// When there is no such parameter, it has another shape, or is a vector.
    pub fn freeze(&mut self, name: &str, packed: Packed) -> Result<(), Error> {
        let Some(param) = self.list.iter_mut().find(|p| p.spec.name == name) else {
            return Err(Error::data(format!("the network has no tensor `{name}`")));
        };
        let (expected, found) = ([param.spec.rows, param.spec.cols], [packed.rows(), packed.cols()]);
        if expected != found {
            return Err(Error::data(format!("tensor `{name}` is {found:?}, not {expected:?}")));
        }
        if param.spec.role.is_vector() {
            return Err(Error::data(format!("tensor `{name}` is a vector, which stays f32; freeze matrices")));
        }
        param.weight = Weight::Frozen(packed);
        (param.quantized, param.fresh) = (Vec::new(), false);
        Ok(())
    }

    /// Keeps a parameter as it is.
    pub(crate) fn stay(&mut self, name: &str) {
        self.list.iter_mut().filter(|param| param.spec.name == name).for_each(|param| param.trained = false);
    }

    /// Number of values of all parameters of the network.
    pub fn count(&self) -> usize {
        self.network().map(Param::len).sum()
    }

    /// Number of values that training changes.
    pub fn trained_count(&self) -> usize {
        self.list.iter().filter(|param| param.trained().is_some()).map(Param::len).sum()
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
