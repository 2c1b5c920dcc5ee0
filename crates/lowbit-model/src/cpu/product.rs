//! Products of rows of activations with a matrix in any format.

use super::Param;
use crate::recipe::ActivationPrecision;
use lowbit_kernels::{Activations, BLOCK_SIZES, Bf16Activations, Cpu, Int8Activations, Packed, Windows, ops};
use std::cell::RefCell;

/// The tensor that inputs were made from, by its stamp, and the width of its rows as the product saw them.
pub(crate) type Origin = (u64, usize);

/// Inputs of products in the forms that kernels take: made once for the products that read the same tensor.
#[derive(Default)]
pub struct ProductInputs {
    /// In 8 bits, per token, then in blocks of each size.
    int8: [(Int8Activations, Option<Origin>); 1 + BLOCK_SIZES.len()],
    bf16: (Bf16Activations, Option<Origin>),
    /// Windows of images, for products that take no other form of them.
    gathered: Vec<f32>,
}

/// Windows that are multiplied at a time come in tiles of so many.
const WINDOW_TILE: usize = 48;
/// Bytes of a tile of them in 8 bits that fit beside weights in the second-level cache, by the windows of a tile.
const WINDOW_BYTES: usize = (1 << 18) / WINDOW_TILE;

thread_local! {
    /// What a thread makes of windows.
    static WINDOWS: RefCell<ProductInputs> = RefCell::default();
}

/// Where 8-bit inputs of a precision lie among those of all.
fn place(activations: ActivationPrecision) -> usize {
    let index = |block| BLOCK_SIZES.iter().position(|size| *size == block).expect("a size");
    activations.block().map_or(0, |block| 1 + index(block))
}

impl ProductInputs {
    /// Forgets what was made in another pass.
    pub(super) fn forget(&mut self) {
        self.int8.iter_mut().for_each(|(_, origin)| *origin = None);
        self.bf16.1 = None;
    }

    /// Writes `x W^T` of `x`, `[tokens, cols]`, rounded as `activations` says, into `y`, `[tokens, rows]`.
    pub fn matmul(
        &mut self,
        cpu: &Cpu,
        x: &[f32],
        (packed, activations): (&Packed, ActivationPrecision),
        y: &mut [f32],
    ) {
        self.product(cpu, (x, None), (packed, activations), y);
    }

    /// Writes `x W^T + bias`, `x` being `[rows, cols]`; rows that no tensor holds have no origin.
    pub(super) fn multiply(
        &mut self,
        cpu: &Cpu,
        rows: (&[f32], Option<Origin>),
        (weight, bias): (&Param, Option<&Param>),
        y: &mut [f32],
    ) {
        let Param::Matrix { packed, activations, .. } = weight else { unreachable!("a product takes a matrix") };
        self.product(cpu, rows, (packed, *activations), y);
        if let Some(bias) = bias {
            ops::add_bias(cpu, y, bias.vector());
        }
    }

    /// Writes `windows W^T + bias`, some windows at a time: each task multiplies its own where there are enough of them, and else all tasks
    /// share a product.
    pub(super) fn convolve(
        &mut self,
        cpu: &Cpu,
        windows: Windows,
        (weight, bias): (&Param, Option<&Param>),
        y: &mut [f32],
    ) {
        let Param::Matrix { packed, activations, .. } = weight else { unreachable!("a product takes a matrix") };
        let (out, at_once) = (packed.rows(), (WINDOW_BYTES / packed.cols()).clamp(1, 16) * WINDOW_TILE);
        let multiply = |inputs: &mut ProductInputs, some: Windows, y: &mut [f32]| {
            if cpu.stop.check().is_err() {
                return y.fill(0.0);
            }
            inputs.multiply_windows(cpu, &some, (packed, *activations), y);
            if let Some(bias) = bias {
                ops::add_bias(cpu, y, bias.vector());
            }
        };
        if windows.len().div_ceil(at_once) < 2 * cpu.pool.threads() {
            for (i, y) in y.chunks_mut(at_once * out).enumerate() {
                multiply(self, windows.range(i * at_once..i * at_once + y.len() / out), y);
            }
            return;
        }
        cpu.pool.for_rows(windows.len(), at_once, [(y, out)], |range, [y]| {
            let mut inputs = WINDOWS.take();
            multiply(&mut inputs, windows.range(range), y);
            WINDOWS.set(inputs);
        });
    }

    fn multiply_windows(
        &mut self,
        cpu: &Cpu,
        windows: &Windows,
        (packed, activations): (&Packed, ActivationPrecision),
        y: &mut [f32],
    ) {
        if activations == ActivationPrecision::F32 {
            if packed.format().takes_windows() {
                return packed.matmul(cpu, Activations::Windows(*windows), y);
            }
            let mut gathered = std::mem::take(&mut self.gathered);
            gathered.resize(windows.len() * windows.columns(), 0.0);
            windows.gather_into(&cpu.pool, &mut gathered);
            self.product(cpu, (&gathered, None), (packed, activations), y);
            self.gathered = gathered;
            return;
        }
        let (int8, origin) = &mut self.int8[place(activations)];
        *origin = None;
        int8.quantize_windows(cpu, windows, activations.block());
        packed.matmul(cpu, Activations::Int8(int8), y);
    }

    fn product(
        &mut self,
        cpu: &Cpu,
        (x, origin): (&[f32], Option<Origin>),
        (packed, activations): (&Packed, ActivationPrecision),
        y: &mut [f32],
    ) {
        let cols = packed.cols();
        let floats = activations == ActivationPrecision::F32;
        let bf16 = floats && packed.format().takes_bf16(cpu, x.len() / cols);
        let both = floats && packed.format().takes_int8(packed);
        let block = activations.block();
        let made = |from: Option<Origin>| origin.is_some() && from == origin;
        let (int8, from) = &mut self.int8[place(activations)];
        if (!floats || both) && !made(*from) {
            *from = origin;
            match block {
                Some(block) => int8.quantize_blocks(cpu, x, cols, block),
                None => int8.quantize(cpu, x, cols),
            }
        } else if bf16 && !both && !made(self.bf16.1) {
            self.bf16.1 = origin;
            self.bf16.0.round(cpu, x, cols);
        }
        let rows = match (floats, bf16) {
            (false, _) => Activations::Int8(int8),
            (_, true) => Activations::Bf16(&self.bf16.0),
            _ if both => Activations::Both(x, int8),
            _ => Activations::F32(x),
        };
        packed.matmul(cpu, rows, y);
    }
}
