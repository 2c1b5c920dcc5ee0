//! Files of a report against what their records give, and files of the comparison against their hashes.

use super::checks::{CheckResult, EMBEDDED, Outcome};
use super::html;
use super::number::range;
use crate::record::{FileHash, Measure, Results};
use crate::{Error, facts};
use std::fs;
use std::io;
use std::path::{Component, Path};

/// Sizes and hashes of files, given by paths relative to `dir`; a directory stands for the regular files in it, whose
/// subdirectories are left out. Sorted by path.
///
/// # Errors
/// When a path is missing or cannot be read.
pub fn hashes(dir: &Path, paths: &[String]) -> Result<Vec<FileHash>, Error> {
    let mut out = Vec::new();
    for path in paths {
        let full = dir.join(path);
        if !full.is_dir() {
            out.push(hash(dir, path)?);
            continue;
        }
        for entry in fs::read_dir(&full).map_err(|e| Error::io(&full, &e))?.flatten() {
            let Some(name) = entry.file_name().to_str().map(|name| format!("{path}/{name}")) else { continue };
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                out.push(hash(dir, &name)?);
            }
        }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}

fn hash(dir: &Path, path: &str) -> Result<FileHash, Error> {
    let full = dir.join(path);
    let bytes = fs::metadata(&full).map_err(|e| Error::io(&full, &e))?.len();
    Ok(FileHash { path: path.into(), bytes, sha256: facts::sha256(&full)? })
}

/// Every file that the records name is there with the same content, and the weights are those of the records.
pub(super) fn beside(dir: &Path, results: &Results) -> CheckResult {
    let name = "weights, records and suite are those of the comparison";
    if results.files.is_empty() {
        let line =
            "results.json names no files: it was rendered elsewhere, or by an earlier lowbit; weights are not covered";
        return CheckResult { id: EMBEDDED, name, outcome: Outcome::Notice(vec![line.into()]) };
    }
    let mut wrong: Vec<String> = results.files.iter().filter_map(|file| changed(dir, file)).collect();
    for record in &results.records {
        let known = |sha: &String| results.files.iter().any(|f| f.sha256 == *sha);
        if let Some(sha) = record.detail.model_sha256.as_ref().filter(|sha| !known(sha)) {
            let start = sha.get(..12).unwrap_or(sha);
            wrong.push(format!("{}: no file has the SHA-256 of its weights, {start}..", record.model));
        }
    }
    CheckResult { id: EMBEDDED, name, outcome: if wrong.is_empty() { Outcome::Pass } else { Outcome::Fail(wrong) } }
}

/// How a file differs from what was stored of it.
fn changed(dir: &Path, stored: &FileHash) -> Option<String> {
    let path = &stored.path;
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || path.chars().any(char::is_control) {
        return Some(format!("\"{}\" is no path inside the directory", path.escape_default()));
    }
    let full = dir.join(path);
    match fs::symlink_metadata(&full) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Some(format!("{path} is missing")),
        Err(e) => return Some(format!("{path}: {e}")),
        Ok(meta) if !meta.is_file() => return Some(format!("{path} is no regular file")),
        Ok(meta) if meta.len() != stored.bytes => {
            return Some(format!("{path} has {} bytes, the comparison left {}", meta.len(), stored.bytes));
        }
        Ok(_) => {}
    }
    match hash(dir, path) {
        Err(e) => Some(e.to_string()),
        Ok(found) => (found != *stored).then(|| format!("{path} differs from what the comparison left")),
    }
}

/// The records embedded in `report.html` against `results.json`.
pub(super) fn embedded(dir: &Path, results: &Results) -> CheckResult {
    let name = "report.html holds the records of results.json";
    let outcome = match read(dir, "report.html", super::MAX_BYTES) {
        Err(line) => fail(line),
        Ok(page) => match html::records(&page).map(serde_json::from_str::<Results>) {
            None => fail("report.html holds no records".into()),
            Some(Err(e)) => fail(format!("report.html: its records cannot be read: {e}")),
            Some(Ok(found)) if found == *results => Outcome::Pass,
            Some(Ok(found)) => fail(format!("report.html: {}", difference(&found, results))),
        },
    };
    CheckResult { id: EMBEDDED, name, outcome }
}

/// Bytes by which a file may be larger than twice what the records give; beyond that it is not theirs.
const MARGIN: u64 = 1 << 20;

