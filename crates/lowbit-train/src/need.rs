//! What a run takes in memory.

use crate::trainer::Job;
use crate::{Error, begin};
use lowbit_base::memory::Footprint;
use lowbit_model::parameter_list::ParameterList;
use lowbit_model::source::Role;

/// What a run takes in memory, part by part, bytes: weights, gradients, moments, the rounded copies of quantization-aware training,
/// and the activations of a pass that the backward pass reads. That of a teacher is left out.
///
/// # Errors
/// When the configuration contradicts itself.
pub fn ledger(job: &Job) -> Result<[(&'static str, u64); 5], Error> {
    let (config, parameters) = (job.config, ParameterList::new(&job.model_config.config)?);
    let quantized = if config.qat.is_some() { parameters.count_of(|role| role == Role::Body) } else { 0 };
    let trained = begin::trained(config, &parameters);
    let floats = |count: u64| count.saturating_mul(4);
    let (tokens, rows) = pass(job);
    Ok([
        ("weights", floats(parameters.count())),
        ("gradients", floats(trained)),
        ("moments", floats(trained.saturating_mul(config.optimizer.moments()))),
        ("rounded weights", floats(quantized)),
        ("activations", parameters.recorded_bytes(tokens, rows, config.gradient_checkpointing)),
    ])
}

/// Tokens of a pass, and rows of its logits.
fn pass(job: &Job) -> (usize, usize) {
    let mean = job.data.tokens().map_or(1, |tokens| tokens.div_ceil(job.data.len().max(1) as u64));
    let tokens = (job.config.batch_size as u64).saturating_mul(mean) as usize;
    let classes = job.model_config.config.classes().is_some();
    (tokens, if classes { job.config.batch_size } else { tokens })
}

/// Memory that a run takes: masters, gradients, moments and quantized weights, and the activations of a pass that the
/// backward pass reads.
///
/// # Errors
/// When the configuration contradicts itself.
pub fn need(job: &Job) -> Result<Footprint, Error> {
    let (config, parameters) = (job.config, ParameterList::new(&job.model_config.config)?);
    let (tokens, rows) = pass(job);
    let [stored @ .., (_, activations)] = ledger(job)?;
    let need = Footprint::new(match config.gradient_checkpointing {
        true => "take a smaller network, `batch_size` or window, and more `accumulation`",
        false => {
            "set `gradient_checkpointing`, or take a smaller network, `batch_size` or window, and more `accumulation`"
        }
    });
    let weights = stored.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let need = need.and("weights, gradients and moments", weights);
    let need = match (&config.distill, job.teacher) {
        (None, _) => need,
        (Some(_), Some(teacher)) => taught(need, teacher.parameters(), tokens, rows),
        // A teacher that is not there yet is taken to be as large as the network.
        (Some(_), None) => taught(need, &parameters, tokens, rows),
    };
    Ok(need.and("activations", activations))
}

/// The same need with that of a teacher.
fn taught(need: Footprint, teacher: &ParameterList, tokens: usize, rows: usize) -> Footprint {
    need.and("the teacher", teacher.count().saturating_mul(4).saturating_add(teacher.pass_bytes(tokens, rows)))
}
