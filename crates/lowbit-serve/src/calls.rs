//! Calls of functions, found in the text of an answer as it comes.

mod forms;
mod grammar;
mod python;

pub(crate) use grammar::grammar;

use forms::Read;
use lowbit_model::chat::{CallForm, CallSyntax};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A function that may be called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Function {
    /// Its name.
    pub name: String,
    /// What it takes, a JSON schema of an object.
    pub parameters: Value,
    /// Whether its arguments must follow what the schema says to the letter.
    pub strict: bool,
}

/// How calls are found in answers.
#[derive(Debug)]
pub(crate) struct Calls {
    /// Functions that there are.
    functions: Vec<Function>,
    /// How a call is written between its marks.
    form: CallForm,
    /// What begins a call, without white space around it: the first of a turn, any other, and its last line, for models that leave the rest out.
    /// Empty texts where nothing does.
    begins: [String; 3],
    /// What ends a call, and all calls of a turn.
    end: String,
    close: String,
    /// Whether only the first call counts.
    single: bool,
}

/// A function that is called, and its arguments.
pub(crate) type Called = (String, Map<String, Value>);

/// What an answer holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// Text.
    Text(String),
    /// A call: the function and its arguments, a JSON object.
    Call(String, Map<String, Value>),
}

/// Finds the calls of an answer.
pub(crate) struct CallParser {
    calls: Arc<Calls>,
    /// Text that is neither text nor a call yet.
    held: String,
    /// The mark that began what is held.
    mark: String,
    state: State,
    /// Calls so far.
    found: usize,
    /// Whether what was held may have become a call.
    closes: bool,
    /// Whether nothing but white space came behind the last call.
    is_behind: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before a call.
    Outside,
    /// Behind the mark that begins one.
    Inside,
    /// No call comes any more.
    Text,
}

/// Control tokens whose names stand in what is around calls, and these names.
pub(crate) fn shown(syntax: &CallSyntax, controls: &BTreeMap<u32, String>) -> Vec<(u32, String)> {
    let middle = match &syntax.form {
        CallForm::Named(middle) => middle.as_str(),
        CallForm::Object(_) | CallForm::Marked(_) | CallForm::Python => "",
    };
    let all = [&syntax.open, &syntax.begin, middle, &syntax.end, &syntax.close];
    let mut shown: Vec<u32> =
        all.iter().flat_map(|text| grammar::pieces(text, controls)).filter_map(Result::err).collect();
    shown.sort_unstable();
    shown.dedup();
    shown.into_iter().filter_map(|id| Some((id, controls.get(&id)?.clone()))).collect()
}

/// Whether a schema takes texts alone.
fn is_text(schema: &Value) -> bool {
    let all_texts = |values: &Value| values.as_array().is_some_and(|values| values.iter().all(Value::is_string));
    schema["type"] == "string" || all_texts(&schema["enum"])
}

impl Calls {
    /// Calls of these functions by a model that writes them so.
    pub fn new(syntax: &CallSyntax, functions: Vec<Function>, single: bool) -> Self {
        let (mut first, mut close) = (format!("{}{}", syntax.open, syntax.begin), syntax.close.as_str());
        let mut other = syntax.begin.as_str();
        if other.is_empty() {
            // The brackets of a list are read with what is in it.
            first.truncate(first.trim_end().trim_end_matches('[').len());
            (other, close) = (&first, close.trim_start().trim_start_matches(']'));
        }
        let last = other.trim().lines().last().unwrap_or_default();
        let [begin, other, last, end, close] =
            [&first, other, last, &syntax.end, close].map(|text| text.trim().to_owned());
        Calls { functions, form: syntax.form.clone(), begins: [begin, other, last], end, close, single }
    }

    /// A function by its name.
    fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// Whether a text may become the name of a function.
    fn begins(&self, name: &str) -> bool {
        self.functions.iter().any(|function| function.name.starts_with(name))
    }

    /// Where the next call begins in a text, and the mark.
    fn next(&self, text: &str) -> Option<(usize, &str)> {
        self.begins.iter().filter_map(|mark| Some((text.find(mark.as_str())?, mark.as_str()))).min_by_key(|(at, _)| *at)
    }
}

impl CallParser {
    /// Before the first piece of text.
    pub fn new(calls: Arc<Calls>) -> Self {
        let (held, mark, state) = (String::new(), String::new(), State::Outside);
        CallParser { calls, held, mark, state, found: 0, closes: false, is_behind: false }
    }

    /// Calls so far.
    pub fn found(&self) -> usize {
        self.found
    }

