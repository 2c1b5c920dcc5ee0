//! A language model to train: which texts, how they are cleaned and split, the network, and the settings, as data.

use crate::Progress;
use crate::training::{self, Work};
use lowbit_base::memory::{Footprint, bytes};
use lowbit_base::name::check_part;
use lowbit_base::{Error, Kind, file};
use lowbit_eval::language::Text;
use lowbit_eval::question::Subject;
use lowbit_eval::read::{self, Budget, Exceeded, Limits};
use lowbit_eval::record::Record;
use lowbit_eval::task;
use lowbit_kernels::Cpu;
use lowbit_model::arch::OutputKind;
use lowbit_model::{Checkpoint, Config, ModelConfig, Tokenizer, recipe};
use lowbit_train::{Alone, Outcome, Ranks, TrainConfig, Windows};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The built-in language models.
pub static LANGUAGES: &[&str] = &[
    include_str!("../suites/language/text.toml"),
    include_str!("../suites/language/reviews.toml"),
    include_str!("../suites/language/shipped.toml"),
    include_str!("../suites/language/bitnet-bytes-tiny.toml"),
    include_str!("../suites/language/bitnet-bytes-small.toml"),
    include_str!("../suites/language/bitnet-bytes-large.toml"),
];

/// Ends the name of the twin in full precision of a built-in language model.
pub const TWIN: &str = "-f32";

/// The description that a trained model keeps of its texts.
pub const FILE: &str = "language.toml";

/// Bytes of text read at most, all files together.
const MAX_BYTES: u64 = 1 << 30;

/// Replacements at most; each goes over all of the text.
const REPLACEMENTS: usize = 1000;
/// Bytes of a token in memory.
const TOKEN_BYTES: u64 = 4;

/// What a description says it is of: a language model.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Described {
    Language,
}

/// What one text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Documents {
    /// Each line of a file.
    Lines,
    /// A whole file.
    Files,
}

/// A language model as data.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Language {
    #[allow(dead_code)] // required in the text, and read to tell it from a suite
    kind: Described,
    /// Short name.
    pub name: String,
    /// Files, plain or compressed, relative to the data directory.
    pub texts: Vec<PathBuf>,
    /// What one text is; the end token stands before, between and after them.
    pub documents: Documents,
    /// Replacements, applied in this order to the whole content before it is cut into texts.
    #[serde(default)]
    pub replace: Vec<[String; 2]>,
    /// Share of each file, at its end, that is never trained on.
    pub held_out: f64,
    /// Tokens of a training window.
    pub context: usize,
    /// The recipe it is trained for.
    pub recipe: String,
    /// Dimensions of the network; the vocabulary comes from the tokenizer.
    pub model: toml::Table,
    /// Training settings.
    pub train: toml::Table,
}

/// What a language model is trained with, beside its description and settings.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Directory of the data sets, as in [`task::data_dir`]; not needed for absolute paths.
    pub data: Option<&'a Path>,
    /// The network that is learnt from.
    pub teacher: Option<&'a Checkpoint>,
    /// The processes that train it together, this one among them.
    pub ranks: &'a dyn Ranks,
}

impl<'a> Given<'a> {
    /// Texts of this directory, no teacher, and this process alone.
    pub fn data(data: Option<&'a Path>) -> Self {
        Given { data, teacher: None, ranks: &Alone }
    }
}

/// Tokens of the texts of a language model.
pub struct Texts {
    /// What is trained on.
    pub train: Vec<u32>,
    /// What is not.
    pub held_out: Vec<u32>,
}

/// The built-in language models, parsed.
///
/// # Errors
/// When one of them is wrong.
pub fn all() -> Result<Vec<Language>, Error> {
    LANGUAGES.iter().map(|text| parse(text, Path::new("built-in language model"))).collect()
}

/// The built-in language model of a name, or the one a TOML file describes; none when it is neither.
///
/// # Errors
/// When the file describes a language model wrongly; names file, line and field.
pub fn find(name_or_path: &str) -> Result<Option<Language>, Error> {
    if let Some(language) = all()?.into_iter().find(|language| language.name == name_or_path) {
        return Ok(Some(language));
    }
    if let Some(name) = name_or_path.strip_suffix(TWIN) {
        return Ok(all()?.into_iter().find(|language| language.name == name).map(Language::in_full_precision));
    }
    let path = Path::new(name_or_path);
    if path.extension().is_none_or(|e| e != "toml") {
        return Ok(None);
    }
    let text = file::read_text(path, file::DESCRIPTION)?;
    let table: Option<toml::Table> = toml::from_str(&text).ok();
    let kind = table.as_ref().and_then(|table| table.get("kind")).and_then(|kind| kind.as_str());
    match kind {
        Some("language") => parse(&text, path).map(Some),
        _ => Ok(None),
    }
}

