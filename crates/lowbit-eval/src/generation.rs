//! What answers took: tokens, times, energy.

use crate::meter::{EnergyMeter, Rapl};
use crate::record::Measure;
use lowbit_base::text::duration;
use lowbit_model::chat::{ChatError, ChatSession};
use lowbit_model::generate::Outcome;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// An answer and what it took.
pub struct Answer {
    /// Text, tokens, why it ended, times.
    pub outcome: Outcome,
    /// Energy of the CPU packages meanwhile, where it can be measured.
    pub joules: Option<f64>,
}

impl Answer {
    /// Says something in a chat, and measures the energy of the answer; `on_text` gets its text as it comes.
    ///
    /// # Errors
    /// As [`ChatSession::say`]; the chat is then as before.
    pub fn measured(
        session: &mut ChatSession,
        rapl: Option<&Rapl>,
        text: String,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Self, ChatError> {
        let mut meter = rapl.and_then(EnergyMeter::start);
        let outcome = session.say(text, on_text);
        let joules = meter.as_mut().and_then(EnergyMeter::joules);
        Ok(Answer { outcome: outcome?, joules })
    }

    /// Text, why it ended, and tokens, as the fields of an object.
    pub fn json(&self) -> Map<String, Value> {
        let Outcome { text, finish, tokens, stats, .. } = &self.outcome;
        let usage = json!({
            "prompt_tokens": stats.prompt_tokens,
            "cached_tokens": stats.cached_tokens,
            "completion_tokens": tokens.len(),
        });
        let fields = [("text", json!(text)), ("finish_reason", json!(finish.name())), ("usage", usage)];
        fields.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }
}

/// What some answers took together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Total {
    answers: usize,
    /// Tokens of the prompts, and those of them that were known already.
    prompt: usize,
    cached: usize,
    prompt_seconds: f64,
    ttft_seconds: f64,
    answered: usize,
    /// Tokens after the first of each answer, and the time for them.
    decoded: usize,
    decode_seconds: f64,
    drafted: usize,
    accepted: usize,
    /// `None` once an answer was not measured.
    joules: Option<f64>,
}

impl Total {
    /// Adds an answer.
    pub fn add(&mut self, answer: &Answer) {
        let stats = &answer.outcome.stats;
        self.joules = if self.answers == 0 { Some(0.0) } else { self.joules }.zip(answer.joules).map(|(a, b)| a + b);
        self.answers += 1;
        self.prompt += stats.prompt_tokens;
        self.cached += stats.cached_tokens;
        self.prompt_seconds += stats.prompt_seconds;
        self.ttft_seconds += stats.ttft_seconds;
        self.answered += answer.outcome.tokens.len();
        self.decoded += stats.decoded_tokens;
        self.decode_seconds += stats.decode_seconds;
        self.drafted += stats.drafted;
        self.accepted += stats.accepted;
    }

    /// Tokens per second, where both are known.
    fn rate(tokens: usize, seconds: f64) -> Option<f64> {
        (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
    }

    fn decode_rate(&self) -> Option<f64> {
        Self::rate(self.decoded, self.decode_seconds)
    }

    fn prefill_rate(&self) -> Option<f64> {
        Self::rate(self.prompt - self.cached, self.prompt_seconds)
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        if self.answers == 0 {
            return "no answer yet".into();
        }
        let rate = |rate: Option<f64>| rate.map_or(String::new(), |r| format!(", {r:.1} tokens/s"));
        let known = if self.cached > 0 { format!(" ({} known)", self.cached) } else { String::new() };
        let first = duration(self.ttft_seconds / self.answers as f64);
        let mut text = format!("prompt {} tokens{known}{}; ", self.prompt, rate(self.prefill_rate()));
        text += &format!("first token after {first}; answer {} tokens{}", self.answered, rate(self.decode_rate()));
        if self.drafted > 0 {
            text += &format!(", {} of {} drafted tokens accepted", self.accepted, self.drafted);
        }
        match self.joules {
            Some(joules) => text + &format!("; {joules:.2} J"),
            None => text + "; energy not measured",
        }
    }

    /// The measures of a record.
    pub fn measures(&self) -> BTreeMap<String, Measure> {
        let n = self.answers as u64;
        let first = (self.answered > 0).then(|| self.ttft_seconds / n as f64);
        let listed = [
            ("ttft_seconds", first, "seconds", n),
            ("decode_tokens_per_second", self.decode_rate(), "per_second", self.decoded as u64),
            ("prefill_tokens_per_second", self.prefill_rate(), "per_second", (self.prompt - self.cached) as u64),
            ("energy_joules", self.joules, "joules", n),
        ];
        let one = |(name, value, unit, n): (&str, Option<f64>, &str, u64)| {
            Some((name.to_string(), Measure::measured(value?, unit, n)))
        };
        listed.into_iter().filter_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Total;

    #[test]
    fn what_was_not_measured_is_absent() {
        let mut total = Total::default();
        assert_eq!((total.line().as_str(), total.measures().len()), ("no answer yet", 0));
        total.answers = 2;
        total.prompt = 10;
        total.cached = 10;
        total.answered = 32;
        total.decoded = 30;
        total.decode_seconds = 1.5;
        total.ttft_seconds = 0.2;
        let text = total.line();
        assert_eq!(
            text,
            "prompt 10 tokens (10 known); first token after 100.0 ms; answer 32 tokens, 20.0 tokens/s; energy not measured"
        );
        let names: Vec<_> = total.measures().into_keys().collect();
        assert_eq!(names, ["decode_tokens_per_second", "ttft_seconds"]);
        total.joules = Some(3.0);
        assert_eq!(total.measures()["energy_joules"].value, 3.0);
        assert!(total.line().ends_with("; 3.00 J"));
    }
}
