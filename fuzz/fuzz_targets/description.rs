//! Descriptions that people write: tasks, networks and training settings as TOML.
#![no_main]

use lowbit_eval::task::Task;
use lowbit_model::parameter_list::ParameterList;
use std::path::Path;

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
});
