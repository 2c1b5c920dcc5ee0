//! From nothing, or from a file of rows, to a comparison: `init`, suites for tasks, `--list`.

mod common;

use common::{good, refused, run};
use lowbit_eval::{quickstart, task};
use lowbit_model::recipe::RECIPES;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A suite whose trainings take a moment.
fn shorten(suite: &Path) {
    let text = fs::read_to_string(suite).unwrap();
    let short = |line: &str| match line.split(' ').next() {
        Some("steps") => "steps = 3".to_string(),
        Some("warmup_steps") => "warmup_steps = 1".into(),
        Some("vocab_size") => "vocab_size = 400".into(),
        Some("hidden_size") => "hidden_size = 64".into(),
        Some("num_attention_heads" | "num_key_value_heads") => line.replace('4', "2"),
        Some("num_hidden_layers") => "num_hidden_layers = 1".into(),
        _ => line.to_string(),
    };
    let shortened = text.lines().map(short).collect::<Vec<_>>().join("\n");
    assert!(shortened.contains("steps = 3\n") && shortened.contains("vocab_size = 400"), "{text}");
    fs::write(suite, shortened).unwrap();
}

#[test]
fn what_init_writes_is_compared_as_it_says() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let printed = good(at, &["init"]);
    assert!(printed.contains("next: lowbit compare ./suite.toml"), "{printed}");
    for file in ["task.toml", "suite.toml"] {
        let text = fs::read_to_string(at.join(file)).unwrap();
        assert!(text.lines().filter(|line| line.contains('#')).count() >= 5, "{file} has comments");
    }
    assert_eq!(good(at, &["init"]), printed, "the same again");
    shorten(&at.join("suite.toml"));
    let edited = fs::read(at.join("suite.toml")).unwrap();
    refused(at, &["init"], 2, &["./suite.toml", "exists already"]);
    assert_eq!(fs::read(at.join("suite.toml")).unwrap(), edited);
    let json: Value = serde_json::from_str(&good(at, &["compare", "./suite.toml", "--out", "out", "--json"])).unwrap();
    let trained = |record: &&Value| record["detail"]["made"] != "baseline";
    assert_eq!(json["records"].as_array().unwrap().iter().filter(trained).count(), 11);
    assert_eq!(json["tasks"][0]["task"], "example@1");
    good(at, &["report", "out", "--verify"]);
    // From another directory, with rows beside the task.
    fs::create_dir(at.join("other")).unwrap();
    good(&at.join("other"), &["train", "../suite.toml", "--steps", "1", "--out", "m"]);
}

#[test]
fn columns_and_classes_of_a_file_are_found_and_said() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let rows = quickstart::generate(3, 300);
    let class = |label: u16| quickstart::CLASSES[usize::from(label)];
    let csv: String = rows
        .texts()
        .iter()
        .zip(rows.labels())
        .enumerate()
        .map(|(i, (text, label))| format!("{i},{},\"{text}\",{}\n", class(*label), i % 9))
        .collect();
    let jsonl: String = rows
        .texts()
        .iter()
        .zip(rows.labels())
        .enumerate()
        .map(|(i, (text, label))| {
            format!("{}\n", serde_json::json!({"id": i, "kind": class(*label), "note \"x\"": text, "n": i % 9}))
        })
        .collect();
    fs::write(at.join("with.csv"), format!("id,kind,note,n\n{csv}")).unwrap();
    fs::write(at.join("without.csv"), &csv).unwrap();
    fs::write(at.join("rows.jsonl"), &jsonl).unwrap();
    for (file, text, label, header) in [
        ("with.csv", "note", "kind", "true"),
        ("without.csv", "2", "1", "false"),
        ("rows.jsonl", "note \"x\"", "kind", "false"),
    ] {
        let (directory, args): (&str, &[&str]) =
            if file == "without.csv" { ("b", &["--label", "1"]) } else { (&file[..1], &[]) };
        let printed = good(at, &[&["init", directory, "--data", file], args].concat());
        assert!(printed.contains("300 rows") && printed.contains("delivery, payment, refund, return"), "{printed}");
        let written = fs::read_to_string(at.join(directory).join("task.toml")).unwrap();
        let table: toml::Table = toml::from_str(&written).unwrap();
        let layout = &table["train"][0];
        let plain = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), String::from);
        assert_eq!((plain(&layout["text"][0]), plain(&layout["label"])), (text.into(), label.into()), "{file}");
        assert_eq!(layout["header"].to_string(), header, "{file}");
        let suite = format!("{directory}/suite.toml");
        shorten(&at.join(&suite));
        let model = format!("{directory}/m");
        good(at, &["train", &suite, "--out", &model]);
        let task = format!("{directory}/task.toml");
        let scored = good(at, &["eval", &model, "--task", &task, "--json"]);
        let scored: Value = serde_json::from_str(&scored).unwrap();
        assert_eq!(scored["records"][0]["detail"]["classes"][0], "delivery");
    }
}

