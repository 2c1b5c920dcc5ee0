//! Rows as training examples: one target per sequence.

use crate::{BatchTargets, Data};
use lowbit_model::exec::Batch;
use sha2::{Digest, Sha256};

/// Sequences of tokens or rows of numbers, each with its class or value.
pub struct Labelled {
    rows: Batch,
    /// Numbers of a row; 0 for tokens.
    width: usize,
    targets: BatchTargets,
    fingerprint: String,
}

impl Labelled {
    /// Sequences of tokens and their classes, as many of the one as of the other.
    ///
    /// # Panics
    /// When they are not as many.
    pub fn of_tokens(sequences: impl IntoIterator<Item = Vec<u32>>, classes: Vec<u16>) -> Self {
        let mut rows = Batch::default();
        sequences.into_iter().for_each(|sequence| rows.push(&sequence));
        Self::new(rows, BatchTargets::Classes(classes.into_iter().map(u32::from).collect()))
    }

    /// Rows and their targets, as many of the one as of the other.
    ///
    /// # Panics
    /// When they are not as many.
    pub fn new(rows: Batch, targets: BatchTargets) -> Self {
        assert_eq!(rows.sequences(), targets.len(), "one target per row");
        let width = rows.features.len() / rows.sequences().max(1);
        let mut hash = Sha256::new();
        for row in 0..rows.sequences() {
            let tokens = &rows.tokens[rows.cu_seqlens[row]..rows.cu_seqlens[row + 1]];
            hash.update((tokens.len() as u64).to_le_bytes());
            tokens.iter().for_each(|id| hash.update(id.to_le_bytes()));
            types(&rows, row).iter().for_each(|kind| hash.update(kind.to_le_bytes()));
            rows.features[row * width..][..width].iter().for_each(|v| hash.update(v.to_le_bytes()));
            match &targets {
                BatchTargets::Classes(classes) => hash.update((classes[row] as u16).to_le_bytes()),
                BatchTargets::Values(values) => hash.update(values[row].to_le_bytes()),
            }
        }
        let fingerprint = lowbit_base::hex(hash.finalize());
        Labelled { rows, width, targets, fingerprint }
    }
}

/// Segments of the tokens of a row; none where all are 0.
fn types(rows: &Batch, row: usize) -> &[u32] {
    rows.types.get(rows.cu_seqlens[row]..rows.cu_seqlens[row + 1]).unwrap_or_default()
}

impl Data for Labelled {
    fn len(&self) -> usize {
        self.rows.sequences()
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.rows.tokens.len() as u64)
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        batch.refill([]);
        for &row in rows {
            let span = self.rows.cu_seqlens[row]..self.rows.cu_seqlens[row + 1];
            match types(&self.rows, row) {
                [] => batch.push(&self.rows.tokens[span]),
                types => batch.push_types(&self.rows.tokens[span], types),
            }
            batch.features.extend_from_slice(&self.rows.features[row * self.width..][..self.width]);
        }
        match &self.targets {
            BatchTargets::Classes(classes) => targets.classes().extend(rows.iter().map(|row| classes[*row])),
            BatchTargets::Values(values) => targets.values().extend(rows.iter().map(|row| values[*row])),
        }
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
