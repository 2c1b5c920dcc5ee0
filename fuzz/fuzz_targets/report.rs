//! Records of a report: every check, every table and sentence, and the summary.
#![no_main]

use lowbit_eval::record::Results;
use lowbit_eval::report;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(results) = serde_json::from_slice::<Results>(data) else {
        return;
    };
    let _ = report::check(&results);
    let _ = report::summary(&results, 25);
});
