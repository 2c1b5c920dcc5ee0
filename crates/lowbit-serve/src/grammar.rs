//! Answers of a stated form: JSON, JSON of a schema, or what a regular expression matches. The crate `llguidance` follows them.

use crate::refusal::Refusal;
use crate::served::Served;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use lowbit_base::{Error, panics};
use lowbit_model::generate::{Guide, Guided};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest schema or regular expression, bytes.
const LONGEST: usize = 64 << 10;

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    /// JSON of a schema.
    Schema(Value),
    /// What a regular expression matches.
    Regex(String),
    /// What a grammar in the way of Lark derives.
    Grammar(String),
}

impl Form {
    /// That of a format, which is the field `place`; none for text.
    ///
    /// # Errors
    /// When it is no form, or too long.
    pub fn of(format: &Value, place: &str) -> Result<Option<Self>, Refusal> {
        let bad = |field: &str, text: &str| Err(Refusal::field(format!("{place}{field}"), text));
        let form = match format["type"].as_str() {
            Some("text") => return Ok(None),
            Some("json_object") => Form::Schema(json!({"type": "object"})),
            // The schema stands where OpenAI has it, or where llama-server does.
            Some("json_schema") => {
                match [&format["json_schema"]["schema"], &format["schema"]].into_iter().find(|s| s.is_object()) {
                    Some(schema) => Form::Schema(schema.clone()),
                    None => {
                        return bad(
                            ".json_schema",
                            "a format of type `json_schema` needs an object as `json_schema.schema`",
                        );
                    }
                }
            }
            Some("regex") => match format["regex"].as_str() {
                Some(regex) => Form::Regex(regex.to_owned()),
                None => return bad(".regex", "a format of type `regex` needs a text as `regex`"),
            },
            _ => return bad(".type", "the type of a format is `text`, `json_object`, `json_schema` or `regex`"),
        };
        let length = match &form {
            Form::Schema(schema) => schema.to_string().len(),
            Form::Regex(text) | Form::Grammar(text) => text.len(),
        };
        match length <= LONGEST {
            true => Ok(Some(form)),
            false => bad("", "a schema or regular expression has at most 65536 bytes"),
        }
    }

    fn grammar(&self) -> TopLevelGrammar {
        match self {
            Form::Schema(schema) => {
                let mut schema = schema.clone();
                // White space as Python writes it, so that no answer is lost in it.
                schema["x-guidance"] =
                    json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
                TopLevelGrammar::from_json_schema(schema)
            }
            Form::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Form::Grammar(rules) => TopLevelGrammar::from_lark(rules.clone()),
        }
    }
}

/// Makes guides for the tokens of a model.
pub(crate) struct Grammars {
    factory: ParserFactory,
    /// Tokens that end an answer; the first stands for all.
    ends: Vec<u32>,
}

impl Grammars {
    /// For a model whose answers these tokens end.
    ///
    /// # Errors
    /// When no token ends answers.
    pub fn new(served: &Served, ends: &[u32]) -> Result<Self, Refusal> {
        let text = "no token ends the answers of this model, so that they can have no form";
        let end = *ends.first().ok_or_else(|| Refusal::bad(text))?;
        let word = |token: u32| match served.controls.get(&token) {
            Some(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
            None => served.tokenizer.token_bytes(token).unwrap_or_default().to_vec(),
        };
        let words: Vec<Vec<u8>> = (0..served.vocabulary() as u32).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&tokens).map_err(|_| Refusal::internal())?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Grammars { factory, ends: ends.to_vec() })
    }

    /// The guides of answers of a form, which the field `place` asks for.
    ///
    /// # Errors
    /// When the schema or regular expression is none, or too much for the limits.
    pub fn guided(&self, form: &Form, place: &str) -> Result<Guided, Refusal> {
        let bad = |text: String| Refusal::field(place, format!("this form cannot be followed: {text}"));
        let made = panics::caught(|| Matcher::new(self.factory.create_parser(form.grammar())));
        let matcher = made.ok_or_else(|| bad("it is too much".into()))?;
        if let Some(error) = matcher.get_error() {
            return Err(bad(error.chars().take(300).collect()));
        }
        let (matcher, ends) = (Mutex::new(matcher), self.ends.clone());
        Ok(Guided::by(move || {
            let matcher = matcher.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
            Ok(Box::new(Follower { matcher, ends: ends.clone() }) as Box<dyn Guide>)
        }))
    }
}

/// Follows one answer.
struct Follower {
    matcher: Matcher,
    ends: Vec<u32>,
}

fn lost(error: impl std::fmt::Display) -> Error {
    let text: String = error.to_string().chars().take(300).collect();
    Error::usage(format!("the answer cannot go on in this form: {text}"))
}

impl Guide for Follower {
    fn bar(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(lost)?;
        let may_end = allowed.is_allowed(self.ends[0]);
        for (token, logit) in logits.iter_mut().enumerate() {
            let is_end = self.ends.contains(&(token as u32));
            let may = if is_end { may_end } else { token < allowed.len() && allowed.is_allowed(token as u32) };
            if !may {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    fn follow(&mut self, token: u32) -> Result<(), Error> {
        match self.ends.contains(&token) {
            true => Ok(()),
            false => self.matcher.consume_token(token).map_err(lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_found_where_clients_put_them() {
        let schema = json!({"type": "integer"});
        for (format, expected) in [
            (json!({"type": "text"}), None),
            (json!({"type": "json_object"}), Some(Form::Schema(json!({"type": "object"})))),
            (
                json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
                Some(Form::Schema(schema.clone())),
            ),
            (json!({"type": "json_schema", "schema": schema}), Some(Form::Schema(schema.clone()))),
            (json!({"type": "regex", "regex": "[ab]+"}), Some(Form::Regex("[ab]+".into()))),
        ] {
            assert_eq!(Form::of(&format, "response_format").expect("a form"), expected, "{format}");
        }
        for (format, param) in [
            (json!({"type": "yaml"}), "response_format.type"),
            (json!(3), "response_format.type"),
            (json!({"type": "json_schema"}), "response_format.json_schema"),
            (json!({"type": "json_schema", "json_schema": {"schema": 3}}), "response_format.json_schema"),
            (json!({"type": "regex", "regex": 3}), "response_format.regex"),
            (json!({"type": "regex", "regex": "a".repeat(70_000)}), "response_format"),
        ] {
            assert_eq!(
                Form::of(&format, "response_format").expect_err("refused").detail.param.as_deref(),
                Some(param),
                "{format}"
            );
        }
    }
}
