//! What was measured of a server, as vLLM's bench prints it, and as records.

use super::{Run, Served, summary};
use crate::record::{Detail, Measure, Record};
use crate::stats;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Width of a block.
const WIDTH: usize = 50;
/// Column of the values.
const VALUES: usize = 40;

/// A time: its name in tables and records, its title, and its samples.
struct Time {
    short: &'static str,
    name: &'static str,
    title: &'static str,
    seconds: Vec<f64>,
}

fn times(run: &Run) -> [Time; 4] {
    let latency = run.times(|sample| Some(sample.latency));
    let time = |short, name, title, seconds| Time { short, name, title, seconds };
    [
        time("TTFT", "ttft", "Time to First Token", run.ttft()),
        time("TPOT", "tpot", "Time per Output Token (excl. 1st token)", run.tpot()),
        time("ITL", "itl", "Inter-token Latency", run.gaps()),
        time("E2EL", "e2el", "End-to-end Latency", latency),
    ]
}

fn row(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name:<VALUES$} {value:<9}").trim_end().to_owned()
}

fn head(title: &str, fill: char) -> String {
    match fill {
        '=' => format!("{title:=^WIDTH$}"),
        _ => format!("{title:-^WIDTH$}"),
    }
}

/// A rate in words; `all` where all requests come at once.
pub(super) fn rate(rate: f64) -> String {
    if rate.is_finite() { format!("{rate:.2}") } else { "all".into() }
}

impl Served {
    /// A block per run, and a line per run where there are several.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.runs.iter().flat_map(|run| self.block(run)).collect();
        if self.runs.len() > 1 {
            lines.extend(self.sweep());
        }
        lines.extend(self.notices.iter().map(|notice| format!("Note: {notice}.")));
        lines
    }

    fn block(&self, run: &Run) -> Vec<String> {
        let (prompts, tokens) = counted(run);
        let mut lines = vec![head(" Serving Benchmark Result ", '=')];
        lines.push(row("Successful requests:", run.samples.len()));
        lines.push(row("Failed requests:", run.failures.len()));
        lines.extend(self.plan.parallel.map(|parallel| row("Maximum request concurrency:", parallel)));
        lines.push(row("Request rate configured (RPS):", rate(run.rate)));
        let mut figure = |name: &str, value: f64| lines.push(row(name, format!("{value:.2}")));
        figure("Benchmark duration (s):", run.seconds);
        lines.push(row("Total input tokens:", prompts));
        lines.push(row("Total generated tokens:", tokens));
        let mut figure = |name: &str, value: f64| lines.push(row(name, format!("{value:.2}")));
        figure("Request throughput (req/s):", run.per_second(run.samples.len()));
        if let Some(goodput) = self.goodput(run) {
            figure("Request goodput (req/s):", goodput);
        }
        figure("Output token throughput (tok/s):", run.per_second(tokens));
        figure("Total token throughput (tok/s):", run.per_second(prompts + tokens));
        for Time { short, title, seconds, .. } in times(run) {
            lines.push(head(title, '-'));
            let Some([mean, p50, p90, p99]) = summary(&seconds) else { continue };
            for (name, value) in [("Mean", mean), ("Median", p50), ("P90", p90), ("P99", p99)] {
                lines.push(row(&format!("{name} {short} (ms):"), format!("{value:.2}")));
            }
        }
        lines.push("=".repeat(WIDTH));
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        run.failures.iter().for_each(|why| *reasons.entry(why).or_default() += 1);
        lines.extend(reasons.into_iter().map(|(why, n)| format!("{n} failed: {why}")));
        lines
    }

    /// Answered requests per second that kept the objective, where there is one.
    fn goodput(&self, run: &Run) -> Option<f64> {
        (self.plan.objective != super::Objective::default()).then(|| run.per_second(run.good))
    }

    fn sweep(&self) -> Vec<String> {
        let mut lines = vec![
            "| rate /s | req/s | goodput /s | tok/s | TTFT p50 ms | p99 | TPOT p50 ms | p99 | ITL p50 ms | p99 | failed |".to_owned(),
            "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|".to_owned(),
        ];
        for run in &self.runs {
            let pair = |seconds: &[f64]| {
                summary(seconds).map_or("- | -".into(), |[_, p50, _, p99]| format!("{p50:.1} | {p99:.1}"))
            };
            let goodput = self.goodput(run).map_or("-".into(), |value| format!("{value:.2}"));
            let [ttft, tpot, itl, _] = times(run).map(|time| pair(&time.seconds));
            let (requests, tokens) = (run.per_second(run.samples.len()), run.per_second(counted(run).1));
            let (rate, failed) = (rate(run.rate), run.failures.len());
            lines.push(format!(
                "| {rate} | {requests:.2} | {goodput} | {tokens:.1} | {ttft} | {tpot} | {itl} | {failed} |"
            ));
        }
        lines
    }

    /// The record of each run.
    pub fn records(&self) -> Vec<Record> {
        self.runs.iter().map(|run| self.record(run)).collect()
    }

    fn record(&self, run: &Run) -> Record {
        let (prompts, tokens) = counted(run);
        let (n, mut measures) = (run.samples.len() as u64, BTreeMap::new());
        let mut rates = vec![
            ("request_throughput", run.per_second(run.samples.len())),
            ("decode_tokens_per_second", run.per_second(tokens)),
            ("total_tokens_per_second", run.per_second(prompts + tokens)),
        ];
        rates.extend(self.goodput(run).map(|goodput| ("goodput", goodput)));
        for (name, value) in rates {
            measures.insert(name.to_owned(), Measure::measured(value, "per_second", n));
        }
        let failed = Measure::measured(run.failures.len() as f64, "count", n + run.failures.len() as u64);
        measures.insert("failed_requests".into(), failed);
        let mut samples = BTreeMap::new();
        for Time { name, seconds, .. } in times(run) {
            for (q, percentile) in [("", 50.0), ("_p90", 90.0), ("_p99", 99.0)] {
                let Some(value) = stats::percentile(&seconds, percentile) else { continue };
                let measure = Measure::measured(value, "seconds", seconds.len() as u64);
                let interval = stats::percentile_interval(&seconds, percentile);
                let measure = interval.map_or(measure.clone(), |(lo, hi)| measure.between(lo, hi));
                measures.insert(format!("{name}{q}_seconds"), measure);
            }
            samples.insert(format!("{name}_seconds"), seconds);
        }
        Record {
            task: format!("serve/{}", rate(run.rate)),
            model: self.model.clone(),
            recipe: String::new(),
            params: 0,
            measures,
            detail: Detail { samples, notices: self.notices.clone(), seed: Some(self.plan.seed), ..Detail::default() },
        }
    }

    /// What was asked, for the object of `--json`.
    pub fn asked(&self) -> Value {
        let plan = &self.plan;
        let rates: Vec<Value> =
            plan.rates.iter().map(|rate| json!(Some(*rate).filter(|rate| rate.is_finite()))).collect();
        json!({
            "url": self.url, "rates": rates, "requests": plan.requests, "prompt_tokens": plan.prompt_tokens,
            "max_tokens": plan.max_tokens, "parallel": plan.parallel, "seed": plan.seed,
            "objective_ms": {"ttft": plan.objective.ttft, "tpot": plan.objective.tpot, "e2el": plan.objective.e2el},
        })
    }
}

