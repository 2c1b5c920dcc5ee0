//! Answers that are kept while they are made, so that a run that was killed goes on where it was.

use super::shard::{self, Mark, Shard};
use super::{Options, Output, Summary};
use crate::read::Source;
use crate::{Error, facts};
use lowbit_base::Kind;
use lowbit_base::file::{self, Replacement};
use lowbit_kernels::Cpu;
use lowbit_model::Checkpoint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Time between two moments at which what was answered is made durable.
const EVERY: Duration = Duration::from_secs(1);
/// Largest note of how far a run is, bytes.
const MAX_NOTE: u64 = 16 << 20;

/// How far a run is that is not complete.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    stamp: String,
    /// Bytes that are answered.
    bytes: u64,
    summary: Summary,
}

/// The file that answers go to, and where the run begins.
#[derive(Debug)]
pub struct Kept {
    /// Where the answers go when all are there.
    path: PathBuf,
    file: File,
    bytes: u64,
    stamp: String,
    shard: Option<Shard>,
    /// Rows that follow one another in a shard.
    block: u64,
    output: Output,
    last: Instant,
    /// What was answered before.
    pub before: Summary,
}

impl Kept {
    /// Opens what an earlier run of the same command left, or begins; `None` for a shard that is complete. Answers go to `out`, or to the
    /// file of the shard beside it.
    ///
    /// # Errors
    /// When the table is no file, another process answers it, or nothing can be written.
    pub fn open(
        out: &Path,
        (checkpoint, cpu): (&Checkpoint, &Cpu),
        (source, options): (&Source, &Options),
    ) -> Result<Option<Kept>, Error> {
        let stamp = stamp(checkpoint, cpu, source, options)?;
        let path = options.shard.map_or_else(|| out.to_path_buf(), |shard| shard.file(out));
        // Sees that the file can be written before the work begins.
        drop(Replacement::create(&path)?);
        if let (Some(_), Some(mark)) = (options.shard, Mark::read(&path)?)
            && mark.stamp == stamp
            && path.is_file()
        {
            return Ok(None);
        }
        let partial = partial(&path);
        let file = file::append(&partial)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::Io, "another process answers these rows").in_file(&partial));
            }
            // Where the file system has no locks, nobody is kept out.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let length = file.metadata().map_err(|e| Error::io(&partial, &e))?.len();
        let note =
            file::read(&noted(&path), MAX_NOTE).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        let note = note.filter(|note| note.stamp == stamp && note.bytes <= length);
        let (bytes, before) = note.map_or((0, Summary::default()), |note| (note.bytes, note.summary));
        file.set_len(bytes).map_err(|e| Error::io(&partial, &e))?;
        let (shard, output) = (options.shard, options.output);
        let block = shard::block(checkpoint.model_config().config.output());
        Ok(Some(Kept { path, file, bytes, stamp, shard, block, output, last: Instant::now(), before }))
    }

    /// Adds the answers of some rows; `summary` has those of all before, these included.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, lines: &str, summary: &Summary) -> Result<(), Error> {
        let partial = partial(&self.path);
        self.file.write_all(lines.as_bytes()).map_err(|e| Error::io(&partial, &e))?;
        self.bytes += lines.len() as u64;
        if self.last.elapsed() >= EVERY {
            self.note(summary)?;
            self.last = Instant::now();
        }
        Ok(())
    }

    /// Makes durable what is answered, then how far that is.
    fn note(&mut self, summary: &Summary) -> Result<(), Error> {
        let partial = partial(&self.path);
        self.file.sync_data().map_err(|e| Error::io(&partial, &e))?;
        let note = Note { stamp: self.stamp.clone(), bytes: self.bytes, summary: summary.clone() };
        let bytes = serde_json::to_vec(&note).map_err(|e| Error::data(e.to_string()))?;
        file::replace(&noted(&self.path), &bytes)
    }

    /// Gives the file its name, and a shard its mark.
    ///
    /// # Errors
    /// When that fails; the same command then goes on.
    pub fn commit(mut self, summary: &Summary) -> Result<PathBuf, Error> {
        self.note(summary)?;
        let partial = partial(&self.path);
        let mark = match self.shard {
            None => None,
            Some(shard) => Some(Mark {
                shard,
                stamp: self.stamp.clone(),
                output: self.output,
                seen: summary.seen,
                rows: summary.rows,
                block: self.block,
                sha256: facts::sha256(&partial)?,
            }),
        };
        fs::rename(&partial, &self.path).map_err(|e| Error::io(&self.path, &e))?;
        mark.map_or(Ok(()), |mark| mark.write(&self.path))?;
        let note = noted(&self.path);
        fs::remove_file(&note).map_err(|e| Error::io(&note, &e))?;
        Ok(self.path)
    }

    /// Removes what is there, for rows that are wrong and will be others when they are right; a run that was stopped, or whose disk
    /// was full, leaves it.
    pub fn give_up(self, because: &Error) {
        if !matches!(because.kind, Kind::Interrupted | Kind::Io | Kind::Memory) {
            let _ = fs::remove_file(noted(&self.path));
            let _ = fs::remove_file(partial(&self.path));
        }
    }
}

/// The file that answers go to until all are there.
fn partial(path: &Path) -> PathBuf {
    path.with_added_extension("partial")
}

/// Where it stands how far the run is.
fn noted(path: &Path) -> PathBuf {
    path.with_added_extension("partial.json")
}

/// A hash of what answers depend on: files by path, size and time, the recipe, the instruction set and the options, but not the shard.
fn stamp(checkpoint: &Checkpoint, cpu: &Cpu, source: &Source, options: &Options) -> Result<String, Error> {
    let Some(table) = &source.path else {
        return Err(Error::usage("standard input cannot be read again: give a file to --resume and --shard"));
    };
    let mut hash = Sha256::new();
    for path in checkpoint.files().into_iter().chain([table.as_path()]) {
        let place = fs::canonicalize(path).map_err(|e| Error::io(path, &e))?;
        let about = fs::metadata(&place).map_err(|e| Error::io(path, &e))?;
        let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        hash.update(format!("{} {} {}\n", place.display(), about.len(), changed.as_nanos()));
    }
    let options = Options { shard: None, ..options.clone() };
    let (isa, version) = (cpu.isa.name(), env!("CARGO_PKG_VERSION"));
    hash.update(format!("{version} {} {isa} {:?} {options:?}", checkpoint.recipe().name, source.format()?));
    Ok(lowbit_base::hex(hash.finalize()))
}
