//! How much each layer of a network bears: the format of each layer, chosen so that the whole stays closest to the network in
//! full precision under a number of bits.
//!
//! For every layer and format the Kullback-Leibler divergence of the answers to calibration text is measured with this layer alone in
//! this format (layer-wise sensitivity, as of HAWQ, arXiv 1905.03696, and llama.cpp's `--kl-divergence`); the mix with the least sum
//! under the budget is a knapsack. The sum is an estimate, so the mix and the uniform recipes are measured as wholes in the end, and the
//! best of those that fit is taken.

mod calibration;
mod knapsack;

pub use calibration::{Calibration, QUANTIZE_TOKENS, TOKENS, lines};

use crate::Error;
use crate::faithfulness::{Faithfulness, KL, SAME_TOP};
use crate::record::Measure;
use knapsack::{Choice, choose};
use lowbit_base::memory::{Footprint, bytes};
use lowbit_kernels::{Cpu, Format, format};
use lowbit_model::arch::OutputKind;
use lowbit_model::checkpoint::Options;
use lowbit_model::source::{ParamSpec, Role};
use lowbit_model::{Checkpoint, CpuExec, Recipe, calibrate, recipe};
use std::collections::BTreeMap;

/// Formats that are tried where nobody names others.
pub const FORMATS: &str = "q8_0,q6_k,int4_g64,int3_g64,int2_g64";
/// Predictions of a language model whose mean is one observation of an interval.
const BLOCK: usize = 256;
/// Bytes of a file of weights beside the weights: for each stored part its name, place and checksum, and what there is once.
const HEADER: (u64, u64) = (400, 8192);

/// What must not be exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Stored bits of a weight of the body, scales and padding included. Table and head have 8 bits.
    Bits(f64),
    /// Bytes of the file with the weights. Table and head have a format like a layer.
    Size(u64),
}

/// What has a format of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// A layer.
    #[default]
    Layer,
    /// A matrix of a layer.
    Matrix,
}

/// What is asked for.
pub struct Search<'a> {
    /// Masters.
    pub masters: &'a Checkpoint,
    /// Formats that a layer may have.
    pub formats: &'a [&'static dyn Format],
    /// What must not be exceeded.
    pub target: Target,
    /// What has a format of its own.
    pub unit: Unit,
    /// What the network reads.
    pub calibration: &'a Calibration,
    /// Where it runs.
    pub cpu: &'a Cpu,
}

/// A recipe that was measured as a whole.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The recipe.
    pub recipe: &'static Recipe,
    /// Stored bits of a weight of the body.
    pub bits: f64,
    /// Bytes of all parameters.
    pub bytes: u64,
    /// Whether the target allows it.
    pub fits: bool,
    /// Divergence of its answers from those in full precision, and how often both have the same top one.
    pub measures: BTreeMap<String, Measure>,
}

impl Measured {
    /// Mean divergence, nats.
    pub fn kl(&self) -> f64 {
        self.measures.get(KL).map_or(f64::INFINITY, |measure| measure.value)
    }
}

/// What came out.
pub struct Found {
    /// The mix, and every format for the whole body, by bytes.
    pub measured: Vec<Measured>,
    /// The recipe that is taken, among [`Found::measured`].
    pub chosen: usize,
    /// The mix, where it is no uniform recipe.
    pub mix: Option<usize>,
    /// What each layer or matrix adds to the divergence in each format, with its name, nats.
    pub sensitivity: Vec<(String, Vec<f64>)>,
    /// How much each input of the matrices counts, and which are outliers.
    pub options: Options,
}

/// A layer, a matrix, or table and head, that have a format of their own.
struct Item<'a> {
    /// Its name in a spelling.
    part: String,
    specs: Vec<&'a ParamSpec>,
}

/// The name of table and head.
const TABLES: &str = "embed+head";

impl Item<'_> {
    /// What gives it a format, in a spelling.
    fn spelled(&self, format: &str) -> String {
        self.part.split('+').map(|part| format!("+{part}={format}")).collect()
    }
}

/// Measures networks beside the one in full precision.
struct Meter<'a> {
    search: &'a Search<'a>,
    output: OutputKind,
    exec: CpuExec,
    /// Logits of each batch, `[rows, classes]`, and the classes.
    reference: Vec<Vec<f32>>,
    classes: usize,
    options: Options,
}

