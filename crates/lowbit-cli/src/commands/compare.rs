//! `lowbit compare`

use super::list::{self, List};
use super::{Machine, bench, emit, probe, suite};
use crate::failure::Failure;
use crate::progress::Bar;
use crate::terminal::tool;
use lowbit::Progress;
use lowbit::comparison::{self, ALL, Asked, Missing, Program, Share, TARIFF};
use lowbit::start::quoted;
use lowbit::suite::Suite;
use lowbit_eval::bench::host;
use lowbit_eval::bench::shapes::{self, ShapeRecipes};
use lowbit_eval::predict::Shard;
use lowbit_eval::quantity::{points, size, time};
use lowbit_eval::record::{Constraints, Results};
use lowbit_eval::report;
use lowbit_kernels::Cpu;
use lowbit_model::Column;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit compare                                   # the suite `quickstart`: needs no data, minutes
  lowbit compare ag_news --data ../shared/data     # real data
  lowbit compare sst2                              # any task, with default networks
  lowbit compare MODEL --data reviews.csv          # a published model on your own rows: trained further, or as it is
  lowbit compare --data reviews.csv                # the same with small networks, trained here
  lowbit compare --data photos/                    # a folder per class of PNG and JPEG images, networks trained here
  lowbit compare ag_news --max-size 2MB --max-loss 0.5   # what to choose under these limits
  lowbit compare quickstart --seeds 3              # three trainings of every network: mean and interval over them
  lowbit compare enwik8 --quick                    # language models of bytes, in full precision and ternary
  lowbit compare gpt2-agnews --random-weights      # speed and memory of the published shapes
  lowbit compare bitlab --quick                    # ternary layers, perceptrons and image networks: five tasks, ten benches
  lowbit compare bitnet-laptop --quick             # BitNet, Bonsai, Llama and Qwen3 shapes on this machine: speed, memory, energy
  lowbit compare all --quick                       # the five studies one after another, and a page that leads to their reports
  lowbit compare --list                            # with the time and the data that each takes
  lowbit compare bitlab --out runs/b --shards 8 --emit slurm > job.sh   # on a cluster; also --shard 1/8 by hand
  lowbit compare my-suite.toml --out runs/mine     # a suite of your own; the same command resumes it";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Compare {
    /// Name of a suite or a task, or path of the TOML file of one; a task alone is compared by a suite of default networks; `all` for
    /// the suites that redo a study.
    /// With a file of rows a model: a directory, a file, or an `org/name` in the Hub's cache [default: quickstart].
    suite: Option<String>,
    /// Directory of the data sets [default: ../shared/data], a file of rows (CSV, TSV, JSON lines or Parquet), or a folder of PNG and
    /// JPEG images with a folder per class.
    #[arg(long, env = "LOWBIT_DATA")]
    data: Option<PathBuf>,
    /// With a file of rows: columns of the text by name or position from 0, two for pairs [default: the one with the longest texts].
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    text: Vec<String>,
    /// With a file of rows: column of the class [default: by its name and values].
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Directory of the comparison [default: runs/<suite>-<UTC time>, or an unfinished one].
    #[arg(short, long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    /// Measure speed and memory of the published shapes that the suite names, with random weights; nothing about quality.
    #[arg(long, conflicts_with_all = ["text", "label", "out", "max_size", "max_latency", "max_loss", "full", "shard", "emit"])]
    random_weights: bool,
    /// Train shorter and measure less, as `[quick]` of the suite says: minutes, and figures of a try.
    #[arg(long, conflicts_with = "random_weights")]
    quick: bool,
    /// What a kilowatt-hour costs, in any currency, for the cost of electricity where energy can be measured.
    #[arg(long, value_name = "PRICE", default_value_t = TARIFF, value_parser = price)]
    tariff: f64,
    /// Make one share of the variants and studies, those that need one another together, and write no report. Runs may share --out; of
    /// others `lowbit merge` puts the directories together. The same command without --shard then writes the report.
    #[arg(long, value_name = "I/N", requires = "out", conflicts_with = "full")]
    shard: Option<Shard>,
    /// Shards that the script of --emit has.
    #[arg(long, value_name = "N", requires = "emit", conflicts_with = "shard")]
    #[arg(default_value_if("emit", clap::builder::ArgPredicate::IsPresent, "8"), value_parser = clap::value_parser!(u32).range(1..=100_000))]
    shards: Option<u32>,
    /// Print a script that makes all shards as jobs, and compare nothing.
    #[arg(long, value_name = "SCHEDULER", requires = "out", conflicts_with = "shard")]
    emit: Option<emit::Scheduler>,
    /// Train every network so many times, each from another seed, and report the mean over them with its interval.
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, value_parser = clap::value_parser!(u64).range(1..=100))]
    #[arg(conflicts_with_all = ["random_weights", "shard", "emit"])]
    seeds: u64,
    /// List suites, tasks and recipes, and end.
    #[arg(long)]
    list: bool,
    /// Print the whole report instead of its summary.
    #[arg(long)]
    full: bool,
}

