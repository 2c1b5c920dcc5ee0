//! Seeded random networks of known shapes, made in the formats of a recipe without full-precision weights: for measuring
//! speed where no download is at hand. They say nothing sensible.

use crate::parameter_list::ParameterList;
use crate::source::{Init, ParamSpec, Role, Source};
use crate::{Config, Error, Model, Param, Recipe};
use lowbit_base::{SplitMix64, alternatives};
use lowbit_kernels::format::Holds;
use lowbit_kernels::{BLOCK, Bytes, Format, Packed, Pool, QuantizeOptions, Threads};
use std::collections::BTreeMap;

/// Rows that are quantized for each format, width and spread: whole blocks, from whose units all matrices are put together.
const SAMPLE_ROWS: usize = 320;
/// Bytes of a unit, the same few columns of the rows of a block.
const UNIT: usize = 64;

/// A published network's dimensions.
#[derive(Debug)]
pub struct ModelShape {
    /// The name on the command line.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Name of the recipe such networks usually run under.
    pub recipe: &'static str,
    json: &'static str,
}

/// Every shape.
pub static SHAPES: &[ModelShape] = &[
    ModelShape {
        name: "bitnet-2b",
        summary: "BitNet b1.58 2B4T",
        recipe: "bitnet",
        json: r#"{"architecture": "decoder", "vocab_size": 128256, "hidden_size": 2560, "num_hidden_layers": 30,
            "num_attention_heads": 20, "num_key_value_heads": 5, "head_dim": 128, "intermediate_size": 6912,
            "hidden_act": "relu2", "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "bitnet-700m",
        summary: "bitnet_b1_58-large",
        recipe: "bitnet",
        json: r#"{"architecture": "decoder", "vocab_size": 32002, "hidden_size": 1536, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 96, "intermediate_size": 4096,
            "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "llama-1b",
        summary: "Llama 3.2 1B",
        recipe: "int4",
        json: r#"{"architecture": "decoder", "vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192,
            "hidden_act": "silu", "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "sub_norm": false, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "llama-3b",
        summary: "Llama 3.2 3B",
        recipe: "int4",
        json: r#"{"architecture": "decoder", "vocab_size": 128256, "hidden_size": 3072, "num_hidden_layers": 28,
            "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192,
            "hidden_act": "silu", "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "sub_norm": false, "causal": true,
            "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "gpt2",
        summary: "GPT-2 small",
        recipe: "int8_channel",
        json: r#"{"architecture": "gpt", "vocab_size": 50257, "hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 1024,
            "qkv_bias": true, "layer_norm_eps": 1e-5, "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "gpt2-classifier",
        summary: "GPT-2 small for four classes",
        recipe: "int8_channel",
        json: r#"{"architecture": "gpt", "vocab_size": 50257, "hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 1024,
            "qkv_bias": true, "layer_norm_eps": 1e-5, "head": {"classify": {"classes": 4, "pooling": "last", "bias": false}}}"#,
    },
    ModelShape {
        name: "gpt-neo-1.3b",
        summary: "GPT-Neo 1.3B",
        recipe: "int8_channel",
        json: r#"{"architecture": "gpt", "vocab_size": 50257, "hidden_size": 2048, "num_hidden_layers": 24,
            "num_attention_heads": 16, "intermediate_size": 8192, "hidden_act": "gelu", "max_position_embeddings": 2048,
            "attention_scale": 1.0, "sliding_window": 256, "full_attention_layers": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22],
            "qkv_bias": false, "layer_norm_eps": 1e-5, "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "gpt-neo-2.7b",
        summary: "GPT-Neo 2.7B",
        recipe: "int8_channel",
        json: r#"{"architecture": "gpt", "vocab_size": 50257, "hidden_size": 2560, "num_hidden_layers": 32,
            "num_attention_heads": 20, "intermediate_size": 10240, "hidden_act": "gelu", "max_position_embeddings": 2048,
            "attention_scale": 1.0, "sliding_window": 256, "full_attention_layers": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30],
            "qkv_bias": false, "layer_norm_eps": 1e-5, "head": {"lm": {"tied": true}}}"#,
    },
    ModelShape {
        name: "distilbert-classifier",
        summary: "DistilBERT for two classes",
        recipe: "int8_channel",
        json: r#"{"architecture": "encoder", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu_erf", "max_position_embeddings": 512,
            "type_vocab_size": 0, "layer_norm_eps": 1e-12, "pooler": "relu", "head": {"classify": {"classes": 2, "pooling": "first", "bias": true}}}"#,
    },
    ModelShape {
        name: "distilbert-multilingual-classifier",
        summary: "DistilBERT multilingual for three classes",
        recipe: "int8_channel",
        json: r#"{"architecture": "encoder", "vocab_size": 119547, "hidden_size": 768, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu_erf", "max_position_embeddings": 512,
            "type_vocab_size": 0, "layer_norm_eps": 1e-12, "pooler": "relu", "head": {"classify": {"classes": 3, "pooling": "first", "bias": true}}}"#,
    },
    ModelShape {
        name: "minilm",
        summary: "all-MiniLM-L6-v2, vectors of sentences",
        recipe: "int8_channel",
        json: r#"{"architecture": "encoder", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
            "num_attention_heads": 12, "intermediate_size": 1536, "hidden_act": "gelu_erf", "max_position_embeddings": 512,
            "type_vocab_size": 2, "layer_norm_eps": 1e-12, "head": {"embed": {"pooling": "mean", "normalize": true}}}"#,
    },
];

