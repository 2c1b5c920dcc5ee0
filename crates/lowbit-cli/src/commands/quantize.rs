//! `lowbit quantize`

mod calibrated;

use super::list::{self, List};
use super::model::{self, ModelPath};
use super::{Machine, suite};
use crate::failure::Failure;
use lowbit::calibrated::Stage;
use lowbit::comparison;
use lowbit_base::memory::bytes;
use lowbit_base::text::duration;
use lowbit_eval::bench::host;
use lowbit_eval::facts::Stored;
use lowbit_eval::quantity;
use lowbit_eval::read::{Format, Source};
use lowbit_eval::record::{Measure, Record};
use lowbit_eval::sensitivity::{self, Calibration, Found, Measured, Search, Target, Unit};
use lowbit_eval::task;
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::{self, Options};
use lowbit_model::{Checkpoint, Inputs, Recipe, calibrate, recipe};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit quantize models/ternary --out models/ternary-2bit     # the recipe it was trained for
  lowbit quantize models/f32 --out models/int8                 # 8 bits, of full precision: int8_weight_only
  lowbit quantize models/f32 --recipe nf4 --out models/nf4
  lowbit quantize models/f32 --recipe nf4+layers.0-3=int8_channel --out models/mix
  lowbit quantize models/f32 --target-bits 3.5 --calibrate text.txt --out models/mix
  lowbit quantize models/f32 --recipe int4 --calibrate text.txt --out models/gptq     # weights rounded by GPTQ
  lowbit quantize -m org/name --recipe llm_int8 --task ag_news --out models/int8

With a target every layer is measured in every format: layers x formats passes over the calibration text (2,048 tokens unless
--calibration-tokens says otherwise), so minutes for a network of 100 million weights on a few cores.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Quantize {
    #[command(flatten)]
    model: ModelPath,
    /// Recipe: f32, bf16, int8, int8_channel, llm_int8, nf4, nf4_dq, int4, int2, ternary, bitnet, ..., with parts as in
    /// nf4+head=int4+layers.0-3=int8_channel [default: the one the model was trained for; int8_weight_only for full precision].
    #[arg(short, long)]
    recipe: Option<String>,
    /// Where the quantized model goes.
    #[arg(short, long, required_unless_present = "list")]
    out: Option<PathBuf>,
    /// List recipes, and end.
    #[arg(long)]
    list: bool,
    /// Text by which weights are rounded, and for --target-bits and --target-size: a plain text file, or the training texts of a
    /// suite or task.
    #[arg(long, value_name = "FILE|TASK|SUITE", group = "text")]
    calibrate: Option<String>,
    /// The same: the training rows of a task.
    #[arg(long, value_name = "NAME", group = "text")]
    task: Option<String>,
    /// Directory of the data sets, for --calibrate [default: ../shared/data].
    #[arg(long, env = "LOWBIT_DATA")]
    data: Option<PathBuf>,
    /// Tokens of the calibration text that are read (rows, where a network reads numbers) [default: 32768; 2048 for a target without
    /// --method].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    calibration_tokens: Option<u32>,
    #[command(flatten)]
    rounding: calibrated::Rounding,
    #[command(flatten)]
    mix: Mix,
}

/// A mix of formats that is looked for.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Mixed precision")]
struct Mix {
    /// Choose a format for each layer, with this many stored bits a weight in the body at most: all its matrices, scales and padding
    /// included. Table and head are not counted; they have 8 bits. With --method the mix is then rounded by it.
    #[arg(long, value_name = "BITS", conflicts_with_all = ["recipe", "target_size"], requires = "text", value_parser = bits)]
    target_bits: Option<f64>,
    /// The same for the whole file of weights, as in 60MB; table and head have a format of their own.
    #[arg(long, value_name = "SIZE", conflicts_with = "recipe", requires = "text", value_parser = quantity::size)]
    target_size: Option<f64>,
    /// Formats that a layer may have.
    #[arg(long, value_delimiter = ',', default_value = sensitivity::FORMATS)]
    formats: Vec<String>,
    /// What has a format of its own; with matrices there are about seven times as many measurements.
    #[arg(long, value_parser = ["layer", "matrix"], default_value = "layer")]
    per: String,
}