/// What the variant to choose must keep.
#[derive(Debug, clap::Args)]
pub(super) struct Limits {
    /// Choose under a limit: weights at most so large, as in 100MB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<f64>,
    /// Choose under a limit: a median latency of at most so much, as in 10ms.
    #[arg(long, value_name = "TIME", value_parser = time)]
    max_latency: Option<f64>,
    /// Choose under a limit: a measured loss of at most so many points.
    #[arg(long, value_name = "POINTS", value_parser = points)]
    max_loss: Option<f64>,
}

impl Limits {
    /// What was asked, if anything was.
    pub(super) fn constraints(&self) -> Option<Constraints> {
        let asked = Constraints {
            weight_bytes: self.max_size,
            latency_p50: self.max_latency,
            loss: self.max_loss.map(|p| p / 100.0),
        };
        (asked != Constraints::default()).then_some(asked)
    }
}

/// Lines of the summary, without those about where the report is.
pub(super) const LINES: usize = 22;
/// Characters of a line where nothing tells how wide the terminal is.
const WIDTH: usize = 120;

/// Prints a comparison in so many lines, or the whole report.
pub(super) fn show(machine: &Machine, results: &Results, is_full: bool, lines: usize) {
    let width = machine.terminal.width().unwrap_or(WIDTH);
    match is_full {
        true => machine.terminal.lines(report::text(results, width)),
        false => machine.terminal.lines(report::summary(results, lines, width)),
    }
    machine.terminal.line("");
}

