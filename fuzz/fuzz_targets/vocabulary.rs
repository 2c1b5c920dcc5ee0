//! Vocabularies: `tokenizer.json`, sentencepiece, tiktoken, compressed or not.
#![no_main]

use lowbit_model::Tokenizer;
use std::path::Path;

// The reader catches what the tokenizer library panics at; what it does not catch still ends the run.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::read(Path::new("fuzz"), data) else {
        return;
    };
    let text = "The lowest \u{1f600} bits\0 <s><|end|>\n";
    if let Ok(ids) = tokenizer.encode_parts(&[(text, true), (text, false)]) {
        let _ = tokenizer.decode(&ids);
    }
});
