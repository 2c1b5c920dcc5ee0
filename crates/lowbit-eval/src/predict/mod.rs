//! Predictions for rows of a table, in batches of bounded memory.

mod answerer;
mod columns;
mod generate;
mod kept;
mod output;
mod shard;

pub use answerer::Answerer;
pub use generate::{Generation, Generator};
pub use kept::Kept;
pub use output::{OUTPUTS, Output};
pub use shard::{Merged, Shard, merge};

use crate::read::images::{self, ImageSize};
use crate::read::{self, Column, First, Format, Limits, Projection, Source, Visitor};
use crate::record::{Detail, Measure, Record};
use crate::{Error, facts};
use columns::{Choice, TableColumns};
use lowbit_model::arch::OutputKind;
use lowbit_model::{Checkpoint, InputColumns, Inputs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Rows of a batch at most.
const ROWS: usize = 1024;
/// Bytes of the texts of a batch, about.
const BYTES: usize = 4 << 20;
/// Rows by which a column of text is recognised.
const SAMPLE: usize = 100;

/// What is read and what is written.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Columns that make the text, joined with one space; when empty those the model was trained on, else the only column of
    /// text.
    pub text: Vec<Column>,
    /// Whether the first line of a delimited file names the columns; when absent it does, unless the training data had none.
    pub header: Option<bool>,
    /// Copy the columns of the input.
    pub keep: bool,
    /// Write so many classes of a row, the most likely ones, instead of the probabilities of all.
    pub top: Option<usize>,
    /// Layout of what is written.
    pub output: Output,
    /// The share of the rows that is answered; all of them when absent.
    pub shard: Option<Shard>,
    /// How a language model writes its answers.
    pub generation: Generation,
}

/// What was predicted so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows of the table that were read, those of other shards included.
    pub seen: u64,
    /// Rows that were answered.
    pub rows: u64,
    /// Rows without text.
    pub empty: u64,
    /// Rows whose text has more tokens than the network sees.
    pub truncated: u64,
    /// Rows of each predicted class.
    pub classes: Vec<u64>,
    /// Tokens that were written.
    #[serde(default)]
    pub tokens: u64,
    /// Answers that were cut at their longest.
    #[serde(default)]
    pub cut: u64,
}

impl Summary {
    /// What a reader of the predictions must know; `longest` is the number of tokens the model sees.
    pub fn notices(&self, longest: usize, output: OutputKind) -> Vec<String> {
        let (rows, long) = (self.rows, self.truncated);
        let long_text = match output {
            OutputKind::Tokens => {
                format!(
                    "{long} of {rows} prompts leave no room for an answer in the context of {longest} tokens, and have none"
                )
            }
            _ => format!("{long} of {rows} texts are longer than the {longest} tokens the model sees, and were cut"),
        };
        let all = [
            (long, long_text),
            (self.empty, format!("{} of {rows} rows have no text", self.empty)),
            (self.cut, format!("{} of {rows} answers were cut at their longest", self.cut)),
        ];
        all.into_iter().filter(|(n, _)| *n > 0).map(|(_, text)| text).collect()
    }

    /// The record: the share of each class, and rows and written tokens per second of a run that went on after `before` and took so
    /// many seconds.
    ///
    /// # Errors
    /// When the model's file cannot be read.
    pub fn record(
        &self,
        model: String,
        (before, seconds): (&Summary, f64),
        checkpoint: &Checkpoint,
        answerer: &Answerer,
    ) -> Result<Record, Error> {
        let share = |count: &u64| Measure::measured(*count as f64 / self.rows.max(1) as f64, "fraction", self.rows);
        let (labels, longest) = (answerer.labels(), answerer.longest(checkpoint));
        let notices = self.notices(longest, answerer.output());
        let mut record = Record {
            task: String::new(),
            model,
            recipe: checkpoint.recipe().name.into(),
            params: 0,
            measures: labels.iter().zip(&self.classes).map(|(name, n)| (format!("share/{name}"), share(n))).collect(),
            detail: Detail { classes: labels.to_vec(), notices, ..Detail::default() },
        };
        facts::describe(&mut record, checkpoint)?;
        let rates =
            [("throughput", self.rows - before.rows), ("decode_tokens_per_second", self.tokens - before.tokens)];
        for (name, count) in rates.into_iter().filter(|(_, count)| *count > 0) {
            let rate = Measure::measured(count as f64 / seconds.max(1e-9), "per_second", count);
            record.measures.insert(name.into(), rate);
        }
        Ok(record)
    }
}

