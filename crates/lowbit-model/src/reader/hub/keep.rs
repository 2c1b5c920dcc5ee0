//! Matrices of integers with scales of groups, as a reader hands them out: in the formats that hold them as they are, else as floats.

use super::integers::{Matrix, Scheme};
use super::{Error, Hub, ReadRows, Values};
use crate::container::Dtype;
use crate::parameter_list::ParameterList;
use crate::reader::Integers;
use crate::recipe;
use crate::source::{ParamSpec, Role};
use lowbit_kernels::{Format, format};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

impl Hub {
    /// The scheme of a matrix that is packed as integers with scales of groups.
    pub(super) fn integers_of(&self, spec: &ParamSpec) -> Option<Scheme> {
        let matrix = matches!(spec.role, Role::Body | Role::Head);
        self.integers.filter(|scheme| matrix && scheme.has(&self.shards, spec))
    }

    /// Takes the recipe under which matrices of integers stay what they are, and notes which are kept as floats, and why.
    pub(super) fn keep_integers(&mut self, scheme: Scheme) -> Result<(), Error> {
        let [float, half] = ["f32", "bf16"].map(|name| format::find(name).expect("a format"));
        let parameters = ParameterList::new(&self.model_config.config)?;
        let (mut formats, mut wider) = (BTreeMap::new(), BTreeMap::<_, Vec<&str>>::new());
        for spec in parameters.params() {
            let plain = self.shards.entry(&spec.name).map(|(_, entry)| entry.dtype);
            let format = match self.integers_of(spec) {
                None if plain == Some(Dtype::BF16) => half,
                None => float,
                Some(_) => {
                    scheme.check(&self.shards, spec)?;
                    let kept = scheme.matrix(&self.shards, spec)?.format();
                    kept.map_or_else(
                        |why| {
                            wider.entry(why).or_default().push(&spec.name);
                            float
                        },
                        |kept| kept as &'static dyn Format,
                    )
                }
            };
            formats.insert(&spec.name, format);
        }
        self.recipe = recipe::of_formats(parameters.params(), |spec| formats[&spec.name])?.unwrap_or(self.recipe);
        for (why, names) in wider {
            let what = match &names[..] {
                [name] => format!("tensor `{name}` is kept as floats"),
                names => format!("{} tensors are kept as floats", names.len()),
            };
            let text = format!("{what}, 4 bytes per weight: {why}; name a recipe for another form");
            self.notices.push(format!("{}: {text}", self.shards.path().display()));
        }
        Ok(())
    }

    /// The values of a matrix that is packed so, and its integers where the recipe keeps them; its scales are read once.
    pub(super) fn integer_values<'a>(&'a self, scheme: Scheme, spec: &'a ParamSpec) -> Result<Values<'a>, Error> {
        let opened = Arc::new(OnceLock::<Matrix>::new());
        let get = move || match opened.get() {
            Some(_) => Ok(opened.clone()),
            None => scheme.matrix(&self.shards, spec).map(|matrix| {
                let _ = opened.set(matrix);
                opened.clone()
            }),
        };
        let with = get.clone();
        let values = move |rows| with().map(|opened| opened.get().expect("just set").values(rows));
        let format = self.recipe.format_of(spec)?.and_then(|format| format.grouped());
        let integers = format.map(|format| Integers {
            tensor: &spec.name,
            format,
            read: Box::new(move |rows| get().map(|opened| opened.get().expect("just set").integers(rows, format))),
        });
        let read_rows: ReadRows = Box::new(values.clone());
        Ok(Values {
            read_rows: Some(read_rows),
            integers,
            release: Box::new(move || scheme.release(&self.shards, spec)),
            ..Values::new(move || values(0..spec.rows))
        })
    }

    /// Whether a tensor is a bias of zeros, which older programs store beside packed matrices without bias.
    pub(super) fn is_empty_bias(&self, name: &str) -> Result<bool, Error> {
        let beside = name.strip_suffix("bias").is_some_and(|stem| self.has_packed(stem));
        Ok(beside && self.shards.floats(name)?.iter().all(|v| *v == 0.0))
    }

    /// Whether the matrix of a layer is packed as integers.
    pub(super) fn has_packed(&self, stem: &str) -> bool {
        self.integers.is_some_and(|scheme| scheme.is_packed(&self.shards, stem))
    }
}
