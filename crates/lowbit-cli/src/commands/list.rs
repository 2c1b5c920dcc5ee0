//! `--list`: what a command can be given, from the lists that the program goes by.

use super::Machine;
use crate::failure::Failure;
use lowbit::comparison::texts::{self, TextSuite};
use lowbit::{language, suite};
use lowbit_eval::task::{self, Task};
use lowbit_model::recipe;
use serde_json::{Map, Value, json};

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
    fn entries(self) -> Result<Vec<Value>, Failure> {
        match self {
            List::Suites => {
                let entry = |suite: &suite::Suite| {
                    let variants: Vec<&str> = suite.variant.iter().map(|variant| variant.name.as_str()).collect();
                    let about = suite.task()?.about;
                    Ok(json!({"name": suite.name, "about": about, "task": suite.task, "variants": variants}))
                };
                let group = |group: suite::Group| {
                    let (suites, benches) = (&group.suites, &group.benches);
                    Ok(json!({"name": group.name, "about": group.about, "suites": suites, "benches": benches}))
                };
                let text = |suite: TextSuite| {
                    let variants: Vec<&str> = suite.variant.iter().map(|variant| variant.name.as_str()).collect();
                    let about = suite.task()?.about;
                    Ok(json!({"name": suite.name, "about": about, "task": suite.task, "variants": variants}))
                };
                let groups = suite::groups()?.into_iter().map(group);
                suite::all()?.iter().map(entry).chain(texts::all()?.into_iter().map(text)).chain(groups).collect()
            }
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

/// Prints some of the lists.
///
/// # Errors
/// When a built-in description is wrong.
pub fn print(machine: &Machine, lists: &[List]) -> Result<(), Failure> {
    if machine.json {
        let mut object = Map::new();
        for list in lists {
            object.insert(list.title().into(), Value::Array(list.entries()?));
        }
        return machine.terminal.json_object(Value::Object(object));
    }
    for (i, list) in lists.iter().enumerate() {
        if i > 0 {
            machine.terminal.line("");
        }
        let bits = if matches!(list, List::Recipes) { " (bits of a weight of the body, scales included)" } else { "" };
        machine.terminal.line(format!("{}{bits}:", list.title().replace('_', " ")));
        for entry in list.entries()? {
            let text = |field: &str| entry[field].as_str().unwrap_or_default();
            let bits = entry["bits"].as_f64().map_or(String::new(), |bits| format!("{bits:>6}  "));
            let count = entry["variants"].as_array().map_or(String::new(), |all| format!("{} variants: ", all.len()));
            let question = entry["question"].as_str().map_or(String::new(), |question| format!("{question:10}  "));
            machine.terminal.line(format!("  {:18} {question}{bits}{count}{}", text("name"), text("about")));
        }
    }
    Ok(())
}