/// Measures the sensitivity of each layer, chooses the mix, and measures it beside the uniform recipes. `progress` is told how many of
/// how many measurements are done.
///
/// # Errors
/// When the network has no layers or no logits, the target is below the smallest mix, a format cannot hold the weights, the memory
/// does not suffice, or the work is to end.
pub fn search(search: &Search, progress: &mut dyn FnMut(usize, usize)) -> Result<Found, Error> {
    let params = search.masters.parameters().params();
    let (items, outside) = items(params, search.unit, search.target)?;
    let budget = search.budget(&items, &outside)?;
    let rest = usize::from(!outside.is_empty());
    let all = search.formats.len() * (items.len() + rest + 1) + 1;
    let mut done = 0;
    let mut tick = || {
        progress(done, all);
        done += 1;
    };
    tick();
    let mut meter = Meter::new(search)?;
    let layers: String = items.iter().filter(|item| item.part != TABLES).map(|item| item.spelled("f32")).collect();
    let mut divergences = |alone: &dyn Fn(&str) -> String| -> Result<Vec<f64>, Error> {
        let of = |format: &&'static dyn Format| {
            let nats = meter.measure(recipe::find(&alone(format.name()))?)?.get(KL).map_or(0.0, |kl| kl.value);
            tick();
            Ok(nats)
        };
        search.formats.iter().map(of).collect()
    };
    let mut sensitivity = Vec::with_capacity(items.len());
    for item in &items {
        let costs = divergences(&|format| format!("f32{}", item.spelled(format)))?;
        sensitivity.push((item.part.clone(), costs));
    }
    let others = match outside.is_empty() {
        true => Vec::new(),
        false => divergences(&|format| format!("{format}+embed=f32+head=f32{layers}"))?,
    };
    let mix = mix(search, (&items, &outside), (&sensitivity, &others), budget)?;
    let mut recipes: Vec<&'static Recipe> =
        search.formats.iter().map(|format| uniform(format.name(), TABLES_8, "")).collect::<Result<_, _>>()?;
    let is_uniform = recipes.iter().any(|recipe| recipe.name == mix.name);
    recipes.extend((!is_uniform).then_some(mix));
    let mut measured = Vec::with_capacity(recipes.len());
    for recipe in recipes {
        let (weights, stored) = body_of(params, recipe)?;
        let counted = stored + search.tables(recipe)?;
        measured.push(Measured {
            recipe,
            bits: 8.0 * stored as f64 / weights as f64,
            bytes: search.masters.parameters().bytes(recipe)?,
            fits: counted <= budget,
            measures: meter.measure(recipe)?,
        });
        tick();
    }
    measured.sort_by_key(|m| m.bytes);
    let fitting = (0..measured.len()).filter(|i| measured[*i].fits);
    let chosen = fitting.min_by(|a, b| measured[*a].kl().total_cmp(&measured[*b].kl()));
    let chosen = chosen.ok_or_else(|| Error::usage("no mix of these formats fits the target"))?;
    let mix = measured.iter().position(|m| m.recipe.name == mix.name).filter(|_| !is_uniform);
    Ok(Found { measured, chosen, mix, sensitivity, options: meter.options })
}

/// Table and head in 8 bits, as the recipes of few bits have them.
const TABLES_8: &str = "+embed=int8_channel+head=int8_channel";

/// The recipe of a format with table and head, and layers, in others.
fn uniform(format: &str, tables: &str, layers: &str) -> Result<&'static Recipe, Error> {
    recipe::find(&format!("{format}{tables}{layers}"))
}

/// Weights and stored bytes of the matrices of a body.
fn body_of(params: &[ParamSpec], recipe: &Recipe) -> Result<(u64, u64), Error> {
    let (mut weights, mut stored) = (0, 0);
    for spec in params.iter().filter(|spec| spec.role == Role::Body) {
        weights += spec.rows as u64 * spec.cols as u64;
        stored += recipe.format_of(spec)?.map_or(0, |format| bytes_in(spec, format));
    }
    Ok((weights, stored))
}

/// Bytes of a matrix in a format.
fn bytes_in(spec: &ParamSpec, format: &dyn Format) -> u64 {
    format.parts(spec.rows, spec.cols, &[]).iter().map(|part| part.bytes as u64).sum()
}

