//! A model that answers.

use super::shipped;
use crate::failure::Failure;
use crate::memory::Need;
use crate::output::{self, unverified};
use lowbit_base::Stop;
use lowbit_eval::meter::{EnergyMeter, Rapl};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::chat::{self, Message, Template};
use lowbit_model::generate::{Draft, Generator, Outcome, Request, Sampling};
use lowbit_model::{Checkpoint, Recipe, Tokenizer};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Longest context when none is asked for, tokens.
const CONTEXT: usize = 4096;
/// Tokens that end a turn, whether or not the configuration of a model says so.
const TURN_ENDS: &[&str] = &["<|eot_id|>", "<|im_end|>", "<|end_of_turn|>", "<end_of_turn>", "<|end|>", "<|eom_id|>"];

/// How a model is to answer.
#[derive(Debug)]
pub struct Settings {
    /// Make the network of this recipe from masters.
    pub recipe: Option<&'static Recipe>,
    /// Tokens of prompt and answer together; 0 for all that the model was trained for.
    pub context: Option<usize>,
    /// Tokens of an answer at most.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// How tokens are guessed ahead.
    pub draft: Option<Draft>,
    /// How keys and values are stored.
    pub cache: CacheKind,
    /// Whether the model's chat template is used, if it has one.
    pub chat: bool,
    /// Whether names of control tokens in a text that is continued are these tokens.
    pub parse_special: bool,
    /// Whether the weights are compared with their checksums first.
    pub verify: bool,
    /// Where the processed prompt is kept between runs.
    pub prompt_cache: Option<PathBuf>,
}

/// An answer and what it took.
pub struct Answer {
    /// Text, tokens, why it ended, times.
    pub outcome: Outcome,
    /// Energy of the CPU packages meanwhile, where it can be measured.
    pub joules: Option<f64>,
}

/// A loaded model with its settings.
pub struct Speaker {
    generator: Generator,
    tokenizer: Arc<Tokenizer>,
    template: Option<Template>,
    settings: Settings,
    stop_tokens: Vec<u32>,
    context: usize,
    trained: usize,
    rapl: Option<Rapl>,
    /// Last part of the model's path.
    pub name: String,
    /// Recipe of the weights in memory.
    pub recipe: &'static Recipe,
    /// Parameters.
    pub params: u64,
    /// Time to load.
    pub load_seconds: f64,
    /// Lines about what was ignored.
    pub notices: Vec<String>,
}

