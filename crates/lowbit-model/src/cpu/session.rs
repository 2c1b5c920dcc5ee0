//! Decoding: sequences whose keys and values are kept.

use super::{CpuExec, Param};
use crate::exec::{Attention, Batch, Past};
use crate::{Error, Model};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::{CacheKind, CacheRows, Cached};
use std::sync::Arc;

/// Tokens of one forward pass; longer prompts are fed in pieces, which bounds the memory for activations.
pub const PIECE: usize = 256;

/// Keys (with their rotary positions) and values of every layer of one sequence.
#[derive(Debug)]
pub(super) struct Cache {
    kind: CacheKind,
    layers: Vec<[CacheRows; 2]>,
    /// Tokens whose keys and values are in all layers.
    tokens: Vec<u32>,
    context: usize,
}

impl Cache {
    fn new(kind: CacheKind, context: usize) -> Self {
        Cache { kind, layers: Vec::new(), tokens: Vec::with_capacity(context), context }
    }

    pub fn past(&self) -> Past {
        Past { tokens: self.tokens.len(), last: self.tokens.last().copied() }
    }

    /// Most tokens it can hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Adds the rows of new tokens to a layer. A layer's first call makes room for the whole context.
    pub fn append(&mut self, layer: usize, spec: &Attention, keys: &[f32], values: &[f32]) {
        while self.layers.len() <= layer {
            let mut rows = CacheRows::new(self.kind, spec.kv_heads, spec.head_dim);
            rows.reserve(self.context);
            let mut more = CacheRows::new(self.kind, spec.kv_heads, spec.head_dim);
            more.reserve(self.context);
            self.layers.push([rows, more]);
        }
        for (rows, new) in self.layers[layer].iter_mut().zip([keys, values]) {
            rows.truncate(self.tokens.len());
            rows.push(new);
        }
    }

    /// The rows of a layer, the last `new` of which were just added.
    pub fn layer(&self, layer: usize, new: usize) -> Cached<'_> {
        let [keys, values] = &self.layers[layer];
        Cached { keys, values, new }
    }

    fn bytes(&self) -> usize {
        let rows = |rows: &CacheRows| rows.bytes() / rows.rows().max(1) * self.tokens.len();
        self.layers.iter().flatten().map(rows).sum()
    }
}

/// Continues several sequences of a causal language model together: one forward pass for all.
pub struct Sequences {
    model: Arc<Model<Param>>,
    exec: CpuExec,
    batch: Batch,
    logits: Vec<f32>,
}

impl Sequences {
    /// `count` empty sequences of at most `context` tokens each.
    pub fn new(model: Arc<Model<Param>>, cpu: Cpu, count: usize, context: usize, kind: CacheKind) -> Self {
        let mut exec = CpuExec::new(cpu);
        exec.caches.extend((0..count).map(|_| Cache::new(kind, context)));
        exec.last_only = true;
        Sequences { model, exec, batch: Batch::default(), logits: Vec::new() }
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.exec.caches.len()
    }

    /// Number of tokens of a sequence so far.
    ///
    /// # Panics
    /// When there is no such sequence; so do the other functions that take one.
    pub fn tokens(&self, sequence: usize) -> usize {
        self.exec.caches[sequence].tokens.len()
    }

    /// Most tokens a sequence can hold.
    pub fn context(&self) -> usize {
        self.exec.caches.first().map_or(0, |cache| cache.context)
    }

    /// Bytes of the keys and values of all tokens so far.
    pub fn cache_bytes(&self) -> usize {
        self.exec.caches.iter().map(Cache::bytes).sum()
    }

    /// Keeps the first `tokens` tokens of a sequence (all, when there are fewer).
    pub fn truncate(&mut self, sequence: usize, tokens: usize) {
        self.exec.caches[sequence].tokens.truncate(tokens);
    }

