//! Matrix products as cases, checked against the definition of the format before they are timed.

use super::case::{Case, Facts, Limit};
use super::shape::WeightShape;
use super::values;
use crate::error::{Error, Kind as Fault};
use lowbit_kernels::format::ActivationType;
use lowbit_kernels::{Activations, BLOCK_SIZES, Bytes, Cpu, Format, Int8Activations, Packed, QuantizeOptions};
use lowbit_model::recipe::{ActivationPrecision, ProductFormat};
use std::cell::RefCell;
use std::hint::black_box;

/// Packed bytes that the copies of a shape in one format hold together where one token is multiplied, so that weights come
/// from memory.
const COPIES_BYTES: usize = 512 << 20;
/// The same of all formats together.
const ALL_COPIES_BYTES: usize = 2 << 30;
/// Copies of a shape at most.
const MAX_COPIES: usize = 1024;
/// Outputs of a token that are compared with the definition of the format.
const CHECKED_ROWS: usize = 16;

/// What a product of so many tokens is held against.
fn limit(product: &ProductFormat, cpu: &Cpu, tokens: usize) -> Limit {
    match product.format.spec().activations {
        _ if tokens == 1 => Limit::Memory,
        _ if product.format.takes_bf16(cpu, tokens) => Limit::Bf16,
        ActivationType::Float => Limit::F32,
        ActivationType::Int8 if product.activations == ActivationPrecision::F32 => Limit::F32,
        ActivationType::Int8 | ActivationType::Mixed => Limit::Int8,
    }
}

/// The matrices of a shape in one format: copies of them, elsewhere in memory.
pub(super) struct Weights {
    product: ProductFormat,
    /// `[copy][matrix]`
    copies: Vec<Vec<Packed>>,
}

/// Bytes that a shape takes in some formats: weights, as f32 and with their copies; inputs and outputs of products.
pub(super) fn memory(formats: &[ProductFormat], shape: &WeightShape, tokens: &[usize]) -> (u64, u64) {
    let master = shape.matrices.iter().map(|(rows, cols)| 4 * rows * cols).max().unwrap_or(0);
    let packed = |product: &ProductFormat| {
        let parts = shape.matrices.iter().flat_map(|(rows, cols)| product.format.parts(*rows, *cols, &[]));
        let bytes = parts.map(|part| part.bytes).sum::<usize>();
        if tokens.contains(&1) { bytes.max(budget(formats)) } else { bytes }
    };
    let weights = formats.iter().map(packed).fold(master, usize::saturating_add);
    let (all, most) = (tokens.iter().sum::<usize>(), tokens.iter().copied().max().unwrap_or(0));
    let rest = shape.matrices.iter().map(|(rows, cols)| 8 * all * cols + 4 * most * rows).sum::<usize>();
    (weights as u64, rest as u64)
}

/// Packed bytes that the copies of a shape have in one of some formats.
fn budget(formats: &[ProductFormat]) -> usize {
    COPIES_BYTES.min(ALL_COPIES_BYTES / formats.len().max(1))
}

impl Weights {
    /// The shape in every format; one copy, unless the weights shall come `from_memory`.
    pub fn all(formats: &[ProductFormat], shape: &WeightShape, from_memory: bool) -> Result<Vec<Self>, Error> {
        let mut first: Vec<Vec<Packed>> = formats.iter().map(|_| Vec::new()).collect();
        for (rows, cols) in &shape.matrices {
            let weights = values(rows * cols, 7);
            for (product, packed) in formats.iter().zip(&mut first) {
                packed.push(product.format.quantize(&weights, *rows, *cols, &QuantizeOptions::default())?);
            }
        }
        let budget = budget(formats);
        let grow = |(product, matrices): (&ProductFormat, Vec<Packed>)| {
            let copies = (budget / bytes(&matrices).max(1)).clamp(1, MAX_COPIES);
            let more = if from_memory { copies - 1 } else { 0 };
            let mut copies: Vec<Vec<Packed>> = (0..more).map(|_| matrices.iter().map(copy).collect()).collect();
            copies.push(matrices);
            Weights { product: *product, copies }
        };
        Ok(formats.iter().zip(first).map(grow).collect())
    }
}

fn bytes(matrices: &[Packed]) -> usize {
    matrices.iter().map(Packed::product_bytes).sum()
}

/// The same matrix elsewhere in memory.
pub(super) fn copy(packed: &Packed) -> Packed {
    let parts = packed.parts().iter().map(|part| Bytes::new(part.to_vec())).collect();
    Packed::from_parts(packed.format(), packed.rows(), packed.cols(), parts).expect("parts of a matrix")
}

