//! The command line. Each command is one file and one line in the list `commands!` below.

use crate::failure::Failure;
use clap::{Args, Parser, Subcommand};
use lowbit_kernels::Cpu;

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
#[derive(Debug, Args)]
pub struct Machine {
    /// Threads to use; `bench MODEL` takes several numbers [default: the cores this process may use].
    #[arg(short, long, global = true, env = "LOWBIT_THREADS", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Instruction set to use instead of the best one; `doctor` lists them.
    #[arg(long, global = true, env = "LOWBIT_ISA")]
    isa: Option<String>,
    /// Print one JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Machine {
    /// The instruction set and threads asked for.
    ///
    /// # Errors
    /// When the CPU lacks the instruction set, there is none of this name, or several numbers of threads are asked for.
    pub fn cpu(&self) -> Result<Cpu, Failure> {
        match self.threads[..] {
            [_, _, ..] => Err(Failure::usage("--threads takes one number here; only `bench MODEL` takes several")),
            _ => Ok(self.cpus()?.remove(0)),
        }
    }

    /// The instruction set with each number of threads asked for: at least one.
    ///
    /// # Errors
    /// When the CPU lacks the instruction set, or there is none of this name.
    pub fn cpus(&self) -> Result<Vec<Cpu>, Failure> {
        let one = |threads: Option<u16>| Cpu::new(self.isa.as_deref(), threads.map(usize::from));
        match self.threads[..] {
            [] => Ok(vec![one(None)?]),
            _ => Ok(self.threads.iter().map(|n| one(Some(*n))).collect::<Result<_, _>>()?),
        }
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
            pub fn run(self) -> Result<(), Failure> {
                match self.command {
                    $(Command::$name(command) => command.run(&self.machine),)+
                    Command::Probe(command) => command.run(&self.machine),
                }
            }
        }
    };
}

mod probe;

commands! {
    compare::Compare, "Make, score and time every contender of a suite, and write the report (the main job)";
    train::Train, "Train one contender of a suite";
    quantize::Quantize, "Store a trained model under a recipe";
    convert::Convert, "Convert a model between safetensors, Hub directories and GGUF";
    eval::Eval, "Score a model on a task";
    run::Run, "Answer a prompt, or chat in the terminal";
    inspect::Inspect, "Show what a model is made of";
    report::Report, "Render or verify a report";
    bench::Bench, "Measure a language model, or kernels, against the limits of the machine";
    doctor::Doctor, "Show the machine, the instruction set chosen and why, measured limits, and what is missing";
    completions::Completions, "Print a completion script for a shell";
}
