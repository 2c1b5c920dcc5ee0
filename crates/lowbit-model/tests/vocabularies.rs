//! Sentencepiece and tiktoken vocabularies against the reference implementations; `tools/golden/vocabularies.py` made the
//! vectors. Vocabularies that are not part of the repository are read from the data directory.

mod common;

use lowbit_base::file::Set;
use lowbit_base::testing::data;
use lowbit_model::Tokenizer;
use lowbit_model::container::gguf::{Field, Gguf, GgufWriter};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Every vocabulary of the vectors that is at hand.
fn vocabularies() -> Vec<(&'static str, Tokenizer)> {
    let files = [
        ("spm_bytes", Some(golden("spm_bytes.model"))),
        ("spm_unknown", Some(golden("spm_unknown.model"))),
        ("llama2", data("tokenizers/llama2/tokenizer.model.zst")),
        ("tok512", data("tokenizers/tok512/tok512.model.zst")),
        ("llama3", data("tokenizers/llama3/tokenizer.model.zst")),
    ];
    let load = |path: PathBuf| Tokenizer::load(&path).unwrap_or_else(|e| panic!("{e}"));
    files.into_iter().filter_map(|(name, path)| Some((name, load(path?)))).collect()
}

fn cases() -> Value {
    serde_json::from_slice(&std::fs::read(golden("tokenizers.json")).expect("part of the repository")).expect("JSON")
}

/// Text, tokens, and what they decode to.
fn cases_of<'a>(all: &'a Value, name: &str) -> Vec<(&'a str, Vec<u32>, &'a str)> {
    let texts = all["texts"].as_array().expect("texts");
    let cases = all["vocabularies"][name].as_array().unwrap_or_else(|| panic!("no vectors of {name}"));
    assert_eq!(texts.len(), cases.len());
    let ids =
        |case: &Value| case[0].as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32).collect();
    let text = |value: &'a Value| value.as_str().expect("text");
    texts.iter().zip(cases).map(|(t, case)| (text(t), ids(case), text(&case[1]))).collect()
}

/// The tokens of a text as sentencepiece has them. What the vocabulary of the golden vectors holds as symbols of its own is
/// written by a template; in what was said it is text.
fn encoded(tokenizer: &Tokenizer, name: &str, text: &str) -> Vec<u32> {
    let symbols = name == "spm_bytes" && ["<user>", "low"].iter().any(|symbol| text.contains(symbol));
    tokenizer.encode_parts(&[(text, symbols)]).expect("encodes")
}

#[test]
fn symbols_of_a_vocabulary_are_text_in_what_was_said() {
    let tokenizer = Tokenizer::load(&golden("spm_bytes.model")).expect("valid");
    let ids = ["<user>", "low"].map(|symbol| tokenizer.id(symbol).expect("a symbol"));
    for text in ["<user> said <user><user>", "The lowest", "low", "<<user>>"] {
        let held = |parts: &[(&str, bool)]| {
            let found = tokenizer.encode_parts(parts).expect("encodes");
            assert_eq!(tokenizer.decode(&found).expect("decodes"), text);
            found.iter().filter(|id| ids.contains(id)).count()
        };
        assert_eq!(held(&[(text, false)]), 0, "{text}");
        assert!(held(&[(text, true)]) > 0, "{text}");
        for at in 0..=text.len() {
            let (head, tail) = text.split_at(at);
            let alone = |part: &str| {
                if part.is_empty() { 0 } else { part.matches("<user>").count() + part.matches("low").count() }
            };
            assert_eq!(held(&[(head, true), (tail, false)]), alone(head), "{head}|{tail}");
            assert_eq!(held(&[(head, false), (tail, true)]), alone(tail), "{head}|{tail}");
        }
    }
}

