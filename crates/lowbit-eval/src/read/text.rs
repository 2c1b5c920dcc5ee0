//! Plain text: all bytes of a file, or its lines as rows, optionally compressed.

use super::source::Lines;
use super::{Column, First, Limits, Source, Visitor, source};
use crate::error::Error;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// All bytes of a file, decompressed. An empty one is refused, and one of more than [`Limits::bytes`] as soon as it shows.
///
/// # Errors
/// Names the file and what is wrong: missing, empty, too large, or damaged.
pub fn bytes(path: &Path, limits: &Limits) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let mut source = source::open(path, limits)?;
    source.read_to_end(&mut content).map_err(|cause| source::decode_error(path, None, &cause))?;
    match content.is_empty() {
        true => Err(Error::input(path, "is empty: give a file that holds text")),
        false => Ok(content),
    }
}

/// Name of the column of plain text.
const TEXT: &str = "text";

/// Every line is a row of one column, also an empty one.
pub(super) fn read(source: &Source, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let mut lines = Lines::open(source, limits)?;
    let projection = visitor.begin(&First { fields: vec![TEXT.into()], is_line: false })?;
    let own = |column: &Column| match column {
        Column::Index(index) => *index == 0,
        Column::Name(name) => name == TEXT,
    };
    if let Some(other) = projection.columns.iter().find(|column| !own(column)) {
        return Err(Error::input(source.name(), format!("no column {other}: plain text has one, `{TEXT}`")));
    }
    while let Some(line) = lines.next(0)? {
        visitor.row(Some(lines.line), vec![Value::String(line); projection.columns.len()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::fs;

    #[test]
    fn plain_and_compressed_files_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..70_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let packed = zstd::encode_all(&content[..], 1).unwrap();
        for path in [write("a.txt", &content), write("a.txt.zst", &packed)] {
            assert_eq!(bytes(&path, &Limits::default()).unwrap(), content);
            let limits = Limits { bytes: 69_999, ..Limits::default() };
            assert!(bytes(&path, &limits).unwrap_err().message.contains("more than 69999 bytes"));
        }
        let cut = write("cut.zst", &packed[..packed.len() / 2]);
        assert_eq!(bytes(&cut, &Limits::default()).unwrap_err().kind, Kind::Input);
        let empty = write("empty", b"");
        assert!(bytes(&empty, &Limits::default()).unwrap_err().message.contains("is empty"));
        let missing = bytes(&dir.path().join("none"), &Limits::default()).unwrap_err();
        assert!(missing.kind == Kind::Io && missing.message.contains("no such file"));
        assert!(bytes(dir.path(), &Limits::default()).unwrap_err().message.contains("directory"));
    }
}
