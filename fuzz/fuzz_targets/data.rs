//! Files of data: every format and compression, with texts, numbers and pairs. The first byte chooses the name of the file, the second
//! what is read of it.
#![no_main]

use lowbit_eval::read::{Column, FORMATS, Input, Limits, Table, Target, bytes, read};
use std::path::PathBuf;

const COMPRESSED: [&str; 4] = ["", ".gz", ".zst", ".xz"];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [name, what, content @ ..] = data else { return };
    let extensions: Vec<&str> = FORMATS.iter().flat_map(|(_, extensions)| *extensions).copied().collect();
    let extension = extensions[usize::from(*name) % extensions.len()];
    let compressed = COMPRESSED[usize::from(*name) / extensions.len() % COMPRESSED.len()];
    let folder = std::env::temp_dir().join(format!("lowbit-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path: PathBuf = folder.join(format!("x.{extension}{compressed}"));
    std::fs::write(&path, content).expect("written");
    let columns = [("text", 0), ("more", 1), ("label", 2)];
    let column = |i: usize| match what & 1 {
        0 => Column::Name(columns[i].0.into()),
        _ => Column::Index(columns[i].1),
    };
    let table = Table {
        path: path.clone(),
        format: None,
        header: what & 2 == 0,
        delimiter: None,
        quoting: [None, Some(true), Some(false)][usize::from(what >> 2) % 3],
        input: [Input::Text, Input::Features, Input::Pair, Input::Image][usize::from(what >> 4) % 4].clone(),
        columns: vec![column(0), column(1)],
        separator: " / ".into(),
        target: match what >> 6 & 1 {
            0 => Target::Class { labels: ["0", "1", "2", "3"].map(String::from).into() },
            _ => Target::Value,
        },
        target_column: column(2),
        labels: (what >> 7 == 1).then(|| path.clone()),
    };
    if let Ok(rows) = read(&table, &Limits::default()) {
        assert_eq!(rows.inputs.len(), rows.targets.len());
        assert!(!rows.is_empty());
    }
    let _ = bytes(&path, &Limits::default());
});