#[test]
fn what_a_file_does_not_tell_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let rows: String = (0..20).map(|i| format!("{i},{},a note of row {i}\n", ["x", "y"][i % 2])).collect();
    fs::write(at.join("with.csv"), format!("id,kind,note\n{rows}")).unwrap();
    let printed = run(at, &["compare", "with.csv"]);
    assert_eq!(printed.status.code(), Some(2));
    let printed = String::from_utf8(printed.stderr).unwrap();
    assert!(
        printed.contains("lowbit init --data with.csv") && printed.contains("text `note`, class `kind`"),
        "{printed}"
    );
    fs::write(at.join("open.csv"), "a,b,c\nx,1,one text\ny,2,two texts\nx,1,a text\ny,2,more\n").unwrap();
    refused(
        at,
        &["init", "o", "--data", "open.csv"],
        3,
        &["open.csv: which column holds the class?", "--label", "\"a\", \"b\", \"c\""],
    );
    good(at, &["init", "o", "--data", "open.csv", "--label", "a", "--text", "c"]);
    refused(at, &["init", "p", "--data", "open.csv", "--label", "d"], 3, &["open.csv: no column `d`", "\"a\""]);
    assert!(!at.join("p").exists());
}

#[test]
fn a_task_without_a_suite_is_compared_by_a_default_one() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let folder = at.join("data/sst2_glue");
    fs::create_dir_all(&folder).unwrap();
    let rows: String = (0..40).map(|i| format!("{} film number {i}\t{}\n", ["bad", "good"][i % 2], i % 2)).collect();
    for file in ["train.tsv", "dev.tsv"] {
        fs::write(folder.join(file), format!("sentence\tlabel\n{}", rows.replace("number", &file[..3]))).unwrap();
    }
    // As long a training as the default suite has would be too long here: it is begun, and stopped by what is asked.
    let output = run(at, &["train", "sst2", "--data", "data", "--steps", "2", "--warmup-steps", "1", "--out", "m"]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success()
            && printed.contains("a default suite for the task sst2: f32 and ternary_qat trained on 40 rows"),
        "{printed}"
    );
    let config: Value = serde_json::from_slice(&fs::read(at.join("m/config.json")).unwrap()).unwrap();
    assert_eq!((&config["labels"][0], &config["input"]["columns"][0]), (&"negative".into(), &"sentence".into()));
    refused(at, &["compare", "sst"], 2, &["unknown suite or task `sst`", "sst2", "ag_news"]);
}

#[test]
fn lists_are_those_the_program_goes_by() {
    let at = Path::new(".");
    let names = |json: &Value| {
        json.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let json: Value = serde_json::from_str(&good(at, &["compare", "--list", "--json"])).unwrap();
    assert_eq!(names(&json["tasks"]), task::all().iter().map(|task| task.name.clone()).collect::<Vec<_>>());
    assert_eq!(names(&json["recipes"]), RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>());
    let suites = lowbit::suite::SUITES.len() + lowbit::comparison::texts::SUITES.len();
    assert_eq!(names(&json["suites"]).len(), suites + lowbit::suite::groups().unwrap().len());
    let empty = tempfile::tempdir().unwrap();
    let printed = good(at, &["compare", "--list", "--data", empty.path().to_str().unwrap()]);
    for name in lowbit::suite::STUDIES {
        let entry = json["suites"].as_array().unwrap().iter().find(|entry| entry["name"] == *name).unwrap();
        let quick = entry["minutes"]["quick"].as_f64().unwrap();
        assert!(quick <= 10.0 && entry["minutes"]["full"].as_f64().unwrap() >= quick, "{entry}");
        let line = printed.lines().find(|line| line.trim_start().starts_with(&format!("{name} "))).unwrap();
        assert_eq!(line.contains(", needs "), *name != "bitnet-laptop", "{line}");
    }
    let bits =
        |name: &str| json["recipes"].as_array().unwrap().iter().find(|e| e["name"] == name).unwrap()["bits"].as_f64();
    assert_eq!(
        [bits("f32"), bits("bitnet"), bits("nf4"), bits("bitnet_b3")],
        [Some(32.0), Some(2.0), Some(4.5), Some(1.6)]
    );
    let train: Value = serde_json::from_str(&good(at, &["train", "--list", "--json"])).unwrap();
    assert_eq!(names(&train["language_models"]).len(), lowbit::language::LANGUAGES.len());
    for command in ["train", "quantize", "eval", "compare"] {
        let printed = good(at, &[command, "--list"]);
        for recipe in RECIPES {
            assert!(printed.contains(recipe.name) && printed.contains(recipe.summary), "{command}: {}", recipe.name);
        }
    }
    assert_eq!(run(at, &["train"]).status.code(), Some(2), "--out is still demanded");
    assert_eq!(run(at, &["quantize", "m"]).status.code(), Some(2));
}
