//! How a model writes its calls of functions, as its chat template shows it: earlier calls of a chat are rendered, and what stands around
//! names and values is read off.

use super::{Given, Message, Role, Template, ToolCall};
use serde_json::{Map, Value, json};

/// Texts that occur in no template, by which calls are found.
const FUNCTION: &str = "probe_function";
const ARGUMENT: &str = "probe_argument";
const TEXT: &str = "probe_text";
const SECOND: &str = "probe_second";
const NUMBER: u32 = 70_707_077;
const ANSWER: &str = "Probed.";
/// Some templates want names of calls to have nine letters or digits.
const CALL: &str = "probe0001";

/// How a model writes calls of functions; each of these texts may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallSyntax {
    /// What stands before all calls of a turn.
    pub open: String,
    /// What stands before each call.
    pub begin: String,
    /// The call itself.
    pub form: CallForm,
    /// What stands behind each call.
    pub end: String,
    /// What stands between two calls; none where a turn has one at most.
    pub between: Option<String>,
    /// What stands behind all calls.
    pub close: String,
}

/// How a call itself is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallForm {
    /// A JSON object of `name` and of the arguments under this key, `arguments` or `parameters`: Hermes, Qwen, Llama 3, older Mistral.
    Object(String),
    /// The name, this, and the arguments as a JSON object: Mistral, DeepSeek, Kimi. [`CallForm::ID`] in it stands for a name of the call.
    Named(String),
    /// The name, and each argument between marks: Qwen3-Coder, GLM, MiniMax.
    Marked(Marks),
    /// As Python calls a function, `name(argument="text", other=[1, True])`: LFM2, Llama 3.2 and 4.
    Python,
}

/// What stands around the arguments of a call; texts stand between marks as they are, and all else as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Behind the name of the function.
    pub head: String,
    /// Before the name of an argument.
    pub key: String,
    /// Between the name of an argument and its value.
    pub value: String,
    /// Behind a value.
    pub end: String,
}

impl CallSyntax {
    /// Whether nothing of the calls that were made up stands around calls: marks with names of arguments in them are of one call alone.
    fn is_general(&self) -> bool {
        let mut texts = vec![&self.open, &self.begin, &self.end, &self.close];
        texts.extend(&self.between);
        match &self.form {
            CallForm::Object(_) | CallForm::Python => {}
            CallForm::Named(middle) => texts.push(middle),
            CallForm::Marked(Marks { head, key, value, end }) => texts.extend([head, key, value, end]),
        }
        !texts.iter().any(|text| [FUNCTION, ARGUMENT, TEXT, SECOND].iter().any(|probe| text.contains(probe)))
    }
}

impl CallForm {
    /// Stands for nine letters or digits of each call's own.
    pub const ID: &str = CALL;
}

impl Default for CallForm {
    fn default() -> Self {
        CallForm::Object("arguments".into())
    }
}

/// What templates make of calls.
struct Probed {
    /// A chat of a call with one argument, from where it differs from the same chat with an answer.
    one: String,
    /// The same with two arguments.
    pair: String,
    /// The same with two calls, each with one argument; none where the template takes one call at most.
    twice: Option<String>,
}

/// The forms, in the order in which they are looked for.
static FORMS: &[fn(&Probed) -> Option<CallSyntax>] = &[object, python, named, marked];

