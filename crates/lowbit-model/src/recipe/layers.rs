//! Layers of the body in formats of their own: `layers.0-3=int8_channel`, and `layers.0-3.down_proj=int8_channel` for one kind of
//! matrix in them, which goes before what is said of whole layers.

use super::{ActivationPrecision, Recipe};
use crate::Error;
use crate::container::show;
use crate::source::{ParamSpec, Role};
use lowbit_base::alternatives;
use lowbit_kernels::Format;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the name of such a part begins with.
pub(super) const PART: &str = "layers.";
/// Largest number of a layer.
const LAST: usize = crate::arch::MAX_LAYERS - 1;
/// Matrices that a spelling names at most, counted layer by layer.
const MOST: usize = 1 << 16;

/// Layers, or one kind of matrix in them, in a format other than that of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerFormat {
    /// The first layer, counted from 0.
    pub first: usize,
    /// The last layer.
    pub last: usize,
    /// The kind of matrix, `down_proj`; `None` for all of a layer that no other entry names.
    pub matrix: Option<&'static str>,
    /// Format of the matrices.
    pub format: &'static str,
    /// Inputs of their products.
    pub activations: ActivationPrecision,
}

impl Recipe {
    /// What stands in [`Recipe::layers`] for a parameter.
    pub(super) fn layer(&self, spec: &ParamSpec) -> Option<&'static LayerFormat> {
        if self.layers.is_empty() || spec.role != Role::Body {
            return None;
        }
        let (layer, matrix) = spec.place()?;
        let entry =
            |kind: Option<&str>| self.layers.iter().find(|l| (l.first..=l.last).contains(&layer) && l.matrix == kind);
        entry(Some(matrix)).or_else(|| entry(None))
    }

    /// Sees that a network has the layers and matrices of [`Recipe::layers`].
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind) naming the part, and what the network has.
    pub fn check(&self, params: &[ParamSpec]) -> Result<(), Error> {
        if self.layers.is_empty() {
            return Ok(());
        }
        let places = || params.iter().filter(|spec| spec.role == Role::Body).filter_map(ParamSpec::place);
        let count = places().map(|(layer, _)| layer + 1).max().unwrap_or(0);
        for entry in self.layers {
            let part = Run { place: (entry.first, entry.last, entry.matrix), format: entry.format };
            let part = part.to_string();
            let wrong = |what: String| Err(Error::usage(format!("recipe `{}`: `{}`: {what}", self.name, &part[1..])));
            match count {
                0 => return wrong("the model has no layers".into()),
                _ if entry.last < count => {}
                1 => return wrong("the model has 1 layer, number 0".into()),
                _ => return wrong(format!("the model has {count} layers, 0 to {}", count - 1)),
            }
            let inside = || places().filter(|(layer, _)| (entry.first..=entry.last).contains(layer));
            if let Some(matrix) = entry.matrix.filter(|asked| !inside().any(|(_, matrix)| matrix == *asked)) {
                let known: BTreeSet<&str> = inside().map(|(_, matrix)| matrix).filter(|m| !m.is_empty()).collect();
                return match known.is_empty() {
                    true => wrong("a layer of the model is one matrix: leave its name out".into()),
                    false => wrong(format!("its layers have no matrix `{matrix}`{}", alternatives(matrix, known))),
                };
            }
        }
        Ok(())
    }
}

/// Layers as a spelling names them.
#[derive(Default)]
pub(super) struct Layers<'a> {
    given: BTreeMap<(Option<&'a str>, usize), &'static dyn Format>,
}

/// Layers in a row with the same format: `+layers.FIRST-LAST.MATRIX=FORMAT` in a spelling.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// First and last layer, and the kind of matrix in them.
    place: (usize, usize, Option<&'a str>),
    format: &'static str,
}

impl<'a> Layers<'a> {
    /// Adds a part, whose name is given without [`PART`].
    ///
    /// # Errors
    /// A sentence naming what is wrong in it.
    pub fn add(&mut self, place: &'a str, format: &'static dyn Format) -> Result<(), String> {
        let (range, matrix) = place.split_once('.').map_or((place, None), |(range, matrix)| (range, Some(matrix)));
        let shown = || show(place);
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse().ok().filter(|layer| *layer <= LAST),
            false => None,
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(format!(
                "`{PART}{}` needs a layer or a range of layers from 0 to {LAST}, such as {PART}0-3",
                shown()
            ));
        };
        if first > last {
            return Err(format!("`{PART}{}` ends before it begins", shown()));
        }
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        if matrix.is_some_and(|name| name.is_empty() || !name.bytes().all(plain)) {
            return Err(format!(
                "`{PART}{}` names no matrix: write the last part of its name, such as {PART}0-3.down_proj",
                shown()
            ));
        }
        for layer in first..=last {
            if self.given.insert((matrix, layer), format).is_some() {
                let of = matrix.map_or(String::new(), |matrix| format!(" for `{matrix}`"));
                return Err(format!("layer {layer} stands twice{of}"));
            }
        }
        match self.given.len() <= MOST {
            true => Ok(()),
            false => Err(format!("names more than {MOST} matrices")),
        }
    }

    /// What differs from the rest of a recipe, in order.
    pub fn runs(&self, recipe: &Recipe) -> Vec<Run<'a>> {
        let is_body = |format: &dyn Format| {
            let activations = ActivationPrecision::beside(format, recipe.activations);
            format.name() == recipe.body && activations == recipe.activations
        };
        let mut runs: Vec<Run<'a>> = Vec::new();
        for ((matrix, layer), format) in &self.given {
            let whole = matrix.and_then(|_| self.given.get(&(None, *layer)));
            let same = whole.map_or_else(|| is_body(*format), |whole| whole.name() == format.name());
            if same {
                continue;
            }
            match runs.last_mut() {
                Some(run) if (run.place.2, run.format) == (*matrix, format.name()) && run.place.1 + 1 == *layer => {
                    run.place.1 = *layer;
                }
                _ => runs.push(Run { place: (*layer, *layer, *matrix), format: format.name() }),
            }
        }
        runs.sort_by_key(|run| (run.place.0, run.place.2, run.place.1));
        runs
    }
}

