//! `lowbit convert`

use super::Machine;
use super::model::{self, ModelRecipe};
use crate::failure::Failure;
use lowbit_eval::bench::host;
use crate::output;
use lowbit_base::memory::Footprint;
use lowbit_eval::facts;
use lowbit_eval::record::{Detail, Measure, Record};
use lowbit_kernels::Cpu;
use lowbit_model::checkpoint::{self, GgufTypes, Options, WEIGHTS_FILE};
use lowbit_model::container::gguf::{TYPES, Type, find};
use lowbit_model::source::Role;
use lowbit_model::{Checkpoint, Recipe, recipe};
use serde_json::json;
use std::collections::BTreeMap;
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
    /// Type of the body: f32, f16, bf16, q8_0, tq1_0, tq2_0 or i2_s in a GGUF file, a recipe in a directory [default: what
    /// keeps the weights exactly in the fewest bytes, if there is such a type].
    #[arg(long = "type", alias = "outtype", value_name = "TYPE")]
    kind: Option<String>,
    /// Type of table and head in a GGUF file [default: f16 or bf16, if that is exact].
    #[arg(long, value_name = "TYPE")]
    table: Option<String>,
}

/// What was written in one type or format.
struct Row {
    name: String,
    tensors: Vec<String>,
    bytes: u64,
    /// How many tensors had to be rounded, where that is known.
    rounded: Option<usize>,
}

impl Convert {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let (cpu, (path, out)) = (machine.cpu()?, self.paths()?);
        let gguf = out.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        let named = if gguf { Some(self.types()?) } else { None };
        if !gguf && self.table.is_some() {
            return Err(Failure::usage(
                "--table is for GGUF files; in a directory the recipe tells the type of the table",
            ));
        }
        let model = model::open_verified(path, self.recipe.get()?, &cpu)?;
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if same(path, out) {
            return Err(Failure::usage(format!("{}: the output would replace the input", out.display())));
        }
        machine.signals.defer();
        let (weights, kind, rows) = match named {
            Some((body, table)) => {
                let body = body.map_or_else(|| exact_type(&model), Ok)?;
                let rows = checkpoint::save_gguf(&model, out, GgufTypes { body, table })?;
                let row = |w: checkpoint::Written| Row {
                    name: w.name.into(),
                    tensors: w.tensors,
                    bytes: w.bytes,
                    rounded: Some(w.rounded),
                };
                (out.to_path_buf(), body.name.to_string(), rows.into_iter().map(row).collect())
            }
            None => {
                let recipe =
                    self.kind.as_deref().map_or_else(|| exact_recipe(&model), |name| Ok(recipe::find(name)?))?;
                checkpoint::quantize(&model, recipe, &Options::default(), out)?;
                (out.join(WEIGHTS_FILE), recipe.name.to_string(), formats(&model, recipe)?)
            }
        };
        self.tell(machine, &cpu, &model, &weights, &kind, &rows)
    }

    /// The model and where it goes, however they were given.
    fn paths(&self) -> Result<(&Path, &Path), Failure> {
        match (&self.named, &self.named_out, &self.paths[..]) {
            (None, None, [model, out])
            | (Some(model), None, [out])
            | (None, Some(out), [model])
            | (Some(model), Some(out), []) => Ok((model, out)),
            _ => Err(Failure::usage("give a model and where it goes: `lowbit convert MODEL OUT` (or -m MODEL, --out OUT)")),
        }
    }

    /// The types named for body and table.
    fn types(&self) -> Result<(Option<&'static Type>, Option<&'static Type>), Failure> {
        let of = |name: &Option<String>| name.as_deref().map(gguf_type).transpose();
        Ok((of(&self.kind)?, of(&self.table)?))
    }

    fn tell(
        &self,
        machine: &Machine,
        cpu: &Cpu,
        model: &Checkpoint,
        weights: &Path,
        kind: &str,
        rows: &[Row],
    ) -> Result<(), Failure> {
        let (path, out) = self.paths()?;
        let size = std::fs::metadata(weights).map_err(|e| Failure::io(weights, &e))?.len();
        if machine.json {
            let record = Record {
                task: String::new(),
                model: out.display().to_string(),
                recipe: kind.into(),
                params: model.parameters().count(),
                measures: BTreeMap::from([("weight_bytes".into(), Measure::measured(size as f64, "bytes", 1))]),
                detail: Detail {
                    made: "converted".into(),
                    parent: Some(path.display().to_string()),
                    model_sha256: Some(facts::sha256(weights)?),
                    ..Detail::default()
                },
            };
            let mut object = json!(output::results(host::facts(cpu), vec![record]));
            let row = |r: &Row| {
                let mut row =
                    json!({"type": r.name, "tensors": r.tensors.len(), "bytes": r.bytes, "names": r.tensors});
                if let Some(rounded) = r.rounded {
                    row["rounded_tensors"] = json!(rounded);
                }
                row
            };
            object["types"] = rows.iter().map(row).collect();
            return output::json(&object);
        }
        output::line(format!("{:<16} {:>7} {:>9}", "type", "tensors", "size"));
        for r in rows {
            let note = match r.rounded {
                None => String::new(),
                Some(0) => "  exact".into(),
                Some(n) => format!("  {n} rounded"),
            };
            output::line(format!("{:<16} {:>7} {:>9}{note}", r.name, r.tensors.len(), output::bytes(r.bytes)));
        }
        output::line(format!("{}: {}", weights.display(), output::bytes(size)));
        Ok(())
    }
}

