//! Rotary positions in a GGUF file: the keys `rope.scaling.*` and the tensors of divisors, as llama.cpp obeys them.

use super::gguf::ArchKeys;
use crate::Error;
use crate::container::gguf::{Field, Gguf};
use crate::container::show;
use crate::rope::{Linear, Llama3, LongRope, RopeScaling, Yarn};
use lowbit_kernels::ops::base_frequencies;

/// Divisors of the frequencies, whatever the length of a sequence.
pub(crate) const FREQS: &str = "rope_freqs.weight";
/// Divisors of the frequencies in sequences up to the length of training, and beyond.
pub(crate) const SHORT: &str = "rope_factors_short.weight";
pub(crate) const LONG: &str = "rope_factors_long.weight";
const TYPE: &str = "rope.scaling.type";
const FACTOR: &str = "rope.scaling.factor";
/// The factor in older files.
const SCALE: &str = "rope.scale_linear";
const ATTENTION: &str = "rope.scaling.attn_factor";
const LENGTH: &str = "rope.scaling.original_context_length";
/// Length of training and bounds of most scaled Llama 3, which its divisors do not tell.
const LLAMA3: (f64, f64, f64) = (8192.0, 1.0, 4.0);
/// Turns between which llama.cpp ramps under YaRN.
const RAMP: (f64, f64) = (32.0, 1.0);

/// What a network's positions are in GGUF: pairs of metadata without the name of the architecture, and tensors.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub fields: Vec<(&'static str, Field)>,
    pub tensors: Vec<(&'static str, Vec<f32>)>,
}

/// A rotary base and the width of a head.
#[derive(Clone, Copy)]
pub(super) struct Base {
    pub theta: f32,
    pub head_dim: usize,
    /// Longest sequence, tokens.
    pub context: usize,
}

impl Base {
    /// Divisors that leave every frequency as it is, `[head_dim / 2]`.
    fn ones(self) -> Vec<f64> {
        vec![1.0; self.head_dim / 2]
    }
}

/// The scaling of rotary positions that a file asks for; `None` when it leaves them as they are.
///
/// # Errors
/// Names file, key or tensor, and value.
pub(super) fn read(keys: &ArchKeys, base: Base) -> Result<Option<RopeScaling>, Error> {
    let stated = Stated::read(keys, base)?;
    let scaling = match (stated.kind, divisors(keys.file, FREQS, base.head_dim)?) {
        ("none" | "linear", found) => stated.linear(found, base),
        ("yarn", found) => stated.yarn(found, base),
        ("longrope", None) => {
            let of =
                |name: &str| Ok::<_, Error>(divisors(keys.file, name, base.head_dim)?.unwrap_or_else(|| base.ones()));
            RopeScaling::LongRope(LongRope {
                short_factor: times(of(SHORT)?, stated.factor),
                long_factor: times(of(LONG)?, stated.factor),
                original_max_position_embeddings: stated.length,
                attention_factor: stated.attention,
            })
        }
        ("longrope", Some(_)) => {
            let text = format!("tensor `{FREQS}` stands beside metadata `{}` `longrope`", keys.key(TYPE));
            return Err(Error::input(keys.file.path(), text));
        }
        (other, _) => {
            return Err(keys.fault(TYPE, format!("is `{}`; known: none, linear, yarn, longrope", show(other))));
        }
    };
    Ok((!scaling.is_idle()).then_some(scaling))
}

/// The keys `rope.scaling.*` of a file.
struct Stated<'a> {
    kind: &'a str,
    /// 1 where positions stay as they are.
    factor: f64,
    attention: f64,
    /// Length of training, tokens.
    length: f64,
}

impl<'a> Stated<'a> {
    fn read(keys: &ArchKeys<'a>, base: Base) -> Result<Self, Error> {
        let file = keys.file;
        let positive = |end: &str| {
            let given = file.number(&keys.key(end))?.map(f64::from).filter(|value| *value != 0.0);
            match given.filter(|value| !(value.is_finite() && *value > 0.0)) {
                Some(value) => Err(keys.fault(end, format!("is {value}; it must be a positive number"))),
                None => Ok(given),
            }
        };
        let (scaled, attention) = (positive(FACTOR)?, positive(ATTENTION)?.unwrap_or(1.0));
        let factor = scaled.map_or_else(|| positive(SCALE), |factor| Ok(Some(factor)))?.unwrap_or(1.0);
        let length = file.count(&keys.key(LENGTH))?.filter(|length| *length > 0).unwrap_or(base.context) as f64;
        let kind = file.text(&keys.key(TYPE))?.unwrap_or("linear");
        Ok(Stated { kind, factor: if kind == "none" { 1.0 } else { factor }, attention, length })
    }

    /// Divisors that are the same for every length.
    fn fixed(&self, divisors: Vec<f64>, attention_factor: f64) -> RopeScaling {
        RopeScaling::LongRope(LongRope {
            short_factor: divisors.clone(),
            long_factor: divisors,
            original_max_position_embeddings: self.length,
            attention_factor,
        })
    }

    fn linear(&self, found: Option<Vec<f64>>, base: Base) -> RopeScaling {
        match found {
            None if self.attention == 1.0 => RopeScaling::Linear(Linear { factor: self.factor }),
            Some(divisors) if self.factor == 1.0 && self.attention == 1.0 => {
                llama3(&divisors, base).unwrap_or_else(|| self.fixed(divisors, 1.0))
            }
            found => self.fixed(times(found.unwrap_or_else(|| base.ones()), self.factor), self.attention),
        }
    }

