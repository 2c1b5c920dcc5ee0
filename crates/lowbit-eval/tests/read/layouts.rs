//! What the beginning of a file tells: delimiters, arrays of objects, encodings.

use super::*;
use lowbit_eval::read::read_with_notes;

#[test]
fn delimiters_are_found_and_said() {
    let dir = TempDir::new().unwrap();
    let expected = rows(&[("one, two", 1), ("a \"b\"\nc", 0), ("d", 3)]);
    for (name, delimiter) in
        [(".csv", ';'), (".csv", '\t'), (".csv", '|'), (".tsv", ','), (".csv.gz", ';'), (".csv.xz", '|')]
    {
        let lines = ["text;label", "\"one, two\";1", "\"a \"\"b\"\"\nc\";0", "d;3", ""];
        let quoted = lines.join("\r\n").replace(';', &delimiter.to_string());
        let text = quoted.replace("\"\"b\"\"\r\n", "\"\"b\"\"\n");
        let (_, compress) = COMPRESS[COMPRESS.iter().rposition(|(end, _)| name.ends_with(end)).unwrap()];
        let path = file(&dir, &format!("x{name}"), compress(format!("\u{feff}{text}").as_bytes()));
        let table = Table { quoting: Some(true), ..named(&path, &["text"], "label") };
        let (found, notes) = read_with_notes(&table, &Limits::default()).unwrap();
        assert_eq!(found, expected, "{name} {delimiter:?}");
        let note = format!(
            "{}: fields are taken to be separated by {delimiter:?}, which cuts each record into 2",
            path.display()
        );
        assert_eq!(notes, [note.replace('\t', "\\t")]);
        let stated = Table { delimiter: Some(delimiter), ..table };
        assert_eq!(read_with_notes(&stated, &Limits::default()).unwrap(), (expected.clone(), vec![]));
    }
}

#[test]
fn the_usual_delimiter_wins_where_it_fits() {
    let dir = TempDir::new().unwrap();
    for (name, text) in [("x.csv", "text,label\na;b;c,1\nd;e;f,0\n"), ("x.tsv", "text\tlabel\na,b\t1\nc,d\t0\n")] {
        let table = named(file(&dir, name, text), &["text"], "label");
        let (rows, notes) = read_with_notes(&table, &Limits::default()).unwrap();
        assert!(rows.labels() == [1, 0] && notes.is_empty(), "{notes:?}");
    }
    // A record that differs leaves the usual delimiter, and is reported as ever.
    let ragged = named(file(&dir, "y.csv", "text;label\na;1\nb;0;c\n"), &["text"], "label");
    assert_eq!(refusal(&ragged), "y.csv:1: no column `text`: the header has \"text;label\"");
}

#[test]
fn objects_lie_in_lines_in_an_array_or_in_a_member() {
    let dir = TempDir::new().unwrap();
    let objects = "{\"text\": \"one, \\\"two\\\"\", \"label\": 1}, {\"label\": \"0\", \"text\": \"plain\"},\n{\"text\":\"grün\",\"label\":3}";
    for text in [
        format!("[{objects}]"),
        format!("\u{feff}\r\n [\n{objects}\n]\n"),
        format!("{{\"data\": [{objects}]}}"),
        format!(
            "{{\n \"version\": \"2\", \"names\": [\"a\"], \"empty\": [], \"more\": {{\"x\": [1]}},\n \"data\": [\n{objects}]}}"
        ),
        objects.replace("}, {", "}\n{").replace("},", "}"),
    ] {
        for (compressed, compress) in COMPRESS {
            let path = file(&dir, &format!("x.json{compressed}"), compress(text.as_bytes()));
            assert_eq!(read(&named(&path, &["text"], "label"), &Limits::default()).unwrap(), expected(), "{text}");
        }
    }
}