/// The plain text that a name stands for, if it is one.
fn plain_text(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    let is_suite = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
    let source = Source { path: Some(path.into()), ..Source::default() };
    let is_table = source.format().is_ok_and(|format| format != Format::Text);
    (path.is_file() && !is_suite && !is_table).then_some(path)
}

/// Bits of a weight.
fn bits(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|bits| *bits > 0.0 && *bits <= 32.0).ok_or("give a number of bits up to 32".into())
}

impl Quantize {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.list {
            return list::print(machine, &[List::Recipes], None);
        }
        let recipe = self.recipe.as_deref().map(recipe::find).transpose()?;
        let (path, cpu) = (self.model.path()?, machine.cpu()?);
        if let Some(target) = self.mix.target() {
            return self.run_mix(machine, path, target, &cpu);
        }
        let masters = model::open_verified(machine, path, None, &cpu)?;
        let recipe = recipe.map_or_else(|| masters.kept_or_trained_for(), |asked| Ok(masters.resolve(asked)))?;
        machine.terminal.notes(masters.departure(recipe)?);
        let record = match self.rounding.how(recipe, self.text().is_some())? {
            calibrated::How::Plain => self.store(machine, &masters, recipe, &Options::default())?,
            calibrated::How::Outliers => {
                let options =
                    comparison::calibrated(&masters, &self.inputs(machine, self.text().unwrap_or_default())?, &cpu)?;
                self.store(machine, &masters, recipe, &options)?
            }
            calibrated::How::Imatrix(file) => {
                let observed = calibrate::read_imatrix(file, masters.parameters())?;
                machine.terminal.notes(calibrated::lacking(&observed, &masters));
                self.store(machine, &masters, recipe, &observed.importance())?
            }
            calibrated::How::Method(method) => self.store_calibrated(machine, &masters, recipe, method, &cpu)?,
        };
        match machine.json {
            true => machine.terminal.records(host::facts(&cpu), vec![record]),
            false => Ok(()),
        }
    }

    /// What the calibration text is called.
    fn text(&self) -> Option<&str> {
        self.calibrate.as_deref().or(self.task.as_deref())
    }

    /// The calibration text, of so many tokens unless the command line says otherwise.
    fn calibration(&self, machine: &Machine, masters: &Checkpoint, tokens: usize) -> Result<Calibration, Failure> {
        self.calibration_of(machine, masters, self.calibration_tokens.map_or(tokens, |tokens| tokens as usize))
    }

    /// The first tokens of the calibration text.
    fn calibration_of(&self, machine: &Machine, masters: &Checkpoint, tokens: usize) -> Result<Calibration, Failure> {
        let name = self.text().unwrap_or_default();
        match plain_text(name).filter(|_| self.task.is_none()) {
            Some(file) => Ok(Calibration::of_text(file, masters, tokens)?),
            None => Ok(Calibration::of_inputs(&self.inputs(machine, name)?, masters, tokens)?),
        }
    }

    /// The training rows that a name stands for, or the lines of a text.
    fn inputs(&self, machine: &Machine, name: &str) -> Result<Inputs, Failure> {
        let data = self.data.as_deref();
        let splits = match self.task.is_some() {
            true => task::find(name)?.load(data)?,
            false => {
                if let Some(file) = plain_text(name) {
                    return Ok(sensitivity::lines(file)?);
                }
                match (suite::find(machine, name, data), task::find(name)) {
                    (Ok(suite), _) => suite::load(machine, &suite, data)?.1,
                    (Err(_), Ok(task)) => task.load(data)?,
                    (Err(failure), Err(_)) => return Err(failure),
                }
            }
        };
        match splits.train.is_empty() {
            true => Err(Failure::usage(format!("{name}: the task has no training rows; name a text file"))),
            false => Ok(splits.train.inputs),
        }
    }

    /// Writes the model, says so, and gives its record.
    fn store(
        &self,
        machine: &Machine,
        masters: &Checkpoint,
        recipe: &'static Recipe,
        options: &Options,
    ) -> Result<Record, Failure> {
        machine.signals.defer();
        checkpoint::quantize(masters, recipe, options, self.out())?;
        self.stored(machine, masters, recipe)
    }

    /// Says what was written, and gives its record.
    fn stored(&self, machine: &Machine, masters: &Checkpoint, recipe: &'static Recipe) -> Result<Record, Failure> {
        let stored = checkpoint::weights_of(self.out());
        let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
        let (before, after) = (masters.files().into_iter().map(size).sum(), size(&stored));
        if !machine.json {
            let (name, from, to) = (recipe.name, bytes(before), bytes(after));
            machine.terminal.line(format!("{name}: {from} -> {to} on disk: {}", self.out().display()));
        }
        let about = Stored { weights: &stored, kind: recipe.name, made: "quantized", parent: masters.path() };
        Ok(about.record(self.out(), masters)?)
    }

    /// Looks for a mix under a target, and stores it.
    fn run_mix(&self, machine: &Machine, path: &Path, target: Target, cpu: &Cpu) -> Result<(), Failure> {
        machine.signals.defer();
        let formats = sensitivity::formats(&self.mix.formats)?;
        let masters = model::open_verified(machine, path, Some(recipe::find("f32")?), cpu)?;
        let method = self.rounding.with_target()?;
        let calibration = match method {
            // --calibration-tokens are those of the method.
            Some(_) => self.calibration_of(machine, &masters, sensitivity::TOKENS)?,
            None => self.calibration(machine, &masters, sensitivity::TOKENS)?,
        };
        let unit = if self.mix.per == "matrix" { Unit::Matrix } else { Unit::Layer };
        let search = Search { masters: &masters, formats: &formats, target, unit, calibration: &calibration, cpu };
        let mut watch = Watch { start: Instant::now(), last: 0.0 };
        let found = sensitivity::search(&search, &mut |done, all| {
            if let Some(line) = watch.line(done, all, calibration.tokens) {
                machine.terminal.note(line);
            }
        })?;
        let chosen = &found.measured[found.chosen];
        if !machine.json {
            machine.terminal.lines(table(&found));
            machine.terminal.lines(most_sensitive(&found, &formats));
            if let Some(mix) = found.mix.filter(|mix| *mix != found.chosen) {
                let (name, mix) = (chosen.recipe.name, found.measured[mix].recipe.name);
                machine.terminal.line(format!("`{name}` is closer to f32 than the mix `{mix}`, and is taken"));
            }
        }
        let mut record = match method {
            Some(method) => self.store_calibrated(machine, &masters, chosen.recipe, method, cpu)?,
            None => self.store(machine, &masters, chosen.recipe, &found.options)?,
        };
        if !machine.json {
            return Ok(());
        }
        record.measures.extend(measures(chosen).into_iter().filter(|(name, _)| name != "weight_bytes"));
        record.detail.reference = Some("f32".into());
        let others = found.measured.iter().enumerate().filter(|(at, _)| *at != found.chosen);
        let others = others.map(|(_, m)| Record {
            model: path.display().to_string(),
            recipe: m.recipe.name.into(),
            measures: measures(m),
            detail: lowbit_eval::record::Detail { reference: Some("f32".into()), ..Default::default() },
            ..record.clone()
        });
        let records: Vec<Record> = [record.clone()].into_iter().chain(others).collect();
        machine.terminal.records(host::facts(cpu), records)
    }

    /// Where the model goes; the command line demands it.
    fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }
}

