//! Files of every format and compression, whole and damaged.

use lowbit_eval::error::Kind;
use lowbit_eval::read::{Column, FORMATS, Format, Limits, Rows, Table, read};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn table(path: impl AsRef<Path>) -> Table {
    Table {
        path: path.as_ref().into(),
        format: None,
        header: false,
        quoting: None,
        text: vec![Column::Index(0)],
        label: Column::Index(1),
        labels: ["0", "1", "2", "3"].map(String::from).into(),
    }
}

fn named(path: impl AsRef<Path>, text: &[&str], label: &str) -> Table {
    let text = text
        .iter()
        .map(|name| Column::Name(name.to_string()))
        .collect();
    Table {
        header: true,
        text,
        label: Column::Name(label.into()),
        ..table(path)
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn file(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn rows(rows: &[(&str, u16)]) -> Rows {
    Rows {
        texts: rows.iter().map(|(text, _)| text.to_string()).collect(),
        labels: rows.iter().map(|(_, label)| *label).collect(),
    }
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
const COMPRESS: [(&str, Compress); 4] = [
    ("", |bytes| bytes.to_vec()),
    (".gz", gzip),
    (".zst", zstd),
    (".xz", xz),
];

/// The same three rows in each text format.
fn samples() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            ".csv",
            "text,label\n\"one, \"\"two\"\"\",1\r\nplain,0\n\n\"grün\",3\n",
        ),
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
            assert_eq!(
                read(&named(&bare, &["text"], "label"), &Limits::default()).unwrap(),
                expected()
            );
        }
        let (first, second) = content.split_at(20);
        let two_parts = [zstd(first.as_bytes()), zstd(second.as_bytes())].concat();
        let path = file(&dir, &format!("parts{extension}.zst"), two_parts);
        assert_eq!(
            read(&named(&path, &["text"], "label"), &Limits::default()).unwrap(),
            expected()
        );
    }
    assert_eq!(
        FORMATS.len(),
        samples().len() + 1,
        "a format without a sample"
    );
}

#[test]
fn columns_are_joined_and_labels_mapped() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "x.csv", "\u{feff}3,a title,\"two\r\nlines\"\n1,b,c\n");
    let three = Table {
        text: vec![Column::Index(1), Column::Index(2)],
        label: Column::Index(0),
        labels: vec!["1".into(), "2".into(), "3".into()],
        ..table(&path)
    };
    assert_eq!(
        read(&three, &Limits::default()).unwrap(),
        rows(&[("a title two\nlines", 2), ("b c", 0)])
    );
    let path = file(&dir, "y.tsv", "a\t\"b\"\t0\n");
    let unquoted = Table {
        text: vec![Column::Index(1)],
        label: Column::Index(2),
        ..table(&path)
    };
    assert_eq!(
        read(&unquoted, &Limits::default()).unwrap(),
        rows(&[("\"b\"", 0)])
    );
    let quoted = Table {
        quoting: Some(true),
        ..unquoted
    };
    assert_eq!(
        read(&quoted, &Limits::default()).unwrap(),
        rows(&[("b", 0)])
    );
    let path = file(&dir, "z.data", "a,0\n");
    let forced = Table {
        format: Some(Format::Csv),
        ..table(&path)
    };
    assert_eq!(
        read(&forced, &Limits::default()).unwrap(),
        rows(&[("a", 0)])
    );
}

