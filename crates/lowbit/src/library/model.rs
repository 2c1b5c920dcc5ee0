//! A model of any kind and layout.

use super::example::{self, Example};
use super::{Ask, Error, Targets, cpu};
use crate::shipped;
use lowbit_base::{Error as Fault, Stop};
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::OutputKind;
use lowbit_model::chat::{self, AnswerOptions, ChatModel, ChatSession, PromptFormat};
use lowbit_model::predict::{best, softmax};
use lowbit_model::{Checkpoint, Predictor, recipe};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

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
    predictor: Option<Predictor>,
}

/// What a classifier says of an example.
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
        if self.output() != OutputKind::Tokens {
            return Err(self.unsupported("writes no text"));
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

    /// The CPU it runs on.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    pub(super) fn stop(&self) -> &Stop {
        &self.cpu.stop
    }

    /// The most probable class of a text, or of a row of numbers.
    ///
    /// ```no_run
    /// let model = lowbit::Model::open("models/mnist")?;
    /// let pixels = [0.0; 784];
    /// println!("{}", model.classify(&pixels)?.label);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the model is no classifier; [`Error::Request`] when it reads another kind of example, or rows of
    /// another number of features; [`Error::Input`] when its data are corrupt; [`Error::NotFinite`] when its logits are.
    pub fn classify<'a>(&self, example: impl Into<Example<'a>>) -> Result<Classification, Error> {
        Ok(self.classify_all([example])?.remove(0))
    }

    /// The most probable class of each of some examples, all of one kind.
    ///
    /// # Errors
    /// As [`Model::classify`].
    pub fn classify_all<'a>(
        &self,
        examples: impl IntoIterator<Item = impl Into<Example<'a>>>,
    ) -> Result<Vec<Classification>, Error> {
        let OutputKind::Classes(classes) = self.output() else {
            return Err(self.unsupported("has no classes"));
        };
        let inputs = example::inputs(examples)?;
        let (logits, labels) = self.answers(|predictor| {
            let logits = predictor.outputs(&inputs, 0..inputs.len())?;
            Ok((logits, predictor.labels().to_vec()))
        })?;
        logits.chunks_exact(classes).map(|row| self.classification(row, &labels)).collect() // [examples, classes]
    }

    /// The value that a network trained for values (a regression) predicts for a row of numbers, or a text, in units of its data.
    ///
    /// ```no_run
    /// let model = lowbit::Model::open("models/houses")?;
    /// println!("{:.0}", model.predict([-122.23, 37.88, 41.0, 880.0, 129.0, 322.0, 126.0, 8.3252])?);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the model is a classifier or a language model; else as [`Model::classify`].
    pub fn predict<'a>(&self, example: impl Into<Example<'a>>) -> Result<f64, Error> {
        Ok(self.predict_all([example])?.remove(0))
    }

    /// The value predicted for each of some examples, all of one kind.
    ///
    /// # Errors
    /// As [`Model::predict`].
    pub fn predict_all<'a>(
        &self,
        examples: impl IntoIterator<Item = impl Into<Example<'a>>>,
    ) -> Result<Vec<f64>, Error> {
        if self.output() != OutputKind::Value {
            return Err(self.unsupported("predicts no value"));
        }
        let inputs = example::inputs(examples)?;
        let values = self.answers(|predictor| {
            let outputs = predictor.outputs(&inputs, 0..inputs.len())?;
            Ok(predictor.values(&outputs))
        })?;
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(self.not_finite("the value of an example is")),
        }
    }

    /// How right the model is about examples: the accuracy of a classifier, the coefficient of determination of a regression.
    ///
    /// # Errors
    /// [`Error::Request`] when there are not as many targets as examples, or they are of another kind; else as [`Model::classify`].
    pub fn score<'a>(
        &self,
        x: impl IntoIterator<Item = impl Into<Example<'a>>>,
        y: impl Into<Targets>,
    ) -> Result<f64, Error> {
        let differ = |rows: usize, targets: usize| match rows == targets && rows > 0 {
            true => Ok(()),
            false => Err(Error::Request(format!("{rows} rows and {targets} targets; give one target per row"))),
        };
        match y.into() {
            Targets::Classes(classes) => {
                let answers = self.classify_all(x)?;
                differ(answers.len(), classes.len())?;
                let right = answers.iter().zip(&classes).filter(|(answer, class)| answer.class == **class).count();
                Ok(right as f64 / classes.len() as f64)
            }
            Targets::Values(values) => {
                let answers = self.predict_all(x)?;
                differ(answers.len(), values.len())?;
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let all: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
                let left: f64 = values.iter().zip(&answers).map(|(value, answer)| (value - answer).powi(2)).sum();
                Ok(if all > 0.0 { 1.0 - left / all } else { f64::from(u8::from(left == 0.0)) })
            }
        }
    }

    /// Numbers of a row that the network reads; none of one that reads texts.
    pub fn features(&self) -> Option<usize> {
        Some(self.checkpoint.model_config().config.features()).filter(|features| *features > 0)
    }

    /// The vector of a text by an embedding model, of length 1 where the model says so: the dot product of two is then their cosine.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the model gives no vectors; else as [`Model::classify`].
    pub fn embed<'a>(&self, example: impl Into<Example<'a>>) -> Result<Vec<f32>, Error> {
        Ok(self.embed_all([example])?.remove(0))
    }

    /// The vector of each of some texts.
    ///
    /// # Errors
    /// As [`Model::embed`].
    pub fn embed_all<'a>(
        &self,
        examples: impl IntoIterator<Item = impl Into<Example<'a>>>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let OutputKind::Embedding { width, .. } = self.output() else {
            return Err(self.unsupported("gives no vectors"));
        };
        let inputs = example::inputs(examples)?;
        let vectors = self.answers(|predictor| predictor.embeddings(&inputs))?; // [examples, width]
        match vectors.iter().all(|value| value.is_finite()) {
            true => Ok(vectors.chunks_exact(width).map(<[f32]>::to_vec).collect()),
            false => Err(self.not_finite("the vector of an example is")),
        }
    }

    fn output(&self) -> OutputKind {
        self.checkpoint.model_config().config.output()
    }

    /// What the predictor answers, which is loaded first.
    fn answers<T>(&self, answer: impl FnOnce(&mut Predictor) -> Result<T, Fault>) -> Result<T, Error> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let predictor = match &mut loaded.predictor {
            Some(predictor) => predictor,
            none => none.insert(Predictor::of(&self.checkpoint, self.cpu.clone())?),
        };
        Ok(answer(predictor)?)
    }

    fn classification(&self, logits: &[f32], labels: &[String]) -> Result<Classification, Error> {
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(self.not_finite("the logits of an example are"));
        }
        let probabilities = softmax(logits);
        let class = best(logits);
        let label = labels.get(class).cloned().unwrap_or_else(|| class.to_string());
        Ok(Classification { label, class, probability: probabilities[class], probabilities })
    }

    fn not_finite(&self, what: &str) -> Error {
        Fault::numeric(format!("{what} not finite")).in_file(self.checkpoint.path()).into()
    }

    /// The model lacks what was asked of it; says what there is.
    fn unsupported(&self, lacks: &str) -> Error {
        let output = self.output();
        let method = match output {
            OutputKind::Tokens => "`chat` or `generate`",
            OutputKind::Classes(_) => "`classify`",
            OutputKind::Value => "`predict`",
            OutputKind::Embedding { .. } => "`embed`",
        };
        let path = self.checkpoint.path().display();
        Error::Unsupported(format!("{path}: is {} and {lacks}; call {method}", output.noun()))
    }
}
