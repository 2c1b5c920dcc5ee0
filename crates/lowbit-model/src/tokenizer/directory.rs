//! Tokenizers in model directories.

use super::{MAX_BYTES, Settings, Tokenizer, pre};
use crate::Error;
use crate::container::read_small;
use lowbit_base::file;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// File names of a tokenizer in a model directory, in the order they are looked for.
const FILES: &[&str] = &["tokenizer.json", "tokenizer.model", "tokenizer.json.zst", "tokenizer.model.zst"];
/// The two files of a byte-level BPE that has no `tokenizer.json`.
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// The file of a WordPiece that has no `tokenizer.json`: a token per line.
const WORDS: &str = "vocab.txt";
/// What WordPiece puts before a piece that continues a word.
const CONTINUED: &str = "##";
/// Tokens that BERT's vocabularies have beside pieces of words.
const OF_BERT: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

impl Tokenizer {
    /// The file of a tokenizer in a model directory, if it has one.
    pub fn find(directory: &Path) -> Option<PathBuf> {
        FILES.iter().map(|name| directory.join(name)).find(|path| path.exists())
    }

    /// The tokenizer in a directory of the Hub: the file of [`Tokenizer::find`], the pair `vocab.json` and `merges.txt`, or `vocab.txt`,
    /// with the settings in `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`. Each may be packed with zstd
    /// (`vocab.json.zst`).
    ///
    /// # Errors
    /// As [`Tokenizer::load`]; also names the keys of these files.
    pub(crate) fn of_directory(directory: &Path, settings: &Settings) -> Result<Self, Error> {
        let found = Self::find(directory);
        if found.is_none() && packed(directory, VOCAB).exists() {
            return from_merges(directory, settings);
        }
        let words = packed(directory, WORDS);
        if found.is_none() && words.exists() {
            return from_words(&words, settings);
        }
        let path = found.unwrap_or_else(|| directory.join(FILES[0]));
        Self::read_with(&path, &read_small(&path, MAX_BYTES)?, Some(settings))
    }

    /// Adds the tokenizer to the files of a model directory, where what another kind of tokenizer left disappears.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save_in(&self, set: &mut file::Set) -> Result<(), Error> {
        FILES.iter().filter(|name| **name != self.file_name()).for_each(|other| set.remove(other));
        set.write(self.file_name(), &self.content()?)
    }
}

/// The path of a file, packed with zstd where it is only there so.
fn packed(directory: &Path, name: &str) -> PathBuf {
    let packed = directory.join(format!("{name}.zst"));
    if packed.exists() && !directory.join(name).exists() { packed } else { directory.join(name) }
}

/// The text of a file, packed with zstd or not.
fn text_of(path: &Path) -> Result<String, Error> {
    let file = read_small(path, MAX_BYTES)?;
    let file = match file.starts_with(&super::ZSTD) {
        true => super::unpack(&file).map_err(|text| Error::input(path, text))?,
        false => file,
    };
    String::from_utf8(file)
        .map_err(|e| Error::input(path, format!("is not UTF-8 at byte {}", e.utf8_error().valid_up_to())))
}

/// Byte-level BPE of `vocab.json` and `merges.txt`, as the classes of transformers that have no other file build it.
fn from_merges(directory: &Path, settings: &Settings) -> Result<Tokenizer, Error> {
    let path = packed(directory, VOCAB);
    let vocab: Value =
        serde_json::from_str(&text_of(&path)?).map_err(|e| Error::input(&path, format!("not a vocabulary: {e}")))?;
    let text = text_of(&packed(directory, MERGES))?;
    let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let class = settings.class.as_deref().unwrap_or("GPT2Tokenizer");
    let level =
        |alone: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": alone});
    let (steps, normalizer) = match class.trim_end_matches("Fast") {
        "GPT2Tokenizer" => (level(true), Value::Null),
        "Qwen2Tokenizer" => {
            let split = pre::steps(pre::find("qwen2").map_err(|text| Error::input(&path, text))?);
            let steps: Vec<Value> = split.into_iter().chain([level(false)]).collect();
            (json!({"type": "Sequence", "pretokenizers": steps}), json!({"type": "NFC"}))
        }
        other => {
            let other = crate::container::show(other);
            let text = format!("`tokenizer_class` is `{other}`, whose `{VOCAB}` is not read");
            let remedy = "known: GPT2Tokenizer, Qwen2Tokenizer. Save it with transformers, which writes tokenizer.json";
            return Err(Error::input(&path, format!("{text}; {remedy}")));
        }
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": steps, "post_processor": null, "decoder": level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
                  "merges": lines.collect::<Vec<_>>()}
    });
    Tokenizer::read_with(&path, file.to_string().as_bytes(), Some(settings))
}

