//! Texts as networks get them.

use crate::{Error, Tokenizer};

/// The tokens of a text as a network that reads whole texts gets them: cut to a length, never none.
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
