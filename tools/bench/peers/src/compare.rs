//! Rounds in which all sides take turns, and the table of their medians.

use crate::case::{self, Case, Shape};
use crate::floats::Floats;
use crate::ours::{self, Ours};
use crate::rten;
use lowbit_kernels::{Cpu, limits};
use rten_gemm::GemmExecutor;
use std::time::{Duration, Instant};

const fn shape(rows: usize, cols: usize, tokens: usize) -> Shape {
    Shape { rows, cols, tokens }
}

/// Matrices of BERT's and GPT-2's size, and two of a ternary model with 2 billion weights.
pub const SHAPES: &[Shape] = &[
    shape(768, 768, 128),
    shape(3072, 768, 128),
    shape(768, 3072, 128),
    shape(6912, 2560, 1),
    shape(2560, 6912, 1),
    shape(6912, 2560, 512),
    shape(2560, 6912, 512),
];
/// Formats of ours, all held against the same product of theirs.
const FORMATS: &[&str] = &["int8_channel", "ternary", "ternary_b3"];
/// Seconds a sample lasts at least.
const SAMPLE_SECONDS: f64 = 10e-3;
/// Time between samples, in which the threads of the side before fall asleep.
const PAUSE: Duration = Duration::from_millis(3);

/// One side of a case: multiplies with all its copies and returns how many products that were.
type Work<'a> = Box<dyn FnMut() -> usize + 'a>;

struct Side<'a> {
    name: String,
    work: Work<'a>,
    /// Times that `work` runs in a sample.
    repeats: usize,
    /// Per product.
    seconds: Vec<f64>,
}

impl<'a> Side<'a> {
    fn new(name: String, work: Work<'a>) -> Self {
        let mut side = Side { name, work, repeats: 1, seconds: Vec::new() };
        loop {
            let start = Instant::now();
            side.sample();
            if start.elapsed().as_secs_f64() >= SAMPLE_SECONDS {
                side.seconds.clear();
                return side;
            }
            side.repeats *= 2;
        }
    }

    fn sample(&mut self) {
        let start = Instant::now();
        let products: usize = (0..self.repeats).map(|_| (self.work)()).sum();
        self.seconds.push(start.elapsed().as_secs_f64() / products as f64);
    }
}

/// Median, least and largest.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    (median, sorted[0], sorted[sorted.len() - 1])
}

/// Refuses products that differ: both sides multiply the same integers.
fn same(shape: Shape, pair: &str, ours: &[f32], theirs: &[f32]) -> Result<(), String> {
    let off = |(a, b): (&f32, &f32)| (a - b).is_nan() || (a - b).abs() > 1e-6 * b.abs() + 1e-3;
    match ours.iter().zip(theirs).position(off) {
        _ if ours.len() != theirs.len() => Err(format!("{shape}: {pair}: {} outputs", ours.len())),
        Some(at) => Err(format!("{shape}: {pair}: output {at} is {} and {}", ours[at], theirs[at])),
        None => Ok(()),
    }
}

type Gemm = GemmExecutor<u8, i8, i32>;

/// Checks both sides against each other with the weights of both kinds.
fn check(cpu: &Cpu, pool: &rayon::ThreadPool, gemm: &Gemm, shape: Shape) -> Result<(), String> {
    for formats in [&FORMATS[..1], &FORMATS[1..]] {
        let ternary = formats[0].starts_with("ternary");
        let weights = if ternary { case::ternary_weights(shape) } else { case::int8_weights(shape) };
        let mut theirs = Vec::new();
        for (form, mut side) in rten::forms(pool, gemm, &weights, 1, shape) {
            side.multiply();
            theirs.push((form, side.y.iter().map(|y| *y as f32).collect::<Vec<_>>()));
        }
        let mut floats = Floats::new(pool, gemm, &weights, 1, shape);
        floats.multiply();
        theirs.push(("floats to floats", floats.y));
        for format in formats {
            let mut ours = Ours::new(cpu, &ours::pack(format, &weights, shape)?, 1, shape);
            ours.quantize_and_multiply();
            for (form, y) in &theirs {
                same(shape, &format!("{format} beside {form}"), &ours.y, y)?;
            }
        }
    }
    Ok(())
}

