//! Rotary positions in `config.json`: `rope_theta`, `rope_scaling` and `rope_parameters`, as transformers 5 reads them
//! (`RotaryEmbeddingConfigMixin`).

use super::keys::Keys;
use crate::Error;
use crate::container::show;
use crate::rope::{Dynamic, Linear, Llama3, LongRope, RopeScaling, Yarn};
use serde_json::{Map, Value};

/// The kinds that are read.
const KINDS: &str = "default, linear, dynamic, yarn, longrope, llama3";

/// What a `config.json` says about rotary positions.
#[derive(Debug, PartialEq)]
pub(crate) struct Rotary {
    /// Base.
    pub theta: f32,
    /// Scaling, unless it does nothing.
    pub scaling: Option<RopeScaling>,
}

/// One object of settings, under its key.
struct Settings<'a> {
    field: &'static str,
    keys: Keys<'a>,
}

/// Reads all spellings. `rope_scaling` comes before `rope_parameters`, what stands in them before what stands outside; one that
/// says nothing gives way, two that contradict each other are refused.
///
/// # Errors
/// Names key and value.
pub(crate) fn read(keys: &Keys, theta: f32, context: usize) -> Result<Rotary, Error> {
    let mut all = Vec::new();
    for field in ["rope_scaling", "rope_parameters"] {
        if let Some(map) = keys.object(field)? {
            all.push(Settings { field, keys: Keys::new(flat(field, map)?) });
        }
    }
    let theta = base(keys, &all, theta)?;
    let outer = number(keys, "original_max_position_embeddings")?;
    let mut scalings = Vec::new();
    for settings in &all {
        settings.whole_heads()?;
        scalings.push(settings.scaling(outer, context as f64)?);
    }
    whole(keys, "partial_rotary_factor")?;
    if let [first, second] = &scalings[..]
        && first != second
        && second.is_some()
    {
        let text = "and `rope_parameters` scale rotary positions in different ways; remove the one that is not meant";
        return Err(Error::config("rope_scaling", text));
    }
    Ok(Rotary { theta, scaling: scalings.into_iter().next().flatten() })
}

/// The settings themselves, where they stand under types of layers that all have the same.
fn flat<'a>(field: &str, map: &'a Map<String, Value>) -> Result<&'a Map<String, Value>, Error> {
    let nested: Vec<_> = map.iter().filter(|(key, _)| key.ends_with("_attention")).collect();
    let Some((first, settings)) = nested.first() else {
        return Ok(map);
    };
    if let Some((other, _)) = nested.iter().find(|(_, value)| value != settings) {
        let text = format!("differs between `{}` and `{}`; layers have one scaling here", show(first), show(other));
        return Err(Error::config(field, text));
    }
    settings.as_object().ok_or_else(|| Error::config(field, format!("has no object under `{}`", show(first))))
}

/// The base: the one inside the settings that transformers follows, which are the first, else the one outside, else the
/// family's. One that stands only in settings that give way is lost there, so it must be the same.
fn base(keys: &Keys, all: &[Settings], default: f32) -> Result<f32, Error> {
    let outer = keys.get::<f32>("rope_theta")?.map(|theta| ("rope_theta".to_string(), theta));
    let mut spelled = Vec::new();
    for settings in all {
        if let Some(theta) = settings.get::<f32>("rope_theta")? {
            spelled.push((format!("{}.rope_theta", settings.field), theta));
        }
    }
    let followed = all.first().map_or(Ok(None), |settings| settings.get::<f32>("rope_theta"))?;
    if followed.is_none() && outer.is_none() && !spelled.is_empty() {
        spelled.push(("rope_theta of rope_scaling, by default,".into(), default));
    }
    spelled.extend(outer);
    let Some((name, theta)) = spelled.first().cloned() else {
        return Ok(default);
    };
    match spelled.iter().find(|(_, other)| *other != theta) {
        None => Ok(theta),
        Some((other, value)) => {
            let text = format!("is {theta}, but `{other}` is {value}; remove the one that is not meant");
            Err(Error::config(&name, text))
        }
    }
}

fn number(keys: &Keys, key: &str) -> Result<Option<f64>, Error> {
    keys.get(key)
}

/// Sees that heads are rotated as a whole.
fn whole(keys: &Keys, key: &str) -> Result<(), Error> {
    match number(keys, key)?.filter(|factor| *factor != 1.0) {
        None => Ok(()),
        Some(factor) => Err(Error::config(key, format!("is {factor}; only whole heads are rotated"))),
    }
}

