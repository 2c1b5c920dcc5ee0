//! `lowbit bench`

use super::Machine;
use crate::failure::Failure;
use crate::kernel_bench::{self, Plan, Speed};
use crate::model_bench::{self, FORMS, Form, Subject, Test};
use crate::{host, output};
use lowbit_eval::record::{Host, Limits};
use lowbit_kernels::ops::CacheKind;
use lowbit_kernels::{FORMATS, format};
use lowbit_model::checkpoint::Options;
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, recipe, synthetic};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Rows or columns of a matrix at most.
const MAX_SIDE: usize = 1 << 16;
/// Weights of a matrix at most: 1 GiB of f32.
const MAX_WEIGHTS: usize = 1 << 28;

/// Seed of the weights of synthetic models.
const SEED: u64 = 1;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    model: ModelBench,
}

/// Measures a language model as llama-bench does: prompts (pp), answers token by token (tg), the time to the first token.
#[derive(Debug, clap::Args)]
struct ModelBench {
    /// Model to measure: a directory or file.
    model: Option<PathBuf>,
    /// Measure a random model of a published shape, made in memory.
    #[arg(long, conflicts_with = "model", value_name = "SHAPE", help = synthetic_help())]
    synthetic: Option<String>,
    /// Recipe of the weights [default: as stored; for a synthetic model the one such models usually run under].
    #[arg(long)]
    recipe: Option<String>,
    /// Tokens of a prompt; 0 for none.
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512", value_parser = clap::value_parser!(u32).range(0..=131_072))]
    n_prompt: Vec<u32>,
    /// Tokens of an answer; 0 for none.
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "128", value_parser = clap::value_parser!(u32).range(0..=131_072))]
    n_gen: Vec<u32>,
    /// Also measure so many sequences that get their answers together, in one pass per token.
    #[arg(long, value_name = "SEQUENCES", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: Option<u16>,
    /// Samples of each test; they take turns.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repetitions: u16,
    /// How keys and values are stored.
    #[arg(long, default_value = "f16", value_parser = CacheKind::ALL.map(|(name, _)| name))]
    cache_type: String,
    /// How results are printed.
    #[arg(short, long, default_value = "md", value_parser = FORMS.iter().map(|(name, _)| *name).collect::<Vec<_>>())]
    output: String,
}

fn synthetic_help() -> String {
    let shapes: Vec<_> = synthetic::SHAPES.iter().map(|s| format!("{} ({})", s.name, s.summary)).collect();
    format!("Measure a random model of a published shape, made in memory: {}", shapes.join(", "))
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Times the matrix products of formats, after comparing their outputs with the definition of the format.
    ///
    /// A product of one token is held against the memory bandwidth; its weights come from memory, from copies visited in
    /// turn. Other products are held against the arithmetic they use: int8, f32, or bf16 for bf16 and nf4 on avx512-bf16,
    /// whose limit is taken as twice that of f32.
    Kernels(Kernels),
}

#[derive(Debug, clap::Args)]
struct Kernels {
    /// Formats [default: all].
    #[arg(long, value_delimiter = ',')]
    format: Vec<String>,
    /// Shapes of the weights: output features, `x`, input features.
    #[arg(long, value_delimiter = ',', default_value = "2560x6912,6912x2560,768x768")]
    shape: Vec<String>,
    /// Tokens of a product.
    #[arg(long, value_delimiter = ',', default_value = "1,128", value_parser = clap::value_parser!(u16).range(1..=4096))]
    tokens: Vec<u16>,
    /// Samples of each case; they take turns.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
}

impl Bench {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        match self.what {
            Some(What::Kernels(kernels)) => kernels.run(machine),
            None => self.model.run(machine),
        }
    }
}

