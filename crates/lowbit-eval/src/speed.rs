//! Measuring predictors against each other: times in alternating order, memory and load time of a fresh process.

use crate::read::Rows;
use crate::record::{Measure, Record, TokenLengths};
use crate::{language, meter, stats};
use lowbit_base::{Error, Kind, Stop};
use lowbit_kernels::Cpu;
use lowbit_model::arch::OutputKind;
use lowbit_model::{Checkpoint, Inputs, Predictor};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::process::{Command, Stdio};

/// Unmeasured rounds before latencies count.
const WARM_ROUNDS: usize = 20;
/// Timed single examples per variant.
const LATENCY_ROUNDS: usize = 300;
/// Timed batches per variant and batch size.
const THROUGHPUT_ROUNDS: usize = 24;
/// Timed single examples per variant and range of length.
const LENGTH_ROUNDS: usize = 60;
/// Batch sizes of the throughput.
const BATCHES: [usize; 2] = [8, 32];
/// Fresh processes per variant.
const PROBES: usize = 3;
/// Examples a fresh process answers.
const PROBE_ROWS: usize = 64;

/// A classifier that is measured, and the record that gets the measures.
pub struct TimedVariant<'a> {
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// Gets the measures.
    pub record: &'a mut Record,
    /// Starts a process that calls [`probe`] on the model with the rows on its stdin, and prints the result.
    pub probe: &'a mut dyn FnMut() -> std::io::Result<Command>,
}

/// Latency, throughput, load time and peak memory of several models, in alternating order; fills their records.
///
/// # Errors
/// When a model cannot be opened, or a fresh process fails.
pub fn speeds(test: &Rows, variants: &mut [TimedVariant], cpu: &Cpu) -> Result<(), Error> {
    let mut classifiers = Vec::new();
    for variant in variants.iter() {
        classifiers.push(Predictor::of(variant.checkpoint, cpu.clone())?);
    }
    let all: Vec<usize> = (0..test.len()).collect();
    let rounds = alternate(test, &all, &mut classifiers, 1, WARM_ROUNDS)?.len();
    debug_assert_eq!(rounds, variants.len());
    let samples = alternate(test, &all, &mut classifiers, 1, LATENCY_ROUNDS)?;
    for (variant, samples) in variants.iter_mut().zip(samples) {
        variant.record.measures.extend(meter::latency_measures(&samples));
        variant.record.detail.samples.insert("latency".into(), samples);
    }
    for batch in BATCHES {
        let samples = alternate(test, &all, &mut classifiers, batch, THROUGHPUT_ROUNDS)?;
        for (variant, samples) in variants.iter_mut().zip(samples) {
            let rates: Vec<f64> = samples.iter().map(|seconds| batch as f64 / seconds).collect();
            let name = format!("throughput/{batch}");
            variant.record.measures.extend(spread(&rates, "per_second").map(|m| (name.clone(), m)));
            variant.record.detail.samples.insert(name, rates);
        }
    }
    let lengths = variants.first().and_then(|variant| variant.record.detail.lengths.clone());
    for (range, rows) in lengths.iter().flat_map(TokenLengths::ranges) {
        let samples = alternate(test, &rows, &mut classifiers, 1, LENGTH_ROUNDS)?;
        for (variant, samples) in variants.iter_mut().zip(samples) {
            let name = format!("latency_tokens/{range}");
            let median = meter::latency_measures(&samples).into_iter().find(|(name, _)| name == "latency_p50");
            variant.record.measures.extend(median.map(|(_, measure)| (name.clone(), measure)));
            variant.record.detail.samples.insert(name, samples);
        }
    }
    drop(classifiers);
    let rows: Vec<usize> = (0..test.len().min(PROBE_ROWS)).collect();
    fresh(variants, &test.inputs.select(&rows), cpu)
}

