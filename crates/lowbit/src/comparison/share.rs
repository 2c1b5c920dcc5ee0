//! A comparison shared out among runs: its units of work, dealt out in turn, and the parts of several directories put together.

use crate::suite::{Suite, Variant};
use lowbit_base::Error;
use lowbit_base::file::{self, Lock};
use lowbit_eval::predict::Shard;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of the locks of shards.
const SHARDS: &str = "shards";

/// Which units of work a run does: variants that depend on one another, and studies, in the order of the comparison.
#[derive(Clone, Debug, Default)]
pub struct Share {
    shard: Option<Shard>,
    next: Cell<u64>,
}

impl Share {
    /// Those of a shard; all of them where there is none.
    pub fn new(shard: Option<Shard>) -> Self {
        Share { shard, next: Cell::new(0) }
    }

    /// The shard, where not all units are this run's.
    pub fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// Whether the next unit is this run's.
    pub(super) fn takes(&self) -> bool {
        let unit = self.next.replace(self.next.get() + 1);
        self.shard.is_none_or(|shard| shard.has(unit, 1))
    }

    /// Which of some variants are this run's; those of one unit begin from one another.
    pub(super) fn of(&self, units: &[usize]) -> Vec<bool> {
        let most = units.iter().max().map_or(0, |most| most + 1);
        let taken: Vec<bool> = (0..most).map(|_| self.takes()).collect();
        units.iter().map(|unit| taken[*unit]).collect()
    }

    /// Keeps other runs of the same work out of a comparison: `folder` where this run does all of it.
    pub(super) fn lock(&self, out: &Path, folder: &str) -> Result<Lock, Error> {
        let folder = match self.shard {
            None => out.join(folder),
            Some(shard) => out.join(SHARDS).join(format!("{}-of-{}", shard.index, shard.of)),
        };
        file::make(&folder)?;
        Lock::acquire(&folder)
    }
}

/// The unit of each variant, numbered in the order of the first variant of each.
pub(super) fn units<'a>(variants: impl Iterator<Item = (&'a str, Vec<&'a str>)>) -> Vec<usize> {
    let mut names: Vec<&str> = Vec::new();
    let mut unit: Vec<usize> = Vec::new();
    for (name, needs) in variants {
        let needed: Vec<usize> = needs.iter().filter_map(|need| names.iter().position(|n| n == need)).collect();
        let own = needed.iter().map(|at| unit[*at]).min().unwrap_or(names.len());
        let joined: Vec<usize> = needed.iter().map(|at| unit[*at]).collect();
        unit.iter_mut().filter(|u| joined.contains(u)).for_each(|u| *u = own);
        names.push(name);
        unit.push(own);
    }
    let mut order: Vec<usize> = Vec::new();
    unit.iter()
        .map(|u| {
            order.iter().position(|known| known == u).unwrap_or_else(|| {
                order.push(*u);
                order.len() - 1
            })
        })
        .collect()
}

/// What a variant begins from.
pub(super) fn needs<'a>(suite: &'a Suite, variant: &'a Variant) -> Vec<&'a str> {
    let named = [&variant.from, &variant.init, &variant.teacher].into_iter().flatten();
    named.map(String::as_str).filter(|name| suite.variant.iter().any(|other| other.name == *name)).collect()
}

/// What was put together of several directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Finished variants.
    pub variants: usize,
    /// Measured studies.
    pub studies: usize,
}

/// Puts what shards finished in directories of their own into one; what is in several must be the same record.
///
/// # Errors
/// When a directory holds no comparison or that of another suite, or a variant was made twice with different results.
pub fn merge(from: &[PathBuf], out: &Path) -> Result<Parts, Error> {
    let mut parts = Parts::default();
    for directory in from {
        let before = parts.clone();
        put(directory, out, &mut parts)?;
        if parts == before {
            return Err(Error::input(directory, "holds no finished variant of a comparison: run its shard first"));
        }
    }
    Ok(parts)
}

