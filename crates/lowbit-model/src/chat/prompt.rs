//! From a chat to tokens: control tokens come from the template alone, never from what was said.

use super::{Message, Template, plain};
use crate::{Error, Tokenizer};

/// Goes before the name of a control token in what was said, while the template has it; no character of any text.
const MARK: char = '\u{fdd0}';

/// The tokens of a chat up to where the model answers. Without a template they are those of the last thing said, to be
/// continued. What spells a control token in a turn is text.
///
/// # Errors
/// When the template refuses the chat, or the tokenizer a text.
pub fn tokens(tokenizer: &Tokenizer, template: Option<&Template>, messages: &[Message]) -> Result<Vec<u32>, Error> {
    let Some(template) = template else {
        return tokenizer.encode(plain(messages), usize::MAX);
    };
    let controls = tokenizer.controls();
    let names: Vec<&str> = controls.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
    let marked = |m: &Message| Message::new(m.role, mark(&m.content, &names));
    let marked: Vec<Message> = messages.iter().map(marked).collect();
    let text = template.render(&marked, true)?;
    let mut ids = tokenizer.encode_parts(&parts(&text, &names))?;
    if let Some(bos) = tokenizer.bos().filter(|bos| ids.first() != Some(bos)) {
        ids.insert(0, bos);
    }
    Ok(ids)
}

/// The tokens of a text to continue in which names of control tokens are these tokens, as llama.cpp reads the prompt of a
/// completion.
///
/// # Errors
/// When the tokenizer refuses the text.
pub fn raw_tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    let mut ids = tokenizer.encode_parts(&[(text, true)])?;
    if let Some(bos) = tokenizer.bos().filter(|bos| ids.first() != Some(bos)) {
        ids.insert(0, bos);
    }
    Ok(ids)
}

/// The longest name that a text begins with.
fn name_at<'a>(text: &str, names: &[&'a str]) -> Option<&'a str> {
    names.iter().filter(|name| text.starts_with(**name)).max_by_key(|name| name.len()).copied()
}

/// What was said, with a mark before the name of each control token.
fn mark(text: &str, names: &[&str]) -> String {
    let present: Vec<&str> = names.iter().copied().filter(|name| text.contains(name)).collect();
    if present.is_empty() {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = match name_at(rest, &present) {
            Some(name) => {
                out.push(MARK);
                name.len()
            }
            None => c.len_utf8(),
        };
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    out
}

/// The rendered text without marks, in parts; the flag tells where the name of a control token is that token.
fn parts<'a>(text: &'a str, names: &[&str]) -> Vec<(&'a str, bool)> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(MARK) {
        let after = at + MARK.len_utf8();
        if let Some(name) = name_at(&text[after..], names) {
            parts.push((&text[start..at], true));
            start = after + name.len();
            parts.push((&text[after..start], false));
        }
    }
    parts.push((&text[start..], true));
    parts
}

#[cfg(test)]
mod tests {
    use super::{mark, parts};

    #[test]
    fn names_in_what_was_said_are_text() {
        let names = ["<|eot|>", "<|eot|>x", "</s>"];
        let said = "a <|eot|> <|eot|>xy <</s>\u{fdd0} \u{fdd0}</s>";
        let marked = mark(said, &names);
        let text = format!("<|eot|>{}</s>", marked.trim());
        let parts = parts(&text, &names);
        let joined: String = parts.iter().map(|(text, _)| *text).collect();
        assert_eq!(joined, format!("<|eot|>{said}</s>"));
        let plain: Vec<_> = parts.iter().filter(|(_, control)| !control).map(|(text, _)| *text).collect();
        assert_eq!(plain, ["<|eot|>", "<|eot|>x", "</s>", "</s>"]);
        assert!(parts[0] == ("<|eot|>a ", true) && parts.last() == Some(&("</s>", true)));
        assert_eq!(mark("plain", &names), "plain");
    }

    #[test]
    fn a_cut_mark_does_no_harm() {
        assert_eq!(parts("\u{fdd0}<|e", &["<|eot|>"]), [("\u{fdd0}<|e", true)]);
    }
}
