//! Checks of bytes, bits per weight, stored values, model identity and the machine's limits.

use super::super::compare::{is_low_bit, is_network};
use super::{Case, Outcome, Tally};
use crate::laws;
use crate::record::{How, Record, TensorBytes};
use lowbit_kernels::format::{ActivationType, FORMATS, Spec};
use lowbit_model::source::Role;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a stored tensor may have a role of this name.
fn is_role(name: &str) -> bool {
    serde_json::from_value::<Role>(name.into()).is_ok()
}

/// What a format states of itself, if it is known.
fn spec(format: &str) -> Option<&'static Spec> {
    lowbit_kernels::format::find(format).ok().map(|format| format.spec())
}

fn tensors<'a>(case: &'a Case) -> impl Iterator<Item = (&'a Record, &'a TensorBytes)> {
    case.results.records.iter().flat_map(|r| r.detail.tensors.iter().map(move |t| (r, t)))
}

fn measured_bytes(record: &Record) -> Option<f64> {
    record.measures.get("weight_bytes").map(|m| m.value)
}

/// 15: the parts of all tensors sum to the weight bytes; names are unique and roles known.
pub(crate) fn ledger(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        let Some(m) = record.measures.get("weight_bytes") else {
            continue;
        };
        let tensors = &record.detail.tensors;
        tally.expect(!tensors.is_empty() || m.how != How::Measured, || {
            format!("{}: weight_bytes {} has no ledger of tensors behind it", record.model, m.value)
        });
        let sum: u64 = tensors.iter().map(TensorBytes::bytes).sum();
        tally.expect(tensors.is_empty() || sum as f64 == m.value, || {
            format!("{}: the ledger sums to {sum} bytes, weight_bytes is {}", record.model, m.value)
        });
        let mut names = BTreeSet::new();
        for tensor in tensors {
            let name = &tensor.name;
            tally.expect(names.insert(name), || format!("{}: tensor {name} is listed twice", record.model));
            tally.expect(tensor.padding < tensor.bytes(), || {
                format!("{}: tensor {name} has more padding than bytes", record.model)
            });
            tally.expect(is_role(&tensor.role), || {
                format!("{}: tensor {name} has the unknown role {}", record.model, tensor.role)
            });
        }
    }
    tally.outcome("no weight bytes")
}

/// 16: no tensor below the least bits its format can have, and 8-bit labels between 8 and 9 bits plus a scale per row.
pub(crate) fn bits(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, tensor) in tensors(case) {
        let Some(least) = spec(&tensor.format).map(|spec| spec.bits) else {
            continue;
        };
        let weights = (tensor.rows * tensor.cols) as f64;
        let bits = laws::bits_per_weight(tensor.used() as f64, weights);
        tally.expect(bits >= least * (1.0 - 1e-12), || {
            format!(
                "{}: {} holds {bits:.3} bits per weight, {} needs {least:.3}",
                record.model, tensor.name, tensor.format
            )
        });
    }
    for record in &case.results.records {
        for format in
            FORMATS.iter().map(|f| f.spec()).filter(|f| f.bits == 8.0 && f.activations == ActivationType::Int8)
        {
            let format = format.name;
            let of = || record.detail.tensors.iter().filter(|t| t.format == format);
            let (rows, weights) = (of().map(|t| t.rows).sum::<u64>(), of().map(|t| t.rows * t.cols).sum::<u64>());
            let bits = laws::bits_per_weight(of().map(TensorBytes::used).sum::<u64>() as f64, weights.max(1) as f64);
            let most = 9.0 + 32.0 * rows as f64 / weights.max(1) as f64;
            tally.expect(weights == 0 || bits <= most, || {
                format!(
                    "{}: {format} tensors hold {bits:.2} bits per weight, at most {most:.2} are 8-bit",
                    record.model
                )
            });
        }
    }
    tally.outcome("no ledger of tensors")
}

/// Bytes of a parameter that training cannot do without: its value and its gradient in 32 bits.
const TRAINED: f64 = 0.5 * laws::TRAINING_BYTES;

/// 17: training needs more memory than answering, and at least the values and gradients of all parameters.
pub(crate) fn training(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        let value = |name: &str| record.measures.get(name).map(|m| m.value);
        let Some(train) = value("train_peak_rss_bytes") else { continue };
        let least = TRAINED * record.params as f64;
        tally.expect(train >= least, || {
            format!("{}: training peaked at {train} bytes, values and gradients alone take {least}", record.model)
        });
        let Some(infer) = value("peak_rss_bytes") else { continue };
        tally.expect(train >= infer, || {
            format!("{}: training peaked at {train} bytes, answering at {infer}: it must need more", record.model)
        });
    }
    tally.outcome("no peaks of training")
}

