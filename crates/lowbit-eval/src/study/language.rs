//! Language models on one machine: speed, memory and energy of published shapes with random weights, and the quality of published
//! models whose weights are there.

use super::{Bench, Column, Further, Study};
use crate::bench::model::FIRST;
use crate::error::Kind;
use crate::question::{self, Subject};
use crate::record::{Detail, Measure, Record};
use crate::task::{self, Split};
use crate::{Error, speed};
use lowbit_base::memory::{Footprint, bytes};
use lowbit_kernels::limits;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::{Checkpoint, recipe, synthetic};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;

/// Words that a person reads in a minute: silently, English non-fiction (Brysbaert 2019, doi 10.1016/j.jml.2019.104047).
pub const READING: f64 = 238.0;
/// Words of English that a token of these vocabularies makes, about.
pub const WORDS_PER_TOKEN: f64 = 0.75;
/// The measure of energy.
pub const ENERGY: &str = "decode_energy_joules";
/// The measure of power while tokens are decoded.
const POWER: &str = "decode_watts";

/// Under which name a record says what all its measures need.
pub(crate) const ALL: &str = "";

pub(super) static SPEED: Study = Study {
    name: "language_speed",
    title: "Language models of published shapes",
    about: "Random weights in memory, each network in fresh processes that take turns: speed and memory are those of the shape, and say \
            nothing about quality. Decode: tokens one by one after nothing; prefill: a prompt in one go; tokenization and sampling are no \
            part of either. The share of the limit is that of the memory bandwidth measured in the same rounds. Medians over all runs.",
    head: "Network",
    columns: &[
        Column::Parameters,
        Column::Once("loaded_bytes"),
        Column::Once("decode_tokens_per_second"),
        Column::Once("prefill_tokens_per_second"),
        Column::Once("ttft_seconds"),
        Column::Once("peak_rss_bytes"),
        Column::Once("limit_share"),
    ],
    further: &[
        Further {
            title: "Beside a reader",
            about: "A token makes about 0.75 words of English here; a person reads 238 words a minute, the mean of 190 studies of silent \
                    reading of English non-fiction (M. Brysbaert, How many words do we read per minute?, Journal of Memory and Language \
                    109, 2019).",
            columns: &[Column::Once("decode_tokens_per_second"), Column::Words, Column::Reading],
        },
        Further {
            title: "Energy and cost",
            about: "Energy of the whole CPU package while tokens are decoded, idle power included, as its own counters tell (RAPL); it is \
                    never taken from a data sheet. The cost is electricity alone, at the tariff that was given; no hardware is counted.",
            columns: &[Column::Once(ENERGY), Column::Once(POWER), Column::TokensPerJoule, Column::Electricity],
        },
    ],
    run: |study, bench| measured(study, bench, NETWORKS),
};

pub(super) static QUALITY: Study = Study {
    name: "language_quality",
    title: "Quality of the published weights",
    about: "Bits per byte and perplexity of the beginning of the test file of WikiText-2, and the share of the 872 sentences of SST-2 whose \
            sentiment a network chooses without having been trained for it. Perplexities are per token, so those of different vocabularies \
            do not compare; bits per byte do.",
    head: "Network",
    columns: &[Column::Once("bits_per_byte"), Column::Once("perplexity"), Column::Once("accuracy")],
    further: &[],
    run: |study, bench| scored(study, bench, WEIGHTS),
};

/// A network of a published shape.
struct Network {
    row: &'static str,
    shape: &'static str,
    recipe: &'static str,
    /// Whether it takes too long for a quick run.
    slow: bool,
}

const fn network(row: &'static str, shape: &'static str, recipe: &'static str) -> Network {
    Network { row, shape, recipe, slow: false }
}

/// Weights of all matrices as Bonsai has them.
const BONSAI: &str = "ternary_g128+embed=ternary_g128+head=ternary_g128";

