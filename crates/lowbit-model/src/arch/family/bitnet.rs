//! BitNet b1.58 (arXiv 2504.12285); `bitnet-b1.58` is an architecture of bitnet.cpp.

use super::Family;
use crate::arch::decoder::gguf::Arch;
use crate::arch::decoder::hub::{self, Bias, Switches};
use crate::exec::Activation;

const SWITCHES: Switches = Switches {
    rope_theta: 5e5,
    rms_norm_eps: 1e-5,
    act: Activation::Relu2,
    kv_heads: Some(5),
    mlp_bias: Bias::Never,
    sub_norm: true,
    ..hub::LLAMA
};

pub(super) static FAMILY: Family = Family {
    model_type: "bitnet",
    ternary: true,
    ids: [Some(128_000), Some(128_001)],
    hub: |network| hub::config(network, &SWITCHES),
    names: None,
    gguf: &[
        Arch { name: "bitnet", act: Activation::Silu, tied: true, ternary_type: "tq2_0", ..B158 },
        B158,
        Arch { name: "bitnet-25", ..B158 },
    ],
};

/// The architecture of bitnet.cpp; older files call it `bitnet-25`.
const B158: Arch = Arch {
    name: "bitnet-b1.58",
    act: Activation::Relu2,
    sub_norm: true,
    qk_norm: false,
    biased: false,
    divided: false,
    paired: false,
    tied: false,
    ternary_type: "i2_s",
};
