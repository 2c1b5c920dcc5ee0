//! How a run begins from a model: what is taken from it, what is new, and what stays as it is.

use crate::Error;
use crate::config::TrainConfig;
use crate::lora::Lora;
use crate::params::{Params, Weight};
use crate::random::hash;
use crate::trainer::Job;
use lowbit_kernels::{Cpu, Packed, QuantizeOptions};
use lowbit_model::Checkpoint;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::{ParamSpec, Role};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;

/// Sets the seeds of low-rank updates apart from other seeds of the run.
const UPDATES: u64 = 4;
/// Parts of the names of parameters that a model may lack: those of another head, and the norms that make a network ternary.
const NEW: [&str; 3] = ["classifier.", "pooler.", "_sub_norm."];

/// Takes the masters of the model that a job begins with, if there is one; returns their hash. What the model lacks stays as it
/// was drawn.
pub(crate) fn begin(job: &Job, params: &mut Params, cpu: &Cpu) -> Result<String, Error> {
    let config = job.config;
    let Some(checkpoint) = job.from else {
        return match (&config.lora, config.freeze.is_empty()) {
            (None, true) => Ok(String::new()),
            (Some(_), _) => Err(Error::usage("train: `lora` is for a run that begins from a model")),
            (None, false) => Err(Error::usage("train: `freeze` is for a run that begins from a model")),
        };
    };
    let mut digest = Digest::default();
    let same_head = has_same_head(job, checkpoint);
    let mut taken = Vec::new();
    for param in params.iter_mut() {
        if is_new(&param.spec, checkpoint, same_head) {
            continue;
        }
        let values = checkpoint.master(&param.spec)?;
        digest.see(&values);
        param.weight = Weight::Master(values);
        param.trained = !config.freeze.contains(&param.spec.role);
        param.changed();
        taken.push((param.spec.name.clone(), param.spec.role));
    }
    if let Some(lora) = &config.lora {
        for (name, role) in taken {
            match role {
                Role::Body => update(params, &name, lora, (hash(&[config.seed, UPDATES]), cpu))?,
                Role::Embedding | Role::Norm | Role::Bias | Role::Statistics => params.stay(&name),
                Role::Head => {}
            }
        }
    }
    Ok(digest.text())
}

/// A hash of values.
#[derive(Default)]
struct Digest(Sha256);

impl Digest {
    fn see(&mut self, values: &[f32]) {
        for part in values.chunks(4096) {
            self.0.update(part.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        }
    }

    fn text(self) -> String {
        lowbit_base::hex(self.0.finalize())
    }
}

/// The hash of masters in their order.
pub(crate) fn digest<'a>(masters: impl Iterator<Item = &'a [f32]>) -> String {
    let mut digest = Digest::default();
    masters.for_each(|values| digest.see(values));
    digest.text()
}

/// Values that training changes.
pub(crate) fn trained(config: &TrainConfig, parameters: &ParameterList) -> u64 {
    let Some(lora) = &config.lora else { return parameters.count_of(|role| !config.freeze.contains(&role)) };
    let of = |spec: &ParamSpec| match spec.role {
        Role::Body => lora.rank as u64 * (spec.rows + spec.cols) as u64,
        Role::Head => spec.rows as u64 * spec.cols as u64,
        Role::Embedding | Role::Norm | Role::Bias | Role::Statistics => 0,
    };
    parameters.params().iter().map(of).sum()
}

/// Whether a model answers with what the job's network answers with.
fn has_same_head(job: &Job, checkpoint: &Checkpoint) -> bool {
    let (from, to) = (checkpoint.model_config(), job.model_config);
    from.config.output() == to.config.output() && (to.labels.is_empty() || from.labels == to.labels)
}

/// Whether a parameter is not taken from a model.
fn is_new(spec: &ParamSpec, checkpoint: &Checkpoint, same_head: bool) -> bool {
    let of_head = spec.name.starts_with(NEW[0]) && !same_head;
    of_head || NEW.iter().any(|part| spec.name.contains(part)) && !checkpoint.has(&spec.name)
}

/// Keeps a matrix, in a low-bit format where one is asked for, and gives it a low-rank update.
fn update(params: &mut Params, name: &str, lora: &Lora, (seed, cpu): (u64, &Cpu)) -> Result<(), Error> {
    if let Some(format) = lora.base()? {
        let param = params.by_name(name).expect("a parameter of the network");
        let (spec, values) = (&param.spec, param.values());
        let read = |rows: std::ops::Range<usize>| {
            Ok::<_, Error>(Cow::Borrowed(&values[rows.start * spec.cols..rows.end * spec.cols]))
        };
        let fault = |e: lowbit_kernels::Error| Error::data(format!("tensor `{name}`: {e}"));
        let shape = [spec.rows, spec.cols];
        let packed = Packed::quantize(format, shape, &QuantizeOptions::default(), &cpu.pool, read, fault)?;
        params.freeze(name, packed)?;
    }
    params.adapt(name, lora, seed);
    Ok(())
}
