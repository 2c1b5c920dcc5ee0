//! Functions that a model may call: what its template is told of them, and how the model writes its calls.

use super::{Given, Message, Role, Template};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Names that occur in no template, by which its calls are found.
const FUNCTION: &str = "probe_function";
const ARGUMENT: &str = "probe_argument";
const ANSWER: &str = "Probed.";
/// Some templates want names of calls to have nine letters or digits.
const CALL: &str = "probe0001";

/// A call of a function, as a turn of the model holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its name, which the turn with its result repeats.
    pub id: String,
    /// The function.
    pub name: String,
    /// The values it is called with, by their names.
    pub arguments: Map<String, Value>,
}

/// How a model writes calls of functions: JSON objects of a name and arguments, between marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSyntax {
    /// What stands before each call, or before the list of them; may be empty.
    pub begin: String,
    /// What stands behind.
    pub end: String,
    /// The key of the arguments: `arguments` or `parameters`.
    pub arguments: String,
    /// Whether all calls stand in one list.
    pub is_list: bool,
}

impl Template {
    /// How the model writes calls, as its template writes those of earlier turns; none where it tells the model of no functions,
    /// or writes calls in a form that is no JSON.
    pub fn call_syntax(&self) -> Option<CallSyntax> {
        let tools = [json!({"type": "function", "function": {
            "name": FUNCTION, "description": "Probes.",
            "parameters": {"type": "object", "properties": {ARGUMENT: {"type": "string", "description": "A text."}}, "required": [ARGUMENT]},
        }})];
        let user = Message::new(Role::User, "Hello");
        let text = |messages: &[Message], answer| self.text(Given { messages, tools: &tools, answer }).ok();
        let told = text(std::slice::from_ref(&user), true)?;
        if !told.contains(FUNCTION) {
            return None;
        }
        let arguments = Map::from_iter([(ARGUMENT.to_owned(), json!("a"))]);
        let call = ToolCall { id: CALL.into(), name: FUNCTION.into(), arguments };
        let calling = Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") };
        let said = text(&[user.clone(), Message::new(Role::Assistant, ANSWER)], false);
        let (called, said) = (text(&[user, calling], false)?, said?);
        if called.matches(FUNCTION).count() > told.matches(FUNCTION).count() {
            return syntax(&called, &said);
        }
        // A template that writes no calls of earlier turns tells in words how they look.
        let arguments = if told.contains("\"parameters\": dictionary") { "parameters" } else { "arguments" };
        let marks = if told.contains("<tool_call>") { ["<tool_call>\n", "\n</tool_call>"] } else { ["", ""] };
        let [begin, end] = marks.map(String::from);
        Some(CallSyntax { begin, end, arguments: arguments.into(), is_list: false })
    }
}

/// The form of the last call of a chat, compared with the same chat whose last turn is [`ANSWER`].
fn syntax(called: &str, said: &str) -> Option<CallSyntax> {
    let same = called.bytes().zip(said.bytes()).take_while(|(a, b)| a == b).count();
    let name = called.rfind(FUNCTION)?;
    let start = called.get(..name)?.rfind('{')?;
    let mut values = serde_json::Deserializer::from_str(&called[start..]).into_iter::<Map<String, Value>>();
    let object = values.next()?.ok()?;
    let (_, behind) = called[start..].split_at(values.byte_offset());
    let is_arguments = |value: &Value| match value {
        Value::Object(object) => object.contains_key(ARGUMENT),
        Value::String(text) => text.contains(ARGUMENT),
        _ => false,
    };
    let (arguments, _) = object.iter().find(|(_, value)| is_arguments(value))?;
    if object.get("name")? != FUNCTION {
        return None;
    }
    let ends = behind.bytes().rev().zip(said.bytes().rev()).take_while(|(a, b)| a == b).count();
    let end = behind.get(..behind.len() - ends).unwrap_or(behind);
    let begin = called.get(same.min(start)..start).unwrap_or_default();
    match (begin.trim_end().strip_suffix('['), end.trim_start().strip_prefix(']')) {
        (Some(begin), Some(end)) => {
            Some(CallSyntax { begin: begin.into(), end: end.into(), arguments: arguments.clone(), is_list: true })
        }
        _ => Some(CallSyntax { begin: begin.into(), end: end.into(), arguments: arguments.clone(), is_list: false }),
    }
}

/// All texts of a value: those of keys that are no plain names, and all others.
pub(super) fn texts<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => out.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, out)),
        Value::Object(object) => {
            for (key, value) in object {
                out.push(key);
                texts(value, out);
            }
        }
        _ => {}
    }
}
