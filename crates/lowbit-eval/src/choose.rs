//! Multiple choice: the answer of a language model is the text that it gives the highest log-likelihood after a prompt.

use crate::question::Subject;
use crate::read::{Rows, Template};
use crate::record::{Measure, Record};
use crate::stats::wilson;
use crate::task::{Answers, Task};
use crate::{Error, classify, facts, language};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::language::predict;
use lowbit_model::{Checkpoint, Session, Tokenizer};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of the measures of choices: by log-likelihood, and by log-likelihood per byte of the choice.
pub static METRICS: &[&str] = &["accuracy", "accuracy_normalized"];

/// Settings of the question `choose`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choose {
    /// The text before a choice, made of the columns of a row.
    pub prompt: Template,
    /// The texts of the classes; the classes themselves when absent.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Stands between the prompt and a choice; one space when absent.
    #[serde(default = "space")]
    pub delimiter: String,
}

fn space() -> String {
    " ".into()
}

impl Choose {
    /// Refuses choices that are not those of the classes.
    pub(crate) fn check(&self, classes: &[String]) -> Result<(), String> {
        if !self.choices.is_empty() && self.choices.len() != classes.len() {
            return Err(format!("[choose] has {} choices for {} classes", self.choices.len(), classes.len()));
        }
        match self.choices.iter().find(|choice| choice.trim().is_empty()) {
            Some(choice) => Err(format!("[choose] choice {choice:?} is empty")),
            None => Ok(()),
        }
    }
}

impl Task {
    /// The texts of which one is to be chosen in a row.
    fn choices<'a>(&'a self, rows: &'a Rows, row: usize) -> &'a [String] {
        let of_task = self.choose.as_ref().map(|settings| &settings.choices).filter(|choices| !choices.is_empty());
        rows.choices.get(row).or(of_task).unwrap_or(&self.classes)
    }
}

/// A prompt with one of its choices.
struct Candidate {
    tokens: Vec<u32>,
    /// Tokens of the prompt; the others are predicted.
    given: usize,
}

/// The tokens of all rows, `[rows, choices]`.
struct Candidates {
    rows: Vec<Vec<Candidate>>,
    /// Rows whose prompt was cut at its beginning.
    cut: usize,
    /// Tokens of the longest.
    longest: usize,
}

impl Candidates {
    fn of(task: &Task, rows: &Rows, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let settings =
            task.choose.as_ref().ok_or_else(|| Error::usage(format!("task {} has no [choose]", task.name)))?;
        let delimiter = &settings.delimiter;
        let tokenizer = checkpoint.tokenizer()?;
        let (begin, most) = (language::begin(checkpoint, &tokenizer), checkpoint.model_config().max_length);
        let mut all = Candidates { rows: Vec::with_capacity(rows.len()), cut: 0, longest: 0 };
        for (row, prompt) in rows.texts().iter().enumerate() {
            let fail = |message: String| Error::data(format!("task {}: row {row}: {message}", task.name));
            let (mut candidates, mut is_cut) = (Vec::new(), false);
            for choice in task.choices(rows, row) {
                if choice.trim().is_empty() {
                    return Err(fail("a choice is empty".into()));
                }
                let mut candidate = Candidate::of(&tokenizer, begin, prompt, &format!("{delimiter}{choice}"))?;
                // The last token is predicted, not read.
                let over = candidate.tokens.len().saturating_sub(most.saturating_add(1));
                if over >= candidate.given {
                    return Err(fail(format!(
                        "choice {choice:?} alone has more than the {most} tokens the model sees"
                    )));
                }
                candidate.tokens.drain(..over);
                candidate.given -= over;
                is_cut |= over > 0;
                all.longest = all.longest.max(candidate.tokens.len());
                candidates.push(candidate);
            }
            all.cut += usize::from(is_cut);
            all.rows.push(candidates);
        }
        Ok(all)
    }
}

impl Candidate {
    /// The tokens of prompt and choice as one text, cut where the prompt alone would end (lm-eval, `TemplateLM._encode_pair`):
    /// spaces at the end of the prompt belong to the choice. At least one token is predicted, also where both end in the same.
    fn of(tokenizer: &Tokenizer, begin: Option<u32>, prompt: &str, choice: &str) -> Result<Self, Error> {
        let start = prompt.trim_end();
        let (spaces, begin) = (&prompt[start.len()..], Vec::from_iter(begin));
        let encode = |parts: &[&str]| tokenizer.encode_parts(&[(&parts.concat(), false)]);
        let tokens = [begin.clone(), encode(&[start, spaces, choice])?].concat();
        let given = (begin.len() + encode(&[start])?.len()).min(tokens.len() - 1);
        if given == 0 {
            return Err(Error::usage("the prompt is empty, and the model has no token that begins a text"));
        }
        Ok(Candidate { tokens, given })
    }
}

/// Log-likelihoods of continuations; what one begins with is not processed again for the next.
struct Continuations {
    session: Session,
    prompt: Vec<u32>,
    /// Logits after the prompt, `[vocabulary]`.
    logits: Vec<f32>,
}