/// A row of the table: `ours` beside the fastest of `theirs`.
fn print(case: &Case, task: &str, ours: &Side, theirs: &[Side]) {
    let best = theirs.iter().min_by(|a, b| spread(&a.seconds).0.total_cmp(&spread(&b.seconds).0)).expect("a form");
    let ratios: Vec<f64> = best.seconds.iter().zip(&ours.seconds).map(|(theirs, ours)| theirs / ours).collect();
    let micro = |side: &Side| {
        let (median, least, most) = spread(&side.seconds.iter().map(|s| s * 1e6).collect::<Vec<_>>());
        format!("{median:.0} ({least:.0} to {most:.0})")
    };
    let (ratio, low, high) = spread(&ratios);
    let others = theirs.iter().map(|side| format!("{} {:.0}", side.name, spread(&side.seconds).0 * 1e6));
    println!(
        "| {} | {} | {} | {task} | {} | {} | {ratio:.2}x ({low:.2} to {high:.2}) | {} |",
        case.shape,
        case.threads,
        ours.name,
        micro(ours),
        micro(best),
        others.collect::<Vec<_>>().join(", ")
    );
}

/// Refuses to time one token where weights of `bytes` bytes do not lie in pages of 2 MiB, on either side.
fn check_pages(case: &Case, bytes: usize) -> Result<(), String> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").map_err(|e| e.to_string())?;
    let kilobytes = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:")?.split_whitespace().next());
    let huge = kilobytes.and_then(|n| n.parse::<usize>().ok()).unwrap_or(0) << 10;
    if case.shape.tokens == 1 && huge < bytes / 10 * 9 {
        return Err(format!(
            "{}: {huge} of {bytes} bytes of weights lie in pages of 2 MiB; allow such pages",
            case.shape
        ));
    }
    Ok(())
}

fn measure(cpu: &Cpu, pool: &rayon::ThreadPool, case: &Case, rounds: usize) -> Result<(), String> {
    let (gemm, shape) = (Gemm::default(), case.shape);
    check(cpu, pool, &gemm, shape)?;
    let (int8, ternary) = (case::int8_weights(shape), case::ternary_weights(shape));
    let mut sides: Vec<Side> = Vec::new();
    for format in FORMATS {
        let packed = ours::pack(format, if format.starts_with("ternary") { &ternary } else { &int8 }, shape)?;
        let ours = || Ours::new(cpu, &packed, case.copies(packed.bytes()), shape);
        let (mut alone, mut whole) = (ours(), ours());
        sides.push(Side::new((*format).into(), Box::new(move || alone.multiply())));
        sides.push(Side::new((*format).into(), Box::new(move || whole.quantize_and_multiply())));
    }
    let copies = case.copies(shape.rows * shape.cols);
    let mut floats = Floats::new(pool, &gemm, &int8, copies, shape);
    sides.push(Side::new("floats".into(), Box::new(move || floats.multiply())));
    for (form, mut theirs) in rten::forms(pool, &gemm, &int8, copies, shape) {
        sides.push(Side::new(form.into(), Box::new(move || theirs.multiply())));
    }
    check_pages(case, sides.len() * case.bytes)?;
    for _ in 0..rounds {
        for side in &mut sides {
            std::thread::sleep(PAUSE);
            side.sample();
        }
    }
    let (ours, theirs) = sides.split_at(2 * FORMATS.len());
    for pair in ours.chunks_exact(2) {
        print(case, "product", &pair[0], &theirs[1..]);
        print(case, "floats to floats", &pair[1], &theirs[..1]);
    }
    Ok(())
}

fn print_limits(cpu: &Cpu) {
    let found = limits::measure(cpu);
    println!(
        "\nlimits, {} threads, {}: memory {:.1} GB/s, int8 {:.0} GOP/s\n",
        cpu.pool.threads(),
        cpu.isa.name(),
        found.memory_gbps,
        found.int8_gops
    );
}

/// Measures all cases on so many threads and prints a row for each format of ours.
pub fn run(threads: usize, cases: &[Case], rounds: usize) -> Result<(), String> {
    let cpu = Cpu::new(None, Some(threads)).map_err(|e| e.to_string())?;
    let pool = rten::pool(threads)?;
    print_limits(&cpu);
    println!(
        "| rows x cols, tokens | threads | format | task | lowbit, us | rten-gemm, us | lowbit is | its forms, us |"
    );
    println!("|---|--:|---|---|--:|--:|--:|---|");
    cases.iter().try_for_each(|case| measure(&cpu, &pool, case, rounds.max(1)))?;
    print_limits(&cpu);
    Ok(())
}
