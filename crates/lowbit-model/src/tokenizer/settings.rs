//! What stands beside a vocabulary in a directory of the Hub: `tokenizer_config.json`, `special_tokens_map.json` and
//! `added_tokens.json`, read as transformers reads them.

use super::names::Name;
use super::spm::{Space, Use};
use super::{MAX_VOCABULARY, Vocabulary};
use crate::Error;
use crate::container::{read_small, show};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tokenizers::{AddedToken, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// Largest of these files, bytes: they list added tokens.
const MAX_BYTES: u64 = 16 << 20;
/// The files, and the template of a chat.
pub(crate) const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// Keys that are obeyed here or where chats and models are read. Keys that end in `_token` are, too.
const OBEYED: &[&str] = &[
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "added_tokens_decoder",
    "additional_special_tokens",
    "chat_template",
    "do_lower_case",
    "extra_special_tokens",
    "legacy",
    "sp_model_kwargs",
    "split_special_tokens",
    "strip_accents",
    "tokenize_chinese_chars",
    "tokenizer_class",
];

/// Keys without effect on the tokens of one text or the text of tokens: they are about batches, training, decoding that
/// corrupts text (and that transformers leaves out for BPE itself), Python, or where files came from.
const WITHOUT_EFFECT: &[&str] = &[
    "_commit_hash",
    "auto_map",
    "backend",
    "chat_control_tokens",
    "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    "device_map",
    "errors",
    "fast_tokenizer_files",
    "from_slow",
    "init_inputs",
    "is_local",
    "local_files_only",
    "max_length",
    "max_model_input_sizes",
    "merges_file",
    "model_input_names",
    "model_max_length",
    "model_specific_special_tokens",
    "name_or_path",
    "never_split",
    "pad_to_max_length",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "padding",
    "padding_side",
    "processor_class",
    "response_schema",
    "response_template",
    "return_token_type_ids",
    "sp_model_file",
    "spaces_between_special_tokens",
    "special_tokens_map_file",
    "stride",
    "tokenizer_file",
    "tokenizer_type",
    "tokenizer_version",
    "transformers_version",
    "truncation",
    "truncation_side",
    "truncation_strategy",
    "trust_remote_code",
    "use_default_system_prompt",
    "use_fast",
    "verbose",
    "vocab_file",
];

/// Names of tokens that a template knows by what they are for.
const NAMED: &[&str] = &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Tokens that a class of transformers has where the files are silent.
const DEFAULTS: &[(&str, &[(&str, &str)])] = &[
    ("LlamaTokenizer", &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")]),
    ("CodeLlamaTokenizer", &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")]),
    (
        "GemmaTokenizer",
        &[("bos_token", "<bos>"), ("eos_token", "<eos>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
    ),
    (
        "GPT2Tokenizer",
        &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")],
    ),
    (
        "Qwen2Tokenizer",
        &[("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
    ),
];

/// A token that stands outside the vocabulary's own file.
#[derive(Clone, Debug, PartialEq)]
struct Added {
    id: Option<u32>,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
    /// Left out where the vocabulary lacks it.
    known: bool,
}

impl Added {
    /// A special token of its name alone, or of an object with its switches.
    fn special(value: &Value) -> Option<Self> {
        let flag = |key: &str| value[key].as_bool().unwrap_or(false);
        let content = value.as_str().or(value["content"].as_str())?.to_string();
        let (single_word, lstrip, rstrip) = (flag("single_word"), flag("lstrip"), flag("rstrip"));
        let normalized = flag("normalized");
        Some(Added { id: None, content, single_word, lstrip, rstrip, normalized, special: true, known: false })
    }

    fn name(&self, id: u32) -> Name {
        let (single_word, lstrip, rstrip) = (self.single_word, self.lstrip, self.rstrip);
        Name { single_word, lstrip, rstrip, ..Name::plain(&self.content, id) }
    }
}

/// Chat templates by what they are for, as transformers chooses them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Templates {
    /// That of any chat.
    pub plain: Option<String>,
    /// That of chats with functions, where it is another one.
    pub tool_use: Option<String>,
}

/// The settings of a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Tokens by what they are for, as a chat template calls them: `eos_token` and its like.
    pub variables: BTreeMap<String, String>,
    /// The chat templates of `tokenizer_config.json`.
    pub templates: Templates,
    /// One line for each key that is unknown.
    pub notices: Vec<String>,
    /// Whether the directory has any of the files.
    pub exists: bool,
    /// The class of transformers.
    pub(super) class: Option<String>,
    added: Vec<Added>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    legacy: Option<bool>,
    add_prefix_space: Option<bool>,
    /// Switches of BERT's normalizer.
    bert: Vec<(&'static str, Value)>,
}

impl Settings {
    /// Reads the files of a directory that are there.
    ///
    /// # Errors
    /// Names file and key; what would change tokens and is not supported is refused.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let [config, map, added] = [CONFIG, MAP, ADDED].map(|name| directory.join(name));
        let read = |path: &Path| if path.exists() { object(path).map(Some) } else { Ok(None) };
        let mut settings = Settings::default();
        let files = [read(&config)?, read(&map)?, read(&added)?];
        settings.exists = files.iter().any(Option::is_some);
        let [keys, map, added_tokens] = files;
        let mut keys = keys.unwrap_or_default();
        let listed = keys.contains_key("added_tokens_decoder");
        // The list of the one file is complete; else the older files count.
        for (key, value) in map.filter(|_| !listed).into_iter().flatten() {
            keys.insert(key, value);
        }
        let at = |text: String| Error::input(&config, text);
        settings.take(&keys).map_err(at)?;
        settings.notices.iter_mut().for_each(|text| *text = format!("{}: {text}", config.display()));
        for (content, id) in added_tokens.filter(|_| !listed).into_iter().flatten() {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < MAX_VOCABULARY);
            let id = id.ok_or_else(|| {
                Error::input(&added, format!("`{}` has no id below {MAX_VOCABULARY}", show(&content)))
            })?;
            let special = settings.added.iter().any(|token| token.content == content);
            settings.added.retain(|token| token.content != content);
            let normalized = !special;
            let token =
                Added::special(&content.into()).map(|token| Added { id: Some(id), normalized, special, ..token });
            settings.added.extend(token);
        }
        settings.added.sort_by_key(|token| token.id.unwrap_or(u32::MAX));
        Ok(settings)
    }

    fn take(&mut self, keys: &Map<String, Value>) -> Result<(), String> {
        let flag = |key: &str| match keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(format!("`{key}` is {}; it must be true or false", show(&other.to_string()))),
        };
        (self.add_bos, self.add_eos) = (flag("add_bos_token")?, flag("add_eos_token")?);
        (self.legacy, self.add_prefix_space) = (flag("legacy")?, flag("add_prefix_space")?);
        if flag("split_special_tokens")? == Some(true) {
            return Err("`split_special_tokens` is true; special tokens that are text are not supported".into());
        }
        if keys.get("sp_model_kwargs").is_some_and(|options| options["enable_sampling"] == true) {
            return Err("`sp_model_kwargs.enable_sampling` is true; tokens drawn at random are not supported".into());
        }
        for (key, name) in [
            ("do_lower_case", "lowercase"),
            ("strip_accents", "strip_accents"),
            ("tokenize_chinese_chars", "handle_chinese_chars"),
        ] {
            self.bert.extend(keys.get(key).filter(|value| value.is_boolean()).map(|value| (name, value.clone())));
        }
        self.class = keys.get("tokenizer_class").and_then(Value::as_str).map(String::from);
        self.templates = Templates::of(&keys.get("chat_template").cloned().unwrap_or_default());
        self.take_named(keys);
        self.take_defaults(keys);
        self.take_lists(keys);
        self.take_decoder(keys)
    }

    /// Tokens whose key says what they are for.
    fn take_named(&mut self, keys: &Map<String, Value>) {
        for (key, value) in keys {
            let token = key.ends_with("_token") && !OBEYED.contains(&key.as_str());
            if let Some(token) = Added::special(value).filter(|_| token) {
                self.variables.insert(key.clone(), token.content.clone());
                // What only fills and marks is of no use without a row in the table.
                let known = !["bos_token", "eos_token"].contains(&key.as_str());
                self.offer(Added { known, ..token });
            } else if !token && !OBEYED.contains(&key.as_str()) && !WITHOUT_EFFECT.contains(&key.as_str()) {
                self.notices.push(format!("`{}` is unknown; ignored", show(key)));
            }
        }
    }

    /// Tokens that the class has where the files are silent.
    fn take_defaults(&mut self, keys: &Map<String, Value>) {
        let class = self.class.as_deref().map(|class| class.trim_end_matches("Fast"));
        let defaults = DEFAULTS.iter().find(|(name, _)| Some(*name) == class).map_or(&[][..], |(_, tokens)| tokens);
        for (name, token) in defaults.iter().filter(|(name, _)| !keys.contains_key(*name)) {
            self.variables.insert((*name).into(), (*token).into());
            let token = Added::special(&(*token).into()).map(|token| Added { known: true, ..token });
            token.into_iter().for_each(|token| self.offer(token));
        }
    }

    /// Lists of further special tokens.
    fn take_lists(&mut self, keys: &Map<String, Value>) {
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let list = keys.get(key);
            let values = list.and_then(Value::as_array).into_iter().flatten();
            let named = list.and_then(Value::as_object).into_iter().flatten();
            for (name, value) in named.clone() {
                self.variables.extend(Added::special(value).map(|token| (name.clone(), token.content)));
            }
            let tokens: Vec<Added> = values.chain(named.map(|(_, value)| value)).filter_map(Added::special).collect();
            tokens.into_iter().for_each(|token| self.offer(token));
        }
    }

    /// Tokens by their ids.
    fn take_decoder(&mut self, keys: &Map<String, Value>) -> Result<(), String> {
        for (id, value) in keys.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
            let number = id.parse().ok().filter(|id| (*id as usize) < MAX_VOCABULARY);
            let number: u32 = number.ok_or_else(|| format!("`added_tokens_decoder`: `{}` is no id", show(id)))?;
            let fault = || format!("`added_tokens_decoder.{id}` has no `content`");
            let mut token = Added::special(value).ok_or_else(fault)?;
            (token.id, token.special) = (Some(number), value["special"] == true);
            token.normalized = value["normalized"].as_bool().unwrap_or(!token.special);
            // What a token is named for says that it is special.
            token.special |= NAMED.iter().any(|name| self.variables.get(*name) == Some(&token.content));
            self.added.retain(|other| other.content != token.content);
            self.added.push(token);
        }
        Ok(())
    }

    /// A token by name, unless it is known.
    fn offer(&mut self, token: Added) {
        if !token.content.is_empty() && !self.added.iter().any(|known| known.content == token.content) {
            self.added.push(token);
        }
    }

    /// Adds tokens and switches to a tokenizer of the Hub's library; whether anything changed. What goes around a text is in the
    /// tokenizer's own file: `add_bos_token` and `add_eos_token` have no say there, as in transformers.
    ///
    /// # Errors
    /// A sentence naming the key.
    pub(super) fn apply(&self, library: &mut tokenizers::Tokenizer) -> Result<bool, String> {
        let mut changed = self.add_tokens(library)?;
        changed |= self.respace(library)?;
        if let Some(NormalizerWrapper::BertNormalizer(_)) = library.get_normalizer().filter(|_| !self.bert.is_empty()) {
            let old = serde_json::to_value(library.get_normalizer()).map_err(|e| e.to_string())?;
            let mut new = old.clone();
            for (key, value) in &self.bert {
                new[*key] = value.clone();
            }
            if new != old {
                let new: NormalizerWrapper = serde_json::from_value(new).map_err(|e| e.to_string())?;
                library.with_normalizer(Some(new)).map_err(|e| e.to_string())?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn add_tokens(&self, library: &mut tokenizers::Tokenizer) -> Result<bool, String> {
        let known = library.get_added_tokens_decoder();
        let mut missing = Vec::new();
        let mut next = library.get_vocab_size(true) as u32;
        for token in &self.added {
            let flags = AddedToken::from(token.content.clone(), token.special)
                .single_word(token.single_word)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .normalized(token.normalized);
            match (library.token_to_id(&token.content), token.id) {
                (Some(id), Some(given)) if id != given => {
                    let name = show(&token.content);
                    return Err(format!("added token `{name}` has id {given}, but {id} in the vocabulary"));
                }
                // A name alone says nothing about the switches of a token that is there.
                (Some(id), given) if known.get(&id).is_some_and(|there| given.is_none() || *there == flags) => {}
                (Some(_), _) => missing.push(flags),
                (None, None) if token.known => {}
                (None, given) => {
                    let id = given.unwrap_or(next);
                    if id < next {
                        let name = show(&token.content);
                        return Err(format!("added token `{name}` has id {id}, which another token has"));
                    }
                    missing.extend((next..id).map(|id| AddedToken::from(reserved(id), true)));
                    missing.push(flags);
                    next = id + 1;
                }
            }
        }
        let changed = !missing.is_empty();
        library.add_tokens(missing).map_err(|e| e.to_string())?;
        Ok(changed)
    }

    /// Sets whether a space goes before a text.
    fn respace(&self, library: &mut tokenizers::Tokenizer) -> Result<bool, String> {
        let Some(on) = self.add_prefix_space else { return Ok(false) };
        let fault = |e: serde_json::Error| e.to_string();
        let step = |step: &mut Value| {
            let old = step.clone();
            match step["type"].as_str() {
                Some("ByteLevel") => step["add_prefix_space"] = on.into(),
                Some("Metaspace") if !on => step["prepend_scheme"] = "never".into(),
                Some("Metaspace") if step["prepend_scheme"] == "never" => step["prepend_scheme"] = "first".into(),
                _ => {}
            }
            *step != old
        };
        let mut value = serde_json::to_value(library.get_pre_tokenizer()).map_err(fault)?;
        let mut changed = step(&mut value);
        for inner in value["pretokenizers"].as_array_mut().into_iter().flatten() {
            changed |= step(inner);
        }
        if changed {
            library.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(value).map_err(fault)?));
        }
        let without = library.get_normalizer().filter(|_| !on).and_then(super::hub::without_prepend);
        if let Some(without) = without {
            library.with_normalizer(Some(without)).map_err(|e| e.to_string())?;
            changed = true;
        }
        Ok(changed)
    }

    /// Adds tokens and switches to a vocabulary of tiktoken or sentencepiece.
    ///
    /// # Errors
    /// A sentence naming the key.
    pub(super) fn extend(&self, v: &mut Vocabulary) -> Result<(), String> {
        let mut ids: HashMap<String, u32> = v.tokens.iter().cloned().zip(0..).collect();
        for token in &self.added {
            if token.known && !ids.contains_key(&token.content) {
                continue;
            }
            let id = match (ids.get(&token.content).copied(), token.id) {
                (Some(id), Some(given)) if id != given => {
                    let name = show(&token.content);
                    return Err(format!("added token `{name}` has id {given}, but {id} in the vocabulary"));
                }
                (there, given) => there.or(given).unwrap_or(v.tokens.len() as u32),
            };
            for id in v.tokens.len()..=id as usize {
                v.tokens.push(reserved(id as u32));
                v.uses.push(Use::Unused);
                v.scores.extend((!v.scores.is_empty()).then_some(0.0));
            }
            let (name, usage) = (&mut v.tokens[id as usize], &mut v.uses[id as usize]);
            name.clone_from(&token.content);
            ids.insert(token.content.clone(), id);
            // What sentencepiece itself knows as special stays so.
            if !matches!(usage, Use::Control | Use::Unknown | Use::Byte) {
                *usage = if token.special { Use::Control } else { Use::Added };
            }
            if *usage != Use::Unknown {
                v.added.push(token.name(id));
            }
        }
        let named = |name: &str| self.variables.get(name).and_then(|token| ids.get(token)).copied();
        (v.bos, v.eos) = (named("bos_token").or(v.bos), named("eos_token").or(v.eos));
        for (key, on, id, adds) in
            [("bos_token", self.add_bos, v.bos, &mut v.add_bos), ("eos_token", self.add_eos, v.eos, &mut v.add_eos)]
        {
            match (on, id) {
                (Some(true), None) => return Err(format!("`add_{key}` is true, but there is no `{key}`")),
                (Some(on), _) => *adds = on,
                (None, _) => {}
            }
        }
        if v.space != Space::None {
            v.space = if self.legacy == Some(true) { Space::Missing } else { Space::First };
        }
        match self.add_prefix_space {
            Some(false) => v.space = Space::None,
            Some(true) if v.space == Space::None => v.space = Space::First,
            _ => {}
        }
        Ok(())
    }
}

/// The name of an entry that a vocabulary leaves out.
fn reserved(id: u32) -> String {
    format!("<|reserved_token_{id}|>")
}

/// What puts tokens before and after a text.
pub(super) fn post_processor(
    bos: Option<(&str, u32)>,
    eos: Option<(&str, u32)>,
) -> Result<PostProcessorWrapper, serde_json::Error> {
    let token = |(name, _): (&str, u32)| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let single: Vec<Value> = bos.map(token).into_iter().chain([text("A", 0)]).chain(eos.map(token)).collect();
    let pair: Vec<Value> = single.iter().cloned().chain([text("B", 1)]).chain(eos.map(token)).collect();
    let ids = |(name, id): (&str, u32)| (name.to_string(), json!({"id": name, "ids": [id], "tokens": [name]}));
    let special: Map<String, Value> = bos.into_iter().chain(eos).map(ids).collect();
    let value = json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special});
    serde_json::from_value(value)
}

impl Templates {
    /// Of a text, or of a list of named ones: where none is named `default`, the first one is that of a plain chat.
    pub fn of(value: &Value) -> Self {
        let text = |entry: &Value| entry["template"].as_str().map(String::from);
        match value {
            Value::String(text) => Templates { plain: Some(text.clone()), tool_use: None },
            Value::Array(list) => {
                let named = |name: &str| list.iter().find(|entry| entry["name"] == name);
                Templates {
                    plain: named("default").or(list.first()).and_then(text),
                    tool_use: named("tool_use").and_then(text),
                }
            }
            _ => Templates::default(),
        }
    }
}

/// The object in a JSON file.
fn object(path: &Path) -> Result<Map<String, Value>, Error> {
    let content = read_small(path, MAX_BYTES)?;
    serde_json::from_slice(&content).map_err(|e| Error::input(path, format!("not a JSON object: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_obeyed_and_without_effect() {
        assert!(OBEYED.iter().all(|key| !WITHOUT_EFFECT.contains(key)));
        assert!(OBEYED.is_sorted() && WITHOUT_EFFECT.is_sorted());
    }
}
