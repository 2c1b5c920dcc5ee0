//! `lowbit bench`

mod serve;

use super::Machine;
use super::model::{self, ModelPath, ModelRecipe};
use crate::failure::Failure;
use lowbit_eval::bench::kernels::against::Earlier;
use lowbit_eval::bench::kernels::{self, Heads, Kernels as Work, LAYERS, Plan, WeightShape};
use lowbit_eval::bench::model::{self as model_bench, BenchModel, FORMS, Form, Test, TestKind};
use lowbit_eval::bench::shapes;
use lowbit_eval::meter;
use lowbit_kernels::ops::CacheKind;
use lowbit_kernels::{Cpu, FORMATS};
use lowbit_model::recipe::ProductFormat;
use lowbit_model::synthetic;
use serde_json::json;
use serve::ServeBench;
use std::path::PathBuf;
use std::process::Command;

/// Tokens of a prompt, where nobody says how many.
const PROMPT: usize = 512;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit bench model.gguf -p 512 -n 128 -r 5 --threads 1,2
  lowbit bench --synthetic bitnet-2b --recipe bitnet_head4 -p 512 -n 64
  lowbit bench --synthetic mlp-10m -p 8,32,128
  lowbit bench --serve http://127.0.0.1:8080 --rates 1,2,4,all --requests 200 --prompt-tokens 256 --max-tokens 64 --goodput ttft:500,tpot:50
  lowbit bench kernels --format ternary,int8_channel --shape 2560x6912 --tokens 1,128";

/// Beside the flags of `bench kernels`.
const KERNELS: &str = "\
Examples:
  lowbit bench kernels
  lowbit bench kernels --threads 1,2 --format ternary,ternary_b3 --shape bitnet-2b-layer --tokens 1 --rounds 9
  lowbit bench kernels --attention 20x128 --tokens 128,2048
  lowbit bench kernels --against bench/record/earlier.json --plot roofline.svg";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    model: ModelBench,
}

/// Measures a language model as llama-bench does: prompts (pp), answers token by token (tg), the time to the first token.
#[derive(Debug, clap::Args)]
struct ModelBench {
    #[command(flatten)]
    model: ModelPath,
    /// Measure a random model of a published shape, made in memory.
    #[arg(long, conflicts_with_all = ["model", "named_model"], value_name = "SHAPE", help = synthetic_help())]
    synthetic: Option<String>,
    /// Write the synthetic model into a directory, or a file that ends in .safetensors, with a tokenizer of bytes where it reads tokens,
    /// instead of measuring it.
    #[arg(long, requires = "synthetic", conflicts_with_all = ["model", "named_model"], value_name = "DIRECTORY")]
    save: Option<PathBuf>,
    #[command(flatten)]
    recipe: ModelRecipe,
    /// Tokens of a prompt [default: 512]; 0 for none. Of a network that reads numbers or images: rows in a pass [default: 32].
    #[arg(short = 'p', long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=131_072))]
    n_prompt: Vec<u32>,
    /// Tokens of an answer; 0 for none.
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "128", value_parser = clap::value_parser!(u32).range(0..=131_072))]
    n_gen: Vec<u32>,
    /// Also measure a prompt and its answer together: tokens of both, like 512,128; may be repeated.
    #[arg(long, visible_alias = "n-prompt-gen", value_name = "PROMPT,ANSWER", value_parser = pair)]
    pg: Vec<(usize, usize)>,
    /// Tokens that are in each sequence before a test, which is then named like `tg128 @ d1024`.
    #[arg(short = 'd', long, value_delimiter = ',', default_value = "0", value_parser = clap::value_parser!(u32).range(0..=131_072))]
    n_depth: Vec<u32>,
    /// Also measure so many sequences that get their answers together, in one pass per token. With --serve: requests under way at most.
    #[arg(long, value_name = "SEQUENCES", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: Option<u16>,
    /// Only so many of the likeliest next tokens are wanted of each answered token, 1 as in greedy decoding; 0 for the logits
    /// of all. Some heads are then read in part (`bitnet_scan`).
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Samples of each test; they take turns.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repetitions: u16,
    /// How keys and values are stored.
    #[arg(long, default_value = "f16", value_parser = CacheKind::ALL.map(|(name, _)| name))]
    #[arg(aliases = ["kv", "cache-type-k", "cache-type-v"], action = clap::ArgAction::Append)]
    cache_type: Vec<String>,
    /// How results are printed.
    #[arg(short, long, default_value = "md", value_parser = FORMS.iter().map(|(name, _)| *name).collect::<Vec<_>>())]
    output: String,
    #[command(flatten)]
    server: ServeBench,
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
    /// turn. Other products are held against the arithmetic they use: int8, f32, or bf16 for bf16 and nf4 on avx512-bf16.
    /// Cases take turns, and the limits are measured after each round.
    #[command(after_help = KERNELS)]
    Kernels(Kernels),
}

