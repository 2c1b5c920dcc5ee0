//! Results as a run of the built-in suite leaves them: eleven networks and two baselines on four classes.

use super::faithfulness::{Faithfulness, METRICS};
use super::metrics::{Confusion, of_classes, of_values};
use super::record::{
    CurvePoint, Detail, Host, How, Limits, Measure, Record, Results, SCHEMA_VERSION, TaskFacts, TensorBytes, Tool,
};
use super::stats::percentile;
use std::collections::BTreeMap;

pub const TASK: &str = "topics@1";
const ROWS: usize = 2000;
const ROUNDS: usize = 40;

/// A small deterministic generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One variant: name, recipe, format of the body, format of the embedding, rows that turn wrong and right against f32,
/// median latency in microseconds.
struct Variant(&'static str, &'static str, &'static str, &'static str, usize, usize, f64);

const NETWORKS: [Variant; 11] = [
    Variant("f32", "f32", "f32", "f32", 0, 0, 412.0),
    Variant("bf16", "bf16", "bf16", "bf16", 1, 1, 398.0),
    Variant("int8", "int8", "int8", "int8", 9, 5, 214.0),
    Variant("int8_channel", "int8_channel", "int8_channel", "int8_channel", 4, 3, 209.0),
    Variant("llm_int8", "llm_int8", "llm_int8", "bf16", 3, 3, 268.0),
    Variant("nf4", "nf4", "nf4", "bf16", 17, 9, 301.0),
    Variant("nf4_dq", "nf4_dq", "nf4_dq", "int8_channel", 19, 8, 306.0),
    Variant("int4", "int4", "int4", "int8_channel", 21, 12, 196.0),
    Variant("int2", "int2", "int2", "int8_channel", 318, 14, 188.0),
    Variant("ternary_ptq", "ternary", "ternary", "int8_channel", 1240, 11, 170.0),
    Variant("ternary_qat", "b158", "ternary_b3", "int8_channel", 41, 23, 174.0),
];

pub fn clean() -> Results {
    let mut dice = Dice(7);
    let truths: Vec<u16> = (0..ROWS).map(|_| (dice.roll() * 4.0) as u16).collect();
    let reference: Vec<u16> =
        truths.iter().map(|t| if dice.roll() < 0.957 { *t } else { other(*t, &mut dice) }).collect();
    let mut records: Vec<Record> = NETWORKS
        .iter()
        .map(|c| {
            let answers = disturbed(&truths, &reference, c.4, c.5, &mut dice);
            network(c, &truths, answers, &mut dice)
        })
        .collect();
    let bayes = disturbed(&truths, &reference, 172, 30, &mut dice);
    records.push(baseline("naive_bayes", &truths, bayes));
    records.push(baseline("majority", &truths, vec![0; ROWS]));
    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        tool: Tool { version: env!("CARGO_PKG_VERSION").into(), commit: "3f2c91ab04de".into() },
        command: ["lowbit", "compare", "quickstart", "--out", "runs/quickstart"].map(String::from).into(),
        host: host(),
        tasks: vec![facts()],
        records,
        ..Results::default()
    };
    compare_with_reference(&mut results);
    results
}

/// The faithfulness of every network to f32, from logits that fit the answers.
pub fn compare_with_reference(results: &mut Results) {
    let logits = |record: &Record, seed: u64| -> Vec<f32> {
        let mut dice = Dice(seed);
        let row = |answer: &u16| -> Vec<f32> {
            (0..4).map(|class| if class == *answer { 3.0 } else { 0.0 } + dice.roll() as f32).collect()
        };
        record.detail.answers.iter().flat_map(row).collect()
    };
    let reference = logits(record(results, "f32"), 3);
    for record in results.records.iter_mut().filter(|r| r.detail.made != "baseline") {
        let own = logits(record, if record.model == "f32" { 3 } else { record.params + record.recipe.len() as u64 });
        let found = Faithfulness::of_rows(&reference, &own, &record.detail.truths, 4).unwrap();
        found.describe(record, "f32");
    }
}

