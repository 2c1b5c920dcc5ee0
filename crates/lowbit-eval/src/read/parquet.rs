//! Parquet with flat columns.
//!
//! The decoder of the `parquet` crate panics on some damaged files; here such a panic becomes a refusal.

use super::rows::Sink;
use super::{Column, Limits, Table, Target, abridged, source};
use crate::error::Error;
use parquet::basic::Repetition;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use std::cell::Cell;
use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

pub(super) fn read(table: &Table, limits: &Limits, sink: &mut Sink<'_>) -> Result<(), Error> {
    refuse_compressed(table)?;
    without_panic(|| decode(table, limits, sink)).unwrap_or_else(|| {
        Err(Error::input(&table.path, "not a readable Parquet file (its pages are damaged): fetch it again"))
    })
}

/// Runs `f`; `None` when it panics, without the panic's message on stderr.
fn without_panic<T>(f: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                previous(info);
            }
        }));
    });
    let outer = EXPECTED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    EXPECTED.set(outer);
    result.ok()
}

thread_local! {
    /// A panic on this thread is caught and reported by [`without_panic`].
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

fn decode(table: &Table, limits: &Limits, sink: &mut Sink<'_>) -> Result<(), Error> {
    let fail = |message: String| Error::input(&table.path, message);
    let damaged = |cause: ParquetError| fail(format!("not a readable Parquet file ({cause}): fetch it again"));
    let reader = SerializedFileReader::new(source::regular_file(&table.path)?).map_err(damaged)?;
    let groups = reader.metadata().row_groups().iter();
    let bytes = groups.map(|group| group.total_byte_size()).fold(0, i64::saturating_add);
    if bytes < 0 || bytes as u64 > limits.bytes {
        return Err(fail(format!("{bytes} bytes after decompression, the limit for one file is {}", limits.bytes)));
    }
    let kind = |i: usize| match (i < table.columns.len(), &table.target) {
        (true, _) if table.is_numeric() => Kind::Optional,
        (false, Target::Value) => Kind::Number,
        _ => Kind::Word,
    };
    let (projection, order) = project(table, reader.metadata().file_metadata().schema())?;
    for row in reader.get_row_iter(Some(projection)).map_err(damaged)? {
        let row = row.map_err(damaged)?;
        let at_row = |what: String| fail(format!("row {}: {what}", sink.len()));
        let parts: Result<Vec<String>, String> =
            order.iter().enumerate().map(|(i, &column)| plain(&row, column, kind(i))).collect();
        let parts = parts.map_err(at_row)?;
        let (label, text) = parts.split_last().expect("the label is among the columns");
        if text.iter().map(String::len).sum::<usize>() as u64 > limits.line {
            return Err(at_row(format!("text is longer than {} bytes, the limit for one text", limits.line)));
        }
        sink.push(None, text, label)?;
    }
    Ok(())
}

/// Parquet compresses inside; a compressed Parquet file cannot be read at random places.
fn refuse_compressed(table: &Table) -> Result<(), Error> {
    let mut start = Vec::new();
    let mut file = source::regular_file(&table.path)?.take(8);
    file.read_to_end(&mut start).map_err(|cause| Error::io(&table.path, &cause))?;
    match source::compression(&table.path, &start)? {
        None => Ok(()),
        Some(_) => Err(Error::input(&table.path, "is a compressed Parquet file: decompress it first")),
    }
}

/// The schema reduced to the columns of the table, and the place in it of each text column and then of the label.
fn project(table: &Table, schema: &Type) -> Result<(Type, Vec<usize>), Error> {
    let columns = table.columns.iter().chain([&table.target_column]);
    let wanted: Vec<usize> = columns.map(|column| place(table, column, schema)).collect::<Result<_, _>>()?;
    let mut kept = wanted.clone();
    kept.sort_unstable();
    kept.dedup();
    let fields: Vec<TypePtr> = kept.iter().map(|&index| schema.get_fields()[index].clone()).collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build();
    let projection = projection.map_err(|cause| Error::input(&table.path, cause.to_string()))?;
    let order = wanted.iter().map(|index| kept.partition_point(|k| k < index)).collect();
    Ok((projection, order))
}

/// Index of a column in the schema; nested and repeated columns are refused.
fn place(table: &Table, column: &Column, schema: &Type) -> Result<usize, Error> {
    let fields = schema.get_fields();
    let index = match column {
        Column::Index(index) => *index,
        Column::Name(name) => fields.iter().position(|field| field.name() == name).unwrap_or(fields.len()),
    };
    let Some(field) = fields.get(index) else {
        let known = abridged(fields.iter().map(|field| field.name()));
        return Err(Error::input(&table.path, format!("no column {column}: the file has {known}")));
    };
    if !field.is_primitive() || field.get_basic_info().repetition() == Repetition::REPEATED {
        let message = format!("column `{}` is nested, not a plain text or number", field.name());
        return Err(Error::input(&table.path, message));
    }
    Ok(index)
}

/// What a column may hold.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A text, an integer or a truth value.
    Word,
    /// Any number too.
    Number,
    /// That, or nothing.
    Optional,
}

/// A value as text.
fn plain(row: &Row, column: usize, kind: Kind) -> Result<String, String> {
    let (name, field) = row.get_column_iter().nth(column).ok_or("the row has fewer columns than the schema")?;
    match field {
        Field::Str(text) => Ok(text.clone()),
        Field::Bytes(bytes) => {
            String::from_utf8(bytes.data().to_vec()).map_err(|_| format!("column `{name}` is not UTF-8 text"))
        }
        Field::Null if kind == Kind::Optional => Ok(String::new()),
        Field::Float(value) if kind != Kind::Word => Ok(value.to_string()),
        Field::Double(value) if kind != Kind::Word => Ok(value.to_string()),
        Field::Null => Err(format!("column `{name}` is null: fill it or drop the row")),
        Field::Bool(_) | Field::Byte(_) | Field::Short(_) | Field::Int(_) | Field::Long(_) => Ok(field.to_string()),
        Field::UByte(_) | Field::UShort(_) | Field::UInt(_) | Field::ULong(_) => Ok(field.to_string()),
        other => Err(format!("column `{name}` holds {other}, not a text, an integer or a truth value")),
    }
}
