//! `--list`: what a command can be given, from the lists that the program goes by.

use super::Machine;
use crate::failure::Failure;
use lowbit::comparison::Asked;
use lowbit::comparison::texts;
use lowbit::suite::Minutes;
use lowbit::{language, suite};
use lowbit_eval::task::{self, Task};
use lowbit_model::recipe;
use serde_json::{Map, Value, json};
use std::path::Path;

/// One of the lists.
#[derive(Clone, Copy, Debug)]
pub enum List {
    /// Suites, for `compare` and `train`.
    Suites,
    /// Tasks.
    Tasks,
    /// Language models, for `train`.
    LanguageModels,
    /// Recipes.
    Recipes,
}

impl List {
    fn title(self) -> &'static str {
        match self {
            List::Suites => "suites",
            List::Tasks => "tasks",
            List::LanguageModels => "language_models",
            List::Recipes => "recipes",
        }
    }

    /// Its entries as JSON objects.
    fn entries(self, data: Option<&Path>) -> Result<Vec<Value>, Failure> {
        match self {
            List::Suites => suites(data),
            List::Tasks => Ok(task::all()
                .iter()
                .map(|task| {
                    let (question, classes) = (task.question.spec().name, &task.classes);
                    let Task { name, about, version, .. } = task;
                    json!({"name": name, "about": about, "version": version, "question": question, "classes": classes})
                })
                .collect()),
            List::LanguageModels => Ok(language::all()?
                .iter()
                .map(|model| {
                    let about = format!("trained for {}, windows of {} tokens", model.recipe, model.context);
                    json!({"name": model.name, "about": about, "recipe": model.recipe})
                })
                .collect()),
            List::Recipes => recipe::RECIPES
                .iter()
                .map(|recipe| {
                    Ok(json!({"name": recipe.name, "bits": recipe.bits_per_weight()?, "about": recipe.summary}))
                })
                .collect(),
        }
    }
}

/// Every suite, comparison of language models, and group, with the minutes it takes and what is not there.
fn suites(data: Option<&Path>) -> Result<Vec<Value>, Failure> {
    let variants = |names: Vec<&str>| json!(names);
    let mut entries = Vec::new();
    let mut add = |mut entry: Value, minutes: Option<Minutes>, asked: Asked| -> Result<(), Failure> {
        if let Some(minutes) = minutes {
            entry["minutes"] = json!({"full": minutes.full, "quick": minutes.quick});
        }
        entry["needs"] = json!(asked.missing(data)?);
        entries.push(entry);
        Ok(())
    };
    for suite in suite::all()? {
        let names = variants(suite.variant.iter().map(|variant| variant.name.as_str()).collect());
        let about = suite.task()?.about;
        let entry = json!({"name": suite.name, "about": about, "task": suite.task, "variants": names});
        add(entry, suite.minutes, Asked::Suite(Box::new(suite)))?;
    }
    for suite in texts::all()? {
        let names = variants(suite.variant.iter().map(|variant| variant.name.as_str()).collect());
        let about = suite.task()?.about;
        let entry = json!({"name": suite.name, "about": about, "task": suite.task, "variants": names});
        add(entry, suite.minutes, Asked::Texts(Box::new(suite)))?;
    }
    for group in suite::groups()? {
        let (suites, benches) = (&group.suites, &group.benches);
        let entry = json!({"name": group.name, "about": group.about, "suites": suites, "benches": benches});
        add(entry, group.minutes, Asked::Group(group))?;
    }
    Ok(entries)
}

/// How long a suite takes and what it lacks, in words; nothing where neither is known.
fn cost(entry: &Value) -> String {
    let minutes = |kind: &str| {
        let minutes = entry["minutes"][kind].as_f64()?;
        Some(if minutes < 120.0 { format!("{minutes:.0} min") } else { format!("{:.0} h", minutes / 60.0) })
    };
    let quick = minutes("quick").map(|quick| format!("--quick {quick}"));
    let needs = entry["needs"].as_str().map(|needs| format!("needs {needs}"));
    let parts: Vec<String> = [minutes("full"), quick, needs].into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(" [{}]", parts.join(", ")) }
}

/// Prints some of the lists; `data` is where the data sets are.
///
/// # Errors
/// When a built-in description is wrong.
pub fn print(machine: &Machine, lists: &[List], data: Option<&Path>) -> Result<(), Failure> {
    if machine.json {
        let mut object = Map::new();
        for list in lists {
            object.insert(list.title().into(), Value::Array(list.entries(data)?));
        }
        return machine.terminal.json_object(Value::Object(object));
    }
    for (i, list) in lists.iter().enumerate() {
        if i > 0 {
            machine.terminal.line("");
        }
        let remark = match list {
            List::Recipes => " (bits of a weight of the body, scales included)",
            List::Suites => {
                " (in brackets about how long it takes on two cores with AVX-512, and what it needs that is not here)"
            }
            List::Tasks | List::LanguageModels => "",
        };
        machine.terminal.line(format!("{}{remark}:", list.title().replace('_', " ")));
        for entry in list.entries(data)? {
            let text = |field: &str| entry[field].as_str().unwrap_or_default();
            let bits = entry["bits"].as_f64().map_or(String::new(), |bits| format!("{bits:>6}  "));
            let count = entry["variants"].as_array().map_or(String::new(), |all| format!("{} variants: ", all.len()));
            let question = entry["question"].as_str().map_or(String::new(), |question| format!("{question:10}  "));
            let cost = if matches!(list, List::Suites) { cost(&entry) } else { String::new() };
            machine.terminal.line(format!("  {:18} {question}{bits}{count}{}{cost}", text("name"), text("about")));
        }
    }
    Ok(())
}
