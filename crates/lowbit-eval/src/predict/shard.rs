//! Rows shared out among runs, and the files of these runs put together.

use super::Output;
use crate::Error;
use lowbit_base::file::{self, Replacement};
use lowbit_model::arch::OutputKind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Rows that follow one another and belong to the same shard; of those that a language model answers, which take long each.
const BLOCK: u64 = 1024;
const WRITTEN: u64 = 16;
/// Shards at most.
const MOST: u32 = 100_000;
/// Largest mark, bytes.
const MAX_MARK: u64 = 1 << 16;
/// Bytes that are copied at once, about.
const PIECE: usize = 1 << 20;

/// One of several runs that share the rows of a table: blocks of rows, dealt out in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which one, from 1.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl FromStr for Shard {
    type Err = String;

    /// `INDEX/COUNT`, as `2/8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if (1..=of).contains(&index) && of <= MOST => Ok(Shard { index, of }),
            _ => Err(format!("not INDEX/COUNT with an index from 1 to the count, at most {MOST}, such as 2/8")),
        }
    }
}

/// Rows that follow one another and belong to the same shard, of a model with such answers.
pub(super) fn block(output: OutputKind) -> u64 {
    if output == OutputKind::Tokens { WRITTEN } else { BLOCK }
}

/// The block of marks that tell none.
fn of_old() -> u64 {
    BLOCK
}

impl Shard {
    /// Whether a row of the table, counted from 0, belongs to it.
    pub fn has(self, row: u64, block: u64) -> bool {
        row / block % u64::from(self.of) == u64::from(self.index - 1)
    }

    /// Rows of a table of so many that belong to it.
    fn rows(self, all: u64, block: u64) -> u64 {
        let (blocks, of, index) = (all / block, u64::from(self.of), u64::from(self.index - 1));
        let whole = (blocks + of - 1 - index) / of * block;
        if blocks % of == index { whole + all % block } else { whole }
    }

    /// The file with its answers, of a run whose answers go to `out`.
    pub fn file(self, out: &Path) -> PathBuf {
        out.with_added_extension(format!("{}-of-{}", self.index, self.of))
    }
}

/// The mark of a shard that is complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    /// The shard.
    pub shard: Shard,
    /// What its answers depend on beside the shard, as a hash.
    pub stamp: String,
    /// Layout of the file.
    pub output: Output,
    /// Rows of the whole table.
    pub seen: u64,
    /// Rows of the shard.
    pub rows: u64,
    /// Rows that follow one another in it.
    #[serde(default = "of_old")]
    pub block: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Mark {
    /// Where the mark of a file lies.
    pub fn path(file: &Path) -> PathBuf {
        file.with_added_extension("done")
    }

    /// The mark of a file, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(file: &Path) -> Result<Option<Mark>, Error> {
        let path = Mark::path(file);
        match path.symlink_metadata() {
            Err(_) => Ok(None),
            Ok(_) => {
                let bytes = file::read(&path, MAX_MARK)?;
                let mark = serde_json::from_slice(&bytes);
                mark.map(Some)
                    .map_err(|e| Error::input(&path, format!("is no mark of a shard: {e}; run the shard again")))
            }
        }
    }

    /// Writes the mark of a file.
    pub fn write(&self, file: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::data(e.to_string()))?;
        file::replace(&Mark::path(file), &bytes)
    }
}

/// What was put together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Merged {
    /// Shards.
    pub shards: u32,
    /// Rows.
    pub rows: u64,
    /// Where they are.
    pub path: PathBuf,
}

/// Puts the files of all shards together, in the order of the rows: the bytes that one run had written. `out` is the name given to
/// each of the runs.
///
/// # Errors
/// When a shard is absent, not complete or of another table or model, when its file was changed, or nothing can be written.
pub fn merge(out: &Path) -> Result<Merged, Error> {
    let marks = marks(out)?;
    let mut parts: Vec<Part> =
        marks.iter().map(|mark| Part::open(mark.shard.file(out), mark)).collect::<Result<_, _>>()?;
    let mut target = Replacement::create(out)?;
    let (seen, of, block_rows) = (marks[0].seen, u64::from(marks[0].shard.of), marks[0].block);
    let mut write = |bytes: &[u8]| target.write_all(bytes).map_err(|e| Error::io(out, &e));
    if marks[0].output == Output::Csv {
        let headers: Vec<Option<Vec<u8>>> = parts.iter_mut().map(Part::record).collect::<Result<_, _>>()?;
        headers.into_iter().flatten().next().map_or(Ok(()), |header| write(&header))?;
    }
    for block in 0..seen.div_ceil(block_rows) {
        let part = &mut parts[(block % of) as usize];
        for _ in block * block_rows..((block + 1) * block_rows).min(seen) {
            let Some(record) = part.record()? else {
                return Err(Error::input(&part.path, "has fewer rows than its mark tells; run the shard again"));
            };
            write(&record)?;
        }
    }
    parts.into_iter().try_for_each(Part::check)?;
    target.commit()?;
    Ok(Merged { shards: marks[0].shard.of, rows: seen, path: out.into() })
}