fn put(from: &Path, out: &Path, parts: &mut Parts) -> Result<(), Error> {
    let text = |dir: &Path| file::read_text(&dir.join(super::SUITE), file::DESCRIPTION).ok();
    if let Some(suite) = text(from) {
        if text(out).is_some_and(|other| other != suite) {
            return Err(Error::input(from, format!("holds the comparison of another suite than {}", out.display())));
        }
        file::make(out)?;
        file::replace(&out.join(super::SUITE), suite.as_bytes())?;
    }
    for (name, path) in entries(from)? {
        match (name.as_str(), path.is_dir()) {
            ("variants", true) => {
                for (name, variant) in entries(&path)? {
                    if variant.join(super::KEPT).is_file() {
                        once(&variant, &out.join("variants").join(name), Some(super::KEPT))?;
                        parts.variants += 1;
                    }
                }
            }
            (super::group::BENCH, true) => {
                for (name, study) in entries(&path)?.into_iter().filter(|(name, _)| name.ends_with(".json")) {
                    once(&study, &out.join(super::group::BENCH).join(name), None)?;
                    parts.studies += 1;
                }
            }
            // The comparisons of a group lie in directories of their own.
            (_, true) if path.join(super::SUITE).is_file() || path.join(super::group::BENCH).is_dir() => {
                put(&path, &out.join(name), parts)?;
            }
            (crate::start::TASK, false) => once(&path, &out.join(name), None)?,
            _ => {}
        }
    }
    Ok(())
}

/// Copies a file or a directory to where it is not yet; what is there must have the same file, or be the same.
fn once(from: &Path, to: &Path, record: Option<&str>) -> Result<(), Error> {
    let of = |path: &Path| record.map_or_else(|| path.to_path_buf(), |record| path.join(record));
    if !of(to).exists() {
        return copy(from, to);
    }
    let read = |path: &Path| file::read(&of(path), super::MAX_KEPT);
    match read(from)? == read(to)? {
        true => Ok(()),
        false => Err(Error::input(from, format!("differs from {}: remove one of them", to.display()))),
    }
}

/// Copies a file, or a directory with all in it, the record of a variant last.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    if from.is_dir() {
        file::make(to)?;
        let (last, first): (Vec<_>, Vec<_>) = entries(from)?.into_iter().partition(|(name, _)| name == super::KEPT);
        return first.into_iter().chain(last).try_for_each(|(name, path)| copy(&path, &to.join(name)));
    }
    if let Some(folder) = to.parent() {
        file::make(folder)?;
    }
    fs::copy(from, to).map(drop).map_err(|e| Error::io(to, &e))
}

/// What is in a folder, by name; no locks.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |e: std::io::Error| Error::io(folder, &e);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Keeps other runs from making the same variant or study in a directory, which is made.
pub(super) fn lock(home: &Path, name: &str) -> Result<Lock, Error> {
    file::make(home)?;
    Lock::acquire(home).map_err(|error| Error { message: format!("{name} is {}", error.message), ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_that_need_one_another_are_one_unit_and_every_unit_is_dealt_once() {
        let variants = [
            ("f32", vec![]),
            ("int8", vec!["f32"]),
            ("ternary", vec![]),
            ("other", vec![]),
            ("taught", vec!["ternary", "other"]),
            ("late", vec!["f32"]),
            ("alone", vec![]),
        ];
        let units = units(variants.iter().map(|(name, needs)| (*name, needs.clone())));
        assert_eq!(units, [0, 0, 1, 1, 1, 0, 2]);
        for of in 1..5 {
            let shares: Vec<Vec<bool>> =
                (1..=of).map(|index| Share::new(Some(Shard { index, of })).of(&units)).collect();
            for variant in 0..units.len() {
                assert_eq!(shares.iter().filter(|share| share[variant]).count(), 1);
            }
        }
        assert_eq!(Share::default().of(&units), [true; 7]);
    }

    #[test]
    fn parts_of_directories_are_put_together() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        for shard in ["a", "b"] {
            write(&format!("{shard}/mnist/suite.toml"), "name = \"mnist\"");
        }
        write("a/mnist/variants/f32/record.json", "1");
        write("a/mnist/variants/f32/model/config.json", "{}");
        write("a/mnist/variants/half/training/x", "unfinished");
        write("b/mnist/variants/ternary/record.json", "2");
        write("b/bench/mlp.json", "3");
        let out = at("out");
        let parts = merge(&[at("a"), at("b")], &out).unwrap();
        assert_eq!(parts, Parts { variants: 2, studies: 1 });
        assert!(out.join("mnist/variants/f32/model/config.json").is_file() && out.join("bench/mlp.json").is_file());
        assert!(!out.join("mnist/variants/half").exists());
        merge(&[at("a"), at("b")], &out).expect("the same again changes nothing");
        write("b/mnist/variants/f32/record.json", "4");
        let refused = merge(&[at("b")], &out).unwrap_err().to_string();
        assert!(refused.contains("differs from"), "{refused}");
        write("b/mnist/suite.toml", "name = \"other\"");
        assert!(merge(&[at("b")], &out).unwrap_err().to_string().contains("another suite"));
        fs::create_dir(at("empty")).unwrap();
        assert!(merge(&[at("empty")], &out).unwrap_err().to_string().contains("no finished variant"));
    }
}