impl ModelShape {
    /// The dimensions.
    pub fn config(&self) -> Config {
        serde_json::from_str(self.json).expect("the list holds valid configurations")
    }
}

/// The shape of a name.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind) parameters all, with the nearest.
pub fn find(name: &str) -> Result<&'static ModelShape, Error> {
    if let Some(shape) = SHAPES.iter().find(|s| s.name == name) {
        return Ok(shape);
    }
    let known = alternatives(name, SHAPES.iter().map(|s| s.name));
    Err(Error::usage(format!("unknown synthetic model `{}`{known}", crate::container::show(name))))
}

/// A random network of these dimensions under a recipe, the same for the same seed.
///
/// # Errors
/// When the configuration contradicts itself or the kernels lack a format of the recipe.
pub fn model(config: &Config, recipe: &'static Recipe, seed: u64) -> Result<Model<Param>, Error> {
    recipe.check(ParameterList::new(config)?.params())?;
    Model::build(config, &mut Synthetic::new(recipe, seed))
}

/// Gives seeded random parameters in the formats of a recipe: matrices with the spread the architecture begins with,
/// vectors as it begins them.
pub struct Synthetic {
    recipe: &'static Recipe,
    random: SplitMix64,
    /// Quantized rows by format, width and spread.
    samples: BTreeMap<(&'static str, usize, u32), Packed>,
}

impl Synthetic {
    /// A source for one network.
    pub fn new(recipe: &'static Recipe, seed: u64) -> Self {
        Synthetic { recipe, random: SplitMix64::new(seed), samples: BTreeMap::new() }
    }

