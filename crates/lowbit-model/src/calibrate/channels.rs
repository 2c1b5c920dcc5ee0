//! Scales of input channels, as of AWQ (arXiv 2306.00978) and SmoothQuant (arXiv 2211.10438): columns of weights that large inputs
//! meet are multiplied by a scale before rounding, so that their errors are smaller, and the operation before divides its outputs by it.
//!
//! The scale of a channel is a power of the root mean square of its inputs; the exponent is the one, of a grid, with the smallest error of
//! the outputs on some calibration tokens.

use super::graph::{Before, Group, groups};
use super::hessian::{evened, norms, weighted};
use super::levels;
use super::masters::{Fold, Masters, Rows};
use super::observe::{InputStats, Observed};
use crate::checkpoint::Options;
use crate::exec::Batch;
use crate::source::ParamSpec;
use crate::{CpuExec, Error, Recipe, recipe};
use lowbit_kernels::{Cpu, Mat, QuantizeOptions, gemm};
use std::collections::BTreeMap;

/// Steps of the exponent from 0 to 1.
const GRID: usize = 10;
/// Tokens over which errors are measured.
const SAMPLE: usize = 256;
/// Tokens of a pass.
const PASS: usize = 2048;

/// Factors of the parameters of a network under a recipe, from a pass in full precision over calibration tokens.
///
/// # Errors
/// When the network cannot be run, or the work is to end.
pub(super) fn scales(
    masters: &Masters,
    recipe: &'static Recipe,
    batch: &Batch,
    cpu: &Cpu,
) -> Result<BTreeMap<String, Fold>, Error> {
    let low = |spec: &ParamSpec| Ok::<_, Error>(recipe.format_of(spec)?.is_some_and(levels::takes));
    let mut chosen = Vec::new();
    for group in groups(masters.checkpoint.parameters().model()) {
        if group.matrices.iter().map(low).collect::<Result<Vec<_>, _>>()?.contains(&true) {
            chosen.push(group);
        }
    }
    let observed = observe(masters, &chosen, batch, cpu)?;
    let mut folds = BTreeMap::new();
    for group in chosen {
        cpu.stop.check()?;
        let name = &group.matrices[0].name;
        let cols = group.matrices[0].cols;
        let sample = observed.sample(name).expect("its inputs were asked for");
        let factors = evened(&norms(sample, cols).collect::<Vec<_>>());
        let sample: Vec<f32> = weighted(sample, cols, &factors).collect();
        let mut stats = InputStats::new(cols);
        stats.record(&sample);
        let scales =
            Search { masters, recipe, group: &group, folds: &folds, stats: &stats, sample: &sample, cpu }.run()?;
        fold(&group, &scales, &mut folds);
    }
    Ok(folds)
}

/// What the groups read, in full precision.
fn observe(masters: &Masters, groups: &[Group], batch: &Batch, cpu: &Cpu) -> Result<Observed, Error> {
    let model = masters.checkpoint.model_as(recipe::find("bf16")?, &Options::new())?;
    let passes = batch.pieces(PASS);
    let names = groups.iter().map(|group| group.matrices[0].name.as_str());
    let mut exec = CpuExec::observing(cpu.clone(), Observed::sampling(names, SAMPLE.div_ceil(passes.len().max(1))));
    for pass in &passes {
        exec.forward(&model, pass)?;
    }
    Ok(exec.observed())
}

/// Enters the scales of a group into the factors of its parameters.
fn fold(group: &Group, scales: &[f32], folds: &mut BTreeMap<String, Fold>) {
    fn multiply(to: &mut Vec<f32>, by: impl Iterator<Item = f32> + Clone) {
        match to.is_empty() {
            true => to.extend(by),
            false => to.iter_mut().zip(by).for_each(|(to, by)| *to *= by),
        }
    }
    let inputs = (0..group.matrices[0].cols).map(|input| scales[group.before.channel(input)]);
    for spec in &group.matrices {
        multiply(&mut folds.entry(spec.name.clone()).or_default().cols, inputs.clone());
    }
    let divided = scales.iter().map(|scale| 1.0 / scale);
    for (at, spec) in group.before.params().iter().enumerate() {
        let fold = folds.entry(spec.name.clone()).or_default();
        // Vectors have one row.
        let of_columns = at > 0 || matches!(group.before, Before::Norm(_));
        multiply(if of_columns { &mut fold.cols } else { &mut fold.rows }, divided.clone());
    }
}