#[test]
fn tokens_are_those_of_the_references() {
    let all = cases();
    for (name, tokenizer) in vocabularies() {
        let bos: Vec<u32> = tokenizer.bos().into_iter().collect();
        assert_eq!(bos.len(), 1, "{name} begins texts with a token");
        for (text, ids, decoded) in cases_of(&all, name) {
            assert_eq!(encoded(&tokenizer, name, text), ids, "{name}: {text:?}");
            let full = [&bos[..], &ids].concat();
            let said = [&bos[..], &tokenizer.encode_parts(&[(text, false)]).expect("encodes")].concat();
            assert_eq!(tokenizer.encode(text, usize::MAX).expect("encodes"), said, "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, 3).expect("encodes"), said[..said.len().min(3)], "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&full).expect("decodes"), decoded, "{name}: {text:?}");
            let bytes: Vec<u8> =
                ids.iter().flat_map(|id| tokenizer.token_bytes(*id).expect("known")).copied().collect();
            let streamed = String::from_utf8_lossy(&bytes);
            assert_eq!(streamed.trim_start(), decoded.trim_start(), "{name}: {text:?} in a stream");
        }
    }
}

/// Writes a tokenizer into a model directory.
fn save(tokenizer: &Tokenizer, directory: &Path) {
    let mut set = Set::open(directory).expect("a directory");
    tokenizer.save_in(&mut set).expect("written");
    set.commit().expect("in place");
}

#[test]
fn files_round_trip() {
    let directory = tempfile::tempdir().expect("a directory");
    let all = cases();
    for (name, tokenizer) in vocabularies() {
        // What another tokenizer left must not be taken for this one's.
        std::fs::write(directory.path().join("tokenizer.json"), "{}").expect("written");
        save(&tokenizer, directory.path());
        let found = Tokenizer::find(directory.path()).expect("there");
        assert_eq!(found.file_name().and_then(|n| n.to_str()), Some(tokenizer.file_name()), "{name}");
        let loaded = Tokenizer::load(&found).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((loaded.vocab_size(), loaded.bos()), (tokenizer.vocab_size(), tokenizer.bos()), "{name}");
        assert_eq!(loaded.controls(), tokenizer.controls(), "{name}");
        for (text, ids, _) in cases_of(&all, name) {
            assert_eq!(encoded(&loaded, name, text), ids, "{name}: {text:?}");
        }
        for id in (0..tokenizer.vocab_size() as u32).step_by(37) {
            assert_eq!(loaded.token_bytes(id), tokenizer.token_bytes(id), "{name}: token {id}");
        }
        save(&loaded, directory.path());
        let again = Tokenizer::load(&found).expect("valid");
        assert_eq!(again.vocab_size(), tokenizer.vocab_size(), "{name}");
    }
}

#[test]
fn only_marked_parts_hold_control_tokens() {
    for (name, tokenizer) in vocabularies().into_iter().chain([("bytes", Tokenizer::bytes())]) {
        let controls = tokenizer.controls();
        let &(control, id) = controls.first().unwrap_or_else(|| panic!("{name} has control tokens"));
        assert_eq!(tokenizer.id(control), Some(id), "{name}");
        assert!(tokenizer.is_control(id) && tokenizer.token_bytes(id) == Some(&[][..]), "{name}");
        let text = format!("one{control} two");
        let encode = |parts: &[(&str, bool)]| tokenizer.encode_parts(parts).expect("encodes");
        let count = |ids: &[u32]| ids.iter().filter(|i| tokenizer.is_control(**i)).count();
        assert_eq!(count(&encode(&[(&text, false)])), 0, "{name}");
        assert_eq!(count(&encode(&[(&text, true)])), 1, "{name}");
        let (head, tail) = control.split_at(control.len() / 2);
        for parts in [[(head, true), (tail, false)], [(head, false), (tail, true)], [(head, false), (tail, false)]] {
            assert_eq!(count(&encode(&parts)), 0, "{name}: {parts:?}");
        }
        assert_eq!(count(&encode(&[(head, true), (tail, true)])), 1, "{name}");
        let forged = [(control, true), (text.as_str(), false), (control, true)];
        let ids = encode(&forged);
        assert_eq!((ids[0], ids[ids.len() - 1], count(&ids)), (id, id, 2), "{name}");
    }
}

