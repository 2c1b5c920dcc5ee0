//! Classifying texts with a model directory.

use crate::exec::Batch;
use crate::{Checkpoint, CpuExec, Error, Model, Param, Tokenizer};
use lowbit_base::memory::Need;
use lowbit_kernels::Cpu;
use std::sync::Arc;

/// Tokens of one forward pass, about: bounds the memory for activations.
const BATCH_TOKENS: usize = 4096;

/// A text classifier: tokenizer, network, and the interpreter that runs it.
pub struct Classifier {
    model: Arc<Model<Param>>,
    tokenizer: Tokenizer,
    exec: CpuExec,
    labels: Vec<String>,
    max_length: usize,
}

impl Classifier {
    /// The classifier of a checkpoint.
    ///
    /// # Errors
    /// When the model is no classifier or its data are corrupt, or the tokenizer has more entries than the model.
    pub fn of(checkpoint: &Checkpoint, cpu: Cpu) -> Result<Self, Error> {
        refuse_language_model(checkpoint)?;
        Self::new(checkpoint, Arc::new(checkpoint.model()?), cpu)
    }

    /// A classifier of a network already made from a checkpoint.
    ///
    /// # Errors
    /// When the model is no classifier, or its tokenizer is missing or wrong.
    pub fn new(checkpoint: &Checkpoint, model: Arc<Model<Param>>, cpu: Cpu) -> Result<Self, Error> {
        refuse_language_model(checkpoint)?;
        let card = checkpoint.card();
        let tokenizer = checkpoint.tokenizer()?;
        let classes = card.config.classes().unwrap_or_default();
        let named = if card.labels.is_empty() {
            (0..classes).map(|class| class.to_string()).collect()
        } else {
            card.labels.clone()
        };
        let (labels, max_length) = (named, card.max_length);
        Ok(Classifier { model, tokenizer, exec: CpuExec::new(cpu), labels, max_length })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.labels.len()
    }

    /// Tokens of a text that the network sees, at most.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Memory that classifying takes beside the weights: the activations of a pass.
    pub fn with_pass(need: Need, checkpoint: &Checkpoint) -> Need {
        let tokens = BATCH_TOKENS + checkpoint.card().max_length.min(BATCH_TOKENS);
        need.and("activations", checkpoint.listing().pass_bytes(tokens, tokens))
    }

    /// Names of the classes, in the order of the logits; their numbers where the model has none.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens of a text as the network gets them: cut to the model's length, never none.
    ///
    /// # Errors
    /// When the tokenizer cannot encode the text.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, Error> {
        tokens(&self.tokenizer, text, self.max_length)
    }

    /// Logits of texts, `[texts, classes]`.
    ///
    /// # Errors
    /// When the tokenizer cannot encode a text; names its index.
    pub fn logits<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<f32>, Error> {
        let mut logits = Vec::new();
        let mut batch = Batch::default();
        for (i, text) in texts.iter().enumerate() {
            let ids = self.tokens(text.as_ref());
            let ids = ids.map_err(|e| Error { message: format!("text {i}: {}", e.message), ..e })?;
            batch.push(&ids);
            if batch.tokens.len() >= BATCH_TOKENS || i + 1 == texts.len() {
                self.exec.forward(&self.model, &batch)?.append_to(&mut logits);
                batch.refill([]);
            }
        }
        Ok(logits)
    }

    /// Logits of sequences of tokens, `[sequences, classes]`.
    ///
    /// # Errors
    /// When a sequence is empty or a token is outside the vocabulary.
    pub fn logits_of_batch(&mut self, batch: &Batch) -> Result<Vec<f32>, Error> {
        Ok(self.exec.forward(&self.model, batch)?.to_vec())
    }
}

/// The tokens of a text as a classifier gets them: cut to a length, never none.
///
/// # Errors
/// When the tokenizer cannot encode the text.
pub fn tokens(tokenizer: &Tokenizer, text: &str, max_length: usize) -> Result<Vec<u32>, Error> {
    let mut ids = tokenizer.encode(text, max_length)?;
    if ids.is_empty() {
        ids.push(tokenizer.padding());
    }
    Ok(ids)
}

fn refuse_language_model(checkpoint: &Checkpoint) -> Result<(), Error> {
    match checkpoint.card().config.classes() {
        Some(_) => Ok(()),
        None => {
            let text = format!("{}: a language model; it has no classes", checkpoint.directory().display());
            Err(Error::usage(text))
        }
    }
}
