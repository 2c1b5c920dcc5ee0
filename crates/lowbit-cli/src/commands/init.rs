//! `lowbit init`

use super::Machine;
use crate::failure::{Code, Failure};
use crate::output;
use lowbit::start::{self, Start, quoted};
use lowbit_base::file;
use lowbit_model::Column;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit init                                   # task, suite and example rows, here
  lowbit init --data reviews.csv                # columns and classes of your own rows
  lowbit init mine --data mail.jsonl --text subject,body --label folder";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Init {
    /// Where task.toml and suite.toml go.
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// Rows with what is right: CSV, TSV, JSON lines or Parquet [default: example rows are written too].
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Columns of the text by name or position from 0 [default: the one with the longest texts].
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "data")]
    text: Vec<String>,
    /// Column of the class [default: by its name and values].
    #[arg(long, value_name = "COLUMN", requires = "data")]
    label: Option<String>,
}

impl Init {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let column = |text: &String| text.parse().map_or_else(|_| Column::Name(text.clone()), Column::Index);
        let text: Vec<Column> = self.text.iter().map(column).collect();
        let start = match &self.data {
            Some(data) => Start::of(data, &self.directory, &text, self.label.as_ref().map(column).as_ref())?,
            None => Start::example()?,
        };
        let files = start.files();
        self.write(&files)?;
        let written: Vec<String> = files.iter().map(|(name, _)| self.at(name)).collect();
        let next = format!("lowbit compare {}", quoted(&self.at(start::SUITE)));
        if machine.json {
            return output::json(&json!({
                "schema_version": 1, "tool": output::tool(), "command": output::command(), "files": written,
                "classes": start.classes, "rows": start.rows, "next": next,
            }));
        }
        output::line(&start.about);
        output::line(format!("wrote {}", written.join(", ")));
        output::line(format!("next: {next}"));
        Ok(())
    }

    /// Writes all files, or leaves those that are there as they were. What an earlier run of the same command wrote stays.
    fn write(&self, files: &[(&str, String)]) -> Result<(), Failure> {
        let mut missing = Vec::new();
        for (name, content) in files {
            let path = self.directory.join(name);
            let same = || file::read(&path, content.len() as u64).is_ok_and(|found| found == content.as_bytes());
            match path.symlink_metadata().is_ok() {
                false => missing.push((path, content)),
                true if same() => {}
                true => {
                    let message = format!("{}: exists already: remove it, or name another directory", path.display());
                    return Err(Failure { code: Code::Usage, message });
                }
            }
        }
        file::make(&self.directory)?;
        for (i, (path, content)) in missing.iter().enumerate() {
            if let Err(error) = file::replace(path, content.as_bytes()) {
                missing[..=i].iter().for_each(|(path, _)| drop(std::fs::remove_file(path)));
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// A file as the next command takes it.
    fn at(&self, name: &str) -> String {
        let path = if self.directory == Path::new(".") { Path::new(".").join(name) } else { self.directory.join(name) };
        path.display().to_string()
    }
}
