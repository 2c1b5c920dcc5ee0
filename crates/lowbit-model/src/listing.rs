//! The interpreter that only counts: names, shapes and roles of parameters, operations of a forward pass, bytes under a
//! recipe. Nothing is loaded.

use crate::exec::{Activation, Attention, Batch, Exec, NormKind, Pooling};
use crate::source::{ParamSpec, Role, Source};
use crate::{Config, Error, Model, Recipe};

/// The parameters of a network that nobody has loaded.
pub struct Listing {
    model: Model<ParamSpec>,
    params: Vec<ParamSpec>,
}

impl Listing {
    /// Lists the parameters of a configuration, in the order the architecture asks for them.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let mut source = Collect(Vec::new());
        let model = Model::build(config, &mut source)?;
        Ok(Listing { model, params: source.0 })
    }

    /// The specifications of all parameters.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// Number of parameters.
    pub fn count(&self) -> u64 {
        self.count_of(|_| true)
    }

    /// Number of parameters whose role is chosen.
    pub fn count_of(&self, choose: impl Fn(Role) -> bool) -> u64 {
        self.params.iter().filter(|p| choose(p.role)).map(|p| p.rows as u64 * p.cols as u64).sum()
    }

    /// Bytes of all parameters under a recipe: the sum of their stored parts (without outlier columns, which depend on
    /// the data); vectors are f32.
    ///
    /// # Errors
    /// When the kernels lack a format of the recipe.
    pub fn bytes(&self, recipe: &Recipe) -> Result<u64, Error> {
        let mut sum = 0;
        for p in &self.params {
            sum += match recipe.format(p.role)? {
                Some(format) => format.parts(p.rows, p.cols, &[]).iter().map(|part| part.bytes as u64).sum(),
                None => 4 * p.cols as u64,
            };
        }
        Ok(sum)
    }

    /// Floating-point operations (a multiplication and an addition count as two) of one forward pass over a batch:
    /// matrix products, and scores and weighted sums of attention.
    pub fn flops(&self, batch: &Batch) -> u64 {
        let mut counter = Counter { starts: batch.starts.clone(), flops: 0 };
        self.model.forward(&mut counter, batch);
        counter.flops
    }
}

struct Collect(Vec<ParamSpec>);

impl Source<ParamSpec> for Collect {
    fn param(&mut self, spec: &ParamSpec) -> Result<ParamSpec, Error> {
        let size = spec.rows.checked_mul(spec.cols).filter(|&n| n <= 1 << 40);
        if size.is_none() || spec.rows == 0 || spec.cols == 0 {
            let text = format!("asks for tensor `{}` of [{}, {}]", spec.name, spec.rows, spec.cols);
            return Err(Error::config("architecture", format!("{text}; a tensor has 1 to 2^40 elements")));
        }
        self.0.push(spec.clone());
        Ok(spec.clone())
    }
}

struct Counter {
    starts: Vec<usize>,
    flops: u64,
}

/// Rows and width.
#[derive(Clone, Copy)]
struct Shape(usize, usize);

impl Exec for Counter {
    type Tensor = Shape;
    type Param = ParamSpec;

    fn embed(&mut self, table: &ParamSpec, ids: &[u32]) -> Shape {
        Shape(ids.len(), table.cols)
    }
    fn linear(&mut self, x: &Shape, weight: &ParamSpec, _: Option<&ParamSpec>) -> Shape {
        self.flops += 2 * (x.0 * weight.rows * weight.cols) as u64;
        Shape(x.0, weight.rows)
    }
    fn norm(&mut self, x: &Shape, _: NormKind, _: &ParamSpec, _: Option<&ParamSpec>, _: f32) -> Shape {
        *x
    }
    fn attend(&mut self, q: &Shape, _: &Shape, _: &Shape, spec: &Attention) -> Shape {
        for span in self.starts.windows(2) {
            let n = (span[1] - span[0]) as u64;
            let pairs = if spec.causal { n * (n + 1) / 2 } else { n * n };
            self.flops += 4 * pairs * (spec.heads * spec.head_dim) as u64;
        }
        *q
    }
    fn activate(&mut self, x: &Shape, _: Activation) -> Shape {
        *x
    }
    fn mul(&mut self, a: &Shape, _: &Shape) -> Shape {
        *a
    }
    fn add(&mut self, a: &Shape, _: &Shape) -> Shape {
        *a
    }
    fn pool(&mut self, x: &Shape, _: Pooling) -> Shape {
        Shape(self.starts.len().saturating_sub(1), x.1)
    }
    fn dropout(&mut self, x: &Shape, _: f32) -> Shape {
        *x
    }
}
