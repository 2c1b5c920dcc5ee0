//! Tokenizers: round trips, training, and files that must be refused.

mod common;

use lowbit_model::Tokenizer;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn texts() -> Vec<String> {
    let words = ["low", "lower", "lowest", "bits", "bit", "weights", "weighs", "Ternary", "na\u{ef}ve", "\u{1f600}"];
    (0..200).map(|i| (0..12).map(|j| words[(i * 7 + j * j) % words.len()]).collect::<Vec<_>>().join(" ")).collect()
}

fn trained(vocab_size: usize, lowercase: bool) -> Tokenizer {
    Tokenizer::train_bpe(texts().iter().map(String::as_str), vocab_size, lowercase).expect("trains")
}

#[test]
fn texts_come_back() {
    let samples = ["", " two  spaces ", "na\u{ef}ve \u{1f600}\n\ttab", "<|pad|> is text", "\0\u{feff}"];
    for tokenizer in [Tokenizer::bytes(), trained(300, false)] {
        for text in samples {
            let ids = tokenizer.encode(text, usize::MAX).expect("encodes");
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            assert!(!ids.contains(&tokenizer.padding()), "text never becomes a special token");
            assert_eq!(tokenizer.decode(&ids).expect("decodes"), text);
            assert_eq!(tokenizer.encode(text, 3).expect("encodes"), ids[..ids.len().min(3)]);
        }
        assert_ne!(tokenizer.end().expect("has one"), tokenizer.padding());
    }
    let lower = trained(300, true);
    let ids = lower.encode("LOWEST Bits", 99).expect("encodes");
    assert_eq!(lower.decode(&ids).expect("decodes"), "lowest bits");
    assert!(ids.len() <= 4, "frequent words are few tokens: {ids:?}");
}

#[test]
fn training_is_deterministic_and_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |i: usize| directory.path().join(format!("{i}.json"));
    for i in 0..3 {
        let tokenizer = trained(290, true);
        assert!(tokenizer.vocab_size() <= 290 && tokenizer.vocab_size() > 258);
        assert_eq!((tokenizer.padding(), tokenizer.end()), (0, Some(1)));
        tokenizer.save(&path(i)).expect("written");
    }
    let first = std::fs::read(path(0)).expect("readable");
    assert!((1..3).all(|i| std::fs::read(path(i)).expect("readable") == first));
    for size in [0, 257, 1 << 21] {
        let error = Tokenizer::train_bpe(["a"], size, false).expect_err("refused");
        assert!(error.to_string().contains("258..=1048576"), "{error}");
    }
    assert_eq!(Tokenizer::train_bpe([], 400, false).expect("bytes alone").vocab_size(), 258);
}

#[test]
fn files_round_trip() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokenizer.json");
    for tokenizer in [Tokenizer::bytes(), trained(280, false)] {
        tokenizer.save(&path).expect("written");
        let loaded = Tokenizer::load(&path).expect("valid");
        assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
        let text = "the lowest weights \u{1f600} <|end|>";
        assert_eq!(loaded.encode(text, 99).expect("encodes"), tokenizer.encode(text, 99).expect("encodes"));
    }
}

fn bpe(model: Value) -> Value {
    json!({"version": "1.0", "added_tokens": [], "model": model})
}

fn word_level(vocab: Value) -> Value {
    bpe(json!({"type": "WordLevel", "unk_token": "a", "vocab": vocab}))
}

