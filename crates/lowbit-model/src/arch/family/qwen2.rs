//! Qwen2 and Qwen2.5 (arXiv 2407.10671): biases of queries, keys and values.

use super::Family;
use crate::arch::decoder::gguf::Arch;
use crate::arch::decoder::hub::{self, Bias, Switches, Windows};
use crate::exec::Activation;

const SWITCHES: Switches = Switches {
    context: 32_768,
    kv_heads: Some(32),
    attention_bias: Bias::Qkv,
    mlp_bias: Bias::Never,
    windows: Windows::Some { default: 4096, first: 28 },
    ..hub::LLAMA
};

pub(super) static FAMILY: Family = Family {
    model_type: "qwen2",
    ternary: false,
    ids: [None, None],
    hub: |network| hub::config(network, &SWITCHES),
    names: None,
    gguf: &[Arch {
        name: "qwen2",
        act: Activation::Silu,
        sub_norm: false,
        qk_norm: false,
        biased: true,
        divided: false,
        paired: false,
        tied: false,
        ternary_type: "tq2_0",
    }],
};