impl Template {
    /// How the model writes calls, as its template writes those of earlier turns; none where it tells the model of no functions,
    /// or writes calls in another form than those of [`CallForm`].
    pub fn call_syntax(&self) -> Option<CallSyntax> {
        let properties = json!({ARGUMENT: {"type": "string", "description": "A text."}, SECOND: {"type": "integer"}});
        let tools = [json!({"type": "function", "function": {
            "name": FUNCTION, "description": "Probes.",
            "parameters": {"type": "object", "properties": properties, "required": [ARGUMENT]},
        }})];
        let user = Message::new(Role::User, "Hello");
        let text = |messages: &[Message], answer| self.text(Given { messages, tools: &tools, answer }).ok();
        let told = text(std::slice::from_ref(&user), true)?;
        if !told.contains(FUNCTION) {
            return None;
        }
        let call = |number: Option<u32>| {
            let more = number.map(|number| (SECOND.to_owned(), json!(number)));
            let arguments = Map::from_iter([(ARGUMENT.to_owned(), json!(TEXT))].into_iter().chain(more));
            ToolCall { id: CALL.into(), name: FUNCTION.into(), arguments }
        };
        let called = |tool_calls| {
            let calling = Message { tool_calls, ..Message::new(Role::Assistant, "") };
            text(&[user.clone(), calling], false)
        };
        let said = text(&[user.clone(), Message::new(Role::Assistant, ANSWER)], false);
        let (one, said) = (called(vec![call(None)])?, said?);
        if one.matches(FUNCTION).count() > told.matches(FUNCTION).count() {
            let pair = called(vec![call(Some(NUMBER))])?;
            let part = |text: &str| differing(text, &said).to_owned();
            let twice = called(vec![call(None), call(None)]).map(|text| part(&text));
            let probed = Probed { one: part(&one), pair: part(&pair), twice };
            return FORMS.iter().find_map(|form| form(&probed)).filter(CallSyntax::is_general);
        }
        // A template that writes no calls of earlier turns tells in words how they look.
        let form = CallForm::Object(
            if told.contains("\"parameters\": dictionary") { "parameters" } else { "arguments" }.into(),
        );
        let marks = if told.contains("<tool_call>") { ["<tool_call>\n", "\n</tool_call>"] } else { ["", ""] };
        Some(single(marks, form))
    }
}

/// The part of a text that another has not: all but what both begin and end with, in whole marks.
fn differing<'a>(text: &'a str, other: &str) -> &'a str {
    let same = text.char_indices().zip(other.chars()).find(|((_, a), b)| a != b).map_or(0, |((at, _), _)| at);
    // A mark that begins as another does is part of it, and one that only ends so is none.
    let same = opened(&text[..same]);
    let (text, other) = (&text[same..], other.get(same..).unwrap_or_default());
    let ends = text
        .chars()
        .rev()
        .zip(other.chars().rev())
        .take_while(|(a, b)| a == b)
        .map(|(c, _)| c.len_utf8())
        .sum::<usize>();
    let part = &text[..text.len() - ends];
    &part[..opened(part)]
}

/// Where a mark begins that a text does not end, else its end.
fn opened(text: &str) -> usize {
    text.rfind('<').filter(|at| !text[*at..].contains(['>', ' ', '\n'])).unwrap_or(text.len())
}

/// Calls each of which stands between marks; several follow one another by lines.
fn single([begin, end]: [&str; 2], form: CallForm) -> CallSyntax {
    let between = (!begin.is_empty()).then(|| "\n".to_owned());
    CallSyntax { begin: begin.into(), end: end.into(), form, between, ..CallSyntax::default() }
}

fn object(probed: &Probed) -> Option<CallSyntax> {
    let name = probed.one.rfind(FUNCTION)?;
    let start = probed.one[..name].rfind('{')?;
    let (begin, rest) = probed.one.split_at(start);
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Map<String, Value>>();
    let object = values.next()?.ok()?;
    let end = &rest[values.byte_offset()..];
    let is_arguments = |value: &Value| match value {
        Value::Object(object) => object.contains_key(ARGUMENT),
        Value::String(text) => text.contains(ARGUMENT),
        _ => false,
    };
    let (arguments, _) = object.iter().find(|(_, value)| is_arguments(value))?;
    let form = CallForm::Object(arguments.clone());
    (object.get("name")? == FUNCTION).then_some(())?;
    match (begin.trim_end().strip_suffix('['), end.trim_start().strip_prefix(']')) {
        (Some(_), Some(_)) => {
            let (open, close) = (begin.trim_end().to_owned(), end.trim_start().to_owned());
            Some(CallSyntax { open, close, form, between: Some(", ".into()), ..CallSyntax::default() })
        }
        _ => Some(single([begin, end], form)),
    }
}

