//! Every built-in task, refusals of task files, and the baselines on real data.

use lowbit_eval::baseline::{self, BASELINES};
use lowbit_eval::error::Kind;
use lowbit_eval::metrics::DROP;
use lowbit_eval::read::Targets;
use lowbit_eval::task::{self, Answers, Question, Split, TASKS, Task};
use lowbit_eval::{quickstart, read};
use lowbit_model::Inputs;
use sha2::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The directory of real data sets, when there is one.
fn data() -> Option<PathBuf> {
    lowbit_base::testing::data("ag_news").and_then(|folder| Some(folder.parent()?.to_path_buf()))
}

fn accuracy(answers: &[u16], truths: &[u16]) -> f64 {
    assert_eq!(answers.len(), truths.len());
    answers.iter().zip(truths).filter(|(a, b)| a == b).count() as f64 / truths.len() as f64
}

#[test]
fn the_list_is_the_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks");
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().into())
        .collect();
    files.sort();
    let mut names: Vec<String> = task::all().into_iter().map(|task| task.name).collect();
    names.sort();
    assert_eq!(names, files, "a task file and its line in TASKS");
    for name in names {
        assert_eq!(task::find(&name).unwrap().name, name);
    }
}

/// The built-in tasks that networks are trained for.
fn trained() -> impl Iterator<Item = Task> {
    task::all().into_iter().filter(|task| task.question.spec().is_trained)
}

#[test]
fn every_trained_task_loads_and_scores() {
    let dir = data();
    for task in trained() {
        if task.generator.is_none() && dir.is_none() {
            continue;
        }
        let splits = task.load(dir.as_deref()).unwrap();
        let facts = &splits.facts;
        println!("{}: {} excluded", facts.task, splits.excluded);
        assert_eq!(facts.task, format!("{}@{}", task.name, task.version));
        assert_eq!((facts.train_rows, facts.test_rows), (splits.train.len() as u64, splits.test.len() as u64));
        assert_eq!(facts.overlap_rows, 0, "{}", task.name);
        assert_ne!(facts.train_sha256, facts.test_sha256);
        let right = match &splits.test.targets {
            Targets::Classes(classes) => Answers::Classes(classes.clone()),
            Targets::Values(values) => Answers::Values(values.clone()),
            other => panic!("{}: {other:?}", task.name),
        };
        let (measures, detail) = task.score(&splits.test, right).unwrap();
        match task.question {
            Question::Classify => {
                assert!(splits.train.counts(task.classes.len()).iter().all(|&count| count > 0));
                let is_right = |(name, measure): (&String, &lowbit_eval::record::Measure)| match name.as_str() {
                    DROP => measure.value == 0.0,
                    _ => measure.value == 1.0,
                };
                assert!(measures.iter().all(is_right), "{measures:?}");
                let of_parts = if task.parts.is_empty() { 0 } else { task.parts.len() + 1 };
                assert_eq!(
                    (measures.len(), detail.truths.len()),
                    (4 + task.classes.len() + of_parts, splits.test.len())
                );
                assert!(task.score(&splits.test, Answers::Classes(vec![0])).is_err());
                assert!(task.score(&splits.test, Answers::Values(vec![0.0; splits.test.len()])).is_err());
            }
            Question::Regress => {
                let values = ["mae", "mse", "r2"].map(|name| measures[name].value);
                assert_eq!((values, detail.expected.len()), ([0.0, 0.0, 1.0], splits.test.len()));
                assert!(task.score(&splits.test, Answers::Values(vec![0.0])).is_err());
                assert!(task.score(&splits.test, Answers::Classes(vec![0; splits.test.len()])).is_err());
            }
            other => panic!("{}: {other:?}", task.name),
        }
    }
}

