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
    /// A new sequence that begins with the first `tokens` tokens of another; none where the model cannot copy them.
    fn fork(&mut self, _slot: usize, _tokens: usize) -> Option<usize> {
        None
    }
    /// Bytes of memory that a sequence takes.
    fn bytes(&self, _slot: usize) -> usize {
        0
    }
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

/// Tokens of the passes that are compared before passes of several tokens are trusted.
const PROBE: usize = 33;

/// Whether passes of several tokens give the bits of passes of one.
///
/// # Errors
/// When the model cannot continue a text.
pub fn is_exact(model: &mut impl LanguageModel) -> Result<bool, Error> {
    let (together, single) = (model.open(), model.open());
    let exact = probe(model, together, single);
    model.close(together);
    model.close(single);
    exact
}

/// Compares a pass of many tokens with passes of one at its begin and its end.
fn probe(model: &mut impl LanguageModel, together: usize, single: usize) -> Result<bool, Error> {
    let (count, vocabulary) = (PROBE.min(model.context()), model.vocabulary());
    let tokens: Vec<u32> = (0..count).map(|i| (i * 7 % vocabulary) as u32).collect();
    let piece = |slot, tokens, logits| [Piece { slot, tokens, logits }];
    let many = model.pass(&piece(together, &tokens, Logits::All), None)?.to_vec();
    let rows: Vec<&[f32]> = many.chunks_exact(many.len() / count).collect();
    let mut exact = true;
    for i in 0..count {
        let one = std::slice::from_ref(&tokens[i]);
        if i < 2 || i + 1 == count {
            let alone = model.pass(&piece(single, one, Logits::All), None)?;
            exact &= alone.iter().zip(rows[i]).all(|(a, b)| a.to_bits() == b.to_bits());
        } else if i == 2 {
            model.pass(&piece(single, &tokens[2..count - 1], Logits::None), None)?;
        }
    }
    Ok(exact)
}

/// The error about a token that a table does not have.
pub(crate) fn unknown_token(token: u32, entries: usize) -> Error {
    let text = format!("token {token} is outside the table of {entries} entries");
    Error::usage(format!("{text}; use the model's own tokenizer"))
}
