//! The state of a training run on disk: one safetensors file per saved step, whose last tensor is the SHA-256 of
//! everything before it. A file is complete when the hash fits, so a torn or altered one is noticed and the one before is
//! taken.

use crate::config::TrainConfig;
use crate::optim::OptimizerState;
use crate::params::Params;
use crate::stored::{HASH_BYTES, SQUARES, State};
use crate::validation::Validation;
use crate::{Error, Kind};
use lowbit_base::file::{self, Lock, Replacement};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Names the layout; a state of another layout is refused.
const FORMAT: &str = "lowbit-train-state 1";
/// States that are kept.
const KEEP: usize = 2;
/// Bytes of a state beside three numbers for each parameter.
const MAX_HEADER: u64 = 64 << 20;
/// The tensor that holds the hash.
const HASH: &str = "sha256";
/// Metadata pair: loss of the first update, if there was one.
const FIRST_LOSS: &str = "first_loss";
/// Metadata pair: hash of the teacher, if there is one.
const TEACHER: &str = "teacher";
/// Metadata pair: how the weights did on validation examples.
const VALIDATION: &str = "validation";
/// The file of the weights that did best there.
const BEST: &str = "best.safetensors";

/// Where a run stands, beside its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Progress {
    /// Updates done.
    pub(crate) step: u64,
    /// Sequences seen.
    pub(crate) position: u64,
    /// Seconds spent in steps.
    pub(crate) seconds: f64,
    /// Loss of the first update, nats per target, once there was one.
    pub(crate) first_loss: Option<f64>,
}

/// What a state of a run can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Updates of the whole run.
    pub(crate) steps: u64,
    /// Sequences of an update.
    pub(crate) sequences: u64,
    /// Sequences of the data.
    pub(crate) data: usize,
}

/// What must not change between the parts of a run.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// JSON of the model's configuration.
    pub(crate) model: String,
    /// JSON of the training configuration without the fields that may change; those of the schedule may while the rate stays.
    pub(crate) train: String,
    /// Fingerprint of the data.
    pub(crate) data: String,
    /// Hash of the masters training began with; empty when they were drawn.
    pub(crate) from: String,
    /// Hash of the masters of the teacher; empty where there is none.
    pub(crate) teacher: String,
}

/// The directory of states, locked.
pub(crate) struct States {
    directory: PathBuf,
    _lock: Lock,
}

impl States {
    /// Creates and locks the states below a run's directory and removes what was left half written.
    ///
    /// # Errors
    /// When another process holds the lock, or the directory cannot be written.
    pub(crate) fn open(run: &Path) -> Result<Self, Error> {
        let directory = run.join("checkpoints");
        file::make(&directory)?;
        let lock = Lock::acquire(&directory)?;
        lock.sweep();
        Ok(States { directory, _lock: lock })
    }

    fn path(&self, step: u64) -> PathBuf {
        self.directory.join(format!("step-{step:010}.safetensors"))
    }

