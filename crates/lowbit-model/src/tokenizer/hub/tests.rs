//! Against the Hub's library itself.

use super::*;
use crate::Tokenizer;
use serde_json::json;

fn added(id: u32, content: &str, switches: &[&str]) -> Value {
    let on = |name: &str| switches.contains(&name);
    json!({"id": id, "content": content, "single_word": on("single_word"), "lstrip": on("lstrip"), "rstrip": on("rstrip"),
           "normalized": on("normalized"), "special": on("special")})
}

fn hub(file: &Value) -> Hub {
    Hub::new(serde_json::from_value(file.clone()).expect("a tokenizer"), false).expect("one that encodes")
}

fn ids(hub: &Hub, text: &str, said: &Said) -> Vec<u32> {
    let mut ids = Vec::new();
    hub.encode(text, said, usize::MAX, &mut ids).expect("encodes");
    ids
}

/// Names that what was said must not spell.
fn names(hub: &Hub) -> Vec<String> {
    let added = hub.library.get_added_tokens_decoder();
    added.values().map(|token| token.content.clone()).filter(|name| !is_text(name)).collect()
}

/// Byte-level BPE with a few merges and an added token of each kind.
fn byte_level() -> Value {
    let mut vocab: serde_json::Map<String, Value> =
        (0..=255u8).map(|b| (super::super::bytes::letter(b).to_string(), json!(b))).collect();
    let merges = ["t h", "th e", "Ġ the", "Ġ w", "e r", "< |", "| >", "Ġ Ġ"];
    for (i, merge) in merges.iter().enumerate() {
        vocab.insert(merge.replace(' ', ""), json!(256 + i));
    }
    let n = 256 + merges.len() as u32;
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [
            added(n, "<|a|>", &["special"]), added(n + 1, "<|b|>", &[]), added(n + 2, "<|c|>", &["lstrip", "special"]),
            added(n + 3, "<|d|>", &["rstrip"]), added(n + 4, "word", &["single_word"]), added(n + 5, "<|e|>", &["normalized"]),
            added(n + 6, "   ", &["normalized"]), added(n + 7, "<|a|><|b|>", &["special"])],
        "normalizer": {"type": "NFC"}, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges}
    })
}

/// Sentencepiece's Unigram, whose control tokens are pieces; `scheme` says where the first space goes.
fn unigram(scheme: &str) -> Value {
    let words = [
        "<s>", "</s>", "<unk>", "▁", "▁the", "▁w", "e", "r", "<", ">", "s", "/", "▁<", "t", "h", "a", "|", "<|a|>",
        "FOO",
    ];
    let vocab: Vec<Value> =
        words.iter().enumerate().map(|(i, w)| json!([w, if i < 3 { 0.0 } else { -(i as f64) }])).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<s>", &["special"]), added(1, "</s>", &["special"]), added(2, "<unk>", &["special"]),
            added(17, "<|a|>", &[]), added(18, "FOO", &["normalized"])],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true},
        "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": false, "vocab": vocab}
    })
}

/// A Llama 2 in the Hub's form: no words, a space before every part.
fn llama() -> Value {
    let mut vocab = serde_json::Map::new();
    for name in ["<unk>", "<s>", "</s>"] {
        vocab.insert(name.into(), json!(vocab.len()));
    }
    (0..=255u8).for_each(|b| {
        vocab.insert(format!("<0x{b:02X}>"), json!(vocab.len()));
    });
    for piece in ["▁", "t", "h", "e", "<", "s", ">", "/", "w", "▁t", "▁th", "▁the", "▁▁", "he", "<s", "ss"]
    {
        vocab.insert(piece.into(), json!(vocab.len()));
    }
    let merges = ["▁ t", "▁t h", "▁th e", "▁ ▁", "h e", "< s", "<s >", "s s"];
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", &["special"]), added(1, "<s>", &["special"]), added(2, "</s>", &["special"])],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocab, "merges": merges}
    })
}

/// Words of BERT.
fn words() -> Value {
    let names = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "the##", "##w", "w", "[", "]", "cls", "<", ">", "made", "up",
        "madeup",
    ];
    let vocab: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(i, w)| (w.to_string(), json!(i))).collect();
    let special = (0..4).map(|i| added(i, names[i as usize], &["special"]));
    let added: Vec<Value> = special.chain([added(15, "madeup", &["normalized"])]).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true},
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab}
    })
}

