//! `lowbit init`

use super::{Machine, suite};
use crate::failure::Failure;
use lowbit::start::{self, Start, quoted};
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
        let text: Vec<Column> = self.text.iter().map(|text| suite::column(text)).collect();
        let start = match &self.data {
            Some(data) => Start::of(data, &self.directory, &text, self.label.as_deref().map(suite::column).as_ref())?,
            None => Start::example()?,
        };
        let written: Vec<String> = start.write(&self.directory)?.into_iter().map(|name| self.at(name)).collect();
        let next = format!("lowbit compare {}", quoted(&self.at(start::SUITE)));
        if machine.json {
            return machine.terminal.json_object(json!({"files": written,
                "classes": start.classes, "rows": start.rows, "next": next,
            }));
        }
        machine.terminal.line(&start.about);
        machine.terminal.line(format!("wrote {}", written.join(", ")));
        machine.terminal.line(format!("next: {next}"));
        Ok(())
    }

    /// A file as the next command takes it.
    fn at(&self, name: &str) -> String {
        let path = if self.directory == Path::new(".") { Path::new(".").join(name) } else { self.directory.join(name) };
        path.display().to_string()
    }
}
