//! What a run on several ranks shares: the parts of an update, gradients, the state it goes on from, and that nothing differs.

use crate::config::{Precision, TrainConfig};
use crate::optim::OptimizerState;
use crate::params::Params;
use crate::ranks::Ranks;
use crate::state::{Identity, Progress};
use crate::tape::Tape;
use crate::{Error, Kind};
use lowbit_kernels::Cpu;
use lowbit_model::source::Role;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// The batches of an update that a rank passes through the network.
///
/// # Errors
/// Usage: not every rank has as many.
pub(crate) fn share(config: &TrainConfig, ranks: &dyn Ranks) -> Result<Range<usize>, Error> {
    let (batches, size, rank) = (config.accumulation, ranks.size(), ranks.rank());
    if !batches.is_multiple_of(size) {
        let text =
            format!("train: `accumulation` is {batches} batches per update, which {size} processes cannot share");
        return Err(Error::usage(format!("{text}: take a multiple of {size}")));
    }
    let own = batches / size;
    Ok(rank * own..(rank + 1) * own)
}

/// Sees that all ranks were started for the same run.
///
/// # Errors
/// Usage, on all of them.
pub(crate) fn same_job(ranks: &dyn Ranks, identity: &Identity, config: &TrainConfig, cpu: &Cpu) -> Result<(), Error> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut hash = Sha256::new();
    let Identity { model, train, data, from, teacher } = identity;
    // Products in bf16 depend on the CPU, those in f32 do not.
    let isa = if config.precision == Precision::Bf16 { cpu.isa.name() } else { "" };
    for text in [model, train, data, from, teacher, isa] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let hash = hash.finalize();
    let (words, _) = hash.as_chunks::<8>();
    match ranks.differs(u64::from_le_bytes(words[0]))? {
        None => Ok(()),
        Some(other) => {
            let text = format!("rank {other} was started for another run than rank 0");
            let isa = if isa.is_empty() { "" } else { ", and CPUs with the same instructions as products are in bf16" };
            Err(Error::usage(format!("{text}: all need the same model, data and settings{isa}")))
        }
    }
}

/// Gives the state that the first rank found to all; none where it found none.
///
/// # Errors
/// When a rank is lost.
pub(crate) fn spread(
    ranks: &dyn Ranks,
    (params, optimizer): (&mut Params, &mut OptimizerState),
    found: Option<Progress>,
) -> Result<Option<Progress>, Error> {
    if ranks.size() == 1 {
        return Ok(found);
    }
    let mut numbers = [0.0; 6];
    if let Some(Progress { step, position, seconds, first_loss }) = &found {
        let known = f64::from(u8::from(first_loss.is_some()));
        numbers = [1.0, *step as f64, *position as f64, *seconds, known, first_loss.unwrap_or(0.0)];
    }
    // The others add nothing.
    ranks.sums(&mut numbers)?;
    let [is_there, step, position, seconds, known, first_loss] = numbers;
    if is_there == 0.0 {
        return Ok(None);
    }
    let lengths = optimizer.iter().flat_map(|moments| [moments.first.len() as f64, moments.second.len() as f64]);
    let mut lengths: Vec<f64> = lengths.collect();
    ranks.sums(&mut lengths)?;
    let (lengths, _) = lengths.as_chunks::<2>();
    let mut parts: Vec<&mut [f32]> = Vec::new();
    for ((param, moments), lengths) in params.iter_mut().zip(optimizer.iter_mut()).zip(lengths) {
        param.changed();
        for (moment, length) in [&mut moments.first, &mut moments.second].into_iter().zip(lengths) {
            moment.resize(*length as usize, 0.0);
            parts.push(moment);
        }
        parts.extend(param.trained_mut().map(Vec::as_mut_slice));
    }
    ranks.spread(&mut parts)?;
    let (step, position, first_loss) = (step as u64, position as u64, (known > 0.0).then_some(first_loss));
    Ok(Some(Progress { step, position, seconds, first_loss }))
}

/// Replaces the gradients of a rank by their sums over all ranks, and the running statistics of batches by their means.
///
/// # Errors
/// When a rank is lost, or has other gradients.
pub(crate) fn join(ranks: &dyn Ranks, tape: &mut Tape) -> Result<(), Error> {
    let size = ranks.size();
    if size == 1 {
        return Ok(());
    }
    let Tape { params, gradients_of_params: gradients, .. } = tape;
    let mut parts: Vec<&mut [f32]> = gradients.iter_mut().chain(statistics(params)).collect();
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if let Some(other) = ranks.differs(length as u64)? {
        return Err(Error::new(Kind::Internal, format!("rank {other} has other gradients than rank 0")));
    }
    ranks.sum(&mut parts)?;
    statistics(params).flatten().for_each(|value| *value /= size as f32);
    Ok(())
}

/// The running means and variances of batches.
fn statistics(params: &mut Params) -> impl Iterator<Item = &mut [f32]> {
    let all = params.iter_mut().filter(|param| param.spec.role == Role::Statistics);
    all.filter_map(|param| param.trained_mut().map(Vec::as_mut_slice))
}

/// Sees that all ranks have the same weights after an update.
///
/// # Errors
/// Internal, on all of them: nothing is saved.
pub(crate) fn same_weights(ranks: &dyn Ranks, params: &Params, step: u64) -> Result<(), Error> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let mix = |hash: u64, value: &f32| (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3);
    let values = params.iter().filter_map(|param| param.trained()).flatten();
    match ranks.differs(values.fold(0xcbf2_9ce4_8422_2325, mix))? {
        None => Ok(()),
        Some(other) => {
            let text = format!("step {step}: rank {other} has other weights than rank 0, and nothing was saved");
            Err(Error::new(Kind::Internal, format!("{text}: do all run the same program on CPUs of the same kind?")))
        }
    }
}
