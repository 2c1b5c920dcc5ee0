//! `lowbit predict`

mod generation;

use super::model::{self, ModelRecipe};
use super::{Machine, emit};
use crate::failure::Failure;
use crate::progress::Count;
use generation::GenerationFlags;
use lowbit_base::file::Replacement;
use lowbit_base::text::duration;
use lowbit_eval::Error;
use lowbit_eval::bench::host;
use lowbit_eval::predict::{self, Answerer, Kept, OUTPUTS, Options, Shard, Summary};
use lowbit_eval::read::{Column, Format, Source, TABLES};
use lowbit_kernels::Cpu;
use lowbit_model::Checkpoint;
use lowbit_model::arch::OutputKind;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit predict models/sst2 reviews.csv > predictions.csv
  lowbit predict models/sst2 reviews.jsonl --text review --keep --format jsonl --out predictions.jsonl
  zcat lines.txt.gz | lowbit predict models/sst2 -             # a text a line
  psql --csv -c 'select id, body from mail' | lowbit predict models/mail - --input-format csv --keep
  lowbit predict models/ag_news news.parquet --top 2
  lowbit predict models/digits photos/                         # the class of each image, with the path of its file
  lowbit predict sentence-transformers/all-MiniLM-L6-v2 lines.txt --format jsonl   # the vector of each text
  lowbit predict models/chat questions.csv --text question --keep --max-tokens 64 --system 'Answer in one sentence.' -o answers.csv --resume
  lowbit predict models/sst2 reviews.parquet -o answers.csv --resume               # again after a crash: it goes on
  lowbit predict models/sst2 reviews.parquet -o answers.csv --shards 16 --emit slurm > job.sh

Columns written: those of the input with --keep, `prediction`, `probability`, `probability/CLASS` for every class (of an embedding model
`embedding`, an array, in their place; of a language model `generation` and `finish`, which is `stop` or `length`), and `remark`, which is `empty` for a row without
text or numbers, `truncated` where the text has more tokens than the model sees, and `too long` where a prompt leaves no room for an answer.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Predict {
    /// The classifier, embedding or language model, and the rows: CSV, TSV, JSON lines, Parquet or plain text (.txt), also compressed; `-` for standard
    /// input; or a PNG or JPEG image, or a folder of such.
    #[arg(value_names = ["MODEL", "FILE"], num_args = 1..=2, required = true)]
    paths: Vec<PathBuf>,
    /// The model, in place of the first path.
    #[arg(short = 'm', long = "model", value_name = "MODEL")]
    named: Option<PathBuf>,
    #[command(flatten)]
    recipe: ModelRecipe,
    /// Columns of the text, or of the numbers, by name or position from 0, joined with a space [default: those the model was trained on, else the
    /// only column that holds text].
    #[arg(long, visible_alias = "columns", value_name = "COLUMN", value_delimiter = ',')]
    text: Vec<String>,
    /// Layout of the input [default: by its name; of standard input: text, a row a line].
    #[arg(long, value_parser = names(TABLES))]
    input_format: Option<String>,
    /// The first line of CSV or TSV names the columns, as it does unless the training data had no such line.
    #[arg(long, overrides_with = "no_header")]
    header: bool,
    /// The first line of CSV or TSV is a row.
    #[arg(long)]
    no_header: bool,
    /// Layout of what is written.
    #[arg(long, default_value = "csv", value_parser = names(OUTPUTS))]
    format: String,
    /// Where it goes [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the K most likely classes of a row instead of the probabilities of all.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Copy the columns of the input.
    #[arg(long)]
    keep: bool,
    /// Keep what is answered beside OUT while the run is not complete (`OUT.partial`), and go on from there when the same command runs again.
    #[arg(long, requires = "out")]
    resume: bool,
    /// Answer one share of the rows, blocks of 1,024 in turn (of 16 where a language model writes), into `OUT.I-of-N`, as with --resume; `lowbit merge OUT` puts them together.
    #[arg(long, value_name = "I/N", requires = "out")]
    shard: Option<Shard>,
    /// Shards that the script of --emit has.
    #[arg(long, value_name = "N", requires = "emit", conflicts_with = "shard")]
    #[arg(default_value_if("emit", clap::builder::ArgPredicate::IsPresent, "8"), value_parser = clap::value_parser!(u32).range(1..=100_000))]
    shards: Option<u32>,
    /// Print a script that answers all shards as jobs, and answer nothing.
    #[arg(long, value_name = "SCHEDULER", requires = "out", conflicts_with = "shard")]
    emit: Option<emit::Scheduler>,
    #[command(flatten)]
    generation: GenerationFlags,
}

