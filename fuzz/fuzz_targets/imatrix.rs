//! Importance matrices of a small decoder.
#![no_main]

use lowbit_model::calibrate::read_imatrix;
use lowbit_model::parameter_list::ParameterList;
use std::path::PathBuf;
use std::sync::LazyLock;

/// The network of the golden file.
const NETWORK: &str = r#"{"architecture": "decoder", "vocab_size": 258, "hidden_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 80, "hidden_act": "relu2",
    "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "sub_norm": true, "causal": true, "head": {"lm": {"tied": true}}}"#;

static FILE: LazyLock<(PathBuf, ParameterList)> = LazyLock::new(|| {
    let parameters = ParameterList::new(&serde_json::from_str(NETWORK).expect("a network")).expect("parameters");
    (std::env::temp_dir().join(format!("lowbit-fuzz-imatrix-{}.gguf", std::process::id())), parameters)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (path, parameters) = &*FILE;
    std::fs::write(path, data).expect("written");
    if let Ok(observed) = read_imatrix(path, parameters) {
        for (name, stats) in observed.iter() {
            let finite = stats.sum_squares().iter().all(|sum| sum.is_finite() && *sum >= 0.0);
            assert!(finite, "{name}: a sum of squares that is none");
        }
    }
});