    /// Takes text; returns what it completes.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        self.closes |= text.contains(['}', ']', ')', '>']);
        let mut out = Vec::new();
        while self.step(false, &mut out) {}
        out
    }

    /// The rest: no text follows.
    pub fn finish(&mut self) -> Vec<Piece> {
        self.closes = true;
        let mut out = Vec::new();
        while self.step(true, &mut out) {}
        out
    }

    /// The pieces of a whole answer.
    pub fn all(calls: Arc<Calls>, text: &str) -> Vec<Piece> {
        let mut parser = CallParser::new(calls);
        let mut pieces = parser.push(text);
        pieces.extend(parser.finish());
        pieces
    }

    /// Takes one thing from what is held; whether another may follow.
    fn step(&mut self, ends: bool, out: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Text => {
                self.release(self.held.len(), out);
                false
            }
            State::Outside if self.calls.begins[0].is_empty() => self.unmarked(ends, out),
            State::Outside => self.marked(ends, out),
            State::Inside => self.inside(ends, out),
        }
    }

    /// Up to the next mark.
    fn marked(&mut self, ends: bool, out: &mut Vec<Piece>) -> bool {
        let calls = self.calls.clone();
        if let Some((at, mark)) = calls.next(&self.held) {
            self.release(self.held[..at].trim_end().len(), out);
            let at = self.held.find(mark).unwrap_or(0);
            self.held.drain(..at + mark.len());
            self.mark = mark.to_owned();
            self.state = State::Inside;
            return true;
        }
        // White space before a mark belongs to it.
        let open = calls.begins.iter().map(|mark| begun(&self.held, mark)).max().unwrap_or(0);
        let text = &self.held[..self.held.len() - open];
        let whole = if ends { self.held.len() } else { text.trim_end().len() };
        self.release(whole, out);
        false
    }

    /// Where no mark begins calls they are all of the answer.
    fn unmarked(&mut self, ends: bool, out: &mut Vec<Piece>) -> bool {
        let found = self.found > 0;
        let text = self.held.trim_start_matches(|c: char| c.is_whitespace() || found && matches!(c, ';' | ','));
        let skipped = self.held.len() - text.len();
        if text.is_empty() && !ends || text.starts_with(['{', '[']) && !self.closes {
            return false;
        }
        let read = if text.starts_with(['{', '[']) { self.calls.read_unmarked(text, ends) } else { Read::Other };
        match read {
            Read::Calls(calls, used) => {
                self.held.drain(..skipped + used);
                self.take(calls, out);
                true
            }
            Read::More if !ends => false,
            _ => {
                self.state = State::Text;
                !self.held.is_empty()
            }
        }
    }

    /// Behind a mark.
    fn inside(&mut self, ends: bool, out: &mut Vec<Piece>) -> bool {
        if !self.closes {
            return false;
        }
        let calls = self.calls.clone();
        match calls.read(&self.held, ends) {
            Read::Calls(read, used) => {
                let Some(behind) = behind(&self.held[used..], [&calls.end, &calls.close], ends) else { return false };
                self.held.drain(..used + behind);
                self.take(read, out);
                self.state = State::Outside;
                true
            }
            Read::More if !ends => false,
            _ => {
                // A mark without a call is text.
                out.push(Piece::Text(std::mem::take(&mut self.mark)));
                self.is_behind = false;
                self.state = State::Outside;
                true
            }
        }
    }

    fn take(&mut self, calls: Vec<Called>, out: &mut Vec<Piece>) {
        for (name, arguments) in calls {
            if self.found == 0 || !self.calls.single {
                self.found += 1;
                self.is_behind = true;
                out.push(Piece::Call(name, arguments));
            }
        }
    }

    /// Lets the first bytes of what is held go as text; white space about calls is none.
    fn release(&mut self, bytes: usize, out: &mut Vec<Piece>) {
        let text: String = self.held.drain(..bytes).collect();
        let text = if self.is_behind { text.trim_start() } else { text.as_str() };
        if !text.is_empty() {
            out.push(Piece::Text(text.to_owned()));
            self.is_behind = false;
        }
    }
}

/// Bytes at the begin of a text that are marks, each where there is such and all in their order, with white space between them; none where the
/// text may go on as a mark.
fn behind(text: &str, marks: [&str; 2], ends: bool) -> Option<usize> {
    let mut at = 0;
    for piece in marks.into_iter().flat_map(str::split_whitespace) {
        let rest = text[at..].trim_start();
        if rest.starts_with(piece) {
            at = text.len() - rest.len() + piece.len();
        } else if !ends && piece.starts_with(rest) {
            return None;
        }
    }
    Some(at)
}

/// Bytes at the end of `text` that begin `mark` and are not all of it.
fn begun(text: &str, mark: &str) -> usize {
    let longest = mark.len().saturating_sub(1).min(text.len());
    let ends = |n: &usize| text.as_bytes().ends_with(&mark.as_bytes()[..*n]) && text.is_char_boundary(text.len() - n);
    (1..=longest).rev().find(ends).unwrap_or(0)
}

#[cfg(test)]
mod tests;