impl Predict {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        if let (Some(scheduler), Some(out)) = (self.emit, &self.out) {
            let arguments = emit::without(std::env::args().skip(1), &["--emit", "--shards"]);
            let last = ["merge".to_string(), out.to_string_lossy().into_owned()];
            machine.terminal.data(&emit::script(scheduler, self.shards.unwrap_or(1), &arguments, &last)?);
            return Ok(());
        }
        let (recipe, cpu) = (self.recipe.get()?, machine.cpu()?);
        let (path, input) = self.paths()?;
        let (source, options) = (self.source(input), self.options()?);
        let format = source.format()?;
        let checkpoint = model::open_verified(machine, path, recipe, &cpu)?;
        let mut answerer = Answerer::of(&checkpoint, cpu.clone(), &options.generation)?;
        if options.top.is_some() && answerer.labels().is_empty() && answerer.output() == OutputKind::Tokens {
            return Err(Failure::usage("--top names classes, and a language model has none"));
        }
        let trained_on = checkpoint.model_config().input.as_ref().filter(|_| format != Format::Text);
        machine.signals.defer();
        let Some(mut target) = self.target(&checkpoint, &cpu, (&source, &options))? else {
            let shard = options.shard.map_or_else(String::new, |shard| format!("shard {}/{}", shard.index, shard.of));
            machine.terminal.note(format!("{shard} is complete"));
            return match machine.json {
                true => machine.terminal.records(host::facts(&cpu), Vec::new()),
                false => Ok(()),
            };
        };
        let before = target.before();
        if before.seen > 0 {
            machine.terminal.note(format!("goes on after {} rows", before.seen));
        }
        let (start, mut progress) = (Instant::now(), Count::new(&machine.terminal, "rows").after(before.rows));
        let mut emit = |lines: &str, summary: &Summary| -> Result<bool, Error> {
            cpu.stop.check()?;
            target.write(machine, lines, summary)?;
            progress.at(summary.rows);
            Ok(self.out.is_some() || machine.terminal.is_open())
        };
        let mut note = |remark: String| machine.terminal.note(remark);
        let given = (&source, &options);
        let predicted = predict::predict(&mut answerer, trained_on, given, before.clone(), &mut note, &mut emit);
        progress.end();
        let summary = target.end(predicted)?;
        let seconds = start.elapsed().as_secs_f64();
        if machine.json {
            let name = model::name_of(checkpoint.directory());
            let record = summary.record(name, (&before, seconds), &checkpoint, &answerer)?;
            return machine.terminal.records(host::facts(&cpu), vec![record]);
        }
        if self.out.is_some() || machine.terminal.is_open() {
            let notices = summary.notices(answerer.longest(&checkpoint), answerer.output());
            self.print(machine, (&summary, before.rows), seconds, &notices);
        }
        Ok(())
    }

    /// Where answers go; `None` for a shard that is complete.
    fn target(
        &self,
        checkpoint: &Checkpoint,
        cpu: &Cpu,
        given: (&Source, &Options),
    ) -> Result<Option<Target>, Failure> {
        Ok(match &self.out {
            None => Some(Target::Out),
            Some(out) if self.resume || self.shard.is_some() => {
                Kept::open(out, (checkpoint, cpu), given)?.map(Box::new).map(Target::Kept)
            }
            Some(out) => Some(Target::File(Replacement::create(out)?, out.clone())),
        })
    }

    /// The model and the rows, however they were given.
    fn paths(&self) -> Result<(&Path, &Path), Failure> {
        match (&self.named, &self.paths[..]) {
            (None, [model, input]) | (Some(model), [input]) => Ok((model, input)),
            _ => Err(Failure::usage(
                "give a model and a file of rows: `lowbit predict MODEL FILE` (`-` for standard input)",
            )),
        }
    }

    fn source(&self, input: &Path) -> Source {
        let path = Some(input).filter(|path| *path != Path::new("-")).map(PathBuf::from);
        let piped = path.is_none().then_some(Format::Text);
        let format = self.input_format.as_deref().and_then(|name| named(TABLES, name));
        Source { format: format.or(piped), path, ..Source::default() }
    }

    fn options(&self) -> Result<Options, Failure> {
        let column = |text: &String| text.parse().map_or_else(|_| Column::Name(text.clone()), Column::Index);
        Ok(Options {
            text: self.text.iter().map(column).collect(),
            header: (self.header || self.no_header).then_some(self.header),
            keep: self.keep,
            top: self.top.map(|top| top as usize),
            output: named(OUTPUTS, &self.format).unwrap_or_default(),
            shard: self.shard,
            generation: self.generation.get()?,
        })
    }

    /// Says what was done; `before` rows were answered by an earlier run.
    fn print(&self, machine: &Machine, (summary, before): (&Summary, u64), seconds: f64, notices: &[String]) {
        let rate = (summary.rows - before) as f64 / seconds.max(1e-9);
        let place = self.out.as_ref().map_or(String::new(), |path| format!(": {}", path.display()));
        machine.terminal.note(format!("{} rows in {}, {rate:.0} rows/s{place}", summary.rows, duration(seconds)));
        notices.iter().for_each(|notice| machine.terminal.note(format!("Note: {notice}.")));
    }
}