impl Compare {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.list {
            return list::print(machine, &[List::Suites, List::Tasks, List::Recipes], self.data.as_deref());
        }
        if self.random_weights {
            return self.random_weights(machine);
        }
        if let Some(scheduler) = self.emit {
            let last = emit::without(std::env::args().skip(1), &["--emit", "--shards"]);
            machine.terminal.data(&emit::script(scheduler, self.shards.unwrap_or(1), &last, &last)?);
            return Ok(());
        }
        let cpu = machine.cpu()?;
        let program = Program {
            tool: tool(),
            command: machine.terminal.command(),
            probe: &probe::start,
            bench: &bench::with,
            constraints: self.limits.constraints(),
            seeds: self.seeds,
            tariff: self.tariff,
            share: Share::new(self.shard),
        };
        let mut bar = Bar::new(&machine.terminal);
        if self.name() == ALL {
            return self.all(machine, &cpu, &program, &mut bar);
        }
        let is_of_rows = self.rows().is_some();
        let data = self.data.as_deref().filter(|_| !is_of_rows);
        let asked = match is_of_rows {
            true => Asked::of(self.suite()?, self.quick)?,
            false => Asked::find(self.named()?, self.quick, data)?,
        };
        if let Asked::Suite(suite) = &asked
            && self.seeds > 1
            && !suite.is_trained()
        {
            let text = format!("suite {} trains nothing, and --seeds is for trainings: leave it out", suite.name);
            return Err(Failure::usage(text));
        }
        machine.terminal.notes(asked.notice().cloned());
        machine.signals.defer();
        let (out, results) = asked.run(data, self.out.as_deref(), &cpu, &program, &mut bar)?;
        if machine.json {
            return machine.terminal.json(&results);
        }
        if let Some(shard) = self.shard {
            shared(machine, shard, &results);
            return Ok(());
        }
        show(machine, &results, self.full, LINES);
        machine.terminal.line(format!("The report: {}", out.join("report.html").display()));
        // The variants of a group lie in the directories of its suites.
        let suite = matches!(asked, Asked::Suite(_));
        if let Some(name) = report::recommended(&results).filter(|_| suite) {
            let model = out.join("variants").join(name).join("model").display().to_string();
            machine.terminal.line(format!("Use it on new rows: lowbit predict {} FILE", quoted(&model)));
        }
        Ok(())
    }

    /// Every suite that redoes a study.
    fn all(&self, machine: &Machine, cpu: &Cpu, program: &Program, bar: &mut Bar) -> Result<(), Failure> {
        machine.signals.defer();
        let (data, out) = (self.data.as_deref(), self.out.as_deref());
        let (out, chapters) = comparison::run_all(self.quick, data, out, cpu, program, bar)?;
        let mut failed = None;
        let mut told = Vec::new();
        for chapter in chapters {
            let name = chapter.name;
            let (text, object) = match chapter.outcome {
                Ok(results) => {
                    (format!("{} records", results.records.len()), json!({"suite": name, "results": results}))
                }
                Err(Missing::Needs(needs)) => {
                    (format!("not measured: needs {needs}"), json!({"suite": name, "needs": needs}))
                }
                Err(Missing::Failed(error)) => {
                    let text = error.to_string();
                    failed.get_or_insert(error);
                    (format!("failed: {text}"), json!({"suite": name, "failed": text}))
                }
            };
            told.push(object);
            if !machine.json {
                machine.terminal.line(format!("{name:14} {text}"));
            }
        }
        if machine.json {
            machine.terminal.json_object(json!({"directory": out, "suites": told}))?;
        } else if let Some(shard) = self.shard {
            shared(machine, shard, &Results::default());
        } else {
            machine.terminal.line(format!("The reports: {}", out.join("index.html").display()));
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Measures the shapes of a suite, or of those of a group.
    fn random_weights(&self, machine: &Machine) -> Result<(), Failure> {
        let name = self.name();
        let names = lowbit::suite::group(name)?.map_or_else(|| vec![name.to_string()], |group| group.suites);
        let suites: Vec<Suite> = names.iter().map(|name| suite::find(machine, name, None)).collect::<Result<_, _>>()?;
        let mut all: Vec<ShapeRecipes> = Vec::new();
        for shape in suites.into_iter().flat_map(|suite| suite.shape) {
            if !all.contains(&shape) {
                all.push(shape);
            }
        }
        if all.is_empty() {
            let text = format!(
                "suite {name} names no shapes ([[shape]] with `name` and `recipes`): --random-weights has no use there"
            );
            return Err(Failure::usage(text));
        }
        let cpu = machine.cpu()?;
        machine.signals.defer();
        let mut bar = Bar::new(&machine.terminal);
        let start = |shape: &str, recipe: &str| bench::start(shape, recipe, &cpu);
        let speeds = shapes::run(&all, &start, &cpu.stop, |text| bar.note(text))?;
        if machine.json {
            let host = host::facts(&cpu);
            return machine.terminal.json_object(json!({"host": host, "shapes": speeds, "meaning": shapes::MEANING}));
        }
        machine.terminal.lines(shapes::lines(&speeds));
        Ok(())
    }

    /// Rows of the user's own: a file, or a folder of images.
    fn rows(&self) -> Option<&Path> {
        self.data.as_deref().filter(|data| lowbit::suite::is_of_rows(self.suite.as_deref(), data))
    }

    /// The name that was given of a suite, a group or a task.
    fn name(&self) -> &str {
        self.suite.as_deref().unwrap_or("quickstart")
    }

    /// The name, where it is not of rows of one's own.
    fn named(&self) -> Result<&str, Failure> {
        if !self.text.is_empty() || self.label.is_some() {
            return Err(Failure::usage("--text and --label name columns of a file of rows: give it with --data FILE"));
        }
        Ok(self.name())
    }

    /// The suite of rows of one's own.
    fn suite(&self) -> Result<Suite, Failure> {
        let rows = self.rows().unwrap_or(Path::new(""));
        if rows.is_dir() && !(self.text.is_empty() && self.label.is_none()) {
            return Err(Failure::usage(
                "--text and --label name columns, and a folder of images has none: leave them out",
            ));
        }
        let text: Vec<Column> = self.text.iter().map(|text| suite::column(text)).collect();
        let label = self.label.as_deref().map(suite::column);
        Ok(lowbit::suite::of_rows(self.suite.as_deref().map(Path::new), rows, &text, label.as_ref())?)
    }
}

/// Says what a shard made, and what comes next.
fn shared(machine: &Machine, shard: Shard, results: &Results) {
    let made: Vec<&str> = results.records.iter().map(|record| record.model.as_str()).collect();
    let made = if made.is_empty() { String::new() } else { format!(": {}", made.join(", ")) };
    machine.terminal.line(format!("shard {}/{} is done{made}", shard.index, shard.of));
    machine.terminal.line("When all are done, the same command without --shard writes the report.");
}

/// What a kilowatt-hour costs.
fn price(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0);
    found.ok_or_else(|| "a price of a kilowatt-hour is needed, 0 or more, like 0.30".into())
}
