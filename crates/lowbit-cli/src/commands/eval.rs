//! `lowbit eval`

use super::list::{self, List};
use super::model::{self, ModelPath, ModelRecipe};
use super::{Machine, probe};
use crate::failure::Failure;
use lowbit::{comparison, language};
use lowbit_eval::bench::host;
use lowbit_eval::compress;
use lowbit_eval::language::{self as scoring, Cut, Text};
use lowbit_eval::question::{self, Question, Reference, Subject};
use lowbit_eval::record::Record;
use lowbit_eval::task::{self, Split, Task};
use lowbit_model::Inputs;
use std::path::PathBuf;

/// What may be timed here.
const OF_ANSWERS: &str =
    "--speed measures classifiers, and language models on a text; `lowbit bench MODEL` measures others";

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit eval models/ternary --task ag_news --speed
  lowbit eval models/book --task models/book/language.toml     # its own held-out text
  lowbit eval models/book --text other.txt more.txt.zst --json
  lowbit eval models/book --task enwik8 --limit 100000         # bits per byte of the test split
  lowbit eval models/book --task enwik8 --speed --baselines    # beside gzip, zstd and xz, with times
  lowbit eval models/book --text other.txt --recipe f32        # the masters instead
  lowbit eval models/book-int4 --text other.txt --reference models/book   # KL divergence from its answers";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Eval {
    #[command(flatten)]
    model: ModelPath,
    #[command(flatten)]
    recipe: ModelRecipe,
    /// Name of a task, or path of its TOML file; of a language model: its held-out text.
    #[arg(long, visible_alias = "tasks", required_unless_present_any = ["text", "list"], conflicts_with = "text")]
    task: Option<String>,
    /// Score a language model on these files, plain or compressed: bits per byte, perplexity.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    text: Vec<PathBuf>,
    /// Rows of this split of a task for language models: train, valid or test [default: test].
    #[arg(long, conflicts_with = "text")]
    split: Option<Split>,
    /// Directory of the data sets [default: ../shared/data].
    #[arg(long, env = "LOWBIT_DATA")]
    data: Option<PathBuf>,
    /// Only the first rows of the split, or the first bytes of a text; the interval tells what that costs.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Tokens of a window over a text [default: the model's length, at most 1024].
    #[arg(long)]
    context: Option<usize>,
    /// Tokens by which a window moves on [default: half a window].
    #[arg(long)]
    stride: Option<usize>,
    /// Also compare the answers with those of this model: KL divergence, same top answer, differences of probabilities.
    #[arg(long, value_name = "MODEL")]
    reference: Option<PathBuf>,
    /// List tasks and recipes, and end.
    #[arg(long)]
    list: bool,
    /// Also measure latency, throughput and memory, of classifiers load time too; of a language model bytes scored per second and the
    /// time of one byte (or token) written alone.
    #[arg(long)]
    speed: bool,
    /// Also let the model write the text as a file, and compress it without a network: byte counts of order 0 and 2, gzip -9, zstd -19,
    /// brotli -11, xz -9, PPMd; each with size and bytes per second.
    #[arg(long)]
    baselines: bool,
}