/// The search for the scales of a group.
struct Search<'a> {
    masters: &'a Masters<'a>,
    recipe: &'static Recipe,
    group: &'a Group,
    folds: &'a BTreeMap<String, Fold>,
    /// What the group reads.
    stats: &'a InputStats,
    /// `[tokens, cols]`
    sample: &'a [f32],
    cpu: &'a Cpu,
}

impl Search<'_> {
    /// A scale for each channel of what is divided.
    fn run(&self) -> Result<Vec<f32>, Error> {
        let magnitudes = self.magnitudes();
        let mut weights = Vec::new();
        for spec in &self.group.matrices {
            let mut values = self.masters.checkpoint.master(spec)?;
            if let Some(fold) = self.folds.get(&spec.name) {
                fold.apply(&mut values, spec.cols, 0);
            }
            weights.push(values);
        }
        let mut best = (f64::INFINITY, vec![1.0; magnitudes.len()]);
        for step in 0..=GRID {
            self.cpu.stop.check()?;
            let scales = powers(&magnitudes, step as f32 / GRID as f32);
            let mut error = 0.0;
            for (spec, weights) in self.group.matrices.iter().zip(&weights) {
                error += self.error(spec, weights, &scales)?;
            }
            if error < best.0 {
                best = (error, scales);
            }
        }
        Ok(best.1)
    }

    /// Root mean square of the inputs of each channel of what is divided.
    fn magnitudes(&self) -> Vec<f32> {
        let squares = self.stats.mean_squares();
        let channels = 1 + (0..squares.len()).map(|input| self.group.before.channel(input)).max().unwrap_or(0);
        let (mut sums, mut counts) = (vec![0.0f32; channels], vec![0.0f32; channels]);
        for (input, square) in squares.iter().enumerate() {
            let channel = self.group.before.channel(input);
            (sums[channel], counts[channel]) = (sums[channel] + square, counts[channel] + 1.0);
        }
        sums.iter().zip(counts).map(|(sum, count)| (sum / count).sqrt()).collect()
    }

    /// Squared error of the outputs of a matrix on the sampled inputs, its columns being scaled before rounding.
    fn error(&self, spec: &ParamSpec, weights: &[f32], scales: &[f32]) -> Result<f64, Error> {
        let Some(format) = self.recipe.format_of(spec)?.filter(|format| levels::takes(*format)) else { return Ok(0.0) };
        let of_input: Vec<f32> = (0..spec.cols).map(|input| scales[self.group.before.channel(input)]).collect();
        let mut scaled = weights.to_vec();
        let each = |values: &mut [f32], f: fn(f32, f32) -> f32| {
            for row in values.chunks_exact_mut(spec.cols) {
                row.iter_mut().zip(&of_input).for_each(|(w, scale)| *w = f(*w, *scale));
            }
        };
        each(&mut scaled, |w, scale| w * scale);
        let squares = self.stats.mean_squares();
        let importance = squares.iter().zip(&of_input).map(|(square, scale)| square / (scale * scale)).collect();
        let options = QuantizeOptions { importance: Some(importance), ..Default::default() };
        let packed =
            self.masters.pack(spec, &Rows::Whole((&scaled).into(), spec.cols), format, &options, &self.cpu.pool)?;
        let mut errors = packed.dequantize();
        each(&mut errors, |w, scale| w / scale);
        errors.iter_mut().zip(weights).for_each(|(rounded, w)| *rounded -= w);
        let tokens = self.sample.len() / spec.cols;
        let mut outputs = vec![0.0; tokens * spec.rows];
        let (x, errors) = (Mat::new(self.sample, spec.cols), Mat::new(&errors, spec.cols).t());
        gemm(self.cpu, tokens, spec.rows, spec.cols, x, errors, false, &mut outputs);
        Ok(outputs.iter().map(|v| f64::from(*v) * f64::from(*v)).sum())
    }
}

