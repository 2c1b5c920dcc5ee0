//! The model's words on stdout. A model is not trusted: what would move the cursor, ring or recolour is made visible.

use crate::terminal::Terminal;

/// Writes an answer as it comes.
pub struct Screen<'a> {
    terminal: &'a Terminal,
    /// Whether the last line is not ended.
    open: bool,
}

impl<'a> Screen<'a> {
    /// Of an answer that begins.
    pub fn new(terminal: &'a Terminal) -> Self {
        Screen { terminal, open: false }
    }

    /// Writes a piece of text at once.
    pub fn write(&mut self, piece: &str) {
        let shown = visible(piece);
        let Some(last) = shown.chars().last() else { return };
        self.open = last != '\n';
        self.terminal.text(&shown);
    }

    /// Ends the last line.
    pub fn end(&mut self) {
        if self.open {
            self.write("\n");
        }
    }
}

/// Text without control characters: newline and tab stay, carriage returns go, others become their pictures.
fn visible(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' | '\t' => Some(c),
        '\r' => None,
        '\0'..' ' => char::from_u32(0x2400 + c as u32),
        '\u{7f}' => Some('\u{2421}'),
        '\u{80}'..='\u{9f}' => Some(char::REPLACEMENT_CHARACTER),
        // Marks that reorder text on the line.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
        _ => Some(c),
    };
    text.chars().filter_map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        let text: String = (0..0x3000).filter_map(char::from_u32).collect();
        let shown = visible(&text);
        assert!(shown.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{shown:?}");
        assert_eq!(visible("\x1b[2J\x1b]0;t\x07 a\tb\r\n\u{9b}1m\u{202e}"), "␛[2J␛]0;t␇ a\tb\n\u{fffd}1m");
        assert_eq!(visible("naïve 😀 \u{5d0}\u{301}"), "naïve 😀 \u{5d0}\u{301}");
    }
}