    fn yarn(&self, found: Option<Vec<f64>>, base: Base) -> RopeScaling {
        let yarn = Yarn {
            factor: self.factor,
            original_max_position_embeddings: self.length,
            attention_factor: self.attention * magnitude(self.factor),
            beta_fast: RAMP.0,
            beta_slow: RAMP.1,
            truncate: true,
        };
        let Some(divisors) = found else { return RopeScaling::Yarn(yarn) };
        let ramp = effective(&RopeScaling::Yarn(yarn), base);
        self.fixed(divisors.iter().zip(ramp).map(|(a, b)| a * b).collect(), yarn.attention_factor)
    }
}

fn times(divisors: Vec<f64>, factor: f64) -> Vec<f64> {
    divisors.iter().map(|d| d * factor).collect()
}

/// The factor of rotated values that YaRN has beside its own (arXiv 2309.00071, section 3.4).
fn magnitude(factor: f64) -> f64 {
    if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 }
}

/// The divisors of a tensor, one per pair, if it is there.
fn divisors(file: &Gguf, name: &str, head_dim: usize) -> Result<Option<Vec<f64>>, Error> {
    let Some(tensor) = file.tensor(name) else {
        return Ok(None);
    };
    let at = |text: String| Error::input(file.path(), format!("tensor `{name}` {text}"));
    let values = file.floats(tensor)?;
    if values.len() != head_dim / 2 {
        return Err(at(format!("has {} elements; heads of {head_dim} have {} pairs", values.len(), head_dim / 2)));
    }
    match values.iter().position(|value| !(value.is_finite() && *value > 0.0)) {
        Some(i) => Err(at(format!("holds {} at index {i}; a divisor is a positive number", values[i]))),
        None => Ok(Some(values.into_iter().map(f64::from).collect())),
    }
}

/// The scaling of Llama 3 that divides so, if one does.
fn llama3(divisors: &[f64], base: Base) -> Option<RopeScaling> {
    let (original_max_position_embeddings, low_freq_factor, high_freq_factor) = LLAMA3;
    let factor = divisors.iter().fold(1f64, |m, v| m.max(*v));
    let scaling =
        RopeScaling::Llama3(Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings });
    let near = |(a, b): (&f64, f64)| (a - b).abs() <= 1e-3 * b;
    divisors.iter().zip(effective(&scaling, base)).all(near).then_some(scaling)
}

/// What each rotary frequency is divided by in sequences up to the length of training, `[head_dim / 2]`.
fn effective(scaling: &RopeScaling, base: Base) -> Vec<f64> {
    let (scaled, _) = scaling.frequencies(base.theta.into(), base.head_dim);
    base_frequencies(base.theta.into(), base.head_dim).iter().zip(scaled).map(|(base, scaled)| base / scaled).collect()
}

/// A scaling as GGUF has it; `tensors` says whether the architecture has tensors of divisors.
///
/// # Errors
/// What llama.cpp has no such positions for.
pub(super) fn write(scaling: &RopeScaling, base: Base, tensors: bool) -> Result<Written, String> {
    let f32s = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<_>>();
    let mut written = Written::default();
    let (number, text) = (|value: f64| Field::F32(value as f32), |text: &str| Field::Text(text.into()));
    let length = |tokens: f64| (LENGTH, Field::U32(tokens as u32));
    match scaling {
        RopeScaling::Linear(s) => written.fields.extend([(TYPE, text("linear")), (FACTOR, number(s.factor))]),
        RopeScaling::Yarn(s) if (s.beta_fast, s.beta_slow) == RAMP && s.truncate => written.fields.extend([
            (TYPE, text("yarn")),
            (FACTOR, number(s.factor)),
            (ATTENTION, number(s.attention_factor / magnitude(s.factor))),
            length(s.original_max_position_embeddings),
        ]),
        RopeScaling::Llama3(_) if tensors => written.tensors.push((FREQS, f32s(&effective(scaling, base)))),
        RopeScaling::LongRope(s) if tensors => {
            written.fields.push((ATTENTION, number(s.attention_factor)));
            if s.short_factor == s.long_factor {
                written.tensors.push((FREQS, f32s(&s.short_factor)));
            } else {
                written.fields.extend([(TYPE, text("longrope")), length(s.original_max_position_embeddings)]);
                written.tensors.extend([(SHORT, f32s(&s.short_factor)), (LONG, f32s(&s.long_factor))]);
            }
        }
        RopeScaling::Yarn(s) => {
            let text = format!("ramps from {} to {} turns", s.beta_fast, s.beta_slow);
            return Err(format!("YaRN {text}, and not from {} to {} at whole pairs", RAMP.0, RAMP.1));
        }
        RopeScaling::Dynamic(_) => return Err("the base of the rotary positions grows with the sequence".into()),
        RopeScaling::Llama3(_) | RopeScaling::LongRope(_) => {
            return Err("each rotary frequency has a divisor of its own".into());
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_are_those_of_llama_3() {
        // Llama 3.2 1B: factor 32, head of 64; ends and middle of what llama.cpp's converter writes.
        let (original_max_position_embeddings, low_freq_factor, high_freq_factor) = LLAMA3;
        let numbers = Llama3 { factor: 32.0, low_freq_factor, high_freq_factor, original_max_position_embeddings };
        let base = Base { theta: 500_000.0, head_dim: 64, context: 131_072 };
        let scaling = RopeScaling::Llama3(numbers);
        let divisors = effective(&scaling, base);
        assert_eq!((divisors.len(), divisors[0], divisors[31]), (32, 1.0, 32.0));
        assert!(divisors.windows(2).all(|pair| pair[0] <= pair[1]) && divisors.iter().any(|d| *d > 1.0 && *d < 32.0));
        assert_eq!(llama3(&divisors, base), Some(scaling));
        assert_eq!(llama3(&[2.0; 32], base), None);
    }
}
