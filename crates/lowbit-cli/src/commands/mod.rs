//! The command line. Each command is one file and one line in the list `commands!` below.

use crate::failure::Failure;
use crate::signals::Signals;
use crate::terminal::Terminal;
use clap::{Args, Parser, Subcommand};
use lowbit_kernels::{Cpu, Threads};

/// Low-bit neural networks: train, quantize, run, measure, compare.
#[derive(Debug, Parser)]
#[command(name = "lowbit", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    machine: Machine,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Threads to use; `bench` takes several numbers; -1 for the default [default: the physical cores this process may use].
    #[arg(short, long, global = true, env = "LOWBIT_THREADS", value_delimiter = ',', allow_negative_numbers = true)]
    #[arg(value_parser = threads)]
    threads: Vec<usize>,
    /// Instruction set to use instead of the best one; `doctor` lists them, `bench kernels` takes several.
    #[arg(long, global = true, env = "LOWBIT_ISA", value_delimiter = ',')]
    isa: Vec<String>,
    /// Print one JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// What signals do.
    #[arg(skip)]
    pub signals: Signals,
    /// What is read, and where results and remarks go.
    #[arg(skip)]
    pub terminal: Terminal,
}

/// A number of threads, of `--threads` or `LOWBIT_THREADS`; 0, also written -1, for as many as there are by default.
fn threads(text: &str) -> Result<usize, String> {
    let most = Threads::MOST;
    let found = match text {
        "0" | "-1" => Some(0),
        _ => text.parse().ok().filter(|n| (1..=most).contains(n)),
    };
    found.ok_or(format!("not a number from 1 to {most}, nor -1 (--threads, else the variable LOWBIT_THREADS)"))
}

impl Machine {
    /// The instruction set and threads asked for.
    ///
    /// # Errors
    /// When the CPU lacks the instruction set, there is none of this name, or several of them or several numbers of threads
    /// are asked for.
    pub fn cpu(&self) -> Result<Cpu, Failure> {
        match self.threads[..] {
            [_, _, ..] => Err(Failure::usage("--threads takes one number here; only `bench` takes several")),
            _ => Ok(self.cpus()?.remove(0)),
        }
    }

    /// The instruction set with each number of threads asked for: at least one.
    ///
    /// # Errors
    /// When the CPU lacks the instruction set, there is none of this name, or several are asked for.
    pub fn cpus(&self) -> Result<Vec<Cpu>, Failure> {
        match self.isa[..] {
            [_, _, ..] => Err(Failure::usage("--isa takes one name here; only `bench kernels` takes several")),
            _ => self.machines(),
        }
    }

    /// The same, and nobody reads what it prints.
    pub fn silent(&self) -> Self {
        Machine { terminal: Terminal::default(), ..self.clone() }
    }

    /// The number of threads asked for.
    pub fn threads(&self) -> Option<usize> {
        self.threads.first().copied().filter(|n| *n > 0)
    }

    /// Whether an instruction set is asked for.
    pub fn has_isa(&self) -> bool {
        !self.isa.is_empty()
    }

    /// Every instruction set with each number of threads asked for: at least one.
    ///
    /// # Errors
    /// When the CPU lacks an instruction set, or there is none of its name.
    pub fn machines(&self) -> Result<Vec<Cpu>, Failure> {
        let isas: Vec<Option<&str>> = match self.isa[..] {
            [] => vec![None],
            _ => self.isa.iter().map(|name| Some(name.as_str())).collect(),
        };
        let threads: Vec<Option<usize>> = match self.threads[..] {
            [] => vec![None],
            _ => self.threads.iter().map(|n| Some(*n).filter(|n| *n > 0)).collect(),
        };
        let all = isas.iter().flat_map(|isa| threads.iter().map(|threads| Cpu::new(*isa, *threads)));
        let all = all.map(|cpu| cpu.map(|cpu| cpu.until(self.signals.stop().clone())));
        let all: Vec<Cpu> = all.collect::<Result<_, _>>()?;
        for (cpu, asked) in all.iter().zip(threads.iter().cycle()) {
            let (asked, begun) = (Threads::choose(*asked)?.count, cpu.pool.threads());
            if begun < asked {
                self.terminal.note(format!(
                    "{begun} of {asked} threads: the system starts no more for this process (ulimit -u, -v)"
                ));
            }
        }
        Ok(all)
    }
}

macro_rules! commands {
    ($($module:ident :: $name:ident, $about:literal;)+) => {
        $(mod $module;)+

        /// What to do.
        #[derive(Debug, Subcommand)]
        enum Command {
            $(#[command(about = $about)] $name($module::$name),)+
            /// Measures load time and memory of this process; reads a JSON array of texts.
            #[command(hide = true)]
            Probe(probe::Probe),
        }

        impl Cli {
            /// Runs the command.
            ///
            /// # Errors
            /// One line and an exit code.
            pub fn run(mut self, signals: Signals, terminal: &Terminal) -> Result<(), Failure> {
                (self.machine.signals, self.machine.terminal) = (signals, terminal.clone());
                match self.command {
                    $(Command::$name(command) => command.run(&self.machine),)+
                    Command::Probe(command) => command.run(&self.machine),
                }
            }
        }
    };
}

mod emit;
mod list;
mod model;
mod probe;
mod suite;

commands! {
    compare::Compare, "Make, score and time every variant of a suite, and write the report (the main job)";
    init::Init, "Write a task and a suite to start from";
    train::Train, "Train one variant of a suite";
    quantize::Quantize, "Store a trained model under a recipe";
    convert::Convert, "Convert a model between safetensors, Hub directories and GGUF";
    eval::Eval, "Score a model on a task";
    predict::Predict, "Answer the rows of a file with classes or values";
    merge::Merge, "Put together what runs with --shard of `predict` or `compare` made";
    compress::Compress, "Compress a file with a byte-level language model";
    decompress::Decompress, "Restore a file that `compress` wrote";
    pull::Pull, "Fetch a model of the Hub into the cache of its own client";
    run::Run, "Answer a prompt, or chat in the terminal";
    serve::Serve, "Serve a language model to applications over HTTP, as OpenAI does";
    inspect::Inspect, "Show what a model is made of";
    report::Report, "Render or verify a report";
    audit::Audit, "Find what contradicts itself in a report of anyone: Markdown, HTML, CSV or text";
    bench::Bench, "Measure a language model, or kernels, against the limits of the machine";
    doctor::Doctor, "Show the machine, the instruction set chosen and why, measured limits, and what is missing";
    completions::Completions, "Print a completion script for a shell";
}
