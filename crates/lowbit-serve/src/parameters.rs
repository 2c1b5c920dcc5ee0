//! Parameters that chats and completions share, and the values they may have.

use crate::app::App;
use crate::refusal::Refusal;
use lowbit_model::generate::Sampling;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use utoipa::ToSchema;

/// Texts that end an answer, at most.
const STOPS: usize = 4;
/// Bytes of such a text, at most.
const STOP_BYTES: usize = 64;
/// Tokens that may be made more or less likely.
const BIASED: usize = 1024;
/// Most likely tokens that may be told beside each.
pub(crate) const TOP_LOGPROBS: i64 = 20;

/// One text or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn all(self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

/// What the stream tells beside the answer.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// Tell the tokens of prompt and answer in a last piece.
    #[serde(default)]
    pub include_usage: Option<bool>,
    /// Taken for compatibility.
    #[serde(default, rename = "include_obfuscation")]
    pub _include_obfuscation: Option<bool>,
}

/// Adds the parameters that all requests for answers share to a request of its own fields.
macro_rules! core_request {
    ($(#[$meta:meta])* struct $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($own)*
            /// The model's name; there is one model, so that it may be left out.
            #[serde(default)]
            pub model: Option<String>,
            /// Randomness of the answer; 0 takes the most likely token.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 2)]
            pub temperature: Option<f64>,
            /// Draw from the fewest tokens that have this much probability together.
            #[serde(default)]
            #[schema(exclusive_minimum = 0, maximum = 1)]
            pub top_p: Option<f64>,
            /// Send the answer as it comes.
            #[serde(default)]
            pub stream: Option<bool>,
            /// Taken for compatibility.
            #[serde(default, rename = "metadata")]
            #[schema(value_type = Option<Object>)]
            pub _metadata: Option<serde_json::Value>,
            /// Taken for compatibility.
            #[serde(default, rename = "service_tier")]
            pub _service_tier: Option<String>,
        }
    };
}
pub(crate) use core_request;

/// Adds the parameters that chats and completions share to a request of its own fields.
macro_rules! request {
    ($(#[$meta:meta])* struct $name:ident { $($own:tt)* }) => {
        crate::parameters::core_request! { $(#[$meta])* struct $name {
            $($own)*
            /// Draw from this many tokens; 0 or -1 from all.
            #[serde(default)]
            #[schema(minimum = -1, maximum = 1_000_000)]
            pub top_k: Option<i64>,
            /// Draw from tokens that have at least this share of the best one's probability.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1)]
            pub min_p: Option<f64>,
            /// Divide the logits of tokens that occurred lately by this.
            #[serde(default)]
            #[schema(minimum = 0.1, maximum = 10)]
            pub repetition_penalty: Option<f64>,
            /// Subtract this from the logits of tokens that the answer holds.
            #[serde(default)]
            #[schema(minimum = -2, maximum = 2)]
            pub presence_penalty: Option<f64>,
            /// Subtract this from the logit of a token for each time the answer holds it.
            #[serde(default)]
            #[schema(minimum = -2, maximum = 2)]
            pub frequency_penalty: Option<f64>,
            /// Add to the logits of tokens, by their numbers.
            #[serde(default)]
            pub logit_bias: Option<std::collections::BTreeMap<String, f64>>,
            /// Seed of the draws: the same request has the same answer.
            #[serde(default)]
            pub seed: Option<i64>,
            /// Texts that end the answer; at most 4 of 64 bytes.
            #[serde(default)]
            pub stop: Option<crate::parameters::OneOrMany>,
            /// Answers, each with draws of its own.
            #[serde(default)]
            #[schema(minimum = 1, maximum = 8)]
            pub n: Option<i64>,
            /// What the stream tells beside it.
            #[serde(default)]
            pub stream_options: Option<crate::parameters::StreamOptions>,
            /// Taken for compatibility.
            #[serde(default, rename = "user")]
            #[schema(value_type = Option<String>)]
            pub _user: Option<serde_json::Value>,
        } }

        impl $name {
            /// How tokens are drawn for each answer.
            pub fn drawing(&self, app: &crate::app::App) -> Result<crate::parameters::Drawing, crate::refusal::Refusal> {
                crate::parameters::Asked {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    repetition_penalty: self.repetition_penalty,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    logit_bias: self.logit_bias.as_ref(),
                    seed: self.seed,
                    stop: self.stop.clone(),
                    n: self.n,
                }
                .check(app)
            }

            /// Whether the answer is streamed, and whether its last piece tells the tokens.
            pub fn streams(&self) -> Result<(bool, bool), crate::refusal::Refusal> {
                let stream = self.stream.unwrap_or(false);
                if self.stream_options.is_some() && !stream {
                    let text = "stream_options go with `stream`: true";
                    return Err(crate::refusal::Refusal::field("stream_options", text));
                }
                Ok((stream, self.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false)))
            }
        }
    };
}
pub(crate) use request;