/// Name, content, and what the message must hold.
fn bad_files() -> Vec<(&'static str, String, &'static str)> {
    let good = || word_level(json!({"a": 0, "b": 1}));
    let with = |field: &str, value: Value| {
        let mut file = good();
        file[field] = value;
        file.to_string()
    };
    let token = |id: Value, content: &str| {
        json!([{"id": id, "content": content, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}])
    };
    vec![
        ("empty", String::new(), "EOF"),
        ("not JSON", "tokens".into(), "not a tokenizer.json"),
        ("deep", "[".repeat(100_000), "not a tokenizer.json"),
        ("no model", json!({}).to_string(), "model"),
        ("unknown key", with("others", json!(1)), "`others` is unknown"),
        ("no entries", word_level(json!({})).to_string(), "has 0 entries"),
        ("duplicate ids", word_level(json!({"a": 0, "b": 0})).to_string(), "`a` and `b` both have id 0"),
        ("duplicate tokens", r#"{"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0,"a":1}}}"#.into(), "twice"),
        ("negative id", word_level(json!({"a": -1})).to_string(), "-1"),
        ("id 2^40", word_level(json!({"a": 1u64 << 40})).to_string(), "id 1099511627776"),
        ("sparse", word_level(json!({"a": 0, "b": u32::MAX})).to_string(), "`b` has id 4294967295"),
        ("added id", with("added_tokens", token(json!(u32::MAX), "c")), "`c` has id 4294967295"),
        ("added twice", with("added_tokens", token(json!(1), "a")), "`a` has id 1, but 0"),
        (
            "parts of no length",
            with("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
            "`pre_tokenizer` cuts a text into parts of `length` 0",
        ),
        ("unknown type", bpe(json!({"type": "Magic", "vocab": {"a": 0}})).to_string(), ""),
        (
            "unknown merge",
            bpe(json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a c"]})).to_string(),
            "out of vocabulary",
        ),
        (
            "truncation",
            with(
                "truncation",
                json!({"direction": "Right", "max_length": 1u64 << 62, "strategy": "LongestFirst", "stride": 0}),
            ),
            "`truncation.max_length` is 4611686018427387904",
        ),
        (
            "padding",
            with(
                "padding",
                json!({"strategy": {"Fixed": 1u64 << 33}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}),
            ),
            "`padding.strategy.Fixed` is 8589934592",
        ),
    ]
}

/// Small files that would take much memory or time, and what the message must hold.
fn bombs() -> Vec<(&'static str, String, &'static str)> {
    let with = |field: &str, value: Value| {
        let mut file = word_level(json!({"a": 0, "b": 1}));
        file[field] = value;
        file.to_string()
    };
    let times = |n: usize| json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(n)});
    let spaces = json!({"type": "Replace", "pattern": {"Regex": " *"}, "content": "x".repeat(100)});
    let around = |ids: Value, single: Value| {
        json!({"type": "TemplateProcessing", "single": single, "pair": [{"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"a": {"id": "a", "ids": ids, "tokens": vec!["a"; 1]}}})
    };
    let a = json!({"SpecialToken": {"id": "a", "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let many: Vec<Value> = std::iter::repeat_n(a.clone(), 200_000).chain([text.clone()]).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    // Four bytes that declare 4 GB.
    let map = json!({"type": "Precompiled", "precompiled_charsmap": "/P///w=="});
    let mut words = word_level(json!({"a": 0}));
    words["model"] = json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 1_000_000, "vocab": {"a": 0}});
    let mut prefix = words.clone();
    prefix["model"]["max_input_chars_per_word"] = json!(100);
    prefix["model"]["continuing_subword_prefix"] = json!("#".repeat(1 << 20));
    vec![
        (
            "rules that multiply",
            with("normalizer", json!({"type": "Sequence", "normalizers": vec![times(8); 8]})),
            "16777216 times longer",
        ),
        ("a rule that multiplies", with("normalizer", times(4000)), "4000 times longer"),
        ("a long rule", with("normalizer", times(1 << 20)), "holds a text of 1048576 bytes"),
        ("a rule for nothing", with("normalizer", spaces), "100 times longer"),
        (
            "a decoder that multiplies",
            with("decoder", json!({"type": "Sequence", "decoders": vec![times(8); 8]})),
            "`decoder` can make",
        ),
        (
            "letters of letters",
            with("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": vec![level; 20]})),
            "1048576 times longer",
        ),
        (
            "steps",
            with("normalizer", json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); 100_000]})),
            "a list of 100000",
        ),
        (
            "nested steps",
            with(
                "normalizer",
                json!({"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": vec![times(9); 9]}]}),
            ),
            "times longer",
        ),
        ("ids around", with("post_processor", around(json!([0]), json!(many))), "puts 200000 tokens around every text"),
        ("a map of 4 GB", with("normalizer", map.clone()), "declares 4294967292 bytes"),
        (
            "a map within",
            with("normalizer", json!({"type": "Sequence", "normalizers": [map]})),
            "declares 4294967292 bytes",
        ),
        ("long words", words.to_string(), "`model.max_input_chars_per_word` is 1000000"),
        ("a long prefix", prefix.to_string(), "`model.continuing_subword_prefix` has 1048576 bytes"),
    ]
}