#[test]
fn arrays_are_refused_with_line_and_reason() {
    let dir = TempDir::new().unwrap();
    let json = |content: &str| refusal(&named(file(&dir, "x.json", content), &["text"], "label"));
    let row = "{\"text\": \"a\", \"label\": 0}";
    assert_eq!(
        json(&format!("[\n{row},\n{{\"text\": \"a\"}}]")),
        "x.json:3: no field `label`: the object has \"text\""
    );
    assert_eq!(
        json(&format!("[{row},\n\n{{\"text\": \"a\", \"label\": 9}}]")),
        "x.json:3: label \"9\" in column `label` is none of \"0\", \"1\", \"2\", \"3\""
    );
    assert!(json(&format!("[{row},\n 7]")).starts_with("x.json:2: not JSON: invalid type: integer `7`"));
    assert!(json(&format!("[{row},\n{row}")).starts_with("x.json:2: not JSON: EOF"));
    assert!(json(&format!("[{row}]\n{row}")).starts_with("x.json:2: not JSON: trailing"));
    assert_eq!(json("[]"), "x.json: no rows: the file is empty or holds only a header");
    assert_eq!(
        json(&format!("{{\"train\": [{row}],\n\"test\": [{row}]}}")),
        "x.json:2: two arrays of rows, `train` and `test`: give each a file of its own"
    );
    assert_eq!(json("{\n\"a\": 1\n}"), "x.json:3: an object without an array of objects: give JSON lines, or an array");
    assert!(json(&"[".repeat(100_000)).starts_with("x.json:1: not JSON: invalid type: sequence"));
    assert!(json(&format!("[{{\"text\": {}", "[".repeat(100_000))).starts_with("x.json:1: not JSON: recursion limit"));
    let bounded = Limits { line: 100, ..Limits::default() };
    let long = file(&dir, "y.json", format!("[{row}, {{\"text\": \"{}\", \"label\": 1}}]", "x".repeat(100)));
    let error = read(&named(long, &["text"], "label"), &bounded).unwrap_err();
    assert!(error.message.contains("more than 100 bytes without the end of a row"), "{error}");
    let many = format!("[{}{row}]", format!("{row},").repeat(100));
    assert_eq!(read(&named(file(&dir, "z.json", many), &["text"], "label"), &bounded).unwrap().len(), 101);
}

#[test]
fn other_encodings_are_told_by_name() {
    let dir = TempDir::new().unwrap();
    let text = "text,label\na,1\n";
    let wide =
        |mark: &[u8], unit: &dyn Fn(u8) -> Vec<u8>| [mark.to_vec(), text.bytes().flat_map(unit).collect()].concat();
    for (bytes, name) in [
        (wide(&[0xff, 0xfe], &|b| vec![b, 0]), "UTF-16"),
        (wide(&[0xfe, 0xff], &|b| vec![0, b]), "UTF-16"),
        (wide(&[], &|b| vec![b, 0]), "UTF-16"),
        (wide(&[], &|b| vec![0, b]), "UTF-16"),
        (wide(&[0xff, 0xfe, 0, 0], &|b| vec![b, 0, 0, 0]), "UTF-32"),
        (wide(&[], &|b| vec![0, 0, 0, b]), "UTF-32"),
    ] {
        for (extension, compress) in
            [(".csv", COMPRESS[0].1), (".tsv", COMPRESS[0].1), (".json.gz", COMPRESS[1].1), (".txt", COMPRESS[0].1)]
        {
            let path = file(&dir, &format!("x{extension}"), compress(&bytes));
            let expected = format!(
                "x{extension}:1: is text in {name}, not UTF-8: convert the file to UTF-8 (iconv -f {name} -t UTF-8)"
            );
            assert_eq!(refusal(&named(&path, &["text"], "label")), expected);
        }
    }
    let latin = file(&dir, "x.json", b"[{\"text\":\n\"gr\xfcn\", \"label\": 1}]");
    assert!(refusal(&named(latin, &["text"], "label")).starts_with("x.json:2: not JSON: invalid unicode"));
}
