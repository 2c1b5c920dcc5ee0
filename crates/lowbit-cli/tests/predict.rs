//! `lowbit predict`: the answers of `eval`, for rows of any table.

mod common;

use common::{good, lowbit, refused, run, small_suite};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

const CLASSES: [&str; 4] = ["delivery", "return", "payment", "refund"];
const TASK: &str = r#"
name = "mine"
version = 1
about = "A test."
question = "classify"
classes = ["delivery", "return", "payment", "refund"]
[[train]]
paths = ["train.csv"]
header = true
text = ["title", "body"]
label = "kind"
labels = ["delivery", "return", "payment", "refund"]
[[test]]
paths = ["test.csv"]
header = true
text = ["title", "body"]
label = "kind"
labels = ["delivery", "return", "payment", "refund"]
"#;

/// Rows `title, body, kind`; the words tell the class.
fn rows(n: usize) -> Vec<[String; 3]> {
    let row = |i: usize| {
        let class = CLASSES[i * 7 % 4];
        let body = format!("the \"{}\" of {} by row {i},\nin full", &class[..3], class.to_uppercase());
        [format!("no {i}"), if i == 5 { String::new() } else { body }, class.to_string()]
    };
    (0..n).map(row).collect()
}

fn csv(rows: &[[String; 3]]) -> String {
    let quoted = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
    let line = |row: &[String; 3]| row.iter().map(quoted).collect::<Vec<_>>().join(",");
    format!("title,body,kind\n{}\n", rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// A directory with a task, its data, and a model `m` trained on them.
fn home(at: &Path) -> Vec<[String; 3]> {
    small_suite(at, 30, 0);
    let suite =
        fs::read_to_string(at.join("small.toml")).unwrap().replace("task = \"quickstart\"", "task = \"mine.toml\"");
    fs::write(at.join("small.toml"), suite).unwrap();
    fs::write(at.join("mine.toml"), TASK).unwrap();
    fs::create_dir(at.join("data")).unwrap();
    let rows = rows(2500);
    fs::write(at.join("data/train.csv"), csv(&rows[..400])).unwrap();
    fs::write(at.join("data/test.csv"), csv(&rows)).unwrap();
    good(at, &["train", "small.toml", "--data", "data", "--out", "m"]);
    good(at, &["quantize", "m", "--recipe", "ternary", "--out", "q"]);
    rows
}

/// Fields of a CSV without line breaks in fields.
fn table(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split(',').map(String::from).collect()).collect()
}

fn piped(at: &Path, args: &[&str], input: &str) -> Output {
    let mut command = lowbit();
    command.current_dir(at).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The program writes before it has read all.
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    })
}