/// WordPiece of `vocab.txt`, as transformers' `BertTokenizer` builds it.
fn from_words(path: &Path, settings: &Settings) -> Result<Tokenizer, Error> {
    let text = text_of(path)?;
    // A line end belongs to no token, other white space may.
    let mut vocab = serde_json::Map::new();
    for (id, line) in text.strip_suffix('\n').unwrap_or(&text).split('\n').enumerate() {
        vocab.insert(line.strip_suffix('\r').unwrap_or(line).into(), id.into());
    }
    let id = |name: &str| vocab.get(name).and_then(Value::as_u64);
    let missing = OF_BERT[1..4].iter().find(|name| id(name).is_none());
    if let Some(name) = missing {
        return Err(Error::input(path, format!("lacks the token `{name}`; it is no vocabulary of BERT")));
    }
    let added: Vec<Value> = OF_BERT.iter().filter_map(|name| Some((name, id(name)?))).map(|(name, id)| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    }).collect();
    let special = |name: &str, kind: u64| json!({"SpecialToken": {"id": name, "type_id": kind}});
    let sequence = |name: &str, kind: u64| json!({"Sequence": {"id": name, "type_id": kind}});
    let entry = |name: &str| json!({"id": name, "ids": [id(name)], "tokens": [name]});
    let single = [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)];
    let pair = [&single[..], &[sequence("B", 1), special("[SEP]", 1)]].concat();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair,
                           "special_tokens": {"[CLS]": entry("[CLS]"), "[SEP]": entry("[SEP]")}},
        "decoder": {"type": "WordPiece", "prefix": CONTINUED, "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": CONTINUED, "max_input_chars_per_word": 100,
                  "vocab": vocab}
    });
    Tokenizer::read_with(path, file.to_string().as_bytes(), Some(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/golden/directories.json")).expect("golden cases")
    }

    fn write(directory: &Path, golden: &Value, files: &Value) {
        for (name, content) in files.as_object().expect("files") {
            let path = directory.join(name);
            match content.as_str() {
                Some("$spm") => {
                    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spm_bytes.model");
                    std::fs::copy(model, path).map(|_| ()).expect("copied");
                }
                Some(file) => std::fs::write(path, golden["files"][file].as_str().expect("a file")).expect("written"),
                None => std::fs::write(path, content.to_string()).expect("written"),
            }
        }
    }

    fn load(directory: &Path) -> Result<(Tokenizer, Settings), Error> {
        let settings = Settings::read(directory)?;
        Ok((Tokenizer::of_directory(directory, &settings)?, settings))
    }

    fn numbers(value: &Value) -> Vec<u32> {
        serde_json::from_value(value.clone()).expect("ids")
    }

    /// `tools/golden/directories.py` made the cases with transformers.
    #[test]
    fn directories_are_read_as_transformers_reads_them() {
        let (golden, mut wrong) = (golden(), Vec::new());
        for case in golden["cases"].as_array().expect("cases") {
            let (name, directory) = (&case["name"], tempfile::tempdir().expect("a directory"));
            write(directory.path(), &golden, &case["files"]);
            let (tokenizer, settings) = load(directory.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
            for (text, ids) in
                golden["texts"].as_array().expect("texts").iter().zip(case["ids"].as_array().expect("ids"))
            {
                let text = text.as_str().expect("a text");
                let (got, expected) = (tokenizer.encode_parts(&[(text, true)]).expect("encodes"), numbers(ids));
                assert!(tokenizer.fewest_tokens([text]) <= got.len(), "{name}: {text:?}");
                if got != expected {
                    wrong.push(format!("{name}: {text:?} is {got:?} instead of {expected:?}"));
                }
            }
            let mut plain = numbers(&case["plain"]);
            // A vocabulary of sentencepiece names the token that begins texts, and models of it were trained with it.
            if case["files"].get("tokenizer.model").is_some()
                && case["files"]["tokenizer_config.json"].get("add_bos_token").is_none()
            {
                plain.insert(0, 1);
            }
            let got = tokenizer.encode(golden["plain"].as_str().expect("a text"), usize::MAX).expect("encodes");
            if got != plain {
                wrong.push(format!("{name}: the plain text is {got:?} instead of {plain:?}"));
            }
            let variables: BTreeMap<String, String> =
                serde_json::from_value(case["variables"].clone()).expect("variables");
            if settings.variables != variables {
                wrong.push(format!("{name}: variables are {:?} instead of {variables:?}", settings.variables));
            }
            // What is written into a directory of this project's own is the same tokenizer.
            let own = tempfile::tempdir().expect("a directory");
            let mut set = file::Set::open(own.path()).expect("a directory");
            tokenizer.save_in(&mut set).expect("written");
            set.commit().expect("written");
            let again = Tokenizer::load(&Tokenizer::find(own.path()).expect("there")).expect("valid");
            for text in golden["texts"].as_array().expect("texts").iter().filter_map(Value::as_str) {
                for parts in [[(text, true)], [(text, false)]] {
                    let ids = |tokenizer: &Tokenizer| tokenizer.encode_parts(&parts).expect("encodes");
                    assert_eq!(ids(&again), ids(&tokenizer), "{name}: {parts:?}");
                }
                assert_eq!(
                    again.encode(text, 7).expect("encodes"),
                    tokenizer.encode(text, 7).expect("encodes"),
                    "{name}"
                );
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// No added token, special or not, in what was said.
    #[test]
    fn what_was_said_has_no_added_tokens() {
        let golden = golden();
        for case in golden["cases"].as_array().expect("cases") {
            let (name, directory) = (&case["name"], tempfile::tempdir().expect("a directory"));
            write(directory.path(), &golden, &case["files"]);
            let (tokenizer, _) = load(directory.path()).expect("valid");
            let names = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<tool>"];
            let ids: Vec<u32> = names.iter().filter_map(|name| tokenizer.id(name)).collect();
            let count = |tokens: Vec<u32>| tokens.iter().filter(|id| ids.contains(id)).count();
            for text in golden["texts"].as_array().expect("texts").iter().filter_map(Value::as_str) {
                let encode = |parts: &[(&str, bool)]| count(tokenizer.encode_parts(parts).expect("encodes"));
                assert_eq!(encode(&[(text, false)]), 0, "{name}: {text:?}");
                for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                    let (head, tail) = text.split_at(at);
                    assert_eq!(
                        encode(&[(head, true), (tail, false)]),
                        encode(&[(head, true)]),
                        "{name}: {head:?} {tail:?}"
                    );
                    assert_eq!(
                        encode(&[(head, false), (tail, true)]),
                        encode(&[(tail, true)]),
                        "{name}: {head:?} {tail:?}"
                    );
                }
            }
        }
    }

    fn refusal(files: &[(&str, Value)]) -> String {
        let (golden, directory) = (golden(), tempfile::tempdir().expect("a directory"));
        std::fs::write(directory.path().join("tokenizer.json"), golden["files"]["$bytes"].as_str().expect("a file"))
            .expect("written");
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content.to_string()).expect("written");
        }
        load(directory.path()).map(|_| ()).expect_err("refused").to_string()
    }

    #[test]
    fn settings_that_cannot_be_obeyed_are_named() {
        const CONFIG: &str = "tokenizer_config.json";
        let token = |content: &str| json!({"content": content, "special": true});
        for (file, content, words) in [
            (CONFIG, json!({"split_special_tokens": true}), "`split_special_tokens` is true"),
            (
                CONFIG,
                json!({"sp_model_kwargs": {"enable_sampling": true}}),
                "`sp_model_kwargs.enable_sampling` is true",
            ),
            (CONFIG, json!({"add_eos_token": "yes"}), r#"`add_eos_token` is \"yes\"; it must be true or false"#),
            (CONFIG, json!({"added_tokens_decoder": {"x": token("y")}}), "`x` is no id"),
            (CONFIG, json!({"added_tokens_decoder": {"7": {}}}), "`added_tokens_decoder.7` has no `content`"),
            (CONFIG, json!({"added_tokens_decoder": {"99999999": token("y")}}), "`99999999` is no id"),
            (CONFIG, json!({"added_tokens_decoder": {"7": token("<y>")}}), "`<y>` has id 7, which another token has"),
            (CONFIG, json!({"added_tokens_decoder": {"7": token("<s>")}}), "`<s>` has id 7, but 262"),
            (CONFIG, json!([]), "tokenizer_config.json: not a JSON object"),
            ("added_tokens.json", json!({"y": -1}), "`y` has no id"),
            ("added_tokens.json", json!({"<y>": 7}), "`<y>` has id 7, which another token has"),
        ] {
            let error = refusal(&[(file, content.clone())]);
            assert!(error.contains(words), "{content}: {error}");
        }
    }

    /// An entry that nothing names gets a name of its own.
    #[test]
    fn ids_without_a_name_are_filled() {
        let (golden, directory) = (golden(), tempfile::tempdir().expect("a directory"));
        write(directory.path(), &golden, &json!({"tokenizer.json": "$bytes", "added_tokens.json": {"<far>": 270}}));
        let (tokenizer, _) = load(directory.path()).expect("valid");
        assert_eq!((tokenizer.vocab_size(), tokenizer.id("<far>")), (271, Some(270)));
        assert_eq!(tokenizer.encode_parts(&[("a<far>", true)]).expect("encodes"), [97, 270]);
    }

    /// Every key that transformers knows has an effect, is refused, or is listed as without one; others are told.
    #[test]
    fn unknown_keys_are_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = json!({"bos_token": "<s>", "image_token": "<img>", "clean_up_tokenization_spaces": true, "model_max_length": 5,
            "src_lang": "en", "fix_mistral_regex": true, "padding_side": "left", "auto_map": {}, "\u{1b}[2J": 1});
        std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).expect("written");
        let settings = Settings::read(directory.path()).expect("valid");
        let notices = settings.notices.join("\n");
        assert_eq!(settings.notices.len(), 3, "{notices}");
        assert!(
            settings.notices.iter().all(|text| text.contains("tokenizer_config.json: `") && text.contains("ignored"))
        );
        for key in ["`src_lang`", "`fix_mistral_regex`", "`\\u{1b}[2J`"] {
            assert!(notices.contains(key), "{notices}");
        }
        assert_eq!(settings.variables["image_token"], "<img>");
    }
}
