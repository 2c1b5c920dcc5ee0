//! A published model on rows of one's own: `compare MODEL --data FILE`.

mod common;

use common::{good, refused, run};
use lowbit_kernels::Cpu;
use lowbit_model::container::{Dtype, Planned, Writer};
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::{Checkpoint, Config, Inputs, Predictor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Words that the vocabulary has whole.
const WORDS: [&str; 8] = ["good", "fine", "great", "bad", "poor", "awful", "the", "film"];

/// A tiny BERT as the Hub has it, with a vocabulary of a few words and all letters.
fn bert(directory: &Path, changes: Value, head: &[(&str, &[usize])]) {
    fs::create_dir_all(directory).unwrap();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let letters = ('a'..='z').flat_map(|c| [c.to_string(), format!("##{c}")]);
    let vocabulary: Vec<String> = special.iter().chain(&WORDS).map(|word| word.to_string()).chain(letters).collect();
    fs::write(directory.join("vocab.txt"), vocabulary.join("\n")).unwrap();
    let mut config = json!({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": vocabulary.len(),
        "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 64, "type_vocab_size": 2, "hidden_act": "gelu"});
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| shapes.insert(name.into(), shape.to_vec());
    for (table, rows) in [("word", vocabulary.len()), ("position", 64), ("token_type", 2)] {
        add(&format!("embeddings.{table}_embeddings.weight"), &[rows, 24]);
    }
    for norm in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        add(&format!("{norm}.LayerNorm.weight"), &[24]);
        add(&format!("{norm}.LayerNorm.bias"), &[24]);
    }
    let dense = [
        ("attention.self.query", 24, 24),
        ("attention.self.key", 24, 24),
        ("attention.self.value", 24, 24),
        ("attention.output.dense", 24, 24),
        ("intermediate.dense", 32, 24),
        ("output.dense", 24, 32),
    ];
    for (name, rows, cols) in dense {
        add(&format!("encoder.layer.0.{name}.weight"), &[rows, cols]);
        add(&format!("encoder.layer.0.{name}.bias"), &[rows]);
    }
    add("pooler.dense.weight", &[24, 24]);
    add("pooler.dense.bias", &[24]);
    head.iter().for_each(|(name, shape)| drop(add(name, shape)));
    let planned =
        |(name, shape): (&String, &Vec<usize>)| Planned { name: name.clone(), dtype: Dtype::F32, shape: shape.clone() };
    let plan: Vec<Planned> = shapes.iter().map(planned).collect();
    let mut writer = Writer::create(&directory.join("model.safetensors"), BTreeMap::new(), &plan).unwrap();
    let mut state = 7u64;
    for (name, shape) in &shapes {
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let noise = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                if name.ends_with("LayerNorm.weight") { 1.0 + 0.1 * noise } else { 0.3 * noise }
            })
            .collect();
        writer.floats(name, shape, &values).unwrap();
    }
    writer.finish().unwrap();
}

/// Reviews with quoted commas, line ends of Windows, emoji, an empty text and texts that stand twice.
fn reviews(path: &Path) {
    let mut csv = "id,review,sentiment\r\n".to_string();
    for i in 0..240usize {
        let (words, label) = if i % 2 == 0 { (&WORDS[..3], "5 stars") } else { (&WORDS[3..6], "1 star") };
        let text = format!("the {} film, {} \u{1f44d} {}", words[i % 3], words[i / 3 % 3], "x".repeat(i % 7));
        csv.push_str(&format!("{i},\"{text}\",{label}\r\n"));
    }
    csv.push_str("900,,1 star\r\n901,\"say \"\"good\"\"\r\nand more\",5 stars\r\n");
    fs::write(path, csv).unwrap();
}

/// The comparison in `out` once more, in `mine`: weights that nobody trained before need larger steps.
fn trained_faster(at: &Path) -> Value {
    let suite = fs::read_to_string(at.join("out/suite.toml")).unwrap();
    fs::create_dir(at.join("mine")).unwrap();
    fs::copy(at.join("out/task.toml"), at.join("mine/task.toml")).unwrap();
    fs::write(at.join("mine/suite.toml"), suite.replace("5e-5", "5e-3")).unwrap();
    serde_json::from_str(&good(at, &["compare", "mine/suite.toml", "--out", "mine/out", "--json"])).unwrap()
}

