//! A model that answers: loaded as the command line asks, its energy measured.

use crate::failure::Failure;
use crate::terminal::Terminal;
use lowbit::shipped;
use lowbit_base::{Error, Stop};
use lowbit_eval::generation::Answer;
use lowbit_eval::meter::Rapl;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::chat::{self, AnswerOptions, ChatError, ChatModel, ChatSession, PromptFormat};
use lowbit_model::{Checkpoint, Recipe};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How a model is to answer.
#[derive(Debug)]
pub struct Settings {
    /// Make the network of this recipe from masters.
    pub recipe: Option<&'static Recipe>,
    /// Tokens of prompt and answer together; 0 for all that the model was trained for.
    pub context: Option<usize>,
    /// How answers are made.
    pub options: AnswerOptions,
    /// How keys and values are stored.
    pub cache: CacheKind,
    /// How prompts become tokens.
    pub format: PromptFormat,
    /// Whether the weights are compared with their checksums first.
    pub verify: bool,
    /// Where the processed prompt is kept between runs.
    pub prompt_cache: Option<PathBuf>,
}

/// A chat with a loaded model.
pub struct MeteredSession {
    /// Where answers go; they end when nobody reads them.
    pub terminal: Terminal,
    /// What was said, and the model that answers.
    pub session: ChatSession,
    prompt_cache: Option<PathBuf>,
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

impl MeteredSession {
    /// Loads a model, without a path the one inside this program.
    ///
    /// # Errors
    /// When it is malformed, no language model, its template is wrong, or the context is longer than it was trained for.
    pub fn load(path: Option<&Path>, settings: Settings, cpu: Cpu, terminal: &Terminal) -> Result<Self, Failure> {
        let start = Instant::now();
        let checkpoint = path.map_or_else(shipped::open, Checkpoint::open)?.on(&cpu).under(settings.recipe);
        let path = path.unwrap_or(Path::new(shipped::NAME));
        let unverified = (settings.verify && !checkpoint.verify()?)
            .then(|| format!("{}: unverified: the file holds no checksums", path.display()));
        let context = chat::context(&checkpoint, settings.context).map_err(|error| match error.path {
            Some(_) => error.into(),
            None => Failure::usage(format!("--{error}")),
        })?;
        let recipe = checkpoint.recipe();
        let need = checkpoint.need("take a smaller --context, --kv int8, or a recipe with fewer bits")?;
        checkpoint.parameters().with_sequences(need, settings.cache, context).check()?;
        let model = ChatModel::load(&checkpoint, settings.format)?;
        let notices = [
            checkpoint.notices(),
            model.tokenizer().notices(),
            checkpoint.departure(recipe)?.as_slice(),
            unverified.as_slice(),
        ]
        .concat();
        let mut session = model.session(cpu, context, settings.cache, settings.options);
        if let Some(cache) = settings.prompt_cache.as_deref().filter(|cache| cache.exists()) {
            session.load_prompt(cache)?;
        }
        let name = path.canonicalize().unwrap_or_else(|_| path.into());
        Ok(MeteredSession {
            terminal: terminal.clone(),
            session,
            prompt_cache: settings.prompt_cache,
            rapl: Rapl::open(&Rapl::root()),
            name: name.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned()),
            recipe,
            params: checkpoint.parameters().count(),
            load_seconds: start.elapsed().as_secs_f64(),
            notices,
        })
    }

    /// Whether turns of a chat reach the model as such.
    pub fn chats(&self) -> bool {
        self.session.model().has_template()
    }

    /// Says something in the chat and returns the answer; `on_text` gets its text as it comes.
    ///
    /// # Errors
    /// When the template refuses the chat or the context is full; the chat is then as before.
    pub fn say(&mut self, text: String, stop: &Stop, on_text: &mut dyn FnMut(&str)) -> Result<Answer, Failure> {
        let terminal = &self.terminal;
        let answer = Answer::measured(&mut self.session, self.rapl.as_ref(), text, &mut |piece| {
            on_text(piece);
            if stop.is_set() || !terminal.is_open() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        answer.map_err(failure_of)
    }

    /// Keeps the processed prompt for the next run, where that was asked for.
    ///
    /// # Errors
    /// When writing fails.
    pub fn keep_prompt(&self) -> Result<(), Failure> {
        match &self.prompt_cache {
            Some(path) => Ok(self.session.save_prompt(path)?),
            None => Ok(()),
        }
    }
}

/// Why there is no answer, with the commands and flags that help.
fn failure_of(error: ChatError) -> Failure {
    let ChatError::ContextFull { prompt, context, trained } = error else { return Error::from(error).into() };
    let larger = match trained > context {
        true => format!(", or start with --context up to {trained}"),
        false => String::new(),
    };
    let text = format!("the context of {context} tokens is full: this takes at least {prompt}");
    Failure::usage(format!("{text}; say less, or begin anew with /reset{larger}"))
}