/// The record of that variant.
pub fn record<'a>(results: &'a mut Results, name: &str) -> &'a mut Record {
    results.records.iter_mut().find(|r| r.model == name).unwrap()
}

/// A measure of that variant.
pub fn measure<'a>(results: &'a mut Results, name: &str, measure: &str) -> &'a mut Measure {
    record(results, name).measures.get_mut(measure).unwrap()
}

/// Lets a variant answer so many rows right, from the first on, and all others wrong.
pub fn answer(results: &mut Results, name: &str, right: usize) {
    let record = record(results, name);
    let truths = record.detail.truths.clone();
    let answers = truths.iter().enumerate().map(|(i, t)| if i < right { *t } else { (t + 1) % 4 }).collect();
    rescore(record, &truths, answers);
    compare_with_reference(results);
}

/// Keeps the first rows of the test split.
pub fn cut(results: &mut Results, rows: usize) {
    results.tasks[0].test_rows = rows as u64;
    for record in &mut results.records {
        let truths = record.detail.truths[..rows].to_vec();
        let answers = record.detail.answers[..rows].to_vec();
        rescore(record, &truths, answers);
    }
    compare_with_reference(results);
}

fn rescore(record: &mut Record, truths: &[u16], answers: Vec<u16>) {
    let (measures, detail) = scored(truths, answers);
    record.measures.retain(|name, _| !measures.contains_key(name) && !name.starts_with("f1/"));
    record.measures.extend(measures);
    let Detail { confusion, answers, truths, .. } = detail;
    record.detail = Detail { confusion, answers, truths, ..std::mem::take(&mut record.detail) };
}

/// Three byte models on a text, with energy.
pub fn language() -> Results {
    let mut results = clean();
    results.tasks[0].task = "enwik8@1".into();
    results.tasks[0].about = "Next byte of an encyclopedia.".into();
    results.tasks[0].ceiling = None;
    results.records = vec![
        byte_model("f32", 2.113, 4e6, 0.00211),
        byte_model("int8", 2.114, 1_004_000.0, 0.00131),
        byte_model("int4", 2.208, 504_000.0, 0.00127),
    ];
    results
}

/// Networks and baselines that predict numbers: the variance of the errors over that of the numbers, and the latency.
pub fn numbers() -> Results {
    let mut results = clean();
    let mut dice = Dice(23);
    let mut normal = || (0..12).map(|_| dice.roll()).sum::<f64>() - 6.0;
    let expected: Vec<f64> = (0..ROWS).map(|_| 200.0 + 60.0 * normal()).collect();
    let common: Vec<f64> = (0..ROWS).map(|_| normal()).collect();
    let facts = &mut results.tasks[0];
    (facts.task, facts.ceiling) = ("prices@1".into(), None);
    facts.about = "Price of a house, from what is known of its block.".into();
    results
        .records
        .retain(|r| ["f32", "int8", "int4", "ternary_ptq", "naive_bayes", "majority"].contains(&r.model.as_str()));
    for record in &mut results.records {
        let (name, own) = match record.model.as_str() {
            "f32" => ("f32", 0.0),
            "int8" => ("int8", 0.02),
            "int4" => ("int4", 0.2),
            "ternary_ptq" => ("ternary_ptq", 0.8),
            "naive_bayes" => ("linear", 0.5),
            _ => ("mean", 0.0),
        };
        let mean = expected.iter().sum::<f64>() / ROWS as f64;
        let error = |i: usize| 60.0 * (0.4 * common[i] + own * common[(i * 7 + 3) % ROWS]);
        let predicted: Vec<f64> = match name {
            "mean" => vec![mean + 0.5; ROWS],
            _ => expected.iter().enumerate().map(|(i, y)| y + error(i)).collect(),
        };
        record
            .measures
            .retain(|name, _| !["f1", "accuracy", "precision", "recall"].iter().any(|start| name.starts_with(start)));
        record.measures.retain(|name, _| !METRICS.contains(&&name[..]));
        record.detail.reference = None;
        record.measures.extend(of_values(&expected, &predicted, &[]).unwrap());
        (record.task, record.model) = ("prices@1".into(), name.into());
        let detail = &mut record.detail;
        (detail.classes, detail.confusion) = (Vec::new(), Vec::new());
        (detail.answers, detail.truths) = (Vec::new(), Vec::new());
        (detail.expected, detail.predicted) = (expected.clone(), predicted);
        detail.curve.iter_mut().for_each(|point| point.held_out_accuracy = None);
    }
    results
}

