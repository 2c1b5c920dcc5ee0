//! Products of lowbit beside those of others.
//!
//! `lowbit-peers rten` compares with rten-gemm in this process, `lowbit-peers serve` times products of lowbit on demand for
//! `tools/bench/kernels.py`, which sets another program against them.
#![forbid(unsafe_code)]

mod case;
mod compare;
mod floats;
mod ours;
mod rten;
mod serve;

use case::{Case, Shape};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::str::FromStr;

const USAGE: &str = "\
lowbit-peers rten [--threads 1,2] [--rounds 15] [--case ROWSxCOLSxTOKENS,..] [--megabytes 256]
    lowbit's int8_channel, ternary and ternary_b3 products beside rten-gemm's u8 x i8 product, in turn. `product`: both
    get activations quantized and arranged beforehand; lowbit scales its sums to floats, rten-gemm leaves integers.
    `floats to floats`: activations are quantized and sums scaled within, for rten-gemm by rten's own operations.
    Weights of one token come from copies that together hold that many megabytes of each format.
lowbit-peers serve FORMAT ROWSxCOLSxTOKENS THREADS COPIES
    answers each line on standard input by the seconds of a product, its activations quantized within, over all copies.
lowbit-peers limits THREADS
    memory bandwidth and int8 peak of this machine.";

/// What makes the allocator of glibc ask for pages of 2 MiB, which lowbit asks for itself.
const PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// Starts this program again with [`PAGES`], so that the weights of both sides lie in such pages.
fn restart(args: &[String]) -> Result<(), String> {
    if std::env::var(PAGES.0).is_ok_and(|value| value == PAGES.1) {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    Err(Command::new(program).args(args).env(PAGES.0, PAGES.1).exec().to_string())
}

/// Name of a flag and its value: `--name value`.
fn flag<'a>(args: &'a [String], name: &str) -> Result<Option<&'a str>, String> {
    match args.iter().position(|a| a == name) {
        None => Ok(None),
        Some(at) => args.get(at + 1).map(|v| Some(v.as_str())).ok_or(format!("{name} needs a value")),
    }
}

fn parsed<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no {what}"))
}

fn list<T: FromStr>(text: &str, what: &str) -> Result<Vec<T>, String> {
    text.split(',').map(|part| parsed(part, what)).collect()
}

fn rten(args: &[String]) -> Result<(), String> {
    let known = ["--threads", "--rounds", "--case", "--megabytes"];
    if let Some(odd) = args.iter().step_by(2).find(|a| !known.contains(&a.as_str())) {
        return Err(format!("unknown argument `{odd}`"));
    }
    let threads: Vec<usize> = list(flag(args, "--threads")?.unwrap_or("1,2"), "number of threads")?;
    let rounds = parsed(flag(args, "--rounds")?.unwrap_or("15"), "number of rounds")?;
    let megabytes: usize = parsed(flag(args, "--megabytes")?.unwrap_or("256"), "number of megabytes")?;
    let shapes = match flag(args, "--case")? {
        Some(text) => list(text, "ROWSxCOLSxTOKENS")?,
        None => compare::SHAPES.to_vec(),
    };
    for &threads in &threads {
        let cases = shapes.iter().map(|&shape| Case { shape, threads, bytes: megabytes << 20 });
        compare::run(threads, &cases.collect::<Vec<_>>(), rounds)?;
    }
    Ok(())
}

fn run(args: &[String]) -> Result<(), String> {
    let parts: Vec<&str> = args.iter().map(String::as_str).collect();
    match parts[..] {
        ["rten", ..] => {
            restart(args)?;
            rten(&args[1..])
        }
        ["serve", format, shape, threads, copies] => {
            let shape: Shape = parsed(shape, "ROWSxCOLSxTOKENS")?;
            serve::run(format, shape, parsed(threads, "number of threads")?, parsed(copies, "number of copies")?)
        }
        ["limits", threads] => serve::limits(parsed(threads, "number of threads")?),
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
