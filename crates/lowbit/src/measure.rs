//! Measuring classifiers: answers, times in alternating order, memory and load time of a fresh process, energy.

use crate::failure::{Code, Failure};
use crate::output;
use lowbit_eval::meter::{self, EnergyMeter, Rapl};
use lowbit_eval::read::Rows;
use lowbit_eval::record::{CurvePoint, Detail, Measure, Record, TensorBytes};
use lowbit_eval::stats;
use lowbit_eval::task::Task;
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::ledger;
use lowbit_model::text::Classifier;
use lowbit_model::{Checkpoint, recipe};
use lowbit_train::StepMetrics;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Unmeasured rounds before latencies count.
const WARM_ROUNDS: usize = 20;
/// Timed single examples per contender.
const LATENCY_ROUNDS: usize = 300;
/// Timed batches per contender and batch size.
const THROUGHPUT_ROUNDS: usize = 24;
/// Batch sizes of the throughput.
const BATCHES: [usize; 2] = [8, 32];
/// Fresh processes per contender.
const PROBES: usize = 3;
/// Examples a fresh process answers.
const PROBE_ROWS: usize = 64;
/// Points of a training curve.
const CURVE_POINTS: usize = 200;

/// Most likely class of each row of logits.
fn answers(logits: &[f32], classes: usize) -> Vec<u16> {
    let best = |row: &[f32]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a))).unwrap_or(0);
    logits.chunks_exact(classes).map(|row| best(row) as u16).collect()
}

/// The record of answers to all test rows: quality, confusion, and nothing about speed.
///
/// # Errors
/// When the answers do not fit the task.
pub fn scored(task: &Task, test: &Rows, model: &str, recipe: &str, given: Vec<u16>) -> Result<Record, Failure> {
    let (confusion, measures) = task.score(test, &given)?;
    let counts = |truth: usize| (0..confusion.classes()).map(|a| confusion.counts[truth][a]).collect();
    let detail = Detail {
        classes: task.classes.clone(),
        confusion: (0..confusion.classes()).map(counts).collect(),
        answers: given,
        truths: test.labels.clone(),
        ..Detail::default()
    };
    Ok(Record { task: task.id(), model: model.into(), recipe: recipe.into(), params: 0, measures, detail })
}

/// Quality and stored bytes of a model directory on the test rows of a task.
///
/// # Errors
/// When the model cannot be opened or has other classes than the task.
pub fn quality(task: &Task, test: &Rows, name: &str, directory: &Path, cpu: &Cpu) -> Result<Record, Failure> {
    let checkpoint = Checkpoint::open(directory)?;
    let mut classifier = Classifier::open(directory, cpu.clone())?;
    if classifier.labels() != task.classes {
        let (have, want) = (classifier.labels().join(", "), task.classes.join(", "));
        return Err(Failure::input(directory, format!("the model's labels are [{have}], the task's classes [{want}]")));
    }
    let energy = Rapl::open(&Rapl::root());
    let mut meter = energy.as_ref().and_then(EnergyMeter::start);
    let logits = classifier.logits(&test.texts)?;
    let joules = meter.as_mut().and_then(EnergyMeter::joules);
    if let Some(bad) = logits.iter().position(|v| !v.is_finite()) {
        let row = bad / task.classes.len();
        let message = format!("{}: the logits of test row {row} are not finite", directory.display());
        return Err(Failure { code: Code::Numeric, message });
    }
    let mut record = scored(task, test, name, checkpoint.recipe().name, answers(&logits, task.classes.len()))?;
    describe(&mut record, &checkpoint)?;
    if let Some(joules) = joules {
        let each = joules / test.len().max(1) as f64;
        record.measures.insert("energy_joules".into(), Measure::measured(each, "joules", test.len() as u64));
    }
    Ok(record)
}

