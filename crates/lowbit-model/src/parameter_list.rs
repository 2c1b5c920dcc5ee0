//! What a configuration alone tells: names, shapes and roles of parameters, operations of a forward pass, bytes under a
//! recipe. Nothing is loaded.

use crate::cpu::PREFILL_CHUNK;
use crate::exec::{Batch, Index};
use crate::source::{ParamSpec, Role, Source};
use crate::trace::{Op, trace};
use crate::{Config, Error, Model, Recipe};
use lowbit_base::memory::Footprint;
use lowbit_kernels::ops::CacheKind;

/// The parameters of a network that nobody has loaded.
pub struct ParameterList {
    model: Model<ParamSpec>,
    params: Vec<ParamSpec>,
}

impl ParameterList {
    /// Lists the parameters of a configuration, in the order the architecture asks for them.
    ///
    /// # Errors
    /// When the configuration contradicts itself.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let mut source = Collect(Vec::new());
        let model = Model::build(config, &mut source)?;
        Ok(ParameterList { model, params: source.0 })
    }

    /// The network they are of.
    pub(crate) fn model(&self) -> &Model<ParamSpec> {
        &self.model
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

    /// Longest sequence, tokens, that the tables of positions have entries for; any if there is none.
    pub fn positions(&self) -> Option<usize> {
        let mut longest = None;
        trace(&self.model, |op| {
            if let Op::Embed { table, index: Index::Positions { offset } } = op {
                let room = table.rows.saturating_sub(offset as usize);
                longest = Some(longest.map_or(room, |other: usize| other.min(room)));
            }
        });
        longest
    }

    /// Blocks with attention; those of other networks are not counted.
    pub fn attention_layers(&self) -> usize {
        let mut layers = 0;
        trace(&self.model, |op| layers += usize::from(matches!(op, Op::Attend(_))));
        layers
    }

    /// Matrices that products multiply with, each counted once.
    pub fn matrices(&self) -> usize {
        let mut names = std::collections::BTreeSet::new();
        trace(&self.model, |op| {
            if let Op::Linear { weight, .. } | Op::Logits { weight, .. } | Op::Conv { weight, .. } = op {
                names.insert(weight.name.clone());
            }
        });
        names.len()
    }

    /// Bytes of all parameters under a recipe: the sum of their stored parts (without outlier columns, which depend on
    /// the data); vectors are f32.
    ///
    /// # Errors
    /// When the kernels lack a format of the recipe, or it names layers the network has not.
    pub fn bytes(&self, recipe: &Recipe) -> Result<u64, Error> {
        recipe.check(&self.params)?;
        self.params.iter().try_fold(0u64, |sum, p| Ok(sum.saturating_add(bytes_of(p, recipe)?)))
    }

    /// Floating-point operations (a multiplication and an addition count as two) of one forward pass over a batch:
    /// matrix products, and scores and weighted sums of attention.
    pub fn flops(&self, batch: &Batch) -> u64 {
        let mut flops = 0;
        trace(&self.model, |op| match op {
            Op::Linear { per, weight, .. } | Op::Logits { per, weight, .. } => {
                let rows = per.rows(batch.tokens.len(), batch.sequences());
                flops += 2 * (rows * weight.rows * weight.cols) as u64;
            }
            Op::Conv { weight, window, .. } => {
                flops += 2 * (batch.sequences() * window.pixels() * weight.rows * weight.cols) as u64;
            }
            Op::Attend(spec) => {
                let pairs: u64 = batch.cu_seqlens.windows(2).map(|span| spec.pairs(0, span[1] - span[0])).sum();
                flops += 4 * pairs * (spec.heads * spec.head_dim) as u64;
            }
            _ => {}
        });
        flops
    }

    /// Bytes of the keys and values of a token in all layers.
    pub fn cache_bytes(&self, kind: CacheKind) -> u64 {
        cache_bytes(&self.model, kind)
    }

    /// Bytes of the f32 activations of one pass over `tokens` tokens, `logits` of which get logits: the outputs of all
    /// operations of the widest block, which is more than is ever alive at once.
    pub fn pass_bytes(&self, tokens: usize, logits: usize) -> u64 {
        let widths = self.widths();
        bytes_of_floats([(tokens, widths.block), (logits, widths.classes)])
    }

    /// Bytes of the f32 activations that a backward pass reads, of `tokens` tokens with `logits` rows of logits and of their
    /// gradients: the outputs of all operations, or, where blocks run again in the backward pass, the inputs of all blocks and
    /// the outputs of the operations of the widest one.
    pub fn recorded_bytes(&self, tokens: usize, logits: usize, again: bool) -> u64 {
        let widths = self.widths();
        let width = if again { widths.kept + widths.block } else { widths.all };
        bytes_of_floats([(tokens, width), (logits, 2 * widths.classes)])
    }

    /// Bytes of the f32 activations of so many tokens that go from one block to the next, those that come out of a block included, and of
    /// what attention gives.
    pub(crate) fn held_bytes(&self, tokens: usize) -> u64 {
        let widths = self.widths();
        bytes_of_floats([(tokens, 2 * widths.sums), (tokens, widths.attended)])
    }

    fn widths(&self) -> Widths {
        let (mut widths, mut width, mut block, mut before) = (Widths::default(), 0, 0, true);
        trace(&self.model, |op| {
            width = match op {
                Op::Embed { table, .. } => table.cols as u64,
                Op::Features(width) => width as u64,
                Op::Linear { weight, per, .. } => (per.rows(1, 1) * weight.rows) as u64,
                Op::Conv { weight, window, .. } => (window.pixels() * weight.rows) as u64,
                Op::PoolWindows { window, .. } => (window.pixels() * window.channels) as u64,
                Op::Attend(spec) => (spec.heads * spec.head_dim) as u64,
                _ => width,
            };
            match op {
                Op::Block(_) => (block, widths.kept, before) = (0, widths.kept + width, false),
                Op::Logits { weight, .. } => widths.classes = weight.rows as u64,
                _ => (block, widths.all) = (block + width, widths.all + width),
            }
            match op {
                Op::Add => widths.sums = widths.sums.max(width),
                Op::Attend(_) => widths.attended = widths.attended.max(width),
                _ => {}
            }
            if before {
                widths.kept = widths.all;
            }
            widths.block = widths.block.max(block);
        });
        widths
    }

    /// The same need and that of sequences of `tokens` tokens in all: keys and values, and the activations of a pass.
    pub fn with_sequences(&self, need: Footprint, kind: CacheKind, tokens: usize) -> Footprint {
        let cache = self.cache_bytes(kind).saturating_mul(tokens as u64);
        need.and("keys and values", cache).and("activations", self.pass_bytes(tokens.min(PREFILL_CHUNK), 1))
    }
}