    /// Appends tokens to some sequences, given as (sequence, tokens); returns the logits after the last of each,
    /// `[pieces, vocabulary]`. Give at most [`PIECE`] tokens in all to bound the memory for activations.
    ///
    /// # Errors
    /// When a sequence gets none, is named twice or would exceed the context, a token is outside the vocabulary, or the model
    /// is not a causal language model; all sequences are then as before.
    pub fn feed(&mut self, pieces: &[(usize, &[u32])]) -> Result<&[f32], Error> {
        self.exec.last_only = true;
        self.logits.clear();
        self.step(pieces)?;
        Ok(&self.logits)
    }

    /// One forward pass; its logits are appended.
    fn step(&mut self, pieces: &[(usize, &[u32])]) -> Result<(), Error> {
        self.check(pieces)?;
        self.batch.refill(pieces.iter().map(|(_, new)| *new));
        self.exec.slots.clear();
        self.exec.slots.extend(pieces.iter().map(|(sequence, _)| *sequence));
        let logits = self.exec.forward(&self.model, &self.batch)?;
        if self.exec.caches[pieces[0].0].layers.is_empty() {
            return Err(Error::usage("this model has no attention and cannot continue a text; use it as a classifier"));
        }
        for (sequence, new) in pieces {
            self.exec.caches[*sequence].tokens.extend_from_slice(new);
        }
        logits.append_to(&mut self.logits);
        Ok(())
    }

    fn check(&self, pieces: &[(usize, &[u32])]) -> Result<(), Error> {
        if pieces.is_empty() || pieces.iter().any(|(_, new)| new.is_empty()) {
            return Err(Error::usage("nothing to continue: give at least one token"));
        }
        for (i, (sequence, new)) in pieces.iter().enumerate() {
            if *sequence >= self.count() || pieces[..i].iter().any(|(earlier, _)| earlier == sequence) {
                let text = format!("sequence {sequence} of {}", self.count());
                return Err(Error::usage(format!("{text} is named twice or is not there; name each once")));
            }
            let (before, context) = (self.tokens(*sequence), self.context());
            if new.len() > context - before {
                let text = format!("{before} + {} tokens exceed the context of {context}", new.len());
                return Err(Error::usage(format!("{text}; shorten the text or raise the context")));
            }
        }
        Ok(())
    }
}

/// Continues one sequence of a causal language model token by token.
pub struct Session(Sequences);

impl Session {
    /// An empty sequence of at most `context` tokens, keys and values in f32.
    pub fn new(model: Arc<Model<Param>>, cpu: Cpu, context: usize) -> Self {
        Self::with_cache(model, cpu, context, CacheKind::F32)
    }

    /// An empty sequence of at most `context` tokens, keys and values stored as `kind`.
    pub fn with_cache(model: Arc<Model<Param>>, cpu: Cpu, context: usize, kind: CacheKind) -> Self {
        Session(Sequences::new(model, cpu, 1, context, kind))
    }

    /// Number of tokens so far.
    pub fn tokens(&self) -> usize {
        self.0.tokens(0)
    }

    /// Most tokens it can hold.
    pub fn context(&self) -> usize {
        self.0.context()
    }

    /// Bytes of the keys and values of all tokens so far.
    pub fn cache_bytes(&self) -> usize {
        self.0.cache_bytes()
    }

    /// Says that only the `k` largest logits of a token fed alone are wanted from now on, if not all: the others may be minus
    /// infinity. Heads in some formats are then read in part (`bf16_scan`).
    pub fn want(&mut self, k: Option<usize>) {
        self.0.exec.largest = k;
    }

    /// Bytes of the head's weights read so far while only the largest logits were wanted.
    pub fn largest_bytes(&self) -> u64 {
        self.0.exec.largest_bytes
    }

    /// Times a buffer was made or enlarged; constant once decoding is under way.
    pub fn buffer_growths(&self) -> u64 {
        self.0.exec.buffer_growths()
    }