const NETWORKS: &[Network] = &[
    network("BitNet b1.58 2B4T, ternary", "bitnet-2b", "bitnet_bf16"),
    network("BitNet b1.58 2B4T, ternary, 4-bit head", "bitnet-2b", "bitnet_head4"),
    Network { slow: true, ..network("BitNet b1.58 2B4T, bf16", "bitnet-2b", "bf16") },
    network("Bonsai 1.7B, ternary", "qwen3-1.7b", BONSAI),
    network("Bonsai 4B, ternary", "qwen3-4b", BONSAI),
    network("Llama 3.2 1B, 4 bits", "llama-1b", "int4"),
    network("Llama 3.2 1B, bf16", "llama-1b", "bf16"),
    network("Llama 3.2 3B, 4 bits", "llama-3b", "int4"),
    Network { slow: true, ..network("Llama 3.2 3B, bf16", "llama-3b", "bf16") },
    network("Qwen3 1.7B, 4 bits", "qwen3-1.7b", "int4"),
    network("Qwen3 1.7B, bf16", "qwen3-1.7b", "bf16"),
    network("Qwen3 4B, 4 bits", "qwen3-4b", "int4"),
    Network { slow: true, ..network("Qwen3 4B, bf16", "qwen3-4b", "bf16") },
];

/// Tokens of a prompt and of an answer, runs of a process, and processes.
struct Sizes {
    prompt: usize,
    answer: usize,
    runs: usize,
    rounds: usize,
}

const WHOLE: Sizes = Sizes { prompt: 512, answer: 128, runs: 3, rounds: 2 };
const QUICK: Sizes = Sizes { prompt: 128, answer: 16, runs: 3, rounds: 1 };

/// What processes measured of a network: `(measure, unit, samples)`.
type Samples = Vec<(&'static str, &'static str, Vec<f64>)>;

fn measured(study: &Study, bench: &mut Bench, networks: &[Network]) -> Result<Vec<Record>, Error> {
    let sizes = if bench.quick { QUICK } else { WHOLE };
    let mut cases: Vec<(&Network, Record, Samples)> = Vec::new();
    for network in networks {
        let mut record = Record { params: 0, ..study.record(network.row, "", network.recipe) };
        record.model = network.row.into();
        let parameters = ParameterList::new(&synthetic::find(network.shape)?.config())?;
        record.params = parameters.count();
        let need = Footprint::new("").and("weights", parameters.bytes(recipe::find(network.recipe)?)?);
        let need = parameters.with_sequences(need, CacheKind::default(), sizes.prompt + sizes.answer);
        let need = need.and("limits", limits::BYTES as u64);
        if bench.quick && network.slow {
            record.detail.needs.insert(ALL.into(), "a run without --quick".into());
        } else if need.check().is_err() {
            record.detail.needs.insert(ALL.into(), format!("{} of memory", bytes(need.bytes())));
        }
        cases.push((network, record, Vec::new()));
    }
    for round in 0..sizes.rounds {
        let mut order: Vec<_> = cases.iter_mut().filter(|(_, record, _)| record.detail.needs.is_empty()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (network, _, samples) in order {
            bench.cpu.stop.check()?;
            (bench.note)(&format!("  [{}/{}] {}", round + 1, sizes.rounds, network.row));
            take(samples, &process(network, &sizes, bench)?, &sizes);
        }
    }
    Ok(cases.into_iter().map(|(_, record, samples)| filled(record, samples)).collect())
}

/// What `lowbit bench --json` prints of a network, in a process of its own.
fn process(network: &Network, sizes: &Sizes, bench: &Bench) -> Result<Value, Error> {
    let failed = |text: String| Error::new(Kind::Internal, format!("{}: {text}", network.row));
    let [prompt, answer, runs] = [sizes.prompt, sizes.answer, sizes.runs].map(|n| n.to_string());
    let arguments =
        ["--synthetic", network.shape, "--recipe", network.recipe, "-p", &prompt, "-n", &answer, "-r", &runs];
    let started = (bench.bench)(&arguments, bench.cpu);
    let output = started.and_then(|mut command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).output());
    let output = output.map_err(|e| failed(e.to_string()))?;
    // A signal to all processes of a terminal ends the other one, too.
    bench.cpu.stop.check()?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_string();
    serde_json::from_slice(&output.stdout).map_err(|_| failed(said()))
}