#[test]
fn every_task_of_language_models_has_rows_and_trains_nothing() {
    let Some(dir) = data() else { return };
    for task in task::all().into_iter().filter(|task| !task.question.spec().is_trained) {
        let (rows, notes) = match task.rows(Split::Test, Some(&dir)) {
            // Too large for a folder of samples.
            Err(absent) if ["enwik9", "text8"].contains(&&*task.name) => {
                assert!(absent.message.contains("in this directory: add it"), "{absent}");
                continue;
            }
            rows => rows.unwrap(),
        };
        println!("{}: {} rows, SHA-256 {} {notes:?}", task.id(), rows.len(), rows.sha256());
        assert!(!rows.is_empty() && rows.len() == rows.targets.len());
        let refused = task.load(Some(&dir)).unwrap_err();
        assert_eq!(refused.kind, Kind::Usage);
        let command = format!("`lowbit eval MODEL --task {}`", task.name);
        assert!(refused.message.contains(&command), "{refused}");
    }
}

#[test]
fn shares_of_a_corpus_meet() {
    let Some(dir) = data() else { return };
    let task = task::find("tiny_shakespeare").unwrap();
    let content = |split: Split| {
        let Inputs::Bytes(contents) = task.rows(split, Some(&dir)).unwrap().0.inputs else { panic!("bytes") };
        contents.concat()
    };
    let parts = [Split::Train, Split::Valid, Split::Test].map(content);
    // 90 % and 95 % of 1,115,394 bytes.
    assert_eq!(parts.each_ref().map(Vec::len), [1_003_855, 55_769, 55_770]);
    // The published SHA-256 of the whole file.
    assert_eq!(
        lowbit_base::hex(sha2::Sha256::digest(parts.concat())),
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    );
    let enwik8 = task::find("enwik8").unwrap().rows(Split::Test, Some(&dir)).unwrap();
    assert!(enwik8.1.iter().any(|note| note.contains("first 4,154,327 bytes")), "{:?}", enwik8.1);
    let refused = task::find("wikitext2").unwrap().rows(Split::Train, Some(&dir)).unwrap_err().to_string();
    assert_eq!(refused, "task wikitext2: no [[train]] files are described, only valid, test");
    let refused = task::find("quickstart").unwrap().rows(Split::Train, None).unwrap_err().to_string();
    assert!(refused.ends_with("score the test split"), "{refused}");
    assert!("tset".parse::<Split>().unwrap_err().to_string().contains("did you mean `test`"));
}

