//! Rows of fields.

use super::{Cell, Column, Raw, Row, Table};
use crate::{Error, error::Kind};

/// Reads rows; the first line holds titles.
///
/// # Errors
/// When a row cannot be read.
pub(super) fn read(text: &str, delimiter: u8) -> Result<Raw, Error> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text.as_bytes());
    let lines = text.lines().count();
    let fault = |e: csv::Error| {
        let line = e.position().map(csv::Position::line);
        Error::new(Kind::Input, format!("rows of fields cannot be read: {e}")).on_line(line)
    };
    let head = reader.headers().map_err(fault)?.clone();
    let columns: Vec<Column> = head.iter().map(|title| Column::new(&title.replace('_', " "), "")).collect();
    let mut table = Table { line: 1, columns, ..Table::default() };
    for record in reader.records() {
        let record = record.map_err(fault)?;
        let line = record.position().map_or(1, |p| usize::try_from(p.line()).unwrap_or(1));
        let cells = record.iter().map(|field| Some(Cell::new(field, line))).collect();
        let name = record.get(0).unwrap_or_default().to_string();
        table.rows.push(Row { name, part: String::new(), line, cells });
    }
    Ok(Raw { plain: vec![String::new(); lines], code: vec![false; lines], headings: Vec::new(), tables: vec![table] })
}