    /// Saved steps, the newest first.
    pub(crate) fn steps(&self) -> Result<Vec<u64>, Error> {
        let entries = fs::read_dir(&self.directory).map_err(|e| Error::io(&self.directory, &e))?;
        let step = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()
        };
        let mut steps: Vec<u64> = entries.flatten().filter_map(step).collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        Ok(steps)
    }

    /// Saves a state, then removes all but the newest ones.
    pub(crate) fn save(
        &self,
        learnt: (&Params, &OptimizerState),
        progress: &Progress,
        identity: &Identity,
    ) -> Result<(), Error> {
        let path = self.path(progress.step);
        let mut file = Replacement::create(&path)?;
        write_state(&mut file, learnt, progress, None, identity).map_err(|e| Error::io(&path, &e))?;
        file.commit()?;
        for old in self.steps()?.into_iter().skip(KEEP) {
            let path = self.path(old);
            fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
        }
        Ok(())
    }

    /// Saves the weights that did best on validation examples.
    pub(crate) fn save_best(
        &self,
        params: &Params,
        progress: &Progress,
        validation: &Validation,
        identity: &Identity,
    ) -> Result<(), Error> {
        let path = self.directory.join(BEST);
        let mut file = Replacement::create(&path)?;
        let learnt = (params, &OptimizerState::new(params));
        write_state(&mut file, learnt, progress, Some(validation), identity).map_err(|e| Error::io(&path, &e))?;
        file.commit()
    }

    /// The step of those weights, and how they did; none when there are none, or they are damaged.
    ///
    /// # Errors
    /// When they belong to another run.
    pub(crate) fn best(
        &self,
        params: &Params,
        (identity, plan): (&Identity, Plan),
    ) -> Result<Option<(u64, Validation)>, Error> {
        let most = most(params);
        let path = self.directory.join(BEST);
        if !path.exists() {
            return Ok(None);
        }
        let state = match State::open(&path, most) {
            Ok(state) => state,
            Err(error) if error.kind == Kind::Input => return Ok(None),
            Err(error) => return Err(error),
        };
        same_run(&path, &state, (identity, plan))?;
        let step = state.field("step")?.parse().ok();
        let validation = serde_json::from_str(state.field(VALIDATION)?).ok();
        Ok(step.zip(validation))
    }

    /// Takes those weights.
    ///
    /// # Errors
    /// When they are missing, damaged, or belong to another run.
    pub(crate) fn load_best(&self, params: &mut Params, identity: &Identity, plan: Plan) -> Result<(), Error> {
        let path = self.directory.join(BEST);
        let state = State::open(&path, most(params))?;
        same_run(&path, &state, (identity, plan))?;
        let step = state.number("step", |_: &u64| true, "a step")?;
        let mut optimizer = OptimizerState::new(params);
        restore(&state, (params, &mut optimizer), step, plan).map(|_| ())
    }

    /// Removes damaged states, so that they do not count among those that are kept.
    fn forget_after(&self, step: u64) -> Result<(), Error> {
        for damaged in self.steps()?.into_iter().filter(|&s| s > step) {
            let path = self.path(damaged);
            fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
        }
        Ok(())
    }

    /// Restores the newest intact state into the parameters; none when there is no state at all.
    ///
    /// # Errors
    /// When every state is damaged or holds what no run can reach, or the intact one belongs to another run.
    pub(crate) fn load(
        &self,
        (params, optimizer): (&mut Params, &mut OptimizerState),
        identity: &Identity,
        plan: Plan,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Option<Progress>, Error> {
        let steps = self.steps()?;
        let (mut last, most) = (None, most(params));
        for &step in &steps {
            let path = self.path(step);
            let state = match State::open(&path, most) {
                Ok(state) => {
                    same_run(&path, &state, (identity, plan))?;
                    restore(&state, (&mut *params, &mut *optimizer), step, plan)
                }
                Err(error) => Err(error),
            };
            match state {
                Err(error) if error.kind != Kind::Input => return Err(error),
                Ok(progress) => {
                    self.forget_after(step)?;
                    return Ok(Some(progress));
                }
                Err(error) => {
                    warn(&format!("{error}; trying the state before"));
                    last = Some(error);
                }
            }
        }
        match last {
            None => Ok(None),
            Some(mut error) => {
                error.message += "; no saved state is intact: remove the directory `checkpoints` to begin again";
                Err(error)
            }
        }
    }
}

/// Bytes of a state at most.
fn most(params: &Params) -> u64 {
    MAX_HEADER + 12 * params.trained_count() as u64
}

/// Sees that a state belongs to this run.
fn same_run(path: &Path, state: &State, (identity, plan): (&Identity, Plan)) -> Result<(), Error> {
    let format = state.field("format")?;
    if format != FORMAT {
        return Err(Error::input(path, format!("`format` is `{format}`, this version reads `{FORMAT}`")));
    }
    let pairs = [
        ("model", &identity.model),
        ("train", &identity.train),
        ("data", &identity.data),
        ("from", &identity.from),
        (TEACHER, &identity.teacher),
    ];
    for (name, now) in pairs {
        let saved = match name {
            TEACHER => state.fields().and_then(|fields| fields.get(TEACHER)).map_or("", String::as_str),
            name => state.field(name)?,
        };
        if let Some(difference) = difference(name, saved, now).filter(|_| name != "train" || !goes_on(state, now, plan))
        {
            let remedy = "resume with the same settings, or train into another directory";
            return Err(Error::input(path, format!("cannot resume: {difference}; {remedy}")));
        }
    }
    Ok(())
}

/// Whether a run may go on from a state whose training configuration was another.
fn goes_on(state: &State, now: &str, plan: Plan) -> bool {
    let parse = |text: &str| serde_json::from_str::<TrainConfig>(text).ok();
    let [saved, step] = ["train", "step"].map(|name| state.field(name).unwrap_or_default());
    let known = parse(now).zip(parse(saved)).zip(step.parse().ok());
    known.is_some_and(|((now, saved), step)| now.continues(&saved, step, plan.data))
}