/// Adds what a process measured.
fn take(samples: &mut Samples, result: &Value, sizes: &Sizes) {
    let record = |test: &str| result["records"].as_array()?.iter().find(|record| record["task"] == *test);
    let value = |record: &Value, name: &str| record["measures"][name]["value"].as_f64();
    let rates = |record: &Value| -> Vec<f64> {
        let samples = record["detail"]["samples"]["tokens_per_second"].as_array();
        samples.into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let mut keep = |name: &'static str, unit: &'static str, more: Vec<f64>| match samples
        .iter_mut()
        .find(|(known, ..)| *known == name)
    {
        Some((.., all)) => all.extend(more),
        None => samples.push((name, unit, more)),
    };
    if let Some(decode) = record(&format!("tg{}", sizes.answer)) {
        let one = |name: &str| value(decode, name).into_iter().collect::<Vec<f64>>();
        keep("decode_tokens_per_second", "per_second", rates(decode));
        // More than the whole where the bandwidth changed between the runs.
        keep("limit_share", "ratio", one("fraction_of_limit"));
        keep(ENERGY, "joules", one("energy_joules"));
        let rate = value(decode, "decode_tokens_per_second");
        keep(
            POWER,
            "watts",
            value(decode, "energy_joules").zip(rate).map(|(joules, rate)| joules * rate).into_iter().collect(),
        );
        keep("loaded_bytes", "bytes", one("weight_bytes"));
        keep("peak_rss_bytes", "bytes", one("peak_rss_bytes"));
    }
    if let Some(prompt) = record(&format!("pp{}", sizes.prompt)) {
        keep("prefill_tokens_per_second", "per_second", rates(prompt));
    }
    if let Some(first) = record(&format!("ttft{FIRST}")) {
        keep("ttft_seconds", "seconds", rates(first).iter().map(|rate| FIRST as f64 / rate).collect());
    }
}

/// A record with the medians of samples.
fn filled(mut record: Record, samples: Samples) -> Record {
    for (name, unit, samples) in samples {
        let Some(measure) = speed::spread(&samples, unit) else { continue };
        // What is the same in every process is one value.
        let measure = if name == "loaded_bytes" { Measure::measured(measure.value, unit, 1) } else { measure };
        record.measures.insert(name.into(), measure);
        if samples.len() > 1 {
            record.detail.samples.insert(name.into(), samples);
        }
    }
    if record.detail.needs.is_empty() && !record.measures.contains_key(ENERGY) {
        record.detail.needs.extend([ENERGY, POWER].map(|name| (name.into(), "RAPL".into())));
    }
    record
}

/// A published model.
struct Weights {
    row: &'static str,
    /// Its name on the Hub, or its path.
    from: &'static str,
    /// The recipe it runs under; that of its file if none.
    recipe: Option<&'static str>,
}

const WEIGHTS: &[Weights] = &[
    Weights { row: "BitNet b1.58 2B4T, ternary", from: "microsoft/bitnet-b1.58-2B-4T", recipe: None },
    Weights { row: "Bonsai 1.7B, ternary", from: "prism-ml/Ternary-Bonsai-1.7B-unpacked", recipe: Some(BONSAI) },
    Weights { row: "Bonsai 4B, ternary", from: "prism-ml/Ternary-Bonsai-4B-unpacked", recipe: Some(BONSAI) },
    Weights { row: "Llama 3.2 1B, 4 bits", from: "meta-llama/Llama-3.2-1B", recipe: Some("int4") },
    Weights { row: "Llama 3.2 1B, bf16", from: "meta-llama/Llama-3.2-1B", recipe: Some("bf16") },
    Weights { row: "Llama 3.2 3B, 4 bits", from: "meta-llama/Llama-3.2-3B", recipe: Some("int4") },
    Weights { row: "Llama 3.2 3B, bf16", from: "meta-llama/Llama-3.2-3B", recipe: Some("bf16") },
    Weights { row: "Qwen3 1.7B, 4 bits", from: "Qwen/Qwen3-1.7B", recipe: Some("int4") },
    Weights { row: "Qwen3 1.7B, bf16", from: "Qwen/Qwen3-1.7B", recipe: Some("bf16") },
    Weights { row: "Qwen3 4B, 4 bits", from: "Qwen/Qwen3-4B", recipe: Some("int4") },
    Weights { row: "Qwen3 4B, bf16", from: "Qwen/Qwen3-4B", recipe: Some("bf16") },
];

/// The text, and the rows to choose for; the names of what they measure.
const TEXT: (&str, [&str; 2]) = ("wikitext2", ["bits_per_byte", "perplexity"]);
const CHOICE: (&str, [&str; 1]) = ("sst2_zero_shot", ["accuracy"]);
/// Bytes of the text that are scored.
const TEXT_BYTES: usize = 100_000;
const QUICK_TEXT_BYTES: usize = 20_000;

fn scored(study: &Study, bench: &mut Bench, all: &[Weights]) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    for weights in all {
        bench.cpu.stop.check()?;
        let mut record = Record { model: weights.row.into(), ..study.record(weights.row, "", "") };
        record.detail.made = "pulled".into();
        record.detail.seed = None;
        match opened(weights, bench)? {
            Ok(checkpoint) => {
                (bench.note)(&format!("  {}", weights.row));
                record.recipe = checkpoint.recipe().name.into();
                record.params = checkpoint.parameters().count();
                quality(&mut record, &checkpoint, bench)?;
            }
            Err(needs) => _ = record.detail.needs.insert(ALL.into(), needs),
        }
        records.push(record);
    }
    Ok(records)
}

