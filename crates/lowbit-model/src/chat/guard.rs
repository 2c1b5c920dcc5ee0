//! Limits for templates that are not trusted.
//!
//! The engine counts instructions only, and twenty of them can double a string or nest a list until memory or stack is gone. So
//! a parsed template is rewritten before it is compiled: every operand goes through a function that weighs it (its size, its
//! parts, its depth) and charges the weight to a budget, and so does every text written (`rewrite`). What an instruction
//! costs is then bounded by what was charged for its operands; the few functions that make much of little are bounded by
//! themselves (`functions`), and so is repetition. Constants behind such a function are not folded at compile time either.
//!
//! Comparisons see what stands behind the stand-ins of what was said (`shades`), and values are written as Python writes them.

use super::clock::Clock;
use super::rewrite::{self, CONCAT, EMIT, ITEM, PLAIN, REMAINDER, SLICE, TIMES, WEIGH};
use super::shades::Shades;
use super::{Given, MAX_OUTPUT, Message, ToolCall, functions, python, slice, text};
use crate::Error;
use crate::model_config::ChatSettings;
use minijinja::formatting::FormatStyle;
use minijinja::machinery::{self, CodeGenerator};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Largest string, bytes, beyond those of the chat itself.
pub(super) const MAX_VALUE: usize = 1 << 20;
/// Instructions, and more for each turn of the chat.
const FUEL: u64 = 100_000;
const FUEL_PER_TURN: u64 = 1_000;
/// Deepest nesting of a value and of macros.
const MAX_DEPTH: usize = 64;
/// Units of work, and more for each turn of the chat: one per part of a value and 256 bytes of text.
const WORK: u64 = 250_000;
const WORK_PER_TURN: u64 = 10_000;

pub(super) type Result<T, E = minijinja::Error> = std::result::Result<T, E>;

/// What a rendering may still do.
struct Budget {
    work: AtomicU64,
    output: AtomicU64,
    /// Longest string of the chat.
    text: usize,
}

/// Whether the source is a template that can be rendered at all.
pub(super) fn check(source: &str) -> Result<(), Error> {
    compile(source).map(|_| ()).map_err(|e| super::complaint(&e, &Shades::default()))
}

type Compiled<'a> = (machinery::Instructions<'a>, BTreeMap<&'a str, machinery::Instructions<'a>>);

fn compile(source: &str) -> Result<Compiled<'_>> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let parsed = machinery::parse(source, "chat template", syntax)?;
    let guarded = rewrite::template(&parsed)?;
    let mut generator = CodeGenerator::new("chat template", source);
    generator.compile_stmt(&guarded);
    Ok(generator.finish())
}

/// Renders a chat within the limits; what was said comes out in stand-ins.
pub(super) fn render(
    source: &str,
    settings: &ChatSettings,
    given: Given<'_>,
    shades: &Arc<Shades>,
    clock: Clock,
) -> Result<String> {
    let turns = given.parts() as u64;
    let said: usize = given.texts().iter().map(|text| shades.bytes(text)).sum();
    let budget = Arc::new(Budget {
        work: AtomicU64::new(WORK + WORK_PER_TURN * turns + said as u64),
        output: AtomicU64::new((MAX_OUTPUT + 2 * said) as u64),
        text: said,
    });
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL + FUEL_PER_TURN * turns));
    env.set_recursion_limit(MAX_DEPTH);
    functions::add(&mut env, shades, clock);
    add_guards(&mut env, &budget, shades);
    let (instructions, blocks) = compile(source)?;
    let mut root: BTreeMap<&str, Value> = [("bos_token", "".into()), ("eos_token", "".into())].into();
    root.extend(settings.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str().into())));
    root.insert("messages", given.messages.iter().map(|m| message(m, shades)).collect::<Vec<_>>().into());
    root.insert("add_generation_prompt", given.answer.into());
    let tools: Vec<Value> = given.tools.iter().map(|tool| shades.shaded_value(tool)).collect();
    root.insert("tools", if tools.is_empty() { ().into() } else { tools.into() });
    root.insert("documents", ().into());
    let mut out = String::new();
    let mut output = machinery::make_string_output(&mut out);
    machinery::eval(&env, &instructions, root.into(), &blocks, &mut output, AutoEscape::None)?;
    Ok(out)
}

/// A turn as templates read it.
fn message(message: &Message, shades: &Shades) -> Value {
    let text = |text: &str| Value::from(shades.shaded(text));
    let mut pairs = vec![("role", Value::from(message.role.name())), ("content", text(&message.content))];
    let call = |call: &ToolCall| {
        let arguments = Value::from_pairs(call.arguments.iter().map(|(key, value)| shades.shaded_pair(key, value)));
        let function = Value::from_pairs([("name", text(&call.name)), ("arguments", arguments)]);
        Value::from_pairs([("id", text(&call.id)), ("type", "function".into()), ("function", function)])
    };
    if !message.tool_calls.is_empty() {
        pairs.push(("tool_calls", message.tool_calls.iter().map(call).collect::<Vec<_>>().into()));
    }
    pairs.extend(message.tool_call_id.as_deref().map(|id| ("tool_call_id", text(id))));
    pairs.extend(message.name.as_deref().map(|name| ("name", text(name))));
    Value::from_pairs(pairs)
}

