//! Matrices in the types of GGUF that are blocks of integers with scales: as they are stored, else by a search on all threads.

use super::Checkpoint;
use crate::Error;
use crate::arch::decoder::gguf as keys;
use crate::container::gguf::{GgufWriter, Type};
use crate::reader::{Integers, ReadIntegers, Stored};
use crate::source::ParamSpec;
use std::sync::OnceLock;

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
        let tasks: Vec<&[usize]> = rows.chunks((TASK / spec.cols).max(1)).collect();
        let blocks = each(checkpoint, tasks.len(), |task| blocks_of(kind, read, tasks[task]))?;
        writer.blocks(rows.len() * spec.cols, blocks.into_iter().collect::<Result<Vec<_>, _>>()?.concat())?;
    }
    (values.release)();
    Ok(true)
}

/// The blocks of some rows.
fn blocks_of(kind: &Type, read: &ReadIntegers<'_>, rows: &[usize]) -> Result<Vec<u8>, Error> {
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
    let tasks: Vec<&[f32]> = values.chunks((TASK / cols).max(1) * cols).collect();
    let found = each(checkpoint, tasks.len(), |task| {
        let mut bytes = Vec::new();
        kind.encode(tasks[task], &mut bytes)?;
        let exact = kind.means(&bytes, tasks[task]);
        Ok((bytes, exact))
    })?;
    let (mut all, mut exact) = (Vec::new(), true);
    for made in found {
        let (bytes, same) = made.map_err(|text: String| writer.fault(&text))?;
        all.extend(bytes);
        exact &= same;
    }
    writer.blocks(values.len(), all)?;
    Ok(exact)
}

/// What each task makes, on the threads of the checkpoint.
fn each<T: Send + Sync>(
    checkpoint: &Checkpoint,
    count: usize,
    make: impl Fn(usize) -> T + Sync,
) -> Result<Vec<T>, Error> {
    let made: Vec<OnceLock<T>> = (0..count).map(|_| OnceLock::new()).collect();
    checkpoint.pool()?.run(count, &|task| drop(made[task].set(make(task))));
    Ok(made.into_iter().map(|made| made.into_inner().expect("every task ran")).collect())
}