/// The text of a file of the report, or a line that tells why there is none.
fn read(dir: &Path, name: &str, most: u64) -> Result<String, String> {
    lowbit_base::file::read_text(&dir.join(name), most).map_err(|e| format!("{name}: {}", e.message))
}

fn fail(line: String) -> Outcome {
    Outcome::Fail(vec![line])
}

/// The first place where two sets of records differ.
fn difference(found: &Results, expected: &Results) -> String {
    if found.records.len() != expected.records.len() {
        return format!("{} records embedded, {} in results.json", found.records.len(), expected.records.len());
    }
    for (a, b) in found.records.iter().zip(&expected.records) {
        if a.model != b.model {
            return format!("embedded record of {}, results.json has {}", a.model, b.model);
        }
        for (name, m) in &b.measures {
            let theirs = a.measures.get(name);
            if theirs != Some(m) {
                let text = |m: &Measure| format!("{} (range {}, n = {})", m.value, range(m), m.n);
                let theirs = theirs.map_or("absent".into(), text);
                return format!("{}: {name} is embedded as {theirs}, results.json has {}", b.model, text(m));
            }
        }
        if a != b {
            return format!("the embedded record of {} differs from results.json", b.model);
        }
    }
    "the embedded machine, program or task differs from results.json".into()
}

/// One rendered file against its records, byte by byte.
pub(super) fn file(dir: &Path, file: &'static str, expected: &str, results: &Results) -> CheckResult {
    let name = match file {
        "report.html" => "report.html is what the records give",
        "report.md" => "report.md is what the records give",
        _ => "results.csv is what the records give",
    };
    let outcome = match read(dir, file, 2 * expected.len() as u64 + MARGIN) {
        Err(line) => fail(line),
        Ok(found) if found == expected => Outcome::Pass,
        Ok(found) => fail(format!("{file}:{}{}", first_difference(&found, expected), other_version(results))),
    };
    CheckResult { id: EMBEDDED, name, outcome }
}

/// Line number and the differing words of the first line that differs.
fn first_difference(found: &str, expected: &str) -> String {
    let (mut a, mut b) = (found.lines(), expected.lines());
    let mut line = 0usize;
    loop {
        line += 1;
        match (a.next(), b.next()) {
            (Some(x), Some(y)) if x == y => continue,
            (None, None) => return format!("{line}: the line ends differ"),
            (x, y) => {
                let (x, y) = (x.unwrap_or("nothing"), y.unwrap_or("nothing"));
                let (x, y) = excerpt(x, y);
                return format!("{line}: found \"{x}\", the records give \"{y}\"");
            }
        }
    }
}

/// The part in which two lines differ, widened to whole words and a little context.
fn excerpt(x: &str, y: &str) -> (String, String) {
    let (x, y): (Vec<char>, Vec<char>) = (x.chars().collect(), y.chars().collect());
    let same = |(a, b): &(&char, &char)| a == b;
    let mut start = x.iter().zip(&y).take_while(same).count();
    let most = x.len().min(y.len()) - start;
    let end = x.iter().rev().zip(y.iter().rev()).take_while(same).count().min(most);
    let word = |c: &char| !c.is_whitespace() && !"<>|\"".contains(*c);
    while start > 0 && word(&x[start - 1]) {
        start -= 1;
    }
    let cut = |line: &[char]| {
        let mut stop = line.len() - end;
        while stop < line.len() && word(&line[stop]) {
            stop += 1;
        }
        line[start.min(stop)..stop.min(start + 80)].iter().collect::<String>()
    };
    (cut(&x), cut(&y))
}

fn other_version(results: &Results) -> String {
    let (theirs, mine) = (results.tool.version.as_str(), env!("CARGO_PKG_VERSION"));
    if theirs == mine {
        return String::new();
    }
    format!("; written by lowbit {theirs} and verified by {mine}: render it again from results.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_number_is_named() {
        let expected = "a\n<td>96.12 %<small>95.1 to 97.0</small></td>\nb";
        let found = expected.replace("96.12", "96.92");
        assert_eq!(first_difference(&found, expected), "2: found \"96.92\", the records give \"96.12\"");
        assert_eq!(first_difference("a\n", "a\nb"), "2: found \"nothing\", the records give \"b\"");
        assert_eq!(first_difference("a", "a\n"), "2: the line ends differ");
    }
}