fn byte_model(name: &str, bits: f64, bytes: f64, seconds: f64) -> Record {
    let mut measures = BTreeMap::new();
    let mut put = |key: &str, value: f64, unit: &str, n: u64| {
        measures.insert(key.to_string(), Measure::measured(value, unit, n));
    };
    let text = 5_000_000;
    put("bits_per_byte", bits, "bits", text);
    put("perplexity", bits.exp2(), "count", text);
    put("compression_ratio", 8.0 / bits, "ratio", text);
    let coded = bits / 8.0 * text as f64;
    put("coded_bytes", coded, "bytes", text);
    put("compressed_bytes", coded.ceil() + 42.0, "bytes", text);
    put("next_byte_accuracy", 0.62 - 0.05 * bits, "fraction", text);
    put("weight_bytes", bytes, "bytes", 1);
    put("bytes_per_token", bytes, "bytes", 1);
    put("decode_tokens_per_second", 1.0 / seconds, "per_second", 200);
    put("energy_joules", 11.3 * seconds, "joules", 200);
    let mut parts = BTreeMap::from([("codes".to_string(), bytes as u64)]);
    if name != "f32" {
        parts = BTreeMap::from([("codes".into(), bytes as u64 - 4000), ("scales".into(), 4000)]);
    }
    let (role, format) = ("body".to_string(), name.to_string());
    let (zero_fraction, levels) = (Some(0.2), None);
    let tensor = TensorBytes {
        name: "body".into(),
        role,
        format,
        rows: 1000,
        cols: 1000,
        parts,
        padding: 0,
        zero_fraction,
        levels,
    };
    let mut detail = Detail { made: "trained".into(), tensors: vec![tensor], ..Detail::default() };
    timed(&mut measures, &mut detail, seconds, &mut Dice(bytes as u64));
    // Blocks are as hard for every model, and differ a little between them.
    let (mut text, mut own) = (Dice(5), Dice(bytes as u64));
    let block = |_| bits + 0.3 * (text.roll() - 0.5) + 0.02 * (own.roll() - 0.5);
    let blocks: Vec<f64> = (0..400).map(block).collect();
    let beside = bits - blocks.iter().sum::<f64>() / blocks.len() as f64;
    let blocks = blocks.into_iter().map(|block| block + beside).collect();
    detail.samples.insert("bits_per_byte".into(), blocks);
    let (task, model, recipe) = ("enwik8@1".into(), name.into(), name.into());
    Record { task, model, recipe, params: 1_000_000, measures, detail }
}

fn host() -> Host {
    Host {
        cpu: "AMD EPYC 9B14".into(),
        cores: 2,
        threads: 2,
        isa: "Avx512Vnni".into(),
        ram_bytes: 25_165_824_000,
        ways: String::new(),
        limits: Limits { memory_gbps: Some(31.4), f32_gflops: Some(212.0), bf16_gflops: None, int8_gops: Some(804.0) },
    }
}

fn facts() -> TaskFacts {
    TaskFacts {
        constraints: None,
        unit: None,
        task: TASK.into(),
        about: "Which of four topics does a short generated text belong to?".into(),
        networks: Vec::new(),
        train_rows: 8000,
        test_rows: ROWS as u64,
        train_sha256: "5f1d".repeat(16),
        test_sha256: "a94e".repeat(16),
        overlap_rows: 0,
        ceiling: Some(Measure { how: How::Estimated, ..Measure::measured(0.9735, "fraction", ROWS as u64) }),
        baseline: "f32".into(),
        ..TaskFacts::default()
    }
}

fn other(class: u16, dice: &mut Dice) -> u16 {
    (class + 1 + (dice.roll() * 3.0) as u16) % 4
}

