//! Products of rows of activations with a matrix in any format.

use super::Param;
use crate::recipe::ActivationPrecision;
use lowbit_kernels::{Activations, BLOCK_SIZES, Bf16Activations, Cpu, Int8Activations, Packed, ops};

/// The tensor that inputs were made from, by its stamp, and the width of its rows as the product saw them.
pub(crate) type Origin = (u64, usize);

/// Inputs of products in the forms that kernels take: made once for the products that read the same tensor.
#[derive(Default)]
pub struct ProductInputs {
    /// In 8 bits, per token, then in blocks of each size.
    int8: [(Int8Activations, Option<Origin>); 1 + BLOCK_SIZES.len()],
    bf16: (Bf16Activations, Option<Origin>),
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
        let place = block.map_or(0, |block| 1 + BLOCK_SIZES.iter().position(|size| *size == block).expect("a size"));
        let made = |from: Option<Origin>| origin.is_some() && from == origin;
        let (int8, from) = &mut self.int8[place];
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
