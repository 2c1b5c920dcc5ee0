//! The key that clients show.

use lowbit_base::Error;
use sha2::{Digest, Sha256};
use std::fmt;
use std::hint::black_box;

/// Fewest bytes of a key.
const SHORTEST: usize = 8;
/// Most bytes of a key.
const LONGEST: usize = 1024;

/// The key that clients show, kept as its SHA-256; it is never printed.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// A key.
    ///
    /// # Errors
    /// When it is shorter than 8 bytes, longer than 1024, or holds anything but printable ASCII without spaces.
    pub fn new(text: &str) -> Result<Self, Error> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic());
        if !printable || !(SHORTEST..=LONGEST).contains(&text.len()) {
            let text = "the API key must have 8 to 1024 printable ASCII characters and no spaces";
            return Err(Error::usage(format!("{text}; `openssl rand -hex 24` makes one")));
        }
        Ok(Key(Sha256::digest(text).into()))
    }

    /// Whether a client's key is this one; takes the same time wherever they differ.
    pub fn is(&self, text: &[u8]) -> bool {
        let theirs: [u8; 32] = Sha256::digest(text).into();
        let differences = self.0.iter().zip(&theirs).fold(0, |sum, (a, b)| sum | black_box(a ^ b));
        black_box(differences) == 0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn keys_are_compared_whole_and_never_shown() {
        let key = Key::new("0123456789abcdef").expect("long enough");
        assert!(key.is(b"0123456789abcdef"));
        for other in [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"0123456789ABCDEF"] {
            assert!(!key.is(other));
        }
        assert!(!format!("{key:?}").contains("0123"));
        for bad in ["short", "", "with a space in it", "tab\tinside-it", "schlüssel-lang", &"x".repeat(1025)] {
            let error = Key::new(bad).expect_err("refused").to_string();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }
}
