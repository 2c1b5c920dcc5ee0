//! Values of one flat column.

use super::pages::Pages;
use parquet::basic::{ConvertedType, LogicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::{ParquetError, Result};
use parquet::record::Field;
use parquet::schema::types::ColumnDescPtr;
use serde_json::{Number, Value};

/// Bytes of a decimal number at most.
const DECIMAL: usize = 64;

/// A value of a column; a text is shared with the page that it comes from.
enum Decoded {
    Field(Field),
    Bytes(ByteArray),
}

/// A column of a row group, a batch of rows at a time.
pub(super) struct ColumnValues {
    column: ColumnDescPtr,
    reader: ColumnReader,
    batch: Vec<Option<Decoded>>,
}

impl ColumnValues {
    pub(super) fn new(column: ColumnDescPtr, pages: Pages) -> Self {
        let reader = get_column_reader(column.clone(), Box::new(pages));
        ColumnValues { column, reader, batch: Vec::new() }
    }

    /// Decodes the next rows in place of the last; returns how many there are.
    pub(super) fn fill(&mut self, most: usize) -> Result<usize> {
        use Decoded::{Bytes, Field as Plain};
        let c = &self.column;
        let optional = c.max_def_level() > 0;
        self.batch = match &mut self.reader {
            ColumnReader::BoolColumnReader(r) => batch(r, most, optional, |v| Plain(Field::convert_bool(c, v))),
            ColumnReader::Int32ColumnReader(r) => batch(r, most, optional, |v| Plain(Field::convert_int32(c, v))),
            ColumnReader::Int64ColumnReader(r) => batch(r, most, optional, |v| Plain(Field::convert_int64(c, v))),
            ColumnReader::Int96ColumnReader(r) => batch(r, most, optional, |v| Plain(Field::convert_int96(c, v))),
            ColumnReader::FloatColumnReader(r) => batch(r, most, optional, |v| Plain(Field::convert_float(c, v))),
            ColumnReader::DoubleColumnReader(r) => batch(r, most, optional, |v| Plain(Field::convert_double(c, v))),
            ColumnReader::ByteArrayColumnReader(r) => batch(r, most, optional, Bytes),
            ColumnReader::FixedLenByteArrayColumnReader(r) => batch(r, most, optional, |v| Bytes(v.into())),
        }?;
        Ok(self.batch.len())
    }

    /// Bytes of a text in a row of the batch.
    pub(super) fn text_bytes(&self, row: usize) -> u64 {
        match &self.batch[row] {
            Some(Decoded::Bytes(bytes)) => bytes.len() as u64,
            _ => 0,
        }
    }

    /// The value in a row of the batch: what JSON has no type for is a text, NaN is null.
    ///
    /// # Errors
    /// A sentence when it is no text.
    pub(super) fn value(&self, row: usize) -> std::result::Result<Value, String> {
        match &self.batch[row] {
            None => Ok(Value::Null),
            Some(Decoded::Field(field)) => Ok(json(field)),
            Some(Decoded::Bytes(bytes)) if self.is_number() => {
                match Field::convert_byte_array(&self.column, bytes.clone()) {
                    Ok(field) if bytes.len() <= DECIMAL => Ok(json(&field)),
                    _ => Err(format!("column `{}` holds no decimal number", self.column.name())),
                }
            }
            Some(Decoded::Bytes(bytes)) => match std::str::from_utf8(bytes.data()) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(format!("column `{}` is not UTF-8 text", self.column.name())),
            },
        }
    }

    /// Whether bytes of this column are a number.
    fn is_number(&self) -> bool {
        self.column.converted_type() == ConvertedType::DECIMAL
            || self.column.logical_type_ref() == Some(&LogicalType::Float16)
    }
}

fn json(field: &Field) -> Value {
    let float = |text: String| match text.parse::<Number>() {
        Ok(number) => Value::Number(number),
        Err(_) if text == "NaN" => Value::Null,
        Err(_) => Value::String(text),
    };
    match field {
        Field::Bool(value) => Value::Bool(*value),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float16(value) => float(value.to_string()),
        Field::Float(value) => float(value.to_string()),
        Field::Double(value) => float(value.to_string()),
        other => Value::String(other.to_string()),
    }
}

/// The next values of a column; a level of 0 stands for a missing one.
fn batch<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    most: usize,
    optional: bool,
    decoded: impl Fn(T::T) -> Decoded,
) -> Result<Vec<Option<Decoded>>> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(most, optional.then_some(&mut levels), None, &mut values)?;
    let mut present = values.into_iter();
    let next = |level: i16| match level {
        0 => Some(None),
        _ => present.next().map(|value| Some(decoded(value))),
    };
    let levels = if optional { levels } else { vec![1; records] };
    let batch: Vec<Option<Decoded>> = levels.into_iter().map_while(next).collect();
    match batch.len() == records {
        true => Ok(batch),
        false => Err(ParquetError::General("a page has fewer values than rows".into())),
    }
}