#[test]
fn parquet_of_the_reference_implementation() {
    let texts = [
        ("one", 0),
        ("zwei — two", 3),
        ("", 2),
        ("four\nlines", 1),
        ("five", 0),
    ];
    for name in ["snappy.parquet", "zstd.parquet", "lz4.parquet"] {
        let got = read(&named(golden(name), &["text"], "label"), &Limits::default()).unwrap();
        assert_eq!(got, rows(&texts), "{name}");
        let joined = Table {
            text: vec![Column::Index(2), Column::Index(1)],
            label: Column::Index(3),
            ..table(golden(name))
        };
        let joined = read(&joined, &Limits::default()).unwrap();
        assert_eq!(
            (joined.texts[1].as_str(), joined.labels),
            ("b zwei — two", vec![0, 3, 2, 1, 0]),
            "{name}"
        );
    }
    let strings = Table {
        labels: vec!["n".into(), "y".into()],
        ..named(golden("strings.parquet"), &["text"], "label")
    };
    assert_eq!(
        read(&strings, &Limits::default()).unwrap().labels,
        [0, 1, 0, 1, 0]
    );
    let truth = Table {
        labels: vec!["false".into(), "true".into()],
        ..named(golden("odd.parquet"), &["label"], "label")
    };
    assert_eq!(
        read(&truth, &Limits::default()).unwrap(),
        rows(&[("true", 1), ("false", 0)])
    );
}

#[test]
fn parquet_refusals() {
    let odd = |text: &str, label: &str| refusal(&named(golden("odd.parquet"), &[text], label));
    assert_eq!(
        odd("text", "label"),
        "odd.parquet: row 0: label \"true\" in column `label` is none of \"0\", \"1\", \"2\", \"3\""
    );
    assert_eq!(
        odd("list", "label"),
        "odd.parquet: column `list` is nested, not a plain text or number"
    );
    assert_eq!(
        odd("share", "label"),
        "odd.parquet: row 0: column `share` holds 0.5, not a text, an integer or a truth value"
    );
    assert_eq!(
        odd("body", "label"),
        "odd.parquet: no column `body`: the file has \"text\", \"label\", \"list\", \"share\""
    );
    let truth = ["true", "false"].map(String::from).to_vec();
    let null = Table {
        labels: truth,
        ..named(golden("odd.parquet"), &["text"], "label")
    };
    assert_eq!(
        refusal(&null),
        "odd.parquet: row 1: column `text` is null: fill it or drop the row"
    );
    let beyond = Table {
        label: Column::Index(9),
        ..table(golden("snappy.parquet"))
    };
    assert_eq!(
        refusal(&beyond),
        "snappy.parquet: no column 9: the file has \"id\", \"text\", \"more\", \"label\""
    );
    assert!(refusal(&named(golden("gzip.parquet"), &["text"], "label")).contains("flate2"));

    let small = Limits {
        bytes: 100,
        ..Limits::default()
    };
    let error = read(&named(golden("snappy.parquet"), &["text"], "label"), &small)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("bytes after decompression, the limit for one file is 100"),
        "{error}"
    );
    let short = Limits {
        line: 4,
        ..Limits::default()
    };
    let error = read(&named(golden("snappy.parquet"), &["text"], "label"), &short)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("row 1: text is longer than 4 bytes, the limit for one text"),
        "{error}"
    );

    let dir = TempDir::new().unwrap();
    let bytes = fs::read(golden("snappy.parquet")).unwrap();
    let path = file(&dir, "x.parquet.gz", gzip(&bytes));
    assert_eq!(
        refusal(&named(&path, &["text"], "label")),
        "x.parquet.gz: is a compressed Parquet file: decompress it first"
    );
    for length in [0, 3, 12, bytes.len() - 1] {
        let path = file(&dir, "cut.parquet", &bytes[..length]);
        let message = refusal(&named(&path, &["text"], "label"));
        assert!(
            message.starts_with("cut.parquet: not a readable Parquet file ("),
            "{message}"
        );
    }
}

#[test]
fn label_refusals_name_line_value_and_allowed_values() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "x.csv", "\"a\nb\",0\nc,4\n");
    assert_eq!(
        refusal(&table(&path)),
        "x.csv:3: label \"4\" in column 1 is none of \"0\", \"1\", \"2\", \"3\""
    );
    let path = file(
        &dir,
        "x.jsonl",
        "{\"text\":\"a\",\"label\":0}\n{\"text\":\"a\",\"label\":-1}\n",
    );
    let message = refusal(&named(&path, &["text"], "label"));
    assert_eq!(
        message,
        "x.jsonl:2: label \"-1\" in column `label` is none of \"0\", \"1\", \"2\", \"3\""
    );
}