#[test]
fn splits_of_the_real_tasks() {
    let Some(dir) = data() else { return };
    let ag_news = task::find("ag_news").unwrap().load(Some(&dir)).unwrap();
    assert_eq!(ag_news.facts.test_rows, 7600);
    assert_eq!(ag_news.test.counts(4), [1900; 4]);
    assert!(ag_news.test.texts()[0].starts_with("Fears for T N pension after talks Unions representing"));
    assert_eq!(ag_news.test.labels()[..3], [2, 3, 3]);
    let sst2 = task::find("sst2").unwrap().load(Some(&dir)).unwrap();
    assert_eq!(sst2.test.counts(2), [428, 444]);
    assert_eq!(sst2.facts.train_rows + sst2.excluded, 67_349);
    let housing = task::find("california_housing").unwrap().load(Some(&dir)).unwrap();
    let all = [&housing.train, &housing.test].map(|rows| (rows.len(), rows.inputs.width()));
    assert_eq!((all[0].0 + all[1].0, all[0].1, all[1].1), (20_640, 8, 8));
    assert!((4000..4300).contains(&all[1].0), "{all:?}");
    let unknown = |rows: &read::Rows| (0..rows.len()).filter(|row| rows.inputs.features(*row)[4].is_nan()).count();
    assert_eq!(unknown(&housing.train) + unknown(&housing.test), 207, "total_bedrooms");
    let imdb = task::find("imdb").unwrap().load(Some(&dir)).unwrap();
    let all = [&imdb.train, &imdb.test].map(|rows| rows.counts(2));
    assert_eq!([all[0][0] + all[1][0], all[0][1] + all[1][1]], [12_500; 2]);
    // 24,904 distinct texts: standard deviation 63.
    assert!(imdb.test.len().abs_diff(5000) < 260, "{all:?}");
    let xnli = task::find("xnli").unwrap().load(Some(&dir)).unwrap();
    assert_eq!(xnli.test.counts(3), [5 * 1670; 3]);
    let parts: Vec<(&str, usize)> = xnli.test.parts.iter().map(|part| (part.name.as_str(), part.rows)).collect();
    assert_eq!(parts, ["en", "es", "fr", "de", "zh"].map(|language| (language, 5010)));
    let [premise, hypothesis] = xnli.test.inputs.pair(5010).unwrap();
    assert!(premise.starts_with("Bien, ni estaba pensando") && hypothesis.starts_with("No he vuelto a hablar"));
    if !dir.join("multinli").exists() {
        assert_eq!(xnli.facts.train_rows + xnli.excluded, 2490);
        assert!(xnli.notes.iter().any(|note| note.contains("as MultiNLI is not there")), "{:?}", xnli.notes);
    }
    let mnist = task::find("mnist").unwrap().load(Some(&dir)).unwrap();
    assert_eq!((mnist.facts.train_rows + mnist.excluded, mnist.train.inputs.width()), (60_000, 784));
    assert_eq!(mnist.test.counts(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    assert_eq!(mnist.test.labels()[..5], [7, 2, 1, 0, 4]);
    let fashion = task::find("fashion_mnist").unwrap().load(Some(&dir)).unwrap();
    assert_eq!((fashion.facts.train_rows + fashion.excluded, fashion.train.inputs.width()), (60_000, 784));
    assert_eq!(fashion.test.counts(10), [1000; 10]);
    let boston = task::find("boston_housing").unwrap().load(Some(&dir)).unwrap();
    assert_eq!((boston.train.len() + boston.test.len(), boston.train.inputs.width()), (506, 13));
    assert!(boston.notes.iter().any(|note| note.contains("withdrawn by scikit-learn")), "{:?}", boston.notes);
    let photographs = task::find("cifar10_lossless").unwrap().load(Some(&dir)).unwrap();
    assert_eq!((photographs.test.len(), photographs.test.inputs.width()), (4000, 32 * 32 * 3));
    // The labels of data_batch_1; colours of a pixel are together: the first is [59, 62, 63] in every description of the set.
    assert_eq!(photographs.test.labels()[..10], [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]);
    assert_eq!(photographs.test.inputs.features(0)[..3], [59.0 / 255.0, 62.0 / 255.0, 63.0 / 255.0]);
    if !dir.join("cifar10").exists() {
        let subset = task::find("cifar10").unwrap().load(Some(&dir)).unwrap();
        assert_eq!((subset.train.len() as u64 + subset.excluded, subset.test.counts(10)), (10_000, vec![200; 10]));
        assert!(subset.notes.iter().any(|note| note.contains("lossy")), "{:?}", subset.notes);
    }
}

#[test]
fn quickstart_is_the_same_everywhere() {
    let task = task::find("quickstart").unwrap();
    let splits = task.load(Some(Path::new("/nonexistent"))).unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (8000, 4000));
    assert_eq!(splits.facts.train_sha256, "ca7ef9598820c9ccf75983aa2f3928445c492f63cde0f3b07f02317f549d42bb");
    assert_eq!(splits.facts.test_sha256, "1ca5f5450dac692b9b528b429cb4a082c71c651e235e9f4b10b7845c9f9d4df0");
    let ceiling = splits.facts.ceiling.unwrap();
    assert!(ceiling.lo.unwrap() > 0.92 && ceiling.hi.unwrap() < 0.94, "{ceiling:?}");
    // Standard error of 4,000 rows: 0.004.
    assert!((quickstart::bayes_accuracy(&splits.test) - ceiling.value).abs() < 0.016);
    let mut other = task.clone();
    other.generator.as_mut().unwrap().seed = 2;
    let other = other.load(None).unwrap();
    assert!(read::overlap(&other.train, &splits.test) < 10);
}

/// Expected on ag_news: about 0.889 for the bigrams.
#[test]
fn baselines_learn() {
    let dir = data();
    for task in trained() {
        if task.generator.is_none() && dir.is_none() {
            continue;
        }
        let splits = task.load(dir.as_deref()).unwrap();
        let classes = task.classes.len();
        let score = |name: &str, answers: Answers| {
            let (measures, _) = task.score(&splits.test, answers).unwrap();
            let quality = if task.question == Question::Classify { "accuracy" } else { "r2" };
            (name.to_string(), measures[quality].value)
        };
        let answered = BASELINES
            .iter()
            .filter_map(|(name, _, answer)| Some((name, answer(&splits.train, &splits.test, classes)?)));
        let scores: Vec<(String, f64)> = answered.map(|(name, answers)| score(name, answers)).collect();
        println!("{}: {scores:?}", task.name);
        let (first, margin, floor) = match task.name.as_str() {
            "ag_news" => ("majority", 0.2, 0.88),
            "imdb" => ("majority", 0.2, 0.80),
            "sst2" => ("majority", 0.2, 0.80),
            "california_housing" => ("mean", 0.2, 0.60),
            "mnist" => ("majority", 0.2, 0.80),
            "fashion_mnist" => ("majority", 0.2, 0.65),
            "boston_housing" => ("mean", 0.2, 0.50),
            "cifar10" | "cifar10_lossless" => ("majority", 0.05, 0.20),
            "quickstart" => ("majority", 0.2, 0.80),
            // Words of one language say little about what follows from a premise in five.
            "xnli" => ("majority", -0.02, 0.32),
            name => panic!("{name} has no expected accuracy"),
        };
        assert_eq!(scores[0].0, first);
        assert!(scores[1..].iter().all(|(_, score)| *score > scores[0].1 + margin), "{}: {scores:?}", task.name);
        assert!(scores.last().unwrap().1 > floor, "{}: {scores:?}", task.name);
        let chance = if classes == 0 { 0.0 } else { 1.0 / classes as f64 };
        assert!((scores[0].1 - chance).abs() < 0.03, "{scores:?}");
    }
}

#[test]
fn unknown_tasks_are_refused_with_the_list() {
    let refused = |name: &str| {
        let error = task::find(name).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        error.to_string()
    };
    let known = task::all().into_iter().map(|task| task.name).collect::<Vec<_>>().join(", ");
    assert_eq!(
        refused("agnews"),
        format!("unknown task `agnews`; did you mean `ag_news`? known: {known}; or name a .toml file")
    );
    assert_eq!(refused("xyz"), format!("unknown task `xyz`; known: {known}; or name a .toml file"));
    assert_eq!(task::find("absent.toml").unwrap_err().kind, Kind::Io);
}

#[test]
fn a_pair_is_two_texts_with_a_separator() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("x.tsv"), "label\tpremise\thypothesis\nneutral\ta b\tc\nentailment\td\te f\n").unwrap();
    let layout = "paths = [\"x.tsv\"]\nheader = true\npair = [\"premise\", \"hypothesis\"]\nlabel = \"label\"\nlabels = [\"entailment\", \"neutral\"]\n";
    let text = format!(
        "name = \"nli\"\nversion = 1\nabout = \"A test.\"\nquestion = \"classify\"\nclasses = [\"yes\", \"maybe\"]\n[[train]]\n{layout}[[test]]\n{layout}"
    );
    let parse = |text: &str| Task::parse(text, Path::new("nli.toml"));
    let rows = |text: &str| parse(text).unwrap().load(Some(dir.path())).unwrap().train;
    let pairs = rows(&text);
    assert_eq!((pairs.texts(), pairs.labels()), (&["a b [SEP] c".to_string(), "d [SEP] e f".into()][..], &[1, 0][..]));
    let own = text.replace("pair =", "separator = \" / \"\npair =");
    assert_eq!(rows(&own).texts()[0], "a b / c");
    for (from, to, said) in [
        ("\"premise\", ", "", "`pair` has 1 columns: a pair has 2"),
        ("pair =", "separator = \"x\"\ntext =", "`separator` stands between the texts of a `pair`"),
        ("pair =", "text = [0]\npair =", "several kinds of input"),
    ] {
        let refused = parse(&text.replace(from, to)).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}