impl Settings<'_> {
    /// An error about a key is one about the settings.
    fn at<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|e| Error {
            message: e.message.replacen("config: `", &format!("config: `{}.", self.field), 1),
            ..e
        })
    }

    fn get<T: for<'de> serde::Deserialize<'de>>(&self, key: &str) -> Result<Option<T>, Error> {
        self.at(self.keys.get(key))
    }

    fn whole_heads(&self) -> Result<(), Error> {
        self.at(whole(&self.keys, "partial_rotary_factor"))
    }

    fn kind(&self) -> Result<String, Error> {
        let (newer, older) = (self.get::<String>("rope_type")?, self.get::<String>("type")?);
        if let (Some(newer), Some(older)) = (&newer, &older)
            && newer != older
        {
            let text = format!("has `rope_type` `{}` and `type` `{}`", show(newer), show(older));
            return Err(Error::config(self.field, format!("{text}; remove the one that is not meant")));
        }
        Ok(newer.or(older).unwrap_or_else(|| "default".into()))
    }

    fn need<T: for<'de> serde::Deserialize<'de>>(&self, kind: &str, key: &str) -> Result<T, Error> {
        self.get(key)?.ok_or_else(|| Error::config(self.field, format!("is of type {kind}, but has no `{key}`")))
    }

    /// The length of training. A key outside the settings is the one that transformers takes.
    fn original(&self, outer: Option<f64>, context: f64) -> Result<f64, Error> {
        let inner = self.get("original_max_position_embeddings")?;
        match (outer, inner) {
            (Some(outer), Some(inner)) if outer != inner => {
                let text = format!("is {outer}, but that of `{}` is {inner}", self.field);
                let text = format!("{text}; remove the one that is not meant");
                Err(Error::config("original_max_position_embeddings", text))
            }
            _ => Ok(outer.or(inner).unwrap_or(context)),
        }
    }

    fn scaling(&self, outer: Option<f64>, context: f64) -> Result<Option<RopeScaling>, Error> {
        let kind = self.kind()?;
        let original = || self.original(outer, context);
        let scaling = match kind.as_str() {
            "default" => return Ok(None),
            "linear" => RopeScaling::Linear(Linear { factor: self.need(&kind, "factor")? }),
            "proportional" => RopeScaling::Linear(Linear { factor: self.get("factor")?.unwrap_or(1.0) }),
            "dynamic" => RopeScaling::Dynamic(Dynamic {
                factor: self.need(&kind, "factor")?,
                original_max_position_embeddings: context,
            }),
            "yarn" => RopeScaling::Yarn(self.yarn(original()?, context)?),
            "longrope" => RopeScaling::LongRope(self.longrope(original()?, context)?),
            "llama3" => RopeScaling::Llama3(Llama3 {
                factor: self.need(&kind, "factor")?,
                low_freq_factor: self.need(&kind, "low_freq_factor")?,
                high_freq_factor: self.need(&kind, "high_freq_factor")?,
                original_max_position_embeddings: original()?,
            }),
            other => {
                let text = format!("is of type `{}`; supported: {KINDS}", show(other));
                return Err(Error::config(self.field, text));
            }
        };
        Ok((!scaling.is_idle()).then_some(scaling))
    }

    fn yarn(&self, original: f64, context: f64) -> Result<Yarn, Error> {
        if !self.keys.has("factor") {
            return Err(Error::config(self.field, "is of type yarn, but has no `factor`"));
        }
        let factor = self.get("factor")?.unwrap_or(context / original);
        // Zero counts as absent, as in Python.
        let given = |key: &str| Ok::<_, Error>(self.get::<f64>(key)?.filter(|v| *v != 0.0));
        let grown = |scale: f64, by: f64| if scale <= 1.0 { 1.0 } else { 0.1 * by * scale.ln() + 1.0 };
        let attention = match (given("mscale")?, given("mscale_all_dim")?) {
            (Some(over), Some(under)) => grown(factor, over) / grown(factor, under),
            _ => grown(factor, 1.0),
        };
        Ok(Yarn {
            factor,
            original_max_position_embeddings: original,
            attention_factor: self.get("attention_factor")?.unwrap_or(attention),
            beta_fast: given("beta_fast")?.unwrap_or(32.0),
            beta_slow: given("beta_slow")?.unwrap_or(1.0),
            truncate: self.get("truncate")?.unwrap_or(true),
        })
    }

    fn longrope(&self, original: f64, context: f64) -> Result<LongRope, Error> {
        let factor = self.get("factor")?.unwrap_or(context / original);
        let attention = if factor <= 1.0 { 1.0 } else { (1.0 + f64::ln(factor) / original.ln()).sqrt() };
        Ok(LongRope {
            short_factor: self.need("longrope", "short_factor")?,
            long_factor: self.need("longrope", "long_factor")?,
            original_max_position_embeddings: original,
            attention_factor: self.get("attention_factor")?.unwrap_or(attention),
        })
    }
}
