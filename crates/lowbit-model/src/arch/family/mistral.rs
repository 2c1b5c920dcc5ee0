//! Mistral (arXiv 2310.06825); llama.cpp calls it `llama`.

use super::Family;
use crate::arch::decoder::hub;
use crate::exec::Activation;

pub(super) static FAMILY: Family = Family {
    model_type: "mistral",
    ternary: false,
    hub: |network| hub::config(network, &hub::Defaults { rope_theta: 1e4, rms_norm_eps: 1e-6, act: Activation::Silu }),
    gguf: &[],
};
