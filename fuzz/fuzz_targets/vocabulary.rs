//! Vocabularies: `tokenizer.json`, sentencepiece, tiktoken, compressed or not.
#![no_main]

use lowbit_model::Tokenizer;
use std::path::Path;

// What the tokenizer library panics at is caught, and says nothing; what is not caught ends the run.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::read(Path::new("fuzz"), data) else {
        return;
    };
    let text = "The lowest \u{1f600} bits\0 <s><|end|>\n";
    if let Ok(ids) = tokenizer.encode_parts(&[(text, true), (text, false)]) {
        let _ = tokenizer.decode(&ids);
    }
});