/// The type of a name, if it is written.
fn gguf_type(name: &str) -> Result<&'static Type, Failure> {
    find(name).filter(|kind| kind.is_written()).ok_or_else(|| {
        let known: Vec<_> = TYPES.iter().filter(|t| t.is_written()).map(|t| t.name.to_lowercase()).collect();
        Failure::usage(format!("`{name}` is no type that is written to GGUF files; known: {}", known.join(", ")))
    })
}

/// The GGUF type that keeps a ternary body exactly, in the program that computes such a network.
fn exact_type(model: &Checkpoint) -> Result<&'static Type, Failure> {
    match model.recipe().is_ternary() {
        true => gguf_type(model.model_config().config.gguf_ternary_type()?),
        false => Err(Failure::usage("name a type with --type: f32 and bf16 keep such weights exactly, f16 and q8_0 round")),
    }
}

/// The recipe the model is stored under, if table and head keep their values in it.
fn exact_recipe(model: &Checkpoint) -> Result<&'static Recipe, Failure> {
    let recipe = model.recipe();
    // Masters under the recipe they were trained for are that network.
    if model.model_config().trained_for.as_deref() == Some(recipe.name) {
        return Ok(recipe);
    }
    for spec in model.parameters().params().iter().filter(|p| matches!(p.role, Role::Embedding | Role::Head)) {
        let values = 8 * spec.rows as u64 * spec.cols as u64;
        Footprint::new("name the recipe with --type").and(format!("values of tensor `{}`", spec.name), values).check()?;
        if model.packed(spec)?.dequantize() != model.master(spec)? {
            let text = format!("tensor `{}` would be rounded to {} under the recipe", spec.name, recipe.embedding);
            let text = format!("{text} {}; name it with --type to accept that, or f32 to keep all", recipe.name);
            return Err(Failure::usage(text));
        }
    }
    Ok(recipe)
}

/// Formats of the parameters under a recipe.
fn formats(model: &Checkpoint, recipe: &Recipe) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<Row> = Vec::new();
    for spec in model.parameters().params() {
        let (name, bytes) = match recipe.format(spec.role)? {
            Some(format) => {
                (format.name(), format.parts(spec.rows, spec.cols, &[]).iter().map(|p| p.bytes as u64).sum())
            }
            None => ("f32 (vectors)", 4 * spec.cols as u64),
        };
        match rows.iter_mut().find(|r| r.name == name) {
            Some(row) => {
                row.tensors.push(spec.name.clone());
                row.bytes += bytes;
            }
            None => rows.push(Row { name: name.into(), tensors: vec![spec.name.clone()], bytes, rounded: None }),
        }
    }
    Ok(rows)
}
