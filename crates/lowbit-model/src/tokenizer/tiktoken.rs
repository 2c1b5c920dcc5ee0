//! `tokenizer.model` of tiktoken, as Llama 3 has it: one line per token, its bytes in base 64 and its rank.

use super::spm::Use;
use super::{MAX_VOCABULARY, Vocabulary, bpe};
use std::collections::HashMap;

/// Longest token, bytes.
const MAX_TOKEN: usize = 1024;
/// Control tokens of Llama 3, which its file does not name; reserved ones follow.
const CONTROLS: [&str; 10] = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|reserved_special_token_2|>",
    "<|reserved_special_token_3|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
];
const RESERVED: usize = 256;

/// Whether a file looks like one of tiktoken.
pub(super) fn is(file: &[u8]) -> bool {
    let line = file.split(|b| *b == b'\n').next().unwrap_or_default();
    line.len() < 2 * MAX_TOKEN && token(line).is_ok_and(|(bytes, _)| !bytes.is_empty())
}

/// Reads a file; ranks must fill 0..n without a gap.
///
/// # Errors
/// A sentence naming the line.
pub(super) fn parse(file: &[u8]) -> Result<Vocabulary, String> {
    let mut tokens: Vec<Vec<u8>> = Vec::new();
    let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
    for (i, line) in file.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let (bytes, rank) = token(line).map_err(|text| format!("line {}: {text}", i + 1))?;
        let fault = if tokens.len() == MAX_VOCABULARY {
            format!("the vocabulary has more than {MAX_VOCABULARY} tokens")
        } else if rank != tokens.len() {
            format!("rank {rank} follows {} tokens; ranks must be 0, 1, 2, ...", tokens.len())
        } else if let Some(first) = seen.insert(bytes.clone(), rank) {
            format!("the token has rank {rank}, but rank {first} before")
        } else {
            tokens.push(bytes);
            continue;
        };
        return Err(format!("line {}: {fault}", i + 1));
    }
    let mut v = Vocabulary {
        merges: bpe::merges_of(&tokens),
        tokens: tokens.iter().map(|token| bpe::spell(token)).collect(),
        add_bos: true,
        ..Vocabulary::default()
    };
    v.uses = vec![Use::Normal; v.tokens.len()];
    (v.bos, v.eos) = (Some(v.tokens.len() as u32), Some(v.tokens.len() as u32 + 1));
    v.tokens.extend(CONTROLS.map(String::from));
    v.tokens.extend((5..RESERVED - 5).map(|i| format!("<|reserved_special_token_{i}|>")));
    v.uses.resize(v.tokens.len(), Use::Control);
    if !bpe::covers_bytes(&v) {
        return Err("the vocabulary lacks some of the 256 single bytes".into());
    }
    Ok(v)
}

/// Bytes and rank of a line.
fn token(line: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8")?.trim_end();
    let (text, rank) = line.split_once(' ').ok_or("is not a token in base 64 and its rank")?;
    let rank = rank.parse().map_err(|_| "the rank is not a number")?;
    let bytes = base64(text).ok_or("the token is not base 64")?;
    if bytes.is_empty() || bytes.len() > MAX_TOKEN {
        return Err(format!("the token has {} bytes; it must have 1 to {MAX_TOKEN}", bytes.len()));
    }
    Ok((bytes, rank))
}

/// RFC 4648 with padding.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut buffer, mut bits) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn base_64_is_rfc_4648() {
        let cases = [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")];
        for (text, bytes) in cases {
            assert_eq!(super::base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for wrong in ["Z", "Zg=", "Zm9v=", "Z===", "Zm!v"] {
            assert_eq!(super::base64(wrong), None, "{wrong}");
        }
    }
}
