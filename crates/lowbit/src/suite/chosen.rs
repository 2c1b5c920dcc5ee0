//! Suites that nobody wrote: for rows of one's own, and for tasks.

use super::{Suite, all, groups, parse};
use crate::start::{self, Network, Start};
use lowbit_base::Error;
use lowbit_eval::read::images::Folder;
use lowbit_eval::task::{self, Question, Task};
use lowbit_model::{Column, Inputs};
use std::path::Path;

/// A suite for a file of rows, or for a folder of images by class: of a published model, or of default networks where none is named.
///
/// # Errors
/// When the file does not tell its columns, or the model cannot be opened.
pub fn of_rows(model: Option<&Path>, data: &Path, text: &[Column], label: Option<&Column>) -> Result<Suite, Error> {
    let (suite, task, said) = match data.is_dir() {
        true => start::of_images(model, data)?,
        false => Start::with_model(model, data, text, label)?,
    };
    let suite = parse(&suite, Path::new("default suite"))?;
    Ok(Suite { notice: Some(said.join("\n")), task_text: Some(task), ..suite })
}

/// Whether a path is of rows of one's own: a file, or, unless a suite or a task is named, a folder of images by class.
pub fn is_of_rows(name: Option<&str>, data: &Path) -> bool {
    let known = |name: &str| {
        let suites = all().into_iter().flatten().map(|suite| suite.name);
        let groups = groups().into_iter().flatten().map(|group| group.name);
        suites.chain(groups).chain(task::all().into_iter().map(|task| task.name)).any(|known| known == name)
    };
    data.is_file() || !name.is_some_and(|name| known(name) || name.ends_with(".toml")) && Folder::is(data)
}

/// A suite of default networks for a task, with a notice.
pub(super) fn default(task: &Task, spelled: &str, data: Option<&Path>) -> Result<Suite, Error> {
    task.check_trained()?;
    let train = task.load(data)?.train;
    let rows = train.len();
    let network = match (&train.inputs, task.question) {
        (Inputs::Texts(_) | Inputs::Pairs { .. }, Question::Classify) => Network::Texts,
        (Inputs::Features { .. }, Question::Classify) => Network::Classes,
        (Inputs::Features { .. }, Question::Regress) => Network::Values,
        _ => {
            let text = "the default suites are for classes of texts, and for classes or values of rows of numbers";
            return Err(Error::usage(format!("task {}: {text}; write a suite of your own", task.name)));
        }
    };
    let suite = parse(&start::suite(&task.name, spelled, network, rows), Path::new("default suite"))?;
    let steps = suite.train.get("steps").map_or(String::new(), |steps| format!(", {steps} updates each"));
    let trained: Vec<&str> = suite.variant.iter().filter(|v| v.from.is_none()).map(|v| v.name.as_str()).collect();
    let notice = format!(
        "a default suite for the task {}: {} trained on {rows} rows{steps}, {} variants in all; suite.toml in the directory of the comparison has it",
        task.name,
        trained.join(" and "),
        suite.variant.len()
    );
    Ok(Suite { notice: Some(notice), ..suite })
}

/// What to do with a file of rows.
pub(super) fn undescribed(path: &Path) -> Error {
    let shown = start::quoted(&path.display().to_string());
    let begin = format!("{}: holds rows, and is no suite: run `lowbit init --data {shown}`", path.display());
    match Start::of(path, Path::new("."), &[], None) {
        Ok(start) => Error::usage(format!("{begin}, which finds {}, then `lowbit compare ./suite.toml`", start.about)),
        Err(failure) => Error::usage(format!("{begin}; without more it says: {failure}")),
    }
}