#[derive(Debug, clap::Args)]
struct Kernels {
    /// Formats, each with the activations of its recipe or with others, as in int8_channel+act=int8_block [default: all].
    #[arg(long, value_delimiter = ',')]
    format: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "2560x6912,6912x2560,768x768", help = shape_help())]
    shape: Vec<String>,
    /// Measure attention instead of products: HEADSxWIDTH, a causal prompt of `--tokens` with keys and values in f16.
    #[arg(long, value_delimiter = ',', value_name = "HEADSxWIDTH", conflicts_with_all = ["format", "shape"])]
    attention: Vec<String>,
    /// Tokens of a product, or of a prompt.
    #[arg(long, value_delimiter = ',', default_value = "1,128", value_parser = clap::value_parser!(u16).range(1..=4096))]
    tokens: Vec<u16>,
    /// Samples of each case; they take turns.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Compare with a record that `--json` printed earlier on this CPU, and exit with 7 when a case became slower.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Write a roofline plot.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

fn shape_help() -> String {
    let layers: Vec<_> =
        LAYERS.iter().map(|(name, matrices)| format!("{name} ({} matrices)", matrices.len())).collect();
    format!("Shapes of the weights: ROWSxCOLS, or the matrices of a layer one after another: {}", layers.join(", "))
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
        if let Some(url) = &self.server.serve {
            return self.server.run(machine, url, self.parallel);
        }
        let tests = self.tests();
        let cache = model::cache("--cache-type", &self.cache_type)?;
        let largest = Some(self.top_k).filter(|k| *k > 0);
        let is_asked = !self.n_prompt.is_empty();
        let plan = model_bench::Plan { tests, is_asked, rounds: self.repetitions.into(), cache, largest };
        let named = FORMS.iter().find(|(name, _)| *name == self.output).map_or(Form::Markdown, |(_, form)| *form);
        let form = if machine.json { Form::Json } else { named };
        let cpus = machine.cpus()?;
        if let (Some(shape), Some(directory)) = (&self.synthetic, &self.save) {
            let recipe = self.recipe.get()?;
            return Ok(model_bench::save_synthetic(shape, recipe, directory)?);
        }
        let subject = self.subject(machine, &plan, &cpus)?;
        let plan = plan.of(&subject)?;
        let speeds = model_bench::run(&subject, &plan, &cpus)?;
        if form == Form::Json {
            let (host, records) = speeds.records(&subject, &cpus);
            return machine.terminal.json_object(json!({"host": host, "records": records}));
        }
        machine.terminal.lines(speeds.lines(form, &subject, cache, &cpus));
        Ok(())
    }

    /// What is asked for, at each depth; the time to the first token from nothing.
    fn tests(&self) -> Vec<Test> {
        let some = |list: &[u32]| list.iter().filter(|n| **n > 0).map(|n| *n as usize).collect::<Vec<_>>();
        let prompts = if self.n_prompt.is_empty() { vec![PROMPT] } else { some(&self.n_prompt) };
        let mut kinds: Vec<TestKind> = prompts.into_iter().map(TestKind::Prompt).collect();
        kinds.extend(some(&self.n_gen).into_iter().map(TestKind::Answer));
        kinds.extend(self.pg.iter().map(|&(prompt, answer)| TestKind::Both { prompt, answer }));
        let answers =
            |sequences| some(&self.n_gen).into_iter().map(move |tokens| TestKind::Answers { tokens, sequences });
        kinds.extend(self.parallel.into_iter().flat_map(|sequences| answers(sequences.into())));
        Test::at_depths(&kinds, self.n_depth.iter().map(|depth| *depth as usize))
    }

    fn subject(&self, machine: &Machine, plan: &model_bench::Plan, cpus: &[Cpu]) -> Result<BenchModel, Failure> {
        let recipe = self.recipe.get()?;
        match (self.model.get(), &self.synthetic) {
            (None, Some(name)) => Ok(BenchModel::synthetic(name, recipe, plan, cpus)?),
            (Some(path), None) => {
                BenchModel::load(model::name_of(path), || model::open(machine, path, recipe, &cpus[0]), plan, cpus)
            }
            _ => {
                let text =
                    "nothing to measure: give a MODEL, `--synthetic SHAPE`, `--serve URL`, or the subcommand `kernels`";
                Err(Failure::usage(text))
            }
        }
    }
}

