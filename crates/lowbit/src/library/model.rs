//! A model of any kind and layout.

use super::{Ask, Error, cpu};
use crate::shipped;
use lowbit_base::{Error as Fault, Stop};
use lowbit_eval::classify;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::OutputKind;
use lowbit_model::chat::{self, AnswerOptions, ChatModel, ChatSession, PromptFormat};
use lowbit_model::predict::softmax;
use lowbit_model::{Checkpoint, Inputs, Predictor, recipe};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A model: opened at once, its network loaded when it is first asked something. It can be sent to and shared with other
/// threads.
pub struct Model {
    checkpoint: Checkpoint,
    cpu: Cpu,
    context: Option<usize>,
    cache: CacheKind,
    loaded: Mutex<Loaded>,
}

/// What is in memory.
#[derive(Default)]
struct Loaded {
    chat: Option<ChatModel>,
    /// The same network, whose prompts know no template.
    text: Option<ChatModel>,
    classifier: Option<Predictor>,
}

/// What a classifier says of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The most probable class by name, or by number where classes have no names.
    pub label: String,
    /// Its number.
    pub class: usize,
    /// Its probability.
    pub probability: f64,
    /// The probabilities of all classes.
    pub probabilities: Vec<f64>,
}

impl Model {
    /// Opens a model: a directory of this project or of the Hub, a GGUF or safetensors file, an `org/name` that the Hub's own
    /// client has downloaded, or [`SHIPPED`](crate::SHIPPED). Only headers are read.
    ///
    /// # Errors
    /// [`Error::Input`] naming file, tensor or field, value and remedy; [`Error::Io`] when a file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let checkpoint = match path == Path::new(crate::SHIPPED) {
            true => shipped::open()?,
            false => Checkpoint::open(path)?,
        };
        let (context, cache, loaded) = (None, CacheKind::default(), Mutex::default());
        Ok(Model { checkpoint, cpu: cpu()?, context, cache, loaded }.settled())
    }

    /// The same model under another recipe, whose network is made from masters when it is loaded: a name such as `int4`, or
    /// parts put together, such as `ternary+head=int8`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name; [`Error::Request`] when a part of a spelling is wrong.
    pub fn recipe(self, spelling: &str) -> Result<Self, Error> {
        let base = spelling.split('+').next().unwrap_or_default();
        let recipe = recipe::find(spelling).map_err(|fault| match recipe::find(base) {
            Ok(_) => fault.into(),
            Err(_) => Error::recipe(spelling, fault),
        })?;
        Ok(Model { checkpoint: self.checkpoint.under(Some(recipe)), ..self }.settled())
    }

    /// The same on a CPU of the caller's choice.
    pub fn on(self, cpu: Cpu) -> Self {
        Model { cpu, ..self }.settled()
    }

    /// The same, whose work ends with [`Error::Stopped`] once this is set.
    pub fn until(self, stop: Stop) -> Self {
        Model { cpu: self.cpu.until(stop), ..self }.settled()
    }

    /// The same with other prompts and answers: `tokens` tokens together at most (0 for all that the model was trained for;
    /// 4096 at most when none are given).
    pub fn context(self, tokens: usize) -> Self {
        Model { context: Some(tokens), ..self }
    }

    /// The same with keys and values stored as `kind`.
    pub fn cache(self, kind: CacheKind) -> Self {
        Model { cache: kind, ..self }
    }

    /// What was loaded under other settings is forgotten.
    fn settled(self) -> Self {
        let checkpoint = self.checkpoint.on(&self.cpu);
        Model { checkpoint, loaded: Mutex::default(), ..self }
    }

    /// What is known before the network is loaded: configuration, names and shapes of tensors, recipe, notices.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Asks something as a person would: through the model's chat template. A model without one continues the text.
    pub fn chat(&self, text: impl Into<String>) -> Ask<'_> {
        Ask::new(self, PromptFormat::Chat, text.into())
    }

    /// Continues a text as it is.
    pub fn generate(&self, prompt: impl Into<String>) -> Ask<'_> {
        Ask::new(self, PromptFormat::Text, prompt.into())
    }

    /// A chat of many turns.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the model is no language model; as for [`Ask::stream`].
    pub fn session(&self, options: AnswerOptions) -> Result<ChatSession, Error> {
        self.session_of(PromptFormat::Chat, options)
    }

    pub(super) fn session_of(&self, format: PromptFormat, options: AnswerOptions) -> Result<ChatSession, Error> {
        let output = self.checkpoint.model_config().config.output();
        if output != OutputKind::Tokens {
            let message =
                format!("is {}; only a language model answers; call `classify` of a classifier", output.noun());
            return Err(self.unsupported(&message));
        }
        let context = chat::context(&self.checkpoint, self.context)?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { chat, text, .. } = &mut *loaded;
        let (own, other) = if format == PromptFormat::Chat { (chat, &*text) } else { (text, &*chat) };
        let model = match (&*own, other) {
            (Some(model), _) => model,
            (None, Some(other)) => own.insert(other.taking(&self.checkpoint, format)?),
            (None, None) => {
                self.check_memory(context)?;
                own.insert(ChatModel::load(&self.checkpoint, format)?)
            }
        };
        // A stop ends an answer between tokens, and no pass within.
        Ok(model.session(self.cpu.clone().until(Stop::default()), context, self.cache, options))
    }

    /// Sees that weights, keys and values of `context` tokens fit into memory.
    fn check_memory(&self, context: usize) -> Result<(), Error> {
        let need =
            self.checkpoint.need("take a smaller context, keys and values in int8, or a recipe with fewer bits")?;
        Ok(self.checkpoint.parameters().with_sequences(need, self.cache, context).check()?)
    }

    pub(super) fn stop(&self) -> &Stop {
        &self.cpu.stop
    }

    /// The most probable class of a text.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the model is no classifier; [`Error::Input`] when its data are corrupt;
    /// [`Error::NotFinite`] when its logits are.
    pub fn classify(&self, text: impl AsRef<str>) -> Result<Classification, Error> {
        Ok(self.classify_all(&[text])?.remove(0))
    }

    /// The most probable class of each of some texts.
    ///
    /// # Errors
    /// As [`Model::classify`].
    pub fn classify_all(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Classification>, Error> {
        let Some(classes) = self.checkpoint.model_config().config.classes() else {
            let noun = self.checkpoint.model_config().config.output().noun();
            let message = format!("is {noun}; it has no classes; call `chat` or `generate` of a language model");
            return Err(self.unsupported(&message));
        };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let classifier = match &mut loaded.classifier {
            Some(classifier) => classifier,
            none => {
                none.insert(Predictor::new(&self.checkpoint, Arc::new(self.checkpoint.model()?), self.cpu.clone())?)
            }
        };
        let texts = Inputs::Texts(texts.iter().map(|text| text.as_ref().into()).collect());
        let logits = classifier.outputs(&texts, 0..texts.len())?; // [texts, classes]
        logits.chunks_exact(classes).map(|row| self.classification(row, classifier.labels())).collect()
    }

    fn classification(&self, logits: &[f32], labels: &[String]) -> Result<Classification, Error> {
        if logits.iter().any(|logit| !logit.is_finite()) {
            let fault = Fault::numeric("the logits of a text are not finite");
            return Err(fault.in_file(self.checkpoint.path()).into());
        }
        let probabilities = softmax(logits);
        let class = classify::best(logits);
        let label = labels.get(class).cloned().unwrap_or_else(|| class.to_string());
        Ok(Classification { label, class, probability: probabilities[class], probabilities })
    }

    fn unsupported(&self, text: &str) -> Error {
        Error::Unsupported(format!("{}: {text}", self.checkpoint.path().display()))
    }
}