fn python(probed: &Probed) -> Option<CallSyntax> {
    let (begin, rest) = probed.one.split_once(FUNCTION)?;
    let rest = rest.strip_prefix('(')?.strip_prefix(ARGUMENT)?.strip_prefix('=')?;
    let end = rest.get(rest.find(TEXT)? + TEXT.len() + 1..)?.strip_prefix(')')?;
    Some(around(probed, (begin, end), CallForm::Python))
}

fn named(probed: &Probed) -> Option<CallSyntax> {
    let (begin, rest) = probed.one.split_once(FUNCTION)?;
    let (middle, rest) = rest.split_at(rest.find('{')?);
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Map<String, Value>>();
    let arguments = values.next()?.ok()?;
    arguments
        .contains_key(ARGUMENT)
        .then(|| around(probed, (begin, &rest[values.byte_offset()..]), CallForm::Named(middle.into())))
}

fn marked(probed: &Probed) -> Option<CallSyntax> {
    let (begin, rest) = probed.one.split_once(FUNCTION)?;
    let (before, rest) = rest.split_once(ARGUMENT)?;
    let (value, tail) = rest.split_once(TEXT)?;
    let (head, key) = before.split_at(before.rfind(['<', '['])?);
    let (_, rest) = probed.pair.split_once(TEXT)?;
    let (end, rest) = rest.split_once(SECOND)?;
    let end = end.strip_suffix(key)?;
    // Numbers stand as texts do.
    rest.strip_prefix(value)?.strip_prefix(&NUMBER.to_string())?;
    let end = common(end, tail);
    let form = CallForm::Marked(Marks { head: head.into(), key: key.into(), value: value.into(), end: end.into() });
    (!end.is_empty() && !value.is_empty()).then(|| around(probed, (begin, &tail[end.len()..]), form))
}

/// What stands around calls, told by two of them, where one has these texts before and behind it.
fn around(probed: &Probed, (before, behind): (&str, &str), form: CallForm) -> CallSyntax {
    let alone = || CallSyntax { begin: before.into(), end: behind.into(), form: form.clone(), ..CallSyntax::default() };
    // Behind the first of two calls comes what is between them, and before the second its name.
    let own = probed.one.len() - before.len() - behind.len();
    let between = probed.twice.as_ref().and_then(|twice| {
        let rest = twice.strip_prefix(before)?.get(own..)?;
        rest.split_once(FUNCTION).map(|(between, _)| between)
    });
    let Some(between) = between else { return alone() };
    let begin = common_end(before, between);
    let rest = &between[..between.len() - begin.len()];
    let end = common(rest, behind);
    CallSyntax {
        open: before[..before.len() - begin.len()].into(),
        begin: begin.into(),
        end: end.into(),
        between: Some(rest[end.len()..].into()),
        close: behind[end.len()..].into(),
        form,
    }
}

/// What two texts begin with, up to the end of a mark.
fn common<'a>(text: &'a str, other: &str) -> &'a str {
    let length = text.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    let same = &text[..length];
    match (same.rfind('<'), same.rfind('>')) {
        (Some(opened), closed)
            if closed.is_none_or(|closed| closed < opened) && length < text.len().max(other.len()) =>
        {
            &same[..opened]
        }
        _ => same,
    }
}

/// What two texts end with, from the begin of a mark on where it is not all of the first.
fn common_end<'a>(text: &'a str, other: &str) -> &'a str {
    let ends = text.chars().rev().zip(other.chars().rev()).take_while(|(a, b)| a == b);
    let same = &text[text.len() - ends.map(|(c, _)| c.len_utf8()).sum::<usize>()..];
    match same.len() == text.len() {
        true => same,
        false => same.find(['<', '[']).map_or(same, |at| &same[at..]),
    }
}
