//! Results and remarks; the program sends the ones to stdout, the others to stderr.

use crate::failure::{Code, Failure};
use clap::builder::StyledStr;
use lowbit_base::escaped;
pub use lowbit_base::memory::bytes;
pub use lowbit_base::text::duration;
use lowbit_eval::record::{Record, Results, SCHEMA_VERSION, Tool};
use serde_json::Value;
use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Where one of the two streams goes.
pub struct Sink {
    write: Box<dyn Write + Send>,
    is_terminal: bool,
}

impl Sink {
    /// A stream of this process.
    pub fn new(to: impl Write + IsTerminal + Send + 'static) -> Self {
        Sink { is_terminal: to.is_terminal(), write: Box::new(to) }
    }
}

/// Results or remarks, where they go, and what became of them. Nothing is printed before [`connect`].
struct Stream {
    name: &'static str,
    to: Mutex<Option<Sink>>,
    /// A reader like `head` has seen enough, which is no failure.
    closed: AtomicBool,
    failure: OnceLock<String>,
}

static RESULTS: Stream = Stream::new("standard output");
static REMARKS: Stream = Stream::new("standard error");

impl Stream {
    const fn new(name: &'static str) -> Self {
        Stream { name, to: Mutex::new(None), closed: AtomicBool::new(false), failure: OnceLock::new() }
    }

    fn sink(&self) -> MutexGuard<'_, Option<Sink>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_terminal(&self) -> bool {
        self.sink().as_ref().is_some_and(|sink| sink.is_terminal)
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && self.failure.get().is_none()
    }

    /// Writes, unless that failed before.
    fn write(&self, text: &str) {
        let mut sink = self.sink();
        let Some(Sink { write, .. }) = sink.as_mut().filter(|_| self.is_open()) else { return };
        match write.write_all(text.as_bytes()).and_then(|()| write.flush()) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::BrokenPipe => self.closed.store(true, Ordering::Relaxed),
            Err(e) => drop(self.failure.set(e.to_string())),
        }
    }

    fn check(&self) -> Result<(), Failure> {
        match self.failure.get() {
            None => Ok(()),
            Some(cause) => Err(Failure { code: Code::Io, message: format!("{}: {cause}", self.name) }),
        }
    }
}

/// Says where results and remarks go; before, both are dropped.
pub fn connect(results: Sink, remarks: Sink) {
    *RESULTS.sink() = Some(results);
    *REMARKS.sink() = Some(remarks);
}

/// Prints one line of a result, or several; what a terminal would take for a command is escaped.
pub fn line(text: impl AsRef<str>) {
    RESULTS.write(&format!("{}\n", shown(text.as_ref())));
}

/// Prints a part of a result as it is, at once.
pub fn text(text: &str) {
    RESULTS.write(text);
}

/// Prints lines of data: as they are where a program or a file takes them, else without what a terminal would take for a
/// command.
pub fn data(lines: &str) {
    match RESULTS.is_terminal() {
        true => text(&shown(lines)),
        false => text(lines),
    }
}

/// Whether what is printed is still read: long work may end when it is not.
pub fn is_open() -> bool {
    RESULTS.is_open()
}

/// Sees that all that was printed has arrived; what a reader closed counts as that.
///
/// # Errors
/// Of code io, naming the stream.
pub fn finish() -> Result<(), Failure> {
    RESULTS.check().and_then(|()| REMARKS.check())
}

/// Prints what is going on; what a terminal would take for a command is escaped.
pub fn note(text: impl AsRef<str>) {
    REMARKS.write(&format!("{}\n", shown(text.as_ref())));
}

/// A text of several lines without what a terminal would take for a command.
fn shown(text: &str) -> Cow<'_, str> {
    let plain = |part: &str| matches!(escaped(part), Cow::Borrowed(_));
    match text.split(['\n', '\t']).all(plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.split_inclusive(['\n', '\t']).map(without_end).collect()),
    }
}

/// A part of a text that may end in a line end or a tab.
fn without_end(part: &str) -> String {
    let body = part.trim_end_matches(['\n', '\t']);
    format!("{}{}", escaped(body), &part[body.len()..])
}

/// Prints help or a refusal of the command line, in colours where a terminal takes them and nothing in it is escaped.
pub fn styled(text: &StyledStr, is_result: bool) {
    let plain = text.to_string();
    let terminal = if is_result { RESULTS.is_terminal() } else { REMARKS.is_terminal() };
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let rendered = match colours && shown(&plain) == plain {
        true => text.ansi().to_string(),
        false => shown(&plain).into_owned(),
    };
    match is_result {
        true => RESULTS.write(&rendered),
        false => REMARKS.write(&rendered),
    }
}

/// Prints each of some remarks.
pub fn notes(texts: impl IntoIterator<Item = impl AsRef<str>>) {
    texts.into_iter().for_each(note);
}

/// Whether progress bars have a reader.
pub fn has_terminal() -> bool {
    REMARKS.is_terminal()
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

/// Prints one JSON object: version, program and command line, then the fields of another.
///
/// # Errors
/// When a value cannot be written as JSON.
pub fn json_object(fields: Value) -> Result<(), Failure> {
    let mut object = serde_json::json!({"schema_version": SCHEMA_VERSION, "tool": tool(), "command": command()});
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    json(&object)
}

/// Prints one JSON value.
///
/// # Errors
/// When a value cannot be written as JSON.
pub fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|e| Failure::usage(format!("cannot be written as JSON: {e}")))?;
    // What is still raw stands inside of strings.
    let unsafe_in_strings = |c: char| c != '\n' && !matches!(escaped(c.encode_utf8(&mut [0; 4])), Cow::Borrowed(_));
    let safe = |c: char| if unsafe_in_strings(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    let text = if text.is_ascii() { text } else { text.chars().map(safe).collect() };
    line(text);
    Ok(())
}

/// What is said of a model whose weights have no checksums.
pub fn unverified(path: &Path) -> String {
    format!("{}: unverified: the file holds no checksums", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_fails_is_told_and_one_that_is_closed_is_not() {
        struct Broken(ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let stream = Stream::new("standard output");
        let to = |write: Box<dyn Write + Send>| *stream.sink() = Some(Sink { write, is_terminal: false });
        stream.write("dropped");
        to(Box::<Vec<u8>>::default());
        stream.write("x");
        assert!(stream.is_open() && stream.check().is_ok());
        to(Box::new(Broken(ErrorKind::BrokenPipe)));
        stream.write("x");
        assert!(!stream.is_open() && stream.check().is_ok());
        let stream = Stream::new("standard output");
        *stream.sink() = Some(Sink { write: Box::new(Broken(ErrorKind::StorageFull)), is_terminal: false });
        stream.write("x");
        let failure = stream.check().expect_err("failed");
        assert!(failure.code == Code::Io && failure.message.starts_with("standard output: "), "{failure}");
        assert!(!stream.is_open());
    }

    #[test]
    fn nothing_printed_is_a_command_to_a_terminal() {
        assert_eq!(shown("a\tb\nc\n"), "a\tb\nc\n");
        assert_eq!(shown("a\u{1b}[2J\tb\r\nc\u{9b}\n\n"), "a\\u{1b}[2J\tb\\r\nc\\u{9b}\n\n");
    }
}
