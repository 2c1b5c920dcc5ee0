//! `lowbit compress`

use super::Machine;
use super::model::{self, ModelRecipe};
use crate::failure::Failure;
use crate::progress::Count;
use lowbit::shipped;
use lowbit_base::file::replace;
use lowbit_base::memory::bytes;
use lowbit_base::text::duration;
use lowbit_eval::Error;
use lowbit_eval::bench::host;
use lowbit_eval::compress::Compressor;
use lowbit_kernels::Cpu;
use lowbit_model::Checkpoint;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is added to the name of a file.
pub(super) const ENDING: &str = "lowbit";

/// Beside the flags.
const EXAMPLES: &str = "\
Examples:
  lowbit compress reviews.txt                        # writes reviews.txt.lowbit
  lowbit compress enwik8 --model models/bytes --out enwik8.lowbit
  lowbit compress notes.md --lanes 1                 # smallest, slowest

`lowbit decompress` restores it. The model is not in the file: the same one restores it, on any instruction set and number of threads.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Compress {
    #[command(flatten)]
    job: Work,
    /// Parts of the file that advance together: fewer lose less at their beginnings, more are faster [default: one for each 16 KiB, 64 at most].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    lanes: Option<u8>,
}

/// What both directions take.
#[derive(Debug, clap::Args)]
pub(super) struct Work {
    /// The file; `-` for standard input.
    file: PathBuf,
    /// Where the result goes [default: beside the file, with `.lowbit` added or taken away].
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A byte-level language model [default: the one inside this program].
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    recipe: ModelRecipe,
    /// Replace the result if it is there already.
    #[arg(short, long)]
    force: bool,
}

impl Compress {
    /// Runs the command.
    pub fn run(self, machine: &Machine) -> Result<(), Failure> {
        let job = &self.job;
        let out = job.out(|file| {
            let mut name = file.as_os_str().to_owned();
            name.push(format!(".{ENDING}"));
            Some(name)
        })?;
        let (content, cpu, checkpoint) = job.open(machine)?;
        let compressor = Compressor::new(&checkpoint, &cpu)?;
        let mut compressor = match self.lanes {
            Some(lanes) => compressor.lanes(lanes.into()),
            None => compressor,
        };
        let (start, mut progress) = (Instant::now(), Count::new(&machine.terminal, "bytes"));
        let compressed = compressor.compress(&content, &mut watch(&cpu, &mut progress))?;
        progress.end();
        let seconds = start.elapsed().as_secs_f64();
        replace(&out, &compressed.bytes)?;
        if machine.json {
            let record = compressed.record(job.name(), &checkpoint, seconds)?;
            return machine.terminal.records(host::facts(&cpu), vec![record]);
        }
        let (from, to) = (content.len(), compressed.bytes.len());
        let rate = bytes((from as f64 / seconds.max(1e-9)) as u64);
        let share = |bits: f64| bits / from.max(1) as f64;
        let given = match compressed.is_stored {
            true => "stored: this model makes them longer".into(),
            false => format!("{:.4} by the model's probabilities", share(compressed.bits)),
        };
        machine.terminal.line(format!(
            "{}: {to} bytes of {from}, {:.4} bits per byte ({given}), ratio {:.3}; {}, {rate}/s",
            out.display(),
            share(8.0 * to as f64),
            from as f64 / to as f64,
            duration(seconds)
        ));
        Ok(())
    }
}

impl Work {
    /// Where the result goes, by default under a name that is made from that of the file.
    pub(super) fn out(&self, name: impl Fn(&Path) -> Option<OsString>) -> Result<PathBuf, Failure> {
        let made = || name(&self.file).filter(|_| self.file != Path::new("-")).map(PathBuf::from);
        let out = self.out.clone().or_else(made);
        let Some(out) = out else {
            return Err(Failure::usage(format!(
                "where does the result of {} go? Name it with --out",
                self.file.display()
            )));
        };
        match out.exists() && !self.force {
            true => Err(Failure::usage(format!("{} is there already: replace it with --force", out.display()))),
            false => Ok(out),
        }
    }

    /// The content of the file, and the model.
    pub(super) fn open(&self, machine: &Machine) -> Result<(Vec<u8>, Cpu, Checkpoint), Failure> {
        let (recipe, cpu) = (self.recipe.get()?, machine.cpu()?);
        let content = match self.file == Path::new("-") {
            true => machine.terminal.read_all()?,
            false => std::fs::read(&self.file).map_err(|e| Error::io(&self.file, &e))?,
        };
        let checkpoint = match &self.model {
            Some(path) => model::open_verified(machine, path, recipe, &cpu)?,
            None => shipped::open()?.on(&cpu).under(recipe),
        };
        machine.signals.defer();
        Ok((content, cpu, checkpoint))
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The model's name.
    pub(super) fn name(&self) -> String {
        self.model.as_deref().map_or(shipped::NAME.into(), model::name_of)
    }
}

/// Shows how far work is, and ends it when a signal asks for that.
pub(super) fn watch<'a>(cpu: &'a Cpu, progress: &'a mut Count) -> impl FnMut(u64) -> Result<(), Error> + 'a {
    |done| {
        progress.at(done);
        cpu.stop.check()
    }
}
