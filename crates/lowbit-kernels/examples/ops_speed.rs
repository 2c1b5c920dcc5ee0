//! Speeds of the vector operations: `cargo run --release -p lowbit-kernels --example ops_speed [GROUP [NAME]]`.
//!
//! Attention counts the multiply-adds that its definition needs (causal: half the square), two floating-point operations
//! each; the peak is that of independent multiply-adds in registers, measured in the same run.

use lowbit_kernels::ops::{self, AdamW, AttentionShape, CacheKind, CacheRows, Cached, Function};
use lowbit_kernels::{Cpu, Op, Simd};
use std::time::Instant;

/// Best of several timings, in seconds.
fn time(mut f: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let (start, mut turns) = (Instant::now(), 0);
    while turns < 5 || start.elapsed().as_secs_f64() < 0.4 {
        let turn = Instant::now();
        f();
        best = best.min(turn.elapsed().as_secs_f64());
        turns += 1;
    }
    best
}

/// Independent multiply-adds.
struct Peak(usize);

impl Op for Peak {
    type Out = f32;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(std::hint::black_box(2.0)); 12];
        let (a, b) = (s.splat(0.9), s.splat(0.2));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.fma(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| s.sum(sum)).sum()
    }
}

/// Floating-point operations per second of all threads.
fn peak(cpu: &Cpu) -> f64 {
    const TURNS: usize = 20_000;
    let seconds = time(|| {
        cpu.pool.run(cpu.pool.threads(), &|_| {
            std::hint::black_box(cpu.isa.run(Peak(std::hint::black_box(TURNS))));
        });
    });
    (cpu.pool.threads() * TURNS * 12 * 32) as f64 / seconds
}

/// Floats that start at a multiple of 64 bytes, plus `OPS_SKEW` floats.
struct Buffer {
    data: Vec<f32>,
    start: usize,
}

impl Buffer {
    fn new(values: Vec<f32>) -> Self {
        let skew = std::env::var("OPS_SKEW").ok().and_then(|skew| skew.parse().ok()).unwrap_or(0);
        let mut data = vec![0.0; values.len() + 32];
        let start = data.as_ptr().align_offset(64) + skew;
        data.truncate(start + values.len());
        data[start..].copy_from_slice(&values);
        Buffer { data, start }
    }

    fn zeros(len: usize) -> Self {
        Buffer::new(vec![0.0; len])
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[self.start..]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..]
    }
}

fn noise(len: usize, seed: u32) -> Buffer {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    Buffer::new((0..len).map(|_| next()).collect())
}

fn attention(cpu: &Cpu, peak: f64) {
    let sizes = [
        (20, 64, 4),
        (32, 64, 4),
        (48, 64, 4),
        (64, 32, 8),
        (128, 64, 4),
        (256, 64, 4),
        (512, 64, 4),
        (2048, 64, 4),
        (128, 32, 4),
        (512, 128, 4),
        (512, 48, 4),
    ];
    let wanted = |len: usize| std::env::args().nth(2).is_none_or(|only| only == len.to_string());
    for (len, head_dim, heads) in sizes.into_iter().filter(|&(len, ..)| wanted(len)) {
        for (causal, kv_heads) in [(true, heads), (false, heads), (true, heads / 2)] {
            let shape = AttentionShape::new(heads, kv_heads, head_dim, causal);
            let sequences = (1024 / len).max(1);
            let tokens = sequences * len;
            let starts: Vec<usize> = (0..=sequences).map(|i| i * len).collect();
            let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
            let (q, dout) = (noise(tokens * width, 1), noise(tokens * width, 4));
            let (k, v) = (noise(tokens * kv_width, 2), noise(tokens * kv_width, 3));
            let (mut out, mut logsumexp) = (Buffer::zeros(q.len()), Buffer::zeros(tokens * heads));
            let forward = time(|| ops::attention(cpu, shape, &starts, &q, &k, &v, &mut out, &mut logsumexp));
            let (mut dq, mut dk, mut dv) = (Buffer::zeros(q.len()), Buffer::zeros(k.len()), Buffer::zeros(v.len()));
            let backward = time(|| {
                ops::attention_backward(
                    cpu, shape, &starts, &q, &k, &v, &out, &logsumexp, &dout, &mut dq, &mut dk, &mut dv,
                )
            });
            let pairs = if causal { len * (len + 1) / 2 } else { len * len };
            let flops = (4 * sequences * heads * pairs * head_dim) as f64;
            println!(
                "attention len {len:4} dim {head_dim:3} heads {heads}/{kv_heads} causal {causal:5}: forward {:7.3} ms {:5.1} GFLOP/s {:4.1} % | backward {:7.3} ms {:5.1} GFLOP/s {:4.1} %",
                forward * 1e3,
                flops / forward / 1e9,
                100.0 * flops / forward / peak,
                backward * 1e3,
                2.5 * flops / backward / 1e9,
                250.0 * flops / backward / peak,
            );
        }
    }
}

