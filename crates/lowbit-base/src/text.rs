//! Hexadecimal, and text that is safe to print.

use std::borrow::Cow;
use std::fmt::Write;

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut out, byte| {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A text whose control characters are escaped, so that nothing a file holds reaches a terminal as a command.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match is_unsafe(c) {
        true => c.escape_debug().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Control characters, and those that turn the direction of text around.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Seconds as a person would say them.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(hex([0, 0x0f, 0xf0, 0xff]), "000ff0ff");
        assert_eq!(hex([]), "");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("plain, grün"), "plain, grün");
        assert_eq!(escaped("a\u{1b}]0;x\u{7}\r\n\u{9b}\u{202e}"), "a\\u{1b}]0;x\\u{7}\\r\\n\\u{9b}\\u{202e}");
    }
}
