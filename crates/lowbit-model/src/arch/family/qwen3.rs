//! Qwen3 (arXiv 2505.09388): norms of queries and keys per head.

use super::Family;
use crate::arch::decoder::gguf::Arch;
use crate::arch::decoder::hub::{self, Bias, Switches, Windows};
use crate::exec::Activation;

const SWITCHES: Switches = Switches {
    context: 32_768,
    kv_heads: Some(32),
    head_dim: Some(128),
    mlp_bias: Bias::Never,
    qk_norm: true,
    windows: Windows::Some { default: 4096, first: 28 },
    ..hub::LLAMA
};

pub(super) static FAMILY: Family = Family {
    model_type: "qwen3",
    ternary: false,
    ids: [None, None],
    hub: |network| hub::config(network, &SWITCHES),
    names: None,
    gguf: &[Arch {
        name: "qwen3",
        act: Activation::Silu,
        sub_norm: false,
        qk_norm: true,
        biased: true,
        divided: false,
        paired: false,
        tied: false,
        ternary_type: "tq2_0",
    }],
};
