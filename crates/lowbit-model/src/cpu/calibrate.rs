//! Which input features of each matrix hold outliers: what LLM.int8() must know before it stores the weights.

use super::{CpuExec, Param};
use crate::checkpoint::Options;
use crate::exec::Batch;
use crate::{Error, Model};
use lowbit_kernels::{Cpu, QuantizeOptions};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An input feature with a larger magnitude is an outlier (arXiv 2208.07339, section 3.2).
const OUTLIER: f32 = 6.0;

/// Largest magnitude of each input feature of each matrix.
#[derive(Debug, Default)]
pub(super) struct ColumnAbsmax(BTreeMap<Arc<str>, Vec<f32>>);

impl ColumnAbsmax {
    pub fn record(&mut self, name: &Arc<str>, cols: usize, x: &[f32]) {
        if !self.0.contains_key(name) {
            self.0.insert(name.clone(), vec![0.0; cols]);
        }
        let absmax = self.0.get_mut(name).expect("just inserted");
        for row in x.chunks_exact(cols) {
            for (peak, x) in absmax.iter_mut().zip(row) {
                *peak = peak.max(x.abs());
            }
        }
    }
}

/// Runs batches through a full-precision network and returns, for each matrix, the input features whose magnitude
/// exceeded 6 (arXiv 2208.07339).
///
/// # Errors
/// When a batch does not fit the model.
pub fn calibrate<'a>(
    model: &Model<Param>,
    cpu: Cpu,
    batches: impl IntoIterator<Item = &'a Batch>,
) -> Result<Options, Error> {
    let mut exec = CpuExec::new(cpu);
    exec.absmax = Some(ColumnAbsmax::default());
    for batch in batches {
        exec.forward(model, batch)?;
    }
    let absmax = exec.absmax.take().unwrap_or_default();
    let outliers = |absmax: Vec<f32>| {
        let columns = absmax.iter().enumerate().filter(|(_, peak)| **peak > OUTLIER).map(|(i, _)| i as u32);
        QuantizeOptions { outlier_columns: columns.collect(), ..Default::default() }
    };
    Ok(absmax.0.into_iter().map(|(name, absmax)| (name.to_string(), outliers(absmax))).collect())
}