#[test]
fn delimited_refusals() {
    let dir = TempDir::new().unwrap();
    let csv = |content: &str| refusal(&table(file(&dir, "x.csv", content)));
    assert_eq!(
        csv("a,0\n\"b,1\nc,2\n"),
        "x.csv:2: quote of column 0 is never closed"
    );
    assert_eq!(
        csv("a,0\n\"b\" c,1\n"),
        "x.csv:2: ' ' after the closing quote of column 0: double a quote inside a field"
    );
    assert_eq!(
        csv("a,0\nb\n"),
        "x.csv:2: 1 columns where the first line has 2: check the separators"
    );
    assert_eq!(
        csv("a\n"),
        "x.csv:1: no column 1: the line has 1, counted from 0"
    );
    assert_eq!(
        csv(""),
        "x.csv: no rows: the file is empty or holds only a header"
    );
    assert_eq!(
        csv("\n\n"),
        "x.csv: no rows: the file is empty or holds only a header"
    );
    let tsv = refusal(&named(
        file(&dir, "x.tsv", "sentence\tlabel\n"),
        &["sentence"],
        "label",
    ));
    assert_eq!(
        tsv,
        "x.tsv: no rows: the file is empty or holds only a header"
    );
    let tsv = refusal(&named(
        file(&dir, "x.tsv", "sentence\tlabel\na\t0\n"),
        &["text"],
        "label",
    ));
    assert_eq!(
        tsv,
        "x.tsv:1: no column `text`: the header has \"sentence\", \"label\""
    );
    let latin = file(&dir, "x.csv", b"a,0\ngr\xfcn,1\n");
    assert_eq!(
        refusal(&table(latin)),
        "x.csv:2: byte 2 of the line, 0xfc, is not UTF-8: convert the file to UTF-8"
    );
    assert_eq!(
        refusal(&table(file(&dir, "x.txt", "a"))),
        "x.txt: cannot tell the format by the name: expected .csv, .tsv, .jsonl, .ndjson, .json, .parquet, or set `format`"
    );
}

#[test]
fn json_refusals() {
    let dir = TempDir::new().unwrap();
    let json = |content: &str| refusal(&named(file(&dir, "x.jsonl", content), &["text"], "label"));
    assert_eq!(
        json("{\"text\":\"a\"}"),
        "x.jsonl:1: no field `label`: the object has \"text\""
    );
    assert_eq!(
        json("{\"text\":null,\"label\":0}"),
        "x.jsonl:1: field `text` is null: fill it or drop the row"
    );
    assert_eq!(
        json("{\"text\":[1],\"label\":0}"),
        "x.jsonl:1: field `text` is an array, not a text or a number"
    );
    assert_eq!(
        json("{\"text\":{},\"label\":0}"),
        "x.jsonl:1: field `text` is an object, not a text or a number"
    );
    assert!(
        json("{\"text\":\"a\",\"label\":0}\n[1]\n")
            .starts_with("x.jsonl:2: not one JSON object a line: ")
    );
    assert!(json(&"[".repeat(100_000)).starts_with("x.jsonl:1: not one JSON object a line: "));
    assert!(
        json(&format!("{{\"text\":{}", "[".repeat(100_000))).starts_with("x.jsonl:1: not one JSON")
    );
}