/// Activations of some tokens, as wide as a matrix is, in each precision.
struct Operands {
    cols: usize,
    x: Vec<f32>,
    /// int8 with a scale per token, then per block of each size.
    int8: Vec<(Option<usize>, Int8Activations)>,
}

impl Operands {
    fn new(cpu: &Cpu, tokens: usize, cols: usize) -> Self {
        let x = values(tokens * cols, 3);
        let quantized = |block: Option<usize>| {
            let mut q = Int8Activations::default();
            match block {
                Some(block) => q.quantize_blocks(cpu, &x, cols, block),
                None => q.quantize(cpu, &x, cols),
            }
            (block, q)
        };
        let int8 = std::iter::once(None).chain(BLOCK_SIZES.map(Some)).map(quantized).collect();
        Operands { cols, x, int8 }
    }

    /// What a format is given. Where it quantizes the activations itself, that is part of its product.
    fn given(&self, product: &ProductFormat) -> Activations<'_> {
        match product.activations {
            ActivationPrecision::F32 => Activations::F32(&self.x),
            int8 => {
                let found = self.int8.iter().find(|(block, _)| *block == int8.block());
                Activations::Int8(&found.expect("every size of blocks").1)
            }
        }
    }
}

/// Activations for all matrices of a shape.
pub(super) struct Input {
    tokens: usize,
    rows: Vec<Operands>,
}

impl Input {
    pub fn new(cpu: &Cpu, tokens: usize, shape: &WeightShape) -> Self {
        let mut rows: Vec<Operands> = Vec::new();
        for (_, cols) in &shape.matrices {
            if rows.iter().all(|row| row.cols != *cols) {
                rows.push(Operands::new(cpu, tokens, *cols));
            }
        }
        Input { tokens, rows }
    }

    fn of(&self, product: &ProductFormat, packed: &Packed) -> Activations<'_> {
        let row = self.rows.iter().find(|row| row.cols == packed.cols()).expect("made for this shape");
        row.given(product)
    }
}

/// A checked case: all matrices of the shape one after another, the copies in turn. `y` is where outputs go.
pub(super) fn case<'a>(
    (machine, cpu): (usize, &'a Cpu),
    shape: &WeightShape,
    weights: &'a Weights,
    input: &'a Input,
    y: &'a RefCell<Vec<f32>>,
) -> Result<Case<'a>, Error> {
    let (tokens, product) = (input.tokens, &weights.product);
    let copies = if tokens == 1 { &weights.copies[..] } else { &weights.copies[..1] };
    let widest = shape.matrices.iter().map(|(rows, _)| tokens * rows).max().unwrap_or(0);
    let len = y.borrow().len().max(widest);
    y.borrow_mut().resize(len, 0.0);
    let multiply = move |packed: &Packed, y: &mut [f32]| {
        packed.matmul(cpu, input.of(product, packed), y);
        black_box(y);
    };
    for packed in &copies[0] {
        let y = &mut y.borrow_mut()[..tokens * packed.rows()];
        y.fill(f32::NAN);
        multiply(packed, y);
        check(cpu, packed, input.of(product, packed), y)?;
    }
    let facts = Facts {
        format: product.name(),
        shape: shape.name.clone(),
        sides: shape.sides(),
        tokens,
        copies: copies.len(),
        bytes: bytes(&copies[0]),
        ops: 2.0 * shape.weights() as f64 * tokens as f64,
        limit: limit(product, cpu, tokens),
    };
    let mut next = 0;
    let work = move || {
        let y = &mut *y.borrow_mut();
        copies[next].iter().for_each(|packed| multiply(packed, &mut y[..tokens * packed.rows()]));
        next = (next + 1) % copies.len();
    };
    Ok(Case::new(facts, machine, Box::new(work)))
}

/// Largest error of an output, as a fraction of `max|x| * sum|w|`.
fn tolerance(cpu: &Cpu, format: &dyn Format, tokens: usize) -> f64 {
    match format.spec().activations {
        ActivationType::Mixed => 1.01 / 254.0, // half a step of the activations, which it quantizes itself
        _ if format.takes_bf16(cpu, tokens) => 4e-3, // activations become bf16
        _ => 3e-6,
    }
}

