//! `lowbit train`

use super::Machine;
use crate::failure::Failure;
use crate::language::{self, Language};
use crate::training::{self, Interrupt, TokenRows, Work};
use crate::{host, measure, output, suite};
use lowbit_eval::record::{Detail, Host, Record};
use lowbit_model::Tokenizer;
use lowbit_train::{Outcome, TrainConfig};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Train {
    /// Name of a suite or of a language model, or path of its TOML file: data, network and settings [default: quickstart,
    /// or the language model `text` with --text].
    suite: Option<String>,
    /// Train a language model on these files, plain or compressed, instead of its own texts.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "contender")]
    text: Vec<PathBuf>,
    /// Which trained contender of the suite, e.g. `f32` or `ternary_qat`.
    #[arg(long, default_value = "f32")]
    contender: String,
    /// Where the model goes; a run that was interrupted there is resumed.
    #[arg(short, long, visible_alias = "output-dir")]
    out: PathBuf,
    /// Directory of the data sets [default: ../shared/data].
    #[arg(long, env = "LOWBIT_DATA")]
    data: Option<PathBuf>,
    /// Highest learning rate.
    #[arg(long, allow_negative_numbers = true)]
    learning_rate: Option<f32>,
    /// Sequences per forward pass.
    #[arg(long, visible_alias = "per-device-train-batch-size")]
    batch_size: Option<usize>,
    /// Forward passes per update.
    #[arg(long)]
    gradient_accumulation_steps: Option<usize>,
    /// Passes over the data.
    #[arg(long, visible_alias = "num-train-epochs", conflicts_with = "steps")]
    epochs: Option<f64>,
    /// Updates of the weights.
    #[arg(long, visible_alias = "max-steps")]
    steps: Option<u64>,
    /// Updates over which the learning rate rises.
    #[arg(long)]
    warmup_steps: Option<u64>,
    /// Decoupled weight decay.
    #[arg(long, allow_negative_numbers = true)]
    weight_decay: Option<f32>,
    /// Updates between checkpoints.
    #[arg(long)]
    save_steps: Option<u64>,
    /// Seed of initialisation, order and dropout.
    #[arg(short, long)]
    seed: Option<u64>,
}

impl Train {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let name = self.suite.as_deref().unwrap_or(if self.text.is_empty() { "quickstart" } else { "text" });
        match language::find(name)? {
            Some(language) => self.language(language, machine),
            None if self.text.is_empty() => self.contender(name, machine),
            None => Err(Failure::usage(format!("`{name}` is no language model: --text has no use there"))),
        }
    }

    /// Trains a contender of a suite.
    fn contender(&self, suite: &str, machine: &Machine) -> Result<(), Failure> {
        let suite = suite::find(suite)?;
        let contender = suite.contender(&self.contender)?;
        if let Some(parent) = &contender.from {
            let (name, recipe) = (&contender.name, &contender.recipe);
            return Err(Failure::usage(format!(
                "contender `{name}` is not trained but made from `{parent}`: train that and run `lowbit quantize --recipe {recipe}`"
            )));
        }
        let cpu = machine.cpu()?;
        let config = self.settings(suite.train_config(contender)?)?;
        let (task, splits) = suite::load(&suite, self.data.as_deref())?;
        let tokenizer = suite.make_tokenizer(&splits.train)?;
        let card = suite.card(&task, &tokenizer, contender)?;
        let rows = TokenRows::new(&splits.train, &tokenizer, suite.max_length)?;
        let work = Work {
            name: &contender.name,
            card: &card,
            tokenizer: &tokenizer,
            data: &rows,
            held_out: None,
            config: &config,
        };
        let outcome = training::run(&work, &self.out, &cpu, &Interrupt::listen()?)?;
        self.tell(machine, host::facts(&cpu), &task.id(), &work, &outcome)
    }

    /// Trains a language model.
    fn language(&self, mut language: Language, machine: &Machine) -> Result<(), Failure> {
        if !self.text.is_empty() {
            let whole = |path: &PathBuf| std::path::absolute(path).map_err(|e| Failure::io(path, &e));
            language.texts = self.text.iter().map(whole).collect::<Result<_, _>>()?;
        }
        let cpu = machine.cpu()?;
        let config = self.settings(language.train_config()?)?;
        let tokenizer = Tokenizer::bytes();
        let card = language.card(&tokenizer)?;
        let texts = language.texts(self.data.as_deref(), &tokenizer)?;
        let (windows, held_out) = texts.windows(language.context)?;
        let work = Work {
            name: &language.name,
            card: &card,
            tokenizer: &tokenizer,
            data: &windows,
            held_out: held_out.as_ref(),
            config: &config,
        };
        let outcome = training::run(&work, &self.out, &cpu, &Interrupt::listen()?)?;
        self.tell(machine, host::facts(&cpu), &language.name, &work, &outcome)
    }

    /// The settings of a description with what the command line changes; checked before any data are read.
    fn settings(&self, mut config: TrainConfig) -> Result<TrainConfig, Failure> {
        config.learning_rate = self.learning_rate.unwrap_or(config.learning_rate);
        config.batch_size = self.batch_size.unwrap_or(config.batch_size);
        config.accumulation = self.gradient_accumulation_steps.unwrap_or(config.accumulation);
        config.warmup_steps = self.warmup_steps.unwrap_or(config.warmup_steps);
        config.weight_decay = self.weight_decay.unwrap_or(config.weight_decay);
        config.save_every = self.save_steps.unwrap_or(config.save_every);
        config.seed = self.seed.unwrap_or(config.seed);
        if self.steps.is_some() || self.epochs.is_some() {
            (config.steps, config.epochs) = (self.steps, self.epochs);
        }
        config.validate(usize::MAX >> 16)?;
        Ok(config)
    }

    /// Prints what a training did.
    fn tell(&self, machine: &Machine, host: Host, task: &str, work: &Work, outcome: &Outcome) -> Result<(), Failure> {
        let detail = Detail {
            made: "trained".into(),
            seed: Some(work.config.seed),
            curve: measure::curve(&self.out)?,
            model_sha256: Some(measure::sha256(&self.out.join("model.safetensors"))?),
            ..Detail::default()
        };
        let record = Record {
            task: task.into(),
            model: work.name.into(),
            recipe: "f32".into(),
            params: outcome.parameters as u64,
            measures: measure::training(outcome.seconds),
            detail,
        };
        if machine.json {
            return output::json(&output::results(host, vec![record]));
        }
        let loss = outcome.loss.map_or(String::new(), |l| format!(", last loss {l:.4}"));
        let time = output::duration(outcome.seconds);
        output::line(format!("{} updates in {time}{loss}: {}", outcome.step, self.out.display()));
        Ok(())
    }
}
