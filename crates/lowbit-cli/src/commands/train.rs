//! `lowbit train`

use super::list::{self, List};
use super::{Machine, model, suite};
use crate::cluster;
use crate::failure::Failure;
use crate::progress::Bar;
use lowbit::language::{self, Given, Language};
use lowbit::plan::TrainingPlan;
use lowbit::start::quoted;
use lowbit::training::OfSuite;
use lowbit_base::text::duration;
use lowbit_eval::bench::host;
use lowbit_eval::record::Record;
use lowbit_kernels::Cpu;
use lowbit_model::recipe;
use lowbit_train::{Error, Outcome, Ranks, TrainConfig};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Stands for the trained model in the commands to go on with.
const OUT: &str = "\0";
/// More examples than any data set has, where the number is not known yet.
const MANY: usize = usize::MAX >> 16;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit train ag_news --variant ternary_qat --out models/ternary
  lowbit train --text book.txt --out models/book
  lowbit train --text book.txt --steps 3 --out models/try    # a trial of a few seconds
  lowbit train --data photos/ --variant ternary_qat --out models/photos   # a folder per class of PNG and JPEG images
  lowbit train bitnet-bytes-tiny --plan 3                    # what fits three hours on this machine
  lowbit train bitnet-bytes-tiny-f32 --out models/twin       # the same network in full precision
  lowbit train bitnet-bytes-tiny --distill models/twin --out models/student
  lowbit train my-model.toml --data ../shared/data --out models/mine
  mpirun -n 2 lowbit train bitnet-bytes-small --out models/small   # built with MPI: docs/cluster.md";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Train {
    /// Name of a suite or of a language model, or path of its TOML file: data, network and settings [default: quickstart,
    /// or the language model `text` with --text].
    suite: Option<String>,
    /// Train a language model on these files, plain or compressed, instead of its own texts.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "variant")]
    text: Vec<PathBuf>,
    /// Which trained variant of the suite, e.g. `f32` or `ternary_qat`.
    #[arg(long, alias = "contender", default_value = "f32")]
    variant: String,
    /// The network that is learnt from: where the suite names another variant, the trained directory of that one; of a language model
    /// any one in full precision with the same tokens.
    #[arg(long, visible_alias = "distill", value_name = "DIR")]
    teacher: Option<PathBuf>,
    /// The network whose weights the training of the variant begins from, where the suite names another variant: its trained directory.
    #[arg(long, value_name = "DIR", conflicts_with = "text")]
    init: Option<PathBuf>,
    /// Where the model goes; a run that was interrupted there is resumed.
    #[arg(short, long, visible_alias = "output-dir", required_unless_present_any = ["list", "plan"])]
    out: Option<PathBuf>,
    /// Train nothing: measure how fast networks of several sizes are trained here, and print the size, the tokens and the expected bits
    /// per byte that fit so many hours, for the settings of a language model.
    #[arg(long, value_name = "HOURS", conflicts_with_all = ["out", "teacher", "init", "strict"])]
    plan: Option<f64>,
    /// List suites, language models and recipes, and end.
    #[arg(long)]
    list: bool,
    /// Refuse a task some of whose test rows are among its training rows.
    #[arg(long, conflicts_with = "text")]
    strict: bool,
    /// Directory of the data sets [default: ../shared/data], or a folder of PNG and JPEG images with a folder per class.
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
    /// Seconds that a process of an MPI job waits for the others, in each exchange, before it ends with exit code 1. Each process has a
    /// batch of its own, so that an update sees as many times the sequences as there are processes.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    step_timeout: u64,
}

