//! The blocks of each type, as llama.cpp (`ggml-quants.c`) and bitnet.cpp (`ggml-bitnet-mad.cpp`) define them.

mod float;
mod grid;
mod int;
mod integers;
mod ternary;

pub(super) use float::{bf16, f16, f32, f64, put_bf16, put_f16, put_f32};
pub(super) use grid::{iq4_nl, iq4_xs, mxfp4, nvfp4};
pub(super) use int::{put_q8_0, q1_0, q2_0};
pub(super) use integers::{Layout, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, Scales};
pub(super) use ternary::{Codes, i2_s, put_i2_s, put_tq1_0, put_tq2_0, tq1_0, tq2_0};

/// An f16 at the start of `bytes`.
fn half(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Writes the low nibbles of `bytes` to the first half of `out` and the high ones to the second, each through `value`, which
/// gets the element's index in `out` and its nibble.
fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let n = bytes.len();
    for (j, byte) in bytes.iter().enumerate() {
        out[j] = value(j, byte & 15);
        out[n + j] = value(n + j, byte >> 4);
    }
}