/// The reference's answers with so many more wrong and so many more right.
fn disturbed(truths: &[u16], reference: &[u16], lost: usize, gained: usize, dice: &mut Dice) -> Vec<u16> {
    let mut out = reference.to_vec();
    let (mut lost, mut gained) = (lost, gained);
    while lost > 0 || gained > 0 {
        let i = (dice.roll() * truths.len() as f64) as usize;
        let untouched = out[i] == reference[i];
        if untouched && reference[i] == truths[i] && lost > 0 {
            out[i] = other(truths[i], dice);
            lost -= 1;
        } else if untouched && reference[i] != truths[i] && gained > 0 {
            out[i] = truths[i];
            gained -= 1;
        }
    }
    out
}

fn classes() -> Vec<String> {
    ["World", "Sports", "Business", "Sci/Tech"].map(String::from).into()
}

fn scored(truths: &[u16], answers: Vec<u16>) -> (BTreeMap<String, Measure>, Detail) {
    let confusion = Confusion::new(4, truths, &answers).unwrap();
    let measures = of_classes(&confusion, &classes(), &[]).unwrap();
    let detail = Detail {
        classes: classes(),
        confusion: confusion.matrix(),
        answers,
        truths: truths.to_vec(),
        ..Detail::default()
    };
    (measures, detail)
}

fn baseline(name: &str, truths: &[u16], answers: Vec<u16>) -> Record {
    let (measures, mut detail) = scored(truths, answers);
    detail.made = "baseline".into();
    Record { task: TASK.into(), model: name.into(), recipe: name.into(), params: 0, measures, detail }
}

fn network(c: &Variant, truths: &[u16], answers: Vec<u16>, dice: &mut Dice) -> Record {
    let Variant(name, recipe, body, embedding, _, _, latency) = c;
    let (mut measures, mut detail) = scored(truths, answers);
    let trained = ["f32", "ternary_qat"].contains(name);
    let whole = name.starts_with("int") || name.contains("ternary");
    let hash = name.bytes().fold(7u64, |h, b| h.wrapping_mul(131) + u64::from(b));
    detail.made = if trained { "trained" } else { "quantized" }.into();
    detail.parent = (!trained).then(|| "f32".to_string());
    detail.expected_to_fail = *name == "ternary_ptq";
    detail.tensors = tensors(body, embedding);
    detail.activations = Some(if whole { "int8" } else { "f32" }.into());
    detail.seed = trained.then_some(11);
    detail.model_sha256 = Some(format!("{hash:016x}").repeat(4));
    if *name == "ternary_ptq" {
        let note = "Trained weights rounded to three values without further training.";
        detail.note = Some(note.into());
    }
    let mut put = |key: &str, value: f64, unit: &str, n: u64| {
        measures.insert(key.into(), Measure::measured(value, unit, n));
    };
    let bytes: u64 = detail.tensors.iter().map(TensorBytes::bytes).sum();
    put("weight_bytes", bytes as f64, "bytes", 1);
    put("peak_rss_bytes", (9_400_000 + 4096 * (bytes / 1700)) as f64, "bytes", 1);
    put("load_seconds", 0.0011 + bytes as f64 * 9e-10, "seconds", 5);
    if trained {
        put("train_seconds", if *name == "f32" { 48.31 } else { 67.92 }, "seconds", 1);
        detail.curve = curve(*name == "f32", dice);
    }
    for (batch, factor) in [(8, 0.61), (32, 0.52)] {
        let rate = 1e6 / (latency * factor * (0.98 + 0.04 * dice.roll()));
        put(&format!("throughput/{batch}"), rate, "per_second", 20);
    }
    timed(&mut measures, &mut detail, latency * 1e-6, dice);
    let params = detail.tensors.iter().map(|t| t.rows * t.cols).sum();
    let (model, recipe) = (name.to_string(), recipe.to_string());
    Record { task: TASK.into(), model, recipe, params, measures, detail }
}

