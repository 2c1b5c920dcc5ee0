//! Functions that a request offers, however it was asked: what they are, and whether they must be called.

use crate::app::App;
use crate::calls::{Calls, Function, grammar, shown};
use crate::grammar::Form;
use crate::refusal::Refusal;
use lowbit_model::chat::ToolCall;
use lowbit_model::generate::Guided;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// Functions of a request at most.
const MOST: usize = 128;
/// Bytes of their descriptions together.
const BYTES: usize = 256 << 10;
/// Longest name of a function, bytes.
const NAME: usize = 128;

/// Functions that an answer may call.
pub(crate) struct Offered {
    functions: Vec<Function>,
    /// As templates are told of them.
    pub definitions: Vec<Value>,
    choice: Choice,
    /// Whether an answer calls one at most.
    single: bool,
}

/// Whether functions are called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Choice {
    /// Never.
    None,
    /// As the model likes.
    Auto,
    /// At least one is.
    Required,
    /// This one is.
    Named(String),
}

/// How calls are found in an answer that may hold some.
pub(crate) struct Offer {
    pub calls: Arc<Calls>,
    /// What the answer must look like, where it must be calls.
    pub guide: Option<Guided>,
    /// Control tokens that stand around calls.
    pub shown: Vec<(u32, String)>,
}

impl Choice {
    /// As OpenAI's interfaces say it; the older one has the name in `function`.
    pub fn openai(choice: Option<&Value>) -> Result<Self, Refusal> {
        let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok(Choice::Auto) };
        let named = choice["function"]["name"].as_str().or(choice["name"].as_str());
        match (choice.as_str(), choice["type"].as_str(), named) {
            (Some("none"), ..) => Ok(Choice::None),
            (Some("auto"), ..) => Ok(Choice::Auto),
            (Some("required"), ..) => Ok(Choice::Required),
            (None, Some("function"), Some(name)) => Ok(Choice::Named(name.to_owned())),
            _ => {
                let forms =
                    "`none`, `auto`, `required`, or a function, {\"type\": \"function\", \"function\": {\"name\": ..}}";
                Err(Refusal::field("tool_choice", format!("tool_choice must be {forms}")))
            }
        }
    }

    /// As Anthropic's interface says it, and whether an answer calls one function at most.
    pub fn anthropic(choice: Option<&Value>) -> Result<(Self, bool), Refusal> {
        let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok((Choice::Auto, false)) };
        let single = choice["disable_parallel_tool_use"] == true;
        match (choice["type"].as_str(), choice["name"].as_str()) {
            (Some("none"), _) => Ok((Choice::None, single)),
            (Some("auto"), _) => Ok((Choice::Auto, single)),
            (Some("any"), _) => Ok((Choice::Required, single)),
            (Some("tool"), Some(name)) => Ok((Choice::Named(name.to_owned()), single)),
            _ => {
                let text = "the type of tool_choice is `auto`, `any`, `none`, or `tool` with a `name`";
                Err(Refusal::field("tool_choice", text))
            }
        }
    }
}

impl Offered {
    /// Functions as `{"type": "function", "function": {..}}`, of chats.
    pub fn chats(tools: Option<&[Value]>, choice: Choice, single: bool) -> Result<Option<Self>, Refusal> {
        let function = |i: usize, tool: &Value| {
            must_be_function(i, tool)?;
            of(&format!("tools[{i}].function"), &tool["function"], "parameters")
        };
        Self::all(tools, function, choice, single)
    }

    /// Functions as `{"type": "function", "name": .., ..}`, of responses.
    pub fn responses(tools: Option<&[Value]>, choice: Choice, single: bool) -> Result<Option<Self>, Refusal> {
        let function = |i: usize, tool: &Value| {
            must_be_function(i, tool)?;
            of(&format!("tools[{i}]"), tool, "parameters")
        };
        Self::all(tools, function, choice, single)
    }

    /// Functions as `{"name": .., "input_schema": ..}`, of messages.
    pub fn messages(tools: Option<&[Value]>, choice: Choice, single: bool) -> Result<Option<Self>, Refusal> {
        let function = |i: usize, tool: &Value| match tool["type"].as_str() {
            None | Some("custom") => of(&format!("tools[{i}]"), tool, "input_schema"),
            Some(_) => Err(Refusal::field(format!("tools[{i}].type"), "only tools of the type `custom` are supported")),
        };
        Self::all(tools, function, choice, single)
    }

    fn all(
        tools: Option<&[Value]>,
        function: impl Fn(usize, &Value) -> Result<(Function, Value), Refusal>,
        choice: Choice,
        single: bool,
    ) -> Result<Option<Self>, Refusal> {
        let tools = tools.unwrap_or_default();
        if tools.len() > MOST {
            return Err(Refusal::field("tools", format!("tools has {}; at most {MOST} are taken", tools.len())));
        }
        let bytes: usize = tools.iter().map(|tool| tool.to_string().len()).sum();
        if bytes > BYTES {
            return Err(Refusal::field("tools", format!("tools has {bytes} bytes; at most {BYTES} are taken")));
        }
        let made = tools.iter().enumerate().map(|(i, tool)| function(i, tool));
        let (functions, definitions): (Vec<Function>, Vec<Value>) =
            made.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        for (i, function) in functions.iter().enumerate() {
            if functions[..i].iter().any(|other| other.name == function.name) {
                return Err(Refusal::field(
                    format!("tools[{i}]"),
                    format!("two functions are called `{}`", function.name),
                ));
            }
        }
        let unknown = match &choice {
            Choice::Named(name) => !functions.iter().any(|function| function.name == *name),
            Choice::Required => functions.is_empty(),
            Choice::Auto | Choice::None => false,
        };
        if unknown {
            return Err(Refusal::field("tool_choice", "tool_choice asks for a function that tools has not"));
        }
        let offers = !functions.is_empty() && choice != Choice::None;
        Ok(offers.then_some(Offered { functions, definitions, choice, single }))
    }

