//! Timing the sides of a row in turns.

use super::Bench;
use crate::record::Record;
use crate::{Error, meter, stats};
use lowbit_kernels::Cpu;
use lowbit_model::exec::Batch;
use lowbit_model::{CpuExec, Model, Param};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Seconds a sample lasts at least; short work is repeated until then.
const SAMPLE_SECONDS: f64 = 1e-3;
/// Samples of a side at least, and at most.
const LEAST: usize = 7;
const MOST: usize = 60;
/// Seconds that all samples of a row take together, about.
const ROW_SECONDS: f64 = 4.0;
const QUICK_ROW_SECONDS: f64 = 0.7;

/// One side of a row: what is timed, and the record that gets the latencies.
pub(super) struct Turn<'a> {
    pub record: &'a mut Record,
    pub work: Box<dyn FnMut() -> Result<(), Error> + 'a>,
}

/// Passes of a network over a batch.
pub(super) fn passes<'a>(model: &'a Arc<Model<Param>>, cpu: &Cpu, batch: &'a Batch) -> Turns<'a> {
    let mut exec = CpuExec::new(cpu.clone());
    Box::new(move || {
        black_box(exec.forward(model, batch)?.to_vec());
        Ok(())
    })
}

/// Work that is timed.
pub(super) type Turns<'a> = Box<dyn FnMut() -> Result<(), Error> + 'a>;

/// Seconds of each sample of each work, `[work][round]`, in alternating order; short work is repeated within a sample.
pub(super) fn samples(mut work: Vec<Turns>, bench: &Bench) -> Result<Vec<Vec<f64>>, Error> {
    let mut repeats = Vec::with_capacity(work.len());
    let mut round = 0.0;
    for work in &mut work {
        bench.cpu.stop.check()?;
        work()?;
        let mut n = 1usize;
        let seconds = loop {
            let start = Instant::now();
            (0..n).try_for_each(|_| work())?;
            let seconds = start.elapsed().as_secs_f64();
            if seconds >= SAMPLE_SECONDS {
                break seconds;
            }
            n *= 2;
        };
        repeats.push(n);
        round += seconds;
    }
    let most = if bench.quick { QUICK_ROW_SECONDS } else { ROW_SECONDS };
    let rounds = ((most / round) as usize).clamp(LEAST, MOST);
    let mut repeated: Vec<_> = work
        .iter_mut()
        .zip(&repeats)
        .map(|(work, n)| {
            move || {
                bench.cpu.stop.check()?;
                (0..*n).try_for_each(|_| work())
            }
        })
        .collect();
    let mut turns: Vec<meter::Workload<Error>> = repeated.iter_mut().map(|w| w as meter::Workload<Error>).collect();
    let samples = meter::alternate(&mut turns, rounds)?;
    let each = |(samples, n): (Vec<f64>, &usize)| samples.into_iter().map(|s| s / *n as f64).collect();
    Ok(samples.into_iter().zip(&repeats).map(each).collect())
}

/// Times the sides of a row; their records get `latency_p50` and what is behind it.
pub(super) fn time(turns: Vec<Turn>, bench: &Bench) -> Result<(), Error> {
    let (records, work): (Vec<&mut Record>, Vec<Turns>) =
        turns.into_iter().map(|turn| (turn.record, turn.work)).unzip();
    for (record, samples) in records.into_iter().zip(samples(work, bench)?) {
        record.measures.extend(meter::latency_measures(&samples).into_iter().take(1));
        record.detail.samples.insert("latency".into(), samples);
    }
    Ok(())
}

/// Median with minimum and maximum of rates.
pub(super) fn rates(samples: &[f64], examples: usize) -> Option<crate::record::Measure> {
    let rates: Vec<f64> = samples.iter().map(|seconds| examples as f64 / seconds).collect();
    let at = |q| stats::percentile(&rates, q);
    let measure = crate::record::Measure::measured(at(50.0)?, "per_second", rates.len() as u64);
    Some(measure.between(at(0.0)?, at(100.0)?))
}