/// Takes the lines for a batch of rows, and says whether to go on.
pub type Emit<'a> = &'a mut dyn FnMut(&str, &Summary) -> Result<bool, Error>;

/// Predicts a class or a value for each row of a source, gives the vector of its text or continues it, from where an earlier run stopped
/// (`before`); `notice` takes remarks about what was chosen. The predictions are those of [`crate::classify::quality`], whatever the batch.
///
/// # Errors
/// Names file, line (row in Parquet) and column of what is wrong; those of `emit`.
pub fn predict(
    answerer: &mut Answerer,
    trained_on: Option<&InputColumns>,
    (source, options): (&Source, &Options),
    before: Summary,
    notice: &mut dyn FnMut(String),
    emit: Emit<'_>,
) -> Result<Summary, Error> {
    let image = match source.format()? {
        Format::Images => Some(answerer.image(source)?),
        _ => None,
    };
    // An answer tells nothing without the name of its file.
    let options = &Options { keep: options.keep || image.is_some(), ..options.clone() };
    let numbers = answerer.numbers().filter(|_| image.is_none());
    let mut summary = before;
    summary.classes.resize(answerer.labels().len(), 0);
    let choice = Choice { trained_on, options, numbers };
    let mut rows = PendingRows {
        most: answerer.rows(),
        answerer,
        choice,
        image,
        source,
        notice,
        emit,
        table: None,
        pending: Vec::new(),
        bytes: 0,
        at: 0,
        summary,
        ended: false,
    };
    let limits = Limits { bytes: u64::MAX, rows: u64::MAX, ..Limits::default() };
    match read::visit(source, &limits, &mut rows) {
        Err(_) if rows.ended => return Ok(rows.summary),
        read => read?,
    }
    rows.flush()?;
    if rows.at == 0 {
        return Err(Error::input(source.name(), "no rows: it is empty or holds only a header"));
    }
    Ok(rows.summary)
}

/// A row that waits for its batch.
struct PendingRow {
    line: Option<u64>,
    values: Vec<Value>,
}

/// The rows of a source on their way.
struct PendingRows<'a> {
    answerer: &'a mut Answerer,
    /// Rows of a batch at most.
    most: usize,
    choice: Choice<'a>,
    /// What images are scaled to, where the rows are files of such.
    image: Option<ImageSize>,
    source: &'a Source,
    notice: &'a mut dyn FnMut(String),
    emit: Emit<'a>,
    table: Option<TableColumns>,
    pending: Vec<PendingRow>,
    bytes: usize,
    /// Rows of the source before those that wait.
    at: u64,
    summary: Summary,
    /// Nobody takes more lines.
    ended: bool,
}

impl Visitor for PendingRows<'_> {
    fn begin(&mut self, first: &First) -> Result<Projection, Error> {
        let table = self.choice.table(first, self.source)?;
        let (columns, header) = (table.columns(), table.header);
        self.table = Some(table);
        Ok(Projection { columns, header, optional: true })
    }

    fn row(&mut self, line: Option<u64>, values: Vec<Value>) -> Result<(), Error> {
        self.bytes += values.iter().map(|value| value.as_str().map_or(8, str::len)).sum::<usize>();
        self.pending.push(PendingRow { line, values });
        let undecided = self.table.as_ref().is_some_and(|table| table.text.is_empty());
        let most = if undecided { self.most.min(SAMPLE) } else { self.most };
        if self.pending.len() >= most || self.bytes >= BYTES { self.flush() } else { Ok(()) }
    }

    fn note(&mut self, text: String) {
        (self.notice)(text);
    }
}

