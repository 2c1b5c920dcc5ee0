//! Prompts from flags, files and pipes.

use crate::failure::Failure;
use crate::terminal::Terminal;
use lowbit_base::Error;
use std::path::Path;

/// Longest prompt, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The content of a file, without the line end that files have.
///
/// # Errors
/// When it is no regular file, too long, or not UTF-8.
pub fn read(path: &Path) -> Result<String, Failure> {
    let bytes = lowbit_base::file::read(path, MAX_BYTES)?;
    Ok(text(bytes).map_err(|e| Error::input(path, e))?)
}

/// What a pipe brings, without its last line end.
///
/// # Errors
/// When it is too long or not UTF-8.
pub fn piped(terminal: &Terminal) -> Result<String, Failure> {
    Ok(text(terminal.read_all()?).map_err(|e| Error::input(Path::new("stdin"), e))?)
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
