//! What a model is made of: tensors, formats, bytes, operations, in words and as JSON.

use crate::Error;
use crate::report::is_low_bit;
use lowbit_base::memory::bytes;
use lowbit_model::Checkpoint;
use lowbit_model::checkpoint::{LedgerRow, ledger};
use lowbit_model::exec::Batch;
use lowbit_model::recipe::{RECIPES, Recipe};
use lowbit_model::source::Role;
use serde_json::{Map, Value, json};

/// Tokens of the pass whose operations are counted, at most.
const TOKENS: usize = 128;

/// What was found in a model.
pub struct Inspection {
    rows: Vec<LedgerRow>,
    /// Whether the file holds checksums, which the weights then have.
    verified: bool,
    /// Tokens of a pass, and its operations.
    tokens: usize,
    flops: u64,
    /// How often each value of a ternary weight is there: -1, 0 and 1; none without ternary weights.
    ternary: Option<[u64; 3]>,
    /// Bytes of the parameters under each recipe, where that was asked for.
    sizes: Vec<(&'static Recipe, u64)>,
}

impl Inspection {
    /// Reads all weights; `recipes` asks for the size under every recipe.
    ///
    /// # Errors
    /// When the data of a tensor are corrupt.
    pub fn of(checkpoint: &Checkpoint, recipes: bool) -> Result<Self, Error> {
        let verified = checkpoint.verify()?;
        let rows = ledger(checkpoint)?;
        let parameters = checkpoint.parameters();
        let tokens = checkpoint.model_config().max_length.clamp(1, TOKENS);
        let flops = parameters.flops(&Batch::new([vec![0; tokens].as_slice()]));
        let sizes = RECIPES.iter().filter(|_| recipes).map(|recipe| Ok((recipe, parameters.bytes(recipe)?)));
        let sizes = sizes.collect::<Result<_, Error>>()?;
        let ternary = ternary(checkpoint, &rows)?;
        Ok(Inspection { rows, verified, tokens, flops, ternary, sizes })
    }

    /// Bytes of all parameters.
    fn bytes(&self) -> u64 {
        self.rows.iter().map(LedgerRow::bytes).sum()
    }

    /// Bytes and weights of the tensors that are stored in fewer than 16 bits.
    fn quantized(&self) -> (u64, u64) {
        let low = self.rows.iter().filter(|row| is_low_bit(&row.format));
        low.fold((0, 0), |(bytes, weights), row| (bytes + row.bytes(), weights + row.rows as u64 * row.cols as u64))
    }

    /// The object of `--json`, but what every object has.
    pub fn json(&self, checkpoint: &Checkpoint) -> Value {
        let model_config = checkpoint.model_config();
        let recipes: Map<String, Value> =
            self.sizes.iter().map(|(r, bytes)| (r.name.to_string(), json!(bytes))).collect();
        json!({
            "config": model_config.config, "labels": model_config.labels, "max_length": model_config.max_length,
            "recipe": checkpoint.recipe().name, "params": checkpoint.parameters().count(), "weight_bytes": self.bytes(),
            "quantized": {"weights": self.quantized().1, "bytes": self.quantized().0},
            "flops": {"tokens": self.tokens, "value": self.flops}, "tensors": self.rows, "bytes_by_recipe": recipes,
            "checksums": self.verified,
            "ternary": self.ternary.map(|[minus, zero, plus]| json!({"-1": minus, "0": zero, "1": plus,
                "zero_fraction": share([minus, zero, plus], 1), "entropy_bits": entropy([minus, zero, plus])})),
        })
    }

