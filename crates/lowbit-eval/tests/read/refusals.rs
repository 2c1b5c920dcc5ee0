//! Wrong content: every refusal names file, line, value and remedy.

use super::*;

#[test]
fn parquet_refusals() {
    let odd = |text: &str, label: &str| refusal(&named(golden("odd.parquet"), &[text], label));
    assert_eq!(
        odd("text", "label"),
        "odd.parquet: row 0: label \"true\" in column `label` is none of \"0\", \"1\", \"2\", \"3\""
    );
    assert_eq!(odd("list", "label"), "odd.parquet: column `list` is nested, not a plain text or number");
    assert_eq!(
        odd("share", "label"),
        "odd.parquet: row 0: column `share` holds 0.5, not a text, an integer or a truth value"
    );
    assert_eq!(
        odd("body", "label"),
        "odd.parquet: no column `body`: the file has \"text\", \"label\", \"list\", \"share\""
    );
    let truth = ["true", "false"].map(String::from).to_vec();
    let null = Table { target: Target::Class { labels: truth }, ..named(golden("odd.parquet"), &["text"], "label") };
    assert_eq!(refusal(&null), "odd.parquet: row 1: column `text` is null: fill it or drop the row");
    let beyond = Table { target_column: Column::Index(9), ..table(golden("snappy.parquet")) };
    assert_eq!(refusal(&beyond), "snappy.parquet: no column 9: the file has \"id\", \"text\", \"more\", \"label\"");
    let small = Limits { bytes: 100, ..Limits::default() };
    let error = read(&named(golden("snappy.parquet"), &["text"], "label"), &small).unwrap_err();
    assert!(error.kind == Kind::Memory && error.message.starts_with("more than 100 bytes of content"), "{error}");
    let short = Limits { line: 4, ..Limits::default() };
    let error = read(&named(golden("snappy.parquet"), &["text"], "label"), &short).unwrap_err().to_string();
    assert!(error.ends_with("row 1: text is longer than 4 bytes, the limit for one text"), "{error}");

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
        assert!(message.starts_with("cut.parquet: not a readable Parquet file ("), "{message}");
    }
}

#[test]
fn label_refusals_name_line_value_and_allowed_values() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "x.csv", "\"a\nb\",0\nc,4\n");
    assert_eq!(refusal(&table(&path)), "x.csv:3: label \"4\" in column 1 is none of \"0\", \"1\", \"2\", \"3\"");
    let path = file(&dir, "x.jsonl", "{\"text\":\"a\",\"label\":0}\n{\"text\":\"a\",\"label\":-1}\n");
    let message = refusal(&named(&path, &["text"], "label"));
    assert_eq!(message, "x.jsonl:2: label \"-1\" in column `label` is none of \"0\", \"1\", \"2\", \"3\"");
}

#[test]
fn delimited_refusals() {
    let dir = TempDir::new().unwrap();
    let csv = |content: &str| refusal(&table(file(&dir, "x.csv", content)));
    assert_eq!(csv("a,0\n\"b,1\nc,2\n"), "x.csv:2: quote of column 0 is never closed");
    assert_eq!(
        csv("a,0\n\"b\" c,1\n"),
        "x.csv:2: ' ' after the closing quote of column 0: double a quote inside a field"
    );
    assert_eq!(csv("a,0\nb\n"), "x.csv:2: 1 columns where the first line has 2: check the separators");
    assert_eq!(csv("a\n"), "x.csv:1: no column 1: the line has 1, counted from 0");
    assert_eq!(csv(""), "x.csv: no rows: the file is empty or holds only a header");
    assert_eq!(csv("\n\n"), "x.csv: no rows: the file is empty or holds only a header");
    let tsv = refusal(&named(file(&dir, "x.tsv", "sentence\tlabel\n"), &["sentence"], "label"));
    assert_eq!(tsv, "x.tsv: no rows: the file is empty or holds only a header");
    let tsv = refusal(&named(file(&dir, "x.tsv", "sentence\tlabel\na\t0\n"), &["text"], "label"));
    assert_eq!(tsv, "x.tsv:1: no column `text`: the header has \"sentence\", \"label\"");
    let latin = file(&dir, "x.csv", b"a,0\ngr\xfcn,1\n");
    assert_eq!(refusal(&table(latin)), "x.csv:2: byte 2 of the line, 0xfc, is not UTF-8: convert the file to UTF-8");
    assert_eq!(
        refusal(&table(file(&dir, "x.dat", "a"))),
        "x.dat: cannot tell the format by the name: expected .csv, .tsv, .jsonl, .ndjson, .json, .parquet, .idx3-ubyte, .png, .jpg, .jpeg, .txt, or set `format`"
    );
}

#[test]
fn json_refusals() {
    let dir = TempDir::new().unwrap();
    let json = |content: &str| refusal(&named(file(&dir, "x.jsonl", content), &["text"], "label"));
    assert_eq!(json("{\"text\":\"a\"}"), "x.jsonl:1: no field `label`: the object has \"text\"");
    assert_eq!(json("{\"text\":null,\"label\":0}"), "x.jsonl:1: column `text` is null: fill it or drop the row");
    assert_eq!(
        json("{\"text\":[1],\"label\":0}"),
        "x.jsonl:1: column `text` holds an array, not a text, an integer or a truth value"
    );
    assert_eq!(
        json("{\"text\":{},\"label\":0}"),
        "x.jsonl:1: column `text` holds an object, not a text, an integer or a truth value"
    );
    assert!(json("{\"text\":\"a\",\"label\":0}\n[1]\n").starts_with("x.jsonl:2: not one JSON object a line: "));
    assert!(json(&format!("{{\"text\":{}", "[".repeat(100_000))).starts_with("x.jsonl:1: not one JSON"));
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
        refused(&Table { target: Target::Class { labels: labels(&["0"]) }, ..table(&path) }),
        "1 label values: a table needs 2 to 32768"
    );
    assert_eq!(
        refused(&Table { target: Target::Class { labels: labels(&["0", "0"]) }, ..table(&path) }),
        "label value \"0\" stands for two classes"
    );
    assert_eq!(refused(&Table { columns: vec![], ..table(&path) }), "no column of the input: name at least one");
    let by_name = Table { target_column: Column::Name("label".into()), ..table(&path) };
    assert_eq!(refused(&by_name), "column `label` has a name, but the table is read with header = false");
    let path = file(&dir, "x.jsonl", "{}");
    assert_eq!(refused(&table(&path)), "column 0: JSON objects have names, not positions");
}

#[test]
fn refusals_stay_on_one_line() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "x.csv", "\"a\nb\x1b[31m\",label\nx,0\n");
    assert_eq!(
        refusal(&named(&path, &["te\nxt"], "label")),
        "x.csv:1: no column `te\\nxt`: the header has \"a\\nb\\u{1b}[31m\", \"label\""
    );
    let header: Vec<String> = (0..1000).map(|i| "n".repeat(100) + &i.to_string()).collect();
    let path = file(&dir, "x.csv", header.join(",") + "\n");
    let message = refusal(&named(&path, &["text"], "label"));
    assert!(message.ends_with("and 980 more") && message.len() < 1200, "{message}");
}
