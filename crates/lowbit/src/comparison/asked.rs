//! What is compared: a suite, a group of them, or language models.

use super::texts::{self, TextSuite};
use super::{Program, run, run_group};
use crate::Progress;
use crate::suite::{self, Group, Suite};
use lowbit_base::Error;
use lowbit_eval::record::Results;
use lowbit_kernels::Cpu;
use std::path::{Path, PathBuf};

/// One comparison, whole or quick.
pub enum Asked {
    /// A suite of one task.
    Suite(Box<Suite>),
    /// Suites and studies in one report.
    Group(Group),
    /// Language models.
    Texts(Box<TextSuite>),
}

impl Asked {
    /// The comparison of a name or of a TOML file; for a task a suite of default networks.
    ///
    /// # Errors
    /// As [`suite::find`], and when there is no quick one.
    pub fn find(name: &str, quick: bool, data: Option<&Path>) -> Result<Self, Error> {
        if let Some(suite) = texts::find(name)? {
            return Ok(Asked::Texts(Box::new(if quick { suite.quick()? } else { suite })));
        }
        match suite::group(name)? {
            Some(group) => Ok(Asked::Group(Group { quick, ..group })),
            None => Self::of(suite::find(name, data)?, quick),
        }
    }

    /// The comparison of a suite.
    ///
    /// # Errors
    /// When there is no quick one.
    pub fn of(suite: Suite, quick: bool) -> Result<Self, Error> {
        Ok(Asked::Suite(Box::new(if quick { suite.quickly()? } else { suite })))
    }

    /// What was chosen where nobody wrote the suite, for a person.
    pub fn notice(&self) -> Option<&String> {
        if let Asked::Suite(suite) = self { suite.notice.as_ref() } else { None }
    }

    /// What it needs and is not there, in words; nothing where all is.
    ///
    /// # Errors
    /// When a description is wrong.
    pub fn missing(&self, data: Option<&Path>) -> Result<Option<String>, Error> {
        match self {
            Asked::Suite(suite) => Ok(suite.task()?.missing(data)),
            Asked::Texts(suite) => {
                let language = suite.language()?;
                Ok(language.missing(data).or(suite.task()?.missing(data)))
            }
            Asked::Group(group) => {
                let of = |name: &String| suite::named(name)?.task().map(|task| task.missing(data));
                let all = group.suites.iter().map(of).collect::<Result<Vec<_>, _>>()?;
                Ok(all.into_iter().flatten().next())
            }
        }
    }

    /// Runs it: its directory and the records; those of a shard alone, where it is shared out.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(
        &self,
        data: Option<&Path>,
        out: Option<&Path>,
        cpu: &Cpu,
        program: &Program,
        progress: &mut dyn Progress,
    ) -> Result<(PathBuf, Results), Error> {
        match self {
            Asked::Suite(suite) => run(suite, data, out, cpu, program, progress),
            Asked::Group(group) => run_group(group, data, out, cpu, program, progress),
            Asked::Texts(suite) => texts::run(suite, data, out, cpu, program, progress),
        }
    }
}
