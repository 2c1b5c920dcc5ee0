//! A share of a file: the split of a corpus that is one file.

use serde::Deserialize;

/// Where a part of a file begins and ends, as shares of its bytes. A bound that would cut a character of UTF-8 moves on to the
/// next one, so that parts that meet have no byte in common and none between them.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Share(f64, f64);

impl Default for Share {
    /// All of it.
    fn default() -> Self {
        Share(0.0, 1.0)
    }
}

impl Share {
    /// Refuses bounds outside of 0 to 1 and an empty share.
    pub(crate) fn check(self) -> Result<(), String> {
        match 0.0 <= self.0 && self.0 < self.1 && self.1 <= 1.0 {
            true => Ok(()),
            false => Err(format!("[{}, {}] must lie in 0 to 1, the second above the first", self.0, self.1)),
        }
    }

    /// Whether two parts have bytes in common.
    pub(crate) fn meets(self, other: Share) -> bool {
        self.0 < other.1 && other.0 < self.1
    }

    /// The part of a content.
    pub(super) fn of(self, mut content: Vec<u8>) -> Vec<u8> {
        let [begin, end] = [self.0, self.1].map(|share| bound(&content, share));
        content.truncate(end);
        content.drain(..begin);
        content
    }
}

/// The byte at a share of a content, or the first one after it that begins a character, at most three further.
fn bound(content: &[u8], share: f64) -> usize {
    let at = (content.len() as f64 * share).round() as usize;
    let continues = |at: &usize| content.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (at..at + 4).find(|at| !continues(at)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_meet_between_characters() {
        let text = "naïve 日本 🙂 — ça va".repeat(3);
        let whole = text.as_bytes();
        for cuts in 1..whole.len() {
            let cut = cuts as f64 / whole.len() as f64;
            let [first, last] = [Share(0.0, cut), Share(cut, 1.0)].map(|share| share.of(whole.to_vec()));
            assert_eq!([&first[..], &last].concat(), whole);
            assert!(std::str::from_utf8(&first).is_ok() && std::str::from_utf8(&last).is_ok(), "{cut}");
            assert!(first.len().abs_diff(cuts) <= 4);
        }
        let bytes: Vec<u8> = (0..100).collect();
        assert_eq!(Share(0.9, 0.95).of(bytes.clone()), [90, 91, 92, 93, 94]);
        assert_eq!(Share(0.5, 1.0).of(vec![0x80; 100]).len(), 50, "bytes that are no text are cut where they are");
        assert_eq!(Share::default().of(bytes.clone()), bytes);
    }

    #[test]
    fn a_share_is_a_range() {
        for wrong in [Share(0.5, 0.5), Share(-0.1, 0.5), Share(0.0, 1.1), Share(f64::NAN, 1.0)] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert!(Share(0.95, 1.0).check().is_ok());
    }
}