impl ModelBench {
    fn run(self, machine: &Machine) -> Result<(), Failure> {
        let listed = |list: &[u32], test: fn(usize) -> Test| -> Vec<Test> {
            list.iter().filter(|n| **n > 0).map(|n| test(*n as usize)).collect()
        };
        let mut tests = listed(&self.n_prompt, Test::Prompt);
        let answers = listed(&self.n_gen, Test::Answer);
        if let Some(sequences) = self.parallel {
            let tokens = self.n_gen.iter().filter(|n| **n > 0).map(|n| *n as usize);
            tests.extend(answers.iter().copied());
            tests.extend(tokens.map(|tokens| Test::Answers { tokens, sequences: sequences.into() }));
        } else {
            tests.extend(answers);
        }
        tests.push(Test::First);
        let found = |name: &str| CacheKind::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind);
        let cache = found(&self.cache_type).unwrap_or_default();
        let plan = model_bench::Plan { tests, rounds: self.repetitions.into(), cache };
        let named = FORMS.iter().find(|(name, _)| *name == self.output).map_or(Form::Markdown, |(_, form)| *form);
        let form = if machine.json { Form::Json } else { named };
        let cpus = machine.cpus()?;
        let subject = self.subject()?;
        let speeds = model_bench::run(&subject, &plan, &cpus)?;
        speeds.print(form, &subject, cache, &cpus)
    }

    fn subject(&self) -> Result<Subject, Failure> {
        let recipe = self.recipe.as_deref().map(recipe::find).transpose()?;
        let start = Instant::now();
        let (name, listing, recipe, model) = match (&self.model, &self.synthetic) {
            (None, Some(name)) => {
                let shape = synthetic::find(name)?;
                let recipe = recipe.map_or_else(|| recipe::find(shape.recipe), Ok)?;
                let model = synthetic::model(&shape.config(), recipe, SEED)?;
                (format!("{name} (synthetic)"), lowbit_model::listing::Listing::new(&shape.config())?, recipe, model)
            }
            (Some(path), None) => {
                let checkpoint = Checkpoint::open(path)?;
                if checkpoint.card().config.classes().is_some() {
                    let text = "is a classifier; `bench` measures language models, `compare` times classifiers";
                    return Err(Failure::input(path, text));
                }
                let model = match recipe.filter(|recipe| recipe.name != checkpoint.recipe().name) {
                    Some(recipe) => checkpoint.model_as(recipe, &Options::new())?,
                    None => checkpoint.model()?,
                };
                let name = path.file_name().map_or(path.to_string_lossy(), |name| name.to_string_lossy());
                let stored = recipe.unwrap_or(checkpoint.recipe());
                (name.into_owned(), lowbit_model::listing::Listing::new(&checkpoint.card().config)?, stored, model)
            }
            _ => {
                let text = "nothing to measure: give a MODEL, `--synthetic SHAPE`, or the subcommand `kernels`";
                return Err(Failure::usage(text));
            }
        };
        let load_seconds = start.elapsed().as_secs_f64();
        let table = listing.params().iter().find(|p| p.role == Role::Embedding);
        Ok(Subject {
            name,
            recipe: recipe.name,
            params: listing.count(),
            vocabulary: table.map_or(1, |table| table.rows),
            load_seconds,
            model: Arc::new(model),
        })
    }
}

impl Kernels {
    fn run(self, machine: &Machine) -> Result<(), Failure> {
        let named = self.format.iter().map(|name| format::find(name)).collect::<Result<Vec<_>, _>>()?;
        let plan = Plan {
            formats: if named.is_empty() { FORMATS.to_vec() } else { named },
            shapes: self.shape.iter().map(|text| shape(text)).collect::<Result<_, _>>()?,
            tokens: self.tokens.into_iter().map(usize::from).collect(),
            rounds: self.rounds.into(),
        };
        let cpu = machine.cpu()?;
        let (limits, speeds) = kernel_bench::run(&cpu, &plan)?;
        let limits = Limits {
            memory_gbps: Some(limits.memory_gbps),
            f32_gflops: Some(limits.f32_gflops),
            int8_gops: Some(limits.int8_gops),
        };
        let host = Host { limits, ..host::facts(&cpu) };
        if machine.json {
            return output::json(&json!({
                "schema_version": 1, "tool": output::tool(), "command": output::command(), "host": host,
                "records": speeds,
            }));
        }
        print(&host, &speeds);
        Ok(())
    }
}

/// `(rows, cols)` of `ROWSxCOLS`.
fn shape(text: &str) -> Result<(usize, usize), Failure> {
    let side = |s: &str| s.parse().ok().filter(|n| (1..=MAX_SIDE).contains(n));
    let found = text.split_once('x').and_then(|(rows, cols)| Some((side(rows)?, side(cols)?)));
    found.filter(|(rows, cols)| rows * cols <= MAX_WEIGHTS).ok_or_else(|| {
        Failure::usage(format!(
            "--shape `{text}` is not ROWSxCOLS, like 768x768, with sides from 1 to {MAX_SIDE} and at most {MAX_WEIGHTS} \
             weights"
        ))
    })
}

fn print(host: &Host, speeds: &[Speed]) {
    let number = |v: Option<f64>| v.map_or("not measured".into(), |v| format!("{v:.0}"));
    let limits = &host.limits;
    output::line(format!("{}, {}, {} threads", host.cpu, host.isa, host.threads));
    output::line(format!(
        "limits: memory {} GB/s read, f32 {} GFLOP/s, int8 {} GOP/s",
        number(limits.memory_gbps),
        number(limits.f32_gflops),
        number(limits.int8_gops)
    ));
    output::line(format!(
        "{:18} {:>11} {:>6} {:>10} {:>23} {:>8} {:>8}  {:6} {:>6}",
        "format", "shape", "tokens", "us p50", "(min .. max)", "GB/s", "GOP/s", "limit", "%"
    ));
    for s in speeds {
        let us = |seconds: f64| format!("{:.1}", seconds * 1e6);
        output::line(format!(
            "{:18} {:>11} {:>6} {:>10} {:>23} {:>8.2} {:>8.1}  {:6} {:>6.1}",
            s.format,
            format!("{}x{}", s.rows, s.cols),
            s.tokens,
            us(s.seconds_p50),
            format!("({} .. {})", us(s.seconds_min), us(s.seconds_max)),
            s.weight_gbps,
            s.gops,
            s.limit,
            s.fraction_of_limit * 100.0
        ));
    }
}
