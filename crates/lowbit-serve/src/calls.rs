//! Calls of functions: the grammar of answers that must be calls, and calls found in the text of an answer as it comes.

use lowbit_model::chat::CallSyntax;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
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
    names: Vec<String>,
    /// Marks before and behind a call, as far as they are text.
    begin: String,
    end: String,
    /// The key of the arguments.
    key: String,
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

/// What JSON there is at the begin of a text.
enum Read {
    /// Calls, and the bytes they take.
    Calls(Vec<Called>, usize),
    /// It goes on.
    More,
    /// Something else.
    Other,
}

/// A text without names of control tokens, which no answer shows.
fn visible(text: &str, controls: &BTreeMap<u32, String>) -> String {
    let pieces = pieces(text, controls).into_iter();
    pieces.filter_map(Result::ok).collect::<String>().trim().to_owned()
}

/// A text in parts: texts, and control tokens.
fn pieces<'a>(text: &'a str, controls: &BTreeMap<u32, String>) -> Vec<Result<&'a str, u32>> {
    let (mut out, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let places = controls.iter().filter(|(_, name)| !name.is_empty());
        let found =
            places.filter_map(|(id, name)| Some((rest.find(name.as_str())?, usize::MAX - name.len(), *id))).min();
        let Some((at, length, id)) = found else { break };
        out.extend(Some(Ok(&rest[..at])).filter(|_| at > 0));
        out.push(Err(id));
        rest = &rest[at + (usize::MAX - length)..];
    }
    out.extend(Some(Ok(rest)).filter(|_| !rest.is_empty()));
    out
}

/// The grammar of an answer that is one call of these functions, or several; for llguidance, in the way of Lark.
pub(crate) fn grammar(
    syntax: &CallSyntax,
    functions: &[&Function],
    several: bool,
    controls: &BTreeMap<u32, String>,
) -> String {
    let quoted = |text: &str| json!(text).to_string();
    let spelled = |text: &str| -> String {
        let piece = |piece: Result<&str, u32>| piece.map_or_else(|id| format!("<[{id}]>"), quoted);
        pieces(text, controls).into_iter().map(piece).collect::<Vec<_>>().join(" ")
    };
    let (begin, end) = (spelled(&syntax.begin), spelled(&syntax.end));
    let start = match (syntax.is_list, several && !syntax.begin.is_empty()) {
        (true, several) => {
            let more = if several { "(\", \" call)*" } else { "" };
            format!("start: {begin} \"[\" call {more} \"]\" {end}\n")
        }
        (false, true) => format!("start: one (\"\\n\" one)*\none: {begin} call {end}\n"),
        (false, false) => format!("start: {begin} call {end}\n"),
    };
    let names: Vec<String> = (0..functions.len()).map(|i| format!("call_{i}")).collect();
    let mut rules = format!("{start}call: {}\n", names.join(" | "));
    for (i, function) in functions.iter().enumerate() {
        let head = format!("{{\"name\": {}, \"{}\": ", json!(function.name), syntax.arguments);
        let mut schema = function.parameters.clone();
        schema["x-guidance"] = json!({
            "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ", "lenient": !function.strict,
        });
        rules += &format!("call_{i}: {} args_{i} \"}}\"\nargs_{i}: %json {schema}\n", quoted(&head));
    }
    rules
}

impl Calls {
    /// Calls of these functions by a model that writes them so.
    pub fn new(syntax: &CallSyntax, functions: &[Function], single: bool, controls: &BTreeMap<u32, String>) -> Self {
        let names = functions.iter().map(|function| function.name.clone()).collect();
        let (begin, end) = (visible(&syntax.begin, controls), visible(&syntax.end, controls));
        Calls { names, begin, end, key: syntax.arguments.clone(), single }
    }

    fn read(&self, text: &str) -> Read {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let (value, used) = match values.next() {
            Some(Ok(value)) => (value, values.byte_offset()),
            Some(Err(error)) if !error.is_eof() => match bounded(text) {
                Ok(read) => read,
                Err(error) if error.is_eof() => return Read::More,
                Err(_) => return Read::Other,
            },
            _ => return Read::More,
        };
        self.calls(value).map_or(Read::Other, |calls| Read::Calls(calls, used))
    }

    /// The calls that a value is, one or a list of them.
    fn calls(&self, value: Value) -> Option<Vec<Called>> {
        match value {
            Value::Array(items) if !items.is_empty() => items.into_iter().map(|item| self.call(item)).collect(),
            value => Some(vec![self.call(value)?]),
        }
    }

