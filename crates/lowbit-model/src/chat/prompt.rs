//! From a chat to tokens: added tokens come from the template alone, never from what was said.

use super::{Message, Template, plain};
use crate::{Error, Tokenizer};

/// The tokens of a chat up to where the model answers. Without a template they are those of the last thing said, to be
/// continued. What spells an added token in a turn, special or not, is text, and so is what a turn and the template spell
/// together.
///
/// # Errors
/// When the template refuses the chat, or the tokenizer a text.
pub fn tokens(tokenizer: &Tokenizer, template: Option<&Template>, messages: &[Message]) -> Result<Vec<u32>, Error> {
    let Some(template) = template else {
        return tokenizer.encode(plain(messages), usize::MAX);
    };
    let parts = template.parts(messages, true)?;
    let parts: Vec<(&str, bool)> = parts.iter().map(|(text, written)| (text.as_str(), *written)).collect();
    let ids = tokenizer.encode_parts(&parts)?;
    Ok(if template.settings.begins { begun(tokenizer, ids) } else { ids })
}

/// The tokens of a text to continue in which names of added tokens are these tokens, as llama.cpp reads the prompt of a
/// completion.
///
/// # Errors
/// When the tokenizer refuses the text.
pub fn raw_tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    Ok(begun(tokenizer, tokenizer.encode_parts(&[(text, true)])?))
}

/// The tokens of a text after the one that begins every text, if there is one.
fn begun(tokenizer: &Tokenizer, mut ids: Vec<u32>) -> Vec<u32> {
    if let Some(bos) = tokenizer.bos().filter(|bos| ids.first() != Some(bos)) {
        ids.insert(0, bos);
    }
    ids
}
