//! Vector operations of networks and their gradients: norms, activations, attention, embedding, losses, optimizers.
//!
//! Matrices are row-major f32. Work is split into chunks that depend on shapes alone, so results have the same bits for
//! any number of threads and any instruction set. A parameter marked `+=` is added to. Where sequences of different
//! lengths are laid end to end, `cu_seqlens` holds the first row of each and the number of rows at the end:
//! `[sequences + 1]`, ascending; an empty sequence is not allowed.
//!
//! Functions panic when lengths do not fit together. Buffers that start at a multiple of 64 bytes are the fastest.

mod attention;
mod columns;
mod elementwise;
mod embed;
mod loss;
mod math;
mod norm;
mod optim;
mod random;
mod reduce;

pub use attention::{
    AttentionShape, CacheKind, CacheRows, Cached, Frequencies, attention, attention_backward, attention_cached,
    attention_caches, base_frequencies, rope,
};
pub use columns::{column_gradients, column_moments, mix_columns, scale_columns};
pub use elementwise::{
    Function, activate, activate_backward, add, add_assign, add_bias, gate, gate_backward, mul, mul_backward,
};
pub use embed::{gather, pool_mean, pool_mean_backward, scatter_add};
pub use loss::{cross_entropy, softmax};
pub use norm::{fake_quantize_rows, layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
pub use optim::{AdamW, adamw, sgd};
pub use random::dropout;
pub use reduce::{all_finite, sum_rows, sum_squares};

/// Elements of one task: an operation on fewer runs on the calling thread.
const GRAIN: usize = 8192;

/// Rows of one task.
fn row_grain(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1)
}

/// Checks `cu_seqlens` against the number of rows.
fn check_cu_seqlens(cu_seqlens: &[usize], rows: usize) {
    assert_eq!(
        (cu_seqlens.first(), cu_seqlens.last()),
        (Some(&0), Some(&rows)),
        "cu_seqlens run from 0 to the number of rows"
    );
    assert!(cu_seqlens.windows(2).all(|w| w[0] < w[1]), "no sequence is empty");
}
