//! Importance matrices of llama.cpp: GGUF files of the type `imatrix`, with the sum of the squares of each input feature of a
//! matrix, `NAME.in_sum2`, and the number of tokens it was taken over, `NAME.counts`.

use super::observe::{InputStats, Observed};
use crate::Error;
use crate::arch::decoder::gguf as keys;
use crate::container::gguf::{Field, Gguf, GgufWriter, Planned, find};
use crate::parameter_list::ParameterList;
use crate::source::{ParamSpec, Role};
use std::path::Path;

const TYPE_KEY: &str = "general.type";
const TYPE: &str = "imatrix";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
const SUMS: &str = "in_sum2";
const COUNTS: &str = "counts";

/// What an importance matrix was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Names of the texts.
    pub datasets: Vec<String>,
    /// Sequences that were read.
    pub chunks: usize,
    /// Tokens of the longest of them.
    pub chunk_size: usize,
}

/// The name of a matrix in GGUF files; its own where GGUF has none.
fn name_of(spec: &ParamSpec) -> String {
    keys::tensor_name(&spec.name).unwrap_or_else(|| spec.name.clone())
}

/// The parameters that are matrices.
fn matrices(parameters: &ParameterList) -> impl Iterator<Item = &ParamSpec> {
    parameters.params().iter().filter(|spec| !spec.role.is_vector())
}

/// Writes what the matrices of a network read as an importance matrix.
///
/// # Errors
/// When writing fails; no file is left then.
pub fn save_imatrix(
    path: &Path,
    parameters: &ParameterList,
    observed: &Observed,
    origin: &Origin,
) -> Result<(), Error> {
    let seen: Vec<_> =
        matrices(parameters).filter_map(|spec| Some((name_of(spec), observed.get(&spec.name)?))).collect();
    let planned = |name: String, count: usize| Planned { name, kind: find("f32").expect("a type"), shape: vec![count] };
    let plan = seen.iter().flat_map(|(name, stats)| {
        [planned(format!("{name}.{SUMS}"), stats.sum_squares().len()), planned(format!("{name}.{COUNTS}"), 1)]
    });
    let metadata = [
        (TYPE_KEY.into(), Field::Text(TYPE.into())),
        (DATASETS.into(), Field::Texts(origin.datasets.clone())),
        (CHUNK_COUNT.into(), Field::U32(origin.chunks as u32)),
        (CHUNK_SIZE.into(), Field::U32(origin.chunk_size as u32)),
    ];
    let mut writer = GgufWriter::create(path, &metadata, plan.collect())?;
    for (_, stats) in &seen {
        let sums: Vec<f32> = stats.sum_squares().iter().map(|sum| *sum as f32).collect();
        writer.tensor(&sums)?;
        writer.tensor(&[stats.tokens() as f32])?;
    }
    writer.finish()
}

/// Reads an importance matrix for a network. Matrices that the file lacks are absent from the result.
///
/// # Errors
/// When it is no importance matrix, holds none of the network's matrices, or one of another width, or a number that is none;
/// names file, tensor and value.
pub fn read_imatrix(path: &Path, parameters: &ParameterList) -> Result<Observed, Error> {
    let file = Gguf::open(path)?;
    if file.text(TYPE_KEY)?.unwrap_or_default() != TYPE {
        let text = "is a GGUF file, but no importance matrix: its `general.type` is not `imatrix`";
        return Err(Error::input(path, format!("{text}; `llama-imatrix` or --save-imatrix writes one")));
    }
    let mut observed = Observed::default();
    for spec in matrices(parameters) {
        let name = name_of(spec);
        if let Some(stats) = stats_of(&file, &name, spec.cols)? {
            observed.insert(&spec.name, stats);
        }
    }
    let none = observed.iter().next().is_none();
    match none {
        false => Ok(observed),
        true => {
            let first = matrices(parameters).find(|spec| spec.role == Role::Body).map(name_of).unwrap_or_default();
            let text = format!("holds none of the matrices of the model, such as `{first}.{SUMS}`");
            Err(Error::input(path, format!("{text}; take the importance matrix of this network")))
        }
    }
}

/// What a file tells of one matrix, if anything.
fn stats_of(file: &Gguf, name: &str, cols: usize) -> Result<Option<InputStats>, Error> {
    let (sums, counts) = (format!("{name}.{SUMS}"), format!("{name}.{COUNTS}"));
    let Some(tensor) = file.tensor(&sums) else { return Ok(None) };
    let at = |text: String| Error::input(file.path(), text);
    if tensor.len() != cols {
        let text = format!("tensor `{sums}` has {} elements, but the matrix has {cols} input features", tensor.len());
        return Err(at(format!("{text}; take the importance matrix of this network")));
    }
    let counted = file.tensor(&counts).ok_or_else(|| at(format!("tensor `{counts}` is missing beside `{sums}`")))?;
    let count = file.floats(counted)?;
    let [tokens] = count[..] else {
        return Err(at(format!("tensor `{counts}` has {} elements, not 1", count.len())));
    };
    if !(tokens.is_finite() && tokens >= 0.0) {
        return Err(at(format!("tensor `{counts}` is {tokens}, which is no number of tokens")));
    }
    let sums_read = file.floats(tensor)?;
    if let Some(i) = sums_read.iter().position(|sum| !(sum.is_finite() && *sum >= 0.0)) {
        return Err(at(format!("tensor `{sums}`, element {i} is {}, which is no sum of squares", sums_read[i])));
    }
    // A matrix that no token reached, as an expert that was never chosen.
    Ok((tokens >= 1.0).then(|| InputStats::of_squares(sums_read.into_iter().map(f64::from).collect(), tokens as u64)))
}
