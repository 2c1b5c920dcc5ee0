//! The results of a model's bench for people and programs.

use super::{BenchModel, BenchRow, Speeds};
use crate::bench::host::{self, limits_of};
use crate::record::{Host, Measure};
use lowbit_base::memory::bytes;
use lowbit_base::text::duration;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A Markdown table, and what else there is to say.
    Markdown,
    /// Comma-separated values.
    Csv,
    /// One object, as `--json` prints everywhere.
    Json,
    /// One object per row.
    JsonLines,
}

/// Every form with its name.
pub static FORMS: &[(&str, Form)] =
    &[("md", Form::Markdown), ("csv", Form::Csv), ("json", Form::Json), ("jsonl", Form::JsonLines)];

impl Speeds {
    /// The lines of the results in a form; none for [`Form::Json`], whose object the caller puts together.
    pub fn lines(&self, form: Form, model: &BenchModel, cache: CacheKind, cpus: &[Cpu]) -> Vec<String> {
        match form {
            Form::Markdown => self.markdown(model, cache, cpus),
            Form::Csv => self.csv(),
            Form::Json => Vec::new(),
            Form::JsonLines => self.rows.iter().map(|row| self.line(row).to_string()).collect(),
        }
    }

    fn markdown(&self, model: &BenchModel, cache: CacheKind, cpus: &[Cpu]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |text: String| lines.push(text);
        line("| model | size | params | recipe | isa | threads | test | t/s | seconds | MB/token | % of limit | J/token |".into());
        line("|---|--:|--:|---|---|--:|---|--:|--:|--:|--:|--:|".into());
        for r in &self.rows {
            let sd = r.tokens_per_second_sd.map_or(String::new(), |sd| format!(" ± {sd:.2}"));
            let joules = r.joules_per_token.map_or("-".into(), |j| format!("{j:.3}"));
            let (mb, percent) = (r.bytes_per_token / 1e6, host::of_limit(r.limit, r.fraction_of_limit));
            line(format!(
                "| {} | {} | {} | {} | {} | {} | {} | {:.2}{sd} | {:.4} | {mb:.2} | {percent} {} | {joules} |",
                r.model.replace('|', "/"),
                bytes(r.model_bytes),
                count(r.params),
                r.recipe,
                r.isa,
                r.threads,
                r.test,
                r.tokens_per_second,
                r.seconds_p50,
                r.limit,
            ));
        }
        let rounds = self.rows.first().map_or(0, |r| r.n);
        line(format!("\n{}; {rounds} rounds in alternating order", host::facts(&cpus[0]).cpu));
        for (threads, l) in &self.limits {
            let (memory, float, int) = (l.memory_gbps, l.f32_gflops, l.int8_gops);
            line(format!(
                "limits with {threads} threads: memory {memory:.1} GB/s read, f32 {float:.0} GFLOP/s, int8 {int:.0} GOP/s"
            ));
        }
        if self.rows.iter().any(|r| host::is_cached(r.limit, r.fraction_of_limit)) {
            line(host::CACHED_MEANS.into());
        }
        let rss = self.peak_rss_bytes.map_or("unknown".into(), bytes);
        let (load, cache) = (duration(model.load_seconds), cache.name());
        line(format!("loaded in {load}; peak memory {rss}; keys and values in {cache}"));
        if self.rows.iter().all(|r| r.joules_per_token.is_none()) {
            line("energy: unavailable (no readable counter)".into());
        }
        line(match model.features {
            0 => "tokenization and sampling are not part of the times; ttft is the time to the logits after the prompt",
            _ => "rows of numbers or images in a pass: t/s are rows per second, MB/token those read per row",
        }
        .into());
        lines
    }