const PARTS: &str = r#"
name = "parted"
version = 1
about = "A test."
question = "classify"
classes = ["no", "yes"]
parts = ["en", "de", "zh"]
metrics = ["accuracy"]

[[train]]
paths = ["train.csv"]
text = [0]
label = 1

[[test]]
paths = ["test.{part}.jsonl", "test.{part}.csv"]
text = [0]
label = 1
"#;

#[test]
fn parts_of_a_test_are_scored_apart() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    write("train.csv", "x,0\ny,1\n");
    for part in ["en", "de", "zh"] {
        write(&format!("test.{part}.csv"), &format!("a {part},0\nb {part},1\nc {part},0\nd {part},1\n"));
    }
    let parse = |text: &str| Task::parse(text, Path::new("parted.toml"));
    let task = parse(PARTS).unwrap();
    let load = || task.load(Some(dir.path()));
    let mut test = load().unwrap().test;
    assert_eq!((test.len(), test.texts()[4].as_str(), test.labels()[..5].to_vec()), (12, "a de", vec![0, 1, 0, 1, 0]));
    // Right: 3 of 4 in en, 2 in de, 1 in zh. Differences of a row of en from the mean of its translations: 0.5, 1, 0, 0.
    let answers = vec![0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1];
    let (measures, detail) = task.score(&test, Answers::Classes(answers)).unwrap();
    let value = |name: &str| measures[name].value;
    assert_eq!(["en", "de", "zh"].map(|part| value(&format!("accuracy/{part}"))), [0.75, 0.5, 0.25]);
    assert_eq!((value("accuracy"), value(DROP), measures.len(), detail.parts.len()), (0.5, 0.375, 5, 3));
    // numpy.std([0.5, 1, 0, 0], ddof=1) is 0.47871355.
    let half = 1.959_963_984_540_054 * 0.478_713_55 / 2.0;
    assert!((measures[DROP].hi.unwrap() - 0.375 - half).abs() < 1e-7 && measures["accuracy/en"].n == 4);
    test.truncate(6);
    assert_eq!(test.texts(), ["a en", "b en", "a de", "b de", "a zh", "b zh"]);
    assert_eq!((test.targets.len(), test.parts.iter().map(|part| part.rows).collect::<Vec<_>>()), (6, vec![2; 3]));
    fs::remove_file(dir.path().join("test.zh.csv")).unwrap();
    let refused = load().unwrap_err().to_string();
    assert!(refused.contains("needs one of test.zh.jsonl, test.zh.csv"), "{refused}");
    for (from, to, said) in [
        ("[\"en\", \"de\", \"zh\"]", "[\"en\", \"en\"]", "part `en` is listed twice"),
        ("\"zh\"", "\"../zh\"", "`parts`: "),
        (", \"test.{part}.csv\"", ", \"test.csv\"", "`parts` need [[test]] files with {part} in each of their `paths`"),
    ] {
        let refused = parse(&PARTS.replace(from, to)).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}

