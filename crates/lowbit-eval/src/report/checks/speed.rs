//! Checks of times, rates and energies.

use super::super::noise::MIN_SAMPLES;
use super::super::{machines, studies};
use super::{Case, Outcome, Tally};
use crate::laws;
use crate::record::{How, Record};

/// Records whose times are compared with each other, and the one that ratios are taken against: the variants of a task, the sides
/// of a row of a study, on every machine.
fn compared<'a>(case: &Case<'a>) -> Vec<(Option<&'a Record>, Vec<&'a Record>)> {
    let tasks = case.tasks.iter().map(|c| (c.reference().map(|r| r.record), c.rows.iter().map(|r| r.record).collect()));
    let rows = studies::rows(case.results).into_iter().flat_map(|(_, rows)| rows);
    let machines = case.results.machines.iter().flat_map(machines::groups);
    tasks.chain(rows.map(|row| (row.sides.first().copied(), row.sides))).chain(machines).collect()
}

/// 19: a measured latency has at least five raw runs, as many as the reference's, so that ratios have something behind them.
pub(crate) fn raw_runs(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (reference, records) in compared(case) {
        let runs = |r: &Record| r.detail.samples.get("latency").map_or(0, Vec::len);
        let reference = reference.map(runs).filter(|n| *n > 0);
        for record in records {
            let Some(m) = record.measures.get("latency_p50").filter(|m| m.how == How::Measured) else {
                continue;
            };
            let (n, name) = (runs(record), &record.model);
            tally.expect(n >= MIN_SAMPLES, || {
                format!("{name}: latency {} has {n} raw runs, {MIN_SAMPLES} are needed", m.value)
            });
            let theirs = reference.unwrap_or(n);
            tally.expect(n == theirs || n < MIN_SAMPLES, || {
                format!("{name}: {n} runs against {theirs} of the reference: not taken in turns")
            });
        }
    }
    tally.outcome("no latencies")
}

/// 20: raw runs of two variants are not equal, nor in one constant ratio.
pub(crate) fn forensics(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (_, records) in compared(case) {
        let raw: Vec<(&str, &Vec<f64>)> = records
            .iter()
            .filter_map(|r| Some((r.model.as_str(), r.detail.samples.get("latency")?)))
            .filter(|(_, s)| s.len() >= MIN_SAMPLES)
            .collect();
        for (i, (name, mine)) in raw.iter().enumerate() {
            let spread = mine.iter().any(|s| *s != mine[0]);
            tally.expect(spread, || format!("{name}: all {} runs took exactly {} s", mine.len(), mine[0]));
            for (other, theirs) in &raw[i + 1..] {
                let pairs: Vec<(f64, f64)> = mine.iter().copied().zip(theirs.iter().copied()).collect();
                let constant = laws::constant_ratio(&pairs, 1e-6).filter(|_| mine.len() == theirs.len());
                tally.expect(constant.is_none() || !spread, || {
                    let ratio = constant.unwrap_or_default();
                    format!("{name}: every run is {ratio:.4} times that of {other}: computed, not measured")
                });
            }
        }
    }
    tally.outcome("no raw runs")
}

/// 22: energies are all measured or all estimated, and energy over latency is a possible power.
pub(crate) fn energy(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for c in case.tasks {
        let with = || c.rows.iter().filter_map(|r| Some((r, r.record.measures.get("energy_joules")?)));
        let kind = with().next().map(|(_, m)| m.how);
        for (row, m) in with() {
            tally.expect(Some(m.how) == kind, || {
                let how = super::super::query::mark(m.how).unwrap_or("measured");
                format!("{}: energy of another kind than in the other rows ({how})", row.name())
            });
            if let Some(seconds) = row.value("latency_p50").filter(|s| *s > 0.0) {
                let watts = m.value / seconds;
                tally.expect(laws::WATTS.contains(&watts), || {
                    format!("{}: {} J in {seconds} s would be {watts:.3} W", row.name(), m.value)
                });
            }
        }
    }
    tally.outcome("no energies")
}

/// 25: a throughput that is exactly a batch size over the latency was not timed.
pub(crate) fn throughput(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for (record, name, m) in case.measures().filter(|(_, name, _)| name.starts_with("throughput")) {
        let Some(latency) = record.measures.get("latency_p50").map(|l| l.value) else {
            continue;
        };
        let batch = name.strip_prefix("throughput/").and_then(|n| n.parse::<f64>().ok()).unwrap_or(1.0);
        let derived = [1.0, batch].iter().any(|examples| laws::is_inverse(m.value, latency, *examples, 1e-9));
        tally.expect(!derived, || {
            format!("{}: {name} {} is computed from latency_p50 {latency}", record.model, m.value)
        });
    }
    tally.outcome("no throughputs")
}

/// 33: a cost counts energy, for every record of its task or for none.
pub(crate) fn costs(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for c in case.tasks {
        let cost = |r: &Record| r.measures.keys().find(|name| name.starts_with("cost")).cloned();
        let rows: Vec<(&Record, Option<String>)> =
            c.rows.iter().filter(|r| r.network()).map(|r| (r.record, cost(r.record))).collect();
        for (record, name) in rows.iter().filter(|_| rows.iter().any(|(_, name)| name.is_some())) {
            let Some(name) = name else {
                tally.expect(false, || format!("{}: no cost, others of its task have one", record.model));
                continue;
            };
            tally.expect(record.measures.contains_key("energy_joules"), || {
                format!("{}: {name} without an energy: what it costs to run is not counted", record.model)
            });
        }
    }
    tally.outcome("no costs")
}

/// 42: a prompt is not read exactly as fast as text is written.
pub(crate) fn prefill(case: &Case) -> Outcome {
    let mut tally = Tally::default();
    for record in &case.results.records {
        let value = |name: &str| record.measures.get(name).map(|m| m.value);
        let (Some(prefill), Some(decode)) = (value("prefill_tokens_per_second"), value("decode_tokens_per_second"))
        else {
            continue;
        };
        tally.expect(prefill != decode, || format!("{}: prefill and decode are both {decode} tokens/s", record.model));
    }
    tally.outcome("no rates of prompts")
}