    /// How calls of these functions are found in answers, and what answers must look like where they must be calls.
    ///
    /// # Errors
    /// When the template of the model takes no functions, or a schema cannot be followed.
    pub fn offer(&self, app: &App) -> Result<Offer, Refusal> {
        let text = "the chat template of this model takes no tools, or writes calls in a form that is not known; leave tools out";
        let syntax = app.served.writer()?.chat.call_syntax().ok_or_else(|| Refusal::field("tools", text))?;
        let controls = &app.served.controls;
        let called: Vec<&Function> = match &self.choice {
            Choice::Named(name) => self.functions.iter().filter(|function| function.name == *name).collect(),
            _ => self.functions.iter().collect(),
        };
        let several = self.choice == Choice::Required && !self.single;
        // Schemas that cannot be followed are refused, also where nothing must be called.
        let guide = app.guided(&Form::Grammar(grammar(syntax, &called, several, controls)), "tools")?;
        let guide = Some(guide).filter(|_| self.choice != Choice::Auto);
        let calls = Arc::new(Calls::new(syntax, self.functions.clone(), self.single));
        Ok(Offer { calls, guide, shown: shown(syntax, controls) })
    }
}

fn must_be_function(i: usize, tool: &Value) -> Result<(), Refusal> {
    match tool["type"] == "function" {
        true => Ok(()),
        false => Err(Refusal::field(format!("tools[{i}].type"), "only tools of the type `function` are supported")),
    }
}

/// A function by its description, whose schema has this key; and as templates are told of it.
fn of(place: &str, described: &Value, key: &str) -> Result<(Function, Value), Refusal> {
    let bad = |field: &str, text: String| Err(Refusal::field(format!("{place}.{field}"), text));
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name = match described["name"].as_str() {
        Some(name) if (1..=NAME).contains(&name.len()) && name.chars().all(is_letter) => name.to_owned(),
        _ => return bad("name", format!("a function needs a name: 1 to {NAME} of a-z, A-Z, 0-9, _, - and .")),
    };
    let parameters = match &described[key] {
        Value::Null => json!({"type": "object", "properties": {}, "additionalProperties": false}),
        Value::Object(schema) if schema.get("type").is_none_or(|kind| kind == "object") => {
            let mut schema = schema.clone();
            schema.entry("type").or_insert_with(|| "object".into());
            Value::Object(schema)
        }
        _ => return bad(key, format!("{key} must be the JSON schema of an object")),
    };
    let mut told = Map::from_iter([("name".to_owned(), json!(name))]);
    match &described["description"] {
        Value::Null => {}
        Value::String(text) => drop(told.insert("description".into(), json!(text))),
        _ => return bad("description", "a description is a text".into()),
    }
    told.insert(
        "parameters".into(),
        if described[key].is_null() { parameters.clone() } else { described[key].clone() },
    );
    let strict = described["strict"] == true;
    Ok((Function { name, parameters, strict }, json!({"type": "function", "function": told})))
}

/// A call of an earlier turn; `place` is its field.
///
/// # Errors
/// When its arguments are no JSON object.
pub(crate) fn earlier(place: &str, id: &str, name: &str, arguments: &str) -> Result<ToolCall, Refusal> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    match serde_json::from_str(arguments) {
        Ok(Value::Object(arguments)) => Ok(ToolCall { id: id.into(), name: name.into(), arguments }),
        _ => Err(Refusal::field(place, "arguments must be the text of a JSON object")),
    }
}

/// A call, as chats tell it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CallSaid {
    /// Its place among the calls, in pieces of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionSaid,
}

/// The function of a call.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct FunctionSaid {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// JSON.
    arguments: String,
}

impl CallSaid {
    /// All of a call.
    pub fn whole(id: String, name: String, arguments: &Map<String, Value>) -> Self {
        let function = FunctionSaid { name: Some(name), arguments: json!(arguments).to_string() };
        CallSaid { index: None, id: Some(id), r#type: Some("function"), function }
    }

    /// The same in two pieces: which function is called, and with what.
    pub fn pieces(self, index: usize) -> [Self; 2] {
        let CallSaid { id, r#type, function: FunctionSaid { name, arguments }, .. } = self;
        let index = Some(index);
        let head = CallSaid { index, id, r#type, function: FunctionSaid { name, arguments: String::new() } };
        [head, CallSaid { index, id: None, r#type: None, function: FunctionSaid { name: None, arguments } }]
    }
}
