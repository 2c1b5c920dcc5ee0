//! Speed and memory of published shapes with random weights, each recipe in fresh processes that take turns.

use crate::error::Error;
use crate::stats;
use lowbit_base::memory::bytes;
use lowbit_base::{Kind, Stop};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::process::{Command, Stdio};

/// Times that each shape and recipe gets its turn.
const ROUNDS: usize = 2;
/// Tokens of a sequence.
pub const TOKENS: usize = 128;
/// Sequences that take a pass together.
pub const TOGETHER: usize = 8;
/// What the figures do not say.
pub const MEANING: &str =
    "random weights: the shapes are those of the published networks; speed and memory, and nothing about quality";

/// A shape of [`lowbit_model::synthetic::SHAPES`] with the recipes it is measured under.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeRecipes {
    /// The shape.
    pub name: String,
    /// The recipes.
    pub recipes: Vec<String>,
}

/// A shape under a recipe; medians over the processes.
#[derive(Clone, Debug, Serialize)]
pub struct ShapeSpeed {
    /// The shape.
    pub shape: String,
    /// The recipe.
    pub recipe: String,
    /// Number of parameters.
    pub params: u64,
    /// Bytes of all parameters.
    pub weight_bytes: f64,
    /// Seconds of a sequence of [`TOKENS`], of each process.
    pub seconds: Vec<f64>,
    /// Sequences per second, [`TOGETHER`] in a pass, of each process; nothing of language models.
    pub sequences_per_second: Vec<f64>,
    /// Largest resident memory after the first passes, of each process.
    pub peak_rss_bytes: Vec<f64>,
}

/// Measures shapes in alternating order; `bench` starts a process that prints what `lowbit bench --json` does of a shape and a recipe.
///
/// # Errors
/// When a process fails, with what it said.
pub fn run(
    shapes: &[ShapeRecipes],
    bench: &dyn Fn(&str, &str) -> std::io::Result<Command>,
    stop: &Stop,
    mut progress: impl FnMut(&str),
) -> Result<Vec<ShapeSpeed>, Error> {
    let cases = shapes.iter().flat_map(|shape| shape.recipes.iter().map(|recipe| (shape.name.clone(), recipe.clone())));
    let new = |(shape, recipe)| ShapeSpeed {
        shape,
        recipe,
        params: 0,
        weight_bytes: 0.0,
        seconds: Vec::new(),
        sequences_per_second: Vec::new(),
        peak_rss_bytes: Vec::new(),
    };
    let mut all: Vec<ShapeSpeed> = cases.map(new).collect();
    for round in 0..ROUNDS {
        let mut order: Vec<&mut ShapeSpeed> = all.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for case in order {
            stop.check()?;
            progress(&format!("[{}/{ROUNDS}] {} {}", round + 1, case.shape, case.recipe));
            let failed = |text: String| Error::new(Kind::Internal, format!("{} {}: {text}", case.shape, case.recipe));
            let command =
                bench(&case.shape, &case.recipe).map(|mut c| c.stdout(Stdio::piped()).stderr(Stdio::piped()).output());
            let output = command.flatten().map_err(|e| failed(e.to_string()))?;
            stop.check()?;
            let said = || String::from_utf8_lossy(&output.stderr).trim().to_string();
            let result: Value = serde_json::from_slice(&output.stdout).map_err(|_| failed(said()))?;
            case.take(&result);
        }
    }
    Ok(all)
}

impl ShapeSpeed {
    /// Adds what a process measured.
    fn take(&mut self, result: &Value) {
        let record = |test: &str| result["records"].as_array()?.iter().find(|record| record["task"] == *test);
        let value = |record: &Value, name: &str| record["measures"][name]["value"].as_f64();
        let rate = |record: &Value| value(record, "prefill_tokens_per_second");
        if let Some(one) = record(&format!("pp{TOKENS}")) {
            self.params = one["params"].as_u64().unwrap_or(0);
            self.weight_bytes = value(one, "weight_bytes").unwrap_or(0.0);
            self.seconds.extend(rate(one).map(|rate| TOKENS as f64 / rate));
            self.peak_rss_bytes.extend(value(one, "peak_rss_bytes"));
        }
        let together = record(&format!("pp{TOKENS}x{TOGETHER}"));
        self.sequences_per_second.extend(together.and_then(rate).map(|rate| rate / TOKENS as f64));
    }
}

/// A Markdown table.
pub fn lines(speeds: &[ShapeSpeed]) -> Vec<String> {
    let mut lines = vec![
        format!(
            "| shape | recipe | parameters | weights | {TOKENS} tokens, ms | sequences/s, {TOGETHER} in a pass | peak memory |"
        ),
        "|---|---|--:|--:|--:|--:|--:|".into(),
    ];
    let range = |values: &[f64], scale: f64| match stats::median(values) {
        Some(middle) => {
            let (low, high) = values.iter().fold((f64::INFINITY, 0f64), |(lo, hi), v| (lo.min(*v), hi.max(*v)));
            format!("{:.1} ({:.1} to {:.1})", middle * scale, low * scale, high * scale)
        }
        None => "-".into(),
    };
    lines.extend(speeds.iter().map(|s| {
        let memory = stats::median(&s.peak_rss_bytes).map_or("-".into(), |v| bytes(v as u64));
        format!(
            "| {} | {} | {:.1} M | {} | {} | {} | {memory} |",
            s.shape,
            s.recipe,
            s.params as f64 / 1e6,
            bytes(s.weight_bytes as u64),
            range(&s.seconds, 1e3),
            range(&s.sequences_per_second, 1.0),
        )
    }));
    lines.push(String::new());
    lines.push(MEANING.into());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_processes_measured_is_put_together() {
        let record = |task: &str, rate: f64| {
            let measure = |value: f64| json!({"value": value});
            let measures = json!({"prefill_tokens_per_second": measure(rate), "weight_bytes": measure(2e6), "peak_rss_bytes": measure(5e6)});
            json!({"task": task, "params": 4_000_000, "measures": measures})
        };
        let shapes = [ShapeRecipes { name: "small".into(), recipes: vec!["f32".into(), "nf4".into()] }];
        let rate = |recipe: &str| if recipe == "f32" { 1280.0 } else { 12_800.0 };
        let bench = |_: &str, recipe: &str| {
            let records =
                [record("pp128", rate(recipe)), record("pp128x8", 2.0 * rate(recipe)), json!({"task": "ttft32"})];
            let mut command = Command::new("printf");
            command.args(["%s", &json!({"records": records}).to_string()]);
            Ok(command)
        };
        let mut order = Vec::new();
        let speeds = run(&shapes, &bench, &Stop::default(), |text| order.push(text.to_string())).unwrap();
        assert_eq!(order, ["[1/2] small f32", "[1/2] small nf4", "[2/2] small nf4", "[2/2] small f32"]);
        assert_eq!((speeds[0].seconds.clone(), speeds[1].seconds.clone()), (vec![0.1, 0.1], vec![0.01, 0.01]));
        assert_eq!(speeds[1].sequences_per_second, [200.0, 200.0]);
        let table = lines(&speeds);
        assert!(table[2].contains("| small | f32 | 4.0 M | 2.00 MB | 100.0 (100.0 to 100.0) | 20.0 "), "{}", table[2]);
        let failing = |_: &str, _: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo no memory >&2; exit 4"]);
            Ok(command)
        };
        let refused = run(&shapes, &failing, &Stop::default(), |_| {}).unwrap_err().to_string();
        assert!(refused.contains("small f32") && refused.contains("no memory"), "{refused}");
    }
}
