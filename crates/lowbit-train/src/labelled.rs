//! Labelled sequences as training examples: one target per sequence.

use crate::Data;
use lowbit_model::exec::Batch;
use sha2::{Digest, Sha256};

/// Sequences of tokens, each with its class.
pub struct Labelled {
    sequences: Vec<Vec<u32>>,
    labels: Vec<u16>,
    fingerprint: String,
}

impl Labelled {
    /// Sequences and one class per sequence.
    ///
    /// # Panics
    /// When the numbers of sequences and classes differ.
    pub fn new(sequences: Vec<Vec<u32>>, labels: Vec<u16>) -> Self {
        assert_eq!(sequences.len(), labels.len(), "one class per sequence");
        let mut hash = Sha256::new();
        for (sequence, label) in sequences.iter().zip(&labels) {
            hash.update((sequence.len() as u64).to_le_bytes());
            sequence.iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update(label.to_le_bytes());
        }
        let fingerprint = lowbit_base::hex(hash.finalize());
        Labelled { sequences, labels, fingerprint }
    }
}

impl Data for Labelled {
    fn len(&self) -> usize {
        self.sequences.len()
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.sequences.iter().map(|sequence| sequence.len() as u64).sum())
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut Vec<u32>) {
        batch.tokens.clear();
        batch.cu_seqlens.clear();
        batch.cu_seqlens.push(0);
        targets.clear();
        for &row in rows {
            batch.tokens.extend_from_slice(&self.sequences[row]);
            batch.cu_seqlens.push(batch.tokens.len());
            targets.push(self.labels[row].into());
        }
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
