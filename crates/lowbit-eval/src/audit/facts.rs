//! What the text of a report does not say: a small TOML beside it.

use crate::Error;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Facts about a report.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Facts {
    /// File name of the report, where these facts are audited in its place.
    pub(crate) report: Option<String>,
    /// What a perplexity is counted over: `byte`, `character`, `word` or `token`.
    pub(crate) symbol: Option<String>,
    /// Dollars of a kilowatt hour.
    pub(crate) tariff: Option<f64>,
    /// How many values an average over parts has.
    pub(crate) parts: Option<f64>,
    /// Test sets and their sizes.
    #[serde(default, rename = "test")]
    pub(crate) tests: Vec<TestSet>,
    /// Models and their sizes.
    #[serde(default, rename = "model")]
    pub(crate) models: Vec<Model>,
    /// What sentences refer to.
    #[serde(default, rename = "claim")]
    pub(crate) claims: Vec<Claim>,
    /// What a source says against the report.
    #[serde(default, rename = "fact")]
    pub(crate) facts: Vec<Fact>,
    /// Published values.
    #[serde(default, rename = "anchor")]
    pub(crate) anchors: Vec<Anchor>,
    /// How much of a test set was scored.
    #[serde(default, rename = "sample")]
    pub(crate) samples: Vec<Sample>,
    /// Data sets with the same test rows.
    #[serde(default, rename = "same")]
    pub(crate) same: Vec<Same>,
    /// Parts of which a printed size is the sum.
    #[serde(default, rename = "ledger")]
    pub(crate) ledgers: Vec<Ledger>,
}

/// A test set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestSet {
    /// Words of the headings above the table, or of the name of its row.
    #[serde(rename = "in")]
    pub(crate) place: String,
    /// Its rows.
    pub(crate) n: f64,
    /// Titles of the columns with shares of these rows [default: Accuracy].
    #[serde(default)]
    pub(crate) columns: Vec<String>,
}

/// A model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) parameters: Option<f64>,
    pub(crate) bits: Option<f64>,
}

/// What a sentence says: that the subject has the most or the least in a column.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    /// Words of its line.
    pub(crate) at: String,
    pub(crate) subject: String,
    /// `highest` or `lowest`.
    pub(crate) is: String,
    /// Title of the column.
    pub(crate) column: String,
}

/// What a source says of something printed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fact {
    /// Words of its line; every line that holds them is meant.
    pub(crate) at: String,
    /// Number of the check.
    pub(crate) check: u32,
    /// What the report prints.
    pub(crate) printed: String,
    /// What the source has.
    pub(crate) found: String,
    /// What both are about.
    pub(crate) about: String,
    /// The source.
    pub(crate) source: String,
}

/// A published value of the same quantity.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Anchor {
    /// Name of the row.
    pub(crate) row: String,
    /// Title of the column.
    pub(crate) column: String,
    /// Published value, in the unit of the column.
    pub(crate) value: f64,
    /// Rows of its test set.
    #[serde(default)]
    pub(crate) n: Option<f64>,
    /// It was measured on a weaker machine, so that less is not to be expected here.
    #[serde(default)]
    pub(crate) weaker_machine: bool,
    pub(crate) source: String,
}

/// A part of a test set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    /// Words of its line.
    pub(crate) at: String,
    pub(crate) scored: f64,
    pub(crate) of: f64,
    pub(crate) unit: String,
    pub(crate) source: String,
}

/// Data sets with the same test rows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Same {
    pub(crate) names: Vec<String>,
    pub(crate) source: String,
}

/// Bytes behind a printed size.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    /// Words of its line.
    pub(crate) at: String,
    /// Bytes by part.
    pub(crate) parts: BTreeMap<String, f64>,
    /// Parts that the printed size leaves out.
    #[serde(default)]
    pub(crate) missing: BTreeMap<String, f64>,
}

/// Largest such file, bytes.
const MOST: u64 = 1 << 20;

impl Facts {
    /// Reads a file of facts.
    ///
    /// # Errors
    /// When it cannot be read, or has an unknown field.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = lowbit_base::file::read_text(path, MOST)?;
        toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start].matches('\n').count() as u64 + 1);
            Error::input(path, format!("no facts of a report: {}", e.message())).on_line(line)
        })
    }

    /// The facts beside a report, `FILE.audit.toml`, if there are any.
    pub(crate) fn beside(path: &Path) -> Option<PathBuf> {
        let mut name = path.file_name()?.to_os_string();
        name.push(".audit.toml");
        Some(path.with_file_name(name)).filter(|path| path.is_file())
    }
}