/// Adds what a model is made of: parameters, stored bytes, hash, activations.
///
/// # Errors
/// When the model's file cannot be read.
pub fn describe(record: &mut Record, checkpoint: &Checkpoint) -> Result<(), Failure> {
    record.params = checkpoint.listing().count();
    record.detail.model_sha256 = Some(sha256_of(&checkpoint.files())?);
    record.detail.activations = Some(match checkpoint.recipe().activations {
        recipe::Activations::F32 => "f32".into(),
        recipe::Activations::Int8 => "int8".into(),
    });
    record.detail.tensors = ledger(checkpoint)?.into_iter().map(tensor_bytes).collect();
    let bytes: u64 = record.detail.tensors.iter().map(TensorBytes::bytes).sum();
    record.measures.insert("weight_bytes".into(), Measure::measured(bytes as f64, "bytes", 1));
    Ok(())
}

fn tensor_bytes(row: lowbit_model::checkpoint::Row) -> TensorBytes {
    let role = serde_json::to_value(row.role).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
    TensorBytes {
        name: row.name,
        role,
        format: row.format,
        rows: row.rows as u64,
        cols: row.cols as u64,
        parts: row.parts.into_iter().map(|(name, bytes)| (name, bytes as u64)).collect(),
        zero_fraction: Some(row.zero_fraction),
        levels: row.levels.map(|n| n as u64),
    }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String, Failure> {
    sha256_of(&[path])
}

/// SHA-256 of files one after the other, in hexadecimal.
fn sha256_of(paths: &[&Path]) -> Result<String, Failure> {
    let mut hash = Sha256::new();
    for path in paths {
        let mut file = std::fs::File::open(path).map_err(|e| Failure::io(path, &e))?;
        std::io::copy(&mut file, &mut HashWriter(&mut hash)).map_err(|e| Failure::io(path, &e))?;
    }
    Ok(lowbit_base::hex(hash.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Latency, throughput, load time and peak memory of several models, in alternating order; fills their records.
///
/// # Errors
/// When a model cannot be opened, or a fresh process fails.
pub fn speeds(test: &Rows, contenders: &mut [(&Path, &mut Record)], cpu: &Cpu) -> Result<(), Failure> {
    let mut classifiers = Vec::new();
    for (directory, _) in contenders.iter() {
        classifiers.push(Classifier::open(directory, cpu.clone())?);
    }
    let rounds = alternate(test, &mut classifiers, 1, WARM_ROUNDS)?.len();
    debug_assert_eq!(rounds, contenders.len());
    let samples = alternate(test, &mut classifiers, 1, LATENCY_ROUNDS)?;
    for ((_, record), samples) in contenders.iter_mut().zip(samples) {
        record.measures.extend(meter::latency_measures(&samples));
        record.detail.samples.insert("latency".into(), samples);
    }
    for batch in BATCHES {
        let samples = alternate(test, &mut classifiers, batch, THROUGHPUT_ROUNDS)?;
        for ((_, record), samples) in contenders.iter_mut().zip(samples) {
            let rates: Vec<f64> = samples.iter().map(|seconds| batch as f64 / seconds).collect();
            let name = format!("throughput/{batch}");
            record.measures.extend(spread(&rates, "per_second").map(|m| (name.clone(), m)));
            record.detail.samples.insert(name, rates);
        }
    }
    drop(classifiers);
    let texts: Vec<&str> = test.texts.iter().take(PROBE_ROWS).map(String::as_str).collect();
    for _ in 0..PROBES {
        for (directory, record) in contenders.iter_mut() {
            let probe = fresh_process(directory, &texts, cpu)?;
            let mut keep = |name: &str, value: Option<f64>| {
                if let Some(value) = value {
                    record.detail.samples.entry(name.into()).or_default().push(value);
                }
            };
            keep("load_seconds", Some(probe.load_seconds));
            keep("peak_rss_bytes", probe.peak_rss_bytes.map(|b| b as f64));
        }
    }
    for (_, record) in contenders.iter_mut() {
        for (name, unit) in [("load_seconds", "seconds"), ("peak_rss_bytes", "bytes")] {
            let measure = record.detail.samples.get(name).and_then(|samples| spread(samples, unit));
            record.measures.extend(measure.map(|m| (name.to_string(), m)));
        }
    }
    Ok(())
}

/// Median with minimum and maximum.
fn spread(samples: &[f64], unit: &str) -> Option<Measure> {
    let at = |q| stats::percentile(samples, q);
    Some(Measure::measured(stats::median(samples)?, unit, samples.len() as u64).between(at(0.0)?, at(100.0)?))
}

/// Seconds of each round for each classifier, `batch` texts a round, the same texts for all.
fn alternate(
    test: &Rows,
    classifiers: &mut [Classifier],
    batch: usize,
    rounds: usize,
) -> Result<Vec<Vec<f64>>, Failure> {
    let mut work: Vec<_> = classifiers
        .iter_mut()
        .map(|classifier| {
            let mut round = 0;
            move || -> Result<(), Failure> {
                // A stride that is no divisor of usual sizes visits texts of all lengths.
                let at = |i: usize| &test.texts[(round * batch + i) * 37 % test.texts.len()];
                let texts: Vec<&String> = (0..batch).map(at).collect();
                std::hint::black_box(classifier.logits(&texts)?);
                round += 1;
                Ok(())
            }
        })
        .collect();
    let mut work: Vec<meter::Contender<Failure>> = work.iter_mut().map(|w| w as meter::Contender<Failure>).collect();
    meter::alternate(&mut work, rounds)
}

/// What a fresh process tells of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// From opening the model to the first answer.
    pub load_seconds: f64,
    /// Largest resident memory after all answers.
    pub peak_rss_bytes: Option<u64>,
}

/// Opens a model and answers texts one by one, in this process.
///
/// # Errors
/// When the model cannot be opened.
pub fn probe(directory: &Path, texts: &[String], cpu: &Cpu) -> Result<Probe, Failure> {
    let start = std::time::Instant::now();
    let mut classifier = Classifier::open(directory, cpu.clone())?;
    let mut load_seconds = None;
    for text in texts {
        classifier.logits(&[text])?;
        load_seconds.get_or_insert_with(|| start.elapsed().as_secs_f64());
    }
    let load_seconds = load_seconds.unwrap_or_else(|| start.elapsed().as_secs_f64());
    Ok(Probe { load_seconds, peak_rss_bytes: meter::peak_rss_bytes() })
}

fn fresh_process(directory: &Path, texts: &[&str], cpu: &Cpu) -> Result<Probe, Failure> {
    let failed =
        |text: String| Failure { code: Code::Internal, message: format!("measuring in a fresh process: {text}") };
    let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let mut child = Command::new(program)
        .arg("probe")
        .arg(directory)
        .args(["--isa", cpu.isa.name(), "--threads", &cpu.pool.threads().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let input = serde_json::to_vec(texts).map_err(|e| failed(e.to_string()))?;
    let sent = child.stdin.take().map(|mut stdin| stdin.write_all(&input));
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if let Some(Err(e)) = sent {
        return Err(failed(e.to_string()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("{} ({e})", output.status)))
}

/// The training curve of a run: mean loss over windows of steps.
///
/// # Errors
/// When the metrics cannot be read.
pub fn curve(run: &Path) -> Result<Vec<CurvePoint>, Failure> {
    let path = run.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
    let steps: Vec<StepMetrics> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let window = steps.len().div_ceil(CURVE_POINTS).max(1);
    let point = |w: &[StepMetrics]| CurvePoint {
        step: w[w.len() - 1].step,
        loss: w.iter().map(|m| m.loss).sum::<f64>() / w.len() as f64,
        held_out_accuracy: None,
    };
    Ok(steps.chunks(window).map(point).collect())
}

/// One line per measure, for a person.
pub fn print(record: &Record) {
    for (name, m) in &record.measures {
        let value = match m.unit.as_str() {
            "fraction" => format!("{:.2} %", m.value * 100.0),
            "bytes" => output::bytes(m.value as u64),
            "seconds" => output::duration(m.value),
            "per_second" => format!("{:.1} /s", m.value),
            unit => format!("{:.4} {unit}", m.value),
        };
        let range = match (m.lo, m.hi, m.unit.as_str()) {
            (Some(lo), Some(hi), "fraction") => format!(" ({:.2} .. {:.2} %)", lo * 100.0, hi * 100.0),
            _ => String::new(),
        };
        output::line(format!("{name:24} {value}{range}"));
    }
}

/// Measures of a finished training.
pub fn training(seconds: f64) -> BTreeMap<String, Measure> {
    BTreeMap::from([("train_seconds".to_string(), Measure::measured(seconds, "seconds", 1))])
}