const OWN: &str = r#"
name = "own"
version = 3
about = "A test."
question = "classify"
classes = ["no", "yes"]

[[train]]
paths = ["train.jsonl", "train.csv"]
text = [0]
label = 1

[[test]]
paths = ["test.csv"]
text = [0]
label = 1
labels = ["n", "y"]
"#;

#[test]
fn a_task_of_ones_own() {
    let dir = TempDir::new().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("own.toml", OWN);
    let task = task::find(dir.path().join("own.toml").to_str().unwrap()).unwrap();
    assert_eq!(task.id(), "own@3");
    let missing = task.load(Some(dir.path())).unwrap_err();
    assert_eq!(missing.kind, Kind::Io);
    assert!(missing.to_string().ends_with(
        "the task own needs one of train.jsonl, train.csv in this directory: add it, or pass another --data DIR"
    ));

    put("train.csv", "a,0\nb,1\nc,1\n");
    put("test.csv", "b,n\nd,y\n");
    let splits = task.load(Some(dir.path())).unwrap();
    assert_eq!((splits.facts.overlap_rows, splits.excluded, splits.facts.train_rows), (1, 0, 3));
    assert_eq!(splits.facts.ceiling, None);
    let strict = Task { exclude_test_from_train: true, ..task.clone() };
    let splits = strict.load(Some(dir.path())).unwrap();
    assert_eq!((splits.facts.overlap_rows, splits.excluded, splits.facts.train_rows), (0, 1, 2));

    put("train.csv", "a,1\nb,1\n");
    let error = strict.load(Some(dir.path())).unwrap_err().to_string();
    assert_eq!(error, "task own: all 1 training rows are of class yes: at least two classes are needed");
    put("train.csv", "b,1\n");
    let error = strict.load(Some(dir.path())).unwrap_err().to_string();
    assert_eq!(error, "task own: no training row is left that is not in the test split");
}

