//! Answers that a language model writes: the prompts of a batch share the passes of one engine.

use crate::Error;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::chat::{self, AnswerOptions, ChatError, ChatModel, Message, PromptFormat, Role};
use lowbit_model::engine::{Engine, Event, Id, Passes, Settings};
use lowbit_model::generate::{Draft, Outcome, Sampling};
use lowbit_model::{Checkpoint, Sequences};
use std::collections::BTreeMap;

/// Bytes of keys and values that are kept of prompts that begin alike.
const KEPT: usize = 256 << 20;
/// Tokens of prompts in a step in which answers go on.
const CHUNK: usize = 256;

/// How answers are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Tokens of an answer at most; all that the context has room for, if none are given.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn; each row has the seed plus its number.
    pub sampling: Sampling,
    /// Instructions to the model, before each prompt.
    pub system: Option<String>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Whether prompts go through the model's chat template, where it has one.
    pub chats: bool,
    /// Answers at a time.
    pub parallel: usize,
    /// Tokens of prompt and answer together; 0 for all that the model was trained for; by default these, at most 4096.
    pub context: Option<usize>,
    /// How keys and values are stored.
    pub cache: CacheKind,
    /// How tokens are guessed ahead.
    pub draft: Option<Draft>,
}

impl Default for Generation {
    /// The most likely tokens, by the model's chat template, 8 answers at a time.
    fn default() -> Self {
        Generation {
            max_tokens: None,
            sampling: Sampling { temperature: 0.0, ..Sampling::chat() },
            system: None,
            stop: Vec::new(),
            chats: true,
            parallel: 8,
            context: None,
            cache: CacheKind::default(),
            draft: None,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Written {
    pub text: String,
    /// Why it ended: `stop` or `length`; empty where there is none.
    pub finish: &'static str,
    pub tokens: u64,
    /// Whether the prompt leaves no room for an answer.
    pub is_too_long: bool,
}

/// A language model that answers prompts.
pub struct Generator {
    model: ChatModel,
    engine: Engine,
    options: AnswerOptions,
    system: Option<String>,
    context: usize,
    parallel: usize,
}

impl Generator {
    /// Loads a model.
    ///
    /// # Errors
    /// When it is malformed, the context is longer than what it was trained for, instructions are given to a model without a chat
    /// template, or memory does not suffice.
    pub fn load(checkpoint: &Checkpoint, cpu: Cpu, generation: &Generation) -> Result<Self, Error> {
        let context = chat::context(checkpoint, generation.context)?;
        let parallel = generation.parallel.max(1);
        let need = checkpoint.need("take fewer answers at a time, a smaller context, or int8 keys and values")?;
        let tokens = context.saturating_mul(parallel);
        let need = checkpoint.parameters().with_sequences(need, generation.cache, tokens);
        need.and("keys and values of begun prompts", KEPT as u64).check()?;
        let format = if generation.chats { PromptFormat::Chat } else { PromptFormat::Text };
        let model = ChatModel::load(checkpoint, format)?;
        if generation.system.is_some() && !model.has_template() {
            let text = "has no chat template, so that instructions would not reach it: put them into the prompts";
            return Err(Error::input(checkpoint.path(), text));
        }
        let sequences = Sequences::new(model.network().clone(), cpu, context, generation.cache);
        let (keep, passes) = (usize::MAX / 2, Passes::Exact);
        let settings = Settings { sequences: parallel, keep, keep_bytes: KEPT, chunk: CHUNK, passes };
        let engine = Engine::new(sequences, model.tokenizer().clone(), settings);
        let Generation { max_tokens, sampling, stop, draft, .. } = generation.clone();
        let options = AnswerOptions { max_tokens, sampling, stop, draft, ..AnswerOptions::default() };
        Ok(Generator { model, engine, options, system: generation.system.clone(), context, parallel })
    }

    /// Tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Rows of a batch: enough that few wait for the last.
    pub(super) fn rows(&self) -> usize {
        (16 * self.parallel).min(super::ROWS)
    }

    /// The answers to prompts, which are rows of these numbers; an empty one has none.
    ///
    /// # Errors
    /// When the template or the tokenizer refuses a prompt, or a pass fails.
    pub(super) fn answers(&mut self, prompts: &[String], rows: &[u64]) -> Result<Vec<Written>, Error> {
        let mut written = vec![Written::default(); prompts.len()];
        let mut open: BTreeMap<Id, usize> = BTreeMap::new();
        let opened = self.open(prompts, rows, &mut open, &mut written);
        let done = opened.and_then(|()| self.steps(&mut open, &mut written));
        // What an error leaves open would go on with the next batch.
        open.into_keys().for_each(|id| drop(self.engine.close(id)));
        done.map(|()| written)
    }

    fn open(
        &mut self,
        prompts: &[String],
        rows: &[u64],
        open: &mut BTreeMap<Id, usize>,
        written: &mut [Written],
    ) -> Result<(), Error> {
        for (at, (prompt, row)) in prompts.iter().zip(rows).enumerate().filter(|(_, (p, _))| !p.trim().is_empty()) {
            let system = self.system.iter().map(|text| Message::new(Role::System, text));
            let messages: Vec<Message> = system.chain([Message::new(Role::User, prompt)]).collect();
            let sampling =
                Sampling { seed: self.options.sampling.seed.wrapping_add(*row), ..self.options.sampling.clone() };
            let options = AnswerOptions { sampling, ..self.options.clone() };
            match self.model.request(&messages, &options, self.context) {
                Ok(request) => drop(open.insert(self.engine.open(request)?, at)),
                Err(ChatError::ContextFull { .. }) => written[at].is_too_long = true,
                Err(ChatError::Other(error)) => {
                    return Err(Error { message: format!("row {row}: {}", error.message), ..error });
                }
            }
        }
        Ok(())
    }

    fn steps(&mut self, open: &mut BTreeMap<Id, usize>, written: &mut [Written]) -> Result<(), Error> {
        while !open.is_empty() {
            for event in self.engine.step() {
                let Event::End { id, outcome } = event else { continue };
                if let Some(at) = open.remove(&id) {
                    let Outcome { text, tokens, finish, .. } = outcome?;
                    let (finish, tokens) = (finish.name(), tokens.len() as u64);
                    written[at] = Written { text, finish, tokens, is_too_long: false };
                }
            }
        }
        Ok(())
    }
}
