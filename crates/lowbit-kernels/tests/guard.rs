//! No kernel reads or writes outside its buffers: every buffer lies flush against a page without access, at its end in
//! one run and at its start in another. A violation kills the test; the last line it printed names the case.
#![cfg(unix)]

use lowbit_kernels::ops::{self, AdamW, AttentionShape, Function};
use lowbit_kernels::{
    Activations, BLOCK_SIZES, Bytes, Cpu, FORMATS, Format, Int8Activations, Isa, Mat, Packed, Precision,
    QuantizeOptions, gemm_in,
};
use std::ops::{Deref, DerefMut};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::ptr;

/// Where a buffer touches a page without access.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Start,
    End,
}

const SIDES: [Side; 2] = [Side::Start, Side::End];

/// A buffer between two pages without access.
struct Guarded<T> {
    map: *mut libc::c_void,
    mapped: usize,
    start: *mut T,
    len: usize,
}

// SAFETY: owns its memory and gives it out by the usual rules of borrowing.
unsafe impl<T: Send> Send for Guarded<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Guarded<T> {}

impl<T: Copy> Guarded<T> {
    fn new(side: Side, values: &[T]) -> Self {
        // SAFETY: no arguments that could be wrong.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let size = size_of_val(values);
        let inner = size.next_multiple_of(page);
        let mapped = inner + 2 * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: a fresh mapping, of which only the inner pages become accessible; `values` fits them.
        unsafe {
            let map = libc::mmap(ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED, "the system maps {mapped} bytes");
            let first = map.cast::<u8>().add(page);
            if inner > 0 {
                assert_eq!(libc::mprotect(first.cast(), inner, libc::PROT_READ | libc::PROT_WRITE), 0);
            }
            let start: *mut T = first.add(if side == Side::End { inner - size } else { 0 }).cast();
            assert!(start.is_aligned());
            ptr::copy_nonoverlapping(values.as_ptr(), start, values.len());
            Guarded { map, mapped, start, len: values.len() }
        }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nothing borrows any more.
        unsafe { libc::munmap(self.map, self.mapped) };
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: initialised by `new`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl AsRef<[u8]> for Guarded<u8> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Guarded values in -1..1.
fn values(side: Side, n: usize) -> Guarded<f32> {
    let values: Vec<f32> = (0..n as u32).map(|i| (i.wrapping_mul(2654435761) >> 8) as f32 / 8388608.0 - 1.0).collect();
    Guarded::new(side, &values)
}

fn cpus() -> Vec<Cpu> {
    Isa::available().iter().map(|isa| Cpu::new(Some(isa.name()), Some(1)).expect("available")).collect()
}

fn packed(format: &'static dyn Format, rows: usize, cols: usize, side: Side) -> Packed {
    let options =
        QuantizeOptions { outlier_columns: if cols > 64 { vec![5, 64] } else { vec![] }, ..Default::default() };
    let made = format.quantize(&values(side, rows * cols), rows, cols, &options).expect("finite weights");
    let parts = made.parts().iter().map(|part| Bytes::new(Guarded::<u8>::new(side, part))).collect();
    Packed::from_parts(format, rows, cols, parts).expect("parts as made")
}

#[test]
fn products_of_every_format_stay_inside() {
    let cpus = cpus();
    for format in FORMATS {
        eprintln!("{}", format.name());
        for (side, rows, cols) in shapes([1, 2, 7, 17, 150], [1, 3, 63, 64, 65, 257]) {
            let p = packed(*format, rows, cols, side);
            let mut row = values(side, cols);
            format.dequantize_row(&p, rows - 1, &mut row);
            for cpu in &cpus {
                eprintln!("{} {} [{rows}, {cols}] {side:?}", format.name(), cpu.isa.name());
                for tokens in [0, 1, 2, 15] {
                    let (x, mut y) = (values(side, tokens * cols), values(side, tokens * rows));
                    p.matmul(cpu, Activations::F32(&x), &mut y);
                    assert!(y.iter().all(|y| y.is_finite()));
                    let mut q = Int8Activations::default();
                    q.quantize(cpu, &x, cols);
                    p.matmul(cpu, Activations::Int8(&q), &mut y);
                    for block in BLOCK_SIZES {
                        q.quantize_blocks(cpu, &x, cols, block);
                        p.matmul(cpu, Activations::Int8(&q), &mut y);
                        assert!(y.iter().all(|y| y.is_finite()));
                    }
                }
            }
        }
    }
}

/// All pairs on both sides.
fn shapes<const A: usize, const B: usize>(a: [usize; A], b: [usize; B]) -> impl Iterator<Item = (Side, usize, usize)> {
    SIDES.into_iter().flat_map(move |side| a.into_iter().flat_map(move |a| b.into_iter().map(move |b| (side, a, b))))
}

#[test]
fn gemm_stays_inside() {
    for cpu in cpus() {
        for (side, m, n) in shapes([1, 2, 7, 17], [1, 3, 16, 17, 65, 130]) {
            for k in [1, 3, 64, 257] {
                eprintln!("gemm {} [{m}, {k}] x [{k}, {n}] {side:?}", cpu.isa.name());
                let (a, b, mut c) = (values(side, m * k), values(side, k * n), values(side, m * n));
                for (a, b) in [
                    (Mat::new(&a, k), Mat::new(&b, n)),
                    (Mat::new(&a, m).t(), Mat::new(&b, n)),
                    (Mat::new(&a, k), Mat::new(&b, k).t()),
                    (Mat::new(&a, m).t(), Mat::new(&b, k).t()),
                ] {
                    for precision in [Precision::F32, Precision::Bf16] {
                        gemm_in(&cpu, precision, m, n, k, a, b, false, &mut c);
                        gemm_in(&cpu, precision, m, n, k, a, b, true, &mut c);
                    }
                }
                assert!(c.iter().all(|c| c.is_finite()));
            }
        }
    }
}

#[test]
fn elementwise_operations_stay_inside() {
    for cpu in cpus() {
        for (side, n, _) in shapes([1, 3, 15, 16, 17, 63, 64, 65, 257, 16_387], [0]) {
            eprintln!("elementwise {} {n} {side:?}", cpu.isa.name());
            let [a, b, d] = [(); 3].map(|()| values(side, n));
            let [mut x, mut y, mut z] = [(); 3].map(|()| Guarded::new(side, &vec![0.0; n]));
            for f in Function::ALL {
                ops::activate(&cpu, *f, &a, &mut y);
                ops::activate_backward(&cpu, *f, &a, &d, &mut y);
                ops::gate(&cpu, *f, &a, &b, &mut y);
                ops::gate_backward(&cpu, *f, &a, &b, &d, &mut y, &mut z);
            }
            ops::add(&cpu, &a, &b, &mut y);
            ops::add_assign(&cpu, &mut y, &a);
            ops::mul(&cpu, &a, &b, &mut y);
            ops::mul_backward(&cpu, &a, &b, &d, &mut y, &mut z);
            ops::dropout(&cpu, &a, 0.5, 3, &mut y);
            let p = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };
            y.fill(0.0);
            z.fill(0.0);
            ops::adamw(&cpu, &mut x, &a, &mut y, &mut z, p);
            ops::sgd(&cpu, &mut x, &a, &mut y, 0.1, 0.9, 0.0, 1.0);
            assert!(ops::all_finite(&cpu, &x) && ops::sum_squares(&cpu, &x) > 0.0);
        }
    }
}

#[test]
fn operations_on_rows_stay_inside() {
    for cpu in cpus() {
        for (side, rows, width) in shapes([1, 2, 7, 17], [1, 3, 16, 17, 63, 64, 65, 257]) {
            eprintln!("rows {} [{rows}, {width}] {side:?}", cpu.isa.name());
            let [x, dy] = [(); 2].map(|()| values(side, rows * width));
            let [mut y, mut dx] = [(); 2].map(|()| values(side, rows * width));
            let [weight, bias] = [(); 2].map(|()| values(side, width));
            let [mut dweight, mut dbias] = [(); 2].map(|()| values(side, width));
            ops::rms_norm(&cpu, &x, &weight, 1e-5, &mut y);
            ops::rms_norm_backward(&cpu, &x, &weight, 1e-5, &dy, &mut dx, &mut dweight);
            ops::layer_norm(&cpu, &x, &weight, Some(&bias), 1e-5, &mut y);
            ops::layer_norm_backward(&cpu, &x, &weight, 1e-5, &dy, &mut dx, &mut dweight, Some(&mut dbias));
            ops::fake_quantize_rows(&cpu, &x, width, &mut y);
            ops::add_bias(&cpu, &mut y, &bias);
            ops::sum_rows(&cpu, &dy, &mut dbias);
            ops::softmax(&cpu, &mut y, width);
            let targets = Guarded::new(side, &vec![width as u32 - 1; rows]);
            let loss = ops::cross_entropy(&cpu, &x, width, &targets, 0.1, Some((&mut dx, 0.5)));
            assert!(loss.is_finite() && ops::cross_entropy(&cpu, &x, width, &targets, 0.0, None).is_finite());
            let ids = Guarded::new(side, &(0..rows as u32).rev().collect::<Vec<_>>());
            ops::gather(&cpu, &x, width, &ids, &mut y);
            ops::scatter_add(&cpu, &dy, width, &ids, &mut dx);
            let starts = Guarded::new(side, &if rows > 1 { vec![0, 1, rows] } else { vec![0, 1] });
            let mut mean = values(side, (starts.len() - 1) * width);
            ops::pool_mean(&cpu, &x, width, &starts, &mut mean);
            ops::pool_mean_backward(&cpu, &mean, width, &starts, &mut dx);
            assert!(ops::all_finite(&cpu, &y) && ops::all_finite(&cpu, &dx));
        }
    }
}

#[test]
fn attention_stays_inside() {
    for cpu in cpus() {
        for (side, tokens, head_dim) in shapes([1, 2, 7, 17, 33, 70], [2, 6, 16, 20, 64]) {
            for (heads, kv_heads, causal) in [(1, 1, true), (3, 1, false), (4, 2, true)] {
                let shape = AttentionShape::new(heads, kv_heads, head_dim, causal);
                eprintln!("attention {} {tokens} tokens {shape:?} {side:?}", cpu.isa.name());
                attention(&cpu, shape, tokens, side);
            }
        }
    }
}

fn attention(cpu: &Cpu, shape: AttentionShape, tokens: usize, side: Side) {
    let (width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let positions = Guarded::new(side, &(0..tokens as u32).collect::<Vec<_>>());
    let starts = Guarded::new(side, &if tokens > 2 { vec![0, 2, tokens] } else { vec![0, tokens] });
    let [mut q, mut out, dout, mut dq] = [(); 4].map(|()| values(side, tokens * width));
    let [k, v, mut dk, mut dv] = [(); 4].map(|()| values(side, tokens * kv_width));
    let mut logsumexp = values(side, tokens * shape.heads);
    ops::rope(cpu, &mut q, shape.heads, &ops::Frequencies::of_base(1e4, shape.head_dim), &positions, false);
    ops::attention(cpu, shape, &starts, &q, &k, &v, &mut out, &mut logsumexp);
    ops::attention_backward(cpu, shape, &starts, &q, &k, &v, &out, &logsumexp, &dout, &mut dq, &mut dk, &mut dv);
    assert!([&out, &dq, &dk, &dv].into_iter().all(|x| ops::all_finite(cpu, x)));
    for past in [0, 1, 130] {
        let [keys, cached] = [(); 2].map(|()| values(side, (past + tokens) * kv_width));
        ops::attention_cached(cpu, shape, &q, &keys, &cached, past, &mut out);
        assert!(ops::all_finite(cpu, &out));
    }
}

/// Set in the process that is to die: the side on which it reads one byte too far.
const TOUCH: &str = "LOWBIT_TEST_TOUCH_GUARD";

#[test]
fn a_read_one_byte_outside_is_noticed() {
    if let Ok(side) = std::env::var(TOUCH) {
        let side = SIDES.into_iter().find(|s| format!("{s:?}") == side).expect("a side");
        let buffer = Guarded::<u8>::new(side, &[7; 100]);
        let outside = if side == Side::End { buffer.start.wrapping_add(100) } else { buffer.start.wrapping_sub(1) };
        // SAFETY: not sound; the page has no access, so that the process dies here.
        let read = unsafe { outside.read_volatile() };
        println!("read {read}");
        return;
    }
    for side in SIDES {
        let mut child = Command::new(std::env::current_exe().expect("the path of this test"));
        child.args(["--exact", "a_read_one_byte_outside_is_noticed"]).env(TOUCH, format!("{side:?}"));
        let status = child.output().expect("the test can be started").status;
        assert!(matches!(status.signal(), Some(libc::SIGSEGV | libc::SIGBUS)), "{side:?}: {status}");
    }
}