fn all() -> Vec<(&'static str, Value)> {
    let schemes = ["first", "always", "never"].map(|scheme| ("unigram", unigram(scheme)));
    [("byte level", byte_level()), ("llama", llama()), ("words", words())].into_iter().chain(schemes).collect()
}

const TEXTS: &[&str] = &[
    "",
    " ",
    "the there",
    "  the  <|a|> x",
    "<|a|>",
    "<|a|><|b|>",
    "a<|c|> the <|c|>",
    "<|d|>  the\n<|d|>\n",
    "word words,word (word)",
    "na\u{ef}ve e\u{301} 你好 \u{1f600}",
    "<s>the</s>",
    "</s> </s>",
    "<s> <s>the <s>",
    "FOO foo foo<|a|>Foo",
    "[CLS] the [SEP] [cls] [CLSthe]",
    "MadeUp madeup made up xmadeup",
    "   the   ",
    "\tthe\r\n",
    "\u{10fffd} <unk>",
    "<|e|> <|E|>",
    "the<|a|>the<|b|> the<|c|>the<|d|>the",
];

/// What a template writes is encoded as the library encodes it.
#[test]
fn written_texts_are_those_of_the_library() {
    for (name, file) in all() {
        let (hub, library) = (hub(&file), serde_json::from_value::<tokenizers::Tokenizer>(file).expect("a tokenizer"));
        for text in TEXTS {
            let expected = library.encode_fast(*text, false).expect("encodes").get_ids().to_vec();
            // A model that makes `<s>` of text is not asked to here.
            let made = expected.iter().filter(|id| hub.barred.contains(id)).count();
            let found = library.encode_fast(*text, false).expect("encodes");
            assert_eq!(ids(&hub, text, &Said::default()), expected, "{name}: {text:?} {made} {found:?}");
        }
    }
}

/// What was said holds no added token, however it is cut into parts; what is no name is as the library has it.
#[test]
fn said_texts_hold_no_added_token() {
    for (name, file) in all() {
        let (hub, library) = (hub(&file), serde_json::from_value::<tokenizers::Tokenizer>(file).expect("a tokenizer"));
        let spelled = |text: &str| names(&hub).iter().any(|name| text.to_lowercase().contains(&name.to_lowercase()));
        for text in TEXTS {
            let said = ids(&hub, text, &Said::all(text.len()));
            assert!(!said.iter().any(|id| hub.barred.contains(id)), "{name}: {text:?} {said:?}");
            if !spelled(text) {
                let expected = library.encode_fast(*text, false).expect("encodes").get_ids().to_vec();
                assert_eq!(said, expected, "{name}: {text:?}");
            }
            for cut in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                let (head, tail) = text.split_at(cut);
                for parts in [[(head, true), (tail, false)], [(head, false), (tail, true)]] {
                    let (whole, said) = Said::of(&parts);
                    let written: usize = parts
                        .iter()
                        .filter(|(_, written)| *written)
                        .map(|(part, _)| {
                            ids(&hub, part, &Said::default()).iter().filter(|id| hub.barred.contains(id)).count()
                        })
                        .sum();
                    let got = ids(&hub, &whole, &said).iter().filter(|id| hub.barred.contains(id)).count();
                    assert!(got <= written, "{name}: {parts:?} has {got} added tokens, its template {written}");
                }
            }
        }
    }
}

