//! Guessing the next tokens: what followed the last time the text ended like this (prompt lookup decoding).

/// Tokens guessed at most: a wrong guess takes as long as a right one.
const MOST: usize = 7;
/// Tokens guessed at first.
const FIRST: usize = 3;
/// Lengths of the end of the text that is looked up, the longest first.
const LENGTHS: [usize; 3] = [4, 3, 2];

/// Looks up guesses; guesses more where that went well.
pub(crate) struct Lookup {
    length: usize,
}

impl Lookup {
    pub fn new() -> Self {
        Lookup { length: FIRST }
    }

    /// Writes at most `room` guesses of what follows `text`.
    pub fn guess(&self, text: &[u32], room: usize, out: &mut Vec<u32>) {
        out.clear();
        for n in LENGTHS {
            let Some(before) = text.len().checked_sub(n) else { continue };
            let (earlier, end) = (&text[..text.len() - 1], &text[before..]);
            if let Some(at) = earlier.windows(n).rposition(|w| w == end) {
                out.extend(text[at + n..].iter().take(self.length.min(room)));
                return;
            }
        }
    }

    /// Learns how many of the guesses were right.
    pub fn learn(&mut self, accepted: usize) {
        self.length = (accepted + 2).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::{Lookup, MOST};

    fn guess(text: &[u32], length: usize, room: usize) -> Vec<u32> {
        let mut out = vec![99];
        Lookup { length }.guess(text, room, &mut out);
        out
    }

    #[test]
    fn the_last_occurrence_of_the_longest_end_is_followed() {
        assert_eq!(guess(&[1, 2, 3, 4, 1, 2], 3, 9), [3, 4, 1]);
        assert_eq!(guess(&[1, 2, 3, 1, 2, 4, 1, 2], 1, 9), [4]);
        assert_eq!(guess(&[7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2], 2, 9), [3, 8], "three tokens tell more than two");
        assert_eq!(guess(&[1, 2, 3, 4, 1, 2], 3, 1), [3]);
        assert_eq!(guess(&[5, 5, 5], 3, 9), [5]);
        assert_eq!(guess(&[1, 2, 3], 3, 9), [0u32; 0]);
        assert_eq!(guess(&[1], 3, 9), [0u32; 0]);
        assert_eq!(guess(&[], 3, 9), [0u32; 0]);
    }

    #[test]
    fn success_lengthens_guesses() {
        let mut lookup = Lookup::new();
        (0..9).for_each(|_| lookup.learn(lookup.length));
        assert_eq!(lookup.length, MOST);
        lookup.learn(0);
        assert_eq!(lookup.length, 2);
    }
}
