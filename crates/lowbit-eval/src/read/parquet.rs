//! Parquet with flat columns.
//!
//! The decoder of the `parquet` crate panics on some damaged files; here such a panic becomes a refusal.

use super::{Column, First, Limits, Source, Visitor, abridged, source};
use crate::error::Error;
use parquet::basic::Repetition;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Number, Value};
use std::cell::Cell;
use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

pub(super) fn read(source: &Source, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let Some(path) = &source.path else {
        let message = "Parquet is read at many places of a file: give the file, not a pipe";
        return Err(Error::input(source.name(), message));
    };
    refuse_compressed(path)?;
    let fail = |message: String| Error::input(path, message);
    let damaged = |cause: ParquetError| fail(format!("not a readable Parquet file ({cause}): fetch it again"));
    let panicked = || fail("not a readable Parquet file (its pages are damaged): fetch it again".into());
    let file = source::regular_file(path)?;
    let reader = without_panic(|| SerializedFileReader::new(file)).ok_or_else(panicked)?.map_err(damaged)?;
    let groups = reader.metadata().row_groups().iter();
    let bytes = groups.map(|group| group.total_byte_size()).fold(0, i64::saturating_add);
    if bytes < 0 || bytes as u64 > limits.bytes {
        return Err(fail(format!("{bytes} bytes after decompression, the limit for one file is {}", limits.bytes)));
    }
    let schema = reader.metadata().file_metadata().schema();
    let flat = schema.get_fields().iter().filter(|field| is_flat(field)).map(|field| field.name().to_string());
    let wanted = visitor.begin(&First { fields: flat.collect(), is_line: false })?;
    let (projection, order) = project(path, &wanted.columns, schema)?;
    let rows = without_panic(|| reader.get_row_iter(Some(projection))).ok_or_else(panicked)?;
    let mut rows = rows.map_err(damaged)?;
    for at in 0.. {
        let Some(row) = without_panic(|| rows.next()).ok_or_else(panicked)? else { break };
        let at_row = |what: String| fail(format!("row {at}: {what}"));
        let fields: Vec<(String, Field)> = row.map_err(damaged)?.into_columns();
        let values = order.iter().map(|&place| {
            let (name, field) = fields.get(place).ok_or("the row has fewer columns than the schema")?;
            value(name, field)
        });
        let values: Vec<Value> = values.collect::<Result<_, _>>().map_err(at_row)?;
        let text = |value: &Value| value.as_str().map_or(0, str::len);
        if values.iter().map(text).sum::<usize>() as u64 > limits.line {
            return Err(at_row(format!("text is longer than {} bytes, the limit for one text", limits.line)));
        }
        visitor.row(None, values)?;
    }
    Ok(())
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

/// The schema reduced to some columns, and the place in it of each.
fn project(path: &Path, columns: &[Column], schema: &Type) -> Result<(Type, Vec<usize>), Error> {
    let wanted: Vec<usize> = columns.iter().map(|column| place(path, column, schema)).collect::<Result<_, _>>()?;
    let mut kept = wanted.clone();
    kept.sort_unstable();
    kept.dedup();
    let fields: Vec<TypePtr> = kept.iter().map(|&index| schema.get_fields()[index].clone()).collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build();
    let projection = projection.map_err(|cause| Error::input(path, cause.to_string()))?;
    let order = wanted.iter().map(|index| kept.partition_point(|k| k < index)).collect();
    Ok((projection, order))
}

/// Index of a column in the schema; nested and repeated columns are refused.
fn place(path: &Path, column: &Column, schema: &Type) -> Result<usize, Error> {
    let fields = schema.get_fields();
    let index = match column {
        Column::Index(index) => *index,
        Column::Name(name) => fields.iter().position(|field| field.name() == name).unwrap_or(fields.len()),
    };
    let Some(field) = fields.get(index) else {
        let known = abridged(fields.iter().map(|field| field.name()));
        return Err(Error::input(path, format!("no column {column}: the file has {known}")));
    };
    if !is_flat(field) {
        let message = format!("column `{}` is nested, not a plain text or number", field.name());
        return Err(Error::input(path, message));
    }
    Ok(index)
}

/// Whether a column has one plain value a row.
fn is_flat(field: &Type) -> bool {
    field.is_primitive() && field.get_basic_info().repetition() != Repetition::REPEATED
}

/// A field as a JSON value: what JSON has no type for is a text, NaN is null.
fn value(name: &str, field: &Field) -> Result<Value, String> {
    let float = |text: String| match text.parse::<Number>() {
        Ok(number) => Value::Number(number),
        Err(_) if text == "NaN" => Value::Null,
        Err(_) => Value::String(text),
    };
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::Bool(*value),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => float(value.to_string()),
        Field::Double(value) => float(value.to_string()),
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => match String::from_utf8(bytes.data().to_vec()) {
            Ok(text) => Value::String(text),
            Err(_) => return Err(format!("column `{name}` is not UTF-8 text")),
        },
        other => Value::String(other.to_string()),
    })
}
