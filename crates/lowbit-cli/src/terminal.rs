//! What a command meets of the world: its command line, what it reads, and where results and remarks go. The program connects it
//! with the streams of the process, a test with buffers.

use crate::failure::{Code, Failure};
use clap::builder::StyledStr;
use lowbit_base::{Error, escaped};
use lowbit_eval::record::{Host, Record, Results, SCHEMA_VERSION, Tool};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, Cursor, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Longest text that is read, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Where one of the two streams goes.
pub struct Sink {
    write: Box<dyn Write + Send>,
    is_terminal: bool,
    /// Characters of a line, where it is a terminal that tells.
    width: fn() -> Option<usize>,
}

impl Sink {
    /// A stream of this process.
    pub fn new(to: impl Write + IsTerminal + Send + 'static) -> Self {
        let width = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Sink { is_terminal: to.is_terminal(), write: Box::new(to), width }
    }

    /// Anything else that takes bytes, which is no terminal.
    pub fn to(write: impl Write + Send + 'static) -> Self {
        Sink { is_terminal: false, write: Box::new(write), width: || None }
    }
}

/// Results or remarks, where they go, and what became of them.
struct Stream {
    name: &'static str,
    to: Mutex<Sink>,
    /// A reader like `head` has seen enough, which is no failure.
    closed: AtomicBool,
    failure: OnceLock<String>,
}

impl Stream {
    fn new(name: &'static str, to: Sink) -> Self {
        Stream { name, to: Mutex::new(to), closed: AtomicBool::new(false), failure: OnceLock::new() }
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_terminal(&self) -> bool {
        self.sink().is_terminal
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && self.failure.get().is_none()
    }

    /// Writes, unless that failed before.
    fn write(&self, text: &str) {
        let mut sink = self.sink();
        if !self.is_open() {
            return;
        }
        match sink.write.write_all(text.as_bytes()).and_then(|()| sink.write.flush()) {
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

/// Where text is read from.
pub struct Input {
    read: Box<dyn BufRead + Send>,
    is_terminal: bool,
}

impl Input {
    /// A stream of this process.
    pub fn new(from: impl Read + IsTerminal + Send + 'static) -> Self {
        Input { is_terminal: from.is_terminal(), read: Box::new(std::io::BufReader::new(from)) }
    }

    /// A text, as from a pipe.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Input { is_terminal: false, read: Box::new(Cursor::new(text.into())) }
    }
}

/// The command line and the three streams; clones share them.
#[derive(Clone)]
pub struct Terminal(Arc<Streams>);

struct Streams {
    arguments: Vec<OsString>,
    input: Mutex<Input>,
    /// Whether a person types.
    is_typed: bool,
    results: Stream,
    remarks: Stream,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Terminal").field(&self.0.arguments).finish()
    }
}

/// Nothing is read, and what is written is dropped.
impl Default for Terminal {
    fn default() -> Self {
        Terminal::new(Vec::new(), Input::text(""), Sink::to(std::io::sink()), Sink::to(std::io::sink()))
    }
}

impl Terminal {
    /// A command line, and what is connected with it.
    pub fn new(arguments: Vec<OsString>, input: Input, results: Sink, remarks: Sink) -> Self {
        let (results, remarks) = (Stream::new("standard output", results), Stream::new("standard error", remarks));
        let is_typed = input.is_terminal;
        Terminal(Arc::new(Streams { arguments, input: Mutex::new(input), is_typed, results, remarks }))
    }

    /// The command line as it was given.
    pub fn arguments(&self) -> &[OsString] {
        &self.0.arguments
    }

    /// Prints one line of a result, or several; what a terminal would take for a command is escaped.
    pub fn line(&self, text: impl AsRef<str>) {
        self.0.results.write(&format!("{}\n", shown(text.as_ref())));
    }

    /// Prints lines of a result.
    pub fn lines(&self, texts: impl IntoIterator<Item = impl AsRef<str>>) {
        texts.into_iter().for_each(|text| self.line(text));
    }

    /// Prints a part of a result as it is, at once.
    pub fn text(&self, text: &str) {
        self.0.results.write(text);
    }

    /// Prints lines of data: as they are where a program or a file takes them, else without what a terminal would take for a
    /// command.
    pub fn data(&self, lines: &str) {
        match self.0.results.is_terminal() {
            true => self.text(&shown(lines)),
            false => self.text(lines),
        }
    }

    /// Characters of a line of the terminal that results go to; none where they go elsewhere.
    pub fn width(&self) -> Option<usize> {
        let sink = self.0.results.sink();
        (sink.width)().filter(|_| sink.is_terminal)
    }

    /// Whether what is printed is still read: long work may end when it is not.
    pub fn is_open(&self) -> bool {
        self.0.results.is_open()
    }

    /// Sees that all that was printed has arrived; what a reader closed counts as that.
    ///
    /// # Errors
    /// Of code io, naming the stream.
    pub fn finish(&self) -> Result<(), Failure> {
        self.0.results.check().and_then(|()| self.0.remarks.check())
    }

    /// Prints what is going on; what a terminal would take for a command is escaped.
    pub fn note(&self, text: impl AsRef<str>) {
        self.0.remarks.write(&format!("{}\n", shown(text.as_ref())));
    }

    /// Prints each of some remarks.
    pub fn notes(&self, texts: impl IntoIterator<Item = impl AsRef<str>>) {
        texts.into_iter().for_each(|text| self.note(text));
    }

    /// Whether progress bars have a reader.
    pub fn shows_bars(&self) -> bool {
        self.0.remarks.is_terminal()
    }

    /// Prints help or a refusal of the command line, in colours where a terminal takes them and nothing in it is escaped.
    pub fn styled(&self, text: &StyledStr, is_result: bool) {
        let plain = text.to_string();
        let stream = if is_result { &self.0.results } else { &self.0.remarks };
        let colours = stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        match colours && shown(&plain) == plain {
            true => stream.write(&text.ansi().to_string()),
            false => stream.write(&shown(&plain)),
        }
    }

    /// The object of `--json` around some records.
    pub fn results(&self, host: Host, records: Vec<Record>) -> Results {
        let (tool, command) = (tool(), self.command());
        Results { schema_version: SCHEMA_VERSION, tool, command, host, records, ..Results::default() }
    }

    /// Prints the object of `--json` around some records.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
    pub fn records(&self, host: Host, records: Vec<Record>) -> Result<(), Failure> {
        self.json(&self.results(host, records))
    }

    /// The command line as records keep it, the program by its name alone.
    pub fn command(&self) -> Vec<String> {
        let rest = self.0.arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned());
        std::iter::once("lowbit".into()).chain(rest).collect()
    }

    /// Prints one JSON object: version, program and command line, then the fields of another.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
    pub fn json_object(&self, fields: Value) -> Result<(), Failure> {
        let mut object = json!({"schema_version": SCHEMA_VERSION, "tool": tool(), "command": self.command()});
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
        }
        self.json(&object)
    }