    /// Keeps the first `tokens` tokens (all, when there are fewer).
    pub fn truncate(&mut self, tokens: usize) {
        self.0.truncate(0, tokens);
    }

    /// Appends tokens; returns the logits after the last, `[vocabulary]`.
    ///
    /// # Errors
    /// When there are none, they exceed the context, one is outside the vocabulary, or the model is not a causal
    /// language model; the sequence is then as before.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        self.0.exec.last_only = true;
        self.append(tokens)
    }

    /// Appends tokens; returns the logits after each, `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// As for [`Session::feed`].
    pub fn feed_all(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        self.0.exec.last_only = false;
        self.append(tokens)
    }

    fn append(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        self.0.check(&[(0, tokens)])?;
        let before = self.tokens();
        self.0.logits.clear();
        for piece in tokens.chunks(PIECE) {
            if self.0.exec.last_only {
                self.0.logits.clear();
            }
            if let Err(e) = self.0.step(&[(0, piece)]) {
                self.truncate(before);
                return Err(e);
            }
        }
        Ok(&self.0.logits)
    }

    /// Appends the keys and values of all tokens, as they are stored, layer after layer; then, for those whose numbers have
    /// factors, which they are (u32, counted over layers) and the factors.
    pub fn write_cache(&self, out: &mut Vec<u8>) {
        let cache = &self.0.exec.caches[0];
        cache.layers.iter().flatten().for_each(|rows| rows.write(cache.tokens.len(), out));
        for (i, rows) in cache.layers.iter().flatten().enumerate() {
            let mut factors = Vec::new();
            rows.write_factors(cache.tokens.len(), &mut factors);
            if !factors.is_empty() {
                out.extend((i as u32).to_le_bytes());
                out.append(&mut factors);
            }
        }
    }

    /// Bytes that [`Session::write_cache`] appends for a token, per list of rows, once the layers are known.
    fn row_bytes(&self) -> Vec<usize> {
        self.0.exec.caches[0].layers.iter().flatten().map(|rows| rows.bytes() / rows.rows().max(1)).collect()
    }

    /// Replaces the sequence by tokens whose keys and values [`Session::write_cache`] wrote; `false`, and the
    /// sequence is empty, when they are not of this model, kind and context.
    ///
    /// # Errors
    /// When the model is not a causal language model.
    pub fn read_cache(&mut self, tokens: &[u32], mut bytes: &[u8]) -> Result<bool, Error> {
        // A pass makes the layers, whose shapes only the model knows.
        self.truncate(0);
        self.feed(&[0])?;
        self.truncate(0);
        if tokens.len() > self.context() {
            return Ok(false);
        }
        let lengths: Vec<usize> = self.row_bytes().into_iter().map(|row| row * tokens.len()).collect();
        if lengths.iter().sum::<usize>() > bytes.len() {
            return Ok(false);
        }
        let cache = &mut self.0.exec.caches[0];
        for (rows, len) in cache.layers.iter_mut().flatten().zip(lengths) {
            let (mine, rest) = bytes.split_at(len);
            if !rows.read(tokens.len(), mine) {
                return Ok(false);
            }
            bytes = rest;
        }
        let mut all: Vec<_> = cache.layers.iter_mut().flatten().collect();
        let mut next = 0;
        while let Some((at, rest)) = bytes.split_first_chunk::<4>() {
            let at = u32::from_le_bytes(*at) as usize;
            let Some(rows) = all.get_mut(at).filter(|_| at >= next) else { return Ok(false) };
            let Some((factors, rest)) = rest.split_at_checked(rows.factor_bytes(tokens.len())) else {
                return Ok(false);
            };
            if !rows.read_factors(factors) {
                return Ok(false);
            }
            (bytes, next) = (rest, at + 1);
        }
        if !bytes.is_empty() {
            return Ok(false);
        }
        all.into_iter().for_each(|rows| rows.reserve(cache.context));
        cache.tokens.extend_from_slice(tokens);
        Ok(true)
    }
}
