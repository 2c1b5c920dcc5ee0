//! The objects that Jinja's functions make.

use crate::chat::guard::{Result, refuse};
use minijinja::value::{Object, ObjectRepr, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Jinja's `cycler`: one of its items after the other.
#[derive(Debug)]
pub(super) struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    pub fn over(items: Vec<Value>) -> Result<Value> {
        match items.is_empty() {
            true => Err(refuse("at least one item has to be provided")),
            false => Ok(Value::from_object(Cycler { items, at: AtomicUsize::new(0) })),
        }
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.items[self.at.load(Relaxed)].clone())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value> {
        let at = self.at.load(Relaxed);
        match method {
            "next" => self.at.store((at + 1) % self.items.len(), Relaxed),
            "reset" => self.at.store(0, Relaxed),
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        }
        let () = from_args(args)?;
        Ok(if method == "next" { self.items[at].clone() } else { ().into() })
    }
}

/// Jinja's `joiner`: nothing the first time, then a text.
#[derive(Debug)]
pub(super) struct Joiner {
    joiner: Value,
    used: AtomicBool,
}

impl Joiner {
    pub fn over(joiner: Value) -> Value {
        Value::from_object(Joiner { joiner, used: AtomicBool::new(false) })
    }
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        let () = from_args(args)?;
        Ok(if self.used.swap(true, Relaxed) { self.joiner.clone() } else { "".into() })
    }
}
