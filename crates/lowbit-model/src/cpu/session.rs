//! Decoding: sequences whose keys and values are kept.

use super::cache::{Cache, Layout};
use super::{CpuExec, Param};
use crate::engine::{LanguageModel, Logits, Piece};
use crate::exec::{Batch, Index};
use crate::trace::{Op, trace};
use crate::{Error, Model};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use std::sync::Arc;

/// Tokens of one forward pass; longer prompts are fed in pieces, which bounds the memory for activations.
pub const PREFILL_CHUNK: usize = 256;

/// Sequences of a causal language model on the CPU.
pub struct Sequences {
    model: Arc<Model<Param>>,
    exec: CpuExec,
    layout: Layout,
    vocabulary: usize,
    /// Why the model cannot continue a text, if it cannot.
    refusal: Option<&'static str>,
    batch: Batch,
    logits: Vec<f32>,
}

impl Sequences {
    /// No sequence yet; each will hold at most `context` tokens, keys and values stored as `kind`.
    pub fn new(model: Arc<Model<Param>>, cpu: Cpu, context: usize, kind: CacheKind) -> Self {
        let (mut heads, mut vocabulary, mut refusal) = (Vec::new(), 0, None);
        trace(&model, |op| match op {
            Op::Embed { table, index: Index::Tokens } => vocabulary = table.matrix().rows(),
            Op::Attend(spec) => {
                heads.push((spec.kv_heads, spec.head_dim));
                if !spec.causal {
                    refusal = Some("this model looks both ways and cannot continue a text; use it as a classifier");
                }
            }
            Op::Pool(_) => {
                refusal.get_or_insert("this model gives one answer per text and cannot continue one");
            }
            _ => {}
        });
        if heads.is_empty() {
            refusal = Some("this model has no attention and cannot continue a text; use it as a classifier");
        }
        let layout = Layout { kind, heads: heads.into(), context };
        let (exec, batch) = (CpuExec::new(cpu), Batch::default());
        Sequences { model, exec, layout, vocabulary, refusal, batch, logits: Vec::new() }
    }

    /// How keys and values are stored.
    pub fn kind(&self) -> CacheKind {
        self.layout.kind
    }

    /// The network.
    pub fn model(&self) -> &Arc<Model<Param>> {
        &self.model
    }

    /// Bytes of the keys and values of all tokens so far.
    pub fn cache_bytes(&self) -> usize {
        self.exec.caches.iter().flatten().map(Cache::bytes).sum()
    }

    /// Bytes of memory taken for keys and values: whole blocks of 256 tokens.
    pub fn cache_allocated(&self) -> usize {
        self.exec.caches.iter().flatten().map(Cache::allocated).sum()
    }

    /// Bytes of the head's weights read so far while only the largest logits were wanted.
    pub fn largest_bytes(&self) -> u64 {
        self.exec.largest_bytes
    }

    /// Times a buffer was made or enlarged; constant once decoding is under way.
    pub fn buffer_growths(&self) -> u64 {
        self.exec.buffer_growths()
    }