fn cached(cpu: &Cpu) {
    for (past, new) in [(20, 1), (255, 1), (2047, 1), (32_767, 1), (2040, 8), (0, 512)] {
        let shape = AttentionShape::new(20, 5, 128, true);
        let q = noise(new * 20 * 128, 1);
        let mut out = Buffer::zeros(q.len());
        for (name, kind) in CacheKind::ALL {
            let [keys, values] = [2, 3].map(|seed| {
                let mut rows = CacheRows::new(kind, 5, 128);
                rows.push(&noise((past + new) * 5 * 128, seed));
                rows
            });
            let cache = Cached { keys: &keys, values: &values, new };
            let seconds = time(|| ops::attention_caches(cpu, shape, &q, 1, &|_| cache, &mut out));
            println!(
                "cache in {name:4}, 20/5 heads of 128, past {past:4} new {new:3}: {:8.1} us, {:5.1} GB/s",
                seconds * 1e6,
                (keys.bytes() + values.bytes()) as f64 / seconds / 1e9
            );
        }
    }
}

/// Prints the speed of `f`, which moves `floats` floats to or from memory.
fn line(name: &str, floats: usize, f: impl FnMut()) {
    if std::env::args().nth(2).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let seconds = time(f);
    println!("{name:40} {:9.1} us {:6.1} GB/s", seconds * 1e6, 4.0 * floats as f64 / seconds / 1e9);
}

fn streams(cpu: &Cpu) {
    for (rows, width) in [(8, 256), (64, 256), (512, 256), (8192, 256), (1024, 2560)] {
        let n = rows * width;
        println!("rows {rows} width {width}");
        let (x, dy, mut y, mut dx) = (noise(n, 1), noise(n, 2), Buffer::zeros(n), Buffer::zeros(n));
        let (mut da, weight, mut dw, mut db) =
            (Buffer::zeros(n), noise(width, 3), Buffer::zeros(width), Buffer::zeros(width));
        line("  memcpy (one thread)", 2 * n, || y.copy_from_slice(&x));
        line("  add", 3 * n, || ops::add(cpu, &x, &dy, &mut y));
        line("  rms_norm", 2 * n, || ops::rms_norm(cpu, &x, &weight, 1e-5, &mut y));
        line("  rms_norm_backward", 4 * n, || ops::rms_norm_backward(cpu, &x, &weight, 1e-5, &dy, &mut dx, &mut dw));
        line("  layer_norm", 2 * n, || ops::layer_norm(cpu, &x, &weight, Some(&weight), 1e-5, &mut y));
        line("  layer_norm_backward", 4 * n, || {
            ops::layer_norm_backward(cpu, &x, &weight, 1e-5, &dy, &mut dx, &mut dw, Some(&mut db))
        });
        for &f in Function::ALL {
            line(&format!("  activate {f:?}"), 2 * n, || ops::activate(cpu, f, &x, &mut y));
        }
        line("  gate Silu", 3 * n, || ops::gate(cpu, Function::Silu, &x, &dy, &mut y));
        line("  gate_backward Silu", 7 * n, || ops::gate_backward(cpu, Function::Silu, &x, &dy, &y, &mut dx, &mut da));
        line("  dropout", 2 * n, || ops::dropout(cpu, &x, 0.1, 7, &mut y));
        line("  softmax", 2 * n, || ops::softmax(cpu, &mut y, width));
        line("  fake_quantize_rows", 2 * n, || ops::fake_quantize_rows(cpu, &x, width, &mut y));
        let targets: Vec<u32> = (0..rows).map(|i| (i * 37 % width) as u32).collect();
        line("  cross_entropy with gradient", 2 * n, || {
            std::hint::black_box(ops::cross_entropy(cpu, &x, width, &targets, 0.1, Some((&mut dx, 0.5))));
        });
        line("  sum_rows", n, || ops::sum_rows(cpu, &x, &mut db));
        line("  add_bias", 2 * n, || ops::add_bias(cpu, &mut dx, &weight));
        line("  sum_squares", n, || {
            std::hint::black_box(ops::sum_squares(cpu, &x));
        });
        let positions: Vec<u32> = (0..rows as u32).collect();
        let frequencies = ops::Frequencies::of_base(1e4, 64);
        line("  rope, heads of 64", 2 * n, || ops::rope(cpu, &mut da, width / 64, &frequencies, &positions, false));
        let (table, ids) = (noise(256 * width, 5), targets.iter().map(|t| t % 256).collect::<Vec<u32>>());
        let mut dtable = Buffer::zeros(table.len());
        line("  gather", 2 * n, || ops::gather(cpu, &table, width, &ids, &mut y));
        line("  scatter_add", 3 * n, || ops::scatter_add(cpu, &dy, width, &ids, &mut dtable));
        let p = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 3, grad_scale: 1.0 };
        da.fill(0.0);
        y.fill(0.0);
        line("  adamw", 7 * n, || ops::adamw(cpu, &mut dx, &dy, &mut y, &mut da, p));
        line("  sgd", 5 * n, || ops::sgd(cpu, &mut dx, &dy, &mut y, 1e-3, 0.9, 0.1, 1.0));
    }
}

fn main() {
    let cpu = Cpu::new(None, None).expect("the instruction set exists");
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let peak = peak(&cpu);
    println!("{} x {} threads, {:.0} GFLOP/s of f32 multiply-adds", cpu.isa.name(), cpu.pool.threads(), peak / 1e9);
    if wanted("attention") {
        attention(&cpu, peak);
    }
    if wanted("cached") {
        cached(&cpu);
    }
    if wanted("streams") {
        streams(&cpu);
    }
}