/// Tokens of the prompts and of the answers.
fn counted(run: &Run) -> (usize, usize) {
    run.samples.iter().fold((0, 0), |(prompts, tokens), s| (prompts + s.prompt_tokens, tokens + s.tokens))
}

#[cfg(test)]
mod tests {
    use super::super::{Objective, Plan, Sample};
    use super::*;

    fn served(runs: usize) -> Served {
        let sample = |i: usize| Sample {
            ttft: 0.1 * (i + 1) as f64,
            gaps: vec![0.02; 4],
            latency: 0.1 * (i + 1) as f64 + 0.08,
            prompt_tokens: 32,
            tokens: 5,
        };
        let run = |rate| Run {
            rate,
            seconds: 2.0,
            samples: (0..4).map(sample).collect(),
            failures: vec!["status 429: busy".into(), "status 429: busy".into()],
            good: 2,
        };
        let plan = Plan {
            rates: vec![1.0, f64::INFINITY],
            requests: 6,
            prompt_tokens: 32,
            max_tokens: 5,
            parallel: Some(3),
            seed: 1,
            objective: Objective { ttft: Some(200.0), ..Objective::default() },
        };
        let (url, model) = ("http://x:1".into(), "m".into());
        Served { url, model, plan, runs: [run(1.0), run(f64::INFINITY)][..runs].to_vec(), notices: Vec::new() }
    }

    #[test]
    fn tables_are_those_of_vllm() {
        let lines = served(1).lines();
        let expected = "\
============ Serving Benchmark Result ============
Successful requests:                     4
Failed requests:                         2
Maximum request concurrency:             3
Request rate configured (RPS):           1.00
Benchmark duration (s):                  2.00
Total input tokens:                      128
Total generated tokens:                  20
Request throughput (req/s):              2.00
Request goodput (req/s):                 1.00
Output token throughput (tok/s):         10.00
Total token throughput (tok/s):          74.00
---------------Time to First Token----------------
Mean TTFT (ms):                          250.00
Median TTFT (ms):                        250.00
P90 TTFT (ms):                           370.00
P99 TTFT (ms):                           397.00
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          20.00
Median TPOT (ms):                        20.00
P90 TPOT (ms):                           20.00
P99 TPOT (ms):                           20.00
---------------Inter-token Latency----------------
Mean ITL (ms):                           20.00";
        assert_eq!(lines[..24].join("\n"), expected);
        assert_eq!(lines.last().expect("lines"), "2 failed: status 429: busy");
        let both = served(2).lines();
        assert_eq!(
            both.last().expect("lines"),
            "| all | 2.00 | 1.00 | 10.0 | 250.0 | 397.0 | 20.0 | 20.0 | 20.0 | 20.0 | 2 |"
        );
    }

    #[test]
    fn records_hold_every_figure_with_its_samples() {
        let [record, all] = &served(2).records()[..] else { panic!("two") };
        assert_eq!((record.task.as_str(), all.task.as_str()), ("serve/1.00", "serve/all"));
        let value = |name: &str| record.measures[name].value;
        assert_eq!((value("goodput"), value("decode_tokens_per_second"), value("failed_requests")), (1.0, 10.0, 2.0));
        assert!((value("ttft_seconds") - 0.25).abs() < 1e-12 && (value("ttft_p99_seconds") - 0.397).abs() < 1e-12);
        assert_eq!(record.detail.samples["itl_seconds"].len(), 16);
        // All figures are known to reports.
        for (name, measure) in &record.measures {
            let known = crate::report::measures::MEASURES.iter().find(|known| known.name == name);
            assert!(known.is_some_and(|known| known.units.contains(&measure.unit.as_str())), "{name}");
        }
        let asked = served(2).asked();
        assert_eq!((&asked["rates"], &asked["objective_ms"]["ttft"]), (&json!([1.0, null]), &json!(200.0)));
    }
}
