//! What the server counts, and its text for Prometheus (exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of times from a request to an answer, seconds.
const LONG: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Upper bounds of times between tokens, seconds.
const SHORT: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// How often a time fell below each of some bounds.
struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above all.
    counts: Vec<AtomicU64>,
    microseconds: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, microseconds: AtomicU64::new(0) }
    }

    fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let (comma, mut sum) = (if labels.is_empty() { "" } else { "," }, 0);
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_string()]);
        for (bound, count) in bounds.zip(&self.counts) {
            sum += count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {sum}");
        }
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}_sum{braces} {seconds}\n{name}_count{braces} {sum}");
    }
}

/// A request as it is counted: method, route, status.
type Counted = (String, String, u16);

/// Why sequences end.
pub(crate) const REASONS: [&str; 4] = ["stop", "length", "cancelled", "error"];

/// All counters.
pub(crate) struct Metrics {
    /// The model's name, a label of requests.
    model: String,
    /// Answers at a time.
    capacity: u64,
    requests: Mutex<BTreeMap<Counted, u64>>,
    durations: Histogram,
    pub in_flight: AtomicU64,
    first_token: Histogram,
    inter_token: Histogram,
    pub prompt_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub generated_tokens: AtomicU64,
    pub running: AtomicU64,
    pub waiting: AtomicU64,
    pub cache_bytes: AtomicU64,
    completed: [AtomicU64; 4],
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(model: &str, capacity: usize) -> Self {
        Metrics {
            model: model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"),
            capacity: capacity as u64,
            requests: Mutex::default(),
            durations: Histogram::new(LONG),
            in_flight: AtomicU64::new(0),
            first_token: Histogram::new(LONG),
            inter_token: Histogram::new(SHORT),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            running: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            cache_bytes: AtomicU64::new(0),
            completed: Default::default(),
        }
    }

    /// Counts a request that was answered.
    pub fn request(&self, method: &str, route: &str, status: u16, time: Duration) {
        const METHODS: [&str; 5] = ["GET", "POST", "OPTIONS", "HEAD", "DELETE"];
        let method = if METHODS.contains(&method) { method } else { "OTHER" };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method.into(), route.into(), status)).or_default() += 1;
        self.durations.add(time);
    }

    /// Counts a token that came this long after the request, if it is the first, else after the token before.
    pub fn token(&self, is_first: bool, time: Duration) {
        (if is_first { &self.first_token } else { &self.inter_token }).add(time);
        self.generated_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a sequence that ended, by one of [`REASONS`].
    pub fn completed(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.completed[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        let count = |value: &AtomicU64| value.load(Ordering::Relaxed);
        head(&mut out, "http_requests_total", "counter", "Requests answered.");
        let model = &self.model;
        for ((method, path, status), n) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = format!("method=\"{method}\",path=\"{path}\",model=\"{model}\",status=\"{status}\"");
            let _ = writeln!(out, "http_requests_total{{{labels}}} {n}");
        }
        for (name, help, times) in [
            ("http_request_duration_seconds", "Time from a request to the end of its answer.", &self.durations),
            ("lowbit_time_to_first_token_seconds", "Time from a request to the first token.", &self.first_token),
            ("lowbit_inter_token_latency_seconds", "Time between two tokens of an answer.", &self.inter_token),
        ] {
            head(&mut out, name, "histogram", help);
            times.write(&mut out, name, "");
        }
        head(&mut out, "lowbit_tokens_processed_total", "counter", "Tokens of prompts and of answers.");
        for (kind, n) in [("prompt", &self.prompt_tokens), ("generated", &self.generated_tokens)] {
            let _ = writeln!(out, "lowbit_tokens_processed_total{{kind=\"{kind}\"}} {}", count(n));
        }
        let cached = "lowbit_prompt_tokens_cached_total";
        head(&mut out, cached, "counter", "Tokens of prompts whose keys and values were kept.");
        let _ = writeln!(out, "{cached} {}", count(&self.cached_tokens));
        for (name, help, n) in [
            ("http_requests_in_flight", "Requests under way.", count(&self.in_flight)),
            ("lowbit_sequences_running", "Answers under way.", count(&self.running)),
            ("lowbit_sequences_waiting", "Answers that wait for their turn.", count(&self.waiting)),
            ("lowbit_sequences_capacity", "Answers under way at most.", self.capacity),
            ("lowbit_kv_cache_bytes", "Memory taken for keys and values.", count(&self.cache_bytes)),
        ] {
            head(&mut out, name, "gauge", help);
            let _ = writeln!(out, "{name} {n}");
        }
        head(&mut out, "lowbit_sequences_completed_total", "counter", "Answers that ended, by why.");
        for (reason, n) in REASONS.iter().zip(&self.completed) {
            let _ = writeln!(out, "lowbit_sequences_completed_total{{reason=\"{reason}\"}} {}", count(n));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::new("a \"name\"", 4);
        metrics.request("POST", "/v1/completions", 200, Duration::from_millis(30));
        metrics.request("BREW", "other", 405, Duration::from_secs(500));
        metrics.token(true, Duration::from_millis(10));
        metrics.token(false, Duration::from_millis(2));
        metrics.completed("length");
        let text = metrics.text();
        for line in [
            "http_requests_total{method=\"POST\",path=\"/v1/completions\",model=\"a \\\"name\\\"\",status=\"200\"} 1",
            "http_requests_total{method=\"OTHER\",path=\"other\",model=\"a \\\"name\\\"\",status=\"405\"} 1",
            "http_request_duration_seconds_bucket{le=\"0.025\"} 0",
            "http_request_duration_seconds_bucket{le=\"0.05\"} 1",
            "http_request_duration_seconds_bucket{le=\"120\"} 1",
            "http_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "http_request_duration_seconds_sum 500.03",
            "lowbit_time_to_first_token_seconds_bucket{le=\"0.01\"} 1",
            "lowbit_inter_token_latency_seconds_count 1",
            "lowbit_tokens_processed_total{kind=\"generated\"} 2",
            "lowbit_sequences_completed_total{reason=\"length\"} 1",
            "lowbit_sequences_capacity 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.starts_with("# ") || line.split(' ').count() >= 2));
    }
}