impl Eval {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if self.list {
            return list::print(machine, &[List::Tasks, List::Recipes], None);
        }
        let (path, recipe) = (self.model.path()?, self.recipe.get()?);
        let (name, cpu) = (model::name_of(path), machine.cpu()?);
        let language = self.task.as_deref().map(language::find).transpose()?.flatten();
        let checkpoint = model::open_verified(machine, path, recipe, &cpu)?;
        let shown = self.reference.as_ref().map(|path| path.display().to_string());
        let beside = self.reference.as_ref().map(|path| model::open_verified(machine, path, None, &cpu)).transpose()?;
        let reference = shown.as_deref().zip(beside.as_ref()).map(|(name, checkpoint)| Reference { name, checkpoint });
        machine.signals.defer();
        let cut = Cut { context: self.context, stride: self.stride };
        let subject = Subject { cut, reference, speed: self.speed, ..Subject::new(&name, &checkpoint, &cpu) };
        let records = match (&self.task, &language) {
            (Some(task), None) => self.ask(&task::find(task)?, subject)?,
            _ => self.texts(language.as_ref(), &subject)?,
        };
        if machine.json {
            return machine.terminal.records(host::facts(&cpu), records);
        }
        for record in &records {
            let name = &record.model;
            let rows = record.rows();
            let rows = if rows > 0 { format!("{rows} rows, ") } else { String::new() };
            machine.terminal.line(format!("{name} on {} ({rows}recipe {})", record.task, record.recipe));
            machine.terminal.lines(record.lines());
            machine.terminal.lines(&record.detail.note);
            let reference = record.detail.reference.iter();
            machine.terminal.lines(reference.map(|name| format!("divergence and differences are from {name}")));
            record.detail.notices.iter().for_each(|notice| machine.terminal.line(format!("Note: {notice}.")));
        }
        Ok(())
    }

    /// A model on rows of a task, and compressors beside it.
    fn ask(&self, task: &Task, subject: Subject) -> Result<Vec<Record>, Failure> {
        question::check(task, subject.checkpoint)?;
        subject.reference.map_or(Ok(()), |_| question::check_compared(task))?;
        let is_text = task.question == Question::Likelihood;
        if self.speed && !is_text && !task.question.spec().is_trained {
            return Err(Failure::usage(OF_ANSWERS));
        }
        if self.baselines && !is_text {
            let asks = task.question.spec().asks;
            return Err(Failure::usage(format!(
                "--baselines compresses a text, and the task {} asks for {asks}",
                task.name
            )));
        }
        let cut = subject.cut;
        if !is_text && (cut.context.is_some() || cut.stride.is_some()) {
            let text = "--context and --stride cut a text into windows, and the task";
            return Err(Failure::usage(format!("{text} {} asks for {}", task.name, task.question.spec().asks)));
        }
        let (split, limit) = (self.split.unwrap_or_default(), self.limit.map(|limit| limit as usize));
        let (mut record, rows) = question::score_split(task, split, self.data.as_deref(), limit, &subject)?;
        if self.speed && !is_text {
            comparison::speeds(&rows, [(subject.checkpoint, &mut record)], subject.cpu, &probe::start)?;
        }
        let mut records = vec![record];
        if self.baselines {
            let limit = limit.filter(|_| matches!(rows.inputs, Inputs::Bytes(_)));
            let text = scoring::text_of(task, &rows, &Subject { limit, ..subject })?;
            beside(&mut records, &text, &subject)?;
        }
        Ok(records)
    }

    /// A language model on files, or on the held-out text of a description.
    fn texts(&self, language: Option<&language::Language>, subject: &Subject) -> Result<Vec<Record>, Failure> {
        if let Some(language) = language.filter(|_| self.split.is_some()) {
            let text = format!("--split is for tasks; {} is scored on the text it holds out", language.name);
            return Err(Failure::usage(text));
        }
        let (limit, checkpoint) = (self.limit.map(|limit| limit as usize), subject.checkpoint);
        let texts = match language {
            Some(language) => vec![language.held_out(self.data.as_deref(), limit, checkpoint)?],
            None => self.text.iter().map(|path| Text::read(path, limit, checkpoint)).collect::<Result<_, _>>()?,
        };
        let mut records = Vec::new();
        for text in &texts {
            records.push(scoring::score(text, subject)?);
            if self.baselines {
                beside(&mut records, text, subject)?;
            }
        }
        Ok(records)
    }
}

/// Lets a model of bytes write the text that it was scored on, the last of the records, as a file, and adds compressors without a network.
fn beside(records: &mut Vec<Record>, text: &Text, subject: &Subject) -> Result<(), Failure> {
    let Subject { checkpoint, cpu, .. } = *subject;
    let content = scoring::coders::content(text, &checkpoint.tokenizer()?)?;
    let Some(record) = records.last_mut() else { return Ok(()) };
    let why = compress::prove(checkpoint, cpu, &content, record)?;
    record.detail.notices.extend(why.map(|why| format!("it writes no file: {why}")));
    let task = record.task.clone();
    records.extend(scoring::coders::records(&task, &content, &cpu.stop)?);
    Ok(())
}
