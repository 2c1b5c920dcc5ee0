//! Why a place holds no model: the cause, and what to do.

use crate::Error;
use crate::container::show;
use std::path::{Path, PathBuf};

/// Entries of a directory that are looked at.
const MANY: usize = 10_000;
/// Names or shown ones of a list.
const FEW: usize = 3;
/// Endings of data.
const DATA: &[&str] = &["parquet", "csv", "tsv", "jsonl", "arrow", "txt", "zst", "gz", "ndjson"];
/// Files that hold weights in a form that is not read, by the end of their names: what they are, and the remedy.
const OTHERS: &[(&str, &str)] = &[
    ("adapter_model.safetensors", "an adapter (LoRA): merge it into its base model first"),
    ("adapter_model.bin", "an adapter (LoRA): merge it into its base model first"),
    ("model_index.json", "a pipeline of several models (diffusers), which is not read"),
    ("consolidated.safetensors", "weights under the names of Mistral's own code: fetch the files of transformers"),
    (".onnx", "an ONNX graph, which is not read: fetch the safetensors of the model"),
    (".h5", "Keras weights, which are not read: fetch the safetensors of the model"),
    (".msgpack", "Flax weights, which are not read: fetch the safetensors of the model"),
    (".tflite", "a TensorFlow Lite file, which is not read: fetch the safetensors of the model"),
    (".npz", "NumPy arrays, which are not read: fetch the safetensors of the model"),
];

/// Why a path is refused behind which there is nothing: a link whose target is missing is told apart.
pub(crate) fn dangling(path: &Path) -> Option<Error> {
    // A link that leads back to itself is another failure (ELOOP).
    let missing = std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    let target = std::fs::read_link(path).ok().filter(|_| missing)?;
    let text = format!(
        "is a link to `{}`, which is missing: the download was interrupted or cleaned up",
        show(&target.to_string_lossy())
    );
    Some(Error::input(path, format!("{text}; fetch the model again")))
}

/// Why a directory without weights is refused; `file` is what was looked for.
pub(super) fn weights(directory: &Path, file: &str) -> Error {
    if let Some(error) = dangling(&directory.join(file)) {
        return error;
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().take(MANY).flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let names: Vec<String> =
        paths.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect();
    let holds = |text: String| Error::input(directory, format!("holds {text}"));
    if names.is_empty() {
        return Error::input(directory, "is empty; name a model directory");
    }
    if let Some(error) = paths.iter().filter(|path| is_weight(path)).find_map(|path| dangling(path)) {
        return error;
    }
    let ending = |end: &str| names.iter().filter(|name| name.ends_with(end)).collect::<Vec<_>>();
    let shards: Vec<_> = names.iter().filter(|name| name.contains("-of-") && name.ends_with(".safetensors")).collect();
    if let Some(first) = shards.first() {
        let text = format!("shards (`{}`), but no {file}.index.json, which tells what each of them holds", show(first));
        return holds(format!("{text}; fetch it"));
    }
    if names.iter().any(|name| name.ends_with(".incomplete") || name.ends_with(".part")) {
        return holds("a download that was not finished; fetch the model again".into());
    }
    if let Some((name, what)) = OTHERS.iter().find_map(|(end, what)| Some((*ending(end).first()?, what))) {
        return holds(format!("no {file}, but `{}`, {what}", show(name)));
    }
    let pickles = [".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".pkl"];
    if let Some(found) = pickles.iter().find_map(|end| ending(end).first().copied()) {
        return holds(format!("`{}` but no {file}: pickle is executable code, convert it to safetensors", show(found)));
    }
    match (&ending(".gguf")[..], &ending(".safetensors")[..]) {
        ([_, _, ..], _) => return holds(format!("several GGUF files; name one of {}", list(&ending(".gguf")))),
        (_, [one, ..]) => return holds(format!("no {file}, but `{}`; rename it, or fetch {file}", show(one))),
        _ => {}
    }
    elsewhere(directory, &paths, &names, file).unwrap_or_else(|| holds(format!("no {file}; name a model directory")))
}

/// Where a model may be, when a directory has none itself.
fn elsewhere(directory: &Path, paths: &[PathBuf], names: &[String], file: &str) -> Option<Error> {
    let holds = |text: String| Some(Error::input(directory, format!("holds {text}")));
    let own = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(id) = own.strip_prefix("models--").filter(|_| names.iter().any(|name| name == "snapshots")) {
        return holds(format!("the cache of a model; name it `{}`", show(&id.replacen("--", "/", 1))));
    }
    let is_model = |path: &Path| path.join(file).exists() || path.join("config.json").exists();
    let inner: Vec<&String> =
        paths.iter().zip(names).filter(|(path, _)| is_model(path)).map(|(_, name)| name).collect();
    if !inner.is_empty() {
        return holds(format!("no {file} itself; name one of its directories: {}", list(&inner)));
    }
    let is_data = |path: &&PathBuf| path.extension().and_then(|e| e.to_str()).is_some_and(|e| DATA.contains(&e));
    let data: Vec<&String> = paths.iter().zip(names).filter(|(path, _)| is_data(path)).map(|(_, name)| name).collect();
    let listed = names
        .iter()
        .any(|name| ["dataset_infos.json", "dataset_info.json", "dataset_dict.json"].contains(&name.as_str()));
    if listed || !data.is_empty() && !names.iter().any(|name| name == "config.json") {
        let of = if data.is_empty() { String::new() } else { format!(" ({})", list(&data)) };
        return holds(format!("data{of}, not a model; name a model directory"));
    }
    let small = names.iter().any(|name| name == "config.json");
    small.then(|| Error::input(directory, format!("holds config.json, but no weights ({file}); fetch them")))
}

fn is_weight(path: &Path) -> bool {
    let index = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".index.json"));
    index || path.extension().is_some_and(|e| e == "safetensors" || e == "gguf")
}

/// The first names of a list.
fn list(names: &[&String]) -> String {
    let shown: Vec<String> = names.iter().take(FEW).map(|name| format!("`{}`", show(name))).collect();
    let more = names.len().saturating_sub(FEW);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
