//! Questions to language models, against the log-likelihoods and answers of transformers (`tools/golden/questions.py`).

use lowbit_eval::choose;
use lowbit_eval::error::Kind;
use lowbit_eval::faithfulness::{self, Faithfulness};
use lowbit_eval::generate::{self, Generate};
use lowbit_eval::language::{self, Cut, Text};
use lowbit_eval::question::{self, Question, Reference, Subject};
use lowbit_eval::record::Record;
use lowbit_eval::task::{self, Split, Task};
use lowbit_kernels::Cpu;
use lowbit_model::arch::mlp;
use lowbit_model::checkpoint::save_masters;
use lowbit_model::exec::Activation;
use lowbit_model::input::Scaling;
use lowbit_model::language::Scorer;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::{Checkpoint, Config, ModelConfig, Tokenizer, recipe};
use serde::Deserialize;
use std::f64::consts::LN_2;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

#[derive(Deserialize)]
struct Golden {
    windows: Vec<[usize; 2]>,
    texts: Vec<GoldenText>,
    rows: Vec<GoldenRow>,
    answers: Vec<GoldenAnswer>,
}

#[derive(Deserialize)]
struct GoldenAnswer {
    prompt: String,
    stop: Vec<String>,
    max_tokens: usize,
    answer: String,
}

#[derive(Deserialize)]
struct GoldenRow {
    context: String,
    choices: Vec<String>,
    right: u16,
    log_likelihoods: Vec<f64>,
    best: u16,
    best_per_byte: u16,
}

#[derive(Deserialize)]
struct GoldenText {
    text: String,
    bytes: u64,
    tokens: u64,
    /// One for each of the windows.
    nats: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/questions/cases.json")).expect("as the script writes it")
}

fn cpu() -> Cpu {
    Cpu::new(None, Some(2)).expect("a CPU")
}

/// The model of the golden values, in f32.
fn model() -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/questions/model");
    Checkpoint::open(&path).expect("readable").on(&cpu()).under(Some(recipe::find("f32").expect("a recipe")))
}

fn close(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-4 * expected.abs()
}

/// The nats of all predicted tokens of a record.
fn nats(record: &Record) -> f64 {
    let measure = &record.measures["nats_per_token"];
    measure.value * measure.n as f64
}

#[test]
fn texts_have_the_likelihood_that_transformers_gives() {
    let (golden, model) = (golden(), model());
    for (at, [context, stride]) in golden.windows.iter().enumerate() {
        let cut = Cut { context: Some(*context), stride: Some(*stride) };
        let score = |texts: &[&GoldenText]| {
            let text = Text::of("t".into(), texts.iter().map(|t| t.text.as_bytes()), None, &model).unwrap();
            language::score(&text, &Subject { cut, ..Subject::new("m", &model, &cpu()) }).unwrap()
        };
        for text in &golden.texts {
            let record = score(&[text]);
            assert!(close(nats(&record), text.nats[at]), "{context} {stride}: {} {}", nats(&record), text.nats[at]);
            let bits = &record.measures["bits_per_byte"];
            assert!(close(bits.value * text.bytes as f64 * LN_2, text.nats[at]) && bits.n == text.bytes);
            let bytes = record.measures["text_bytes_per_token"].value;
            assert!(close(bytes * text.tokens as f64, text.bytes as f64), "{bytes}");
            let perplexity = record.measures["perplexity"].value;
            assert!(close(perplexity.ln() * text.tokens as f64, text.nats[at]), "{perplexity}");
            assert!(!record.measures.contains_key("next_byte_accuracy"), "tokens are no bytes");
        }
        // Texts scored together know nothing of one another.
        let all = nats(&score(&golden.texts.iter().collect::<Vec<_>>()));
        assert!(close(all, golden.texts.iter().map(|text| text.nats[at]).sum()), "{all}");
    }
}

/// The model under another recipe, as a reference or beside one.
fn under(recipe: &str) -> Checkpoint {
    model().under(Some(recipe::find(recipe).expect("a recipe")))
}

