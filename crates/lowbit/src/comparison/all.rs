//! `compare all`: every suite that redoes a study, one after another, and a page that leads to their reports.

use super::asked::Asked;
use super::{Program, unfinished, utc};
use crate::suite::STUDIES;
use crate::{Progress, training};
use lowbit_base::{Error, Kind, file};
use lowbit_eval::record::Results;
use lowbit_eval::report::{self, Entry};
use lowbit_kernels::Cpu;
use std::path::{Path, PathBuf};

/// The name under which all are compared.
pub const ALL: &str = "all";

/// One of the suites, as it went.
pub struct Chapter {
    /// Name of the suite.
    pub name: &'static str,
    /// Its records, or why there are none.
    pub outcome: Result<Results, Missing>,
}

/// Why a suite has no records.
pub enum Missing {
    /// What it needs and is not there, in words.
    Needs(String),
    /// What went wrong.
    Failed(Error),
}

/// Compares every suite that redoes a study, each in a directory of its own, and writes a page of them all; what is not there to be
/// measured is named, and the rest goes on. Returns the directory and how each went.
///
/// # Errors
/// When the directory cannot be written or another run works in it; a signal ends it with everything finished kept.
pub fn run_all(
    quick: bool,
    data: Option<&Path>,
    out: Option<&Path>,
    cpu: &Cpu,
    program: &Program,
    progress: &mut dyn Progress,
) -> Result<(PathBuf, Vec<Chapter>), Error> {
    run_each(STUDIES, quick, data, out, cpu, program, progress)
}

fn run_each(
    studies: &[&'static str],
    quick: bool,
    data: Option<&Path>,
    out: Option<&Path>,
    cpu: &Cpu,
    program: &Program,
    progress: &mut dyn Progress,
) -> Result<(PathBuf, Vec<Chapter>), Error> {
    let name = if quick { "quick-all" } else { ALL };
    let new = || Path::new("runs").join(format!("{name}-{}", utc()));
    // The page is written when all are done.
    let is_open = |dir: &Path| !dir.join(report::INDEX).exists();
    let out = out.map_or_else(|| unfinished(name, is_open).unwrap_or_else(new), PathBuf::from);
    let _lock = program.share.lock(&out, "")?;
    let mut chapters = Vec::new();
    for (i, name) in studies.iter().copied().enumerate() {
        progress.note(&format!("suite {} of {}: {name}", i + 1, studies.len()));
        let outcome = match chapter(name, quick, data, &out, cpu, program, progress) {
            Err(Missing::Failed(error)) if error.kind == Kind::Interrupted => return Err(training::interrupted(&out)),
            outcome => outcome,
        };
        match &outcome {
            Ok(_) => {}
            Err(Missing::Needs(needs)) => progress.note(&format!("  not measured: needs {needs}")),
            Err(Missing::Failed(error)) => progress.note(&format!("  failed: {error}")),
        }
        chapters.push(Chapter { name, outcome });
    }
    if program.share.shard().is_none() {
        let entries: Vec<Entry> = chapters.iter().map(Chapter::entry).collect();
        for (name, text) in report::index(&entries, quick, &program.tool) {
            file::replace(&out.join(name), text.as_bytes())?;
        }
    }
    Ok((out, chapters))
}

fn chapter(
    name: &str,
    quick: bool,
    data: Option<&Path>,
    out: &Path,
    cpu: &Cpu,
    program: &Program,
    progress: &mut dyn Progress,
) -> Result<Results, Missing> {
    let asked = Asked::find(name, quick, data).map_err(Missing::Failed)?;
    if let Some(needs) = asked.missing(data).map_err(Missing::Failed)? {
        return Err(Missing::Needs(needs));
    }
    let run = asked.run(data, Some(&out.join(name)), cpu, program, progress);
    run.map(|(_, results)| results).map_err(Missing::Failed)
}

impl Chapter {
    /// Its line on the page.
    fn entry(&self) -> Entry<'_> {
        let outcome = match &self.outcome {
            Ok(results) => Ok(results),
            Err(Missing::Needs(needs)) => Err(format!("not measured: needs {needs}")),
            Err(Missing::Failed(error)) => Err(format!("failed: {error}")),
        };
        Entry { name: self.name, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::{Share, TARIFF};
    use lowbit_base::file::Lock;
    use lowbit_eval::record::Tool;

    #[test]
    fn what_is_not_there_is_named_and_the_rest_goes_on() {
        let home = tempfile::tempdir().unwrap();
        let (data, out) = (home.path().join("data"), home.path().join("out"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::create_dir_all(&out).unwrap();
        let cpu = Cpu::new(None, Some(1)).unwrap();
        let program = Program {
            tool: Tool::default(),
            command: Vec::new(),
            constraints: None,
            seeds: 1,
            tariff: TARIFF,
            share: Share::default(),
            probe: &|_, _| Err(std::io::Error::other("not asked for")),
            bench: &|_, _| Err(std::io::Error::other("not asked for")),
        };
        let names = ["gpt2-agnews", "enwik8", "bitlab"];
        let run = || run_each(&names, true, Some(&data), Some(&out), &cpu, &program, &mut ());
        let lock = Lock::acquire(&out).unwrap();
        assert!(run().err().unwrap().to_string().contains("locked by"));
        drop(lock);
        let (_, chapters) = run().unwrap();
        assert_eq!(chapters.len(), names.len());
        for (chapter, word) in chapters.iter().zip(["ag_news/train", "enwik8_prefix", "mnist/train"]) {
            let Err(Missing::Needs(needs)) = &chapter.outcome else { panic!("{} has its data", chapter.name) };
            assert!(needs.contains(word) && needs.contains("--data"), "{needs}");
        }
        let index = std::fs::read_to_string(out.join(report::INDEX)).unwrap();
        assert_eq!(index.matches("not measured: needs").count(), 3, "{index}");
    }
}