    /// Appends the keys and values of all tokens of a sequence, as they are stored, layer after layer.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn write_cache(&self, slot: usize, out: &mut Vec<u8>) {
        self.cache(slot).write(out);
    }

    /// Replaces a sequence by tokens whose keys and values [`Sequences::write_cache`] wrote; `false`, and the sequence is
    /// empty, when they are not of this model, kind and context.
    pub fn read_cache(&mut self, slot: usize, tokens: &[u32], bytes: &[u8]) -> bool {
        let read = Cache::read(&self.layout, tokens, bytes);
        let fits = read.is_some();
        self.exec.caches[slot] = Some(read.unwrap_or_else(|| Cache::new(&self.layout)));
        fits
    }

    fn cache(&self, slot: usize) -> &Cache {
        self.exec.caches[slot].as_ref().expect("the sequence is open")
    }

    fn check(&self, pieces: &[Piece<'_>]) -> Result<(), Error> {
        if let Some(refusal) = self.refusal {
            return Err(Error::usage(refusal));
        }
        if pieces.is_empty() || pieces.iter().any(|piece| piece.tokens.is_empty()) {
            return Err(Error::usage("nothing to continue: give at least one token"));
        }
        for (i, piece) in pieces.iter().enumerate() {
            let slot = piece.slot;
            let Some(Some(cache)) = self.exec.caches.get(slot) else {
                return Err(Error::usage(format!("sequence {slot} is not open")));
            };
            if pieces[..i].iter().any(|earlier| earlier.slot == slot) {
                return Err(Error::usage(format!("sequence {slot} is named twice; name each once")));
            }
            let (before, new, context) = (cache.tokens().len(), piece.tokens.len(), self.layout.context);
            if new > context - before {
                let text = format!("{before} + {new} tokens exceed the context of {context}");
                return Err(Error::usage(format!("{text}; shorten the text or raise the context")));
            }
        }
        Ok(())
    }

    /// One forward pass; its logits are appended to `self.logits`.
    fn append(&mut self, pieces: &[Piece<'_>], largest: Option<usize>) -> Result<(), Error> {
        self.check(pieces)?;
        self.batch.refill(pieces.iter().map(|piece| piece.tokens));
        let exec = &mut self.exec;
        exec.slots.clear();
        exec.slots.extend(pieces.iter().map(|piece| piece.slot));
        let rows = exec.logit_rows.get_or_insert_default();
        rows.clear();
        for (piece, span) in pieces.iter().zip(self.batch.cu_seqlens.windows(2)) {
            rows.extend(match piece.logits {
                Logits::None => span[1]..span[1],
                Logits::Last => span[1] - 1..span[1],
                Logits::All => span[0]..span[1],
            });
        }
        exec.largest = largest;
        let logits = exec.forward(&self.model, &self.batch)?;
        for piece in pieces {
            exec.caches[piece.slot].as_mut().expect("checked").extend(piece.tokens);
        }
        logits.append_to(&mut self.logits);
        Ok(())
    }
}

impl LanguageModel for Sequences {
    fn context(&self) -> usize {
        self.layout.context
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn open(&mut self) -> usize {
        let caches = &mut self.exec.caches;
        let slot = caches.iter().position(Option::is_none).unwrap_or_else(|| {
            caches.push(None);
            caches.len() - 1
        });
        caches[slot] = Some(Cache::new(&self.layout));
        slot
    }

    fn close(&mut self, slot: usize) {
        self.exec.caches[slot] = None;
    }

    fn tokens(&self, slot: usize) -> &[u32] {
        self.cache(slot).tokens()
    }

    fn truncate(&mut self, slot: usize, tokens: usize) {
        self.exec.caches[slot].as_mut().expect("the sequence is open").truncate(tokens);
    }

    fn fork(&mut self, slot: usize, tokens: usize) -> Option<usize> {
        let copy = self.cache(slot).copy(&self.layout, tokens)?;
        let slot = self.open();
        self.exec.caches[slot] = Some(copy);
        Some(slot)
    }

    fn bytes(&self, slot: usize) -> usize {
        self.cache(slot).allocated()
    }

    fn pass(&mut self, pieces: &[Piece<'_>], largest: Option<usize>) -> Result<&[f32], Error> {
        self.logits.clear();
        self.append(pieces, largest)?;
        Ok(&self.logits)
    }
}

/// Continues one sequence of a causal language model token by token.
pub struct Session {
    sequences: Sequences,
    slot: usize,
    largest: Option<usize>,
}

impl Session {
    /// An empty sequence of at most `context` tokens, keys and values in f32.
    pub fn new(model: Arc<Model<Param>>, cpu: Cpu, context: usize) -> Self {
        Self::with_cache(model, cpu, context, CacheKind::F32)
    }

    /// An empty sequence of at most `context` tokens, keys and values stored as `kind`.
    pub fn with_cache(model: Arc<Model<Param>>, cpu: Cpu, context: usize, kind: CacheKind) -> Self {
        let mut sequences = Sequences::new(model, cpu, context, kind);
        let slot = sequences.open();
        Session { sequences, slot, largest: None }
    }

    /// Number of tokens so far.
    pub fn tokens(&self) -> usize {
        self.sequences.tokens(self.slot).len()
    }

    /// Most tokens it can hold.
    pub fn context(&self) -> usize {
        self.sequences.context()
    }

    /// Bytes of the keys and values of all tokens so far.
    pub fn cache_bytes(&self) -> usize {
        self.sequences.cache_bytes()
    }

    /// Says that only the `k` largest logits of a token fed alone are wanted from now on, if not all: the others may be minus
    /// infinity. Heads in some formats are then read in part (`bf16_scan`).
    pub fn keep_largest(&mut self, k: Option<usize>) {
        self.largest = k;
    }

    /// Bytes of the head's weights read so far while only the largest logits were wanted.
    pub fn largest_bytes(&self) -> u64 {
        self.sequences.largest_bytes()
    }

    /// Times a buffer was made or enlarged; constant once decoding is under way.
    pub fn buffer_growths(&self) -> u64 {
        self.sequences.buffer_growths()
    }

    /// Keeps the first `tokens` tokens (all, when there are fewer).
    pub fn truncate(&mut self, tokens: usize) {
        self.sequences.truncate(self.slot, tokens);
    }

    /// Appends tokens; returns the logits after the last, `[vocabulary]`.
    ///
    /// # Errors
    /// When there are none, they exceed the context, one is outside the vocabulary, or the model is not a causal
    /// language model; the sequence is then as before.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        self.append(tokens, [Logits::None, Logits::Last])
    }

    /// Appends tokens; returns the logits after each, `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// As for [`Session::feed`].
    pub fn feed_all(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        self.append(tokens, [Logits::All, Logits::All])
    }

    /// Appends tokens in pieces; `of` tells which logits of a piece are wanted, and which of the last one.
    fn append(&mut self, tokens: &[u32], of: [Logits; 2]) -> Result<&[f32], Error> {
        let (slot, before) = (self.slot, self.tokens());
        self.sequences.check(&[Piece { slot, tokens, logits: Logits::Last }])?;
        self.sequences.logits.clear();
        let count = tokens.len().div_ceil(PREFILL_CHUNK);
        for (i, piece) in tokens.chunks(PREFILL_CHUNK).enumerate() {
            let piece = Piece { slot, tokens: piece, logits: of[usize::from(i + 1 == count)] };
            if let Err(e) = self.sequences.append(&[piece], self.largest) {
                self.truncate(before);
                return Err(e);
            }
        }
        Ok(&self.sequences.logits)
    }

    /// Appends the keys and values of all tokens, as they are stored, layer after layer; then, for those whose numbers have
    /// factors, which they are (u32, counted over layers) and the factors.
    pub fn write_cache(&self, out: &mut Vec<u8>) {
        self.sequences.write_cache(self.slot, out);
    }

    /// Replaces the sequence by tokens whose keys and values [`Session::write_cache`] wrote; `false`, and the sequence is
    /// empty, when they are not of this model, kind and context.
    pub fn read_cache(&mut self, tokens: &[u32], bytes: &[u8]) -> bool {
        self.sequences.read_cache(self.slot, tokens, bytes)
    }
}