#[test]
fn task_files_are_checked() {
    let refused = |from: &str, to: &str| {
        assert!(OWN.contains(from));
        let error = Task::parse(&OWN.replacen(from, to, 1), Path::new("own.toml")).unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    assert_eq!(
        refused("name = \"own\"", "name = \"o n\""),
        "own.toml: `name`: `o n` is no plain name: use letters, digits, `.`, `_` and `-`, no dot at either end, at most 200 bytes"
    );
    assert_eq!(refused("version = 3", "version = 0"), "own.toml: version 0: versions count from 1");
    assert_eq!(refused("\"no\", \"yes\"", "\"no\""), "own.toml: 1 classes: a task needs 2 to 32768");
    assert_eq!(refused("\"yes\"", "\"no\""), "own.toml: class \"no\" is empty or listed twice");
    assert_eq!(refused("[\"n\", \"y\"]", "[\"n\"]"), "own.toml: [[test]] has 1 labels for 2 classes");
    assert_eq!(
        refused("[\"test.csv\"]", "[]"),
        "own.toml: [[test]] needs at least one of `paths` and one `text`, `pair` or `features` column"
    );
    assert!(
        refused("about =", "metrics = [\"f2\"]\nabout =")
            .starts_with("own.toml: unknown metric `f2`: the metrics are accuracy,")
    );
    assert!(refused("\"classify\"", "\"guess\"").starts_with("own.toml:5: unknown variant `guess`"));
    assert!(refused("about =", "abuot =").starts_with("own.toml:4: unknown field `abuot`"));
    assert_eq!(refused("label = 1\n", ""), "own.toml: [[train]] needs a `label` column and no `value`");
    let value = refused("label = 1\n", "label = 1\nvalue = 2\n");
    assert_eq!(value, "own.toml: [[train]] needs a `label` column and no `value`");
    let kinds = refused("text = [0]\n", "text = [0]\nfeatures = [2]\n");
    assert!(kinds.starts_with("own.toml: [[train]] has several kinds of input"), "{kinds}");
    assert_eq!(
        refused("about =", "hold_out = 0.2\nabout ="),
        "own.toml: a task has either [[test]] files or `hold_out`"
    );
    assert!(refused("\"classify\"", "\"regress\"").starts_with("own.toml: `classes` are for the question"));
    assert!(refused("version = 3", "version = ").starts_with("own.toml:3: "));
}

#[test]
fn sources_of_rows_are_checked() {
    let (head, _) = OWN.split_once("[[test]]").unwrap();
    let error = Task::parse(head, Path::new("own.toml")).unwrap_err().to_string();
    assert_eq!(error, "own.toml: no [[test]] table and no [generator]: say where the rows are");
    let generator = TASKS.iter().find(|text| text.contains("[generator]")).unwrap();
    let error = |text: String| Task::parse(&text, Path::new("g.toml")).unwrap_err().to_string();
    assert_eq!(error(generator.replace("8000", "0")), "g.toml: generator.train_rows is 0: choose 1 to 10000000");
    assert_eq!(
        error(generator.replace("refund", "loan")),
        "g.toml: classes of the generator are delivery, return, payment, refund"
    );
    let both = format!("{generator}\n[[train]]\npaths = [\"x.csv\"]\ntext = [0]\nlabel = 1\n");
    assert_eq!(error(both), "g.toml: a task has either a generator or train and test files, not both");
}

#[test]
fn bayes_optimal_answers_reach_the_ceiling() {
    let splits = task::find("quickstart").unwrap().load(None).unwrap();
    let best = accuracy(&baseline::bayes_optimal(&splits.test), splits.test.labels());
    for (name, _, answer) in BASELINES {
        let Some(Answers::Classes(answers)) = answer(&splits.train, &splits.test, 4) else { continue };
        assert!(accuracy(&answers, splits.test.labels()) < best - 0.04, "{name}");
    }
}
