//! rten-gemm's side: `u8 [tokens, cols] x i8 [cols, rows] -> i32 [tokens, rows]`, in each form that it has.

use crate::case::{Shape, activations};
use rayon::{ThreadPool, ThreadPoolBuilder};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedAMatrix, PackedBMatrix};
use rten_tensor::NdTensorView;
use std::hint::black_box;

type Executor = GemmExecutor<u8, i8, i32>;

/// How it is given weights and activations.
enum Form {
    /// Weights arranged beforehand, activations in each product.
    PackedB(Vec<PackedBMatrix<i8>>),
    /// Weights and activations arranged beforehand.
    PackedBoth(Vec<PackedBMatrix<i8>>, PackedAMatrix<u8>),
    /// Plain weights `[rows, cols]`, read along columns.
    Transposed(Vec<i8>),
    /// Plain weights `[cols, rows]`.
    Plain(Vec<i8>),
}

/// Products in one form.
pub struct Rten<'a> {
    pool: &'a ThreadPool,
    gemm: &'a Executor,
    form: Form,
    shape: Shape,
    x: Vec<u8>,
    pub y: Vec<i32>,
}

/// A pool of so many threads; with one, rten-gemm does without rayon's tasks.
pub fn pool(threads: usize) -> Result<ThreadPool, String> {
    ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string())
}

/// All forms that suit a shape: plain weights have kernels of their own for one token.
pub fn forms<'a>(
    pool: &'a ThreadPool,
    gemm: &'a Executor,
    weights: &[i8],
    copies: usize,
    shape: Shape,
) -> Vec<(&'static str, Rten<'a>)> {
    let Shape { rows, cols, tokens } = shape;
    let x = activations(shape);
    let by_column = NdTensorView::from_data([rows, cols], weights);
    let packed = |n: usize| {
        let one = gemm.prepack_b(by_column.transposed());
        (0..n).map(|_| one.clone()).collect::<Vec<_>>()
    };
    let mut found = vec![("packed weights", Form::PackedB(packed(copies)))];
    if tokens == 1 {
        let plain: Vec<i8> = (0..cols).flat_map(|c| (0..rows).map(move |r| weights[r * cols + c])).collect();
        found.push(("plain weights, transposed", Form::Transposed(weights.repeat(copies))));
        found.push(("plain weights", Form::Plain(plain.repeat(copies))));
    } else {
        let a = gemm.prepack_a(NdTensorView::from_data([tokens, cols], &x[..]));
        found.push(("packed weights and activations", Form::PackedBoth(packed(copies), a)));
    }
    let side = |form| Rten { pool, gemm, form, shape, x: x.clone(), y: vec![i32::MIN; tokens * rows] };
    found.into_iter().map(|(name, form)| (name, side(form))).collect()
}

impl Rten<'_> {
    /// A product with each copy.
    pub fn multiply(&mut self) -> usize {
        let Rten { pool, gemm, form, shape, x, y } = self;
        let Shape { rows, cols, tokens } = *shape;
        let x = NdTensorView::from_data([tokens, cols], &x[..]);
        let product = |y: &mut [i32], a: GemmInputA<u8>, b: GemmInputB<i8>| {
            gemm.gemm(y, a, b, GemmOptions::default()).expect("shapes fit");
            black_box(y);
        };
        pool.install(|| match form {
            Form::PackedB(copies) => {
                copies.iter().for_each(|b| product(y, GemmInputA::Unpacked(x), GemmInputB::Packed(b)));
                copies.len()
            }
            Form::PackedBoth(copies, a) => {
                copies.iter().for_each(|b| product(y, GemmInputA::Packed(a), GemmInputB::Packed(b)));
                copies.len()
            }
            Form::Transposed(all) => {
                let copies = all.chunks_exact(rows * cols);
                let n = copies.len();
                for b in copies {
                    let b = NdTensorView::from_data([rows, cols], b).transposed();
                    product(y, GemmInputA::Unpacked(x), GemmInputB::Unpacked(b));
                }
                n
            }
            Form::Plain(all) => {
                let copies = all.chunks_exact(rows * cols);
                let n = copies.len();
                for b in copies {
                    let b = NdTensorView::from_data([cols, rows], b);
                    product(y, GemmInputA::Unpacked(x), GemmInputB::Unpacked(b));
                }
                n
            }
        })
    }
}
