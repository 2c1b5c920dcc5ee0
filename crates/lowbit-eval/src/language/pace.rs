//! How long a language model takes for a byte.

use super::Text;
use super::bytes::most_probable;
use crate::meter::{self, Workload};
use crate::record::Record;
use crate::{Error, error::Kind};
use lowbit_base::memory::Footprint;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::engine::{LanguageModel, Logits, Piece};
use lowbit_model::{Checkpoint, Sequences};
use std::sync::Arc;

/// Bytes that are written before times count.
const WARM_ROUNDS: usize = 16;
/// Timed bytes of each model.
const ROUNDS: usize = 128;
/// Longest window, tokens.
const MAX_WINDOW: usize = 1024;

/// Time of one byte written alone after half a window of a text, for several models in alternating order; fills their records.
///
/// # Errors
/// When a model cannot continue a text, or memory is short.
pub fn latencies(text: &Text, models: &[&Checkpoint], records: &mut [Record], cpu: &Cpu) -> Result<(), Error> {
    let longest = text.texts().iter().max_by_key(|tokens| tokens.len()).filter(|tokens| !tokens.is_empty());
    let tokens = longest.ok_or_else(|| Error::new(Kind::Usage, "there is no text to continue"))?;
    let mut writers: Vec<Writer> =
        models.iter().map(|checkpoint| Writer::new(checkpoint, tokens, cpu)).collect::<Result<_, _>>()?;
    let mut work: Vec<_> = writers.iter_mut().map(|writer| || writer.write()).collect();
    let mut work: Vec<Workload<Error>> = work.iter_mut().map(|w| w as Workload<Error>).collect();
    meter::alternate(&mut work, WARM_ROUNDS)?;
    for (record, samples) in records.iter_mut().zip(meter::alternate(&mut work, ROUNDS)?) {
        record.measures.extend(meter::latency_measures(&samples));
        record.detail.samples.insert("latency".into(), samples);
    }
    Ok(())
}

/// Writes some tokens behind each of some texts, and says so after each token.
///
/// # Errors
/// When a model cannot continue a text, or memory is short.
pub(crate) fn continued(
    checkpoint: &Checkpoint,
    texts: &[String],
    cpu: &Cpu,
    written: &mut dyn FnMut(),
) -> Result<(), Error> {
    let tokenizer = checkpoint.tokenizer()?;
    for text in texts {
        let mut writer = Writer::new(checkpoint, &tokenizer.encode(text, MAX_WINDOW)?, cpu)?;
        written();
        for _ in 0..WARM_ROUNDS {
            writer.write()?;
            written();
        }
    }
    Ok(())
}

/// Writes one token after the other behind a text.
struct Writer {
    model: Sequences,
    slot: usize,
    given: usize,
    window: usize,
    next: u32,
}

impl Writer {
    fn new(checkpoint: &Checkpoint, tokens: &[u32], cpu: &Cpu) -> Result<Self, Error> {
        let window = checkpoint.model_config().max_length.clamp(2, MAX_WINDOW);
        let given = tokens.len().min(window / 2);
        let cache = checkpoint.parameters().cache_bytes(CacheKind::F32) * window as u64;
        Footprint::new("measure on a machine with more").and("keys and values", cache).check()?;
        let mut model = Sequences::new(Arc::new(checkpoint.model()?), cpu.clone(), window, CacheKind::F32);
        let slot = model.open();
        let piece = Piece { slot, tokens: &tokens[..given], logits: Logits::Last };
        let next = most_probable(model.pass(&[piece], None)?);
        Ok(Writer { model, slot, given, window, next })
    }

    fn write(&mut self) -> Result<(), Error> {
        if self.model.tokens(self.slot).len() == self.window {
            self.model.truncate(self.slot, self.given);
        }
        let piece = Piece { slot: self.slot, tokens: &[self.next], logits: Logits::Last };
        self.next = most_probable(self.model.pass(&[piece], None)?);
        Ok(())
    }
}