/// A model, or what is needed to have it.
fn opened(weights: &Weights, bench: &Bench) -> Result<Result<Checkpoint, String>, Error> {
    let checkpoint = match Checkpoint::open(Path::new(weights.from)) {
        Ok(checkpoint) => checkpoint.on(bench.cpu).under(weights.recipe.map(recipe::find).transpose()?),
        Err(error) if error.kind == Kind::Io => return Ok(Err(format!("lowbit pull {}", weights.from))),
        Err(error) => return Err(error),
    };
    let need = checkpoint.need("")?;
    Ok(if need.check().is_ok() { Ok(checkpoint) } else { Err(format!("{} of memory", bytes(need.bytes()))) })
}

/// Scores a model on the text, and on the rows to choose for unless the run is a quick one.
fn quality(record: &mut Record, checkpoint: &Checkpoint, bench: &Bench) -> Result<(), Error> {
    let limit = Some(if bench.quick { QUICK_TEXT_BYTES } else { TEXT_BYTES });
    let name = record.model.clone();
    let subject = Subject { limit, ..Subject::new(&name, checkpoint, bench.cpu) };
    let mut add = |task: &str, names: &[&str], needs: Option<&str>| -> Result<(), Error> {
        let task = task::find(task)?;
        let rows = match needs {
            Some(needs) => Err(needs.to_string()),
            None => match task.rows(Split::Test, bench.data) {
                Ok((rows, _)) => Ok(rows),
                Err(error) if matches!(error.kind, Kind::Io | Kind::Usage) => {
                    Err(format!("the data of task {}", task.name))
                }
                Err(error) => return Err(error),
            },
        };
        match rows {
            Ok(rows) => {
                let found = question::score(&task, &rows, &subject)?;
                let kept = found.measures.into_iter().filter(|(name, _)| names.contains(&name.as_str()));
                record.measures.extend(kept);
                let Detail { classes, confusion, answers, truths, .. } = found.detail;
                record.detail = Detail { classes, confusion, answers, truths, ..std::mem::take(&mut record.detail) };
            }
            Err(needs) => record.detail.needs.extend(names.iter().map(|name| (name.to_string(), needs.clone()))),
        }
        Ok(())
    };
    add(TEXT.0, &TEXT.1, None)?;
    add(CHOICE.0, &CHOICE.1, bench.quick.then_some("a run without --quick"))
}

/// Adds what a kilowatt-hour costs to the records whose energy was measured.
pub fn priced(records: &mut [Record], tariff: f64) {
    for record in records.iter_mut().filter(|record| record.measures.contains_key(ENERGY)) {
        record.detail.tariff = Some(tariff);
    }
}

#[cfg(test)]
mod tests;
