//! `lowbit quantize` with a calibration text or an importance matrix.

use super::{Quantize, Watch};
use crate::commands::Machine;
use crate::failure::Failure;
use lowbit::calibrated::{self, Done, Texts};
use lowbit::train::{Tuned, Tuning};
use lowbit_base::text::duration;
use lowbit_eval::record::{Measure, Record};
use lowbit_eval::sensitivity::{self, Calibration};
use lowbit_kernels::Cpu;
use lowbit_model::calibrate::{self, METHODS, Method, Observed, Origin, Rounded};
use lowbit_model::checkpoint::{self, Options};
use lowbit_model::{Checkpoint, Recipe, recipe};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How weights are rounded.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Rounding")]
pub(super) struct Rounding {
    /// How weights are rounded with a calibration text [default: gptq].
    #[arg(long, value_parser = METHODS.iter().map(|method| method.name).collect::<Vec<_>>())]
    method: Option<String>,
    /// Updates of --method trained, each by 1,024 tokens of the calibration text, which is read as far as they need it
    /// [default: 300].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    steps: Option<u64>,
    /// Highest learning rate of --method trained, in units of codes [default: 0.003].
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f32>,
    /// Importance matrix of llama.cpp (GGUF): scales are chosen by the mean square of each input, in place of a calibration text.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    imatrix: Option<PathBuf>,
    /// Write the mean squares of the inputs over the calibration text as an importance matrix of llama.cpp.
    #[arg(long, value_name = "FILE", requires = "text")]
    save_imatrix: Option<PathBuf>,
}

/// What is to be done.
pub(super) enum How<'a> {
    /// Nothing is known but the weights.
    Plain,
    /// Outlier features are looked for.
    Outliers,
    /// Scales are chosen by an importance matrix.
    Imatrix(&'a Path),
    /// A forward pass over the calibration text.
    Method(&'static Method),
}

impl Rounding {
    /// The method that is asked for.
    fn method(&self) -> Result<Option<&'static Method>, Failure> {
        let method = self.method.as_deref().map(Method::find).transpose()?;
        let of_training = [("--steps", self.steps.is_some()), ("--learning-rate", self.learning_rate.is_some())];
        match (method, of_training.into_iter().find(|(_, given)| *given)) {
            (Some(method), Some((name, _))) if !method.trains() => {
                Err(Failure::usage(format!("{name} is for --method trained, not {}: leave it out", method.name)))
            }
            (None, Some((name, _))) => Err(Failure::usage(format!("{name} is for --method trained: name it too"))),
            _ => Ok(method),
        }
    }

    /// How a network is trained.
    fn tuning(&self) -> Tuning {
        let standard = Tuning::default();
        Tuning {
            steps: self.steps.unwrap_or(standard.steps),
            learning_rate: self.learning_rate.unwrap_or(standard.learning_rate),
            ..standard
        }
    }

    /// What is to be done under a recipe, with or without a calibration text.
    pub fn how(&self, recipe: &Recipe, text: bool) -> Result<How<'_>, Failure> {
        let method = self.method()?;
        match (method, &self.imatrix, text) {
            (Some(method), Some(_), _) if method.needs_text() => Err(Failure::usage(format!(
                "--method {} needs --calibrate: an importance matrix is not enough",
                method.name
            ))),
            (_, Some(file), _) => Ok(How::Imatrix(file)),
            (Some(method), None, false) if method.needs_text() => Err(Failure::usage(format!(
                "--method {} needs a text to calibrate with: --calibrate FILE",
                method.name
            ))),
            (_, None, false) => Ok(How::Plain),
            (None, None, true) if self.save_imatrix.is_none() && recipe.keeps_outliers()? => Ok(How::Outliers),
            (method, None, true) => Ok(How::Method(method.map_or_else(|| Method::find("gptq"), Ok)?)),
        }
    }

    /// How a mix that was looked for is rounded, if not to nearest by the mean squares of the search.
    pub fn with_target(&self) -> Result<Option<&'static Method>, Failure> {
        let method = self.method()?;
        match (method, &self.save_imatrix) {
            (None, Some(_)) => {
                Err(Failure::usage("--save-imatrix needs --method beside --target-bits or --target-size"))
            }
            _ => Ok(method),
        }
    }
}

