//! GGUF files: the header, every value, every tensor, and the vocabulary.
#![no_main]

use lowbit_kernels::Bytes;
use lowbit_model::Tokenizer;
use lowbit_model::container::gguf::Gguf;
use std::path::Path;

// What the tokenizer library panics at is caught, and says nothing; what is not caught ends the run.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(file) = Gguf::parse(Path::new("fuzz.gguf"), Bytes::new(data.to_vec())) else {
        return;
    };
    for key in file.metadata().keys() {
        let _ = (file.text(key), file.count(key), file.number(key), file.flag(key));
        let _ = (file.texts(key, 1000), file.numbers(key, 1000));
    }
    for tensor in file.tensors() {
        let _ = (file.floats(tensor), file.ternary(tensor), file.one_scale(tensor));
        let rows = tensor.shape.first().map_or(1, |rows| (*rows).min(3));
        let _ = file.row_floats(tensor, rows / 2..rows);
        if tensor.kind.is_ternary() {
            let _ = (file.row_codes(tensor, rows / 2..rows), file.check_scale(tensor));
        }
    }
    if let Ok(tokenizer) = Tokenizer::from_gguf(&file) {
        let _ = tokenizer.encode("The lowest \u{1f600} <s>", 99);
    }
});