    /// For a person: a line per role and format, or with `full` per tensor, then the whole.
    pub fn lines(&self, checkpoint: &Checkpoint, full: bool) -> Vec<String> {
        let mut lines = if full { self.each() } else { self.grouped() };
        let (parameters, all) = (checkpoint.parameters().count(), self.bytes());
        let on_disk: u64 = checkpoint.files().iter().map(|f| std::fs::metadata(f).map_or(0, |m| m.len())).sum();
        let bits = |bytes: u64, weights: u64| bytes as f64 * 8.0 / weights.max(1) as f64;
        let (stored, weights) = self.quantized();
        let quantized = match weights {
            0 => "none quantized".into(),
            _ => format!("{:.2} bits per weight in quantized tensors", bits(stored, weights)),
        };
        let bits = bits(all, parameters);
        lines.push(format!(
            "{parameters} parameters, {} ({bits:.2} bits per parameter, {quantized}) under recipe {}, {} on disk, {:.1} MFLOP for {} tokens",
            bytes(all),
            checkpoint.recipe().name,
            bytes(on_disk),
            self.flops as f64 / 1e6,
            self.tokens
        ));
        lines.extend(self.ternary.map(|counts| {
            let [minus, zero, plus] = [0, 1, 2].map(|at| 100.0 * share(counts, at));
            let bits = entropy(counts);
            format!(
                "ternary weights: -1 {minus:.2} %, 0 {zero:.2} %, +1 {plus:.2} %; entropy {bits:.4} bits per weight"
            )
        }));
        lines.push(format!("checksums: {}", if self.verified { "as the weights are" } else { "none in the file" }));
        let size =
            |(recipe, size): &(&Recipe, u64)| format!("  {:16} {:>10}  {}", recipe.name, bytes(*size), recipe.summary);
        lines.extend(self.sizes.iter().map(size));
        lines
    }

    /// A line per tensor.
    fn each(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:50} {:>10} {:>16} {:>13} {:>12} {:>7}",
            "tensor", "role", "format", "shape", "bytes", "zeros"
        )];
        for row in &self.rows {
            lines.push(format!(
                "{:50} {:>10} {:>16} {:>13} {:>12} {:>6.1}%",
                row.name,
                role(row),
                row.format,
                format!("[{}, {}]", row.rows, row.cols),
                row.bytes(),
                row.zero_fraction * 100.0
            ));
        }
        lines
    }

    /// A line per role and format, in the order in which they come.
    fn grouped(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:>10} {:>18} {:>8} {:>14} {:>10} {:>7}",
            "role", "format", "tensors", "parameters", "bytes", "zeros"
        )];
        let mut groups: Vec<(&LedgerRow, Vec<&LedgerRow>)> = Vec::new();
        for row in &self.rows {
            match groups.iter_mut().find(|(first, _)| first.role == row.role && first.format == row.format) {
                Some((_, group)) => group.push(row),
                None => groups.push((row, vec![row])),
            }
        }
        for (first, group) in groups {
            let parameters: usize = group.iter().map(|r| r.rows * r.cols).sum();
            let zeros: f64 = group.iter().map(|r| r.zero_fraction * (r.rows * r.cols) as f64).sum();
            lines.push(format!(
                "{:>10} {:>18} {:>8} {parameters:>14} {:>10} {:>6.1}%",
                role(first),
                first.format,
                group.len(),
                bytes(group.iter().map(|r| r.bytes()).sum()),
                100.0 * zeros / parameters.max(1) as f64
            ));
        }
        lines.push(format!("{} tensors in all; --full lists them", self.rows.len()));
        lines
    }
}

/// Counts the values of all body matrices with at most three.
fn ternary(checkpoint: &Checkpoint, rows: &[LedgerRow]) -> Result<Option<[u64; 3]>, Error> {
    let mut counts = [0; 3];
    for (spec, row) in checkpoint.parameters().params().iter().zip(rows) {
        if spec.role != Role::Body || !is_low_bit(&row.format) || row.levels.is_none_or(|levels| levels > 3) {
            continue;
        }
        for value in checkpoint.packed(spec)?.dequantize() {
            counts[if value < 0.0 { 0 } else { 1 + usize::from(value > 0.0) }] += 1;
        }
    }
    Ok((counts != [0; 3]).then_some(counts))
}

fn share(counts: [u64; 3], at: usize) -> f64 {
    counts[at] as f64 / counts.iter().sum::<u64>().max(1) as f64
}

/// Bits of a value by how often each is there.
fn entropy(counts: [u64; 3]) -> f64 {
    [0, 1, 2]
        .map(|at| share(counts, at))
        .into_iter()
        .filter(|share| *share > 0.0)
        .map(|share| -share * share.log2())
        .sum()
}

fn role(row: &LedgerRow) -> String {
    format!("{:?}", row.role).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entropy_of_counts() {
        for (counts, bits) in [([1, 2, 1], 1.5), ([5, 5, 5], 3f64.log2()), ([0, 9, 0], 0.0), ([4, 0, 4], 1.0)] {
            assert!((entropy(counts) - bits).abs() < 1e-12, "{counts:?}");
        }
    }
}
