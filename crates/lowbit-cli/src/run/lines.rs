//! Lines a person types, with editing and history, or lines of a pipe.

use crate::failure::{Code, Failure};
use crate::terminal::Terminal;
use rustyline::error::ReadlineError;
use rustyline::{
    Cmd, ConditionalEventHandler, Config, DefaultEditor, Event, EventContext, EventHandler, KeyEvent, Movement,
    RepeatCount,
};
use std::path::PathBuf;

/// Lines that the history keeps.
const HISTORY: usize = 1000;

/// A line, or what came in its place.
pub enum Line {
    /// A line, without its end; a paste may hold several.
    Text(String),
    /// Ctrl-D, Ctrl-C with nothing typed, or the end of the pipe.
    End,
}

/// Where lines come from.
pub enum Lines {
    /// A person who types.
    Typed(Box<Editor>),
    /// A pipe or a file.
    Pipe(Terminal),
}

/// Line editing and history.
pub struct Editor {
    editor: DefaultEditor,
    history: Option<PathBuf>,
}

/// Ctrl-C drops what was typed; with nothing typed it leaves.
struct Drop;

impl ConditionalEventHandler for Drop {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let empty = context.line().is_empty();
        Some(if empty { Cmd::Interrupt } else { Cmd::Kill(Movement::WholeBuffer) })
    }
}

impl Lines {
    /// Lines of what a terminal reads, with editing where a person types.
    ///
    /// # Errors
    /// When the terminal cannot be set up.
    pub fn open(terminal: &Terminal) -> Result<Self, Failure> {
        if !terminal.is_typed() {
            return Ok(Lines::Pipe(terminal.clone()));
        }
        let config =
            Config::builder().max_history_size(HISTORY).map(|b| b.history_ignore_space(true).bracketed_paste(true));
        let mut editor = config.and_then(|b| DefaultEditor::with_config(b.build())).map_err(failed)?;
        editor.bind_sequence(KeyEvent::ctrl('c'), EventHandler::Conditional(Box::new(Drop)));
        let history = history_file();
        if let Some(path) = &history {
            // There is none yet on the first day.
            let _ = editor.load_history(path);
        }
        Ok(Lines::Typed(Box::new(Editor { editor, history })))
    }

    /// The next line.
    ///
    /// # Errors
    /// When reading fails.
    pub fn next(&mut self, prompt: &str) -> Result<Line, Failure> {
        let editor = match self {
            Lines::Typed(editor) => editor,
            Lines::Pipe(terminal) => return piped(terminal),
        };
        match editor.editor.readline(prompt) {
            Ok(text) => {
                let _ = editor.editor.add_history_entry(text.as_str());
                if let Some(path) = &editor.history {
                    let _ = editor.editor.append_history(path);
                }
                Ok(Line::Text(text))
            }
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(Line::End),
            Err(e) => Err(failed(e)),
        }
    }
}

fn piped(terminal: &Terminal) -> Result<Line, Failure> {
    let bytes = terminal.read_line()?;
    if bytes.is_empty() {
        return Ok(Line::End);
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Line::Text(text.trim_end_matches(['\n', '\r']).to_string()))
}

fn failed(e: ReadlineError) -> Failure {
    Failure { code: Code::Io, message: format!("terminal: {e}") }
}

/// The history file in the user's directory for state, which is made if need be.
fn history_file() -> Option<PathBuf> {
    let state = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")));
    let directory = state.or_else(|| directory("LOCALAPPDATA"))?.join("lowbit");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history"))
}

/// A directory that an environment variable names.
pub fn directory(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}
