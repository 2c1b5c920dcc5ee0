//! Where the inputs of matrices come from: which scales of input channels can be moved into the operation before, exactly.

use crate::Model;
use crate::exec::{Activation, Attention, BatchNorm, Exec, Index, NormKind, Pooling, Window, WindowPooling};
use crate::source::ParamSpec;
use std::collections::BTreeMap;

/// Matrices that multiply the same inputs, whose channels may be divided by any scales in the operation before, as the columns of the
/// matrices are multiplied by them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// The matrices.
    pub matrices: Vec<ParamSpec>,
    /// What is divided.
    pub before: Before,
}

/// The operation before.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Before {
    /// A normalization: its weight, and its bias where it has one.
    Norm(Vec<ParamSpec>),
    /// Rows of the linear layer that is the second factor of a product: its weight, and its bias.
    Gated(Vec<ParamSpec>),
    /// Rows of the linear layer of the values of attention, shared by query heads.
    Values {
        /// Its weight, and its bias.
        params: Vec<ParamSpec>,
        /// Query heads that share a value head.
        shared: usize,
        /// Width of a head.
        head_dim: usize,
    },
}

/// What made an activation.
#[derive(Clone)]
enum Made {
    Norm(Vec<ParamSpec>),
    Linear(Vec<ParamSpec>),
    Product(usize),
    Attention { values: usize, shared: usize, head_dim: usize },
    Other,
}

#[derive(Default)]
struct Graph {
    made: Vec<Made>,
    /// Uses of each activation, and the matrices among them.
    uses: Vec<(usize, Vec<ParamSpec>)>,
    /// Uses of each parameter.
    params: BTreeMap<String, usize>,
}

/// The groups of a network, in the order in which their inputs are made.
pub(super) fn groups(model: &Model<ParamSpec>) -> Vec<Group> {
    let mut graph = Graph::default();
    model.forward(&mut graph);
    (0..graph.made.len()).filter_map(|at| graph.group(at)).collect()
}

impl Graph {
    fn group(&self, at: usize) -> Option<Group> {
        let (uses, matrices) = &self.uses[at];
        if matrices.is_empty() || matrices.len() < *uses {
            return None;
        }
        // The rows of a layer whose outputs go nowhere else.
        let rows = |at: usize| match &self.made[at] {
            Made::Linear(params) if self.uses[at].0 == 1 => Some(params.clone()),
            _ => None,
        };
        let before = match &self.made[at] {
            Made::Norm(params) => Before::Norm(params.clone()),
            Made::Product(second) => Before::Gated(rows(*second)?),
            Made::Attention { values, shared, head_dim } => {
                Before::Values { params: rows(*values)?, shared: *shared, head_dim: *head_dim }
            }
            Made::Linear(_) | Made::Other => return None,
        };
        let width = matrices[0].cols;
        let params = before.params();
        let fits = match &before {
            Before::Norm(_) => params[0].cols == width,
            Before::Gated(_) => params[0].rows == width,
            Before::Values { shared, .. } => params[0].rows * shared == width,
        };
        let once = |spec: &ParamSpec| self.params[&spec.name] == 1;
        let group = fits && matrices.iter().chain(params).all(once);
        group.then(|| Group { matrices: matrices.clone(), before })
    }

    fn make(&mut self, made: Made) -> usize {
        self.made.push(made);
        self.uses.push((0, Vec::new()));
        self.made.len() - 1
    }

    fn touch(&mut self, activations: &[usize], params: &[&ParamSpec]) {
        activations.iter().for_each(|at| self.uses[*at].0 += 1);
        params.iter().for_each(|spec| *self.params.entry(spec.name.clone()).or_default() += 1);
    }
}

impl Before {
    /// The parameters that are divided.
    pub fn params(&self) -> &[ParamSpec] {
        match self {
            Before::Norm(params) | Before::Gated(params) | Before::Values { params, .. } => params,
        }
    }

    /// The channel of what is divided that an input of the matrices is.
    pub fn channel(&self, input: usize) -> usize {
        match self {
            Before::Norm(_) | Before::Gated(_) => input,
            Before::Values { shared, head_dim, .. } => input / head_dim / shared * head_dim + input % head_dim,
        }
    }
}

/// A parameter and its bias.
fn both(weight: &ParamSpec, bias: Option<&ParamSpec>) -> Vec<ParamSpec> {
    [Some(weight), bias].into_iter().flatten().cloned().collect()
}

impl Exec for Graph {
    type Tensor = usize;
    type Param = ParamSpec;

    fn embed(&mut self, table: &ParamSpec, _: Index) -> usize {
        self.touch(&[], &[table]);
        self.make(Made::Other)
    }

    fn features(&mut self, _: usize) -> usize {
        self.make(Made::Other)
    }

    fn linear(&mut self, x: &usize, weight: &ParamSpec, bias: Option<&ParamSpec>) -> usize {
        let params = both(weight, bias);
        self.touch(&[*x], &params.iter().collect::<Vec<_>>());
        self.uses[*x].1.push(weight.clone());
        self.make(Made::Linear(params))
    }

    fn norm(&mut self, x: &usize, _: NormKind, weight: &ParamSpec, bias: Option<&ParamSpec>, _: f32) -> usize {
        let params = both(weight, bias);
        self.touch(&[*x], &params.iter().collect::<Vec<_>>());
        self.make(Made::Norm(params))
    }

    fn conv(&mut self, x: &usize, weight: &ParamSpec, bias: Option<&ParamSpec>, _: &Window) -> usize {
        self.touch(&[*x], &both(weight, bias).iter().collect::<Vec<_>>());
        self.make(Made::Other)
    }

    fn batch_norm(&mut self, x: &usize, norm: &BatchNorm<ParamSpec>) -> usize {
        self.touch(&[*x], &norm.params());
        self.make(Made::Other)
    }

    fn pool_windows(&mut self, x: &usize, _: WindowPooling, _: &Window) -> usize {
        self.touch(&[*x], &[]);
        self.make(Made::Other)
    }

    fn attend(&mut self, q: &usize, k: &usize, v: &usize, spec: &Attention) -> usize {
        self.touch(&[*q, *k, *v], &[]);
        self.make(Made::Attention { values: *v, shared: spec.heads / spec.kv_heads, head_dim: spec.head_dim })
    }

    fn activate(&mut self, x: &usize, _: Activation) -> usize {
        self.touch(&[*x], &[]);
        self.make(Made::Other)
    }

    fn mul(&mut self, a: &usize, b: &usize) -> usize {
        self.touch(&[*a, *b], &[]);
        self.make(Made::Product(*b))
    }

    fn add(&mut self, a: &usize, b: &usize) -> usize {
        self.touch(&[*a, *b], &[]);
        self.make(Made::Other)
    }

    fn pool(&mut self, x: &usize, _: Pooling) -> usize {
        self.touch(&[*x], &[]);
        self.make(Made::Other)
    }

    fn dropout(&mut self, x: &usize, _: f32) -> usize {
        *x
    }
}
