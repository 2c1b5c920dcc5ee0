//! Grammars of answers that must be calls, for llguidance, in the way of Lark.

use super::Function;
use lowbit_model::chat::{CallForm, CallSyntax, Marks};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A text in parts: texts, and control tokens.
pub(super) fn pieces<'a>(text: &'a str, controls: &BTreeMap<u32, String>) -> Vec<Result<&'a str, u32>> {
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

/// The rules of a grammar as they are made.
struct Rules<'a> {
    syntax: &'a CallSyntax,
    controls: &'a BTreeMap<u32, String>,
    text: String,
}

/// The grammar of an answer that is one call of these functions, or several.
pub(crate) fn grammar(
    syntax: &CallSyntax,
    functions: &[&Function],
    several: bool,
    controls: &BTreeMap<u32, String>,
) -> String {
    let mut rules = Rules { syntax, controls, text: String::new() };
    let [open, begin, end, close] =
        [&syntax.open, &syntax.begin, &syntax.end, &syntax.close].map(|text| rules.spelled(text));
    let more = syntax.between.as_ref().filter(|_| several);
    let more = more.map_or_else(String::new, |between| format!("({} one)*", rules.spelled(between)));
    let names: Vec<String> = (0..functions.len()).map(|i| format!("call_{i}")).collect();
    rules.text = format!("start: {open} one {more} {close}\none: {begin} call {end}\ncall: {}\n", names.join(" | "));
    functions.iter().enumerate().for_each(|(i, function)| rules.call(i, function));
    rules.text
}

fn quoted(text: &str) -> String {
    json!(text).to_string()
}

/// A schema as the rule of JSON.
fn json_rule(schema: &Value, strict: bool) -> String {
    let mut schema = match schema {
        Value::Object(_) => schema.clone(),
        _ => json!({}),
    };
    schema["x-guidance"] =
        json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ", "lenient": !strict});
    format!("%json {schema}")
}

impl Rules<'_> {
    /// A text with its control tokens, and a name of a call where one stands.
    fn spelled(&self, text: &str) -> String {
        let piece = |piece: Result<&str, u32>| piece.map_or_else(|id| format!("<[{id}]>"), quoted);
        let spelled = |text| pieces(text, self.controls).into_iter().map(piece).collect::<Vec<_>>().join(" ");
        text.split(CallForm::ID).map(spelled).collect::<Vec<_>>().join(" /[a-zA-Z0-9]{9}/ ")
    }

    /// The rules of the calls of a function.
    fn call(&mut self, i: usize, function: &Function) {
        let name = &function.name;
        let line = match &self.syntax.form {
            CallForm::Object(key) => {
                let head = format!("{{\"name\": {}, \"{key}\": ", json!(name));
                format!("{} args_{i} \"}}\"", quoted(&head))
            }
            CallForm::Named(middle) => format!("{} {} args_{i}", quoted(name), self.spelled(middle)),
            CallForm::Marked(marks) => {
                let arguments =
                    self.arguments(i, function, |rules, key, schema, rule| rules.marked(marks, key, schema, rule));
                format!("{} {} {}", quoted(name), self.spelled(&marks.head), sequence(arguments, ""))
            }
            CallForm::Python => {
                let arguments = self.arguments(i, function, |rules, key, schema, rule| rules.python(key, schema, rule));
                format!("{} \"(\" {} \")\"", quoted(name), sequence(arguments, "\", \""))
            }
        };
        self.text += &format!("call_{i}: {line}\n");
        if let CallForm::Object(_) | CallForm::Named(_) = self.syntax.form {
            self.text += &format!("args_{i}: {}\n", json_rule(&function.parameters, function.strict));
        }
    }

    /// A rule per argument of a function: the names of those of required ones, and of all others.
    fn arguments(
        &mut self,
        i: usize,
        function: &Function,
        write: impl Fn(&mut Self, &str, (&Value, bool), &str),
    ) -> [Vec<String>; 2] {
        let (schema, mut names) = (&function.parameters, [Vec::new(), Vec::new()]);
        let required =
            |key: &str| schema["required"].as_array().is_some_and(|keys| keys.iter().any(|other| other == key));
        for (n, (key, property)) in schema["properties"].as_object().into_iter().flatten().enumerate() {
            let mut property = property.clone();
            // What the schema of the function defines may be meant in that of an argument.
            let shared =
                ["$defs", "definitions"].into_iter().filter_map(|key| Some((key.to_owned(), schema.get(key)?.clone())));
            if let Some(property) = property.as_object_mut() {
                property.extend(shared);
            }
            let rule = format!("arg_{i}_{n}");
            write(self, key, (&property, function.strict), &rule);
            names[usize::from(!required(key))].push(rule);
        }
        names
    }

    /// An argument between marks: texts as they are.
    fn marked(&mut self, marks: &Marks, key: &str, (schema, strict): (&Value, bool), rule: &str) {
        let head = format!("{} {} {}", self.spelled(&marks.key), quoted(key), self.spelled(&marks.value));
        let end = self.spelled(&marks.end);
        let texts = schema["enum"].as_array().filter(|texts| texts.iter().all(Value::is_string));
        self.text += &match (texts, super::is_text(schema)) {
            (Some(texts), _) => {
                let any: Vec<String> = texts.iter().filter_map(Value::as_str).map(quoted).collect();
                format!("{rule}: {head} ({}) {end}\n", any.join(" | "))
            }
            (None, true) => {
                format!("{rule}: {head} text_{rule}\ntext_{rule}[suffix={}]: /(?s:.*)/\n", quoted(&marks.end))
            }
            (None, false) => {
                format!("{rule}: {head} value_{rule} {end}\nvalue_{rule}: {}\n", json_rule(schema, strict))
            }
        };
    }

    /// An argument as Python writes it.
    fn python(&mut self, key: &str, (schema, strict): (&Value, bool), rule: &str) {
        let value = match schema["type"] == "boolean" {
            true => "\"True\" | \"False\"".to_owned(),
            false => json_rule(schema, strict),
        };
        self.text += &format!("{rule}: {} value_{rule}\nvalue_{rule}: {value}\n", quoted(&format!("{key}=")));
    }
}

/// Required arguments in their order, then any of the others, with something between two.
fn sequence([required, other]: [Vec<String>; 2], between: &str) -> String {
    let any = format!("({})", other.join(" | "));
    let space = if between.is_empty() { " ".to_owned() } else { format!(" {between} ") };
    let head = required.join(&space);
    match (required.is_empty(), other.len()) {
        (_, 0) => head,
        (false, most) => format!("{head} ({between} {any}){{0,{most}}}"),
        (true, most) => format!("({any} ({between} {any}){{0,{}}})?", most - 1),
    }
}