#[test]
fn predictions_are_those_of_eval_whatever_the_layout() {
    let home_dir = tempfile::tempdir().unwrap();
    let at = home_dir.path();
    let rows = home(at);
    for model in ["m", "q"] {
        let scored = good(at, &["eval", model, "--task", "mine.toml", "--data", "data", "--json"]);
        let scored: Value = serde_json::from_str(&scored).unwrap();
        let answers = scored["records"][0]["detail"]["answers"].as_array().unwrap().clone();
        let want: Vec<&str> = answers.iter().map(|a| CLASSES[a.as_u64().unwrap() as usize]).collect();
        assert!(CLASSES.iter().filter(|class| want.contains(class)).count() > 1, "more than one class is predicted");
        let csv = table(&good(at, &["predict", model, "data/test.csv"]));
        assert_eq!(csv[0][..3], ["prediction", "probability", "probability/delivery"]);
        assert!(csv[1..].iter().map(|row| row[0].as_str()).eq(want.iter().copied()), "{model}");
        for row in &csv[1..] {
            let all: Vec<f64> = row[2..6].iter().map(|p| p.parse().unwrap()).collect();
            assert!((all.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
            let best = all.iter().copied().fold(0.0, f64::max);
            assert_eq!(row[1].parse::<f64>().unwrap(), best);
        }
        // The same rows in other layouts, with other columns, from a pipe.
        let mut lines = String::new();
        for (i, [title, body, kind]) in rows.iter().enumerate() {
            let row = serde_json::json!({"id": i, "kind": kind, "body": body, "title": title});
            writeln!(lines, "{row}").unwrap();
        }
        fs::write(at.join("x.jsonl"), &lines).unwrap();
        let kept = good(at, &["predict", model, "x.jsonl", "--keep", "--format", "jsonl", "--top", "2"]);
        let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (i, row) in kept.iter().enumerate() {
            assert_eq!((row["id"].as_u64(), row["prediction"].as_str()), (Some(i as u64), Some(want[i])));
            assert_eq!((&row["top"][0]["label"], row["top"].as_array().unwrap().len()), (&row["prediction"], 2));
            assert_eq!(row["probability"].to_string(), csv[i + 1][1], "the digits of an f32");
        }
        let output = piped(at, &["predict", model, "-", "--input-format", "jsonl"], &lines);
        assert!(output.status.success() && table(&String::from_utf8(output.stdout).unwrap()) == csv);
    }
}

#[test]
fn what_is_particular_about_rows_is_marked_counted_and_said() {
    let home_dir = tempfile::tempdir().unwrap();
    let at = home_dir.path();
    home(at);
    let long = "word ".repeat(100);
    let output = piped(at, &["predict", "m", "-", "--keep"], &format!("a payment\n\n{long}\n"));
    let (printed, out) = (String::from_utf8(output.stderr).unwrap(), table(&String::from_utf8(output.stdout).unwrap()));
    assert_eq!(
        out[0],
        [
            "text",
            "prediction",
            "probability",
            "probability/delivery",
            "probability/return",
            "probability/payment",
            "probability/refund",
            "remark"
        ]
    );
    assert_eq!(out.iter().skip(1).map(|row| row[7].as_str()).collect::<Vec<_>>(), ["", "empty", "truncated"]);
    assert!(
        printed.contains("1 of 3 rows have no text") && printed.contains("1 of 3 texts are longer than the 32 tokens"),
        "{printed}"
    );
    let json = piped(at, &["predict", "m", "-", "--json", "--out", "o.csv"], "a payment\n\n").stdout;
    let json: Value = serde_json::from_slice(&json).unwrap();
    let record = &json["records"][0];
    assert_eq!(record["measures"]["share/payment"]["n"], 2);
    assert_eq!(record["detail"]["notices"][0], "1 of 2 rows have no text");
    assert_eq!(fs::read_to_string(at.join("o.csv")).unwrap().lines().count(), 3);
    // Without the columns of the training data the only column of text is taken: no number, no name of a class.
    fs::write(at.join("r.csv"), "id,text,stars,kind\n1,a payment,3,refund\n2,,4,return\n").unwrap();
    let output = run(at, &["predict", "m", "r.csv", "--keep"]);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(printed.contains("text: column `text`") && printed.contains("--no-header"), "{printed}");
    assert_eq!(
        table(&String::from_utf8(output.stdout).unwrap())[0][..5],
        ["id", "text", "stars", "kind", "prediction"]
    );
    let by_place = good(at, &["predict", "m", "r.csv", "--text", "1", "--no-header"]);
    assert_eq!(by_place.lines().count(), 4, "the first line is a row");
}

#[test]
fn an_embedding_model_gives_the_vector_of_each_text() {
    let Some(model) = lowbit_base::testing::data("weights/minilm-l6-v2") else { return };
    let (home_dir, model) = (tempfile::tempdir().unwrap(), model.to_str().unwrap().to_string());
    let answer = |extra: &[&str]| {
        let args = [&["predict", model.as_str(), "-"], extra].concat();
        let output = piped(home_dir.path(), &args, "a cat sleeps\n\na kitten is sleeping\nthe market fell\n");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = answer(&["--format", "jsonl", "--keep"]);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let vector = |row: &Value| -> Vec<f64> {
        row["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let dot = |a: usize, b: usize| vector(&rows[a]).iter().zip(vector(&rows[b])).map(|(a, b)| a * b).sum::<f64>();
    assert_eq!((rows.len(), rows[2]["text"].as_str()), (4, Some("a kitten is sleeping")));
    assert!((0..4).all(|row| vector(&rows[row]).len() == 384 && (dot(row, row) - 1.0).abs() < 1e-5));
    assert!(dot(0, 2) > 0.7 && dot(0, 3) < 0.3, "{} {}", dot(0, 2), dot(0, 3));
    assert_eq!(rows[1]["remark"], "empty");
    let csv = answer(&[]);
    let mut csv = csv.lines();
    assert_eq!(csv.next(), Some("embedding,remark"));
    assert_eq!(csv.next().unwrap().trim_end_matches(','), format!("\"{}\"", rows[0]["embedding"]));
}

#[test]
fn what_cannot_be_predicted_is_refused_and_nothing_is_left() {
    let home_dir = tempfile::tempdir().unwrap();
    let at = home_dir.path();
    home(at);
    let write = |name: &str, text: &str| fs::write(at.join(name), text).unwrap();
    write("two.csv", "a,b\nsome text,other text\n");
    write("none.csv", "a,b\n1,2\n");
    write("cut.csv", "a,b\nsome text,1\nmore\n");
    write("list.jsonl", "{\"text\": \"x\"}\n{\"text\": [1]}\n");
    write("bad.jsonl", "{\"text\": \"x\"}\n{\"text\": \n");
    write("clash.csv", "text,prediction\nsome text,1\n");
    write("empty.csv", "");
    write("x.dat", "text");
    for (args, code, words) in [
        (&["two.csv"][..], 3, &["two.csv: several columns hold text", "--text", "\"a\", \"b\""][..]),
        (&["none.csv"], 3, &["none.csv: no column holds text", "--text"]),
        (&["two.csv", "--text", "c"], 2, &["two.csv", "`c`", "\"a\", \"b\""]),
        (&["cut.csv"], 3, &["cut.csv:3: 1 columns"]),
        (&["list.jsonl"], 3, &["list.jsonl:2: column `text` holds an array"]),
        (&["bad.jsonl"], 3, &["bad.jsonl:2: not one JSON object a line"]),
        (&["clash.csv", "--text", "text", "--keep"], 2, &["`prediction`", "--keep"]),
        (&["empty.csv"], 3, &["empty.csv: no rows"]),
        (&["x.dat"], 3, &["x.dat: cannot tell the format"]),
        (&["absent.csv"], 5, &["absent.csv: no such file"]),
        (&[], 2, &["lowbit predict MODEL FILE"]),
    ] {
        let all = [&["predict", "-m", "m", "--out", "o.csv"], args].concat();
        if args.is_empty() {
            assert_eq!(run(at, &all).status.code(), Some(2));
            continue;
        }
        refused(at, &all, code, words);
        assert!(!at.join("o.csv").exists(), "{args:?}");
    }
    good(at, &["predict", "m", "x.dat", "--input-format", "text"]);
    refused(at, &["predict", "m", "-", "--input-format", "parquet"], 3, &["standard input", "not a pipe"]);
    // A reader that has seen enough is no failure, and ends the work.
    let mut command = lowbit();
    command
        .current_dir(at)
        .args(["predict", "m", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let _ = child.stdin.take().unwrap().write_all("a payment\n".repeat(100_000).as_bytes());
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && printed.lines().count() == 1 && !printed.contains("rows"), "{printed}");
}

#[test]
fn a_run_that_was_killed_goes_on_and_shards_are_one_run() {
    let home_dir = tempfile::tempdir().unwrap();
    let at = home_dir.path();
    home(at);
    let text = |row: usize| format!("{row},\"a \"\"{}\"\"\nline\"\n", ["payment", "film, long", ""][row % 3]);
    let table = |rows: usize| format!("id,text\n{}", (0..rows).map(text).collect::<String>());
    fs::write(at.join("many.csv"), table(250_000)).unwrap();
    let answer = ["predict", "m", "many.csv", "--text", "text", "--keep"];
    good(at, &[&answer[..], &["-o", "whole.csv"]].concat());
    let mut command = lowbit();
    command.current_dir(at).args(answer).args(["-o", "kept.csv", "--resume"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !at.join("kept.csv.partial.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!at.join("kept.csv").exists());
    // What another model or table answered is not gone on with.
    let again = run(at, &[&answer[..], &["-o", "kept.csv", "--resume"]].concat());
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("goes on after"), "{again:?}");
    assert!(fs::read(at.join("kept.csv")).unwrap() == fs::read(at.join("whole.csv")).unwrap());
    assert!(!at.join("kept.csv.partial").exists() && !at.join("kept.csv.partial.json").exists());

    fs::write(at.join("few.csv"), table(5_000)).unwrap();
    for format in ["csv", "jsonl"] {
        let answer = ["predict", "m", "few.csv", "--text", "text", "--keep", "--format", format];
        good(at, &[&answer[..], &["-o", "whole"]].concat());
        refused(at, &["merge", "parts"], 2, &["no shard of it is here"]);
        for shard in ["2/3", "3/3"] {
            good(at, &[&answer[..], &["-o", "parts", "--shard", shard]].concat());
        }
        refused(at, &["merge", "parts"], 3, &["parts.1-of-3", "--shard 1/3"]);
        good(at, &[&answer[..], &["-o", "parts", "--shard", "1/3"]].concat());
        let done = run(at, &[&answer[..], &["-o", "parts", "--shard", "1/3"]].concat());
        assert!(String::from_utf8_lossy(&done.stderr).contains("shard 1/3 is complete"), "{done:?}");
        assert!(good(at, &["merge", "parts"]).contains("5000 rows of 3 shards"));
        assert!(fs::read(at.join("parts")).unwrap() == fs::read(at.join("whole")).unwrap(), "{format}");
        let part = fs::read_to_string(at.join("parts.2-of-3")).unwrap();
        fs::write(at.join("parts.2-of-3"), part.replacen("payment", "Payment", 1)).unwrap();
        refused(at, &["merge", "parts"], 3, &["parts.2-of-3", "was changed"]);
        fs::write(at.join("few.csv"), table(5_001)).unwrap();
        good(at, &[&answer[..], &["-o", "parts", "--shard", "2/3"]].concat());
        refused(at, &["merge", "parts"], 3, &["parts.2-of-3", "another table"]);
        fs::write(at.join("few.csv"), table(5_000)).unwrap();
        for part in fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()) {
            let name = part.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("parts").then(|| fs::remove_file(&part).unwrap());
        }
    }
    refused(at, &["predict", "m", "-", "-o", "o", "--resume"], 2, &["standard input cannot be read again"]);
    let wrong = run(at, &["predict", "m", "few.csv", "-o", "o", "--shard", "4/3"]);
    assert!(
        wrong.status.code() == Some(2) && String::from_utf8_lossy(&wrong.stderr).contains("INDEX/COUNT"),
        "{wrong:?}"
    );
    // The script runs all shards and the merge.
    let script = good(
        at,
        &["predict", "m", "few.csv", "--text", "text", "-o", "by script.csv", "--shards", "2", "--emit", "sh"],
    );
    let program = Path::new(env!("CARGO_BIN_EXE_lowbit")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let ran = std::process::Command::new("sh").args(["-c", &script]).env("PATH", path).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    good(at, &["predict", "m", "few.csv", "--text", "text", "-o", "whole.csv"]);
    assert!(fs::read(at.join("by script.csv")).unwrap() == fs::read(at.join("whole.csv")).unwrap());
    for (scheduler, words) in [("slurm", "#SBATCH --array=1-8"), ("hyperqueue", "hq submit")] {
        let script = good(at, &["predict", "m", "few.csv", "-o", "o.csv", "--emit", scheduler]);
        assert!(script.contains(words) && script.contains("lowbit merge o.csv"), "{script}");
    }
}

/// Task and suite of rows of numbers whose value, or class, follows from them.
fn numbers(at: &Path, question: &str) {
    let (target, classes, metric) = match question {
        "regress" => ("value = \"y\"", "", "mse"),
        _ => ("label = \"y\"\nlabels = [\"0\", \"1\"]", "classes = [\"low\", \"high\"]\n", "accuracy"),
    };
    let row = |i: i32| {
        let (a, b) = (f64::from(i % 17) / 4.0 - 2.0, f64::from(i % 5) - 1.5);
        let y = if question == "regress" { format!("{}", 3.0 * a - b + 100.0) } else { i32::from(a > b).to_string() };
        format!("{a},{},{y}\n", if i == 3 { String::new() } else { b.to_string() })
    };
    let rows: String = (0..1500).map(row).collect();
    fs::write(at.join("rows.csv"), format!("a,b,y\n{rows}")).unwrap();
    let task = format!(
        "name = \"n\"\nversion = 1\nabout = \"A test.\"\nquestion = \"{question}\"\n{classes}metrics = [\"{metric}\"]\n\
        [[train]]\npaths = [\"rows.csv\"]\nheader = true\nfeatures = [\"a\", \"b\"]\n{target}\n\
        [[test]]\npaths = [\"rows.csv\"]\nheader = true\nfeatures = [\"a\", \"b\"]\n{target}\n"
    );
    fs::write(at.join("n.toml"), task).unwrap();
    let suite = "name = \"n\"\ntask = \"n.toml\"\nbaseline = \"f32\"\n[model]\narchitecture = \"mlp\"\nlayers = [16]\n\
        hidden_act = \"relu\"\ndropout = 0.0\n[train]\nsteps = 60\nbatch_size = 32\nlearning_rate = 1e-2\nseed = 1\n\
        save_every = 0\n[[variant]]\nname = \"f32\"\nrecipe = \"f32\"\n";
    fs::write(at.join("s.toml"), suite).unwrap();
    good(at, &["train", "s.toml", "--out", "m"]);
}

/// The numbers `a` and `b` of a row.
fn row(cells: &[String]) -> [f32; 2] {
    [0, 1].map(|at: usize| cells[at].parse().unwrap())
}

#[test]
fn numbers_are_answered_as_eval_does() {
    for question in ["regress", "classify"] {
        let home = tempfile::tempdir().unwrap();
        let at = home.path();
        numbers(at, question);
        let scored: Value = serde_json::from_str(&good(at, &["eval", "m", "--task", "n.toml", "--json"])).unwrap();
        let detail = &scored["records"][0]["detail"];
        let printed = table(&good(at, &["predict", "m", "rows.csv", "--keep"]));
        assert_eq!(printed.len(), 1501);
        if question == "regress" {
            assert_eq!(printed[0], ["a", "b", "y", "prediction", "remark"]);
            let want: Vec<String> =
                detail["predicted"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap().to_string()).collect();
            assert!(printed[1..].iter().map(|row| &row[3]).eq(want.iter()), "the same numbers");
            let lines = good(at, &["predict", "m", "rows.csv", "--format", "jsonl"]);
            let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
            assert_eq!(first["prediction"], detail["predicted"][0]);
            let value = lowbit::Model::open(at.join("m")).unwrap().predict(row(&printed[1])).unwrap();
            assert_eq!(value.to_string(), printed[1][3], "the library predicts the same");
        } else {
            assert_eq!(printed[0][3..6], ["prediction", "probability", "probability/low"]);
            let answers = detail["answers"].as_array().unwrap();
            let want = answers.iter().map(|v| ["low", "high"][v.as_u64().unwrap() as usize]);
            assert!(printed[1..].iter().map(|row| row[3].as_str()).eq(want), "the same classes");
            let answer = lowbit::Model::open(at.join("m")).unwrap().classify(row(&printed[1])).unwrap();
            assert_eq!(answer.label, printed[1][3], "the library says the same");
        }
        // The task alone is trained by a default suite.
        let output = run(at, &["train", "n.toml", "--steps", "20", "--out", "d"]);
        let printed = String::from_utf8(output.stderr).unwrap();
        let said = "a default suite for the task n: f32 and ternary_qat trained on 1500 rows";
        assert!(output.status.success() && printed.contains(said), "{printed}");
        good(at, &["eval", "d", "--task", "n.toml"]);
        fs::write(at.join("other.csv"), "p,q\n1,2\n,\n").unwrap();
        refused(
            at,
            &["predict", "m", "other.csv"],
            2,
            &["other.csv: the model reads 2 numbers", "--columns", "\"p\", \"q\""],
        );
        let named = table(&good(at, &["predict", "m", "other.csv", "--columns", "p,q"]));
        assert_eq!((named[1].last().unwrap().as_str(), named[2].last().unwrap().as_str()), ("", "empty"));
        fs::write(at.join("bad.csv"), "a,b\n1,2\n3,x\n").unwrap();
        refused(at, &["predict", "m", "bad.csv"], 3, &["bad.csv:3: \"x\" in column `b` is no number"]);
    }
}
