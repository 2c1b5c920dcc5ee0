//! `compare` for language models: each variant is trained on a text or made from another, scored on a task, timed, and made to write
//! the text as a file; compressors without a network stand beside them.

use super::{KEPT, Program, SUITE, Stamp, directory, home, is_whole, keep, kept, share, timed};
use crate::language::{self, Given, Language};
use crate::suite::Minutes;
use crate::{Progress, published, training};
use lowbit_base::name::check_part;
use lowbit_base::{Error, Kind, file};
use lowbit_eval::bench::host;
use lowbit_eval::compress;
use lowbit_eval::language::{coders, latencies, text_of};
use lowbit_eval::question::{self, Question, Subject};
use lowbit_eval::read::Rows;
use lowbit_eval::record::{Record, Results, SeedRun, TaskFacts};
use lowbit_eval::task::{self, Split, Task};
use lowbit_eval::{facts, report, speed};
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::{self, Options};
use lowbit_model::{Checkpoint, Inputs, Tokenizer, recipe};
use lowbit_train::TrainConfig;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The built-in comparisons of language models.
pub static SUITES: &[&str] = &[include_str!("../../suites/texts/enwik8.toml")];

/// Bytes of a block by which texts that are the same are found.
const BLOCK: usize = 64;
/// Bytes that fresh processes continue, whose memory is measured.
const BEGINNING: usize = 1024;

/// What a description says it is of: texts.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Described {
    Texts,
}

/// One variant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in the report and of its directory.
    pub name: String,
    /// The recipe its weights are stored under.
    pub recipe: String,
    /// The trained variant before it whose weights it takes; trained itself when absent.
    pub from: Option<String>,
    /// Dimensions of the network that differ from those of the comparison.
    #[serde(default)]
    pub model: toml::Table,
    /// Training settings that differ.
    #[serde(default)]
    pub train: toml::Table,
    /// Dimensions of a quick comparison that differ from those of its network.
    #[serde(default)]
    pub quick: toml::Table,
    /// Known to fail; the report says so.
    #[serde(default)]
    pub expected_to_fail: bool,
    /// One line for the reader.
    pub note: Option<String>,
}

/// What a quick comparison has in place of the whole one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quick {
    /// Tokens of a window.
    pub context: usize,
    /// Bytes of the task's text that are scored, from its begin.
    pub limit: usize,
    /// Dimensions of the network that differ.
    #[serde(default)]
    pub model: toml::Table,
    /// Training settings that differ.
    #[serde(default)]
    pub train: toml::Table,
}

/// A comparison of language models as data.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSuite {
    #[allow(dead_code)] // required in the text, and read to tell it from other suites
    kind: Described,
    /// Short name.
    pub name: String,
    /// The language model whose texts are trained on: a built-in one, or the path of its TOML file.
    pub language: String,
    /// Name of a task that asks for the likelihood of a text, or path of its TOML file.
    pub task: String,
    /// The variant all others are compared with.
    pub baseline: String,
    /// Tokens of a window.
    pub context: usize,
    /// Dimensions of the network.
    pub model: toml::Table,
    /// Training settings.
    pub train: toml::Table,
    /// Minutes that it takes on two cores with AVX-512, about, and those of a quick run.
    pub minutes: Option<Minutes>,
    /// What `--quick` changes.
    pub quick: Option<Quick>,
    /// The variants, in the order of the report.
    pub variant: Vec<Variant>,
    /// The text it was parsed from.
    #[serde(skip)]
    pub text: String,
    /// Bytes of the task's text that are scored; all of them when absent.
    #[serde(skip)]
    limit: Option<usize>,
}

/// The built-in comparisons of language models, parsed.
///
/// # Errors
/// When one of them is wrong.
pub fn all() -> Result<Vec<TextSuite>, Error> {
    SUITES.iter().map(|text| parse(text, Path::new("built-in suite"))).collect()
}

/// The built-in comparison of a name, or the one a TOML file describes; none when it is neither.
///
/// # Errors
/// When the file describes one wrongly; names file, line and field.
pub fn find(name_or_path: &str) -> Result<Option<TextSuite>, Error> {
    if let Some(suite) = all()?.into_iter().find(|suite| suite.name == name_or_path) {
        return Ok(Some(suite));
    }
    let path = Path::new(name_or_path);
    if path.extension().is_none_or(|e| e != "toml") {
        return Ok(None);
    }
    let text = file::read_text(path, file::DESCRIPTION)?;
    let table: Option<toml::Table> = toml::from_str(&text).ok();
    let kind = table.as_ref().and_then(|table| table.get("kind")).and_then(|kind| kind.as_str());
    if kind == Some("texts") { parse(&text, path).map(Some) } else { Ok(None) }
}

