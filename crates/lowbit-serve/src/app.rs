//! What all handlers share.

use crate::grammar::{Form, Grammars};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::rows::RowWorker;
use crate::served::{Network, Served, unfit};
use crate::settings::Settings;
use crate::worker::Worker;
use lowbit_base::{Error, mix};
use lowbit_model::arch::OutputKind;
use lowbit_model::generate::Guided;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What all handlers share.
pub(crate) struct App {
    pub settings: Settings,
    pub served: Served,
    worker: Option<Worker>,
    rows: Option<RowWorker>,
    /// Places of answers that are under way or wait.
    places: Arc<Semaphore>,
    most: usize,
    pub metrics: Arc<Metrics>,
    /// When the server began, seconds since 1970.
    pub created: u64,
    /// Whether the server is to end.
    pub stopping: AtomicBool,
    /// Makes guides; none before the first is asked for.
    grammars: OnceLock<Result<Grammars, Refusal>>,
    next: AtomicU64,
    salt: u64,
}

impl App {
    /// Starts the thread of the model.
    ///
    /// # Errors
    /// When the operating system starts none.
    pub fn new(settings: Settings, served: Served) -> Result<Arc<Self>, Error> {
        let parallel = served.parallel;
        let metrics = Arc::new(Metrics::new(&served.names[0], parallel));
        let (worker, rows) = match &served.network {
            Network::Language(language) => {
                (Some(Worker::start(language.make.clone(), parallel, metrics.clone())?), None)
            }
            Network::Rows(rows) => {
                let predictor = rows.predictor.lock().unwrap_or_else(PoisonError::into_inner).take();
                let predictor = predictor.ok_or_else(|| Error::usage("the model is served already"))?;
                (None, Some(RowWorker::start(predictor, metrics.clone())?))
            }
        };
        let most = parallel + settings.limits.queue;
        let places = Arc::new(Semaphore::new(most));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let salt = mix(now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40);
        let (stopping, next) = (AtomicBool::new(false), AtomicU64::new(0));
        let (created, grammars) = (now.as_secs(), OnceLock::new());
        Ok(Arc::new(App {
            settings,
            served,
            worker,
            rows,
            places,
            most,
            metrics,
            created,
            stopping,
            grammars,
            next,
            salt,
        }))
    }

    /// A number that no other request of this server has, and that others cannot guess from it.
    pub fn number(&self) -> u64 {
        mix(self.salt.wrapping_add(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// A name for an answer.
    pub fn id(&self, prefix: &str) -> String {
        format!("{prefix}-{:016x}{:08x}", self.number(), self.created as u32)
    }

    /// Places for so many answers.
    ///
    /// # Errors
    /// When there are not as many now, or never.
    pub fn admit(&self, answers: usize, param: &str) -> Result<OwnedSemaphorePermit, Refusal> {
        let most = self.most;
        if answers > most {
            let text = format!("{answers} answers are asked for, and {most} may be under way or wait; ask for fewer");
            return Err(Refusal::field(param, text));
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Refusal::stopping());
        }
        let count = u32::try_from(answers).unwrap_or(u32::MAX);
        self.places.clone().try_acquire_many_owned(count).map_err(|_| Refusal::busy(most))
    }

    /// The thread of the language model.
    ///
    /// # Errors
    /// When the model is another one.
    pub fn worker(&self) -> Result<&Worker, Refusal> {
        self.served.writer()?;
        self.worker.as_ref().ok_or_else(Refusal::internal)
    }

    /// The thread of the model that answers each text.
    ///
    /// # Errors
    /// When the model is a language model.
    pub fn rows(&self) -> Result<&RowWorker, Refusal> {
        self.rows.as_ref().ok_or_else(|| unfit(OutputKind::Tokens, "answers no rows"))
    }

    /// A name for a call of a function: nine letters and digits, as some chat templates want it.
    pub fn call_id(&self) -> String {
        const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let number = self.number();
        (0..9).map(|i| char::from(LETTERS[(number / 36_u64.pow(i) % 36) as usize])).collect()
    }

    /// What guides answers of a form, which the field `place` asks for.
    ///
    /// # Errors
    /// When the form is none.
    pub fn guided(&self, form: &Form, place: &str) -> Result<Guided, Refusal> {
        let ends = self.served.writer()?.chat.stop_tokens();
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.served, ends)).as_ref();
        grammars.map_err(|refusal| refusal.clone().of(place))?.guided(form, place)
    }

    /// Ends all answers with an error.
    pub fn abort(&self) {
        self.worker.iter().for_each(Worker::abort);
        self.rows.iter().for_each(RowWorker::abort);
    }

    /// Waits for the thread of the model, which takes no more requests.
    pub fn end(&self) {
        self.worker.iter().for_each(Worker::end);
        self.rows.iter().for_each(RowWorker::end);
    }

    /// Runs work that takes its time where it holds up no other request.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || lowbit_base::panics::caught(|| work(&app))).await;
        done.ok().flatten().unwrap_or_else(|| Err(Refusal::internal()))
    }

    /// Whether a request may call the model by this name.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_model(&self, name: Option<&str>) -> Result<(), Refusal> {
        match name {
            Some(name) if !name.is_empty() && !self.served.names.iter().any(|known| known == name) => {
                Err(Refusal::model())
            }
            _ => Ok(()),
        }
    }
}
