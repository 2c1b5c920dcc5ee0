//! Prompts from flags, files and pipes.

use crate::failure::Failure;
use std::io::Read;
use std::path::Path;

/// Longest prompt, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The content of a file, without the line end that files have.
///
/// # Errors
/// When it is no regular file, too long, or not UTF-8.
pub fn read(path: &Path) -> Result<String, Failure> {
    let bytes = lowbit_base::file::read(path, MAX_BYTES)?;
    text(bytes).map_err(|e| Failure::input(path, e))
}

/// What a pipe brings, without its last line end.
///
/// # Errors
/// When it is too long or not UTF-8.
pub fn stdin() -> Result<String, Failure> {
    let (name, mut bytes) = (Path::new("stdin"), Vec::new());
    let read = std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::io(name, &e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::input(name, format!("is longer than {MAX_BYTES} bytes")));
    }
    text(bytes).map_err(|e| Failure::input(name, e))
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    let mut text =
        String::from_utf8(bytes).map_err(|e| format!("is not UTF-8 at byte {}", e.utf8_error().valid_up_to()))?;
    for end in ['\n', '\r'] {
        if text.ends_with(end) {
            text.pop();
        }
    }
    Ok(text)
}

/// A text whose escapes are read as llama.cpp reads them: `\n`, `\r`, `\t`, `\'`, `\"`, `\\` and `\xHH`; others stay.
///
/// # Errors
/// When bytes written as `\xHH` are not UTF-8.
pub fn unescaped(text: &str) -> Result<String, Failure> {
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
        Failure::usage(format!("--escape: byte {at} of the text is not UTF-8; write characters, not their bytes"))
    })
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn escapes_are_those_of_llama_cpp() {
        for (text, want) in [
            (r"a\nb\tc\r", "a\nb\tc\r"),
            (r#"\\n \' \" \q \"#, r#"\n ' " \q \"#),
            (r"\x41\x4g\x4", r"A\x4g\x4"),
            (r"é\xc3\xa9你", "éé你"),
            ("", ""),
        ] {
            assert_eq!(unescaped(text).expect("UTF-8"), want, "{text}");
        }
        assert!(unescaped(r"a\xff").expect_err("no text").message.contains("byte 1 of the text is not UTF-8"));
    }
}
