//! Row-major f32, one loop.
use super::*;

/// 32-bit floats.
#[derive(Debug)]
pub struct F32;

impl Format for F32 {
    fn name(&self) -> &'static str {
        "f32"
    }
    fn parts(&self, rows: usize, cols: usize, _: &[Bytes]) -> Vec<Part> {
        vec![Part { name: "codes", bytes: rows * cols * 4 }]
    }
    fn quantize(&self, w: &[f32], rows: usize, cols: usize, _: &QuantizeOptions) -> Result<Packed, Error> {
        Ok(Packed { format: &F32, rows, cols, parts: vec![Bytes::from_f32(w)] })
    }
    fn dequantize_row(&self, p: &Packed, row: usize, out: &mut [f32]) {
        for (o, b) in out.iter_mut().zip(p.parts[0][row * p.cols * 4..].chunks_exact(4)) {
            *o = f32::from_le_bytes(b.try_into().expect("four bytes"));
        }
    }
    fn matmul(&self, _: &Cpu, p: &Packed, x: Rows, y: &mut [f32]) {
        let (w, owned);
        w = p.dequantize();
        let x = match x {
            Rows::F32(x) => x,
            Rows::Int8(q) => {
                owned = q.dequantize();
                &owned[..]
            }
        };
        for (x, y) in x.chunks_exact(p.cols).zip(y.chunks_exact_mut(p.rows)) {
            for (w, y) in w.chunks_exact(p.cols).zip(y) {
                *y = w.iter().zip(x).map(|(a, b)| a * b).sum();
            }
        }
    }
    fn validate(&self, _: &Packed) -> Result<(), Error> {
        Ok(())
    }
}