/// Outputs of the operations of a token.
#[derive(Default)]
struct Widths {
    /// Of the widest block together.
    block: u64,
    /// Of all operations but the logits.
    all: u64,
    /// Of those before the first block, and the inputs of the blocks.
    kept: u64,
    /// Of the widest sum.
    sums: u64,
    /// Of the widest result of attention.
    attended: u64,
    /// Of the logits.
    classes: u64,
}

/// Bytes of f32 matrices, `(rows, columns)`.
fn bytes_of_floats(matrices: [(usize, u64); 2]) -> u64 {
    let bytes = matrices.map(|(rows, columns)| (rows as u64).saturating_mul(columns).saturating_mul(4));
    bytes[0].saturating_add(bytes[1])
}

/// Bytes of a parameter under a recipe.
pub(crate) fn bytes_of(spec: &ParamSpec, recipe: &Recipe) -> Result<u64, Error> {
    Ok(match recipe.format_of(spec)? {
        Some(format) => format.parts(spec.rows, spec.cols, &[]).iter().map(|part| part.bytes as u64).sum(),
        None => 4 * spec.cols as u64,
    })
}

/// Bytes of the keys and values of a token in all layers of a network.
pub(crate) fn cache_bytes<P>(model: &Model<P>, kind: CacheKind) -> u64 {
    let mut bytes = 0;
    trace(model, |op| {
        if let Op::Attend(spec) = op {
            bytes += 2 * kind.row_bytes(spec.kv_heads, spec.head_dim) as u64;
        }
    });
    bytes
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
