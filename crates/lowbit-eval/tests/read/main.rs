//! Files of every format and compression, whole and damaged.

mod cifar;
mod damage;
mod images;
mod layouts;
mod numbers;
mod parquet;
mod refusals;
mod visits;

use lowbit_eval::error::Kind;
use lowbit_eval::read::{Column, FORMATS, Format, Input, Limits, Rows, Table, Target, read};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn table(path: impl AsRef<Path>) -> Table {
    Table {
        path: path.as_ref().into(),
        format: None,
        header: false,
        delimiter: None,
        quoting: None,
        input: Input::Text,
        columns: vec![Column::Index(0)],
        separator: String::new(),
        target: Target::Class { labels: ["0", "1", "2", "3"].map(String::from).into() },
        target_column: Column::Index(1),
        labels: None,
    }
}

fn named(path: impl AsRef<Path>, text: &[&str], label: &str) -> Table {
    let columns = text.iter().map(|name| Column::Name(name.to_string())).collect();
    Table { header: true, columns, target_column: Column::Name(label.into()), ..table(path) }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn file(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn rows(rows: &[(&str, u16)]) -> Rows {
    let (texts, labels) = rows.iter().map(|(text, label)| (text.to_string(), *label)).unzip();
    Rows::of_texts(texts, labels)
}

/// The message without the directory, e.g. `a.csv:3: ...`.
fn refusal(table: &Table) -> String {
    let error = read(table, &Limits::default()).expect_err("must be refused");
    assert_eq!(error.kind, Kind::Input, "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    let dir = format!("{}/", table.path.parent().unwrap().display());
    text.strip_prefix(&dir).expect("the file is named").into()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Compress = fn(&[u8]) -> Vec<u8>;
const COMPRESS: [(&str, Compress); 4] = [("", |bytes| bytes.to_vec()), (".gz", gzip), (".zst", zstd), (".xz", xz)];

/// The same three rows in each text format.
fn samples() -> Vec<(&'static str, &'static str)> {
    vec![
        (".csv", "text,label\n\"one, \"\"two\"\"\",1\r\nplain,0\n\n\"grün\",3\n"),
        (".tsv", "text\tlabel\none, \"two\"\t1\r\nplain\t0\ngrün\t3"),
        (
            ".jsonl",
            "{\"text\":\"one, \\\"two\\\"\",\"label\":1}\n{\"label\":\"0\",\"text\":\"plain\"}\n\n{\"text\":\"grün\",\"label\":3}\n",
        ),
    ]
}

fn expected() -> Rows {
    rows(&[("one, \"two\"", 1), ("plain", 0), ("grün", 3)])
}

#[test]
fn every_format_with_every_compression() {
    let dir = TempDir::new().unwrap();
    for (extension, content) in samples() {
        for (compressed, compress) in COMPRESS {
            let bytes = compress(content.as_bytes());
            let path = file(&dir, &format!("x{extension}{compressed}"), &bytes);
            assert_eq!(
                read(&named(&path, &["text"], "label"), &Limits::default()).unwrap(),
                expected(),
                "{}",
                path.display()
            );
            // The magic bytes tell, too.
            let bare = file(&dir, &format!("bare{extension}"), &bytes);
            assert_eq!(read(&named(&bare, &["text"], "label"), &Limits::default()).unwrap(), expected());
        }
        let (first, second) = content.split_at(20);
        let two_parts = [zstd(first.as_bytes()), zstd(second.as_bytes())].concat();
        let path = file(&dir, &format!("parts{extension}.zst"), two_parts);
        assert_eq!(read(&named(&path, &["text"], "label"), &Limits::default()).unwrap(), expected());
    }
    let apart = [Format::Parquet, Format::Idx, Format::Cifar, Format::Images, Format::Text];
    assert_eq!(FORMATS.len(), samples().len() + apart.len(), "a format without a sample, or a test of its own");
}

#[test]
fn columns_are_joined_and_labels_mapped() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "x.csv", "\u{feff}3,a title,\"two\r\nlines\"\n1,b,c\n");
    let three = Table {
        columns: vec![Column::Index(1), Column::Index(2)],
        target_column: Column::Index(0),
        target: Target::Class { labels: vec!["1".into(), "2".into(), "3".into()] },
        ..table(&path)
    };
    assert_eq!(read(&three, &Limits::default()).unwrap(), rows(&[("a title two\nlines", 2), ("b c", 0)]));
    let path = file(&dir, "y.tsv", "a\t\"b\"\t0\n");
    let unquoted = Table { columns: vec![Column::Index(1)], target_column: Column::Index(2), ..table(&path) };
    assert_eq!(read(&unquoted, &Limits::default()).unwrap(), rows(&[("\"b\"", 0)]));
    let quoted = Table { quoting: Some(true), ..unquoted };
    assert_eq!(read(&quoted, &Limits::default()).unwrap(), rows(&[("b", 0)]));
    let path = file(&dir, "z.data", "a,0\n");
    let forced = Table { format: Some(Format::Csv), ..table(&path) };
    assert_eq!(read(&forced, &Limits::default()).unwrap(), rows(&[("a", 0)]));
}