#[test]
fn a_model_is_trained_further_on_rows_of_ones_own() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    bert(&at.join("bert"), json!({}), &[]);
    reviews(&at.join("reviews.csv"));
    let output = run(at, &["compare", "bert", "--data", "reviews.csv", "--out", "out", "--json"]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}");
    for words in [
        "reviews.csv: 242 rows, text `review`, class `sentiment` (1 star, 5 stars)",
        "10 % of the rows are the test",
        "bert gets a new head and is trained further",
        "validation loss",
    ] {
        assert!(printed.contains(words), "`{words}` is not in: {printed}");
    }
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let record = |name: &str| json["records"].as_array().unwrap().iter().find(|r| r["model"] == name).unwrap().clone();
    assert_eq!(
        (&record("f32")["detail"]["made"], &record("int8")["detail"]["parent"]),
        (&json!("trained"), &json!("f32"))
    );
    good(at, &["report", "out", "--verify"]);
    // The same command goes on, the description of the task lies beside the suite, and the winner answers new rows.
    good(at, &["compare", "bert", "--data", "reviews.csv", "--out", "out"]);
    good(at, &["compare", "out/suite.toml", "--out", "out"]);
    let json = trained_faster(at);
    let trained = json["records"].as_array().unwrap().iter().find(|r| r["model"] == "f32").unwrap();
    let accuracy = trained["measures"]["accuracy"]["value"].as_f64().unwrap();
    assert!(accuracy > 0.9, "{accuracy}");
    fs::write(at.join("new.csv"), "review\nthe good film\nthe awful film\n").unwrap();
    let answers = good(at, &["predict", "mine/out/variants/int8_channel/model", "new.csv"]);
    assert!(answers.contains("5 stars") && answers.contains("1 star"), "{answers}");
}

#[test]
fn a_classifier_that_knows_the_classes_is_compared_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let labels = json!({"id2label": {"0": "5 stars", "1": "1 star"}});
    bert(&at.join("judge"), labels, &[("classifier.weight", &[2, 24]), ("classifier.bias", &[2])]);
    reviews(&at.join("reviews.csv"));
    let output = run(at, &["compare", "judge", "--data", "reviews.csv", "--out", "out", "--json"]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && printed.contains("judge knows these classes: it is compared as it is"),
        "{printed}"
    );
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = json["records"].as_array().unwrap().iter().map(|r| r["model"].as_str().unwrap()).collect();
    assert!(names.contains(&"f32") && names.contains(&"int4") && !names.contains(&"ternary_qat"), "{names:?}");
    assert!(!at.join("out/variants/f32/training").exists());
    // Another model in the same place is another comparison.
    let answers = |home: &Path| {
        let text = good(home, &["compare", "judge", "--data", "reviews.csv", "--out", "out", "--json"]);
        let json: Value = serde_json::from_str(&text).unwrap();
        json["records"].as_array().unwrap().iter().find(|r| r["model"] == "f32").unwrap()["detail"]["model_sha256"]
            .clone()
    };
    let before = answers(at);
    assert_eq!(answers(at), before);
    let mut other = fs::read(at.join("judge/model.safetensors")).unwrap();
    let last = other.len() - 2;
    other[last] ^= 0x40;
    fs::write(at.join("judge/model.safetensors"), other).unwrap();
    assert_ne!(answers(at), before);
    // The classes keep the order of the model.
    let answers = good(at, &["predict", "judge", "reviews.csv", "--text", "review"]);
    assert!(answers.contains("probability/5 stars,probability/1 star"), "{}", &answers[..200]);
}