impl Mix {
    fn target(&self) -> Option<Target> {
        self.target_bits.map(Target::Bits).or(self.target_size.map(|size| Target::Size(size as u64)))
    }
}

/// Tells how far the measurements are.
struct Watch {
    start: Instant,
    /// Seconds at the last line.
    last: f64,
}

impl Watch {
    /// Seconds between lines.
    const EVERY: f64 = 10.0;

    fn line(&mut self, done: usize, all: usize, tokens: usize) -> Option<String> {
        let seconds = self.start.elapsed().as_secs_f64();
        if done == 0 {
            return Some(format!("measuring {all} times on {tokens} tokens of calibration text"));
        }
        if seconds - self.last < Self::EVERY {
            return None;
        }
        self.last = seconds;
        let left = duration(seconds / done as f64 * (all - done) as f64);
        Some(format!("  {done} of {all} measured, {left} left"))
    }

    /// The same of what a method does; the watch begins anew with its second part.
    fn of(watch: &mut Option<Watch>, stage: Stage) -> Option<String> {
        if matches!(stage, Stage::Trained(1, ..)) {
            *watch = None;
        }
        let watch = watch.get_or_insert_with(|| Watch { start: Instant::now(), last: 0.0 });
        let seconds = watch.start.elapsed().as_secs_f64();
        let (done, all) = match stage {
            Stage::Rounded(done, all) => (done as u64, all as u64),
            Stage::Trained(done, all, _) => (done, all),
        };
        if seconds - watch.last < Self::EVERY || done == all {
            return None;
        }
        watch.last = seconds;
        Some(match stage {
            Stage::Rounded(..) => format!("  {done} of {all} matrices rounded"),
            Stage::Trained(_, _, loss) => {
                // The first update is not timed.
                let left = duration(seconds / (done - 1).max(1) as f64 * (all - done) as f64);
                format!("  {done} of {all} updates, divergence {loss:.4}, {left} left")
            }
        })
    }
}