/// Raw latencies around `seconds` with a rare disturbance, and their percentiles.
fn timed(measures: &mut BTreeMap<String, Measure>, detail: &mut Detail, seconds: f64, dice: &mut Dice) {
    let mut run = || {
        let disturbed = if dice.roll() > 0.96 { 0.6 * dice.roll() } else { 0.0 };
        seconds * 0.975 * (1.0 + 0.05 * dice.roll() + disturbed)
    };
    let samples: Vec<f64> = (0..ROUNDS).map(|_| run()).collect();
    let (lo, hi) = samples.iter().fold((f64::MAX, 0.0f64), |(lo, hi), s| (lo.min(*s), hi.max(*s)));
    for (q, key) in [(50.0, "latency_p50"), (90.0, "latency_p90"), (99.0, "latency_p99")] {
        let value = percentile(&samples, q).unwrap();
        let measure = Measure::measured(value, "seconds", ROUNDS as u64);
        measures.insert(key.into(), if q == 50.0 { measure.between(lo, hi) } else { measure });
    }
    detail.samples.insert("latency".into(), samples);
}

fn curve(fast: bool, dice: &mut Dice) -> Vec<CurvePoint> {
    let (rate, floor) = if fast { (70.0, 0.09) } else { (120.0, 0.15) };
    (0..=400)
        .map(|i| {
            let step = i as f64 * 2.0;
            let loss = floor + 1.3 * (-step / rate).exp() * (0.9 + 0.2 * dice.roll()) + 0.06 * dice.roll();
            let held = (i % 40 == 0).then(|| (0.25 + 0.71 * (1.0 - (-step / rate).exp())) - 0.01 * dice.roll());
            CurvePoint { step: i * 2, loss, held_out_accuracy: held }
        })
        .collect()
}

fn tensors(body: &str, embedding: &str) -> Vec<TensorBytes> {
    let mut out = vec![tensor("embed.weight", "embedding", embedding, 2048, 64)];
    for layer in 0..4 {
        for (part, rows, cols) in [("qkv", 192, 64), ("out", 64, 64), ("up", 256, 64), ("down", 64, 256)] {
            out.push(tensor(&format!("layers.{layer}.{part}.weight"), "body", body, rows, cols));
        }
        out.push(tensor(&format!("layers.{layer}.norm1.weight"), "norm", "f32", 1, 64));
        out.push(tensor(&format!("layers.{layer}.norm2.weight"), "norm", "f32", 1, 64));
    }
    out.push(tensor("norm.weight", "norm", "f32", 1, 64));
    out.push(tensor("head.weight", "head", embedding, 4, 64));
    out.push(tensor("head.bias", "bias", "f32", 1, 4));
    out
}

fn tensor(name: &str, role: &str, format: &str, rows: u64, cols: u64) -> TensorBytes {
    let w = rows * cols;
    let (codes, scales) = match format {
        "f32" => (4 * w, 0),
        "bf16" => (2 * w, 0),
        "int8" => (w, 4),
        "int8_channel" => (w, 4 * rows),
        "llm_int8" => (w, 4 * rows + 2 * rows),
        "nf4" => (w / 2, w / 64 * 4),
        "nf4_dq" => (w / 2, w / 64 + w / 64 / 256 * 4 + 8),
        "int4" => (w / 2, w / 32 * 2),
        "int2" => (w / 4, w / 32 * 2),
        "ternary" => (w / 4, 4),
        _ => (w.div_ceil(5), 4),
    };
    let mut parts = BTreeMap::from([("codes".to_string(), codes)]);
    if scales > 0 {
        parts.insert("scales".into(), scales);
    }
    let ternary = format.starts_with("ternary");
    let levels = match format {
        _ if ternary => Some(3),
        "int2" => Some(4),
        "int4" | "nf4" | "nf4_dq" => Some(16),
        _ => None,
    };
    TensorBytes {
        name: name.into(),
        role: role.into(),
        format: format.into(),
        rows,
        cols,
        parts,
        padding: 0,
        zero_fraction: ternary.then_some(0.31 + (rows % 7) as f64 * 0.01),
        levels,
    }
}