    /// Prints one JSON value.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
    pub fn json(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value);
        let text = text.map_err(|e| Failure::usage(format!("cannot be written as JSON: {e}")))?;
        // What is still raw stands inside of strings.
        let unsafe_in_strings = |c: char| c != '\n' && !matches!(escaped(c.encode_utf8(&mut [0; 4])), Cow::Borrowed(_));
        let safe = |c: char| if unsafe_in_strings(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
        self.line(if text.is_ascii() { text } else { text.chars().map(safe).collect() });
        Ok(())
    }

    /// Whether a person types what is read.
    pub fn is_typed(&self) -> bool {
        self.0.is_typed
    }

    /// The bytes of the next line with its end; none at the end of the input.
    ///
    /// # Errors
    /// When reading fails.
    pub fn read_line(&self) -> Result<Vec<u8>, Failure> {
        let mut line = Vec::new();
        let mut input = self.0.input.lock().unwrap_or_else(PoisonError::into_inner);
        let read = (&mut input.read).take(MAX_BYTES).read_until(b'\n', &mut line);
        read.map_err(|e| Error::io(Path::new("stdin"), &e))?;
        Ok(line)
    }

    /// All that is left to read.
    ///
    /// # Errors
    /// When reading fails, or there is too much.
    pub fn read_all(&self) -> Result<Vec<u8>, Failure> {
        let (name, mut bytes) = (Path::new("stdin"), Vec::new());
        let mut input = self.0.input.lock().unwrap_or_else(PoisonError::into_inner);
        (&mut input.read).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(name, &e))?;
        match bytes.len() as u64 > MAX_BYTES {
            true => Err(Error::input(name, format!("is longer than {MAX_BYTES} bytes")).into()),
            false => Ok(bytes),
        }
    }
}

/// The version of this program.
pub fn tool() -> Tool {
    Tool { version: env!("CARGO_PKG_VERSION").into(), commit: option_env!("LOWBIT_COMMIT").unwrap_or("unknown").into() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_fails_is_reported_and_one_that_is_closed_is_not() {
        struct Broken(ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let stream = Stream::new("standard output", Sink::to(Vec::new()));
        let to = |write: Box<dyn Write + Send>| *stream.sink() = Sink::to(write);
        stream.write("x");
        assert!(stream.is_open() && stream.check().is_ok());
        to(Box::new(Broken(ErrorKind::BrokenPipe)));
        stream.write("x");
        assert!(!stream.is_open() && stream.check().is_ok());
        let stream = Stream::new("standard output", Sink::to(Broken(ErrorKind::StorageFull)));
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
