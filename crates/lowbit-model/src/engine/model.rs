//! What an engine asks of a language model.

use crate::Error;

/// A causal language model that continues sequences, each in a slot.
pub trait LanguageModel: Send {
    /// Most tokens of a sequence.
    fn context(&self) -> usize;
    /// Entries of the token table.
    fn vocabulary(&self) -> usize;
    /// Opens an empty sequence; returns its slot. The other functions panic when a slot is not open.
    fn open(&mut self) -> usize;
    /// Ends a sequence and frees its keys and values.
    fn close(&mut self, slot: usize);
    /// The tokens of a sequence so far.
    fn tokens(&self, slot: usize) -> &[u32];
    /// Keeps the first `tokens` tokens of a sequence (all, when there are fewer).
    fn truncate(&mut self, slot: usize, tokens: usize);
    /// Appends tokens to some sequences in one forward pass; returns the logits that were asked for, `[rows, vocabulary]`.
    /// Where there is one row, only its `largest` largest logits are wanted, if that is given: others may be minus infinity.
    ///
    /// # Errors
    /// When a sequence gets no token, is not open, is named twice or would exceed the context, a token is outside the
    /// vocabulary, or the model cannot continue a text; all sequences are then as before.
    fn pass(&mut self, pieces: &[Piece<'_>], largest: Option<usize>) -> Result<&[f32], Error>;
}

/// What a sequence gets in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The sequence.
    pub slot: usize,
    /// Its next tokens.
    pub tokens: &'a [u32],
    /// Which logits are wanted.
    pub logits: Logits,
}

/// The tokens of a piece whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None.
    None,
    /// The last token.
    Last,
    /// Every token.
    All,
}

impl Piece<'_> {
    /// Rows of logits.
    pub fn rows(&self) -> usize {
        match self.logits {
            Logits::None => 0,
            Logits::Last => 1,
            Logits::All => self.tokens.len(),
        }
    }
}

/// The error about a token that a table does not have.
pub(crate) fn unknown_token(token: u32, entries: usize) -> Error {
    let text = format!("token {token} is outside the table of {entries} entries");
    Error::usage(format!("{text}; use the model's own tokenizer"))
}