/// Load time and peak memory of several models in fresh processes, in alternating order; fills their records.
///
/// # Errors
/// When a fresh process fails.
pub fn fresh(variants: &mut [TimedVariant], inputs: &Inputs, cpu: &Cpu) -> Result<(), Error> {
    for _ in 0..PROBES {
        for TimedVariant { record, probe, .. } in variants.iter_mut() {
            let (probe, _) = fresh_process(probe, inputs, &cpu.stop)?;
            let mut keep = |name: &str, value: Option<f64>| {
                if let Some(value) = value {
                    record.detail.samples.entry(name.into()).or_default().push(value);
                }
            };
            keep("load_seconds", Some(probe.load_seconds));
            keep("peak_rss_bytes", probe.peak_rss_bytes.map(|b| b as f64));
        }
    }
    for TimedVariant { record, .. } in variants.iter_mut() {
        for (name, unit) in [("load_seconds", "seconds"), ("peak_rss_bytes", "bytes")] {
            let measure = record.detail.samples.get(name).and_then(|samples| spread(samples, unit));
            record.measures.extend(measure.map(|m| (name.to_string(), m)));
        }
    }
    Ok(())
}

/// Median with minimum and maximum.
pub(crate) fn spread(samples: &[f64], unit: &str) -> Option<Measure> {
    let at = |q| stats::percentile(samples, q);
    Some(Measure::measured(stats::median(samples)?, unit, samples.len() as u64).between(at(0.0)?, at(100.0)?))
}

/// Seconds of each round for each classifier, `batch` of some rows a round, the same rows for all.
fn alternate(
    test: &Rows,
    rows: &[usize],
    predictors: &mut [Predictor],
    batch: usize,
    rounds: usize,
) -> Result<Vec<Vec<f64>>, Error> {
    let mut work: Vec<_> = predictors
        .iter_mut()
        .map(|classifier| {
            let mut round = 0;
            move || -> Result<(), Error> {
                // A stride that is no divisor of usual sizes visits texts of all lengths.
                let at = |i: usize| rows[(round * batch + i) * 37 % rows.len()];
                std::hint::black_box(classifier.outputs(&test.inputs, (0..batch).map(at))?);
                round += 1;
                Ok(())
            }
        })
        .collect();
    let mut work: Vec<meter::Workload<Error>> = work.iter_mut().map(|w| w as meter::Workload<Error>).collect();
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

/// Opens a model and answers rows one by one, in this process; a language model continues them by some tokens.
///
/// # Errors
/// When the model cannot be opened.
pub fn probe(
    open: impl FnOnce() -> Result<Checkpoint, lowbit_model::Error>,
    inputs: &Inputs,
    cpu: &Cpu,
) -> Result<Probe, Error> {
    let start = std::time::Instant::now();
    let checkpoint = open()?;
    let mut load_seconds = None;
    let mut answered = || _ = load_seconds.get_or_insert_with(|| start.elapsed().as_secs_f64());
    match checkpoint.model_config().config.output() {
        OutputKind::Tokens => language::continued(&checkpoint, inputs.texts(), cpu, &mut answered)?,
        _ => {
            let mut predictor = Predictor::of(&checkpoint, cpu.clone())?;
            for row in 0..inputs.len() {
                predictor.outputs(inputs, [row])?;
                answered();
            }
        }
    }
    let load_seconds = load_seconds.unwrap_or_else(|| start.elapsed().as_secs_f64());
    Ok(Probe { load_seconds, peak_rss_bytes: meter::peak_rss_bytes() })
}

/// What a fresh process that calls [`probe`] tells, and the seconds from its start to its end.
pub(crate) fn fresh_process(
    command: &mut dyn FnMut() -> std::io::Result<Command>,
    inputs: &Inputs,
    stop: &Stop,
) -> Result<(Probe, f64), Error> {
    stop.check()?;
    let failed = |text: String| Error::new(Kind::Internal, format!("measuring in a fresh process: {text}"));
    let input = serde_json::to_vec(inputs).map_err(|e| failed(e.to_string()))?;
    let mut command = command().map_err(|e| failed(e.to_string()))?;
    let start = std::time::Instant::now();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| failed(e.to_string()))?;
    let sent = child.stdin.take().map(|mut stdin| stdin.write_all(&input));
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    let seconds = start.elapsed().as_secs_f64();
    // A signal to all processes of a terminal ends the other one, too.
    stop.check()?;
    if let Some(Err(e)) = sent {
        return Err(failed(e.to_string()));
    }
    let probe = serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("{} ({e})", output.status)))?;
    Ok((probe, seconds))
}
