//! Directories of the Hub whose matrices are integers with scales of groups (GPTQ, AWQ, compressed-tensors): the configuration up to
//! the first byte 0, then the safetensors file.
#![no_main]

use lowbit_model::Checkpoint;
use lowbit_model::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
use std::path::PathBuf;
use std::sync::LazyLock;

static HOME: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("lowbit-fuzz-integers-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory");
    path
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return };
    std::fs::write(HOME.join(CONFIG_FILE), &data[..end]).expect("written");
    std::fs::write(HOME.join(WEIGHTS_FILE), &data[end + 1..]).expect("written");
    let Ok(checkpoint) = Checkpoint::open(&HOME) else { return };
    for spec in checkpoint.parameters().params().iter().filter(|spec| !spec.role.is_vector()) {
        let (master, packed) = (checkpoint.master(spec), checkpoint.packed(spec));
        if let (Ok(master), Ok(packed)) = (master, packed) {
            let same = master.iter().zip(packed.dequantize()).all(|(a, b)| *a == b || a.is_nan() && b.is_nan());
            assert!(same, "{}: what is packed is not what is meant", spec.name);
        }
    }
});
