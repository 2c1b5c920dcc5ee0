//! `lowbit convert`

use super::Machine;
use super::model::{self, ModelRecipe};
use crate::failure::Failure;
use lowbit_base::Error;
use lowbit_base::memory::bytes;
use lowbit_eval::bench::host;
use lowbit_eval::facts::Stored;
use lowbit_model::checkpoint::{self, Target, Written};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit convert models/book book.gguf --table f32
  lowbit convert model.gguf models/copy --type bitnet_bf16
  lowbit convert -m org/name --out model.gguf --type q8_0 --table f16";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Convert {
    /// The model (a directory, a GGUF file, or an `org/name` of the Hub's cache), and where it goes: a `.gguf` file, or else
    /// a directory.
    #[arg(value_names = ["MODEL", "OUT"], num_args = 0..=2)]
    paths: Vec<PathBuf>,
    /// The model, in place of the first path.
    #[arg(short = 'm', long = "model", value_name = "MODEL")]
    named: Option<PathBuf>,
    /// Where it goes, in place of the last path.
    #[arg(short, long = "out", value_name = "OUT")]
    named_out: Option<PathBuf>,
    #[command(flatten)]
    recipe: ModelRecipe,
    /// Type of the body: f32, f16, bf16, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, q3_k, q2_k, tq1_0, tq2_0 or i2_s in a
    /// GGUF file, a recipe in a directory [default: what keeps the weights exactly in the fewest bytes, if there is such a
    /// type: of integers, those they are stored in].
    #[arg(long = "type", alias = "outtype", value_name = "TYPE")]
    kind: Option<String>,
    /// Type of table and head in a GGUF file [default: what they are stored in, else f16 or bf16, if that is exact].
    #[arg(long, value_name = "TYPE")]
    table: Option<String>,
}

impl Convert {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let (cpu, (path, out)) = (machine.cpu()?, self.paths()?);
        let target = Target::of(out, self.kind.as_deref(), self.table.as_deref())?;
        let model = model::open_verified(machine, path, self.recipe.get()?, &cpu)?;
        machine.signals.defer();
        let converted = checkpoint::convert(&model, out, target)?;
        if machine.json {
            let about = Stored { weights: &converted.weights, kind: &converted.kind, made: "converted", parent: path };
            let record = about.record(out, &model)?;
            let mut object = json!(machine.terminal.results(host::facts(&cpu), vec![record]));
            object["types"] = converted.written.iter().map(entry).collect();
            return machine.terminal.json(&object);
        }
        machine.terminal.line(format!("{:<16} {:>7} {:>9}", "type", "tensors", "size"));
        for r in &converted.written {
            let note = match r.rounded {
                None => String::new(),
                Some(0) => "  exact".into(),
                Some(n) => format!("  {n} rounded"),
            };
            let instead =
                r.instead_of.map_or(String::new(), |wide| format!("  in place of {wide}: rows fill no blocks of it"));
            machine.terminal.line(format!(
                "{:<16} {:>7} {:>9}{note}{instead}",
                r.name,
                r.tensors.len(),
                bytes(r.bytes)
            ));
        }
        let size = std::fs::metadata(&converted.weights).map_err(|e| Error::io(&converted.weights, &e))?.len();
        machine.terminal.line(format!("{}: {}", converted.weights.display(), bytes(size)));
        Ok(())
    }

    /// The model and where it goes, however they were given.
    fn paths(&self) -> Result<(&Path, &Path), Failure> {
        match (&self.named, &self.named_out, &self.paths[..]) {
            (None, None, [model, out])
            | (Some(model), None, [out])
            | (None, Some(out), [model])
            | (Some(model), Some(out), []) => Ok((model, out)),
            _ => Err(Failure::usage(
                "give a model and where it goes: `lowbit convert MODEL OUT` (or -m MODEL, --out OUT)",
            )),
        }
    }
}

/// What was written in one type or format, as JSON.
fn entry(written: &Written) -> Value {
    let mut entry = json!({
        "type": written.name, "tensors": written.tensors.len(), "bytes": written.bytes, "names": written.tensors,
    });
    if let Some(wide) = written.instead_of {
        entry["instead_of"] = json!(wide);
    }
    if let Some(rounded) = written.rounded {
        entry["rounded_tensors"] = json!(rounded);
    }
    entry
}
