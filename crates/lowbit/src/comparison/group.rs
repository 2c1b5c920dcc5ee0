//! Suites compared one after another, and studies measured, in one report.

use super::{Program, keep, kept, run, share, unfinished, utc};
use crate::suite::{self, Group};
use crate::{Progress, published, training};
use lowbit_base::{Error, Kind};
use lowbit_eval::bench::host;
use lowbit_eval::record::{Record, Results};
use lowbit_eval::study::{self, Bench, Study, language};
use lowbit_eval::{meter, report};
use lowbit_kernels::Cpu;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The directory of the records of studies.
pub(super) const BENCH: &str = "bench";

/// What makes the kept records of a study valid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    /// Times of one CPU say nothing about another.
    #[serde(default)]
    cpu: String,
    isa: String,
    threads: usize,
    quick: bool,
    version: String,
}

/// Compares the suites of a group one after another, each in a directory of its own, measures its studies, and writes one report of
/// all; returns its directory and the records. What is finished is kept.
///
/// # Errors
/// As [`run`].
pub fn run_group(
    group: &Group,
    data: Option<&Path>,
    out: Option<&Path>,
    cpu: &Cpu,
    program: &Program,
    progress: &mut dyn Progress,
) -> Result<(PathBuf, Results), Error> {
    host::need().check()?;
    let name = if group.quick { format!("quick-{}", group.name) } else { group.name.clone() };
    let studies = group.benches.iter().map(|name| study::find(name)).collect::<Result<Vec<_>, _>>()?;
    let new = || Path::new("runs").join(format!("{name}-{}", utc()));
    let out = out.map_or_else(|| unfinished(&name, |_| true).unwrap_or_else(new), PathBuf::from);
    let _lock = program.share.lock(&out, BENCH)?;
    let mut all = Results { title: group.title.clone(), scope: group.scope(), ..program.part(Vec::new()) };
    for name in &group.suites {
        let (suite, home) = (suite::find(name, data)?, out.join(name));
        let suite = if group.quick && !suite.quick.is_empty() { suite.quickly()? } else { suite };
        let (_, mut results) = run(&suite, data, Some(&home), cpu, program, progress)?;
        results.files.iter_mut().for_each(|file| file.path = format!("{name}/{}", file.path));
        apart(&mut results, name, &all);
        all.tasks.extend(results.tasks);
        all.records.extend(results.records);
        all.files.extend(results.files);
    }
    let mut kept = Vec::new();
    for (i, study) in studies.iter().enumerate() {
        if !program.share.takes() {
            continue;
        }
        progress.note(&format!("[{}/{}] bench: {}", i + 1, studies.len(), study.name));
        match measured(study, &out, (group.quick, data), cpu, program, progress) {
            Ok(records) => all.records.extend(records),
            Err(error) if error.kind == Kind::Interrupted => return Err(training::interrupted(&out)),
            Err(error) => return Err(error),
        }
        kept.push(kept_in(study));
    }
    if program.share.shard().is_some() {
        return Ok((out, all));
    }
    language::priced(&mut all.records, program.tariff);
    all.records.extend(published::records(&group.name)?);
    all.host = host::describe(cpu)?;
    all.files.extend(report::hashes(&out, &kept)?);
    report::write(&out, &all)?;
    Ok((out, all))
}

/// Names the task of a suite after the suite too, where another suite of the group has it.
fn apart(results: &mut Results, suite: &str, before: &Results) {
    let known = |task: &str| before.tasks.iter().any(|facts| facts.task == task);
    let tasks = results.tasks.iter_mut().map(|facts| &mut facts.task);
    for task in tasks.chain(results.records.iter_mut().map(|record| &mut record.task)).filter(|task| known(task)) {
        *task = format!("{task} ({suite})");
    }
}

/// Where the records of a study are kept, in the directory of the group.
fn kept_in(study: &Study) -> String {
    format!("{BENCH}/{}.json", study.name)
}

/// The records of a study, kept from before or measured now.
fn measured(
    study: &Study,
    out: &Path,
    (quick, data): (bool, Option<&Path>),
    cpu: &Cpu,
    program: &Program,
    progress: &mut dyn Progress,
) -> Result<Vec<Record>, Error> {
    let path = out.join(kept_in(study));
    let version = env!("CARGO_PKG_VERSION").into();
    let (name, isa) = (meter::cpu_name(), cpu.isa.name().into());
    let stamp = Stamp { cpu: name, isa, threads: cpu.pool.threads(), quick, version };
    if let Some(records) = kept(&path, &stamp) {
        progress.note("  kept from before");
        return Ok(records);
    }
    let place = out.join(BENCH).join(study.name);
    let lock = share::lock(&place, study.name)?;
    let (home, mut note) = (place.join("networks"), |text: &str| progress.note(text));
    let (probe, bench) = (program.probe, program.bench);
    let records = study.run(&mut Bench { cpu, home: &home, quick, data, probe, bench, note: &mut note })?;
    drop(lock);
    // Left in the way where another run took it over.
    let _ = std::fs::remove_dir(&place);
    keep(&path, &stamp, &records)?;
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowbit_eval::record::TaskFacts;

    #[test]
    fn suites_of_one_task_are_told_apart() {
        let of = |task: &str| Results {
            tasks: vec![TaskFacts { task: task.into(), ..TaskFacts::default() }],
            ..Results::default()
        };
        let (mut other, mut same) = (of("boston@1"), of("mnist@1"));
        apart(&mut other, "second", &of("mnist@1"));
        apart(&mut same, "second", &of("mnist@1"));
        assert_eq!((other.tasks[0].task.as_str(), same.tasks[0].task.as_str()), ("boston@1", "mnist@1 (second)"));
    }
}
