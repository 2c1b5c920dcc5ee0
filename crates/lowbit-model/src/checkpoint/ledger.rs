//! The memory ledger: what each parameter takes on disk and in memory, and what its stored values look like.

use super::Checkpoint;
use crate::Error;
use crate::source::Role;
use std::collections::{BTreeMap, HashSet};

/// One parameter.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How it is stored.
    pub format: String,
    /// Output features, table entries, or 1.
    pub rows: usize,
    /// Input features, or the length of a vector.
    pub cols: usize,
    /// Bytes of each stored part.
    pub parts: BTreeMap<String, usize>,
    /// Share of dequantized values that are exactly 0.
    pub zero_fraction: f64,
    /// Number of distinct dequantized values: of the whole parameter where there are at most 3, else the most in any 64
    /// consecutive columns of a row (which share every scale) where there are at most 32; absent where there are more.
    pub levels: Option<usize>,
}

/// The rows of all parameters, in the order of the architecture.
///
/// # Errors
/// When the data of a tensor is corrupt.
pub fn ledger(checkpoint: &Checkpoint) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for spec in checkpoint.listing().params() {
        let values;
        let (format, parts) = if matches!(spec.role, Role::Norm | Role::Bias) {
            values = checkpoint.master(spec)?;
            ("f32", BTreeMap::from([("values".to_string(), values.len() * 4)]))
        } else {
            let packed = checkpoint.packed(spec)?;
            values = packed.dequantize();
            let parts = packed.format.parts(spec.rows, spec.cols, &packed.parts);
            (packed.format.name(), parts.iter().map(|p| (p.name.to_string(), p.bytes)).collect())
        };
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        rows.push(Row {
            name: spec.name.clone(),
            role: spec.role,
            format: format.into(),
            rows: spec.rows,
            cols: spec.cols,
            parts,
            zero_fraction: zeros as f64 / values.len().max(1) as f64,
            levels: levels(&values, spec.cols),
        });
    }
    Ok(rows)
}

fn levels(values: &[f32], cols: usize) -> Option<usize> {
    let distinct = |values: &[f32], most: usize| {
        let mut seen = HashSet::new();
        let few = values.iter().all(|v| {
            seen.insert((v + 0.0).to_bits());
            seen.len() <= most
        });
        few.then_some(seen.len())
    };
    distinct(values, 3).or_else(|| {
        let mut groups = values.chunks_exact(cols).flat_map(|row| row.chunks(64));
        groups.try_fold(0, |most, group| Some(most.max(distinct(group, 32)?)))
    })
}