fn parse(text: &str, path: &Path) -> Result<Language, Error> {
    let language: Language = task::described(text, path)?;
    language.check().map_err(|message| Error::input(path, message))?;
    Ok(language)
}

impl Language {
    fn check(&self) -> Result<(), String> {
        check_part(&self.name).map_err(|e| format!("`name`: {e}"))?;
        if !(0.0..1.0).contains(&self.held_out) {
            return Err(format!("`held_out` is {}; it must be at least 0 and below 1", self.held_out));
        }
        if !(1..=1 << 20).contains(&self.context) {
            return Err(format!("`context` is {}; it must lie in 1..={}", self.context, 1 << 20));
        }
        if self.replace.len() > REPLACEMENTS {
            return Err(format!("`replace` holds {} pairs; at most {REPLACEMENTS} are applied", self.replace.len()));
        }
        if self.replace.iter().any(|[from, _]| from.is_empty()) {
            return Err("`replace` holds an empty text to look for".into());
        }
        recipe::find(&self.recipe).map_err(|e| format!("`recipe`: {e}"))?;
        Ok(())
    }

    /// Everything about the network but its weights.
    ///
    /// # Errors
    /// When a dimension is missing or wrong, or the network is no language model.
    pub fn model_config(&self, tokenizer: &Tokenizer) -> Result<ModelConfig, Error> {
        let mut table = self.model.clone();
        table.insert("vocab_size".into(), toml::Value::Integer(tokenizer.vocab_size() as i64));
        let config: Config = table.try_into().map_err(|e| self.wrong("model", e.message()))?;
        if config.output() != OutputKind::Tokens {
            return Err(
                self.wrong("model", "`head` must be a language model's, as in `head = { lm = { tied = false } }`")
            );
        }
        let qat = self.train_config()?.qat;
        if let Some(qat) = &qat {
            qat.check_recipe(recipe::find(&self.recipe)?).map_err(|e| self.wrong("train", &e.message))?;
        }
        let trained_for = qat.is_some().then(|| self.recipe.clone());
        let eos_token_ids = tokenizer.end().into_iter().collect();
        Ok(ModelConfig {
            trained_for,
            rounding: qat.and_then(|qat| qat.rounding()),
            bos_token_id: tokenizer.end(),
            eos_token_ids,
            ..ModelConfig::new(config, self.context)
        })
    }

    /// Training settings.
    ///
    /// # Errors
    /// When a field is unknown or of the wrong type.
    pub fn train_config(&self) -> Result<TrainConfig, Error> {
        self.train.clone().try_into().map_err(|e: toml::de::Error| self.wrong("train", e.message()))
    }

    /// Reads, cleans and splits the texts. `data` is as in [`task::data_dir`], and not needed for absolute paths.
    ///
    /// # Errors
    /// When there is no text, or a file is missing, empty, damaged or too large.
    pub fn texts(&self, data: Option<&Path>, tokenizer: &Tokenizer) -> Result<Texts, Error> {
        if self.texts.is_empty() {
            return Err(Error::usage(format!("{} names no text: give one with --text FILE", self.name)));
        }
        let end = tokenizer.end().ok_or_else(|| self.wrong("texts", "the tokenizer has no end token"))?;
        let mut texts = Texts { train: vec![end], held_out: vec![end] };
        let mut left = MAX_BYTES;
        for path in &self.texts {
            let path = if path.is_absolute() { path.clone() } else { task::data_dir(data)?.join(path) };
            let mut content = read::bytes(&path, &Limits { bytes: left, ..Limits::default() })?;
            left -= content.len() as u64;
            let budget = Budget::new(content.len() as u64, MAX_BYTES);
            for [from, to] in &self.replace {
                content = replaced(&content, from.as_bytes(), to.as_bytes(), &budget)
                    .map_err(|e| Error::from(e).in_file(&path))?;
            }
            let need = Footprint::new("give less text").and("tokens of the text", TOKEN_BYTES * content.len() as u64);
            need.check()?;
            self.split(&content, end, &mut texts);
        }
        Ok(texts)
    }

