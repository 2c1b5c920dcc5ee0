//! IDX, the format of MNIST (yann.lecun.com/exdb/mnist): a magic number, sizes as 32-bit big-endian numbers, then bytes.

use super::rows::Sink;
use super::{Budget, Input, Limits, Table, Target, source};
use crate::error::Error;
use std::io::Read;
use std::path::Path;

/// Two zero bytes, unsigned bytes (8), number of dimensions.
const MAGIC: [u8; 3] = [0, 0, 8];
/// Pixels of an image at most.
const PIXELS: u64 = 1 << 20;

pub(super) fn read(table: &Table, limits: &Limits, sink: &mut Sink<'_>) -> Result<(), Error> {
    let Some(labels) = table.labels.as_deref().filter(|_| table.input == Input::Image) else {
        return Err(Error::usage("an IDX file holds images: give `label_paths` with the files of their labels"));
    };
    let Target::Class { labels: names } = &table.target else {
        return Err(Error::usage("an IDX file of labels holds classes, no values"));
    };
    let (sizes, pixels) = array(&table.path, 3, limits)?;
    let (counts, classes) = array(labels, 1, limits)?;
    if sizes[0] != counts[0] {
        let message = format!("{} labels for the {} images of {}", counts[0], sizes[0], table.path.display());
        return Err(Error::input(labels, message));
    }
    if let Some(row) = classes.iter().position(|class| usize::from(*class) >= names.len()) {
        let message =
            format!("label {} of image {row} is not below the number of classes, {}", classes[row], names.len());
        return Err(Error::input(labels, message));
    }
    let budget = Budget::of_file(&table.path, limits.bytes);
    budget.take(4 * pixels.len() as u64).map_err(|e| Error::from(e).in_file(&table.path))?;
    sink.images((sizes[1] * sizes[2]) as usize, &pixels, classes.into_iter().map(u16::from).collect());
    Ok(())
}

/// Sizes and bytes of an array of so many dimensions.
fn array(path: &Path, dimensions: usize, limits: &Limits) -> Result<(Vec<u64>, Vec<u8>), Error> {
    let fail = |message: String| Error::input(path, message);
    let mut source = source::open(path, limits)?;
    let mut content = Vec::new();
    let head = 4 + 4 * dimensions;
    (&mut source).take(head as u64).read_to_end(&mut content).map_err(|e| source::decode_error(path, None, &e))?;
    if content.len() < head || content[..3] != MAGIC || usize::from(content[3]) != dimensions {
        return Err(fail(format!("is no IDX file of unsigned bytes in {dimensions} dimensions")));
    }
    let sizes: Vec<u64> =
        content[4..].as_chunks::<4>().0.iter().map(|size| u64::from(u32::from_be_bytes(*size))).collect();
    if sizes[1..].iter().fold(1u64, |n, size| n.saturating_mul(*size)) > PIXELS
        || sizes.contains(&0)
        || sizes[0] > limits.rows
    {
        let message = format!("{sizes:?}: at most {} images of 1 to {PIXELS} pixels are read", limits.rows);
        return Err(fail(message));
    }
    let bytes: u64 = sizes.iter().product();
    let mut array = Vec::new();
    (&mut source)
        .take(bytes.saturating_add(1))
        .read_to_end(&mut array)
        .map_err(|e| source::decode_error(path, None, &e))?;
    if array.len() as u64 != bytes {
        let more = if array.len() as u64 > bytes { "more than that" } else { "less" };
        return Err(fail(format!("its sizes promise {bytes} bytes, it holds {more}: fetch it again")));
    }
    Ok((sizes, array))
}