/// 18: sizes were read, not computed from a nominal width, and scales have bytes of their own.
pub(crate) fn real_bytes(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, name, m) in case.measures().filter(|(_, name, _)| name.ends_with("_bytes")) {
        tally.expect(m.how != How::Estimated, || {
            format!("{}: {name} {} is estimated; read it from the file or the system", record.model, m.value)
        });
    }
    for (record, tensor) in tensors(case).filter(|(_, t)| is_low_bit(&t.format)) {
        let bits = laws::bits_per_weight(tensor.used() as f64, (tensor.rows * tensor.cols) as f64);
        // Rows shorter than a group of weights can have a round number of bits with their scales.
        let has_scales = tensor.parts.iter().any(|(part, bytes)| part != "codes" && *bytes > 0);
        tally.expect(has_scales || !laws::NOMINAL_BITS.contains(&bits), || {
            format!("{}: {} has exactly {bits} bits per weight, so no bytes for scales", record.model, tensor.name)
        });
    }
    tally.outcome("no sizes")
}

/// Bytes that no cache holds, so that the memory bandwidth binds.
const BEYOND_CACHE: f64 = 1e9;

/// 21: weights fit the machine, and decoding reads no more bytes per second than the memory delivers.
pub(crate) fn roofline(case: &Case) -> Outcome {
    let host = &case.results.host;
    let mut tally = Tally::default();
    for record in &case.results.records {
        let value = |name: &str| record.measures.get(name).map(|m| m.value);
        if let Some(bytes) = value("weight_bytes").filter(|_| host.ram_bytes > 0) {
            tally.expect(bytes <= host.ram_bytes as f64, || {
                format!("{}: {bytes} weight bytes do not fit {} bytes of memory", record.model, host.ram_bytes)
            });
        }
        let (Some(rate), Some(bytes)) = (value("decode_tokens_per_second"), value("bytes_per_token")) else {
            continue;
        };
        if let Some(limit) = host.limits.memory_gbps.filter(|_| bytes >= BEYOND_CACHE) {
            tally.expect(laws::bytes_per_second(rate, bytes) <= limit * 1.05e9, || {
                format!("{}: {rate} tokens/s times {bytes} bytes is above {limit} GB/s", record.model)
            });
        }
    }
    tally.outcome("no sizes")
}

/// 29: a variant occurs once per task, its parameters are those of its tensors, one hash has one size.
pub(crate) fn identity(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    let mut names = BTreeSet::new();
    let mut hashes: BTreeMap<&str, (&str, f64)> = BTreeMap::new();
    for record in &case.results.records {
        tally.expect(names.insert((&record.task, &record.model)), || {
            format!("{}: two records of this name for {}", record.model, record.task)
        });
        seeds(record, &mut tally);
        let sum: u64 = record.detail.tensors.iter().map(|t| t.rows * t.cols).sum();
        tally.expect(record.detail.tensors.is_empty() || sum == record.params, || {
            format!("{}: {} parameters stated, the tensors hold {sum}", record.model, record.params)
        });
        if let (Some(hash), Some(bytes)) = (record.detail.model_sha256.as_deref(), measured_bytes(record)) {
            let (other, theirs) = *hashes.entry(hash).or_insert((&record.model, bytes));
            tally.expect(theirs == bytes, || {
                format!("{} and {other} have one file hash but {bytes} and {theirs} weight bytes", record.model)
            });
        }
    }
    tally.outcome("no records")
}

/// Trainings from several seeds are several networks, scored on the same rows.
fn seeds(record: &Record, tally: &mut Tally) {
    let (model, detail) = (&record.model, &record.detail);
    let mut known: BTreeSet<u64> = detail.seed.into_iter().collect();
    let mut hashes: BTreeSet<&str> = detail.model_sha256.as_deref().into_iter().collect();
    for run in &detail.seeds {
        let seed = run.seed;
        tally.expect(known.insert(seed), || format!("{model}: two trainings from seed {seed}"));
        let is_new = run.model_sha256.as_deref().is_none_or(|hash| hashes.insert(hash));
        tally.expect(is_new, || format!("{model}: seed {seed} gave the weights of another seed"));
        for (name, m) in &run.measures {
            let same = record.measures.get(name).is_some_and(|own| own.n == m.n);
            tally.expect(same && m.value.is_finite(), || {
                format!("{model}: {name} of seed {seed} is {} on {} rows, unlike that of the first seed", m.value, m.n)
            });
        }
    }
}

/// 30: the stored values are as few as the name of the format says; zeros of ternary tensors are recorded.
pub(crate) fn levels(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, tensor) in tensors(case).filter(|(r, _)| is_network(r)) {
        let Some((spec, most)) = spec(&tensor.format).and_then(|spec| Some((spec, spec.levels?))) else {
            continue;
        };
        if let Some(levels) = tensor.levels {
            tally.expect(levels <= most, || {
                format!("{}: {} is {} but holds {levels} values", record.model, tensor.name, tensor.format)
            });
        }
        if spec.is_ternary() {
            let complete = tensor.levels.is_some() && tensor.zero_fraction.is_some();
            tally.expect(complete, || {
                format!("{}: values and zeros of the ternary {} are not recorded", record.model, tensor.name)
            });
        }
    }
    tally.outcome("no tensors of few values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_those_of_parameters() {
        for name in ["embedding", "body", "head", "norm", "bias", "statistics"] {
            assert!(is_role(name), "{name}");
        }
        assert!(!is_role("wheel") && !is_role("Body"));
    }
}