impl Speaker {
    /// Loads a model, without a path the one inside this program.
    ///
    /// # Errors
    /// When it is malformed, no language model, its template is wrong, or the context is longer than it was trained for.
    pub fn load(path: Option<&Path>, settings: Settings, cpu: Cpu) -> Result<Self, Failure> {
        let start = Instant::now();
        let checkpoint = path.map_or_else(shipped::open, Checkpoint::open)?.on(&cpu).under(settings.recipe);
        let path = path.unwrap_or(Path::new(shipped::NAME));
        let unverified = (settings.verify && !checkpoint.verify()?).then(|| unverified(path));
        let card = checkpoint.card();
        if card.config.classes().is_some() {
            return Err(Failure::input(path, "is a classifier; `lowbit run` needs a language model"));
        }
        let trained = card.max_length;
        let context = match settings.context {
            None => trained.min(CONTEXT),
            Some(0) => trained,
            Some(context) => context,
        };
        if context > trained {
            return Err(Failure::usage(format!(
                "--context is {context}, but the model was trained for {trained} tokens"
            )));
        }
        let recipe = checkpoint.recipe();
        Need::of(&card.config, recipe, settings.cache, context)?.check()?;
        let (tokenizer, model) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| checkpoint.tokenizer());
            let model = checkpoint.model();
            (tokenizer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), model)
        });
        let (tokenizer, model) = (Arc::new(tokenizer?), model?);
        let template = match card.chat_template.as_deref().filter(|_| settings.chat) {
            Some(source) => Some(template(source, &checkpoint, &tokenizer).map_err(|e| match e.path {
                Some(_) => e.into(),
                None => Failure::input(path, e),
            })?),
            None => None,
        };
        let mut generator = Generator::with_cache(Arc::new(model), tokenizer.clone(), cpu, context, settings.cache);
        if let Some(cache) = settings.prompt_cache.as_deref().filter(|cache| cache.exists()) {
            generator.load_prompt(cache)?;
        }
        let name = path.canonicalize().unwrap_or_else(|_| path.into());
        Ok(Speaker {
            stop_tokens: stop_tokens(&checkpoint, &tokenizer),
            generator,
            template,
            context,
            trained,
            rapl: Rapl::open(&Rapl::root()),
            name: name.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned()),
            recipe,
            params: checkpoint.listing().count(),
            load_seconds: start.elapsed().as_secs_f64(),
            notices: [
                checkpoint.notices(),
                tokenizer.notices(),
                checkpoint.departure(recipe)?.as_slice(),
                unverified.as_slice(),
            ]
            .concat(),
            tokenizer,
            settings,
        })
    }

    /// Whether turns of a chat reach the model as such.
    pub fn chats(&self) -> bool {
        self.template.is_some()
    }

    /// Bounds an answer where no bound was asked for.
    pub fn limit(&mut self, tokens: usize) {
        self.settings.max_tokens.get_or_insert(tokens);
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Answers a chat, or continues the last thing said where the model has no chat template. `turn` varies the draws of
    /// the turns of a chat; `on_text` gets the text as it comes.
    ///
    /// # Errors
    /// When the template refuses the chat or the context is full.
    pub fn answer(
        &mut self,
        messages: &[Message],
        turn: u64,
        stop: &Stop,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer, Failure> {
        let prompt = match self.settings.parse_special {
            true => chat::raw_tokens(&self.tokenizer, chat::plain(messages))?,
            false => chat::tokens(&self.tokenizer, self.template.as_ref(), messages)?,
        };
        if prompt.len() >= self.context {
            return Err(self.full(prompt.len()));
        }
        let sampling =
            Sampling { seed: self.settings.sampling.seed.wrapping_add(turn), ..self.settings.sampling.clone() };
        let room = self.context - prompt.len();
        let request = Request {
            prompt,
            max_tokens: self.settings.max_tokens.unwrap_or(room).min(room),
            sampling,
            stop: self.settings.stop.clone(),
            stop_tokens: self.stop_tokens.clone(),
            draft: self.settings.draft,
        };
        let mut meter = self.rapl.as_ref().and_then(EnergyMeter::start);
        let outcome = self.generator.generate(&request, &mut |piece| {
            on_text(piece);
            if stop.is_set() || !output::is_open() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let joules = meter.as_mut().and_then(EnergyMeter::joules);
        Ok(Answer { outcome, joules })
    }

    /// Keeps the processed prompt for the next run, where that was asked for.
    ///
    /// # Errors
    /// When writing fails.
    pub fn keep_prompt(&self) -> Result<(), Failure> {
        match &self.settings.prompt_cache {
            Some(path) => Ok(self.generator.save_prompt(path)?),
            None => Ok(()),
        }
    }

    fn full(&self, tokens: usize) -> Failure {
        let larger = match self.trained > self.context {
            true => format!(", or start with --context up to {}", self.trained),
            false => String::new(),
        };
        let text = format!("the context of {} tokens is full: this takes {tokens}", self.context);
        Failure::usage(format!("{text}; say less, or begin anew with /reset{larger}"))
    }
}

fn template(source: &str, checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Template, lowbit_model::Error> {
    let card = checkpoint.card();
    let mut settings = card.chat.clone();
    // Where nothing names the tokens, their ids do.
    if settings.tokens.is_empty() {
        let controls = tokenizer.controls();
        let name = |id: Option<u32>| controls.iter().find(|(_, known)| Some(*known) == id).map(|(name, _)| *name);
        let (bos, eos) = (card.bos_token_id.or_else(|| tokenizer.bos()), card.eos_token_ids.first().copied());
        let known = [("bos_token", name(bos)), ("eos_token", name(eos))].into_iter();
        settings.tokens = known.filter_map(|(variable, name)| Some((variable.into(), name?.into()))).collect();
    }
    Template::of_file(source, &settings, checkpoint.template_file())
}

/// Tokens that end an answer.
fn stop_tokens(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ids = checkpoint.card().eos_token_ids.clone();
    ids.extend(tokenizer.end().filter(|_| ids.is_empty()));
    let named = tokenizer.controls().into_iter().filter(|(name, _)| TURN_ENDS.contains(name));
    ids.extend(named.map(|(_, id)| id));
    ids.sort_unstable();
    ids.dedup();
    ids
}