#[test]
fn damaged_models_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokenizer.model");
    let good = std::fs::read(golden("spm_bytes.model")).expect("part of the repository");
    let unigram: Vec<u8> = good.iter().copied().chain([0x12, 2, 3 << 3, 1]).collect();
    let rules: Vec<u8> = good.iter().copied().chain([0x1a, 6, 0x0a, 1, b'r', 0x12, 1, 7]).collect();
    let piece = |bytes: &[u8]| [&[0x0a, bytes.len() as u8], bytes, &[0x12, 2, 3 << 3, 2]].concat();
    let score = |score: f32| [&[0x0a, 1, b'a', 0x15], &score.to_le_bytes()[..]].concat();
    let twice = [piece(&[0x0a, 1, b'a']), piece(&[0x0a, 1, b'a'])].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("cut", good[..good.len() - 1].to_vec(), "truncated"),
        ("length 2^63", [&[0x0a], &[0xff; 8][..], &[0x7f]].concat(), "truncated"),
        ("endless number", vec![0x0a, 2, 0x18, 0x80], "truncated"),
        ("number of eleven bytes", [&[0x0a, 12, 0x18], &[0xff; 11][..]].concat(), "more than ten bytes"),
        ("wire type 7", vec![0x0a, 1, 0x0f], "wire type 7"),
        ("unigram", unigram, "`trainer_spec.model_type` is 1 (Unigram)"),
        ("rules", rules, "the rules `r`"),
        ("no pieces", vec![0x0a, 0], "piece 0 is empty"),
        ("type", piece(&[0x0a, 1, b'a', 0x18, 9]), "unknown type 9"),
        ("not UTF-8", piece(&[0x0a, 1, 0xff]), "not UTF-8"),
        ("score", piece(&score(f32::NAN)), "score NaN"),
        ("twice", twice, "pieces 0 and 1 are both `a`"),
        ("no unknown", piece(&[0x0a, 1, b'a']), "neither an unknown piece nor all 256 bytes"),
        ("byte", piece(&[0x0a, 1, b'a', 0x18, 6]), "byte piece 0 is `a`"),
        ("rank", b"YQ== 0\nYg== 2\n".to_vec(), "line 2: rank 2 follows 1"),
        ("token twice", b"YQ== 0\nYQ== 1\n".to_vec(), "line 2: the token has rank 1, but rank 0 before"),
        ("no rank", b"YQ== 0\nYg==\n".to_vec(), "line 2: is not a token in base 64"),
        ("base 64", b"YQ== 0\nY!== 1\n".to_vec(), "line 2: the token is not base 64"),
        ("bytes missing", b"YQ== 0\n".to_vec(), "lacks some of the 256 single bytes"),
        (
            "M20 zstd",
            zstd::encode_all(&vec![b'['; 129 << 20][..], 1).expect("compressed"),
            "holds more than 134217728 bytes",
        ),
        ("zstd", [&[0x28, 0xb5, 0x2f, 0xfd], &[7; 20][..]].concat(), "damaged zstd"),
    ];
    for (name, content, word) in cases {
        std::fs::write(&path, content).expect("written");
        let error = Tokenizer::load(&path).expect_err(name);
        common::refused_file(name, &path, &error, &[word]);
    }
}

/// Inputs and tokens as llama.cpp ships them.
fn vectors(name: &str) -> Option<Vec<(String, Vec<u32>)>> {
    let read = |ending: &str| {
        let path = data(&format!("tokenizers/llamacpp_vocab/ggml-vocab-{name}.gguf.{ending}"))?;
        Some(std::fs::read_to_string(path).expect("readable"))
    };
    let (inputs, outputs) = (read("inp")?, read("out")?);
    let end = "\n__ggml_vocab_test__\n";
    let inputs = inputs.strip_suffix(end).unwrap_or(&inputs).split(end).map(String::from);
    let ids = |line: &str| line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
    let outputs: Vec<Vec<u32>> = outputs.lines().map(ids).collect();
    let all: Vec<_> = inputs.zip(outputs.iter().cloned()).collect();
    assert_eq!(all.len(), outputs.len(), "{name}");
    Some(all)
}