impl Continuations {
    /// The natural logarithm of the probability of a choice after its prompt: the sum over its tokens.
    fn log_likelihood(&mut self, candidate: &Candidate) -> Result<f64, Error> {
        let (prompt, choice) = candidate.tokens.split_at(candidate.given);
        if prompt != self.prompt {
            let common = prompt.iter().zip(&self.prompt).take_while(|(a, b)| a == b).count();
            let kept = common.min(prompt.len() - 1);
            self.session.truncate(kept);
            self.logits = self.session.feed(&prompt[kept..])?.to_vec();
            self.prompt = prompt.to_vec();
        }
        let mut nats = predict(&self.logits, choice[0] as usize).nats;
        let read = &choice[..choice.len() - 1];
        if !read.is_empty() {
            self.session.truncate(prompt.len());
            let rows = self.session.feed_all(read)?.chunks_exact(self.logits.len());
            nats += rows.zip(&choice[1..]).map(|(row, token)| predict(row, *token as usize).nats).sum::<f64>();
        }
        Ok(-nats)
    }
}

/// Log-likelihoods of the choices of each row in nats, `[rows, choices]`, and how many rows have more tokens than the model sees,
/// so that their prompts were cut at the beginning.
///
/// # Errors
/// When the task does not ask to choose, a choice is empty or longer than the model sees, memory is short, or the predictions are
/// not finite.
pub fn log_likelihoods(task: &Task, rows: &Rows, subject: &Subject) -> Result<(Vec<Vec<f64>>, usize), Error> {
    let checkpoint = subject.checkpoint;
    let candidates = Candidates::of(task, rows, checkpoint)?;
    let need = checkpoint.need("score fewer rows with --limit, or take a recipe with fewer bits")?;
    checkpoint.parameters().with_sequences(need, CacheKind::F32, candidates.longest).check()?;
    let model = Arc::new(checkpoint.model()?);
    let session = Session::new(model, subject.cpu.clone(), candidates.longest);
    let mut continuations = Continuations { session, prompt: Vec::new(), logits: Vec::new() };
    let mut all = Vec::with_capacity(rows.len());
    for (row, candidates) in candidates.rows.iter().enumerate() {
        subject.cpu.stop.check()?;
        let of_row = candidates.iter().map(|candidate| continuations.log_likelihood(candidate));
        let of_row: Vec<f64> = of_row.collect::<Result<_, _>>()?;
        if of_row.iter().any(|value| !value.is_finite()) {
            let message = format!("the log-likelihoods of row {row} are not finite");
            return Err(Error::numeric(message).in_file(checkpoint.directory()));
        }
        all.push(of_row);
    }
    Ok((all, candidates.cut))
}

/// The record of a language model on rows with choices.
///
/// # Errors
/// As [`log_likelihoods`].
pub(crate) fn score(task: &Task, rows: &Rows, subject: &Subject) -> Result<Record, Error> {
    let checkpoint = subject.checkpoint;
    let (log_likelihoods, cut) = log_likelihoods(task, rows, subject)?;
    let answers = Answers::Choices(log_likelihoods);
    let mut record = classify::scored(task, rows, subject.name, checkpoint.recipe().name, answers)?;
    if cut > 0 {
        let (all, most) = (rows.len(), checkpoint.model_config().max_length);
        let text = format!("{cut} of {all} rows have more than the {most} tokens the model sees");
        record.detail.notices.push(format!("{text}, and were cut at the beginning of the prompt"));
    }
    facts::describe(&mut record, checkpoint)?;
    Ok(record)
}

/// The chosen text of each row, by log-likelihoods `[rows, choices]`, and by those per byte of a choice without the spaces around.
pub(crate) fn chosen(task: &Task, rows: &Rows, log_likelihoods: &[Vec<f64>]) -> [Vec<u16>; 2] {
    let best = |values: Vec<f64>| {
        let first = |best: usize, at: usize| if values[at] > values[best] { at } else { best };
        (0..values.len()).reduce(first).unwrap_or(0) as u16
    };
    let per_byte = |(row, of_row): (usize, &Vec<f64>)| {
        let bytes = task.choices(rows, row).iter().map(|choice| choice.trim().len() as f64);
        best(of_row.iter().zip(bytes).map(|(value, bytes)| value / bytes).collect())
    };
    let plain = log_likelihoods.iter().map(|of_row| best(of_row.clone())).collect();
    [plain, log_likelihoods.iter().enumerate().map(per_byte).collect()]
}

/// The measures of [`METRICS`] of answers, in that order.
pub(crate) fn measures(truths: &[u16], answers: &[Vec<u16>; 2]) -> BTreeMap<String, Measure> {
    let share = |answers: &Vec<u16>| {
        let (right, n) = (truths.iter().zip(answers).filter(|(a, b)| a == b).count() as u64, truths.len() as u64);
        let (lo, hi) = wilson(right, n);
        Measure::measured(right as f64 / n as f64, "fraction", n).between(lo, hi)
    };
    METRICS.iter().map(|name| name.to_string()).zip(answers.iter().map(share)).collect()
}