/// Where answers go.
enum Target {
    /// Standard output.
    Out,
    /// A file that appears when all are there.
    File(Replacement, PathBuf),
    /// A file that is kept while they are made.
    Kept(Box<Kept>),
}

impl Target {
    /// What an earlier run answered.
    fn before(&self) -> Summary {
        match self {
            Target::Kept(kept) => kept.before.clone(),
            Target::Out | Target::File(..) => Summary::default(),
        }
    }

    /// Takes the answers of some rows; `summary` has those of all before, these included.
    fn write(&mut self, machine: &Machine, lines: &str, summary: &Summary) -> Result<(), Error> {
        match self {
            Target::Out if machine.json => Ok(()),
            Target::Out => {
                machine.terminal.data(lines);
                Ok(())
            }
            Target::File(file, path) => file.write_all(lines.as_bytes()).map_err(|e| Error::io(path, &e)),
            Target::Kept(kept) => kept.write(lines, summary),
        }
    }

    /// Gives a file its name when all rows are answered; what was kept stays where the same command can go on.
    fn end(self, predicted: Result<Summary, Error>) -> Result<Summary, Error> {
        match (self, predicted) {
            (Target::Out, predicted) => predicted,
            (Target::File(file, _), Ok(summary)) => file.commit().map(|()| summary),
            (Target::Kept(kept), Ok(summary)) => kept.commit(&summary).map(|_| summary),
            (Target::Kept(kept), Err(error)) => {
                kept.give_up(&error);
                Err(error)
            }
            (Target::File(..), Err(error)) => Err(error),
        }
    }
}

/// The names of a list.
fn names<T>(list: &[(&'static str, T)]) -> Vec<&'static str> {
    list.iter().map(|(name, _)| *name).collect()
}

fn named<T: Copy>(list: &[(&str, T)], name: &str) -> Option<T> {
    list.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}