/// What may have a format of its own, and the matrices of the body that have that of the rest.
fn items(params: &[ParamSpec], unit: Unit, target: Target) -> Result<(Vec<Item<'_>>, Vec<&ParamSpec>), Error> {
    let mut items: Vec<Item> = Vec::new();
    let mut outside = Vec::new();
    for spec in params.iter().filter(|spec| spec.role == Role::Body) {
        let Some((layer, matrix)) = spec.place() else {
            outside.push(spec);
            continue;
        };
        let part = match unit {
            Unit::Matrix if !matrix.is_empty() => format!("layers.{layer}.{matrix}"),
            Unit::Matrix | Unit::Layer => format!("layers.{layer}"),
        };
        match items.iter_mut().find(|item| item.part == part) {
            Some(item) => item.specs.push(spec),
            None => items.push(Item { part, specs: vec![spec] }),
        }
    }
    let none = items.is_empty();
    let tables: Vec<&ParamSpec> = params.iter().filter(|spec| is_table(spec)).collect();
    if matches!(target, Target::Size(_)) && !tables.is_empty() {
        items.push(Item { part: TABLES.into(), specs: tables });
    }
    match none {
        true => Err(Error::usage("the model has no layers whose bits could be mixed: name a recipe with --recipe")),
        false => Ok((items, outside)),
    }
}

fn is_table(spec: &ParamSpec) -> bool {
    matches!(spec.role, Role::Embedding | Role::Head)
}

impl Search<'_> {
    /// Bytes of table and head where they count.
    fn tables(&self, recipe: &Recipe) -> Result<u64, Error> {
        let counted = matches!(self.target, Target::Size(_));
        let tables = self.masters.parameters().params().iter().filter(|spec| counted && is_table(spec));
        tables.map(|spec| Ok(recipe.format_of(spec)?.map_or(0, |format| bytes_in(spec, format)))).sum()
    }

    /// Bytes that all items and the rest of the body may take.
    fn budget(&self, items: &[Item], outside: &[&ParamSpec]) -> Result<u64, Error> {
        let body = || items.iter().flat_map(|item| &item.specs).chain(outside);
        let weights: u64 = body().map(|spec| spec.rows as u64 * spec.cols as u64).sum();
        let least = |spec: &&ParamSpec| self.formats.iter().map(|format| bytes_in(spec, *format)).min();
        let least: u64 = match outside.is_empty() {
            true => body().filter_map(least).sum(),
            // They all have one format.
            false => {
                let of = |format: &&'static dyn Format| outside.iter().map(|spec| bytes_in(spec, *format)).sum::<u64>();
                let layers: u64 = items.iter().flat_map(|item| &item.specs).filter_map(least).sum();
                layers + self.formats.iter().map(of).min().unwrap_or(0)
            }
        };
        let (budget, smallest) = match self.target {
            Target::Bits(bits) => {
                ((bits * weights as f64 / 8.0) as u64, format!("{:.3} bits", 8.0 * least as f64 / weights as f64))
            }
            Target::Size(size) => {
                let fixed = self.fixed()?;
                (size.saturating_sub(fixed), bytes(least + fixed))
            }
        };
        match least <= budget {
            true => Ok(budget),
            false => {
                let names: Vec<&str> = self.formats.iter().map(|format| format.name()).collect();
                let names = names.join(", ");
                Err(Error::usage(format!("the target is too small: in {names} the model takes {smallest} or more")))
            }
        }
    }

    /// Bytes of a file beside matrices: vectors, and what is no weight.
    fn fixed(&self) -> Result<u64, Error> {
        let recipe = recipe::find("f32")?;
        let params = self.masters.parameters().params();
        // No format has more than four parts.
        let header = HEADER.0 * 4 * params.len() as u64 + HEADER.1;
        Ok(self.masters.parameters().bytes(recipe)? - body_of(params, recipe)?.1 - self.tables(recipe)? + header)
    }
}