#[test]
fn llama_3_has_the_tokens_of_llama_cpp() {
    let (Some(path), Some(cases)) = (data("tokenizers/llama3/tokenizer.model.zst"), vectors("llama-bpe")) else {
        return;
    };
    let tokenizer = Tokenizer::load(&path).expect("valid");
    assert_eq!(tokenizer.vocab_size(), 128_256);
    assert_eq!((tokenizer.id("<|begin_of_text|>"), tokenizer.id("<|eot_id|>")), (Some(128_000), Some(128_009)));
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode_parts(&[(&text, false)]).expect("encodes"), ids, "{text:?}");
    }
}

/// A GGUF vocabulary of the data directory, unpacked.
fn gguf_vocabulary(name: &str, directory: &Path) -> Option<Tokenizer> {
    let packed = data(&format!("tokenizers/llamacpp_vocab/ggml-vocab-{name}.gguf.zst"))?;
    let path = directory.join(format!("{name}.gguf"));
    let bytes = zstd::decode_all(std::fs::File::open(packed).expect("readable")).expect("zstd");
    std::fs::write(&path, bytes).expect("written");
    Some(Tokenizer::from_gguf(&Gguf::open(&path).expect("valid")).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn gguf_vocabularies_have_the_tokens_of_llama_cpp() {
    let directory = tempfile::tempdir().expect("a directory");
    if let (Some(tokenizer), Some(cases)) = (gguf_vocabulary("gpt-2", directory.path()), vectors("gpt-2")) {
        assert_eq!((tokenizer.vocab_size(), tokenizer.bos()), (50_257, None));
        for (text, ids) in cases {
            assert_eq!(tokenizer.encode(&text, usize::MAX).expect("encodes"), ids, "{text:?}");
            assert_eq!(tokenizer.decode(&ids).expect("decodes"), text);
        }
    }
    if let Some(tokenizer) = gguf_vocabulary("llama-spm", directory.path()) {
        assert_eq!((tokenizer.vocab_size(), tokenizer.bos()), (32_000, Some(1)));
        for (text, ids, decoded) in cases_of(&cases(), "llama2") {
            assert_eq!(tokenizer.encode_parts(&[(text, false)]).expect("encodes"), ids, "{text:?}");
            assert_eq!(tokenizer.decode(&ids).expect("decodes"), decoded);
        }
    }
}

#[test]
fn vocabularies_go_through_gguf_unchanged() {
    let directory = tempfile::tempdir().expect("a directory");
    let all = cases();
    let trained = Tokenizer::train_bpe(["the lowest weights of the lowest bits"; 9], 300, false).expect("trains");
    let more = [("bytes", Tokenizer::bytes()), ("trained", trained)];
    for (name, tokenizer) in vocabularies().into_iter().chain(more) {
        let path = directory.path().join("x.gguf");
        let rows = tokenizer.vocab_size() + 3;
        let fields = tokenizer.gguf_fields(rows).unwrap_or_else(|e| panic!("{name}: {e}"));
        GgufWriter::create(&path, &fields, Vec::new()).expect("created").finish().expect("written");
        let back = Tokenizer::from_gguf(&Gguf::open(&path).expect("valid")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((back.vocab_size(), back.bos()), (rows, tokenizer.bos()), "{name}");
        assert_eq!(back.controls(), tokenizer.controls(), "{name}");
        for text in all["texts"].as_array().expect("texts").iter().map(|text| text.as_str().expect("a text")) {
            let ids = tokenizer.encode(text, usize::MAX).expect("encodes");
            assert_eq!(back.encode(text, usize::MAX).expect("encodes"), ids, "{name}: {text:?}");
            assert_eq!(back.decode(&ids).expect("decodes"), tokenizer.decode(&ids).expect("decodes"), "{name}");
        }
    }
}

/// The fields of a vocabulary of bytes, then tokens of several types.
fn typed(changes: &[(&str, Field)]) -> Vec<(String, Field)> {
    let fields = Tokenizer::bytes().gguf_fields(264).expect("bytes");
    let changed = |key: &str| changes.iter().any(|(end, _)| key == format!("tokenizer.ggml.{end}"));
    let kept = fields.into_iter().filter(|(key, _)| !changed(key));
    kept.chain(changes.iter().map(|(end, field)| (format!("tokenizer.ggml.{end}"), field.clone()))).collect()
}

fn read(path: &Path, fields: &[(String, Field)]) -> Tokenizer {
    GgufWriter::create(path, fields, Vec::new()).expect("created").finish().expect("written");
    Tokenizer::from_gguf(&Gguf::open(path).expect("valid")).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn what_gguf_says_of_tokens_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.gguf");
    let types = [vec![1; 256], vec![3, 3, 4, 5, 2, 1, 3, 1]].concat();
    let fields = typed(&[
        ("pre", Field::Text("falcon3".into())),
        ("token_type", Field::Ints(types)),
        ("bos_token_id", Field::U32(256)),
        ("eos_token_id", Field::U32(257)),
        ("add_eos_token", Field::Bool(true)),
    ]);
    let tokenizer = read(&path, &fields);
    // `falcon3` begins a text where the file does not say otherwise; the bytes did.
    assert_eq!(tokenizer.encode("ab", 9).expect("encodes"), [97, 98, 257]);
    assert_eq!(tokenizer.encode_parts(&[("ab", false)]).expect("encodes"), [97, 98]);
    let again = tokenizer.gguf_fields(264).expect("GGUF");
    for key in ["pre", "token_type", "tokens", "add_bos_token", "add_eos_token", "eos_token_id"] {
        let of = |fields: &[(String, Field)]| {
            fields.iter().find(|(k, _)| *k == format!("tokenizer.ggml.{key}")).map(|(_, field)| field.clone())
        };
        assert_eq!(of(&again), of(&fields), "{key}");
    }
    let begun = read(&path, &typed(&[("add_bos_token", Field::Bool(true)), ("bos_token_id", Field::U32(256))]));
    assert_eq!(begun.encode("a", 9).expect("encodes"), [256, 97]);
    // Types and scores may be more than tokens, never fewer; tokens without a name get one.
    let tokens = |fields: &[(String, Field)]| match &fields[2].1 {
        Field::Texts(tokens) => tokens.clone(),
        other => panic!("{other:?}"),
    };
    let mut names = tokens(&typed(&[]));
    names[263].clear();
    let more = typed(&[("token_type", Field::Ints(vec![1; 300])), ("tokens", Field::Texts(names))]);
    assert_eq!(read(&path, &more).id("[EMPTY_263]"), Some(263));
}

#[test]
fn sentencepiece_ends_texts_where_gguf_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.gguf");
    let spm = Tokenizer::load(&golden("spm_bytes.model")).expect("valid");
    let mut fields = spm.gguf_fields(spm.vocab_size()).expect("GGUF");
    let plain = read(&path, &fields).encode("low", 99).expect("encodes");
    fields
        .iter_mut()
        .filter(|(key, _)| key.ends_with("add_eos_token"))
        .for_each(|(_, field)| *field = Field::Bool(true));
    assert_eq!(read(&path, &fields).encode("low", 99).expect("encodes"), [&plain[..], &[2]].concat());
    // Without keys the first and the last token are those of sentencepiece's trainer.
    fields.retain(|(key, _)| !key.ends_with("s_token_id"));
    assert_eq!(read(&path, &fields).encode("low", 99).expect("encodes"), [&plain[..], &[2]].concat());
}

#[test]
fn a_normalizer_has_no_place_in_gguf() {
    let lower = Tokenizer::train_bpe(["low"; 9], 300, true).expect("trains");
    let error = lower.gguf_fields(300).expect_err("a normalizer").to_string();
    assert!(error.contains("GGUF has no place for the normalizer"), "{error}");
}