#[test]
fn requests_that_make_no_sense() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "x.csv", "a,0\n");
    let refused = |table: &Table| {
        let error = read(table, &Limits::default()).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        error.to_string()
    };
    let labels = |labels: &[&str]| labels.iter().map(|l| l.to_string()).collect();
    assert_eq!(
        refused(&Table {
            labels: labels(&["0"]),
            ..table(&path)
        }),
        "1 label values: a table needs 2 to 32768"
    );
    assert_eq!(
        refused(&Table {
            labels: labels(&["0", "0"]),
            ..table(&path)
        }),
        "label value \"0\" stands for two classes"
    );
    assert_eq!(
        refused(&Table {
            text: vec![],
            ..table(&path)
        }),
        "no text column: name at least one"
    );
    let by_name = Table {
        label: Column::Name("label".into()),
        ..table(&path)
    };
    assert_eq!(
        refused(&by_name),
        "column `label` has a name, but the table is read with header = false"
    );
    let path = file(&dir, "x.jsonl", "{}");
    assert_eq!(
        refused(&table(&path)),
        "column 0: JSON lines have names, not positions"
    );
}

#[test]
fn what_is_no_regular_file() {
    let dir = TempDir::new().unwrap();
    let error = read(&table(dir.path().join("absent.csv")), &Limits::default()).unwrap_err();
    assert_eq!(error.kind, Kind::Io);
    assert!(error.to_string().ends_with(
        "absent.csv: no such file: check the name, or the data directory (--data DIR, LOWBIT_DATA)"
    ));
    let folder = dir.path().join("folder.csv");
    fs::create_dir(&folder).unwrap();
    assert_eq!(
        refusal(&table(&folder)),
        "folder.csv: is a directory: name a file in it"
    );
    #[cfg(unix)]
    {
        let zero = dir.path().join("zero.csv");
        std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
        assert_eq!(
            refusal(&table(&zero)),
            "zero.csv: is not a regular file: copy its content to one first"
        );
        let circle = dir.path().join("circle.csv");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        assert_eq!(
            read(&table(&circle), &Limits::default()).unwrap_err().kind,
            Kind::Io
        );
    }
}

#[test]
fn limits_hold() {
    let dir = TempDir::new().unwrap();
    let many = "text,0\n".repeat(1000);
    for (compressed, compress) in COMPRESS {
        let path = file(
            &dir,
            &format!("x.csv{compressed}"),
            compress(many.as_bytes()),
        );
        let exact = Limits {
            bytes: 7000,
            rows: 1000,
            ..Limits::default()
        };
        assert_eq!(read(&table(&path), &exact).unwrap().len(), 1000);
        let error = read(
            &table(&path),
            &Limits {
                bytes: 6999,
                ..exact
            },
        )
        .unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert!(
            error
                .message
                .starts_with("more than 6999 bytes after decompression"),
            "{error}"
        );
        let error = read(&table(&path), &Limits { rows: 999, ..exact }).unwrap_err();
        assert_eq!(
            (error.line, error.message.as_str()),
            (Some(1000), "more than 999 rows, the limit for one table")
        );
    }
    let bounded = Limits {
        line: 100,
        ..Limits::default()
    };
    let refused =
        |content: String| read(&table(file(&dir, "y.csv", content)), &bounded).unwrap_err();
    let error = refused(format!("a,0\n{},1\n", "x".repeat(200)));
    assert_eq!(error.line, Some(2));
    assert_eq!(
        error.message,
        "record is longer than 100 bytes: is it a text table, with matching quotes?"
    );
    let error = refused(format!("a,0\n\"b,1\n{}", many));
    assert!(
        error
            .message
            .ends_with("(the record's quote opens on line 2)"),
        "{error}"
    );
    assert!(
        read(
            &table(file(&dir, "y.csv", format!("{},1\n", "x".repeat(98)))),
            &bounded
        )
        .is_err()
    );
    assert!(
        read(
            &table(file(&dir, "y.csv", format!("{},1\n", "x".repeat(97)))),
            &bounded
        )
        .is_ok()
    );
}

