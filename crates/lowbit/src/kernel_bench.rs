//! Speed of the matrix products of all formats, against the limits of the machine measured in the same run.

use crate::failure::{Code, Failure};
use lowbit_eval::{meter, stats};
use lowbit_kernels::limits::{self, Limits};
use lowbit_kernels::{Bytes, Cpu, Format, Int8Rows, Packed, QuantizeOptions, Rows};
use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;

/// Packed bytes that the copies of a matrix hold together where one token is multiplied, so that weights come from memory.
const COPIES_BYTES: usize = 128 << 20;
/// Copies of a matrix at most.
const MAX_COPIES: usize = 1024;
/// Seconds a sample lasts at least; products are repeated until then.
const SAMPLE_SECONDS: f64 = 2e-3;
/// Outputs of a token that are compared with the definition of the format.
const CHECKED_ROWS: usize = 16;

/// What is to be measured: every format with every shape and number of tokens.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Formats.
    pub formats: Vec<&'static dyn Format>,
    /// `(rows, cols)` of the weights: output and input features.
    pub shapes: Vec<(usize, usize)>,
    /// Tokens of a product.
    pub tokens: Vec<usize>,
    /// Samples of each case.
    pub rounds: usize,
}

/// Speed of one format, shape and number of tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Name of the format.
    pub format: &'static str,
    /// Name of the instruction set.
    pub isa: &'static str,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Tokens of a product.
    pub tokens: usize,
    /// Threads used.
    pub threads: usize,
    /// Copies of the matrix that were visited in turn.
    pub copies: usize,
    /// Seconds of a product, median of the samples.
    pub seconds_p50: f64,
    /// Seconds of a product, fastest sample.
    pub seconds_min: f64,
    /// Seconds of a product, slowest sample.
    pub seconds_max: f64,
    /// Samples.
    pub n: usize,
    /// Bytes of the packed weights per second of the median, GB/s (10^9).
    pub weight_gbps: f64,
    /// `2 * rows * cols * tokens` per second of the median, 10^9 operations/s.
    pub gops: f64,
    /// What the speed is held against: `memory`, `int8`, `bf16` or `f32`.
    pub limit: &'static str,
    /// Part of that limit that was reached.
    pub fraction_of_limit: f64,
}

/// Measures all cases. The limits are the larger of two measurements, before and after. Shapes follow one another, so that
/// the matrices of one shape are in memory at a time; the cases of a shape take turns.
///
/// # Errors
/// When outputs of a kernel are not what the definition of its format says.
pub fn run(cpu: &Cpu, plan: &Plan) -> Result<(Limits, Vec<Speed>), Failure> {
    let before = limits::measure(cpu);
    let mut timed = Vec::new();
    for &shape in &plan.shapes {
        timed.extend(time_shape(cpu, plan, shape)?);
    }
    let after = limits::measure(cpu);
    let limits = Limits {
        memory_gbps: before.memory_gbps.max(after.memory_gbps),
        f32_gflops: before.f32_gflops.max(after.f32_gflops),
        int8_gops: before.int8_gops.max(after.int8_gops),
    };
    Ok((limits, timed.iter().map(|t| t.against(cpu, &limits)).collect()))
}

/// Whether a format multiplies floats; all others multiply 8-bit integers.
fn is_float(format: &str) -> bool {
    matches!(format, "f32" | "bf16" | "nf4" | "nf4_dq")
}

/// Whether this product uses the instruction that multiplies pairs of bf16.
fn has_bf16_pairs(cpu: &Cpu, format: &str, tokens: usize) -> bool {
    cpu.isa.name() == "avx512-bf16" && tokens > 1 && is_float(format) && format != "f32"
}

/// Name and value (10^9 per second) of the limit of a product. A bf16 pair instruction does twice the multiplications of an
/// f32 one.
fn limit(cpu: &Cpu, format: &str, tokens: usize, limits: &Limits) -> (&'static str, f64) {
    if tokens == 1 {
        ("memory", limits.memory_gbps)
    } else if has_bf16_pairs(cpu, format, tokens) {
        ("bf16", 2.0 * limits.f32_gflops)
    } else if is_float(format) {
        ("f32", limits.f32_gflops)
    } else {
        ("int8", limits.int8_gops)
    }
}

/// Samples of one case.
struct Timed {
    format: &'static str,
    shape: (usize, usize),
    tokens: usize,
    copies: usize,
    bytes: usize,
    /// Per product.
    seconds: Vec<f64>,
}