/// Adds the functions that the rewritten template calls.
fn add_guards(env: &mut Environment<'_>, budget: &Arc<Budget>, shades: &Arc<Shades>) {
    let weigh = budget.clone();
    env.add_function(WEIGH, move |value: Value| weigh.operand(&value).map(|()| value));
    let (search, own) = (budget.clone(), shades.clone());
    env.add_function(ITEM, move |value: Value, key: Value| -> Result<Value> {
        search.length(value.as_str().map_or(0, str::len))?;
        let item = value.get_item(&key)?;
        match item.is_undefined() && value.kind() == ValueKind::Map {
            true => value.get_item(&own.plain_value(&key)),
            false => Ok(item),
        }
    });
    let (plain, own) = (budget.clone(), shades.clone());
    env.add_function(PLAIN, move |value: Value| plain.operand(&value).map(|()| own.plain_value(&value)));
    let (emit, own) = (budget.clone(), shades.clone());
    env.add_function(EMIT, move |value: Value| emit.text(&value, &own));
    let (concat, own) = (budget.clone(), shades.clone());
    env.add_function(CONCAT, move |a: Value, b: Value| -> Result<String> {
        let (a, b) = (python::text(&a, &own)?, python::text(&b, &own)?);
        concat.length(a.len() + b.len())?;
        Ok(a + &b)
    });
    let own = shades.clone();
    env.add_function(REMAINDER, move |a: Value, b: Value| remainder(&a, &b, &own));
    env.add_function(SLICE, slice::slice);
    let times = budget.clone();
    env.add_function(TIMES, move |a: Value, b: Value| times.times(&a, &b));
}

/// Python's `%`: of numbers, or of a format string and its values.
fn remainder(a: &Value, b: &Value, shades: &Shades) -> Result<Value> {
    if let Some(format) = a.as_str() {
        let values = match b.kind() {
            ValueKind::Seq if b.is_tuple() => b.try_iter()?.collect(),
            ValueKind::Map => vec![text::named(b)?],
            _ => vec![b.clone()],
        };
        return Ok(text::formatted(FormatStyle::Printf, format, &values, shades)?.into());
    }
    let whole = |v: &Value| if v.is_integer() { i128::try_from(v.clone()).ok() } else { None };
    let float = |v: &Value| f64::try_from(v.clone()).map_err(|_| refuse(format!("{} has no remainder", v.kind())));
    match (whole(a), whole(b)) {
        (Some(_), Some(0)) => Err(refuse("integer modulo by zero")),
        // The sign is that of the divisor.
        (Some(a), Some(b)) => Ok((((a % b) + b) % b).into()),
        _ => {
            let (a, b) = (float(a)?, float(b)?);
            Ok((a - b * (a / b).floor()).into())
        }
    }
}

pub(super) fn refuse(text: impl Into<String>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, text.into())
}

impl Budget {
    fn charge(&self, units: u64) -> Result<()> {
        let left = self.work.load(Relaxed).checked_sub(units);
        self.work.store(left.ok_or_else(|| refuse("fuel is used up: its values are too large"))?, Relaxed);
        Ok(())
    }

    fn length(&self, bytes: usize) -> Result<()> {
        functions::bounded(bytes.saturating_sub(2 * self.text))?;
        self.charge(bytes as u64 / 256)
    }

    /// Charges for a value and everything in it.
    fn operand(&self, value: &Value) -> Result<()> {
        let mut stack = vec![(value.clone(), 0)];
        while let Some((value, depth)) = stack.pop() {
            self.charge(1)?;
            if depth > MAX_DEPTH {
                return Err(refuse(format!("size: a value is nested deeper than {MAX_DEPTH}")));
            }
            match value.kind() {
                ValueKind::String => self.length(value.as_str().map_or(0, str::len))?,
                ValueKind::Bytes => self.length(value.as_bytes().map_or(0, <[u8]>::len))?,
                ValueKind::Map => {
                    for key in value.try_iter()? {
                        self.charge(1)?;
                        stack.push((value.get_item(&key)?, depth + 1));
                        stack.push((key, depth + 1));
                    }
                }
                ValueKind::Seq | ValueKind::Iterable => {
                    for item in value.try_iter()? {
                        self.charge(1)?;
                        stack.push((item, depth + 1));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The text of a value, charged for before it is written.
    fn text(&self, value: &Value, shades: &Shades) -> Result<Value> {
        self.operand(value)?;
        let text = match value.kind() {
            ValueKind::String => value.clone(),
            _ => python::text(value, shades)?.into(),
        };
        let bytes = text.as_str().map_or(0, str::len) as u64;
        let left = self.output.load(Relaxed).checked_sub(bytes);
        self.output
            .store(left.ok_or_else(|| refuse(format!("size of the output exceeds {MAX_OUTPUT} bytes")))?, Relaxed);
        Ok(text)
    }

    /// A product: of numbers, or a text or list repeated.
    fn times(&self, a: &Value, b: &Value) -> Result<Value> {
        let (many, few) = if b.kind() == ValueKind::Number { (a, b) } else { (b, a) };
        match many.kind() {
            ValueKind::String => {
                let (text, n) = (many.as_str().unwrap_or_default(), few.as_usize().unwrap_or(0));
                self.length(text.len().saturating_mul(n))?;
                Ok(text.repeat(n).into())
            }
            ValueKind::Number => {
                let float = || Some(f64::try_from(a.clone()).ok()? * f64::try_from(b.clone()).ok()?);
                let whole = || i64::try_from(a.clone()).ok()?.checked_mul(i64::try_from(b.clone()).ok()?);
                let product = if a.is_integer() && b.is_integer() { whole().map(Value::from) } else { None };
                product.or_else(|| float().map(Value::from)).ok_or_else(|| refuse("cannot be multiplied"))
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = many.try_iter()?.collect();
                let n = few.as_usize().unwrap_or(0);
                self.charge(items.len().saturating_mul(n) as u64)?;
                Ok(items.iter().cycle().take(items.len() * n).cloned().collect())
            }
            kind => Err(refuse(format!("{kind} cannot be multiplied"))),
        }
    }
}
