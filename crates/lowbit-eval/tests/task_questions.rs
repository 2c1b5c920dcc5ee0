//! Files of tasks for language models: what they give, and what is refused.

use lowbit_eval::read::Targets;
use lowbit_eval::task::{Answers, Question, Split, Task};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const CHOOSE: &str = r#"
name = "own"
version = 1
about = "A test."
question = "choose"
classes = ["a", "b"]

[choose]
prompt = "{title}: {text} {{}}"
choices = ["one", "two"]

[[test]]
paths = ["own.csv"]
header = true
text = ["body", "tail"]
label = "label"
labels = ["x", "y"]
"#;

#[test]
fn tasks_to_choose_are_checked() {
    let parse = |text: &str| Task::parse(text, Path::new("own.toml"));
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("own.csv"), "title,label,body,tail\nT,y,\"b{1}\",c\n").unwrap();
    let rows = parse(CHOOSE).unwrap().rows(Split::Test, Some(dir.path())).unwrap().0;
    assert_eq!((rows.texts(), rows.labels()), (&["T: b{1} c {}".to_string()][..], &[1][..]));
    assert!(rows.choices.is_empty());
    let of_rows = CHOOSE.replace("classes = [\"a\", \"b\"]\n", "").replace("choices = [\"one\", \"two\"]", "");
    let of_rows = of_rows.replace("label =", "choices = [\"body\", \"title\"]\nlabel =");
    let rows = parse(&of_rows).unwrap().rows(Split::Test, Some(dir.path())).unwrap().0;
    assert_eq!((rows.labels(), &rows.choices[..]), (&[1][..], &[vec!["b{1}".to_string(), "T".into()]][..]));
    for (from, to, reason) in [
        ("{title}: {text} {{}}", "no field", "`prompt` names no {column}"),
        ("{text}", "{body}", "and the prompt no field {text}"),
        ("{title}", "{title", "has a brace that is no {column}"),
        ("[\"one\", \"two\"]", "[\"one\"]", "[choose] has 1 choices for 2 classes"),
        ("\"one\"", "\" \"", "choice \" \" is empty"),
        ("[\"x\", \"y\"]", "[\"x\"]", "[[test]] has 1 labels for 2 classes"),
        ("label = \"label\"", "", "needs a `label` column"),
        ("text = [", "pair = [", "is of a prompt: name its columns in the prompt"),
        ("label =", "choices = [\"body\", \"tail\"]\nlabel =", "give one of them"),
        ("classes = [\"a\", \"b\"]", "", "[choose] has 2 choices for 0 classes"),
        (
            "[choose]",
            "[likelihood]\ncontext = 1\nstride = 1\n[choose]",
            "[likelihood] is of another question than `choose`",
        ),
        ("version = 1", "version = 1\nmetrics = [\"f1\"]", "the metrics are accuracy, accuracy_normalized"),
        ("question = \"choose\"", "question = \"classify\"", "[choose] is of another question than `classify`"),
    ] {
        assert!(CHOOSE.contains(from), "{from}");
        let refused = parse(&CHOOSE.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused.contains(reason) && !refused.contains('\n'), "{from} {to}: {refused}");
    }
    let absent =
        parse(&CHOOSE.replace("{title}", "{subject}")).unwrap().rows(Split::Test, Some(dir.path())).unwrap_err();
    assert!(absent.to_string().contains("subject"), "{absent}");
}

const GENERATE: &str = r#"
name = "own"
version = 1
about = "A test."
question = "generate"

[generate]
prompt = "{body}"
max_tokens = 4
normalize = ["trim"]

[[test]]
paths = ["own.csv"]
header = true
answer = "label"
"#;