impl Train {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.list {
            return list::print(machine, &[List::Suites, List::LanguageModels, List::Recipes], self.data.as_deref());
        }
        let name = self.suite.as_deref().unwrap_or(if self.text.is_empty() { "quickstart" } else { "text" });
        match language::find(name)? {
            Some(_) if self.strict => Err(Failure::usage(format!(
                "`{name}` is a language model, which holds out a part of its texts: --strict has no use there"
            ))),
            Some(language) => match self.plan {
                Some(hours) => self.plan(&language, hours, machine),
                None => cluster::together(machine, self.step_timeout, |machine, ranks| {
                    self.language(language, machine, ranks)
                }),
            },
            None if self.plan.is_some() => Err(Failure::usage(format!(
                "`{name}` is no language model: --plan has no use there; `lowbit train --list` names them"
            ))),
            None if self.text.is_empty() => {
                cluster::together(machine, self.step_timeout, |machine, ranks| self.variant(name, machine, ranks))
            }
            None => Err(Failure::usage(format!("`{name}` is no language model: --text has no use there"))),
        }
    }

    /// Where the model goes; the command line demands it.
    fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }

    /// Trains a variant of a suite.
    fn variant(&self, suite: &str, machine: &Machine, ranks: &dyn Ranks) -> Result<(), Failure> {
        let images =
            self.data.as_deref().filter(|data| data.is_dir() && lowbit::suite::is_of_rows(self.suite.as_deref(), data));
        let data = self.data.as_deref().filter(|_| images.is_none());
        let whole = match images {
            Some(folder) => suite::of_rows(machine, folder)?,
            None => suite::find(machine, suite, data)?,
        };
        let whole = whole.resolved(data)?;
        let variant = whole.trained(&self.variant)?;
        let suite = whole.of(variant);
        let cpu = machine.cpu()?;
        machine.signals.defer();
        let config = on(ranks, self.settings(suite.train_config(variant)?)?);
        let job = OfSuite {
            suite: &whole,
            variant,
            config: &config,
            data,
            teacher: self.teacher.as_deref(),
            init: self.init.as_deref(),
            strict: self.strict,
            ranks,
        };
        let (Some(record), outcome) = job.train(self.out(), &cpu, &mut Bar::new(&machine.terminal))? else {
            return Ok(());
        };
        let folder = images.map(|folder| folder.display().to_string());
        let next = match &folder {
            Some(folder) => self.next(&[&["predict", OUT, folder]], &record),
            None => self.next(&[&["eval", OUT, "--task", &suite.task]], &record),
        };
        self.print(machine, &cpu, record, &outcome, &next)
    }

    /// Says what fits some hours.
    fn plan(&self, language: &Language, hours: f64, machine: &Machine) -> Result<(), Failure> {
        let cpu = machine.cpu()?;
        machine.signals.defer();
        let settings = self.settings(language.train_config()?)?;
        let plan = TrainingPlan::of((language, &settings), hours, &cpu, &mut Bar::new(&machine.terminal))?;
        if machine.json {
            return machine.terminal.json_object(json!({"host": host::facts(&cpu), "plan": plan}));
        }
        machine.terminal.lines(plan.lines());
        Ok(())
    }

    /// Trains a language model.
    fn language(&self, mut language: Language, machine: &Machine, ranks: &dyn Ranks) -> Result<(), Failure> {
        if !self.text.is_empty() {
            let whole = |path: &PathBuf| std::path::absolute(path).map_err(|e| Error::io(path, &e));
            language.texts = self.text.iter().map(whole).collect::<Result<_, _>>()?;
        }
        let cpu = machine.cpu()?;
        machine.signals.defer();
        let mut config = on(ranks, self.settings(language.train_config()?)?);
        let teacher = self.teacher.as_ref().map(|path| model::open_verified(machine, path, None, &cpu)).transpose()?;
        if teacher.is_some() {
            config.distill.get_or_insert_default();
        }
        let given = Given { data: self.data.as_deref(), teacher: teacher.as_ref(), ranks };
        let trained = language.train(&config, given, self.out(), &cpu, &mut Bar::new(&machine.terminal))?;
        let (outcome, Some(record)) = trained else { return Ok(()) };
        let description = self.out().join(language::FILE);
        let task = description.display().to_string();
        let next = self.next(&[&["eval", OUT, "--task", &task], &["run", OUT, "-p", "The "]], &record);
        self.print(machine, &cpu, record, &outcome, &next)
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
        // A warm-up that was asked for is refused where it does not fit, one of the description is shortened.
        let checked = if self.warmup_steps.is_some() { config.clone() } else { config.fitted(MANY) };
        checked.validate(MANY)?;
        Ok(config)
    }

    /// Commands to go on with, as a shell takes them; [`OUT`] stands for the model.
    fn next(&self, commands: &[&[&str]], record: &Record) -> Vec<String> {
        let out = self.out().display().to_string();
        let masters = recipe::find(&record.recipe).is_ok_and(|recipe| recipe.is_lossless());
        let recipe = if masters { "int8" } else { &record.recipe };
        let packed = format!("{out}-{recipe}");
        let quantize = ["quantize", OUT, "--recipe", recipe, "--out", &packed];
        let data = self.data.as_ref().map(|data| data.display().to_string());
        let all = commands.iter().copied().chain([&quantize[..]]);
        let line = |command: &[&str]| {
            let data = data.as_deref().filter(|_| command[0] == "eval").map(|data| ["--data", data]);
            let words = command.iter().chain(data.iter().flatten()).map(|word| match *word {
                OUT => quoted(&out),
                word => quoted(word),
            });
            format!("lowbit {}", words.collect::<Vec<_>>().join(" "))
        };
        all.map(line).collect()
    }

    /// Prints what a training did, and how to go on.
    fn print(
        &self,
        machine: &Machine,
        cpu: &Cpu,
        record: Record,
        outcome: &Outcome,
        next: &[String],
    ) -> Result<(), Failure> {
        if machine.json {
            return machine.terminal.records(host::facts(cpu), vec![record]);
        }
        let loss = outcome.loss.map_or(String::new(), |l| format!(", last loss {l:.4}"));
        let time = duration(outcome.seconds);
        machine.terminal.line(format!("{} updates in {time}{loss}: {}", outcome.step, self.out().display()));
        if let Some(bits) = record.measures.get("bits_per_byte") {
            machine
                .terminal
                .line(format!("held-out text: {:.4} bits per byte under recipe {}", bits.value, record.recipe));
        }
        machine.terminal.line("next:");
        next.iter().for_each(|command| machine.terminal.line(format!("  {command}")));
        Ok(())
    }
}

/// The settings of all processes together, each of which has those of the command line: an update takes the batches of all.
fn on(ranks: &dyn Ranks, config: TrainConfig) -> TrainConfig {
    TrainConfig { accumulation: config.accumulation.saturating_mul(ranks.size()), ..config }
}
