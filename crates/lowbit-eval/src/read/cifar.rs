//! Rows of CIFAR-10 (www.cs.toronto.edu/~kriz/cifar.html): a class, then 32 x 32 pixels in planes of red, green and blue.

use super::rows::Sink;
use super::{Budget, Limits, Table, Target, source};
use crate::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Pixels of an image, and its colours.
const PIXELS: usize = 32 * 32;
const COLOURS: usize = 3;
/// Bytes of a row.
const ROW: usize = 1 + COLOURS * PIXELS;
/// What the files of a directory are called that belong together.
const PARTS: &str = "data_batch_";

/// Reads a file, or all parts in a directory. Pixels become `[height, width, colours]`.
pub(super) fn read(table: &Table, limits: &Limits, sink: &mut Sink<'_>) -> Result<(), Error> {
    let Target::Class { labels } = &table.target else {
        return Err(Error::usage("rows of CIFAR-10 hold classes, no values"));
    };
    let (mut pixels, mut classes) = (Vec::new(), Vec::new());
    for path in files(&table.path)? {
        let mut content = Vec::new();
        let mut reader = source::open(&path, limits)?.take(limits.bytes);
        reader.read_to_end(&mut content).map_err(|e| source::decode_error(&path, None, &e))?;
        if content.is_empty() || !content.len().is_multiple_of(ROW) {
            let text = format!("has {} bytes, no whole number of rows of {ROW}", content.len());
            return Err(Error::input(&path, format!("{text}: fetch the binary version of CIFAR-10 again")));
        }
        Budget::of_file(&path, limits.bytes)
            .take(4 * content.len() as u64)
            .map_err(|e| Error::from(e).in_file(&path))?;
        for (i, row) in content.chunks_exact(ROW).enumerate() {
            if usize::from(row[0]) >= labels.len() {
                let text =
                    format!("label {} of image {i} is not below the number of classes, {}", row[0], labels.len());
                return Err(Error::input(&path, text));
            }
            classes.push(u16::from(row[0]));
            pixels.extend((0..COLOURS * PIXELS).map(|at| row[1 + at % COLOURS * PIXELS + at / COLOURS]));
        }
    }
    sink.images(COLOURS * PIXELS, &pixels, classes);
    Ok(())
}

/// The file itself, or the parts in a directory in their order.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, &e))?;
    let is_part = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PARTS));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_part).collect();
    files.sort();
    match files.is_empty() {
        true => {
            Err(Error::input(path, format!("holds no {PARTS}1.bin and so on: unpack the binary version of CIFAR-10")))
        }
        false => Ok(files),
    }
}