/// The marks of all shards, in their order.
fn marks(out: &Path) -> Result<Vec<Mark>, Error> {
    let (folder, name) = (out.parent().unwrap_or(Path::new("")), out.file_name().unwrap_or_default().to_string_lossy());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let of_name = |entry: String| {
        let (index, of) = entry.strip_prefix(&*name)?.strip_prefix('.')?.split_once("-of-")?;
        format!("{index}/{}", of.strip_suffix(".done").unwrap_or(of)).parse::<Shard>().ok()
    };
    let mut counts: Vec<u32> = names.filter_map(of_name).map(|shard| shard.of).collect();
    counts.sort_unstable();
    counts.dedup();
    let of = match counts[..] {
        [of] => of,
        [] => return Err(Error::usage(format!("{}: no shard of it is here, such as {name}.1-of-2", out.display()))),
        _ => {
            let text = format!("there are shards of {counts:?}: remove those that do not belong to it");
            return Err(Error::usage(format!("{}: {text}", out.display())));
        }
    };
    let mut marks: Vec<Mark> = Vec::new();
    for shard in (1..=of).map(|index| Shard { index, of }) {
        let file = shard.file(out);
        let Some(mark) = Mark::read(&file)? else {
            return Err(Error::input(&file, format!("is not complete: run the shard, `--shard {}/{of}`", shard.index)));
        };
        let first = marks.first().unwrap_or(&mark);
        let same = |mark: &Mark| (mark.stamp.clone(), mark.output, mark.seen, mark.block);
        if mark.shard != shard || same(&mark) != same(first) || mark.block == 0 {
            return Err(Error::input(
                &file,
                "is of another table, model or command than the first shard: run it again",
            ));
        }
        if mark.rows != shard.rows(mark.seen, mark.block) {
            return Err(Error::input(&Mark::path(&file), format!("tells {} rows, which no shard has", mark.rows)));
        }
        marks.push(mark);
    }
    Ok(marks)
}

/// The file of a shard while it is read.
struct Part {
    path: PathBuf,
    sha256: String,
    read: BufReader<Hashed>,
    is_csv: bool,
}

/// A file, and the hash of what was read of it.
struct Hashed(std::fs::File, Sha256);

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.update(&buffer[..read]);
        Ok(read)
    }
}

impl Part {
    fn open(path: PathBuf, mark: &Mark) -> Result<Part, Error> {
        let read = BufReader::with_capacity(PIECE, Hashed(file::open(&path)?, Sha256::new()));
        Ok(Part { path, sha256: mark.sha256.clone(), read, is_csv: mark.output == Output::Csv })
    }

    /// The bytes of the next record, its end included; in CSV a line goes on while a quote is open.
    fn record(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let (mut record, mut from, mut quotes) = (Vec::new(), 0, 0);
        loop {
            self.read.read_until(b'\n', &mut record).map_err(|e| Error::io(&self.path, &e))?;
            quotes += record[from..].iter().filter(|byte| **byte == b'"').count();
            let ends = !self.is_csv || quotes % 2 == 0 || record.len() == from;
            match (ends, record.is_empty()) {
                (true, true) => return Ok(None),
                (true, false) => return Ok(Some(record)),
                (false, _) => from = record.len(),
            }
        }
    }

    /// Sees that nothing follows, and that the file is the one that was written.
    fn check(mut self) -> Result<(), Error> {
        let more = self.record()?.is_some();
        let Hashed(_, hash) = self.read.into_inner();
        match !more && lowbit_base::hex(hash.finalize()) == self.sha256 {
            true => Ok(()),
            false => Err(Error::input(&self.path, "was changed after it was written; run the shard again")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_all_rows_once() {
        for (of, all) in [(1, 0), (1, 5), (3, 1024), (3, 5 * 1024 + 7), (4, 4 * 1024), (5, 17)] {
            let shards: Vec<Shard> = (1..=of).map(|index| Shard { index, of }).collect();
            for block in [BLOCK, WRITTEN] {
                for row in 0..all {
                    assert_eq!(shards.iter().filter(|shard| shard.has(row, block)).count(), 1);
                }
                for shard in &shards {
                    let rows = (0..all).filter(|row| shard.has(*row, block)).count() as u64;
                    assert_eq!(shard.rows(all, block), rows, "{shard:?} of {all}");
                }
            }
        }
        for wrong in ["0/2", "3/2", "1", "1/0", "-1/2", "1/1000000", "a/b"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
