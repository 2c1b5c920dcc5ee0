//! Matrices of every format from bytes of their parts, and from codes and scales of groups: what is accepted is multiplied.
#![no_main]

use lowbit_kernels::format::{Grouped, SpanScales};
use lowbit_kernels::{Activations, BLOCK_SIZES, Bytes, Cpu, FORMATS, Int8Activations, Isa, Packed};
use std::sync::LazyLock;

static CPUS: LazyLock<Vec<Cpu>> = LazyLock::new(|| {
    Isa::available().iter().map(|isa| Cpu::new(Some(isa.name()), Some(1)).expect("available")).collect()
});

/// Bytes of the input, one after another; 0 beyond its end.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

/// Codes and scales as they come, packed and taken apart again.
fn pack(reader: &mut Reader, format: &'static dyn Grouped, rows: usize, cols: usize) -> Option<Packed> {
    let spans = cols.div_ceil(format.span());
    let masks = [format.most(), u8::MAX];
    let mask = masks[usize::from(reader.byte() & 1)];
    let codes: Vec<u8> = reader.bytes(rows * cols).iter().map(|code| code & mask).collect();
    let mut scales: Vec<SpanScales> = Vec::new();
    for at in 0..rows * spans {
        let mut half = || half::f16::from_le_bytes([reader.byte(), reader.byte()]);
        let (scale, offset) = (half(), half());
        let first = at % spans * format.span();
        let groups = if format.span() > format.columns() {
            (cols - first).min(format.span()).div_ceil(format.columns())
        } else {
            0
        };
        let stored: Vec<[u8; 2]> = (0..groups).map(|_| [reader.byte(), reader.byte()]).collect();
        scales.push(format.scales(scale, offset, &stored));
    }
    let packed = format.pack(rows, cols, &codes, &scales).ok()?;
    for row in 0..rows {
        if let Some((back, spans_back)) = format.unpack(&packed, row) {
            assert_eq!(back, codes[row * cols..][..cols], "{}", format.name());
            let same = spans_back
                .iter()
                .zip(&scales[row * spans..])
                .all(|(a, b)| (a.scale, &a.stored) == (b.scale, &b.stored));
            assert!(same || format.zero().is_some(), "{}: other scales", format.name());
        }
    }
    Some(packed)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut reader = Reader(data);
    let format = FORMATS[usize::from(reader.byte()) % FORMATS.len()];
    let (rows, cols, tokens) = (
        1 + usize::from(reader.byte() % 40),
        1 + usize::from(reader.byte()) * 3 / 2,
        1 + usize::from(reader.byte() % 9),
    );
    let packed = match format.grouped().filter(|_| reader.byte() & 1 == 1) {
        Some(grouped) => pack(&mut reader, grouped, rows, cols),
        None => {
            let parts = format.parts(rows, cols, &[]);
            let parts = parts.iter().map(|part| Bytes::new(reader.bytes(part.bytes))).collect();
            Packed::from_parts(format, rows, cols, parts).ok()
        }
    };
    let Some(packed) = packed else { return };
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let mut row = vec![0.0; cols];
    (0..rows).for_each(|at| format.dequantize_row(&packed, at, &mut row));
    for cpu in &*CPUS {
        let (mut q, mut y) = (Int8Activations::default(), vec![0.0; tokens * rows]);
        packed.matmul(cpu, Activations::F32(&x), &mut y);
        q.quantize(cpu, &x, cols);
        packed.matmul(cpu, Activations::Int8(&q), &mut y);
        for block in BLOCK_SIZES {
            q.quantize_blocks(cpu, &x, cols, block);
            packed.matmul(cpu, Activations::Int8(&q), &mut y);
        }
    }
});