/// The measures of a recipe that was tried.
fn measures(tried: &Measured) -> std::collections::BTreeMap<String, Measure> {
    let mut all = tried.measures.clone();
    all.insert("bits_per_weight".into(), Measure::measured(tried.bits, "bits", 1));
    all.insert("weight_bytes".into(), Measure::measured(tried.bytes as f64, "bytes", 1));
    all
}

/// The parts that suffer most in the format that costs most.
fn most_sensitive(found: &Found, formats: &[&'static dyn lowbit_kernels::Format]) -> Option<String> {
    let total = |at: usize| found.sensitivity.iter().map(|(_, costs)| costs[at]).sum::<f64>();
    let worst = (0..formats.len()).max_by(|a, b| total(*a).total_cmp(&total(*b)))?;
    let mut parts: Vec<(&str, f64)> =
        found.sensitivity.iter().map(|(part, costs)| (part.as_str(), costs[worst])).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let shown = parts.iter().take(3).map(|(part, nats)| format!("{part} ({nats:.6} nats)"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    Some(format!("most sensitive, alone in `{}`: {shown}", formats[worst].name()))
}

/// What was measured, a line for each recipe, by bytes.
fn table(found: &Found) -> Vec<String> {
    let wide = found.measured.iter().map(|m| m.recipe.name.len()).max().unwrap_or(0).clamp(6, 60);
    let mut lines =
        vec![format!("{:wide$}  {:>6}  {:>10}  {:>11}  {:>8}", "recipe", "bits", "weights", "KL, nats", "same top")];
    for (at, tried) in found.measured.iter().enumerate() {
        let same = tried.measures.get(lowbit_eval::faithfulness::SAME_TOP).map_or(0.0, |m| m.value);
        let remark = match (at == found.chosen, tried.fits) {
            (true, _) => "  taken",
            (false, true) => "",
            (false, false) => "  beyond the target",
        };
        lines.push(format!(
            "{:wide$}  {:>6.3}  {:>10}  {:>11.6}  {:>6.2} %{remark}",
            tried.recipe.name,
            tried.bits,
            bytes(tried.bytes),
            tried.kl(),
            same * 100.0
        ));
    }
    lines
}