impl Kernels {
    fn run(self, machine: &Machine) -> Result<(), Failure> {
        let plan = self.plan()?;
        let cpus = machine.machines()?;
        let cpu = meter::cpu_name();
        let earlier = self.against.as_deref().map(|path| Earlier::read(path, &cpu)).transpose()?;
        earlier.as_ref().map_or(Ok(()), |earlier| earlier.has_any(&plan, &cpus))?;
        let speeds = kernels::run(&cpus, &plan)?;
        let changes = earlier.as_ref().map(|earlier| earlier.changes(&speeds.speeds));
        if machine.json {
            machine.terminal.json_object(speeds.json(&cpus, changes.as_deref()))?;
        } else {
            machine.terminal.lines(kernels::lines(&speeds, changes.as_deref()));
        }
        if let Some(path) = &self.plot {
            lowbit_base::file::replace(path, kernels::roofline(&speeds, &cpu).svg().as_bytes())?;
        }
        match (&earlier, &changes) {
            (Some(earlier), Some(changes)) => Ok(earlier.demand(&speeds.speeds, changes)?),
            _ => Ok(()),
        }
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let kernels = if self.attention.is_empty() {
            let named = self.format.iter().map(|name| ProductFormat::parse(name)).collect::<Result<Vec<_>, _>>()?;
            let all = || FORMATS.iter().map(|format| ProductFormat::of(*format)).collect();
            let formats = if named.is_empty() { all() } else { named };
            Work::Products(formats, self.shape.iter().map(|text| WeightShape::parse(text)).collect::<Result<_, _>>()?)
        } else {
            Work::Attention(self.attention.iter().map(|text| Heads::parse(text)).collect::<Result<_, _>>()?)
        };
        Ok(Plan { kernels, tokens: self.tokens.iter().map(|n| usize::from(*n)).collect(), rounds: self.rounds.into() })
    }
}

/// A fresh process of this program that measures a shape with random weights under a recipe.
///
/// # Errors
/// When the path of this program is not known.
pub fn start(shape: &str, recipe: &str, cpu: &Cpu) -> std::io::Result<Command> {
    let (tokens, together) = (shapes::TOKENS.to_string(), shapes::TOGETHER.to_string());
    let sizes = ["-p", &tokens, "-n", "1", "--parallel", &together, "-r", "5"];
    with(&[&["--synthetic", shape, "--recipe", recipe], &sizes[..]].concat(), cpu)
}

/// A fresh process of this program that measures what some arguments of `bench` ask for, and prints it as JSON.
///
/// # Errors
/// When the path of this program is not known.
pub fn with(arguments: &[&str], cpu: &Cpu) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--json", "bench"]).args(arguments);
    command.args(["--isa", cpu.isa.name(), "--threads", &cpu.pool.threads().to_string()]);
    Ok(command)
}

/// Tokens of prompt and answer.
fn pair(text: &str) -> Result<(usize, usize), String> {
    let tokens = |s: &str| s.parse().ok().filter(|n| (1..=131_072).contains(n));
    let found = text.split_once(',').and_then(|(prompt, answer)| Some((tokens(prompt)?, tokens(answer)?)));
    found.ok_or_else(|| "two numbers of tokens from 1 to 131072 are needed, like 512,128".into())
}