    fn packed(&mut self, spec: &ParamSpec, format: &'static dyn Format, std: f32) -> Result<Packed, Error> {
        let at = |e: lowbit_kernels::Error| Error::usage(format!("tensor `{}`: {e}", spec.name));
        if format.spec().redundant {
            return self.whole(spec, format, std).map_err(at);
        }
        let key = (format.name(), spec.cols, std.to_bits());
        if !self.samples.contains_key(&key) {
            let weights: Vec<f32> = (0..SAMPLE_ROWS * spec.cols).map(|_| std * normal(&mut self.random)).collect();
            let sample = format.quantize(&weights, SAMPLE_ROWS, spec.cols, &QuantizeOptions::default()).map_err(at)?;
            self.samples.insert(key, sample);
        }
        let sample = &self.samples[&key];
        let wanted = format.parts(spec.rows, spec.cols, sample.parts());
        let parts = wanted.iter().zip(sample.parts()).map(|(expected, from)| match expected.holds {
            Holds::Codes => {
                let blocks = SAMPLE_ROWS / format.spec().block;
                shuffled(&mut self.random, from, blocks, unit(format), expected.bytes)
            }
            _ => Bytes::new(from.iter().copied().cycle().take(expected.bytes).collect::<Vec<u8>>()),
        });
        Packed::from_parts(format, spec.rows, spec.cols, parts.collect()).map_err(at)
    }

    /// A matrix whose parts cannot be put together from others: all rows are random and quantized, on all threads.
    fn whole(
        &mut self,
        spec: &ParamSpec,
        format: &'static dyn Format,
        std: f32,
    ) -> Result<Packed, lowbit_kernels::Error> {
        let (cols, seed) = (spec.cols, self.random.bits());
        let pool = Pool::new(Threads::choose(None).map_or(1, |threads| threads.count));
        Packed::from_row_ranges(format, spec.rows, cols, &pool, |rows| {
            let mut random = SplitMix64::new(seed.wrapping_add((rows.start as u64) << 32));
            let weights: Vec<f32> = (0..rows.len() * cols).map(|_| std * normal(&mut random)).collect();
            format.quantize(&weights, rows.len(), cols, &QuantizeOptions::default())
        })
    }
}

/// Roughly normal with standard deviation 1, within +-3.5: the sum of four uniform numbers.
fn normal(random: &mut SplitMix64) -> f32 {
    let bits = random.bits();
    let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
    (sum as f32 / 65_536.0 - 2.0) * 3f32.sqrt()
}

/// Bytes of codes that stay together: in formats of groups, units may hold the high bits of codes whose low ones are elsewhere.
fn unit(format: &dyn Format) -> usize {
    let spec = format.spec();
    match spec.in_blocks && !(spec.bits as u32).is_power_of_two() {
        true => format.parts(spec.block, BLOCK, &[])[0].bytes,
        false => UNIT,
    }
}

/// `bytes` bytes of blocks of rows, each unit of `unit` bytes taken from the same place of one of the `blocks` of the sample.
fn shuffled(random: &mut SplitMix64, sample: &[u8], blocks: usize, unit: usize, bytes: usize) -> Bytes {
    let block = sample.len() / blocks;
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        for start in (0..block).step_by(unit) {
            let from = random.below(blocks as u64) as usize * block;
            out.extend_from_slice(&sample[from + start..from + (start + unit).min(block)]);
        }
    }
    out.truncate(bytes);
    Bytes::new(out)
}

impl Source<Param> for Synthetic {
    fn param(&mut self, spec: &ParamSpec) -> Result<Param, Error> {
        let constant = |value| vec![value; spec.rows * spec.cols];
        let Some(format) = self.recipe.format_of(spec)? else {
            return Ok(Param::Vector(match spec.init {
                Init::Constant(value) => constant(value),
                Init::Normal(std) => (0..spec.cols).map(|_| std * normal(&mut self.random)).collect(),
            }));
        };
        let packed = match spec.init {
            Init::Normal(std) => self.packed(spec, format, std)?,
            Init::Constant(value) => {
                let weights = constant(value);
                let packed = format.quantize(&weights, spec.rows, spec.cols, &QuantizeOptions::default());
                packed.map_err(|e| Error::usage(format!("tensor `{}`: {e}", spec.name)))?
            }
        };
        let (role, activations): (Role, _) = (spec.role, self.recipe.activations_of(spec));
        let rotated = self.recipe.rotates(spec);
        Ok(Param::Matrix { name: spec.name.as_str().into(), role, packed, activations, rotated })
    }
}