    /// The first of its texts that is not there, in words.
    pub fn missing(&self, data: Option<&Path>) -> Option<String> {
        let is_there = |path: &PathBuf| {
            path.is_absolute() && path.exists() || task::data_dir(data).is_ok_and(|dir| dir.join(path).exists())
        };
        let absent = self.texts.iter().find(|path| !is_there(path));
        absent.map(|path| format!("{} in the directory of the data sets (--data DIR)", path.display()))
    }

    /// Writes the description.
    ///
    /// # Errors
    /// When writing fails; an earlier file is then as it was.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(self).map_err(|e| Error::input(path, e.to_string()))?;
        file::replace(path, text.as_bytes())
    }

    /// The held-out part of the texts; the tokens between texts are predicted too.
    ///
    /// # Errors
    /// When a text cannot be read, nothing is held out, or the model has another tokenizer.
    pub fn held_out(&self, data: Option<&Path>, limit: Option<usize>, checkpoint: &Checkpoint) -> Result<Text, Error> {
        let tokenizer = Tokenizer::bytes();
        if checkpoint.tokenizer()?.vocab_size() != tokenizer.vocab_size() {
            let message = format!("the task {} scores models of bytes, and this one has other tokens", self.name);
            let place = checkpoint.directory().display();
            return Err(Error::usage(format!("{place}: {message}; score it with --text FILE")));
        }
        let mut tokens = self.texts(data, &tokenizer)?.held_out;
        tokens.truncate(limit.unwrap_or(usize::MAX).saturating_add(1));
        let text = Text::of_tokens(format!("{} (held-out)", self.name), tokens);
        match text.bytes() {
            0 => Err(Error::usage(format!("the task {} holds no text out: raise `held_out`", self.name))),
            _ => Ok(text),
        }
    }

    /// Its twin in full precision: the same network, texts and settings, without the quantization of training.
    pub fn in_full_precision(self) -> Self {
        let quantization = ["qat", "float_fraction"];
        let train = self.train.into_iter().filter(|(name, _)| !quantization.contains(&&name[..])).collect();
        Language { name: format!("{}{TWIN}", self.name), recipe: "f32".into(), train, ..self }
    }

    /// The same texts for another network.
    pub(crate) fn with(
        &self,
        name: &str,
        recipe: &str,
        context: usize,
        model: toml::Table,
        train: toml::Table,
    ) -> Self {
        Language { name: name.into(), recipe: recipe.into(), context, model, train, ..self.clone() }
    }

    /// Trains it into a directory, or resumes, and keeps the description beside the model; with its record, which the first rank alone makes,
    /// whether there is text held out.
    ///
    /// # Errors
    /// Of its texts and of [`training::run`].
    pub(crate) fn fit(
        &self,
        config: &TrainConfig,
        given: Given,
        directory: &Path,
        cpu: &Cpu,
        progress: &mut dyn Progress,
    ) -> Result<(Outcome, Option<(Record, bool)>), Error> {
        let Given { data, teacher, ranks } = given;
        let tokenizer = Tokenizer::bytes();
        let model_config = self.model_config(&tokenizer)?;
        let windows = self.texts(data, &tokenizer)?.windows(self.context);
        let names = || self.texts.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let (windows, held_out) = windows.map_err(|e| Error { message: format!("{}: {}", names(), e.message), ..e })?;
        let work = Work {
            name: &self.name,
            model_config: &model_config,
            tokenizer: Some(&tokenizer),
            data: &windows,
            from: None,
            teacher,
            validation: None,
            held_out: held_out.as_ref(),
            config,
            ranks,
        };
        let trained = training::run(&work, directory, cpu, progress)?;
        if ranks.rank() > 0 {
            return Ok((trained.outcome, None));
        }
        self.save(&directory.join(FILE))?;
        let record = training::record(&self.name, &work, &trained, directory)?;
        Ok((trained.outcome, Some((record, held_out.is_some()))))
    }

    /// Trains it, and scores the held-out text as `eval` does. With a teacher its answers are learnt as the
    /// settings say. The first rank alone makes the record, and scores.
    ///
    /// # Errors
    /// Of its texts, of a teacher with other tokens and of [`training::run`]; a stop after training leaves a whole model.
    pub fn train(
        &self,
        config: &TrainConfig,
        given: Given,
        directory: &Path,
        cpu: &Cpu,
        progress: &mut dyn Progress,
    ) -> Result<(Outcome, Option<Record>), Error> {
        let (outcome, made) = self.fit(config, given, directory, cpu, progress)?;
        let Some((mut record, holds_out)) = made else { return Ok((outcome, None)) };
        if holds_out {
            let scored = self.score(given.data, directory, cpu, progress).map_err(|error| match error.kind {
                Kind::Interrupted => {
                    let place = directory.display();
                    Error::new(error.kind, format!("interrupted; the model in {place} is whole, but was not scored"))
                }
                _ => error,
            })?;
            record.measures.extend(scored.measures);
            record.detail.note = scored.detail.note;
        }
        Ok((outcome, Some(record)))
    }

    /// What `eval --task` says of the held-out text.
    fn score(
        &self,
        data: Option<&Path>,
        directory: &Path,
        cpu: &Cpu,
        progress: &mut dyn Progress,
    ) -> Result<Record, Error> {
        let checkpoint = Checkpoint::open(directory)?.on(cpu);
        let text = self.held_out(data, None, &checkpoint)?;
        progress.note(&format!("scoring the held-out text, {}", bytes(text.bytes())));
        lowbit_eval::language::score(&text, &Subject::new(&self.name, &checkpoint, cpu))
    }

    /// Adds the documents of one file; the lines that end in the last `held_out` of its bytes are held out. A line that would
    /// hold out more than twice as much is cut, between characters.
    fn split(&self, content: &[u8], end: u32, texts: &mut Texts) {
        let asked = (content.len() as f64 * self.held_out) as usize;
        let (cut, mut at, mut whole) = (content.len() - asked, 0, [Vec::new(), Vec::new()]);
        for line in content.split_inclusive(|b| *b == b'\n') {
            let start = at;
            at += line.len();
            let parts = if at <= cut {
                [line, &[]]
            } else if start >= cut || content.len() - start <= 2 * asked {
                [&[], line]
            } else {
                let begins = |at: &usize| line.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
                let (kept, held) = line.split_at((cut - start..line.len()).find(begins).unwrap_or(line.len()));
                [kept, held]
            };
            match self.documents {
                Documents::Lines => {
                    push(parts[0].trim_ascii(), end, &mut texts.train);
                    push(parts[1].trim_ascii(), end, &mut texts.held_out);
                }
                Documents::Files => whole.iter_mut().zip(parts).for_each(|(whole, part)| whole.extend_from_slice(part)),
            }
        }
        push(&whole[0], end, &mut texts.train);
        push(&whole[1], end, &mut texts.held_out);
    }

    fn wrong(&self, section: &str, message: &str) -> Error {
        Error::data(format!("language model {}: [{section}] {message}", self.name))
    }
}