#[test]
fn a_line_of_100_megabytes_and_a_bomb() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "long.csv", "");
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100_000_000)
        .unwrap();
    assert!(refusal(&table(&path)).starts_with("long.csv:1: record is longer than 16777216 bytes"));
    for (compressed, compress) in COMPRESS.into_iter().skip(1) {
        let path = file(
            &dir,
            &format!("bomb.csv{compressed}"),
            compress(&vec![0; 20_000_000]),
        );
        assert!(
            refusal(&table(&path)).contains(":1: record is longer than"),
            "{compressed}"
        );
    }
}

#[test]
fn damaged_compression_is_named() {
    let dir = TempDir::new().unwrap();
    let mut state = 1u32;
    let mut letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    };
    let content: String = (0..3000)
        .map(|_| format!("{}{}{},0\n", letter(), letter(), letter()))
        .collect();
    for (compressed, compress) in COMPRESS.into_iter().skip(1) {
        let bytes = compress(content.as_bytes());
        let name = format!("x.csv{compressed}");
        let cut = refusal(&table(file(&dir, &name, &bytes[..bytes.len() / 2])));
        assert!(cut.starts_with(&format!("{name}:")), "{cut}");
        assert!(
            cut.ends_with(
                ": compressed stream ends too early: the file is truncated, fetch it again"
            ),
            "{cut}"
        );
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2..][..8].fill(0xff);
        // Without a checksum (zstd) the damage may show as a bad row.
        let message = refusal(&table(file(&dir, &name, &damaged)));
        assert!(message.starts_with(&format!("{name}:")), "{message}");
        let renamed = file(&dir, &format!("plain.csv{compressed}"), &content);
        assert!(refusal(&table(&renamed)).contains("but does not begin like one"));
    }
    let wrong = file(&dir, "x.csv.gz", zstd(content.as_bytes()));
    assert_eq!(
        refusal(&table(&wrong)),
        "x.csv.gz: is named .gz but is zstd: rename it"
    );
}

#[test]
fn refusals_stay_on_one_line() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "x.csv", "\"a\nb\x1b[31m\",label\nx,0\n");
    assert_eq!(
        refusal(&named(&path, &["te\nxt"], "label")),
        "x.csv:1: no column `te\\nxt`: the header has \"a\\nb\\u{1b}[31m\", \"label\""
    );
    let header: Vec<String> = (0..1000)
        .map(|i| "n".repeat(100) + &i.to_string())
        .collect();
    let path = file(&dir, "x.csv", header.join(",") + "\n");
    let message = refusal(&named(&path, &["text"], "label"));
    assert!(
        message.ends_with("and 980 more") && message.len() < 1200,
        "{message}"
    );
}

/// Random damage to whole files ends in rows or in one line of refusal.
#[test]
fn random_damage_never_panics() {
    let dir = TempDir::new().unwrap();
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let mut seeds: Vec<(String, Vec<u8>)> = Vec::new();
    for (extension, content) in samples() {
        for (compressed, compress) in COMPRESS {
            seeds.push((
                format!("x{extension}{compressed}"),
                compress(content.as_bytes()),
            ));
        }
    }
    for name in [
        "snappy.parquet",
        "zstd.parquet",
        "lz4.parquet",
        "strings.parquet",
        "odd.parquet",
    ] {
        seeds.push((name.into(), fs::read(golden(name)).unwrap()));
    }
    let mut refused = 0;
    for (name, bytes) in &seeds {
        for _ in 0..ROUNDS {
            let mut bytes = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] ^= 1 << random(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, b"\"\n\t,\xff"[random(5)]),
                }
            }
            let path = file(&dir, name, &bytes);
            match read(
                &named(&path, &["text"], "label"),
                &Limits {
                    bytes: 1 << 20,
                    ..Limits::default()
                },
            ) {
                Ok(rows) => assert_eq!(rows.texts.len(), rows.labels.len()),
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
    }
    assert!(refused > seeds.len() * ROUNDS / 10, "{refused}");
}

const ROUNDS: usize = 300;
