//! Llama (arXiv 2302.13971, 2407.21783).

use super::Family;
use crate::arch::decoder::{gguf::Arch, hub};
use crate::exec::Activation;

pub(super) static FAMILY: Family = Family {
    model_type: "llama",
    ternary: false,
    ids: [Some(1), Some(2)],
    hub: |network| hub::config(network, &hub::LLAMA),
    names: None,
    gguf: &[Arch {
        name: "llama",
        act: Activation::Silu,
        sub_norm: false,
        qk_norm: false,
        biased: true,
        divided: true,
        paired: true,
        tied: false,
        ternary_type: "tq2_0",
    }],
};
