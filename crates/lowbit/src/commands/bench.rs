//! `lowbit bench`

use super::Machine;
use crate::failure::Failure;
use crate::kernel_bench::{self, Plan, Speed};
use crate::{host, output};
use lowbit_eval::record::{Host, Limits};
use lowbit_kernels::{FORMATS, format};
use serde_json::json;

/// Rows or columns of a matrix at most.
const MAX_SIDE: usize = 1 << 16;
/// Weights of a matrix at most: 1 GiB of f32.
const MAX_WEIGHTS: usize = 1 << 28;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
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
            What::Kernels(kernels) => kernels.run(machine),
        }
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