/// The mix with the smallest sum of divergences.
fn mix(
    search: &Search,
    (items, outside): (&[Item], &[&ParamSpec]),
    (sensitivity, others): (&[(String, Vec<f64>)], &[f64]),
    budget: u64,
) -> Result<&'static Recipe, Error> {
    let options: Vec<Vec<Choice>> = items
        .iter()
        .zip(sensitivity)
        .map(|(item, (_, costs))| {
            let bytes = |format: &dyn Format| item.specs.iter().map(|spec| bytes_in(spec, format)).sum();
            search.formats.iter().zip(costs).map(|(f, cost)| Choice { bytes: bytes(*f), cost: *cost }).collect()
        })
        .collect();
    let mut best: Option<(f64, usize, Vec<usize>)> = None;
    for (base, format) in search.formats.iter().enumerate() {
        let taken: u64 = outside.iter().map(|spec| bytes_in(spec, *format)).sum();
        let Some(chosen) = budget.checked_sub(taken).and_then(|left| choose(&options, left)) else { continue };
        let sum = others.get(base).unwrap_or(&0.0) + options.iter().zip(&chosen).map(|(o, c)| o[*c].cost).sum::<f64>();
        // The spelling is shortest where the rest has the format of most layers.
        let same = |(_, base, chosen): &(f64, usize, Vec<usize>)| chosen.iter().filter(|c| *c == base).count();
        let found = (sum, base, chosen);
        if best.as_ref().is_none_or(|best| found.0 < best.0 || found.0 == best.0 && same(&found) > same(best)) {
            best = Some(found);
        }
    }
    let (_, base, chosen) = best.ok_or_else(|| Error::usage("no mix of these formats fits the target"))?;
    let part = |(item, format): (&Item, &usize)| item.spelled(search.formats[*format].name());
    let parts: String = items.iter().zip(&chosen).map(part).collect();
    let counted = items.iter().any(|item| item.part == TABLES);
    uniform(search.formats[base].name(), if counted { "" } else { TABLES_8 }, &parts)
}

impl<'a> Meter<'a> {
    /// With the answers of the network in full precision.
    fn new(search: &'a Search<'a>) -> Result<Self, Error> {
        let (parameters, config) = (search.masters.parameters(), &search.masters.model_config().config);
        let output = config.output();
        if !matches!(output, OutputKind::Tokens | OutputKind::Classes(_)) {
            let what = output.noun();
            return Err(Error::usage(format!(
                "the model is {what}: the divergence is one of logits, so name a recipe"
            )));
        }
        let full = recipe::find("f32")?;
        let (rows, widest) = (search.calibration.rows(output), search.calibration.widest());
        let logits = parameters.pass_bytes(0, rows);
        Footprint::new("take fewer --calibration-tokens, or name a recipe with --recipe")
            .and("weights in f32", parameters.bytes(full)?)
            .and("logits in full precision", logits)
            .and("activations", parameters.pass_bytes(widest, 2 * widest))
            .check()?;
        let model = search.masters.model_as(full, &Options::default())?;
        let options = calibrate::observe(&model, search.cpu.clone(), &search.calibration.batches)?.options();
        let mut exec = CpuExec::new(search.cpu.clone());
        let (mut reference, mut classes) = (Vec::new(), 0);
        for batch in &search.calibration.batches {
            let logits = exec.forward(&model, batch)?;
            classes = logits.width();
            reference.push(logits.to_vec());
        }
        if reference.iter().flatten().any(|logit| !logit.is_finite()) {
            return Err(Error::numeric("the logits in full precision are not finite"));
        }
        Ok(Meter { search, output, exec, reference, classes, options })
    }

    /// How far the answers under a recipe are from those in full precision.
    fn measure(&mut self, recipe: &'static Recipe) -> Result<BTreeMap<String, Measure>, Error> {
        let model = self.search.masters.model_as(recipe, &self.options)?;
        let mut all = Faithfulness::default();
        for (batch, reference) in self.search.calibration.batches.iter().zip(&self.reference) {
            let own = self.exec.forward(&model, batch)?.to_vec();
            let rows = reference.chunks_exact(self.classes).zip(own.chunks_exact(self.classes));
            rows.for_each(|(reference, own)| all.add(reference, own, 0));
        }
        all.check().map_err(|e| Error { message: format!("recipe {}: {}", recipe.name, e.message), ..e })?;
        let block = if self.output == OutputKind::Tokens { BLOCK } else { 1 };
        let kept = |(name, _): &(String, Measure)| [KL, SAME_TOP].contains(&name.as_str());
        Ok(all.measures(block).into_iter().filter(kept).collect())
    }
}

/// The formats of a list of names.
///
/// # Errors
/// Names the one that is unknown, with the nearest.
pub fn formats(names: &[String]) -> Result<Vec<&'static dyn Format>, Error> {
    let mut all: Vec<&'static dyn Format> = Vec::new();
    for name in names {
        let found = format::find(name.trim()).map_err(|e| Error::usage(format!("--formats: {e}")))?;
        if all.iter().all(|format| format.name() != found.name()) {
            all.push(found);
        }
    }
    Ok(all)
}