impl Timed {
    fn against(&self, cpu: &Cpu, limits: &Limits) -> Speed {
        let at = |q| stats::percentile(&self.seconds, q).unwrap_or(f64::NAN);
        let (rows, cols) = self.shape;
        let seconds_p50 = at(50.0);
        let weight_gbps = self.bytes as f64 / seconds_p50 / 1e9;
        let gops = 2.0 * (rows * cols) as f64 * self.tokens as f64 / seconds_p50 / 1e9;
        let (limit, most) = limit(cpu, self.format, self.tokens, limits);
        Speed {
            format: self.format,
            isa: cpu.isa.name(),
            rows,
            cols,
            tokens: self.tokens,
            threads: cpu.pool.threads(),
            copies: self.copies,
            seconds_p50,
            seconds_min: at(0.0),
            seconds_max: at(100.0),
            n: self.seconds.len(),
            weight_gbps,
            gops,
            limit,
            fraction_of_limit: if limit == "memory" { weight_gbps } else { gops } / most,
        }
    }
}

/// Activations of some tokens, both ways.
struct Input {
    tokens: usize,
    x: Vec<f32>,
    q: Int8Rows,
}

impl Input {
    fn new(cpu: &Cpu, tokens: usize, cols: usize) -> Self {
        let (x, mut q) = (values(tokens * cols, 3), Int8Rows::default());
        q.quantize(cpu, &x, cols);
        Input { tokens, x, q }
    }

    /// What a format is given. LLM.int8() quantizes the activations itself, so that is part of its product.
    fn rows(&self, format: &str) -> Rows<'_> {
        if is_float(format) || format == "llm_int8" { Rows::F32(&self.x) } else { Rows::Int8(&self.q) }
    }
}

/// Products of one format with one input, over copies in turn.
struct Case<'a> {
    copies: &'a [Packed],
    x: Rows<'a>,
    y: Vec<f32>,
    tokens: usize,
    next: usize,
    repeats: usize,
}

impl<'a> Case<'a> {
    /// A checked case whose samples last long enough.
    fn new(cpu: &Cpu, copies: &'a [Packed], input: &'a Input) -> Result<Self, Failure> {
        let copies = if input.tokens == 1 { copies } else { &copies[..1] };
        let x = input.rows(copies[0].format.name());
        let y = vec![f32::NAN; input.tokens * copies[0].rows];
        let mut case = Case { copies, x, y, tokens: input.tokens, next: 0, repeats: 1 };
        case.sample(cpu);
        check(cpu, &copies[0], case.x, &case.y)?;
        loop {
            let start = Instant::now();
            case.sample(cpu);
            if start.elapsed().as_secs_f64() >= SAMPLE_SECONDS {
                return Ok(case);
            }
            case.repeats *= 2;
        }
    }

    fn sample(&mut self, cpu: &Cpu) {
        for _ in 0..self.repeats {
            self.copies[self.next].matmul(cpu, self.x, &mut self.y);
            black_box(&self.y);
            self.next = (self.next + 1) % self.copies.len();
        }
    }
}

fn time_shape(cpu: &Cpu, plan: &Plan, shape: (usize, usize)) -> Result<Vec<Timed>, Failure> {
    let (rows, cols) = shape;
    let weights = values(rows * cols, 7);
    let mut matrices = Vec::new();
    for format in &plan.formats {
        let packed = format.quantize(&weights, rows, cols, &QuantizeOptions::default())?;
        let wanted = COPIES_BYTES.div_ceil(packed.bytes().max(1)).min(MAX_COPIES);
        let more = if plan.tokens.contains(&1) { wanted - 1 } else { 0 };
        let mut copies: Vec<Packed> = (0..more).map(|_| copy(&packed)).collect();
        copies.push(packed);
        matrices.push(copies);
    }
    drop(weights);
    let inputs: Vec<Input> = plan.tokens.iter().map(|&tokens| Input::new(cpu, tokens, cols)).collect();
    let mut cases = Vec::new();
    for input in &inputs {
        for copies in &matrices {
            cases.push(Case::new(cpu, copies, input)?);
        }
    }
    let samples = {
        let mut work: Vec<_> = cases
            .iter_mut()
            .map(|case| {
                move || {
                    case.sample(cpu);
                    Ok(())
                }
            })
            .collect();
        let mut work: Vec<meter::Contender<Failure>> =
            work.iter_mut().map(|w| w as meter::Contender<Failure>).collect();
        meter::alternate(&mut work, plan.rounds)?
    };
    let timed = |(case, seconds): (&Case, Vec<f64>)| Timed {
        format: case.copies[0].format.name(),
        shape,
        tokens: case.tokens,
        copies: case.copies.len(),
        bytes: case.copies[0].bytes(),
        seconds: seconds.iter().map(|s| s / case.repeats as f64).collect(),
    };
    Ok(cases.iter().zip(samples).map(timed).collect())
}