    fn csv(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |text: String| lines.push(text);
        line(
            "model,model_bytes,params,recipe,isa,threads,test,n,tokens_per_second,tokens_per_second_sd,seconds_p50,\
             bytes_per_token,limit,fraction_of_limit,joules_per_token,peak_rss_bytes"
                .into(),
        );
        let optional = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        for r in &self.rows {
            let fields = [
                format!("\"{}\"", r.model.replace('"', "\"\"")),
                r.model_bytes.to_string(),
                r.params.to_string(),
                r.recipe.into(),
                r.isa.into(),
                r.threads.to_string(),
                r.test.clone(),
                r.n.to_string(),
                r.tokens_per_second.to_string(),
                optional(r.tokens_per_second_sd),
                r.seconds_p50.to_string(),
                r.bytes_per_token.to_string(),
                r.limit.into(),
                r.fraction_of_limit.to_string(),
                optional(r.joules_per_token),
                self.peak_rss_bytes.map_or(String::new(), |v| v.to_string()),
            ];
            line(fields.join(","));
        }
        lines
    }

    fn line(&self, row: &BenchRow) -> Value {
        let mut value = json!(row);
        let limits = self.limits.iter().find(|(threads, _)| *threads == row.threads);
        if let (Some(map), Some((_, l))) = (value.as_object_mut(), limits) {
            map.insert("limits".into(), json!(limits_of(l)));
            if let Some(bytes) = self.peak_rss_bytes {
                map.insert("peak_rss_bytes".into(), json!(bytes));
            }
        }
        value
    }

    /// The last machine with its limits, and the records of the contract.
    pub fn records(&self, model: &BenchModel, cpus: &[Cpu]) -> (Host, Vec<Value>) {
        let (_, limits) = self.limits.last().expect("at least one number of threads");
        let host = Host { limits: limits_of(limits), ..host::facts(cpus.last().expect("as many as limits")) };
        (host, self.rows.iter().map(|row| self.record(model, row)).collect())
    }

    /// A record of the contract, with the threads and limits it was made with.
    fn record(&self, model: &BenchModel, row: &BenchRow) -> Value {
        let mut measures = BTreeMap::new();
        let n = row.n as u64;
        let range = |samples: &[f64]| {
            samples.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(*v), hi.max(*v)))
        };
        let (lo, hi) = range(&row.samples);
        let name = match row.test.as_bytes() {
            [b't', b't', ..] => None,
            _ if row.test.contains('+') || row.test.starts_with("rows") => Some("throughput"),
            [b'p', ..] => Some("prefill_tokens_per_second"),
            _ => Some("decode_tokens_per_second"),
        };
        match name {
            Some(name) => {
                let rate = Measure::measured(row.tokens_per_second, "per_second", n).between(lo, hi);
                measures.insert(name, rate);
            }
            None => {
                let first = super::FIRST as f64;
                let seconds = Measure::measured(row.seconds_p50, "seconds", n).between(first / hi, first / lo);
                measures.insert("ttft_seconds", seconds);
            }
        }
        let mut keep = |name, value: Option<f64>, unit, n| {
            measures.extend(value.map(|value| (name, Measure::measured(value, unit, n))));
        };
        keep("bytes_per_token", Some(row.bytes_per_token), "bytes", 1);
        keep("fraction_of_limit", Some(row.fraction_of_limit), "fraction", n);
        keep("energy_joules", row.joules_per_token, "joules", n);
        keep("weight_bytes", Some(row.model_bytes as f64), "bytes", 1);
        keep("load_seconds", Some(model.load_seconds), "seconds", 1);
        keep("peak_rss_bytes", self.peak_rss_bytes.map(|v| v as f64), "bytes", 1);
        let limits = self.limits.iter().find(|(threads, _)| *threads == row.threads).map(|(_, l)| limits_of(l));
        json!({
            "task": row.test, "model": row.model, "recipe": row.recipe, "params": row.params, "isa": row.isa,
            "threads": row.threads, "limit": row.limit, "limits": limits, "measures": measures,
            "detail": {"samples": {"tokens_per_second": row.samples}},
        })
    }
}

/// A number of parameters in three digits.
fn count(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.2} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}