fn parse(text: &str, path: &Path) -> Result<TextSuite, Error> {
    let suite: TextSuite = task::described(text, path)?;
    suite.check().map_err(|message| Error::input(path, message))?;
    Ok(TextSuite { text: text.into(), ..suite })
}

/// A table with the entries of another in place of its own.
fn merged(own: &toml::Table, other: &toml::Table) -> toml::Table {
    own.iter().chain(other).map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl TextSuite {
    fn check(&self) -> Result<(), String> {
        check_part(&self.name).map_err(|e| format!("`name`: {e}"))?;
        let mut trained = HashSet::new();
        let mut seen = HashSet::new();
        for variant in &self.variant {
            let name = &variant.name;
            check_part(name).map_err(|e| format!("variant {e}"))?;
            if !seen.insert(name) {
                return Err(format!("variant `{name}` stands twice"));
            }
            if coders::CODERS.iter().any(|coder| coder.name == name) {
                return Err(format!("variant `{name}` has the name of a compressor, which is compared too: rename it"));
            }
            recipe::find(&variant.recipe).map_err(|e| format!("variant `{name}`: {e}"))?;
            match &variant.from {
                None => _ = trained.insert(name),
                Some(from) if !trained.contains(from) => {
                    return Err(format!(
                        "variant `{name}`: `from` names `{from}`, which is no trained variant before it"
                    ));
                }
                Some(_) if !(variant.model.is_empty() && variant.train.is_empty() && variant.quick.is_empty()) => {
                    let text =
                        "`model`, `train` and `quick` are for variants that are trained, and this one has `from`";
                    return Err(format!("variant `{name}`: {text}"));
                }
                Some(_) => {}
            }
        }
        match trained.contains(&self.baseline) {
            true => Ok(()),
            false => Err(format!("`baseline` is `{}`, which is no trained variant", self.baseline)),
        }
    }

    /// The same comparison with smaller networks, fewer updates and less text.
    ///
    /// # Errors
    /// When it has none.
    pub fn quick(self) -> Result<Self, Error> {
        let Some(quick) = self.quick.clone() else {
            return Err(Error::usage(format!("suite {}: there is no [quick] table: leave --quick out", self.name)));
        };
        let variants = self
            .variant
            .into_iter()
            .map(|variant| Variant { model: merged(&variant.model, &variant.quick), ..variant });
        Ok(TextSuite {
            variant: variants.collect(),
            context: quick.context,
            model: merged(&self.model, &quick.model),
            train: merged(&self.train, &quick.train),
            text: format!("{}\n# A quick comparison.\n", self.text),
            limit: Some(quick.limit),
            ..self
        })
    }

    /// What a quick comparison reduces, in words.
    fn scope(&self) -> Option<String> {
        let (limit, context) = (self.limit?, self.context);
        let steps = self.train.get("steps").map_or(String::new(), |steps| format!(", {steps} updates"));
        Some(format!("smaller networks, windows of {context} tokens{steps}, {limit} bytes scored"))
    }

    /// The task.
    ///
    /// # Errors
    /// When there is no such task, or it asks for something else than the likelihood of a text.
    pub fn task(&self) -> Result<Task, Error> {
        let task = task::find(&self.task)?;
        match task.question {
            Question::Likelihood => Ok(task),
            other => {
                let asks = other.spec().asks;
                Err(Error::usage(format!(
                    "suite {}: the task {} asks for {asks}, not for a text",
                    self.name, task.name
                )))
            }
        }
    }

    /// The texts that are trained on.
    ///
    /// # Errors
    /// When there is no such language model.
    pub fn language(&self) -> Result<Language, Error> {
        language::find(&self.language)?.ok_or_else(|| {
            Error::usage(format!("suite {}: `language` is `{}`, which is no language model", self.name, self.language))
        })
    }

    /// What a trained variant is, and how it is trained.
    ///
    /// # Errors
    /// When a field is unknown or wrong.
    pub fn of(&self, variant: &Variant) -> Result<(Language, TrainConfig), Error> {
        let (model, train) = (merged(&self.model, &variant.model), merged(&self.train, &variant.train));
        let language = self.language()?.with(&variant.name, &variant.recipe, self.context, model, train);
        let config = language.train_config()?;
        Ok((language, config))
    }
}

/// A comparison on its way.
struct Comparison<'a> {
    suite: &'a TextSuite,
    task: Task,
    rows: Rows,
    /// The text that is scored, as far as it is.
    content: Vec<u8>,
    stamp: Stamp,
    out: PathBuf,
    /// Which of several trainings is made, from 0; its seeds are so much higher.
    round: u64,
    data: Option<&'a Path>,
    cpu: &'a Cpu,
    progress: &'a mut dyn Progress,
}

