//! Parquet with flat columns: dictionaries, both versions of data pages, every compression but LZO.
//!
//! Pages are read here, within a budget; the `parquet` crate decodes their values. It panics on some damaged files, and such a
//! panic becomes a refusal.

mod codec;
mod column;
mod header;
mod pages;

use super::{Budget, Column, First, Limits, Source, Visitor, abridged, source};
use crate::error::Error;
use column::ColumnValues;
use lowbit_base::panics::caught;
use pages::{Chunk, Pages};
use parquet::basic::Repetition;
use parquet::errors::{ParquetError, Result as Decoded};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Bytes of the metadata at the end of a file at most; what they grow to in memory is not counted elsewhere.
const FOOTER: u32 = 8 << 20;
/// Rows that are decoded at once.
const BATCH: usize = 64;

pub(super) fn read(source: &Source, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let Some(path) = &source.path else {
        let message = "Parquet is read at many places of a file: give the file, not a pipe";
        return Err(Error::input(source.name(), message));
    };
    refuse_compressed(path)?;
    let file = Arc::new(source::regular_file(path)?);
    let budget = Arc::new(Budget::of_file(path, limits.bytes));
    let metadata = metadata(path, &file)?;
    let schema = metadata.file_metadata().schema_descr();
    let flat = schema.root_schema().get_fields().iter().filter(|field| is_flat(field));
    let fields = flat.map(|field| field.name().to_string()).collect();
    let projection = visitor.begin(&First { fields, is_line: false })?;
    let leaves: Vec<usize> =
        projection.columns.iter().map(|column| leaf(path, column, schema)).collect::<Result<_, _>>()?;
    let mut before = 0;
    for group in metadata.row_groups() {
        let pages = |leaf: usize| {
            let chunk = chunk(group, leaf, limits);
            let pages = Pages { file: file.clone(), chunk, budget: budget.clone() };
            ColumnValues::new(group.column(leaf).column_descr_ptr(), pages)
        };
        let mut columns = decoded(path, || Ok(leaves.iter().map(|leaf| pages(*leaf)).collect::<Vec<_>>()))?;
        loop {
            let rows = decoded(path, || fill(&mut columns))?;
            for row in 0..rows {
                visitor.row(None, values(path, &columns, row, before + row, limits)?)?;
            }
            before += rows;
            if rows == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Decodes the next rows of all columns; returns how many there are.
fn fill(columns: &mut [ColumnValues]) -> Decoded<usize> {
    let counts = columns.iter_mut().map(|column| column.fill(BATCH)).collect::<Decoded<Vec<_>>>()?;
    let rows = counts.first().copied().unwrap_or(0);
    match counts.iter().all(|count| *count == rows) {
        true => Ok(rows),
        false => Err(ParquetError::General("its columns are not of one length".into())),
    }
}

/// The values in a row of a batch, which is row `at` of the file.
fn values(path: &Path, columns: &[ColumnValues], row: usize, at: usize, limits: &Limits) -> Result<Vec<Value>, Error> {
    let fail = |what: String| Error::input(path, format!("row {at}: {what}"));
    if columns.iter().map(|column| column.text_bytes(row)).sum::<u64>() > limits.line {
        return Err(fail(format!("text is longer than {} bytes, the limit for one text", limits.line)));
    }
    let values = || Ok(columns.iter().map(|column| column.value(row)).collect::<Result<Vec<_>, _>>());
    decoded(path, values)?.map_err(fail)
}

/// What the decoder gives; its panics and errors are refusals of the file.
fn decoded<T>(path: &Path, f: impl FnOnce() -> Decoded<T>) -> Result<T, Error> {
    match caught(f) {
        Some(result) => result.map_err(|cause| refusal(path, cause)),
        None => Err(Error::input(path, "not a readable Parquet file (its pages are damaged): fetch it again")),
    }
}

/// What a failure to decode says of the file.
fn refusal(path: &Path, cause: ParquetError) -> Error {
    if let ParquetError::External(inner) = &cause {
        if let Some(error) = inner.downcast_ref::<Error>() {
            return error.clone().in_file(path);
        }
        if let Some(error) = inner.downcast_ref::<std::io::Error>().filter(|error| error.raw_os_error().is_some()) {
            return Error::io(path, error);
        }
    }
    Error::input(path, format!("not a readable Parquet file ({cause}): fetch it again"))
}

fn metadata(path: &Path, file: &File) -> Result<ParquetMetaData, Error> {
    let (mut end, mut tail) = (file, [0; 8]);
    if end.seek(SeekFrom::End(-8)).is_ok() && end.read_exact(&mut tail).is_ok() {
        let bytes = tail.iter().take(4).rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        if tail[4..] == *b"PAR1" && bytes > FOOTER {
            let text =
                format!("not a readable Parquet file ({bytes} bytes of metadata, more than {FOOTER}): fetch it again");
            return Err(Error::input(path, text));
        }
    }
    decoded(path, || ParquetMetaDataReader::new().parse_and_finish(file))
}

/// Where a column of a row group lies in the file.
fn chunk(group: &RowGroupMetaData, leaf: usize, limits: &Limits) -> Chunk {
    let column = group.column(leaf);
    let (start, length) = column.byte_range();
    Chunk {
        start,
        end: start.saturating_add(length),
        codec: column.compression(),
        physical: column.column_type(),
        length: usize::try_from(column.column_descr().type_length()).unwrap_or(0),
        optional: column.column_descr().max_def_level() > 0,
        values: limits.rows,
    }
}

/// Parquet compresses inside; a compressed Parquet file cannot be read at random places.
fn refuse_compressed(path: &Path) -> Result<(), Error> {
    let mut start = Vec::new();
    let mut file = source::regular_file(path)?.take(8);
    file.read_to_end(&mut start).map_err(|cause| Error::io(path, &cause))?;
    match source::compression(path, &start)? {
        None => Ok(()),
        Some(_) => Err(Error::input(path, "is a compressed Parquet file: decompress it first")),
    }
}

/// The leaf of a column in the schema; nested and repeated columns are refused.
fn leaf(path: &Path, column: &Column, schema: &SchemaDescriptor) -> Result<usize, Error> {
    let fields = schema.root_schema().get_fields();
    let index = match column {
        Column::Index(index) => *index,
        Column::Name(name) => fields.iter().position(|field| field.name() == name).unwrap_or(fields.len()),
    };
    let Some(field) = fields.get(index) else {
        let known = abridged(fields.iter().map(|field| field.name()));
        return Err(Error::input(path, format!("no column {column}: the file has {known}")));
    };
    let leaf = (0..schema.num_columns()).find(|leaf| schema.get_column_root_idx(*leaf) == index);
    match leaf.filter(|_| is_flat(field)) {
        Some(leaf) => Ok(leaf),
        None => {
            let message = format!("column `{}` is nested, not a plain text or number", field.name());
            Err(Error::input(path, message))
        }
    }
}

/// Whether a column has one plain value a row.
fn is_flat(field: &Type) -> bool {
    field.is_primitive() && field.get_basic_info().repetition() != Repetition::REPEATED
}