/// What to say when an importance matrix does not know every matrix.
pub(super) fn lacking(observed: &Observed, masters: &Checkpoint) -> Option<String> {
    let (known, all) = (observed.iter().count(), masters.parameters().matrices());
    let text = format!("the importance matrix knows {known} of {all} matrices; inputs of the others count the same");
    (known < all).then_some(text)
}

impl Quantize {
    /// Rounds with a calibration text, writes the model, says so, and gives its record.
    pub(super) fn store_calibrated(
        &self,
        machine: &Machine,
        masters: &Checkpoint,
        recipe: &'static Recipe,
        method: &'static Method,
        cpu: &Cpu,
    ) -> Result<Record, Failure> {
        machine.signals.defer();
        let calibration = self.calibration(machine, masters, sensitivity::QUANTIZE_TOKENS)?;
        if let Some(file) = &self.rounding.save_imatrix {
            self.save_imatrix(masters, &calibration, file, cpu)?;
        }
        let tuning = self.rounding.tuning();
        let text = method.trains().then(|| self.calibration_of(machine, masters, tuning.reads())).transpose()?;
        let texts = Texts { rounding: &calibration, training: text.as_ref().map(|text| (text, tuning)) };
        let (start, mut watch) = (Instant::now(), None);
        let Done { mut quantized, rounded, tuned } =
            calibrated::quantize(masters, recipe, method, texts, cpu, &mut |stage| {
                machine.terminal.notes(Watch::of(&mut watch, stage));
            })?;
        let seconds = start.elapsed().as_secs_f64();
        checkpoint::save_quantized(masters, recipe, &mut quantized, self.out())?;
        let mut record = self.stored(machine, masters, recipe)?;
        record.detail.method = Some(method.name.into());
        let error = mean_error(&rounded);
        if !machine.json {
            let (tokens, gptq) = (calibration.tokens, rounded.iter().filter(|one| one.gptq).count());
            let how = match gptq {
                0 => String::new(),
                _ => format!(", {gptq} of them by GPTQ"),
            };
            machine.terminal.line(format!(
                "{}: {} matrices{how}, {tokens} tokens, {}; mean error of outputs {:.3} %",
                method.name,
                rounded.len(),
                duration(seconds),
                error * 100.0
            ));
            machine.terminal.lines(tuned.map(|tuned| {
                let (Tuned { matrices, before, after }, steps) = (tuned, tuning.steps);
                let text = format!(
                    "{steps} updates of {matrices} matrices: divergence from full precision on held-out text {before:.4}, then {after:.4}"
                );
                if tuned.is_better() { text } else { text + "; kept as it was rounded" }
            }));
        }
        if let Some(tuned) = tuned {
            record
                .measures
                .insert("train_loss".into(), Measure::measured(tuned.before.min(tuned.after), "nats", tuning.steps));
        }
        record.measures.insert("output_error".into(), Measure::measured(error, "fraction", rounded.len() as u64));
        record.measures.insert("quantize_seconds".into(), Measure::measured(seconds, "seconds", 1));
        Ok(record)
    }

    /// Runs the network in full precision and writes what its matrices read.
    fn save_imatrix(
        &self,
        masters: &Checkpoint,
        calibration: &Calibration,
        file: &Path,
        cpu: &Cpu,
    ) -> Result<(), Failure> {
        let model = masters.model_as(recipe::find("f32")?, &Options::default())?;
        let observed = calibrate::observe(&model, cpu.clone(), calibration.batches())?;
        let batches = calibration.batches().iter();
        let longest = batches.clone().flat_map(|batch| batch.cu_seqlens.windows(2).map(|span| span[1] - span[0])).max();
        let origin = Origin {
            datasets: self.text().map(String::from).into_iter().collect(),
            chunks: batches.map(|batch| batch.sequences()).sum(),
            chunk_size: longest.unwrap_or(0),
        };
        Ok(calibrate::save_imatrix(file, masters.parameters(), &observed, &origin)?)
    }
}

/// Mean of the errors of the matrices' outputs.
fn mean_error(rounded: &[Rounded]) -> f64 {
    rounded.iter().map(|one| one.error).sum::<f64>() / rounded.len().max(1) as f64
}
