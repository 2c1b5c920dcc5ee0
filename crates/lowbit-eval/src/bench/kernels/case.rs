//! One thing that is timed, and how all of them take turns with the measurement of the limits.

use super::Speed;
use crate::error::Error;
use crate::{meter, stats};
use lowbit_kernels::Cpu;
use lowbit_kernels::limits::{self, Limits};
use std::cell::RefCell;
use std::time::Instant;

/// Seconds a sample lasts at least; the work is repeated until then.
const SAMPLE_SECONDS: f64 = 2e-3;

/// What a speed is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Memory,
    F32,
    Bf16,
    Int8,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::F32 => "f32",
            Limit::Bf16 => "bf16",
            Limit::Int8 => "int8",
        }
    }

    /// 10^9 bytes or operations per second.
    fn of(self, limits: &Limits) -> f64 {
        match self {
            Limit::Memory => limits.memory_gbps,
            Limit::F32 => limits.f32_gflops,
            Limit::Bf16 => limits.bf16_gflops.unwrap_or(f64::NAN),
            Limit::Int8 => limits.int8_gops,
        }
    }
}

/// What a case is, and what it takes.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// As [`ProductFormat::name`](lowbit_model::recipe::ProductFormat::name), or `attention`.
    pub format: String,
    pub shape: String,
    /// `(rows, cols)`, where it is one matrix.
    pub sides: Option<(usize, usize)>,
    pub tokens: usize,
    pub copies: usize,
    /// Packed bytes of the weights, of an attention those of the keys and values.
    pub bytes: usize,
    /// Two per multiply-add.
    pub ops: f64,
    pub limit: Limit,
}

/// Work of one machine (an instruction set with a number of threads).
pub(super) struct Case<'a> {
    facts: Facts,
    machine: usize,
    work: Box<dyn FnMut() + 'a>,
    repeats: usize,
}

impl<'a> Case<'a> {
    /// A case whose samples last long enough.
    pub fn new(facts: Facts, machine: usize, work: Box<dyn FnMut() + 'a>) -> Self {
        let mut case = Case { facts, machine, work, repeats: 1 };
        case.sample();
        loop {
            let start = Instant::now();
            case.sample();
            if start.elapsed().as_secs_f64() >= SAMPLE_SECONDS {
                return case;
            }
            case.repeats *= 2;
        }
    }

    fn sample(&mut self) {
        (0..self.repeats).for_each(|_| (self.work)());
    }
}

/// Times the cases in turns, the limits of every machine after each round. Adds the limits, `[machine][round]`.
pub(super) fn time(
    cpus: &[Cpu],
    mut cases: Vec<Case>,
    rounds: usize,
    limits: &mut [Vec<Limits>],
) -> Result<Vec<Speed>, Error> {
    let measured: Vec<RefCell<Vec<Limits>>> = cpus.iter().map(|_| RefCell::default()).collect();
    let samples = {
        let kernels = cases.iter_mut().map(|case| -> Box<dyn FnMut() -> Result<(), Error> + '_> {
            Box::new(|| {
                case.sample();
                Ok(())
            })
        });
        let machines = cpus.iter().zip(&measured).map(|(cpu, measured)| -> Box<dyn FnMut() -> Result<(), Error>> {
            Box::new(|| {
                measured.borrow_mut().push(limits::measure(cpu));
                Ok(())
            })
        });
        let mut work: Vec<_> = kernels.chain(machines).collect();
        let mut work: Vec<meter::Workload<Error>> =
            work.iter_mut().map(|w| &mut **w as meter::Workload<Error>).collect();
        meter::alternate(&mut work, rounds)?
    };
    // The first round of all is not counted.
    let measured: Vec<Vec<Limits>> = measured.into_iter().map(|m| m.into_inner().split_off(1)).collect();
    let speed = |(case, seconds): (&Case, Vec<f64>)| {
        let seconds = seconds.iter().map(|s| s / case.repeats as f64).collect();
        speed(&case.facts, &cpus[case.machine], seconds, &measured[case.machine])
    };
    let speeds = cases.iter().zip(samples).map(speed).collect();
    limits.iter_mut().zip(measured).for_each(|(all, new)| all.extend(new));
    Ok(speeds)
}

/// The speed of samples, each held against the limits of its round.
pub(super) fn speed(facts: &Facts, cpu: &Cpu, seconds: Vec<f64>, limits: &[Limits]) -> Speed {
    let at = |values: &[f64], q| stats::percentile(values, q).unwrap_or(f64::NAN);
    let work = if facts.limit == Limit::Memory { facts.bytes as f64 } else { facts.ops };
    let fraction = |(seconds, limits): (&f64, &Limits)| work / seconds / 1e9 / facts.limit.of(limits);
    let fractions: Vec<f64> = seconds.iter().zip(limits).map(fraction).collect();
    let seconds_p50 = at(&seconds, 50.0);
    Speed {
        format: facts.format.clone(),
        isa: cpu.isa.name(),
        shape: facts.shape.clone(),
        rows: facts.sides.map(|(rows, _)| rows),
        cols: facts.sides.map(|(_, cols)| cols),
        tokens: facts.tokens,
        threads: cpu.pool.threads(),
        copies: facts.copies,
        seconds_p50,
        seconds_min: at(&seconds, 0.0),
        seconds_max: at(&seconds, 100.0),
        n: seconds.len(),
        weight_gbps: facts.bytes as f64 / seconds_p50 / 1e9,
        gops: facts.ops / seconds_p50 / 1e9,
        limit: facts.limit.name(),
        fraction_of_limit: at(&fractions, 50.0),
        samples: seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_held_against_the_limit_of_their_round() {
        let cpu = Cpu::new(Some("scalar"), Some(1)).unwrap();
        let limits = |scale: f64| Limits {
            memory_gbps: 10.0 * scale,
            f32_gflops: 20.0 * scale,
            bf16_gflops: Some(80.0 * scale),
            int8_gops: 40.0 * scale,
        };
        let facts = |limit, tokens: usize| Facts {
            format: "int8".into(),
            shape: "1000x1000".into(),
            sides: Some((1000, 1000)),
            tokens,
            copies: 1,
            bytes: 1_000_000,
            ops: 2e6 * tokens as f64,
            limit,
        };
        let rounds = [limits(1.0), limits(2.0), limits(1.0)];
        // 0.5, 1 and 0.25 GB/s of weights; one billion multiplications and additions per token and second.
        for (limit, tokens, name, fraction) in [
            (Limit::Memory, 1, "memory", 0.05),
            (Limit::Int8, 4, "int8", 0.1),
            (Limit::F32, 4, "f32", 0.2),
            (Limit::Bf16, 4, "bf16", 0.05),
        ] {
            let speed = speed(&facts(limit, tokens), &cpu, vec![2e-3, 1e-3, 4e-3], &rounds);
            assert_eq!((speed.seconds_min, speed.seconds_p50, speed.seconds_max, speed.n), (1e-3, 2e-3, 4e-3, 3));
            assert_eq!((speed.limit, speed.fraction_of_limit, speed.weight_gbps), (name, fraction, 0.5));
        }
    }
}
