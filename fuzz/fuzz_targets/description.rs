//! Descriptions that people write: tasks, suites, language models, networks and training settings as TOML.
#![no_main]

use lowbit::{language, suite};
use lowbit_eval::task::Task;
use lowbit_model::Tokenizer;
use lowbit_model::parameter_list::ParameterList;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Suites and language models are read from a file.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("lowbit-fuzz-description-{}.toml", std::process::id())));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Task::parse(text, Path::new("fuzz.toml")) {
        Ok(task) => assert!(task.version > 0 && !task.id().is_empty()),
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
    if let Ok(config) = toml::from_str::<lowbit_model::Config>(text) {
        let _ = ParameterList::new(&config);
    }
    if let Ok(config) = toml::from_str::<lowbit_train::TrainConfig>(text) {
        let _ = config.validate(1000);
    }
    // The default suite of a task reads its rows.
    if toml::from_str::<toml::Table>(text).is_ok_and(|table| table.contains_key("question")) {
        return;
    }
    std::fs::write(&*FILE, text).expect("written");
    let path = FILE.to_str().expect("UTF-8");
    match suite::find(path, None) {
        Ok(suite) => {
            for variant in &suite.variant {
                let _ = (variant.recipe(), suite.train_config(variant));
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
    match language::find(path) {
        Ok(Some(language)) => {
            let _ = (language.model_config(&Tokenizer::bytes()), language.train_config());
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
