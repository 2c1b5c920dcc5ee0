//! Bytes of tokens to text as it comes: whole characters, and nothing of a stop string.

/// Collects the text of an answer.
pub(crate) struct Stream {
    stops: Vec<String>,
    /// Bytes that began a character and do not end it.
    bytes: Vec<u8>,
    /// Text that may begin a stop string.
    held: String,
    /// Text that was released.
    text: String,
}

impl Stream {
    pub fn new(stops: Vec<String>) -> Self {
        Stream { stops, bytes: Vec::new(), held: String::new(), text: String::new() }
    }

    /// Adds the bytes of a token; returns what is released, and whether a stop string was met, which ends the text.
    pub fn push(&mut self, bytes: &[u8]) -> (&str, bool) {
        self.bytes.extend_from_slice(bytes);
        self.decode(false);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.held.truncate(at);
            self.bytes.clear();
            return (self.release(0), true);
        }
        let keep = self.stops.iter().map(|stop| begun(&self.held, stop)).max().unwrap_or(0);
        (self.release(keep), false)
    }

    /// The rest of the text: no token follows.
    pub fn finish(&mut self) -> &str {
        self.decode(true);
        self.release(0)
    }

    /// All text that was released.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Moves whole characters from the bytes to the held text; what is no UTF-8 becomes U+FFFD, at the end also what may
    /// have become a character.
    fn decode(&mut self, end: bool) {
        let mut used = 0;
        for chunk in self.bytes.utf8_chunks() {
            self.held.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            let open = used + invalid.len() == self.bytes.len() && is_open(invalid);
            if !invalid.is_empty() && (end || !open) {
                self.held.push(char::REPLACEMENT_CHARACTER);
                used += invalid.len();
            }
        }
        self.bytes.drain(..used);
    }

    /// Releases all but the last `keep` bytes of the held text.
    fn release(&mut self, keep: usize) -> &str {
        let (at, rest) = (self.text.len(), self.held.split_off(self.held.len() - keep));
        self.text.push_str(&self.held);
        self.held = rest;
        &self.text[at..]
    }
}

/// Whether more bytes can make a character of these, which are the begin of none that is whole.
fn is_open(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

/// Bytes at the end of `text` that begin `stop`.
fn begun(text: &str, stop: &str) -> usize {
    let longest = stop.len().saturating_sub(1).min(text.len());
    (1..=longest)
        .rev()
        .find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n]) && text.is_char_boundary(text.len() - n))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Stream;

    /// Feeds pieces; what came out piece by piece, with `|` where a stop string was met.
    fn run(stops: &[&str], pieces: &[&[u8]]) -> Vec<String> {
        let mut stream = Stream::new(stops.iter().map(|s| s.to_string()).collect());
        let mut out = Vec::new();
        for piece in pieces {
            let (text, stopped) = stream.push(piece);
            out.push(format!("{text}{}", if stopped { "|" } else { "" }));
            if stopped {
                break;
            }
        }
        out.push(stream.finish().to_string());
        assert_eq!(stream.into_text(), out.concat().replace('|', ""));
        out
    }

    #[test]
    fn characters_are_whole() {
        let bytes = "aé€😀".as_bytes();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(run(&[], &single), ["a", "", "é", "", "", "€", "", "", "", "😀", ""]);
        assert_eq!(run(&[], &[b"", &bytes[..2], &bytes[2..]]), ["", "a", "é€😀", ""]);
    }

    #[test]
    fn what_is_no_text_is_marked() {
        assert_eq!(run(&[], &[b"\xff", b"a\x80"]), ["\u{fffd}", "a\u{fffd}", ""]);
        assert_eq!(run(&[], &[b"\xe2\x82", b"x"]), ["", "\u{fffd}x", ""]);
        assert_eq!(run(&[], &[b"x\xf0\x9f\x98"]), ["x", "\u{fffd}"]);
    }

    #[test]
    fn stop_strings_are_never_shown() {
        assert_eq!(run(&["END"], &[b"an E", b"N", b"D of it"]), ["an ", "", "|", ""]);
        assert_eq!(run(&["END"], &[b"an E", b"N", b"d"]), ["an ", "", "ENd", ""]);
        assert_eq!(run(&["END"], &[b"an E", b"N"]), ["an ", "", "EN"]);
        assert_eq!(run(&["aab"], &[b"a", b"a", b"a", b"b"]), ["", "", "a", "|", ""]);
        assert_eq!(run(&["yz", "x"], &[b"ayzx"]), ["a|", ""]);
        assert_eq!(run(&["abcd", "bc"], &[b"ab", b"c"]), ["", "a|", ""]);
        assert_eq!(run(&["\u{20ac}"], &["€".as_bytes()]), ["|", ""]);
        assert_eq!(run(&["é!"], &["xé".as_bytes(), b"?"]), ["x", "é?", ""]);
        assert_eq!(run(&["end"], &[b"en", b"\xe2\x82"]), ["", "", "en\u{fffd}"]);
    }
}
