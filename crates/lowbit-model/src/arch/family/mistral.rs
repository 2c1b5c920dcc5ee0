//! Mistral (arXiv 2310.06825); llama.cpp calls it `llama`.

use super::Family;
use crate::arch::decoder::hub::{self, Bias, Switches, Windows};

const SWITCHES: Switches = Switches {
    context: 131_072,
    kv_heads: Some(8),
    attention_bias: Bias::Never,
    mlp_bias: Bias::Never,
    windows: Windows::All { default: 4096 },
    ..hub::LLAMA
};

pub(super) static FAMILY: Family = Family {
    model_type: "mistral",
    ternary: false,
    ids: [Some(1), Some(2)],
    hub: |network| hub::config(network, &SWITCHES),
    names: None,
    gguf: &[],
};