#[test]
fn tasks_to_generate_are_checked() {
    let parse = |text: &str| Task::parse(text, Path::new("own.toml"));
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("own.csv"), "label,body\n1,b\n0,c\n").unwrap();
    let score = |text: &str, answers: [&str; 2]| {
        let task = parse(text).unwrap();
        let rows = task.rows(Split::Test, Some(dir.path())).unwrap().0;
        assert_eq!(rows.texts(), ["b", "c"]);
        task.score(&rows, Answers::Texts(answers.map(String::from).into())).unwrap().0["exact_match"].value
    };
    assert_eq!(score(GENERATE, [" 1", "0 "]), 1.0);
    assert_eq!(score(GENERATE, [" 1", "1"]), 0.5);
    let of_classes =
        GENERATE.replace("answer =", "label =").replace("[generate]", "classes = [\"no\", \"yes\"]\n[generate]");
    assert_eq!(score(&of_classes, ["yes", "no"]), 1.0);
    assert_eq!(score(&of_classes, ["1", "no"]), 0.5);
    let task = parse(GENERATE).unwrap();
    let rows = task.rows(Split::Test, Some(dir.path())).unwrap().0;
    for wrong in [Answers::Texts(vec!["1".into()]), Answers::Classes(vec![0, 1]), Answers::Choices(vec![vec![0.0]; 2])]
    {
        assert!(task.score(&rows, wrong).unwrap_err().to_string().ends_with("answered to 2 rows, a text asked for"));
    }
    for (from, to, reason) in [
        ("max_tokens = 4", "max_tokens = 0", "`max_tokens` is 0"),
        ("[\"trim\"]", "[\"strip\"]", "unknown variant `strip`"),
        ("normalize", "stop = [\"\"]\nnormalize", "`stop` holds an empty text"),
        ("answer = \"label\"", "label = \"label\"", "needs an `answer` column, or the task `classes`"),
        ("answer = \"label\"", "answer = 0\nlabel = 1", "either an `answer` or a `label` column"),
        ("answer = \"label\"", "answer = 0\nchoices = [0, 1]", "`choices` are for the question `choose`"),
        ("[generate]", "classes = [\"a\", \"b\"]\n[generate]", "needs an `answer` column, or the task `classes`"),
        ("\"generate\"", "\"likelihood\"", "[generate] is of another question than `likelihood`"),
    ] {
        assert!(GENERATE.contains(from), "{from}");
        let refused = parse(&GENERATE.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused.contains(reason) && !refused.contains('\n'), "{from} {to}: {refused}");
    }
}

const CORPUS: &str = r#"
name = "own"
version = 1
about = "A test."
question = "likelihood"

[likelihood]
context = 64
stride = 32

[[test]]
paths = ["own.txt"]
share = [0.5, 1.0]
"#;

#[test]
fn tasks_of_likelihood_are_checked() {
    let parse = |text: &str| Task::parse(text, Path::new("own.toml"));
    assert_eq!(parse(CORPUS).unwrap().question, Question::Likelihood);
    for (from, to, reason) in [
        ("stride = 32", "stride = 65", "windows of 64 tokens that move on by 65"),
        ("stride = 32", "stride = 0", "move on by 0"),
        ("[0.5, 1.0]", "[0.5, 0.5]", "[[test]] `share`: [0.5, 0.5] must lie in 0 to 1"),
        ("share =", "text = [0]\nshare =", "`share` is for files that are read as bytes"),
        ("share =", "label = 0\nshare =", "neither `label` nor `value`"),
        ("version = 1", "version = 1\nhold_out = 0.1", "`hold_out` is for questions that networks are trained for"),
        ("version = 1", "version = 1\nmetrics = [\"accuracy\"]", "the metrics are bits_per_byte"),
        ("version = 1", "version = 1\nclasses = [\"a\", \"b\"]", "`classes` are for"),
        ("\"likelihood\"", "\"regress\"", "[likelihood] is of another question than `regress`"),
    ] {
        assert!(CORPUS.contains(from), "{from}");
        let refused = parse(&CORPUS.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused.contains(reason) && !refused.contains('\n'), "{from} {to}: {refused}");
    }
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("own.txt"), "a,first\nb,second\n").unwrap();
    let whole = parse(CORPUS).unwrap().rows(Split::Test, Some(dir.path())).unwrap().0;
    assert_eq!((whole.inputs.len(), whole.targets.len()), (1, 1));
    let rows = CORPUS.replace("share = [0.5, 1.0]", "format = \"csv\"\ntext = [1]");
    let rows = parse(&rows).unwrap().rows(Split::Test, Some(dir.path())).unwrap().0;
    assert_eq!(
        (rows.texts(), rows.targets.clone()),
        (&["first".to_string(), "second".into()][..], Targets::NextToken(2))
    );
}