/// Appends a document and the end token, unless it is empty.
fn push(document: &[u8], end: u32, tokens: &mut Vec<u32>) {
    if !document.is_empty() {
        tokens.extend(document.iter().map(|b| u32::from(*b)));
        tokens.push(end);
    }
}

/// `from`, which is not empty, replaced by `to`, left to right. What the text grows by comes out of a budget.
fn replaced(content: &[u8], from: &[u8], to: &[u8], budget: &Budget) -> Result<Vec<u8>, Exceeded> {
    let growth = to.len().saturating_sub(from.len()) as u64;
    let mut out = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(i) = rest.iter().position(|b| *b == from[0]) {
        out.extend_from_slice(&rest[..i]);
        rest = &rest[i..];
        if let Some(after) = rest.strip_prefix(from) {
            budget.take(growth)?;
            out.extend_from_slice(to);
            rest = after;
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out.extend_from_slice(rest);
    Ok(out)
}

impl Texts {
    /// Windows to train on, and to watch; no windows to watch when too little is held out.
    ///
    /// # Errors
    /// When there is too little to train on.
    pub fn windows(self, context: usize) -> Result<(Windows, Option<Windows>), Error> {
        Ok((Windows::new(self.train, context)?, Windows::new(self.held_out, context).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT_IN: &str = "built-in language model";

    #[test]
    fn every_description_parses_and_its_settings_are_valid() {
        for text in LANGUAGES {
            let language = parse(text, Path::new(BUILT_IN)).unwrap();
            assert!(find(&language.name).unwrap().is_some());
            language.model_config(&Tokenizer::bytes()).unwrap();
            language.train_config().unwrap().validate(100_000).unwrap();
        }
        assert!(find("quickstart").unwrap().is_none());
    }

    #[test]
    fn a_twin_differs_in_quantization_alone() {
        for own in all().unwrap() {
            let twin = find(&format!("{}{TWIN}", own.name)).unwrap().unwrap();
            let config = twin.train_config().unwrap();
            assert_eq!((config.qat, config.float_fraction, &twin.recipe[..]), (None, 0.0, "f32"));
            let tokenizer = Tokenizer::bytes();
            let [ours, theirs] = [&own, &twin].map(|language| language.model_config(&tokenizer).unwrap());
            assert_eq!(ours.config, theirs.config);
            let qat = own.train_config().unwrap();
            assert_eq!(TrainConfig { qat: qat.qat, float_fraction: qat.float_fraction, ..config }, qat);
        }
        assert!(find("quickstart-f32").unwrap().is_none());
    }

    /// Documents and ends of the two parts, as a text with `|` for the end token.
    fn parts(language: &Language, content: &str) -> [String; 2] {
        let mut texts = Texts { train: vec![257], held_out: vec![257] };
        language.split(content.as_bytes(), 257, &mut texts);
        let show = |token: &u32| if *token == 257 { '|' } else { *token as u8 as char };
        [texts.train, texts.held_out].map(|tokens| tokens.iter().map(show).collect())
    }

    #[test]
    fn the_tail_is_held_out_in_whole_lines() {
        let mut language = parse(LANGUAGES[0], Path::new(BUILT_IN)).unwrap();
        let content = "one\r\n\n two \nthree\nfour";
        for (held_out, lines, files) in [
            (0.0, ["|one|two|three|four|", "|"], ["|one\r\n\n two \nthree\nfour|", "|"]),
            (0.01, ["|one|two|three|four|", "|"], ["|one\r\n\n two \nthree\nfour|", "|"]),
            (0.2, ["|one|two|three|", "|four|"], ["|one\r\n\n two \nthree\n|", "|four|"]),
            (0.3, ["|one|two|", "|three|four|"], ["|one\r\n\n two \n|", "|three\nfour|"]),
            (0.99, ["|", "|one|two|three|four|"], ["|", "|one\r\n\n two \nthree\nfour|"]),
        ] {
            language.held_out = held_out;
            for (documents, expected) in [(Documents::Lines, lines), (Documents::Files, files)] {
                language.documents = documents;
                assert_eq!(parts(&language, content), expected, "{documents:?} {held_out}");
            }
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut language = parse(LANGUAGES[0], Path::new(BUILT_IN)).unwrap();
        language.held_out = 0.05;
        for documents in [Documents::Lines, Documents::Files] {
            language.documents = documents;
            for content in
                ["x".repeat(1000), "é".repeat(500), "你".repeat(333), format!("a\n{}", "\u{1f600}".repeat(250))]
            {
                let mut texts = Texts { train: vec![257], held_out: vec![257] };
                language.split(content.as_bytes(), 257, &mut texts);
                let texts = [texts.train, texts.held_out].map(|tokens| {
                    let bytes = tokens.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
                    String::from_utf8(bytes).expect("whole characters")
                });
                assert!((47..=50).contains(&texts[1].len()), "{documents:?} {} of {}", texts[1].len(), content.len());
                assert_eq!(texts.concat().replace('\n', ""), content.replace('\n', ""));
            }
        }
    }

    #[test]
    fn replacements_go_from_left_to_right() {
        for (content, from, to, expected) in [
            ("aaa", "aa", "b", "ba"),
            ("<br /><br", "<br />", "\n", "\n<br"),
            ("abc", "x", "y", "abc"),
            ("", "x", "y", ""),
            ("xx", "x", "", ""),
        ] {
            let budget = Budget::new(100, 100);
            let found = replaced(content.as_bytes(), from.as_bytes(), to.as_bytes(), &budget).unwrap();
            assert_eq!(found, expected.as_bytes(), "{content}");
        }
    }

    #[test]
    fn replacements_that_blow_a_text_up_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "a".repeat(1000)).unwrap();
        let mut language = parse(LANGUAGES[0], Path::new(BUILT_IN)).unwrap();
        language.texts = vec![path];
        language.replace = vec![["a".into(), "aaaaaaaaaaaaaaaa".into()]; 20];
        let refused = language.texts(None, &Tokenizer::bytes()).err().unwrap();
        assert_eq!(refused.kind, Kind::Memory);
        assert!(refused.message.contains("bytes of content, over 100 times its size"), "{refused}");
        language.replace = vec![["a".into(), "b".into()]; 1001];
        assert!(language.check().unwrap_err().contains("1001 pairs"));
    }
}
