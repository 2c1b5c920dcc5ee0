//! Matrices in the types of GGUF that are blocks of integers with scales: as they are stored, else by a search on all threads.

use super::Checkpoint;
use crate::Error;
use crate::arch::decoder::gguf as keys;
use crate::container::gguf::{GgufWriter, Type};
use crate::reader::{Integers, ReadIntegers, Stored};
use crate::source::ParamSpec;
use std::sync::Mutex;

/// Weights of a task.
const TASK: usize = 1 << 14;

/// Writes a matrix that is stored in the integers of a type, without rounding, and tells whether it is. Heads are those whose rows are
/// stored in pairs.
pub(super) fn copy(
    checkpoint: &Checkpoint,
    writer: &mut GgufWriter,
    spec: &ParamSpec,
    kind: &Type,
    heads: Option<usize>,
) -> Result<bool, Error> {
    let (None, Some(format)) = (checkpoint.asked, kind.format()) else { return Ok(false) };
    let Stored::Values(values) = checkpoint.reader.tensor(spec)? else { return Ok(false) };
    let Some(Integers { read, .. }) = values.integers.as_ref().filter(|kept| kept.format.name() == format.name())
    else {
        return Ok(false);
    };
    let mut order: Vec<usize> = (0..spec.rows).collect();
    if let Some(heads) = heads {
        order = keys::unpair(&order, heads, 1, true);
    }
    for rows in order.chunks((super::gguf::AT_ONCE / spec.cols).max(1)) {
        checkpoint.stop.check()?;
        writer.blocks(rows.len() * spec.cols, bytes_of(kind, read, rows)?)?;
    }
    (values.release)();
    Ok(true)
}

/// The blocks of some rows.
fn bytes_of(kind: &Type, read: &ReadIntegers<'_>, rows: &[usize]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for row in rows {
        let (codes, scales) = read(*row..row + 1)?;
        kind.put_integers(&codes, &scales, &mut out);
    }
    Ok(out)
}

/// Writes rows of `cols` values in a type whose scales are searched for, and tells whether nothing had to be rounded.
pub(super) fn search(
    checkpoint: &Checkpoint,
    writer: &mut GgufWriter,
    kind: &Type,
    values: &[f32],
    cols: usize,
) -> Result<bool, Error> {
    let pieces: Vec<&[f32]> = values.chunks((TASK / cols).max(1) * cols).collect();
    let found = Mutex::new(vec![None; pieces.len()]);
    checkpoint.pool()?.run(pieces.len(), &|task| {
        let mut bytes = Vec::new();
        let made = kind.encode(pieces[task], &mut bytes).map(|()| {
            let exact = kind.means(&bytes, pieces[task]);
            (bytes, exact)
        });
        found.lock().expect("no task panics")[task] = Some(made);
    });
    let (mut all, mut exact) = (Vec::new(), true);
    for made in found.into_inner().expect("no task panics") {
        let (bytes, same) = made.expect("every task ran").map_err(|text| writer.fault(&text))?;
        all.extend(bytes);
        exact &= same;
    }
    writer.blocks(values.len(), all)?;
    Ok(exact)
}
