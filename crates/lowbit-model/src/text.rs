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

/// A text whose escapes are read as llama.cpp reads them: `\n`, `\r`, `\t`, `\'`, `\"`, `\\` and `\xHH`; others stay.
///
/// # Errors
/// When bytes written as `\xHH` are not UTF-8.
pub fn unescaped(text: &str) -> Result<String, Error> {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 2..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let hex = hex.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let (value, taken) = match (byte, bytes.get(at + 1)) {
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(quoted @ (b'\'' | b'"' | b'\\'))) => (*quoted, 2),
            (b'\\', Some(b'x')) if hex.is_some() => {
                (hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default(), 4)
            }
            _ => (*byte, 1),
        };
        out.push(value);
        at += taken;
    }
    String::from_utf8(out).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::usage(format!("--escape: byte {at} of the text is not UTF-8; write characters, not their bytes"))
    })
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn escapes_are_those_of_llama_cpp() {
        for (text, expected) in [
            (r"a\nb\tc\r", "a\nb\tc\r"),
            (r#"\\n \' \" \q \"#, r#"\n ' " \q \"#),
            (r"\x41\x4g\x4", r"A\x4g\x4"),
            (r"é\xc3\xa9你", "éé你"),
            ("", ""),
        ] {
            assert_eq!(unescaped(text).expect("UTF-8"), expected, "{text}");
        }
        assert!(unescaped(r"a\xff").expect_err("no text").message.contains("byte 1 of the text is not UTF-8"));
    }
}