impl PendingRows<'_> {
    /// Answers and emits what waits.
    fn flush(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.choose()?;
        let (begins, answered, first) = (self.summary.rows == 0, self.summary.seen, self.at);
        let (shard, block) = (self.choice.options.shard, shard::block(self.answerer.output()));
        let ours = |row: u64| row >= answered && shard.is_none_or(|shard| shard.has(row, block));
        let all = std::mem::take(&mut self.pending);
        self.bytes = 0;
        self.at += all.len() as u64;
        let (rows, numbers): (Vec<PendingRow>, Vec<u64>) =
            all.into_iter().zip(first..).filter(|(_, number)| ours(*number)).unzip();
        self.summary.seen = answered.max(self.at);
        if rows.is_empty() {
            return Ok(());
        }
        let lines = self.lines(&rows, &numbers, begins)?;
        if !(self.emit)(&lines, &self.summary)? {
            self.ended = true;
            return Err(Error::usage("nobody reads on"));
        }
        Ok(())
    }

    /// Chooses the columns before the first rows are answered.
    fn choose(&mut self) -> Result<(), Error> {
        let Some(table) = self.table.as_mut().filter(|_| self.at == 0) else { return Ok(()) };
        let values = self.pending.iter().map(|row| row.values.as_slice());
        table.choose(values, self.answerer.labels(), self.source)?;
        (self.notice)(format!("{}: {}", self.source.name().display(), table.remark(self.choice.trained_on)));
        Ok(())
    }

    /// The lines of rows, which have these numbers in the table.
    fn lines(&mut self, rows: &[PendingRow], numbers: &[u64], begins: bool) -> Result<String, Error> {
        let Some(table) = &self.table else { return Ok(String::new()) };
        let fail = |at: usize, message: String| {
            let line = rows[at].line;
            let place = if line.is_none() { format!("row {}: ", numbers[at]) } else { String::new() };
            Error::input(self.source.name(), format!("{place}{message}")).on_line(line)
        };
        let inputs = match self.image {
            Some(size) => {
                let files = rows.iter().filter_map(|row| row.values.first()?.as_str().map(Path::new));
                Inputs::Features { width: size.numbers(), values: images::numbers(files, size)? }
            }
            None => inputs(table, rows, self.choice.numbers, &fail)?,
        };
        let answers = self.answerer.answers(&inputs, numbers);
        let (answers, seen) =
            answers.map_err(|error| Error { path: error.path.or_else(|| Some(self.source.name().into())), ..error })?;
        let answerer = &*self.answerer;
        let kind = (answerer.output(), answerer.labels());
        let mut writer = output::Writer::new(self.choice.options, table, kind, begins)?;
        for (at, row) in rows.iter().enumerate() {
            let remarks = answerer.remarks(&inputs, at, seen[at])?;
            answers.write(at, &row.values, remarks, &mut writer, &mut self.summary);
        }
        Ok(writer.finish())
    }
}

/// What the model is asked about some rows; `fail` tells the place of one.
fn inputs(
    table: &TableColumns,
    rows: &[PendingRow],
    numbers: Option<usize>,
    fail: &dyn Fn(usize, String) -> Error,
) -> Result<Inputs, Error> {
    let all = rows.iter().enumerate();
    Ok(match numbers {
        None => {
            let mut inputs = Inputs::default();
            for (at, row) in all {
                table.text_of(&row.values, &mut inputs).map_err(|message| fail(at, message))?;
            }
            inputs
        }
        Some(width) => {
            let mut values = Vec::with_capacity(width * rows.len());
            for (at, row) in all {
                values.extend(table.numbers_of(&row.values).map_err(|message| fail(at, message))?);
            }
            Inputs::Features { width, values }
        }
    })
}
