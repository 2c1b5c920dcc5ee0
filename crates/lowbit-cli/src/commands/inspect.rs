//! `lowbit inspect`

use super::Machine;
use super::model::{self, ModelPath, ModelRecipe};
use crate::failure::Failure;
use crate::output;
use lowbit_model::checkpoint::{LedgerRow, ledger};
use lowbit_model::exec::Batch;
use lowbit_model::recipe;
use serde_json::json;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit inspect models/ternary
  lowbit inspect -m model.gguf --recipes";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    #[command(flatten)]
    model: ModelPath,
    #[command(flatten)]
    recipe: ModelRecipe,
    /// Tell the size under every recipe.
    #[arg(long)]
    recipes: bool,
    /// List every tensor instead of a line per role and format.
    #[arg(long)]
    full: bool,
}

impl Inspect {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let checkpoint = model::open(self.model.path()?, self.recipe.get()?, &machine.cpu()?)?;
        let verified = checkpoint.verify()?;
        let rows = ledger(&checkpoint)?;
        let model_config = checkpoint.model_config();
        let parameters = checkpoint.parameters();
        let bytes: u64 = rows.iter().map(total).sum();
        let length = model_config.max_length.clamp(1, 128);
        let tokens = vec![0; length];
        let flops = parameters.flops(&Batch::new([tokens.as_slice()]));
        let mut sizes = Vec::new();
        for recipe in recipe::RECIPES.iter().filter(|_| self.recipes) {
            sizes.push((recipe, parameters.bytes(recipe)?));
        }
        if machine.json {
            let recipes: serde_json::Map<String, serde_json::Value> =
                sizes.iter().map(|(r, bytes)| (r.name.to_string(), json!(bytes))).collect();
            return output::json(&json!({
                "schema_version": 1, "tool": output::tool(), "command": output::command(), "config": model_config.config,
                "labels": model_config.labels, "max_length": model_config.max_length, "recipe": checkpoint.recipe().name,
                "params": parameters.count(), "weight_bytes": bytes, "flops": {"tokens": length, "value": flops},
                "tensors": rows, "bytes_by_recipe": recipes, "checksums": verified,
            }));
        }
        if self.full { each(&rows) } else { grouped(&rows) }
        let on_disk: u64 = checkpoint.files().iter().map(|f| std::fs::metadata(f).map_or(0, |m| m.len())).sum();
        let bits = bytes as f64 * 8.0 / parameters.count().max(1) as f64;
        output::line(format!(
            "{} parameters, {} ({bits:.2} bits per parameter) under recipe {}, {} on disk, {:.1} MFLOP for {length} tokens",
            parameters.count(),
            output::bytes(bytes),
            checkpoint.recipe().name,
            output::bytes(on_disk),
            flops as f64 / 1e6
        ));
        let checksums = if verified { "as the weights are" } else { "none in the file" };
        output::line(format!("checksums: {checksums}"));
        for (recipe, bytes) in sizes {
            output::line(format!("  {:16} {:>10}  {}", recipe.name, output::bytes(bytes), recipe.summary));
        }
        Ok(())
    }
}

/// A line per tensor.
fn each(rows: &[LedgerRow]) {
    output::line(format!("{:50} {:>10} {:>16} {:>13} {:>12} {:>7}", "tensor", "role", "format", "shape", "bytes", "zeros"));
    for row in rows {
        output::line(format!(
            "{:50} {:>10} {:>16} {:>13} {:>12} {:>6.1}%",
            row.name,
            role(row),
            row.format,
            format!("[{}, {}]", row.rows, row.cols),
            total(row),
            row.zero_fraction * 100.0
        ));
    }
}

/// A line per role and format, in the order in which they come.
fn grouped(rows: &[LedgerRow]) {
    output::line(format!("{:>10} {:>18} {:>8} {:>14} {:>10} {:>7}", "role", "format", "tensors", "parameters", "bytes", "zeros"));
    let mut groups: Vec<(&LedgerRow, Vec<&LedgerRow>)> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|(first, _)| first.role == row.role && first.format == row.format) {
            Some((_, group)) => group.push(row),
            None => groups.push((row, vec![row])),
        }
    }
    for (first, group) in groups {
        let parameters: usize = group.iter().map(|r| r.rows * r.cols).sum();
        let zeros: f64 = group.iter().map(|r| r.zero_fraction * (r.rows * r.cols) as f64).sum();
        output::line(format!(
            "{:>10} {:>18} {:>8} {parameters:>14} {:>10} {:>6.1}%",
            role(first),
            first.format,
            group.len(),
            output::bytes(group.iter().map(|r| total(r)).sum()),
            100.0 * zeros / parameters.max(1) as f64
        ));
    }
    output::line(format!("{} tensors in all; --full lists them", rows.len()));
}

fn role(row: &LedgerRow) -> String {
    format!("{:?}", row.role).to_lowercase()
}

fn total(row: &LedgerRow) -> u64 {
    row.parts.values().map(|&b| b as u64).sum()
}