#[test]
fn a_text_is_compared_with_a_reference_in_the_same_windows() {
    let (golden, model, other, cpu) = (golden(), model(), under("int4"), cpu());
    let contents = || golden.texts.iter().map(|t| t.text.as_bytes());
    let text = |limit| Text::of("t".into(), contents(), limit, &model).unwrap();
    let cut = Cut { context: Some(16), stride: Some(8) };
    let score = |own: &Checkpoint, reference: &Checkpoint| {
        let reference = Some(Reference { name: "r", checkpoint: reference });
        language::score(&text(None), &Subject { cut, reference, ..Subject::new("m", own, &cpu) }).unwrap()
    };
    let itself = score(&other, &other);
    let values = faithfulness::METRICS.iter().map(|name| itself.measures[*name].value);
    assert_eq!(values.collect::<Vec<_>>(), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    let record = score(&other, &model);
    assert_eq!(record.detail.reference.as_deref(), Some("r"));
    // The same windows, scored one model after the other.
    let logits = |checkpoint: &Checkpoint| {
        let mut rows: Vec<(Vec<f32>, u32)> = Vec::new();
        let mut scorer = Scorer::new(Arc::new(checkpoint.model().unwrap()), cpu.clone(), 16, 8).unwrap();
        let tokens: Vec<Vec<u32>> = golden.texts.iter().map(|t| tokens_of(checkpoint, &t.text)).collect();
        let texts: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        scorer.each(&texts, None, &mut |row, _, token| rows.push((row.to_vec(), token))).unwrap();
        rows
    };
    let (theirs, own) = (logits(&model), logits(&other));
    let mut expected = Faithfulness::default();
    theirs.iter().zip(&own).for_each(|((theirs, token), (own, _))| expected.add(theirs, own, *token as usize));
    for (name, measure) in expected.measures(256) {
        assert_eq!(record.measures[&name], measure, "{name}");
        assert!(measure.value > 0.0 && measure.n == golden.texts.iter().map(|text| text.tokens).sum::<u64>());
    }
    // What is measured by itself is the same beside a reference.
    let alone = language::score(&text(None), &Subject { cut, ..Subject::new("m", &other, &cpu) }).unwrap();
    assert!(alone.measures.iter().all(|(name, measure)| record.measures[name] == *measure));
}

/// The tokens of a text after the one that begins it.
fn tokens_of(checkpoint: &Checkpoint, text: &str) -> Vec<u32> {
    let tokenizer = checkpoint.tokenizer().unwrap();
    let begin = checkpoint.model_config().bos_token_id.or(tokenizer.end());
    let tokens = tokenizer.encode(text, usize::MAX).unwrap();
    begin.filter(|begin| tokens.first() != Some(begin)).into_iter().chain(tokens.iter().copied()).collect()
}

#[test]
fn a_reference_has_the_same_vocabulary_and_answers_in_probabilities() {
    let (model, cpu, dir) = (model(), cpu(), TempDir::new().unwrap());
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lowbit/models/default");
    let bytes = Checkpoint::open(&shipped).unwrap().on(&cpu);
    let text = Text::of("t".into(), ["A text of bytes.".as_bytes()], None, &model).unwrap();
    let beside = |checkpoint| Subject {
        reference: Some(Reference { name: "r", checkpoint }),
        ..Subject::new("m", &model, &cpu)
    };
    let refused = language::score(&text, &beside(&bytes)).unwrap_err();
    assert_eq!(refused.kind, Kind::Usage);
    assert!(refused.message.contains("r has ") && refused.message.contains("the same vocabulary"), "{refused}");
    fs::write(dir.path().join("rows.jsonl"), "{\"body\": \"a\", \"answer\": \"b\"}\n").unwrap();
    let written = described(
        &dir,
        "question = \"generate\"\n[generate]\nprompt = \"{body}\"\nmax_tokens = 1\n[[test]]\npaths = [\"rows.jsonl\"]\nanswer = \"answer\"\n",
    );
    let (rows, _) = written.rows(Split::Test, Some(dir.path())).unwrap();
    let refused = question::score(&written, &rows, &beside(&model)).unwrap_err();
    assert!(refused.message.ends_with("the task own asks for a text"), "{refused}");
}

/// A task beside its files.
fn described(dir: &TempDir, text: &str) -> Task {
    Task::parse(&format!("name = \"own\"\nversion = 2\nabout = \"A test.\"\n{text}"), &dir.path().join("own.toml"))
        .unwrap()
}

fn ask(task: &Task, dir: &TempDir, model: &Checkpoint, limit: Option<usize>) -> Result<Record, lowbit_eval::Error> {
    let (rows, _) = task.rows(Split::Test, Some(dir.path()))?;
    question::score(task, &rows, &Subject { limit, ..Subject::new("m", model, &cpu()) })
}

#[test]
fn a_task_of_likelihood_is_scored_in_its_windows() {
    let (golden, model, dir) = (golden(), model(), TempDir::new().unwrap());
    let text = &golden.texts[0];
    fs::write(dir.path().join("a.txt"), &text.text).unwrap();
    let description =
        |settings: &str| format!("question = \"likelihood\"\n{settings}\n[[test]]\npaths = [\"a.txt\"]\n");
    for (at, [context, stride]) in golden.windows.iter().enumerate() {
        let own = described(&dir, &description(&format!("[likelihood]\ncontext = {context}\nstride = {stride}")));
        let record = ask(&own, &dir, &model, None).unwrap();
        assert_eq!((&record.task[..], &record.recipe[..]), ("own@2", "f32"));
        assert!(close(nats(&record), text.nats[at]), "{context} {stride}");
        let windows = format!("windows of {context} that move on by {stride};");
        assert!(record.detail.note.as_ref().unwrap().contains(&windows), "{:?}", record.detail.note);
    }
    // A model trained for less has windows of its own length, and a stride in proportion.
    let long = described(&dir, &description("[likelihood]\ncontext = 640\nstride = 320"));
    assert!(close(nats(&ask(&long, &dir, &model, None).unwrap()), text.nats[0]));
    let few = described(&dir, &description("metrics = [\"bits_per_byte\"]"));
    let record = ask(&few, &dir, &model, Some(20)).unwrap();
    assert_eq!(record.measures.keys().collect::<Vec<_>>(), ["bits_per_byte", "weight_bytes"]);
    assert_eq!(record.measures["bits_per_byte"].n, 20);
}

#[test]
fn rows_of_text_are_texts_of_their_own() {
    let (golden, model, dir) = (golden(), model(), TempDir::new().unwrap());
    let lines: Vec<String> =
        golden.texts.iter().map(|text| serde_json::json!({"id": 1, "body": text.text}).to_string()).collect();
    fs::write(dir.path().join("rows.jsonl"), format!("{}\n{{\"id\": 2, \"body\": \"\"}}\n", lines.join("\n"))).unwrap();
    let own = described(&dir, "question = \"likelihood\"\n[[test]]\npaths = [\"rows.jsonl\"]\ntext = [\"body\"]\n");
    let record = ask(&own, &dir, &model, None).unwrap();
    let [context, stride] = golden.windows[0];
    assert!(record.detail.note.as_ref().unwrap().contains("in 3 texts as"), "{:?}", record.detail.note);
    assert!(record.detail.note.as_ref().unwrap().contains(&format!("{context} that move on by {stride}")));
    assert!(close(nats(&record), golden.texts.iter().map(|text| text.nats[0]).sum()));
    assert_eq!(record.detail.notices, ["1 of 4 texts are empty, and were left out"]);
}

/// A task to choose between `choices` columns of JSON lines.
fn choosing(dir: &TempDir, rows: &[&GoldenRow], choices: usize) -> Task {
    let line = |row: &&GoldenRow| {
        let mut line = serde_json::json!({"body": row.context, "right": row.right.to_string()});
        row.choices.iter().enumerate().for_each(|(at, choice)| line[format!("c{at}")] = choice.clone().into());
        format!("{line}\n")
    };
    fs::write(dir.path().join("rows.jsonl"), rows.iter().map(line).collect::<String>()).unwrap();
    let columns: Vec<String> = (0..choices).map(|at| format!("\"c{at}\"")).collect();
    let columns = columns.join(", ");
    described(
        dir,
        &format!(
            "question = \"choose\"\n[choose]\nprompt = \"{{body}}\"\ndelimiter = \"\"\n\
             [[test]]\npaths = [\"rows.jsonl\"]\nchoices = [{columns}]\nlabel = \"right\"\n"
        ),
    )
}

#[test]
fn choices_have_the_log_likelihoods_that_transformers_gives() {
    let (golden, model, dir, cpu) = (golden(), model(), TempDir::new().unwrap(), cpu());
    let subject = Subject::new("m", &model, &cpu);
    for choices in 2..=4 {
        let rows: Vec<&GoldenRow> = golden.rows.iter().filter(|row| row.choices.len() == choices).collect();
        assert!(!rows.is_empty());
        let own = choosing(&dir, &rows, choices);
        let read = own.rows(Split::Test, Some(dir.path())).unwrap().0;
        let (found, cut) = choose::log_likelihoods(&own, &read, &subject).unwrap();
        assert_eq!(cut, rows.iter().filter(|row| row.context.len() > 100).count());
        for (row, found) in rows.iter().zip(&found) {
            assert_eq!(found.len(), choices);
            for (value, expected) in found.iter().zip(&row.log_likelihoods) {
                assert!(close(*value, *expected), "{:?}: {found:?} {:?}", row.context, row.log_likelihoods);
            }
        }
        let record = question::score(&own, &read, &subject).unwrap();
        let share = |of: &dyn Fn(&GoldenRow) -> u16| {
            rows.iter().filter(|row| of(row) == row.right).count() as f64 / rows.len() as f64
        };
        assert_eq!(record.measures["accuracy"].value, share(&|row| row.best));
        assert_eq!(record.measures["accuracy_normalized"].value, share(&|row| row.best_per_byte));
        assert_eq!(record.detail.answers, rows.iter().map(|row| row.best).collect::<Vec<_>>());
        assert_eq!(record.detail.truths, rows.iter().map(|row| row.right).collect::<Vec<_>>());
        let diagonal: u64 = (0..choices).map(|class| record.detail.confusion[class][class]).sum();
        assert_eq!(diagonal as f64 / rows.len() as f64, share(&|row| row.best));
        assert_eq!(record.detail.classes.last().unwrap(), &(choices - 1).to_string());
        assert_eq!(record.detail.notices.len(), cut, "a row that was cut has a notice");
        let accuracy = &record.measures["accuracy"];
        assert!(accuracy.n == rows.len() as u64 && accuracy.lo.unwrap() < accuracy.value.max(0.01));
    }
}

#[test]
fn classes_are_choices_with_texts_of_their_own() {
    let (model, dir) = (model(), TempDir::new().unwrap());
    let row = golden().rows.into_iter().find(|row| row.context.starts_with("What") && row.best == 1).unwrap();
    fs::write(dir.path().join("x.csv"), format!("\"{}\",yes,1\n", row.context)).unwrap();
    // The texts of the choices after the delimiter of one space; `{text}` joins columns.
    let texts: Vec<String> = row.choices.iter().map(|choice| format!("{:?}", choice.trim())).collect();
    let own = described(
        &dir,
        &format!(
            "question = \"choose\"\nclasses = [\"n\", \"y\"]\nmetrics = [\"accuracy\"]\n[choose]\nprompt = \"{{text}}\"\nchoices = [{}]\n\
             [[test]]\npaths = [\"x.csv\"]\ntext = [0]\nlabel = 2\n",
            texts.join(", ")
        ),
    );
    let record = ask(&own, &dir, &model, None).unwrap();
    assert_eq!(record.measures.keys().collect::<Vec<_>>(), ["accuracy", "weight_bytes"]);
    assert_eq!(
        (record.measures["accuracy"].value, &record.detail.classes[..]),
        (1.0, &["n".to_string(), "y".into()][..])
    );
    assert_eq!(record.detail.confusion, [[0, 0], [0, 1]]);
}

#[test]
fn choices_that_cannot_be_scored_are_refused() {
    let (model, dir) = (model(), TempDir::new().unwrap());
    let refused = |choices: &[&str], reason: &str| {
        let choices: Vec<String> = choices.iter().map(|choice| choice.to_string()).collect();
        let row =
            GoldenRow { context: "a".into(), choices, right: 0, log_likelihoods: vec![], best: 0, best_per_byte: 0 };
        let error = ask(&choosing(&dir, &[&row], row.choices.len()), &dir, &model, None).unwrap_err();
        assert!(error.to_string().contains(reason) && !error.to_string().contains('\n'), "{error}");
    };
    refused(&["b", " "], "row 0: a choice is empty");
    refused(&["b", &"the weights".repeat(20)], "alone has more than the 64 tokens the model sees");
}

#[test]
fn answers_are_those_of_transformers() {
    let (golden, model, dir, cpu) = (golden(), model(), TempDir::new().unwrap(), cpu());
    let subject = Subject::new("m", &model, &cpu);
    for answer in &golden.answers {
        let line = |right: &str| serde_json::json!({"body": answer.prompt, "right": right}).to_string();
        let lines = [line(&answer.answer), line(&format!(" {} ", answer.answer.to_uppercase())), line("x")].join("\n");
        fs::write(dir.path().join("rows.jsonl"), lines).unwrap();
        let own = |normalize: &str| {
            let (stop, most) = (serde_json::to_string(&answer.stop).unwrap(), answer.max_tokens);
            described(
                &dir,
                &format!(
                    "question = \"generate\"\n[generate]\nprompt = \"{{body}}\"\nmax_tokens = {most}\nstop = {stop}\n\
                     normalize = {normalize}\n[[test]]\npaths = [\"rows.jsonl\"]\nanswer = \"right\"\n"
                ),
            )
        };
        let exact = own("[]");
        let rows = exact.rows(Split::Test, Some(dir.path())).unwrap().0;
        let (found, cut) = generate::answers(&exact, &rows, &subject).unwrap();
        assert_eq!((&found[0], cut), (&answer.answer, if answer.prompt.len() > 100 { 3 } else { 0 }));
        for (task, matches) in [(exact, [1.0, 0.0, 0.0]), (own("[\"trim\", \"lowercase\"]"), [1.0, 1.0, 0.0])] {
            let record = question::score(&task, &rows, &subject).unwrap();
            assert_eq!(record.detail.samples["exact_match"], matches);
            let measure = &record.measures["exact_match"];
            assert_eq!((measure.value, measure.n), (matches.iter().sum::<f64>() / 3.0, 3));
            assert!(measure.lo.unwrap() < measure.value && measure.value < measure.hi.unwrap());
            assert_eq!(record.detail.notices.is_empty(), cut == 0);
        }
        let none = Task { generate: exact_with(&own("[]"), 64), ..own("[]") };
        let refused = question::score(&none, &rows, &subject).unwrap_err().to_string();
        assert!(refused.contains("answers of 64 tokens leave no room for a prompt"), "{refused}");
    }
}

/// The settings of a task with another length of answers.
fn exact_with(task: &Task, max_tokens: usize) -> Option<Generate> {
    task.generate.clone().map(|settings| Generate { max_tokens, ..settings })
}

/// A bag of words, or of numbers, in front of so many outputs.
fn perceptron(dir: &TempDir, features: usize, classes: usize) -> Checkpoint {
    let config = mlp::Config {
        vocab_size: if features == 0 { 258 } else { 0 },
        hidden_size: if features == 0 { 8 } else { 0 },
        features,
        layers: vec![8],
        hidden_act: Activation::GeluTanh,
        classes,
        bigram_buckets: 0,
        dropout: 0.0,
    };
    let config = Config::Mlp(config);
    let parameters = ParameterList::new(&config).unwrap();
    let masters: Vec<_> = parameters.params().iter().map(|spec| (spec, vec![0.5; spec.rows * spec.cols])).collect();
    let scaling = |width: usize| Scaling { mean: vec![0.0; width], deviation: vec![1.0; width] };
    let labels = (0..classes).filter(|_| classes > 1).map(|class| format!("class {class}")).collect();
    let model_config = ModelConfig {
        labels,
        input_scaling: (features > 0).then(|| scaling(features)),
        target_scaling: (classes == 1).then(|| scaling(1)),
        ..ModelConfig::new(config, 40)
    };
    let tokenizer = (features == 0).then(Tokenizer::bytes);
    save_masters(dir.path(), &model_config, tokenizer.as_ref(), masters.iter().map(|(spec, v)| (*spec, &v[..])))
        .unwrap();
    Checkpoint::open(dir.path()).unwrap()
}

#[test]
fn every_task_is_refused_to_a_model_that_cannot_answer_it() {
    let [words, numbers, value] = [(0, 3), (4, 3), (4, 1)].map(|(features, classes)| {
        let dir = TempDir::new().unwrap();
        (perceptron(&dir, features, classes), dir)
    });
    for task in task::all() {
        for (model, noun, trained) in [
            (&words.0, "a classifier", Question::Classify),
            (&numbers.0, "a classifier", Question::Classify),
            (&value.0, "a regression model", Question::Regress),
            (&model(), "a language model", Question::Likelihood),
        ] {
            let is_language_model = trained == Question::Likelihood;
            let answers = task.question == trained || (is_language_model && !task.question.spec().is_trained);
            let checked = question::check(&task, model);
            assert_eq!(checked.is_ok(), answers, "{} {noun}", task.name);
            let Err(refused) = checked else { continue };
            assert_eq!(refused.kind, Kind::Usage);
            let asks = format!("is {noun}, and the task {} asks for {}: ", task.name, task.question.spec().asks);
            let remedy = match (is_language_model, task.question.spec().is_trained) {
                (true, _) => "ask it ",
                (false, true) => "name a model trained for ",
                (false, false) => "name a language model",
            };
            assert!(refused.message.contains(&(asks + remedy)), "{refused}");
        }
    }
}

#[test]
fn a_language_model_is_asked_no_class() {
    let (model, dir) = (model(), TempDir::new().unwrap());
    let layout = "paths = [\"x.csv\"]\ntext = [0]\nlabel = 1\n";
    let own = described(
        &dir,
        &format!("question = \"classify\"\nclasses = [\"a\", \"b\"]\n[[train]]\n{layout}[[test]]\n{layout}"),
    );
    let refused = question::check(&own, &model).unwrap_err();
    assert_eq!(refused.kind, Kind::Usage);
    assert!(
        refused.message.contains("is a language model, and the task own asks for a class: ask it to choose between texts, as ag_news_zero_shot"),
        "{refused}"
    );
}