/// Takes parameters and progress of a state that is named after `step`.
///
/// # Errors
/// When a value is not finite, or the progress is none that the run can make.
fn restore(
    state: &State,
    (params, optimizer): (&mut Params, &mut OptimizerState),
    step: u64,
    plan: Plan,
) -> Result<Progress, Error> {
    let position = step.saturating_mul(plan.sequences);
    let progress = Progress {
        step: state.number("step", |n| *n == step && step <= plan.steps, &of_run(step, plan))?,
        position: state.number("position", |n| *n == position, &format!("{position} after step {step}"))?,
        seconds: state.number("seconds", |s: &f64| s.is_finite() && *s >= 0.0, "a time in seconds")?,
        first_loss: match state.fields().is_some_and(|fields| fields.contains_key(FIRST_LOSS)) {
            true => Some(state.number(FIRST_LOSS, |loss: &f64| loss.is_finite(), "a finite number")?),
            false => None,
        },
    };
    for (param, moments) in params.iter_mut().zip(optimizer.iter_mut()) {
        let (name, len) = (param.spec.name.clone(), param.len());
        // What training does not change is not of the state.
        let Some(values) = param.trained_mut() else { continue };
        state.tensor(&format!("weights/{name}"), values)?;
        for (part, into) in [("m", &mut moments.first), (SQUARES, &mut moments.second)] {
            let name = format!("{part}/{name}");
            if state.has(&name) {
                into.resize(len, 0.0);
                state.tensor(&name, into)?;
            }
        }
        param.changed();
    }
    Ok(progress)
}

/// What the step of a state may be.
fn of_run(step: u64, plan: Plan) -> String {
    match step <= plan.steps {
        true => format!("{step}, as in the file's name"),
        false => format!("at most {}, the updates of the run", plan.steps),
    }
}

/// The first field in which two JSON texts (or plain texts) differ, with both values.
fn difference(name: &str, saved: &str, now: &str) -> Option<String> {
    fn walk(path: String, saved: &Value, now: &Value) -> Option<String> {
        match (saved, now) {
            (Value::Object(a), Value::Object(b)) => {
                let keys = a.keys().chain(b.keys());
                let mut walks = keys.map(|k| {
                    let get = |map: &Map<String, Value>| map.get(k).cloned().unwrap_or(Value::Null);
                    walk(format!("{path}.{k}"), &get(a), &get(b))
                });
                walks.find_map(|found| found)
            }
            _ => (saved != now).then(|| format!("`{path}` is {saved} in the saved state and {now} now")),
        }
    }
    let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.into()));
    walk(name.into(), &parse(saved), &parse(now))
}

/// The text fields of a state.
fn metadata(progress: &Progress, validation: Option<&Validation>, identity: &Identity) -> io::Result<Value> {
    let mut metadata = json!({
        "format": FORMAT,
        "step": progress.step.to_string(),
        "position": progress.position.to_string(),
        "seconds": progress.seconds.to_string(),
        "model": identity.model,
        "train": identity.train,
        "data": identity.data,
        "from": identity.from,
    });
    if !identity.teacher.is_empty() {
        metadata[TEACHER] = json!(identity.teacher);
    }
    if let Some(loss) = progress.first_loss {
        metadata[FIRST_LOSS] = json!(loss.to_string());
    }
    if let Some(validation) = validation {
        metadata[VALIDATION] = json!(serde_json::to_string(validation)?);
    }
    Ok(metadata)
}

fn write_state(
    file: &mut dyn Write,
    (params, optimizer): (&Params, &OptimizerState),
    progress: &Progress,
    validation: Option<&Validation>,
    identity: &Identity,
) -> io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), metadata(progress, validation, identity)?);
    let mut offset = 0;
    let mut parts: Vec<&[f32]> = Vec::new();
    for (param, moments) in params.iter().zip(optimizer.iter()) {
        let master = param.trained().unwrap_or_default();
        for (part, values) in [("weights", master), ("m", &moments.first), (SQUARES, &moments.second)] {
            if values.is_empty() {
                continue;
            }
            let end = offset + values.len() * 4;
            let shape = [param.spec.rows, param.spec.cols];
            let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, end] });
            header.insert(format!("{part}/{}", param.spec.name), entry);
            parts.push(values);
            offset = end;
        }
    }
    let entry = json!({ "dtype": "U8", "shape": [HASH_BYTES], "data_offsets": [offset, offset + HASH_BYTES] });
    header.insert(HASH.into(), entry);
    let mut text = serde_json::to_vec(&header)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut hash = Sha256::new();
    let mut emit = |bytes: &[u8]| {
        hash.update(bytes);
        file.write_all(bytes)
    };
    emit(&(text.len() as u64).to_le_bytes())?;
    emit(&text)?;
    let mut buffer = Vec::new();
    for values in parts.iter().flat_map(|part| part.chunks(1 << 18)) {
        buffer.clear();
        buffer.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        emit(&buffer)?;
    }
    file.write_all(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_differing_field_is_named() {
        let a = r#"{"x": 1, "inner": {"rate": 0.5, "list": [1, 2]}}"#;
        let b = r#"{"inner": {"rate": 0.25, "list": [1, 2]}, "x": 1}"#;
        assert_eq!(difference("train", a, a), None);
        let text = difference("train", a, b).unwrap();
        assert_eq!(text, "`train.inner.rate` is 0.5 in the saved state and 0.25 now");
        assert!(difference("data", "abc", "abd").unwrap().contains("`data`"));
    }
}