#[test]
fn two_columns_are_a_pair_with_segments() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    bert(&at.join("bert"), json!({}), &[]);
    let rows: String = (0..120)
        .map(|i| {
            let (a, b) = (WORDS[i % 6], WORDS[i * 5 % 6]);
            format!("{a} {},{b},{}\n", "y".repeat(i % 5 + 1), if a == b { "same" } else { "other" })
        })
        .collect();
    fs::write(at.join("pairs.csv"), format!("premise,hypothesis,label\n{rows}")).unwrap();
    let args = ["compare", "bert", "--data", "pairs.csv", "--text", "premise,hypothesis", "--out", "out"];
    let output = run(at, &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read_to_string(at.join("out/task.toml")).unwrap().contains("pair = [\"premise\", \"hypothesis\"]"));
    // The network sees segments: the same tokens without them have other logits.
    let model = Checkpoint::open(&at.join("out/variants/f32/model")).unwrap();
    let mut predictor = Predictor::of(&model, Cpu::new(None, Some(1)).unwrap()).unwrap();
    let mut pairs = Inputs::default();
    pairs.push_pair(["good y", "bad"], " [SEP] ");
    let of_pair = predictor.outputs(&pairs, [0]).unwrap();
    let mut batch = Default::default();
    predictor.encoder().push(&pairs, 0, &mut batch).unwrap();
    assert_eq!(batch.types, [0, 0, 0, 0, 1, 1]);
    batch.types.clear();
    assert_ne!(predictor.outputs_of_batch(&batch).unwrap(), of_pair);
    // `predict` builds the same pairs from the columns it was trained on.
    fs::write(at.join("new.csv"), "premise,hypothesis\ngood y,bad\n").unwrap();
    let answers = good(at, &["predict", "out/variants/f32/model", "new.csv"]);
    let most = of_pair.iter().fold(f32::MIN, |m, v| m.max(*v));
    let sum: f32 = of_pair.iter().map(|v| (v - most).exp()).sum();
    let shown: f32 = answers.lines().nth(1).unwrap().split(',').nth(1).unwrap().parse().unwrap();
    assert!((shown - 1.0 / sum).abs() < 1e-5, "{answers}");
}

#[test]
fn numbers_are_values_to_predict() {
    let home = tempfile::tempdir().unwrap();
    // There is no directory of data sets, which rows of one's own do not need.
    let at = &home.path().join("here");
    fs::create_dir(at).unwrap();
    bert(&at.join("bert"), json!({}), &[]);
    // A value that the words tell, with a fraction that nothing does.
    let row = |i: usize| {
        let value = [3.0, 2.0, 2.5, -3.0, -2.0, -2.5][i % 6] + (i * 37 % 101) as f64 / 500.0;
        format!("the {} film {},{value}\n", WORDS[i % 6], "x".repeat(i % 5))
    };
    let rows: String = (0..240).map(row).collect();
    fs::write(at.join("rows.csv"), format!("text,score\n{rows}")).unwrap();
    let output = run(at, &["compare", "bert", "--data", "rows.csv", "--label", "score", "--out", "out"]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && printed.contains("value `score` (numbers)"), "{printed}");
    let json = trained_faster(at);
    let trained = json["records"].as_array().unwrap().iter().find(|r| r["model"] == "f32").unwrap();
    let r2 = trained["measures"]["r2"]["value"].as_f64().unwrap();
    assert!(r2 > 0.8, "{r2}");
    good(at, &["report", "mine/out", "--verify"]);
}

#[test]
fn what_does_not_fit_is_said() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    reviews(&at.join("reviews.csv"));
    refused(at, &["compare", "nowhere", "--data", "reviews.csv"], 5, &["nowhere"]);
    refused(at, &["compare", "quickstart", "--text", "review"], 2, &["--data FILE"]);
    refused(at, &["compare", "bert", "--data", "reviews.csv", "--label", "stars"], 3, &["no column `stars`", "review"]);
}

#[test]
fn the_parameters_of_a_tiny_bert_are_those_of_its_file() {
    let home = tempfile::tempdir().unwrap();
    bert(home.path(), json!({}), &[]);
    let checkpoint = Checkpoint::open(home.path()).unwrap();
    let Config::Encoder(_) = &checkpoint.model_config().config else { panic!("an encoder") };
    let list = ParameterList::new(&checkpoint.model_config().config).unwrap();
    assert_eq!(list.positions(), Some(64));
    assert!(checkpoint.has("pooler.weight") && !checkpoint.has("classifier.weight"));
}