/// Shared parameters as they came.
#[derive(Default)]
pub(crate) struct Asked<'a> {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<i64>,
    pub min_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub logit_bias: Option<&'a BTreeMap<String, f64>>,
    pub seed: Option<i64>,
    pub stop: Option<OneOrMany>,
    pub n: Option<i64>,
}

/// How each answer is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    sampling: Sampling,
    /// Texts that end the answers.
    pub stop: Vec<String>,
    /// Answers to each prompt.
    pub choices: usize,
}

impl Drawing {
    /// Draws of one answer: each has a seed of its own.
    pub fn sampling(&self, choice: usize) -> Sampling {
        Sampling { seed: self.sampling.seed.wrapping_add(choice as u64), ..self.sampling.clone() }
    }
}

impl Asked<'_> {
    /// What the parameters mean.
    ///
    /// # Errors
    /// When one is out of its range; names it.
    pub fn check(self, app: &App) -> Result<Drawing, Refusal> {
        let base = &app.served.writer()?.sampling;
        let float = |name, value: Option<f64>, range: RangeInclusive<f64>, default: f32| match value {
            None => Ok(default),
            Some(value) => within(name, value, &range).map(|value| value as f32),
        };
        let top_p = float("top_p", self.top_p, 0.0..=1.0, base.top_p)?;
        if top_p <= 0.0 {
            return Err(Refusal::field("top_p", "top_p is 0; it must be more, up to 1"));
        }
        let top_k = whole("top_k", self.top_k, -1..=1_000_000)?.map(|k| usize::try_from(k).unwrap_or(0));
        let choices = whole("n", self.n, 1..=app.settings.limits.choices as i64)?.unwrap_or(1) as usize;
        let sampling = Sampling {
            temperature: float("temperature", self.temperature, 0.0..=2.0, base.temperature)?,
            top_k: top_k.unwrap_or(base.top_k),
            top_p,
            min_p: float("min_p", self.min_p, 0.0..=1.0, base.min_p)?,
            repetition_penalty: float(
                "repetition_penalty",
                self.repetition_penalty,
                0.1..=10.0,
                base.repetition_penalty,
            )?,
            presence_penalty: float("presence_penalty", self.presence_penalty, -2.0..=2.0, base.presence_penalty)?,
            frequency_penalty: float("frequency_penalty", self.frequency_penalty, -2.0..=2.0, base.frequency_penalty)?,
            bias: bias(self.logit_bias, app.served.vocabulary())?,
            seed: self.seed.map_or_else(|| app.number(), |seed| seed as u64),
            ..base.clone()
        };
        Ok(Drawing { sampling, stop: stops(self.stop)?, choices })
    }
}

/// A whole number within a range.
///
/// # Errors
/// When it is outside.
pub(crate) fn whole(name: &str, value: Option<i64>, range: RangeInclusive<i64>) -> Result<Option<i64>, Refusal> {
    value.map(|value| within(name, value, &range)).transpose()
}

fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, range: &RangeInclusive<T>) -> Result<T, Refusal> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(Refusal::field(name, format!("{name} is {value}; it must lie in {}..={}", range.start(), range.end())))
}

fn stops(stop: Option<OneOrMany>) -> Result<Vec<String>, Refusal> {
    let stops = stop.map_or_else(Vec::new, OneOrMany::all);
    let bad = |text: String| Err(Refusal::field("stop", text));
    if stops.len() > STOPS {
        return bad(format!("stop has {} texts; at most {STOPS} are taken", stops.len()));
    }
    match stops.iter().find(|stop| !(1..=STOP_BYTES).contains(&stop.len())) {
        Some(stop) => bad(format!("a text of stop has {} bytes; it must have 1 to {STOP_BYTES}", stop.len())),
        None => Ok(stops),
    }
}

fn bias(asked: Option<&BTreeMap<String, f64>>, vocabulary: usize) -> Result<Vec<(u32, f32)>, Refusal> {
    let Some(asked) = asked else { return Ok(Vec::new()) };
    let bad = |text: String| Refusal::field("logit_bias", text);
    if asked.len() > BIASED {
        return Err(bad(format!("logit_bias has {} tokens; at most {BIASED} are taken", asked.len())));
    }
    let mut out = Vec::with_capacity(asked.len());
    for (token, bias) in asked {
        let id = token.parse::<u32>().ok().filter(|id| (*id as usize) < vocabulary);
        let shown: String = token.chars().take(20).collect();
        let id = id.ok_or_else(|| {
            bad(format!(
                "logit_bias names token `{shown}`; tokens of this model are the numbers 0 to {}",
                vocabulary - 1
            ))
        })?;
        if !(-100.0..=100.0).contains(bias) {
            return Err(bad(format!("logit_bias of token {id} is {bias}; it must lie in -100..=100")));
        }
        out.push((id, *bias as f32));
    }
    // Two spellings of a number are one token.
    out.sort_unstable_by_key(|(id, _)| *id);
    match out.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(bad(format!("logit_bias names token {} twice", pair[0].0))),
        None => Ok(out),
    }
}