/// Long texts have the tokens of the whole, and few bytes are in work at a time.
#[test]
fn pieces_have_the_tokens_of_the_whole() {
    let words = [
        "the", "w", "there", "naïve", "<s>", "FOO", "word", "\n\n", " ", "the.", "12", "你好", "e\u{301}", "[the]",
        "ss",
    ];
    let (mut text, mut state) = (String::new(), 7u64);
    while text.len() < 3 * PART_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(words[(state >> 40) as usize % words.len()]);
        text.push_str(["", " ", " ", "  ", "\n"][(state >> 50) as usize % 5]);
    }
    for (name, file) in all() {
        let hub = hub(&file);
        let said = Said::default();
        let part = |text| TextPart { text, offset: 0, place: Place::Start, said: &said };
        let whole = hub.piece(part(&text)).expect("encodes");
        assert_eq!(hub.part(part(&text), usize::MAX).expect("encodes"), whole, "{name}");
        assert!(hub.cut(part(&text)).expect("encodes").is_some_and(|at| at < PART_BYTES), "{name}");
        let few = hub.part(part(&text), 10).expect("encodes");
        assert!(few.len() < whole.len() && whole.starts_with(&few), "{name}");
    }
    // One word has no place to cut at.
    let word = "x".repeat(2 * PART_BYTES);
    let hub = hub(&byte_level());
    assert_eq!(ids(&hub, &word, &Said::default()).len(), 2 * PART_BYTES + 1);
}

#[test]
fn tokens_around_a_text() {
    assert_eq!(hub(&unigram("first")).around, [vec![0], vec![1]]);
    assert_eq!(hub(&llama()).around, [vec![1], vec![2]]);
    assert_eq!(hub(&byte_level()).around, [Vec::<u32>::new(), Vec::new()]);
    let mut file = unigram("first");
    file["post_processor"]["single"] =
        json!([{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]);
    assert_eq!(hub(&file).around, [Vec::<u32>::new(), vec![1]]);
    let mut ids = file.clone();
    ids["post_processor"]["special_tokens"]["</s>"] =
        json!({"id": "</s>", "ids": vec![1; 200_000], "tokens": vec!["</s>"; 200_000]});
    let refusal =
        |file: Value| Hub::new(serde_json::from_value(file).expect("a tokenizer"), false).err().expect("refused");
    assert!(refusal(ids).contains("puts 200000 tokens around every text"));
    file["post_processor"]["single"] =
        json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
    assert!(refusal(file).contains("repeats the text"));
}

#[test]
fn the_fewest_tokens_are_known_from_the_length() {
    let tokenizer = |file: &Value| Tokenizer::parse(file.to_string().as_bytes(), None).expect("a tokenizer");
    let with = |field: &str, value: Value| {
        let mut file = byte_level();
        file[field] = value;
        tokenizer(&file)
    };
    let texts = [
        "the ".repeat(99),
        "<|a|><|b|>".repeat(40),
        " ".repeat(500),
        "<|d|>".to_string() + &" ".repeat(500),
        "\u{212b}\u{2126}\u{1fef}".repeat(50),
        "\u{1112}\u{1161}\u{11ab}".repeat(60),
        "\u{3b1}\u{313}\u{301}\u{345}".repeat(40),
        "\u{1f600}".repeat(77),
        "e\u{301}".repeat(80),
        String::new(),
    ];
    let plain = with("normalizer", Value::Null);
    let removed = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"String": "t"}, "behavior": "Removed", "invert": false}, byte_level()["pre_tokenizer"]]});
    let mut spelled = llama();
    spelled["decoder"] = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]});
    let known = [tokenizer(&byte_level()), plain, tokenizer(&spelled), Tokenizer::bytes()];
    let unknown = [
        with("normalizer", json!({"type": "StripAccents"})),
        with("pre_tokenizer", removed),
        tokenizer(&unigram("first")),
    ];
    for text in &texts {
        for written in [false, true] {
            for tokenizer in known.iter().chain(&unknown) {
                let found = tokenizer.encode_parts(&[(text, written)]).expect("encodes").len();
                assert!(tokenizer.fewest_tokens([text.as_str()]) <= found, "{text} has {found}");
            }
        }
        assert!(unknown.iter().all(|tokenizer| tokenizer.fewest_tokens([text.as_str()]) == 0));
    }
    for tokenizer in &known {
        assert!(
            tokenizer.fewest_tokens(["word ", "by word"]) > 0
                && tokenizer.fewest_tokens(["x".repeat(9000).as_str()]) >= 100
        );
    }
}

#[test]
fn a_step_that_panics_is_an_error() {
    let mut file = byte_level();
    file["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
    let hub = hub(&file);
    let error = hub.encode("a text", &Said::all(6), usize::MAX, &mut Vec::new()).expect_err("parts of no length");
    assert!(error.message.ends_with(FAILS), "{error}");
}
