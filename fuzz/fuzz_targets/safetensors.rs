//! Safetensors files: the header and every tensor.
#![no_main]

use lowbit_kernels::{Bytes, Pool};
use lowbit_model::container::Tensors;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(tensors) = Tensors::parse(Path::new("fuzz.safetensors"), Bytes::new(data.to_vec())) else {
        return;
    };
    for name in tensors.names() {
        let rows = tensors.entry(name).and_then(|entry| entry.shape.first().copied()).unwrap_or(1);
        let _ = (tensors.floats(name), tensors.bytes(name), tensors.row_floats(name, rows / 2..rows));
    }
    let _ = tensors.verify(&Pool::new(1));
});
