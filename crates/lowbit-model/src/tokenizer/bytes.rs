//! The byte tokenizer written as a `tokenizer.json` that other programs read: byte-level BPE without merges.

use super::{END, PAD};
use serde_json::{Map, Value, json};

/// The content of its `tokenizer.json`.
pub(super) fn json() -> String {
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let mut vocab: Map<String, Value> = (0..=255u8).map(|b| (letter(b).to_string(), json!(b))).collect();
    vocab.extend([(PAD.to_string(), json!(256)), (END.to_string(), json!(257))]);
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(256, PAD), special(257, END)],
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": []}
    });
    file.to_string()
}

/// The letter that GPT-2's vocabulary has for a byte: itself where printable, else the next one from U+0100.
pub(super) fn letter(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match printable(byte) {
        true => byte as char,
        false => char::from_u32(256 + (0..byte).filter(|b| !printable(*b)).count() as u32).expect("below U+0200"),
    }
}

#[cfg(test)]
mod tests {
    use crate::Tokenizer;

    #[test]
    fn the_crate_reads_it_alike() {
        let file = super::json();
        let mut hub = tokenizers::Tokenizer::from_bytes(&file).expect("valid");
        hub.set_encode_special_tokens(true);
        let bytes = Tokenizer::bytes();
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        for text in ["", "Hello <|pad|>\n", "na\u{ef}ve \u{1f600}\0\t", &all] {
            let ids = hub.encode(text, true).expect("encodes").get_ids().to_vec();
            assert_eq!(bytes.encode(text, usize::MAX).expect("encodes"), ids);
            assert_eq!(hub.decode(&ids, true).expect("decodes"), text);
            assert_eq!(bytes.decode(&ids).expect("decodes"), text);
        }
        assert_eq!(hub.token_to_id(super::END), bytes.end());
        assert_eq!(hub.get_vocab_size(true), bytes.vocab_size());
    }
}
