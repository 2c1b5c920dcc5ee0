//! The memory ledger: what each parameter takes on disk and in memory, and what its stored values look like.

use super::Checkpoint;
use crate::Error;
use crate::parameter_list::bytes_of;
use crate::source::{ParamSpec, Role};
use lowbit_kernels::Packed;
use std::collections::{BTreeMap, HashSet};

/// One parameter.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LedgerRow {
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
    /// Bytes among them that fill up rows and columns to the units of the kernels and hold no weight.
    pub padding: usize,
    /// Share of dequantized values that are exactly 0.
    pub zero_fraction: f64,
    /// Number of distinct dequantized values: of the whole parameter where there are at most 3, else the most in any 64
    /// consecutive columns of a row (which share every scale) where there are at most 32; absent where there are more.
    pub levels: Option<usize>,
}

impl LedgerRow {
    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|&b| b as u64).sum()
    }
}

/// The rows of all parameters, in the order of the architecture.
///
/// # Errors
/// When the data of a tensor is corrupt.
pub fn ledger(checkpoint: &Checkpoint) -> Result<Vec<LedgerRow>, Error> {
    let recipe = checkpoint.recipe();
    let taken = |spec: &ParamSpec| Ok(bytes_of(spec, recipe)?.saturating_add(Checkpoint::master_bytes(spec)));
    checkpoint.need_of_largest(taken)?.check()?;
    let mut rows = Vec::new();
    for spec in checkpoint.parameters().params() {
        let values;
        let (format, parts, padding) = if spec.role.is_vector() {
            values = checkpoint.master(spec)?;
            ("f32", BTreeMap::from([("values".to_string(), values.len() * 4)]), 0)
        } else {
            let packed = checkpoint.packed(spec)?;
            values = packed.dequantize();
            let parts = packed.format().parts(spec.rows, spec.cols, packed.parts());
            let parts = parts.iter().map(|p| (p.name.to_string(), p.bytes)).collect();
            (packed.format().name(), parts, padding(&packed))
        };
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        rows.push(LedgerRow {
            name: spec.name.clone(),
            role: spec.role,
            format: format.into(),
            rows: spec.rows,
            cols: spec.cols,
            parts,
            padding,
            zero_fraction: zeros as f64 / values.len().max(1) as f64,
            levels: levels(&values, spec.cols),
        });
    }
    Ok(rows)
}

/// Rows that fill whole panels and blocks of every format.
const WHOLE_ROWS: usize = 80;
/// Columns that fill whole units and groups of every format.
const WHOLE_COLS: usize = 512;

/// Bytes that hold no weight: what is stored beyond the share of a matrix of whole panels, [`WHOLE_ROWS`] times as high, and
/// of whole units, [`WHOLE_COLS`] times as wide. A part that does not grow with the rows is one per tensor; the width counts for
/// the codes alone, which come first, because a scale of a part of a group is needed all the same.
fn padding(packed: &Packed) -> usize {
    let parts = |rows, cols| packed.format().parts(rows, cols, packed.parts()).into_iter().map(|part| part.bytes);
    let (rows, cols) = (packed.rows(), packed.cols());
    let taller = parts(rows * WHOLE_ROWS, cols);
    let both = parts(rows * WHOLE_ROWS, cols * WHOLE_COLS);
    let part = |(i, ((stored, taller), both)): (usize, ((usize, usize), usize))| match taller == stored {
        true => 0,
        false if i == 0 => stored.saturating_sub(both.div_ceil(WHOLE_ROWS * WHOLE_COLS)),
        false => stored.saturating_sub(taller.div_ceil(WHOLE_ROWS)),
    };
    parts(rows, cols).zip(taller).zip(both).enumerate().map(part).sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_kernels::format::{FORMATS, QuantizeOptions};

    /// Without padding every format stores as many bytes a weight in a matrix of odd size as in a large one, and scales.
    #[test]
    fn padding_is_what_an_odd_matrix_stores_more_than_its_share_of_a_whole_one() {
        for format in FORMATS {
            let stored = |rows: usize, cols: usize| {
                let weights: Vec<f32> = (0..rows * cols).map(|i| (i % 7) as f32 - 3.0).collect();
                format.quantize(&weights, rows, cols, &QuantizeOptions::default()).unwrap()
            };
            let whole = stored(WHOLE_ROWS, WHOLE_COLS);
            assert_eq!(padding(&whole), 0, "{}", format.name());
            let bits = |packed: &Packed| {
                8.0 * (packed.bytes() - padding(packed)) as f64 / (packed.rows() * packed.cols()) as f64
            };
            let (odd, even) = (stored(3, 33), bits(&whole));
            let scales = 8.0 * (4.0 * 3.0 + 16.0) / 99.0;
            assert!(
                bits(&odd) >= 0.99 * (even - 0.5) && bits(&odd) < 1.5 * even + scales,
                "{}: {} {even}",
                format.name(),
                bits(&odd)
            );
            assert!(padding(&odd) * 2 > odd.bytes(), "{}: most of a tiny matrix is padding", format.name());
        }
    }
}
