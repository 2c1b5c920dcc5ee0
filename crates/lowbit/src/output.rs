//! Results on stdout, everything else on stderr.

use crate::failure::Failure;
use lowbit_eval::record::{Record, Results, SCHEMA_VERSION, Tool};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;

/// Prints one line of a result. A closed stdout ends the program quietly.
pub fn line(text: impl AsRef<str>) {
    if let Err(e) = writeln!(io::stdout().lock(), "{}", text.as_ref()) {
        // A reader like `head` that has seen enough is no failure.
        std::process::exit(if e.kind() == ErrorKind::BrokenPipe { 0 } else { 5 });
    }
}

/// Prints what is going on, unless `quiet`.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Prints each of some remarks.
pub fn notes(texts: impl IntoIterator<Item = impl AsRef<str>>) {
    texts.into_iter().for_each(note);
}

/// Whether progress bars have a reader.
pub fn has_terminal() -> bool {
    io::stderr().is_terminal()
}

/// The version of this program.
pub fn tool() -> Tool {
    Tool { version: env!("CARGO_PKG_VERSION").into(), commit: option_env!("LOWBIT_COMMIT").unwrap_or("unknown").into() }
}

/// The object of `--json` around some records.
pub fn results(host: lowbit_eval::record::Host, records: Vec<Record>) -> Results {
    let (tasks, files) = (Vec::new(), Vec::new());
    Results { schema_version: SCHEMA_VERSION, tool: tool(), command: command(), host, tasks, records, files }
}

/// The command line, the program by its name alone.
pub fn command() -> Vec<String> {
    let mut args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if let Some(program) = args.first_mut() {
        *program = "lowbit".into();
    }
    args
}

/// Prints one JSON object.
///
/// # Errors
/// When a value cannot be written as JSON.
pub fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Failure::usage(format!("cannot be written as JSON: {e}")))?;
    line(text);
    Ok(())
}

/// Writes a file under a temporary name, then renames it.
///
/// # Errors
/// When writing fails; an earlier file is then as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let write = || {
        let mut file = std::fs::File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(temporary, path)
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(temporary);
        Failure::io(path, &e)
    })
}

/// A word as a shell takes it: in single quotes where it needs them.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Bytes in decimal units, three digits.
pub fn bytes(n: u64) -> String {
    let (value, unit) = match n {
        0..1_000 => return format!("{n} B"),
        1_000..1_000_000 => (n as f64 / 1e3, "kB"),
        1_000_000..1_000_000_000 => (n as f64 / 1e6, "MB"),
        _ => (n as f64 / 1e9, "GB"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// Seconds as a person would say them.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0),
    }
}

/// One line per measure, for a person.
pub fn record(record: &Record) {
    for (name, m) in &record.measures {
        let value = match m.unit.as_str() {
            "fraction" => format!("{:.2} %", m.value * 100.0),
            "bytes" => bytes(m.value as u64),
            "seconds" => duration(m.value),
            "per_second" => format!("{:.1} /s", m.value),
            unit => format!("{:.4} {unit}", m.value),
        };
        let range = match (m.lo, m.hi, m.unit.as_str()) {
            (Some(lo), Some(hi), "fraction") => format!(" ({:.2} .. {:.2} %)", lo * 100.0, hi * 100.0),
            _ => String::new(),
        };
        line(format!("{name:24} {value}{range}"));
    }
}