    fn call(&self, value: Value) -> Option<Called> {
        let Value::Object(mut object) = value else { return None };
        let name = object.get("name")?.as_str()?.to_owned();
        let keys = [self.key.as_str(), "arguments", "parameters"];
        let arguments = keys.iter().find_map(|key| object.remove(*key));
        let arguments = match arguments {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
            Some(_) => return None,
        };
        self.names.contains(&name).then_some((name, arguments))
    }
}

impl CallParser {
    /// Before the first piece of text.
    pub fn new(calls: Arc<Calls>) -> Self {
        let (held, state) = (String::new(), State::Outside);
        CallParser { calls, held, state, found: 0, closes: false, is_behind: false }
    }

    /// Calls so far.
    pub fn found(&self) -> usize {
        self.found
    }

    /// Takes text; returns what it completes.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        self.closes |= text.contains(['}', ']']);
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
            State::Outside if self.calls.begin.is_empty() => self.unmarked(ends, out),
            State::Outside => self.marked(ends, out),
            State::Inside => self.inside(ends, out),
        }
    }

    /// Up to the next mark.
    fn marked(&mut self, ends: bool, out: &mut Vec<Piece>) -> bool {
        let calls = self.calls.clone();
        if let Some(at) = self.held.find(&calls.begin) {
            self.release(self.held[..at].trim_end().len(), out);
            let mark = self.held.find(&calls.begin).unwrap_or(0) + calls.begin.len();
            self.held.drain(..mark);
            self.state = State::Inside;
            return true;
        }
        // White space before a mark belongs to it.
        let text = &self.held[..self.held.len() - begun(&self.held, &calls.begin)];
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
        let read = if text.starts_with(['{', '[']) { self.calls.read(text) } else { Read::Other };
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
        match calls.read(&self.held) {
            Read::Calls(read, used) => {
                let behind = &self.held[used..];
                let space = behind.len() - behind.trim_start().len();
                let text = &behind[space..];
                let mark = match text.starts_with(&calls.end) {
                    true => space + calls.end.len(),
                    false if !ends && calls.end.starts_with(text) => return false,
                    false => 0,
                };
                self.held.drain(..used + mark);
                self.take(read, out);
                self.state = State::Outside;
                true
            }
            Read::More if !ends => false,
            _ => {
                // A mark without a call is text.
                out.push(Piece::Text(calls.begin.clone()));
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

/// The first value of a text whose numbers may exceed those of 64 bits, and its bytes: such become 1e308.
fn bounded(text: &str) -> Result<(Value, usize), serde_json::Error> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next().transpose()?;
    let used = values.byte_offset();
    let (mut out, mut rest, mut in_text) = (String::new(), &text[..used], false);
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' if in_text => rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at),
            '-' | '0'..='9' if !in_text => {
                let ends = |c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
                rest.find(ends).unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        in_text ^= c == '"';
        let (piece, behind) = rest.split_at(taken);
        match piece.parse::<f64>().is_ok_and(f64::is_infinite) && !in_text {
            true => out += if c == '-' { "-1e308" } else { "1e308" },
            false => out += piece,
        }
        rest = behind;
    }
    Ok((serde_json::from_str(&out)?, used))
}

/// Bytes at the end of `text` that begin `mark` and are not all of it.
fn begun(text: &str, mark: &str) -> usize {
    let longest = mark.len().saturating_sub(1).min(text.len());
    let ends = |n: &usize| text.as_bytes().ends_with(&mark.as_bytes()[..*n]) && text.is_char_boundary(text.len() - n);
    (1..=longest).rev().find(ends).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syntax(begin: &str, end: &str, key: &str) -> CallSyntax {
        CallSyntax { begin: begin.into(), end: end.into(), arguments: key.into(), is_list: false }
    }

    fn calls(begin: &str, end: &str, key: &str, single: bool) -> Arc<Calls> {
        let function = |name: &str| Function { name: name.into(), parameters: json!({}), strict: false };
        let functions = [function("f"), function("g")];
        let controls = BTreeMap::from([(7, "[CALLS]".to_owned()), (8, "[CALLS]x".to_owned())]);
        Arc::new(Calls::new(&syntax(begin, end, key), &functions, single, &controls))
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    fn call(name: &str, arguments: Value) -> Piece {
        Piece::Call(name.into(), arguments.as_object().expect("an object").clone())
    }

    /// Whole and letter by letter, with neighbouring texts joined.
    fn found(calls: &Arc<Calls>, answer: &str) -> Vec<Piece> {
        let joined = |pieces: Vec<Piece>| {
            pieces.into_iter().fold(Vec::new(), |mut out: Vec<Piece>, piece| {
                match (out.last_mut(), piece) {
                    (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
                    (_, piece) => out.push(piece),
                }
                out
            })
        };
        let whole = joined(CallParser::all(calls.clone(), answer));
        let mut parser = CallParser::new(calls.clone());
        let mut pieces: Vec<Piece> = answer.chars().flat_map(|c| parser.push(c.encode_utf8(&mut [0; 4]))).collect();
        pieces.extend(parser.finish());
        assert_eq!(joined(pieces), whole, "{answer}");
        whole
    }

    #[test]
    fn calls_between_marks() {
        let hermes = calls("<tool_call>\n", "\n</tool_call>", "arguments", false);
        let one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\"}}\n</tool_call>";
        let f = call("f", json!({"a": "}</tool_call>"}));
        assert_eq!(found(&hermes, one), std::slice::from_ref(&f));
        assert_eq!(
            found(&hermes, &format!("I look. <b>\n\n{one}\n{one}\n")),
            [text("I look. <b>"), f.clone(), f.clone()]
        );
        assert_eq!(
            found(&hermes, "<tool_call>{\"name\":\"g\"}</tool_call> Done."),
            [call("g", json!({})), text("Done.")]
        );
        assert_eq!(
            found(&hermes, "<tool_call>\n{\"name\": \"f\", \"parameters\": {\"b\": 1}}"),
            [call("f", json!({"b": 1}))]
        );
        assert_eq!(
            found(&hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": \"{\\\"b\\\": 1}\"}"),
            [call("f", json!({"b": 1}))]
        );
        let large = "<tool_call>{\"name\": \"f\", \"arguments\": {\"1e999 \\\"\": [-82.9e777, 1e999, 2]}}</tool_call>";
        assert_eq!(found(&hermes, large), [call("f", json!({"1e999 \"": [-1e308, 1e308, 2]}))]);
        // What is no call stays as it is.
        for other in [
            "Hello <tool_call",
            "a < b",
            "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\"",
            "<tool_call><function=f></function></tool_call>",
            "<tool_call>\n{\"name\": \"f\", \"arguments\": 3}\n</tool_call>",
            "{\"name\": \"f\", \"arguments\": {}}",
        ] {
            assert_eq!(found(&hermes, other), [text(other)], "{other}");
        }
        let single = calls("<tool_call>\n", "\n</tool_call>", "arguments", true);
        assert_eq!(found(&single, &format!("{one}\n{one}")), [f]);
    }

    #[test]
    fn calls_without_marks() {
        let llama = calls("", "", "parameters", false);
        let g = call("g", json!({"a": [1, {"b": "}"}]}));
        let one = "{\"name\": \"g\", \"parameters\": {\"a\": [1, {\"b\": \"}\"}]}}";
        assert_eq!(found(&llama, one), std::slice::from_ref(&g));
        assert_eq!(found(&llama, &format!("\n {one}; {one}\n")), [g.clone(), g.clone()]);
        assert_eq!(found(&llama, &format!("[{one}, {one}]")), [g.clone(), g.clone()]);
        for other in [
            "Hello",
            "{\"a\": 1} is JSON",
            "",
            "[1, 2]",
            "{\"name\": \"f\", \"parameters\": {",
            "Call {\"name\": \"f\"}",
        ] {
            let expected: Vec<Piece> = Some(text(other)).filter(|_| !other.is_empty()).into_iter().collect();
            assert_eq!(found(&llama, other), expected, "{other}");
        }
        // A mark that is a control token is not seen.
        let mistral = calls("[CALLS] ", "", "arguments", false);
        assert_eq!(found(&mistral, "[{\"name\": \"f\", \"arguments\": {}}]"), [call("f", json!({}))]);
    }

    #[test]
    fn grammars_spell_control_tokens() {
        let controls = BTreeMap::from([(7, "[CALLS]".to_owned()), (8, "[CALLS]x".to_owned())]);
        let function = Function { name: "f".into(), parameters: json!({"type": "object"}), strict: true };
        let list = CallSyntax { is_list: true, ..syntax("[CALLS]x ", "", "arguments") };
        let rules = grammar(&list, &[&function], true, &controls);
        assert!(rules.starts_with("start: <[8]> \" \" \"[\" call (\", \" call)* \"]\" \ncall: call_0\n"), "{rules}");
        assert!(rules.contains("call_0: \"{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": \" args_0 \"}\""), "{rules}");
    }
}