/// Compares some outputs `y`, `[tokens, rows]`, with products of the dequantized weights in f64.
fn check(cpu: &Cpu, packed: &Packed, x: Activations, y: &[f32]) -> Result<(), Error> {
    let (rows, cols) = (packed.rows(), packed.cols());
    let seen = x.floats();
    let (name, tokens) = (packed.format().name(), seen.len() / cols);
    let most = tolerance(cpu, packed.format(), tokens);
    let mut weights = vec![0.0; cols];
    for i in 0..CHECKED_ROWS.min(rows) {
        let row = i * (rows - 1) / (CHECKED_ROWS.min(rows) - 1).max(1);
        packed.format().dequantize_row(packed, row, &mut weights);
        let size: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
        for token in [0, tokens / 2, tokens - 1] {
            let x = &seen[token * cols..][..cols];
            let expected: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let top = f64::from(x.iter().fold(0.0f32, |top, x| top.max(x.abs())));
            let have = y[token * rows + row];
            let error = (f64::from(have) - expected).abs() / (size * top + 1e-6);
            if error.is_nan() || error > most {
                let message = format!(
                    "kernel `{name}` on {}, [{rows}, {cols}] x {tokens} tokens: row {row} of token {token} is {have}, not \
                     {expected}: error {error:.1e} of max|x| * sum|w|, tolerance {most:.1e}; it was not timed",
                    cpu.isa.name()
                );
                return Err(Error::new(Fault::Check, message));
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
            let row = Operands::new(&cpu, tokens, cols);
            let mut y = vec![f32::NAN; tokens * rows];
            packed.matmul(&cpu, row.given(&ProductFormat::of(*format)), &mut y);
            check(&cpu, &packed, row.given(&ProductFormat::of(*format)), &y).expect("the kernel is right");
            for bad in [f32::NAN, 2.0 * y[tokens * rows - 1] + 100.0] {
                y[tokens * rows - 1] = bad;
                let failure = check(&cpu, &packed, row.given(&ProductFormat::of(*format)), &y)
                    .expect_err("the last output is wrong");
                assert_eq!(failure.kind, Fault::Check);
                assert!(failure.message.contains(&format!("`{}`", format.name())), "{failure}");
                assert!(failure.message.contains("row 39 of token 4"), "{failure}");
            }
        }
    }

    #[test]
    fn limits_follow_the_arithmetic() {
        let (scalar, best) = (Cpu::new(Some("scalar"), Some(1)).unwrap(), Cpu::new(None, Some(1)).unwrap());
        for format in FORMATS {
            let product = ProductFormat::of(*format);
            assert_eq!(limit(&product, &scalar, 1), Limit::Memory);
            let float = format.spec().activations == ActivationType::Float;
            let expected = if float { Limit::F32 } else { Limit::Int8 };
            assert_eq!(limit(&product, &scalar, 2), expected, "{}", format.name());
            let pairs =
                best.isa.name() == "avx512-bf16" && ["bf16", "bf16_scan", "nf4", "nf4_dq"].contains(&format.name());
            let expected = if pairs { Limit::Bf16 } else { expected };
            assert_eq!(limit(&product, &best, 2), expected, "{}", format.name());
        }
    }

    #[test]
    fn activations_other_than_those_of_the_recipe_are_named() {
        let name = |text: &str| ProductFormat::parse(text).map(|product| product.name());
        for text in ["int4", "q4_k", "q4_k+act=f32", "int8_channel+act=int8_block", "int4_g64+act=int8_block128"] {
            assert_eq!(name(text).unwrap(), text);
        }
        assert_eq!(name("q4_k+act=int8_block").unwrap(), "q4_k");
        for (text, said) in [("q4_x", "`q4_k`"), ("q4_k+f32", "q4_k+act=f32"), ("q4_k+act=int7", "`int8`")] {
            let error = name(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let (cpu, weights) = (Cpu::new(None, Some(1)).unwrap(), ProductFormat::parse("q4_k+act=f32").unwrap());
        assert_eq!(limit(&weights, &cpu, 2), Limit::F32);
    }

    #[test]
    fn copies_fill_the_budget_and_are_elsewhere() {
        let shape = WeightShape { name: "two".into(), matrices: vec![(256, 512), (64, 256)] };
        let formats = [ProductFormat::parse("f32").unwrap()];
        let weights = Weights::all(&formats, &shape, true).unwrap().remove(0);
        let each = bytes(&weights.copies[0]);
        assert_eq!(each, 4 * shape.weights());
        assert_eq!(weights.copies.len(), COPIES_BYTES / each);
        let places: std::collections::BTreeSet<_> = weights.copies.iter().map(|c| c[0].parts()[0].as_ptr()).collect();
        assert_eq!(places.len(), weights.copies.len());
        assert_eq!(Weights::all(&formats, &shape, false).unwrap()[0].copies.len(), 1);
    }
}