impl Run<'_> {
    /// The entry of a recipe whose body gets such activations, which lives as long as the program.
    pub fn leak(self, body: ActivationPrecision) -> LayerFormat {
        let (first, last, matrix) = self.place;
        let format = super::known(self.format).expect("a format by its own name");
        let matrix = matrix.map(|matrix| &*matrix.to_string().leak());
        let activations = ActivationPrecision::beside(format, body);
        LayerFormat { first, last, matrix, format: self.format, activations }
    }
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last, matrix) = self.place;
        write!(f, "+{PART}{first}")?;
        if last > first {
            write!(f, "-{last}")?;
        }
        if let Some(matrix) = matrix {
            write!(f, ".{matrix}")?;
        }
        write!(f, "={}", self.format)
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::find;

    #[test]
    fn layers_are_spelled_in_one_way() {
        for (text, canonical) in [
            ("nf4+layers.0-3=int8_channel+layers.11=f32", "nf4+layers.0-3=int8_channel+layers.11=f32"),
            ("nf4+layers.11=f32+layers.2-3=int4+layers.0-1=int4", "nf4+layers.0-3=int4+layers.11=f32"),
            ("nf4+layers.0-1=int4+layers.2=nf4+layers.3=int4", "nf4+layers.0-1=int4+layers.3=int4"),
            ("nf4+layers.0-3=nf4", "nf4"),
            ("nf4+layers.007=int4", "nf4+layers.7=int4"),
            ("int4+act=f32+layers.0=int4", "int4+act=f32+layers.0=int4"),
            ("nf4+layers.0.down_proj=int4+layers.0=int2", "nf4+layers.0=int2+layers.0.down_proj=int4"),
            ("nf4+layers.0-1.down_proj=int4+layers.1=int4", "nf4+layers.0.down_proj=int4+layers.1=int4"),
            ("nf4+layers.0.down_proj=nf4+layers.0=int2", "nf4+layers.0=int2+layers.0.down_proj=nf4"),
            ("nf4+layers.0=int4+head=int4", "nf4+head=int4+layers.0=int4"),
        ] {
            let recipe = find(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(recipe.name, canonical, "{text}");
            assert!(std::ptr::eq(recipe, find(canonical).unwrap()), "{text}: one recipe for each spelling");
        }
    }

    #[test]
    fn wrong_layers_are_refused() {
        for (text, said) in [
            ("nf4+layers.0-3=int5", "part `layers.0-3` cannot be `int5`; did you mean `int"),
            ("nf4+layers.=int4", "`layers.` needs a layer or a range of layers from 0 to 4095, such as layers.0-3"),
            ("nf4+layers.x=int4", "`layers.x` needs a layer"),
            ("nf4+layers.-1=int4", "`layers.-1` needs a layer"),
            ("nf4+layers.+1=int4", "`layers.` is not PART=VALUE"),
            ("nf4+layers.0-99999999999999999999=int4", "needs a layer"),
            ("nf4+layers.4096=int4", "needs a layer"),
            ("nf4+layers.3-1=int4", "`layers.3-1` ends before it begins"),
            ("nf4+layers.0-3=int4+layers.3=int2", "layer 3 stands twice"),
            ("nf4+layers.0-3.q_proj=int4+layers.2.q_proj=int4", "layer 2 stands twice for `q_proj`"),
            ("nf4+layers.0.=int4", "`layers.0.` names no matrix"),
            ("nf4+layers.0.mlp.down_proj=int4", "`layers.0.mlp.down_proj` names no matrix"),
            ("nf4+layers=int4", "unknown part `layers`; did you mean"),
            ("nf4+layer.0=int4", "unknown part `layer.0`"),
        ] {
            let error = find(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        let many: String = (0..17).map(|i| format!("+layers.0-4095.m{i}=int4")).collect();
        assert!(find(&format!("nf4{many}")).unwrap_err().to_string().contains("more than 65536"), "bounded");
    }
}
