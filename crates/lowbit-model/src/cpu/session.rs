//! Decoding: one sequence whose keys and values are kept.

use super::{CpuExec, Param};
use crate::exec::Batch;
use crate::{Error, Model};
use lowbit_kernels::Cpu;
use std::sync::Arc;

/// Tokens of one forward pass; longer prompts are fed in pieces, which bounds the memory for activations.
const PIECE: usize = 512;

/// Keys (with their rotary positions) and values of every layer.
#[derive(Debug)]
pub(super) struct Cache {
    layers: Vec<Layer>,
    len: usize,
    context: usize,
}

#[derive(Debug, Default)]
struct Layer {
    width: usize,
    /// `[tokens, kv_heads * head_dim]`
    keys: Vec<f32>,
    /// `[tokens, kv_heads * head_dim]`
    values: Vec<f32>,
}

impl Cache {
    /// Tokens whose keys and values are in all layers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds the rows of new tokens to a layer; returns all its keys and values. A layer's first call makes room for the
    /// whole context.
    pub fn append(&mut self, layer: usize, rows: usize, keys: &[f32], values: &[f32]) -> (&[f32], &[f32]) {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, Layer::default);
        }
        let (len, context) = (self.len, self.context);
        let layer = &mut self.layers[layer];
        layer.width = keys.len() / rows.max(1);
        for (all, new) in [(&mut layer.keys, keys), (&mut layer.values, values)] {
            all.truncate(len * layer.width);
            all.reserve_exact(context * layer.width - all.len());
            all.extend_from_slice(new);
        }
        (&layer.keys, &layer.values)
    }
}

/// Continues one sequence of a causal language model token by token.
pub struct Session {
    model: Arc<Model<Param>>,
    exec: CpuExec,
    batch: Batch,
    logits: Vec<f32>,
}

impl Session {
    /// An empty sequence of at most `context` tokens.
    pub fn new(model: Arc<Model<Param>>, cpu: Cpu, context: usize) -> Self {
        let mut exec = CpuExec::new(cpu);
        exec.cache = Some(Cache { layers: Vec::new(), len: 0, context });
        exec.last_only = true;
        Session { model, exec, batch: Batch::default(), logits: Vec::new() }
    }

    /// Number of tokens so far.
    pub fn tokens(&self) -> usize {
        self.cache().len
    }

    /// Most tokens it can hold.
    pub fn context(&self) -> usize {
        self.cache().context
    }

    /// Bytes of the keys and values of all tokens so far.
    pub fn cache_bytes(&self) -> usize {
        self.cache().layers.iter().map(|l| 2 * 4 * l.width * self.cache().len).sum()
    }

    /// Times a buffer was made or enlarged; constant once decoding is under way.
    pub fn buffer_growths(&self) -> u64 {
        self.exec.buffer_growths()
    }

    /// Keeps the first `tokens` tokens (all, when there are fewer).
    pub fn truncate(&mut self, tokens: usize) {
        let cache = self.exec.cache.as_mut().expect("a session has a cache");
        cache.len = cache.len.min(tokens);
    }

    /// Appends tokens; returns the logits after the last, `[vocabulary]`.
    ///
    /// # Errors
    /// When there are none, they exceed the context, one is outside the vocabulary, or the model is not a causal
    /// language model; the sequence is then as before.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        let (before, context) = (self.tokens(), self.context());
        if tokens.is_empty() {
            return Err(Error::usage("nothing to continue: give at least one token"));
        }
        if tokens.len() > context - before {
            let text = format!("{before} + {} tokens exceed the context of {context}", tokens.len());
            return Err(Error::usage(format!("{text}; shorten the text or raise the context")));
        }
        for piece in tokens.chunks(PIECE) {
            if let Err(e) = self.step(piece) {
                self.truncate(before);
                return Err(e);
            }
        }
        Ok(&self.logits)
    }

    fn step(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.batch.tokens.clear();
        self.batch.tokens.extend_from_slice(tokens);
        self.batch.starts.clear();
        self.batch.starts.extend([0, tokens.len()]);
        let logits = self.exec.forward(&self.model, &self.batch)?;
        let cache = self.exec.cache.as_mut().expect("a session has a cache");
        if cache.layers.is_empty() {
            return Err(Error::usage("this model has no attention and cannot continue a text; use it as a classifier"));
        }
        cache.len += tokens.len();
        self.logits.clear();
        logits.append_to(&mut self.logits);
        Ok(())
    }

    fn cache(&self) -> &Cache {
        self.exec.cache.as_ref().expect("a session has a cache")
    }
}
