//! lowbit's side.

use crate::case::{Shape, activations};
use lowbit_kernels::{Bytes, Cpu, Int8Rows, Packed, QuantizeOptions, Rows, format};
use std::hint::black_box;

/// Bytes a part begins at a multiple of.
const ALIGN: usize = 64;

/// Packs integers with scale 1.
pub fn pack(name: &str, weights: &[i8], shape: Shape) -> Result<Packed, String> {
    let format = format::find(name).map_err(|e| e.to_string())?;
    let packed = if name.starts_with("ternary") {
        let codes: Vec<u8> = weights.iter().map(|w| (w + 1) as u8).collect();
        format.pack_ternary(&codes, 1.0, shape.rows, shape.cols).ok_or(format!("{name} is not ternary"))?
    } else {
        let weights: Vec<f32> = weights.iter().map(|w| f32::from(*w)).collect();
        format.quantize(&weights, shape.rows, shape.cols, &QuantizeOptions::default())
    };
    packed.map_err(|e| e.to_string())
}

/// The same matrix `n` times, in one allocation, as the tensors of a model in one file.
fn copies(packed: &Packed, n: usize) -> Vec<Packed> {
    let padded = |part: &Bytes| part.len().next_multiple_of(ALIGN);
    let size: usize = packed.parts.iter().map(padded).sum();
    let mut all = Vec::with_capacity(size * n);
    for part in (0..n).flat_map(|_| &packed.parts) {
        all.extend_from_slice(part);
        all.resize(all.len().next_multiple_of(ALIGN), 0);
    }
    let all = Bytes::new(all);
    let copy = |i: usize| {
        let mut at = i * size;
        let mut slice = |part: &Bytes| {
            let found = all.slice(at..at + part.len()).expect("a part of the copies");
            at += padded(part);
            found
        };
        Packed { parts: packed.parts.iter().map(&mut slice).collect(), ..packed.clone() }
    };
    (0..n).map(copy).collect()
}

/// Products of one format.
pub struct Ours<'a> {
    cpu: &'a Cpu,
    copies: Vec<Packed>,
    x: Vec<f32>,
    q: Int8Rows,
    pub y: Vec<f32>,
}

impl<'a> Ours<'a> {
    pub fn new(cpu: &'a Cpu, packed: &Packed, n: usize, shape: Shape) -> Self {
        let x: Vec<f32> = activations(shape).into_iter().map(f32::from).collect();
        let mut q = Int8Rows::default();
        q.quantize(cpu, &x, shape.cols);
        Ours { cpu, copies: copies(packed, n), x, q, y: vec![f32::NAN; shape.tokens * shape.rows] }
    }

    /// A product with each copy; activations were quantized before.
    pub fn multiply(&mut self) -> usize {
        for packed in &self.copies {
            packed.matmul(self.cpu, Rows::Int8(&self.q), &mut self.y);
            black_box(&self.y);
        }
        self.copies.len()
    }

    /// A product with each copy, before which activations are quantized.
    pub fn quantize_and_multiply(&mut self) -> usize {
        for packed in &self.copies {
            self.q.quantize(self.cpu, &self.x, packed.cols);
            packed.matmul(self.cpu, Rows::Int8(&self.q), &mut self.y);
            black_box(&self.y);
        }
        self.copies.len()
    }
}
