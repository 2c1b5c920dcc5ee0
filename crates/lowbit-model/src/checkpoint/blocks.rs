//! Matrices in the types of GGUF that are blocks of integers with scales: as they are stored, else by a search on all threads.

use super::Checkpoint;
use crate::Error;
use crate::arch::decoder::gguf as keys;
use crate::container::gguf::{GgufWriter, Type, find};
use crate::reader::{ReadIntegers, Stored, Values};
use crate::source::ParamSpec;
use lowbit_kernels::Packed;
use std::ops::Range;
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
    let found = match checkpoint.reader.tensor(spec)? {
        Stored::Packed(packed) if kind_of(checkpoint, spec, &packed).is_some_and(|own| own.name == kind.name) => {
            let read: ReadIntegers<'_> = Box::new(move |rows: Range<usize>| {
                let rows: Vec<_> = rows.map(|row| format.unpack(&packed, row).expect("told by its kind")).collect();
                let (codes, scales): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
                Ok((codes.concat(), scales.concat()))
            });
            (read, None)
        }
        Stored::Values(Values { integers: Some(integers), release, .. }) if integers.format.name() == format.name() => {
            (integers.read, Some(release))
        }
        _ => return Ok(false),
    };
    let (read, release) = (&found.0, found.1);
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
    release.into_iter().for_each(|release| release());
    Ok(true)
}

/// The type of GGUF that has the integers of a packed matrix, its columns being as they were and its rows whole numbers of blocks.
/// Rows of extreme size are stored with factors, which GGUF has not.
pub(super) fn kind_of(checkpoint: &Checkpoint, spec: &ParamSpec, packed: &Packed) -> Option<&'static Type> {
    let kind = find(packed.format().name()).filter(|kind| kind.format().is_some())?;
    let without_factors: usize = packed.format().parts(spec.rows, spec.cols, &[]).iter().map(|part| part.bytes).sum();
    let same = spec.cols.is_multiple_of(kind.block) && !checkpoint.recipe().rotates(spec);
    Some(kind).filter(|_| same && packed.bytes() == without_factors)
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
