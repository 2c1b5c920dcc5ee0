//! Parquet files of the reference implementation, which `tests/data/make_parquet.py` writes.

use super::*;

#[test]
fn parquet_of_the_reference_implementation() {
    let texts = [("one", 0), ("zwei — two", 3), ("", 2), ("four\nlines", 1), ("five", 0)];
    for name in ["snappy.parquet", "zstd.parquet", "lz4.parquet", "gzip.parquet", "brotli.parquet"] {
        let got = read(&named(golden(name), &["text"], "label"), &Limits::default()).unwrap();
        assert_eq!(got, rows(&texts), "{name}");
        let joined = Table {
            columns: vec![Column::Index(2), Column::Index(1)],
            target_column: Column::Index(3),
            ..table(golden(name))
        };
        let joined = read(&joined, &Limits::default()).unwrap();
        assert_eq!((joined.texts()[1].as_str(), joined.labels()), ("b zwei — two", &[0, 3, 2, 1, 0][..]), "{name}");
    }
    let strings = Table {
        target: Target::Class { labels: vec!["n".into(), "y".into()] },
        ..named(golden("strings.parquet"), &["text"], "label")
    };
    assert_eq!(read(&strings, &Limits::default()).unwrap().labels(), [0, 1, 0, 1, 0]);
    let truth = Table {
        target: Target::Class { labels: vec!["false".into(), "true".into()] },
        ..named(golden("odd.parquet"), &["label"], "label")
    };
    assert_eq!(read(&truth, &Limits::default()).unwrap(), rows(&[("true", 1), ("false", 0)]));
}

#[test]
fn every_version_and_encoding_of_pages() {
    let read = |name: &str| read(&named(golden(name), &["text"], "label"), &Limits::default()).unwrap();
    for name in ["incremental.parquet", "lengths.parquet"] {
        let rows = read(name);
        let texts: Vec<String> = (0..300).map(|i| format!("text {} and {i}", i / 3)).collect();
        assert_eq!(rows.texts(), texts, "{name}");
        assert!(rows.labels().iter().enumerate().all(|(i, label)| usize::from(*label) == i % 4), "{name}");
    }
    let rows = read("dictionary.parquet");
    assert_eq!((rows.len(), rows.texts()[299].as_str(), rows.labels()[299]), (300, "word 5", 3));
}

#[test]
fn missing_numbers_and_unsigned_ones() {
    let table =
        Table { input: Input::Features, target: Target::Value, ..named(golden("gaps.parquet"), &["a", "b"], "y") };
    let rows = read(&table, &Limits::default()).unwrap();
    assert_eq!(rows.values()[119], 59.5);
    assert_eq!(rows.inputs.features(0), [0.5, 4e9]);
    let (gap, last) = (rows.inputs.features(1), rows.inputs.features(119));
    assert!(gap[0].is_nan() && gap[1] == 1.0 && last[0] == 1.5 && last[1].is_nan(), "{gap:?} {last:?}");
    let days = read(&named(golden("days.parquet"), &["text"], "label"), &Limits::default()).unwrap();
    assert_eq!(days.texts(), ["1970-01-02", "1970-01-03"]);
}

#[test]
fn a_few_kilobytes_that_stand_for_gigabytes_are_refused() {
    for name in ["repeated.parquet", "page.parquet"] {
        let error = read(&named(golden(name), &["text"], "label"), &Limits::default()).unwrap_err();
        assert_eq!(error.kind, Kind::Memory, "{error}");
        assert!(error.message.contains("bytes of content, over 100 times its size"), "{error}");
    }
}