/// Makes, scores and times every variant and writes the report; returns its directory and the records.
///
/// # Errors
/// Wrong data, texts that are trained on and scored, failed training, failed writing; a signal ends it with everything finished kept.
pub fn run(
    suite: &TextSuite,
    data: Option<&Path>,
    out: Option<&Path>,
    cpu: &Cpu,
    program: &Program,
    progress: &mut dyn Progress,
) -> Result<(PathBuf, Results), Error> {
    host::need().check()?;
    let task = suite.task()?;
    let (rows, notes) = task.rows(Split::Test, data)?;
    notes.iter().for_each(|note| progress.note(note));
    let Inputs::Bytes(contents) = &rows.inputs else {
        return Err(Error::usage(format!("suite {}: the task {} is not of whole files", suite.name, task.name)));
    };
    let whole = contents.concat();
    let content = whole[..suite.limit.map_or(whole.len(), |limit| limit.min(whole.len()))].to_vec();
    let trained = trained_on(suite, data)?;
    let same = shared(&trained, &content);
    if same > 0.5 {
        let text = format!("{:.0} % of the text of task {} is trained on", 100.0 * same, task.name);
        return Err(Error::usage(format!("suite {}: {text}: raise `held_out` of {}", suite.name, suite.language)));
    }
    progress.note(&format!(
        "{}: {} ({:.1} % of its blocks of {BLOCK} bytes are in the text that is trained on)",
        suite.name,
        task.about,
        100.0 * same
    ));
    let stamp = Stamp {
        suite: suite.text.clone(),
        train_sha256: facts::hash(&trained),
        test_sha256: facts::hash(&content),
        pretrained_sha256: Vec::new(),
        isa: cpu.isa.name().into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let (out, _lock) = directory((&suite.name, &suite.text), None, out, &program.share)?;
    let known = TaskFacts {
        task: task.id(),
        about: task.about.clone(),
        unit: Some("bytes".into()),
        train_rows: trained.len() as u64,
        test_rows: content.len() as u64,
        train_sha256: stamp.train_sha256.clone(),
        test_sha256: stamp.test_sha256.clone(),
        baseline: suite.baseline.clone(),
        constraints: program.constraints,
        ..TaskFacts::default()
    };
    let mut comparison =
        Comparison { suite, task, rows, content, stamp, out: out.clone(), round: 0, data, cpu, progress };
    let results = comparison.all(known, program).map_err(|error| match error.kind {
        Kind::Interrupted => training::interrupted(&out),
        _ => error,
    })?;
    Ok((out, results))
}

/// The bytes that are trained on.
fn trained_on(suite: &TextSuite, data: Option<&Path>) -> Result<Vec<u8>, Error> {
    let tokens = suite.language()?.texts(data, &Tokenizer::bytes())?.train;
    Ok(tokens.into_iter().filter_map(|token| u8::try_from(token).ok()).collect())
}

/// The share of the blocks of a text, end to end, that are somewhere in another.
fn shared(other: &[u8], text: &[u8]) -> f64 {
    let (blocks, _) = text.as_chunks::<BLOCK>();
    let starts: HashSet<[u8; 8]> = blocks.iter().map(|block| *block.first_chunk().expect("a longer block")).collect();
    let all: HashSet<&[u8; BLOCK]> = blocks.iter().collect();
    let at = |window: &'_ [u8]| window.first_chunk().is_some_and(|start| starts.contains(start));
    let found = other.windows(BLOCK).filter(|window| at(window)).filter_map(|window| {
        let block: &[u8; BLOCK] = window.try_into().expect("its length");
        all.get(block).copied()
    });
    let found: HashSet<&[u8; BLOCK]> = found.collect();
    blocks.iter().filter(|block| found.contains(block)).count() as f64 / blocks.len().max(1) as f64
}

impl Comparison<'_> {
    fn home(&self, name: &str) -> PathBuf {
        self.out.join(home(self.round, name))
    }

    fn open(&self, name: &str) -> Result<Checkpoint, Error> {
        Ok(Checkpoint::open(&self.home(name).join("model"))?.on(self.cpu))
    }

    /// Every variant, compressors, times, then the report.
    fn all(&mut self, known: TaskFacts, program: &Program) -> Result<Results, Error> {
        let (suite, mut records) = (self.suite, Vec::new());
        let units =
            share::units(suite.variant.iter().map(|v| (v.name.as_str(), v.from.as_deref().into_iter().collect())));
        let ours = program.share.of(&units);
        for (i, variant) in suite.variant.iter().enumerate().filter(|(i, _)| ours[*i]) {
            self.progress.note(&format!("[{}/{}] {}", i + 1, suite.variant.len(), variant.name));
            records.push(self.variant(variant)?);
        }
        if program.share.shard().is_some() {
            return Ok(program.part(records));
        }
        for round in 1..program.seeds {
            self.round = round;
            for (variant, record) in suite.variant.iter().zip(&mut records) {
                self.progress.note(&format!("{}, training {}", variant.name, round + 1));
                let trained = variant.from.as_ref().and_then(|name| suite.variant.iter().find(|v| v.name == *name));
                let seed = suite.of(trained.unwrap_or(variant))?.1.seed + round;
                record.detail.seeds.push(SeedRun::of(seed, self.variant(variant)?));
            }
        }
        self.round = 0;
        self.progress.note("timing all variants in alternating order");
        let models: Vec<Checkpoint> =
            suite.variant.iter().map(|variant| self.open(&variant.name)).collect::<Result<_, _>>()?;
        let first = models.first().ok_or_else(|| Error::usage(format!("suite {} has no variant", suite.name)))?;
        let subject = Subject { limit: suite.limit, ..Subject::new(&suite.name, first, self.cpu) };
        let text = text_of(&self.task, &self.rows, &subject)?;
        latencies(&text, &models.iter().collect::<Vec<_>>(), &mut records, self.cpu)?;
        let beginning = self.content.iter().take(BEGINNING).map(|byte| char::from(byte & 0x7f)).collect();
        let inputs = Inputs::Texts(vec![beginning]);
        timed(models.iter().zip(&mut records), self.cpu, program.probe, |all| speed::fresh(all, &inputs, self.cpu))?;
        records.extend(coders::records(&self.task.id(), &self.content, &self.cpu.stop)?);
        let host = host::describe(self.cpu)?;
        if let Some(peak) = host.limits.int8_gops {
            models.iter().zip(&mut records).for_each(|(model, record)| compress::with_limit(record, model, peak));
        }
        let all = (0..program.seeds).flat_map(|round| suite.variant.iter().map(move |variant| (round, variant)));
        let kept = all.flat_map(|(round, variant)| {
            let home = home(round, &variant.name);
            let training = variant.from.is_none().then(|| format!("{home}/training"));
            [format!("{home}/{KEPT}"), format!("{home}/model")].into_iter().chain(training)
        });
        let files: Vec<String> = std::iter::once(SUITE.into()).chain(kept).collect();
        records.extend(published::records(&suite.name)?);
        let results = Results {
            host,
            scope: suite.scope(),
            tasks: vec![known],
            files: report::hashes(&self.out, &files)?,
            ..program.part(records)
        };
        report::write(&self.out, &results)?;
        Ok(results)
    }

    /// The record of one variant without the times of single bytes: kept from before, or made now.
    fn variant(&mut self, variant: &Variant) -> Result<Record, Error> {
        self.cpu.stop.check()?;
        if let Some(record) = self.kept(variant) {
            self.progress.note("  kept from before");
            return Ok(record);
        }
        let _lock = share::lock(&self.home(&variant.name), &variant.name)?;
        let mut record = match &variant.from {
            None => self.trained(variant)?,
            Some(parent) => {
                let masters = Checkpoint::open(&self.home(parent).join("training"))?.on(self.cpu);
                let mut record = self.stored(variant, &masters)?;
                record.detail.made = "quantized".into();
                record.detail.parent = Some(parent.clone());
                record
            }
        };
        record.detail.expected_to_fail = variant.expected_to_fail;
        record.detail.note = variant.note.clone();
        record.detail.about = Some(recipe::find(&variant.recipe)?.summary.into());
        keep(&self.home(&variant.name).join(KEPT), &self.stamp, &record)?;
        Ok(record)
    }

    /// The record of a variant that was finished before, and whose weights are what they were.
    fn kept(&self, variant: &Variant) -> Option<Record> {
        let home = self.home(&variant.name);
        kept(&home.join(KEPT), &self.stamp).filter(|record| is_whole(&home.join("model"), record))
    }

    fn trained(&mut self, variant: &Variant) -> Result<Record, Error> {
        let (language, mut config) = self.suite.of(variant)?;
        config.seed += self.round;
        let run = self.home(&variant.name).join("training");
        let (_, trained) = language.fit(&config, Given::data(self.data), &run, self.cpu, self.progress)?;
        let mut record = self.stored(variant, &Checkpoint::open(&run)?.on(self.cpu))?;
        if let Some((trained, _)) = trained {
            record.measures.extend(trained.measures);
            record.detail.seed = trained.detail.seed;
            record.detail.curve = trained.detail.curve;
        }
        record.detail.made = "trained".into();
        Ok(record)
    }

    /// Stores masters under the variant's recipe, scores the result and writes the text as a file.
    fn stored(&mut self, variant: &Variant, masters: &Checkpoint) -> Result<Record, Error> {
        let model = self.home(&variant.name).join("model");
        checkpoint::quantize(masters, recipe::find(&variant.recipe)?, &Options::default(), &model)?;
        let checkpoint = self.open(&variant.name)?;
        let subject = Subject { limit: self.suite.limit, ..Subject::new(&variant.name, &checkpoint, self.cpu) };
        let mut record = question::score(&self.task, &self.rows, &subject)?;
        let bits = record.measures.get("bits_per_byte").map_or(f64::NAN, |m| m.value);
        match compress::prove(&checkpoint, self.cpu, &self.content, &mut record)? {
            Some(why) => self.progress.note(&format!("  writes no file: {why}")),
            None => {
                let written = record.measures.get("compressed_bytes").map_or(0.0, |m| m.value);
                self.progress.note(&format!("  the text as a file, restored again: {written} bytes"));
            }
        }
        let size = record.measures.get("weight_bytes").map_or(0.0, |m| m.value);
        self.progress.note(&format!("  {bits:.4} bits per byte, {}", lowbit_base::memory::bytes(size as u64)));
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_parses_and_its_settings_are_valid() {
        for suite in all().unwrap() {
            suite.task().unwrap();
            let quick = suite.clone().quick().unwrap();
            assert!(quick.text != suite.text, "a quick comparison is another one");
            for suite in [suite, quick] {
                for variant in suite.variant.iter().filter(|variant| variant.from.is_none()) {
                    let (language, config) = suite.of(variant).unwrap();
                    config.validate(100_000).unwrap();
                    language.model_config(&Tokenizer::bytes()).unwrap();
                }
            }
        }
        assert!(find("quickstart").unwrap().is_none());
    }

    /// Bytes of a variant's network under its recipe.
    fn packed(suite: &TextSuite, name: &str) -> u64 {
        let variant = suite.variant.iter().find(|variant| variant.name == name).unwrap();
        let config = suite.of(variant).unwrap().0.model_config(&Tokenizer::bytes()).unwrap().config;
        let parameters = lowbit_model::parameter_list::ParameterList::new(&config).unwrap();
        parameters.bytes(recipe::find(&variant.recipe).unwrap()).unwrap()
    }

    #[test]
    fn twins_have_the_bytes_of_the_ternary_network() {
        let suite = all().unwrap().remove(0);
        for suite in [suite.clone(), suite.quick().unwrap()] {
            let ternary = packed(&suite, "ternary") as f64;
            for twin in ["int4_equal", "int6_equal"] {
                let ratio = packed(&suite, twin) as f64 / ternary;
                assert!((0.97..1.03).contains(&ratio), "{twin}: {ratio} of {ternary} bytes");
            }
        }
    }

    #[test]
    fn blocks_of_a_text_are_found_anywhere_in_another() {
        let text: Vec<u8> = (0..640u32).map(|i| (i * 7 % 251) as u8 ^ (i / 64) as u8).collect();
        let other = [b"xyz", &text[64..192], b"tail"].concat();
        assert_eq!(shared(&other, &text), 0.2);
        assert_eq!(shared(&text, &text), 1.0);
        assert_eq!(shared(b"short", &text), 0.0);
        assert_eq!(shared(&text, b""), 0.0);
    }

    #[test]
    fn wrong_comparisons_are_refused_with_the_place() {
        let good = SUITES[0];
        for (from, to, word) in [
            ("recipe = \"nf4\"", "recipe = \"nf5\"", "did you mean `nf4`"),
            ("baseline = \"f32\"", "baseline = \"x\"", "`baseline`"),
            ("from = \"f32\"", "from = \"nobody\"", "nobody"),
            ("name = \"ternary\"", "name = \"xz -9\"", "variant"),
            ("context = ", "contextx = ", "contextx"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = parse(&good.replacen(from, to, 1), Path::new("own.toml")).unwrap_err().to_string();
            assert!(error.contains("own.toml") && error.contains(word), "{error}");
        }
    }
}
