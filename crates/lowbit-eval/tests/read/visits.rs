//! Records of any columns, without what is right.

use super::{COMPRESS, file, golden};
use lowbit_eval::Error;
use lowbit_eval::read::{Column, First, Format, Limits, Projection, Source, Visitor, visit};
use serde_json::{Value, json};
use std::path::Path;

/// Takes all columns, or some.
#[derive(Default)]
struct All {
    columns: Option<Vec<Column>>,
    header: bool,
    rows: Vec<(Option<u64>, Vec<Value>)>,
    first: Option<First>,
}

impl Visitor for All {
    fn begin(&mut self, first: &First) -> Result<Projection, Error> {
        self.first = Some(first.clone());
        let all = first.fields.iter().cloned().map(Column::Name).collect();
        Ok(Projection { columns: self.columns.clone().unwrap_or(all), header: self.header, optional: true })
    }

    fn row(&mut self, line: Option<u64>, values: Vec<Value>) -> Result<(), Error> {
        self.rows.push((line, values));
        Ok(())
    }
}

fn seen(path: impl AsRef<Path>, mut visitor: All) -> Result<All, Error> {
    let source = Source { path: Some(path.as_ref().into()), ..Source::default() };
    visit(&source, &Limits::default(), &mut visitor).map(|()| visitor)
}

#[test]
fn plain_text_has_a_row_a_line() {
    let dir = tempfile::tempdir().unwrap();
    for (compressed, compress) in COMPRESS {
        let path = file(&dir, &format!("x.txt{compressed}"), compress("one, \"two\"\r\n\n gr\u{fc}n".as_bytes()));
        let all = seen(path, All::default()).unwrap();
        let row = |line, text: &str| (Some(line), vec![json!(text)]);
        assert_eq!(all.rows, [row(1, "one, \"two\""), row(2, ""), row(3, " grün")]);
        let first = all.first.unwrap();
        assert!(first.fields == ["text"] && !first.is_line);
    }
}

#[test]
fn values_keep_their_types() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"a\": 1.5, \"b\": null, \"c\": [true]}\n\n{\"c\": \"x\", \"d\": 2}\n";
    let all = seen(file(&dir, "x.jsonl", lines), All::default()).unwrap();
    let rows = [
        (Some(1), vec![json!(1.5), Value::Null, json!([true])]),
        (Some(3), vec![Value::Null, Value::Null, json!("x")]),
    ];
    assert_eq!(all.rows, rows);
    let columns = Some(vec![Column::Name("c".into())]);
    let some = seen(dir.path().join("x.jsonl"), All { columns, ..All::default() }).unwrap();
    assert_eq!(some.rows, [(Some(1), vec![json!([true])]), (Some(3), vec![json!("x")])]);
    // The file of the tests of rows has a fraction and a null.
    let odd = seen(golden("odd.parquet"), All::default()).unwrap();
    let fields = odd.first.unwrap().fields;
    let at = |name: &str| fields.iter().position(|field| field == name).unwrap();
    assert_eq!(odd.rows[0].1[at("share")], json!(0.5));
    assert_eq!(odd.rows[1].1[at("text")], Value::Null);
    assert!(odd.rows.iter().all(|(line, _)| line.is_none()));
}

#[test]
fn a_first_line_is_a_row_or_a_header_as_the_visitor_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "x.csv", "a,b\n1,2\n");
    let all = seen(&path, All { header: true, ..All::default() }).unwrap();
    assert_eq!(all.rows, [(Some(2), vec![json!("1"), json!("2")])]);
    assert!(all.first.unwrap().is_line);
    let columns = Some(vec![Column::Index(1)]);
    let all = seen(&path, All { columns, ..All::default() }).unwrap();
    assert_eq!(all.rows, [(Some(1), vec![json!("b")]), (Some(2), vec![json!("2")])]);
}

#[test]
fn what_has_no_columns_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "t10k-images.idx3-ubyte", [0, 0, 8, 3]);
    assert!(seen(path, All::default()).err().unwrap().message.contains("holds images"));
    let piped = Source { format: Some(Format::Parquet), ..Source::default() };
    let refused = visit(&piped, &Limits::default(), &mut All::default()).unwrap_err().to_string();
    assert_eq!(refused, "standard input: Parquet is read at many places of a file: give the file, not a pipe");
}