/// The same matrix elsewhere in memory.
fn copy(packed: &Packed) -> Packed {
    Packed { parts: packed.parts.iter().map(|part| Bytes::new(part.to_vec())).collect(), ..packed.clone() }
}

/// Reproducible values, roughly normal, in -2..2: the sum of four uniform ones.
fn values(n: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}

/// Largest error of an output, as a fraction of `max|x| * sum|w|`.
fn tolerance(cpu: &Cpu, format: &str, tokens: usize) -> f64 {
    match format {
        "llm_int8" => 1.01 / 254.0, // half a step of the activations, which it quantizes itself
        _ if has_bf16_pairs(cpu, format, tokens) => 4e-3, // activations become bf16
        _ => 3e-6,
    }
}

/// Compares some outputs `y`, `[tokens, rows]`, with products of the dequantized weights in f64.
fn check(cpu: &Cpu, packed: &Packed, x: Rows, y: &[f32]) -> Result<(), Failure> {
    let (rows, cols) = (packed.rows, packed.cols);
    let seen = x.floats();
    let (name, tokens) = (packed.format.name(), seen.len() / cols);
    let most = tolerance(cpu, name, tokens);
    let mut weights = vec![0.0; cols];
    for i in 0..CHECKED_ROWS.min(rows) {
        let row = i * (rows - 1) / (CHECKED_ROWS.min(rows) - 1).max(1);
        packed.format.dequantize_row(packed, row, &mut weights);
        let size: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
        for token in [0, tokens / 2, tokens - 1] {
            let x = &seen[token * cols..][..cols];
            let want: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let top = f64::from(x.iter().fold(0.0f32, |top, x| top.max(x.abs())));
            let have = y[token * rows + row];
            let error = (f64::from(have) - want).abs() / (size * top + 1e-6);
            if error.is_nan() || error > most {
                let message = format!(
                    "kernel `{name}` on {}, [{rows}, {cols}] x {tokens} tokens: row {row} of token {token} is {have}, not \
                     {want}: error {error:.1e} of max|x| * sum|w|, tolerance {most:.1e}; it was not timed",
                    cpu.isa.name()
                );
                return Err(Failure { code: Code::Check, message });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_kernels::FORMATS;

    #[test]
    fn a_kernel_with_wrong_outputs_is_refused_by_name() {
        let cpu = Cpu::new(None, Some(2)).unwrap();
        let (rows, cols, tokens) = (40, 96, 5);
        for format in FORMATS {
            let packed =
                format.quantize(&values(rows * cols, 7), rows, cols, &QuantizeOptions::default()).expect("finite");
            let input = Input::new(&cpu, tokens, cols);
            let mut y = vec![f32::NAN; tokens * rows];
            packed.matmul(&cpu, input.rows(format.name()), &mut y);
            check(&cpu, &packed, input.rows(format.name()), &y).expect("the kernel is right");
            for bad in [f32::NAN, 2.0 * y[tokens * rows - 1] + 100.0] {
                y[tokens * rows - 1] = bad;
                let failure =
                    check(&cpu, &packed, input.rows(format.name()), &y).expect_err("the last output is wrong");
                assert_eq!(failure.code, Code::Check);
                assert!(failure.message.contains(&format!("`{}`", format.name())), "{failure}");
                assert!(failure.message.contains("row 39 of token 4"), "{failure}");
            }
        }
    }

    #[test]
    fn speeds_are_held_against_the_limit_of_their_arithmetic() {
        let cpu = Cpu::new(Some("scalar"), Some(1)).unwrap();
        let limits = Limits { memory_gbps: 10.0, f32_gflops: 20.0, int8_gops: 40.0 };
        let fraction = |format, tokens| {
            let timed = Timed {
                format,
                shape: (1000, 1000),
                tokens,
                copies: 1,
                bytes: 1_000_000,
                seconds: vec![2e-3, 1e-3, 4e-3],
            };
            let speed = timed.against(&cpu, &limits);
            assert_eq!((speed.seconds_min, speed.seconds_p50, speed.seconds_max, speed.n), (1e-3, 2e-3, 4e-3, 3));
            (speed.limit, speed.fraction_of_limit)
        };
        // 0.5 GB/s of weights; one billion multiplications and additions per token and second.
        assert_eq!(fraction("int8", 1), ("memory", 0.05));
        assert_eq!(fraction("int8", 4), ("int8", 0.1));
        assert_eq!(fraction("nf4", 4), ("f32", 0.2));
        assert_eq!(fraction("f32", 4), ("f32", 0.2));
    }
}
