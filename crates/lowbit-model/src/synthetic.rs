//! Seeded random networks of known shapes, made in the formats of a recipe without full-precision weights: for measuring
//! speed where no download is at hand. They say nothing sensible.

use crate::parameter_list::ParameterList;
use crate::source::{Init, ParamSpec, Role, Source};
use crate::{Config, Error, Model, Param, Recipe};
use lowbit_base::SplitMix64;
use lowbit_kernels::format::Holds;
use lowbit_kernels::{BLOCK, Bytes, Format, Packed, Pool, QuantizeOptions, Threads};
use std::collections::BTreeMap;

mod shapes;

pub use shapes::{ModelShape, SHAPES, find};

/// Rows that are quantized for each format, width and spread: whole blocks, from whose units all matrices are put together.
const SAMPLE_ROWS: usize = 320;
/// Bytes of a unit, the same few columns of the rows of a block.
const UNIT: usize = 64;

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