#[test]
fn bombs_are_refused_in_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokenizer.json");
    for (name, content, word) in bombs() {
        std::fs::write(&path, content).expect("written");
        let start = Instant::now();
        let error = Tokenizer::load(&path).expect_err(name);
        common::refused_file(name, &path, &error, &[word]);
        assert!(start.elapsed() < Duration::from_secs(5), "{name}");
    }
}

/// Dropout is for training: the same text has the same tokens each time, also after the file is written again.
#[test]
fn nothing_is_random() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokenizer.json");
    let tokenizer = trained(300, false);
    tokenizer.save(&path).expect("written");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    file["model"]["dropout"] = json!(0.5);
    file["truncation"] = json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "a"});
    std::fs::write(&path, file.to_string()).expect("written");
    let loaded = Tokenizer::load(&path).expect("valid");
    let text = texts().join(" ");
    let expected = tokenizer.encode(&text, usize::MAX).expect("encodes");
    assert!((0..5).all(|_| loaded.encode(&text, usize::MAX).expect("encodes") == expected));
    let notices = loaded.notices().join("\n");
    assert_eq!(loaded.notices().len(), 3, "{notices}");
    for word in ["tokenizer.json: ", "`truncation`", "`padding`", "`model.dropout`"] {
        assert!(notices.contains(word), "{word}: {notices}");
    }
    loaded.save(&path).expect("written");
    assert!(!std::fs::read_to_string(&path).expect("readable").contains("0.5"));
}

/// T1 and T3.
#[test]
fn bad_files_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokenizer.json");
    for (name, content, word) in bad_files() {
        std::fs::write(&path, content).expect("written");
        let error = Tokenizer::load(&path).expect_err(name);
        common::refused_file(name, &path, &error, &[word]);
    }
    assert!(Tokenizer::load(directory.path()).expect_err("directory").to_string().contains("regular file"));
}

#[test]
fn a_decoder_that_panics_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokenizer.json");
    let mut file = word_level(json!({"a": 0, "b": 1}));
    file["decoder"] = json!({"type": "Strip", "content": "a", "start": 0, "stop": 5});
    std::fs::write(&path, file.to_string()).expect("written");
    let error = Tokenizer::load(&path).expect("valid").decode(&[0]).expect_err("nothing is left of the token");
    assert!(error.to_string().contains("cannot be carried out"), "{error}");
}

/// T2.
#[test]
fn patterns_that_backtrack_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokenizer.json");
    for pattern in ["(a+)+$", "(x+x+)+y", "(a|aa)+(?!a)b"] {
        let mut file = word_level(json!({"a": 0, "b": 1}));
        file["pre_tokenizer"] =
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        std::fs::write(&path, file.to_string()).expect("written");
        let Ok(tokenizer) = Tokenizer::load(&path) else {
            continue;
        };
        for text in ["a".repeat(1 << 20), "x".repeat(1 << 20), " ".repeat(1 << 20), "\u{1f600}".repeat(1 << 18)] {
            let start = Instant::now();
            if let Err(error) = tokenizer.encode(&text, 1 << 20) {
                assert!(error.to_string().contains("pattern"), "{pattern}: {error}");
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{pattern}: {:?}", start.elapsed());
        }
    }
}