/// Powers of magnitudes, their geometric middle being 1; channels that are never used keep their scale.
fn powers(magnitudes: &[f32], exponent: f32) -> Vec<f32> {
    let scales: Vec<f32> = magnitudes.iter().map(|m| if *m > 0.0 { m.powf(exponent).max(1e-4) } else { 0.0 }).collect();
    let used = || scales.iter().copied().filter(|scale| *scale > 0.0);
    let middle = (used().fold(0.0, f32::max) * used().fold(f32::INFINITY, f32::min)).sqrt();
    scales.iter().map(|scale| if *scale > 0.0 { scale / middle } else { 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Head, decoder};
    use crate::exec::{Activation, Pooling};
    use crate::parameter_list::ParameterList;
    use crate::source::{Init, Role};
    use crate::{Checkpoint, Config, Model, ModelConfig, Param};

    fn config(heads: [usize; 2], biased: bool, sub_norm: bool, head: Head) -> Config {
        let [num_attention_heads, num_key_value_heads] = heads;
        Config::Decoder(decoder::Config {
            vocab_size: 50,
            hidden_size: 24,
            num_hidden_layers: 2,
            num_attention_heads,
            num_key_value_heads,
            head_dim: 8,
            intermediate_size: 40,
            hidden_act: Activation::Silu,
            rope_theta: 10_000.0,
            rope_scaling: None,
            rms_norm_eps: 1e-5,
            sub_norm,
            qk_norm: false,
            qkv_bias: biased,
            output_bias: biased,
            mlp_bias: biased,
            sliding_window: None,
            full_attention_layers: Vec::new(),
            causal: true,
            bigram_buckets: 0,
            dropout: 0.0,
            head,
        })
    }

    fn numbers(seed: &mut u32, count: usize, spread: f32, middle: f32) -> Vec<f32> {
        let mut next = || {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            middle + spread * ((*seed >> 8) as f32 / (1u32 << 23) as f32 - 1.0)
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn scales_that_are_folded_leave_the_network_as_it_was() {
        let lm = Head::Lm { tied: true };
        let classify = Head::Classify { classes: 3, pooling: Pooling::Mean, bias: true };
        // Groups of a layer: queries to values, output, gate and up, down; the head is tied, or reads what is pooled.
        for (heads, biased, sub_norm, head, count) in [
            ([4, 2], true, false, lm, 8),
            ([3, 3], false, false, classify, 8),
            ([4, 1], false, true, Head::Lm { tied: false }, 9),
        ] {
            let config = config(heads, biased, sub_norm, head);
            let home = tempfile::tempdir().expect("a directory");
            let mut seed = 5;
            let params: Vec<(ParamSpec, Vec<f32>)> = ParameterList::new(&config)
                .expect("valid")
                .params()
                .iter()
                .map(|spec| {
                    let middle = if spec.role == Role::Norm && spec.init == Init::Constant(1.0) { 1.0 } else { 0.0 };
                    (spec.clone(), numbers(&mut seed, spec.rows * spec.cols, 0.4, middle))
                })
                .collect();
            let values = params.iter().map(|(spec, values)| (spec, &values[..]));
            crate::checkpoint::save_masters(home.path(), &ModelConfig::new(config, 40), None, values).expect("written");
            let checkpoint = Checkpoint::open(home.path()).expect("valid");
            let masters = Masters { checkpoint: &checkpoint, folds: BTreeMap::new() };
            let found = groups(checkpoint.parameters().model());
            assert_eq!(found.len(), count, "{found:?}");
            let mut folded = Masters { checkpoint: &checkpoint, folds: BTreeMap::new() };
            for group in &found {
                let channels = 1 + group.before.channel(group.matrices[0].cols - 1);
                fold(group, &numbers(&mut seed, channels, 0.9, 1.0), &mut folded.folds);
            }
            struct Full<'a>(&'a Masters<'a>);
            impl crate::source::Source<Param> for Full<'_> {
                fn param(&mut self, spec: &ParamSpec) -> Result<Param, Error> {
                    let (values, full) = (self.0.read(spec)?, recipe::find("f32")?);
                    let Some(format) = full.format_of(spec)? else { return Ok(Param::Vector(values)) };
                    let pool = lowbit_kernels::Pool::new(1);
                    let rows = Rows::Whole(values.into(), spec.cols);
                    let packed = self.0.pack(spec, &rows, format, &QuantizeOptions::default(), &pool)?;
                    let activations = full.activations_of(spec);
                    Ok(Param::Matrix {
                        name: spec.name.as_str().into(),
                        role: spec.role,
                        packed,
                        activations,
                        rotated: false,
                    })
                }
            }
            let mut exec = CpuExec::new(Cpu::new(None, Some(1)).expect("a CPU"));
            let batch = Batch::new([&[3u32, 9, 27, 31, 43, 29][..], &[1, 2][..]]);
            let mut answers = |masters: &Masters| {
                let model = Model::build(&checkpoint.model_config().config, &mut Full(masters)).expect("loads");
                exec.forward(&model, &batch).expect("runs").to_vec()
            };
            let (want, found) = (answers(&masters), answers(&folded));
            let largest = want.iter().fold(0.0f32, |top, v| top.max(v.abs()));
            assert!(folded.folds.len() > 8 && largest > 0.0);
            for (want, found) in want.iter().zip(&found) {
                assert!((want - found).abs() <= 2e-5 * largest, "{want} {found} of {largest}");
            }
        }
    }
}
