//! Speed of a network: prompts, answers, several answers at once; of one that gives an answer per sequence whole sequences, one or
//! several in a pass, of one that reads numbers rows of them; against the limits of the machine measured between the rounds.

use crate::bench::host;
use crate::error::Error;
use crate::meter::{self, EnergyMeter, Rapl};
use crate::stats;
use lowbit_kernels::Cpu;
use lowbit_kernels::limits::{self, Limits};
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::OutputKind;
use lowbit_model::cpu::PREFILL_CHUNK;
use lowbit_model::engine::{Engine, Event, Passes, Settings};
use lowbit_model::exec::Batch;
use lowbit_model::generate::Request;
use lowbit_model::work::{self, Pass, PassCost};
use lowbit_model::{CpuExec, Model, Param, Sequences, Session, Tokenizer};
use serde::Serialize;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

mod stored;
mod table;
mod test;

pub use stored::{BenchModel, save_synthetic};
pub use table::{FORMS, Form};
pub use test::{FIRST, Test, TestKind};

/// Rows of a pass of a network that reads numbers, where nobody says how many.
const ROWS: usize = 32;

/// What is to be measured, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tests.
    pub tests: Vec<Test>,
    /// Whether somebody said how long prompts are.
    pub is_asked: bool,
    /// Samples of each test.
    pub rounds: usize,
    /// How keys and values are stored.
    pub cache: CacheKind,
    /// How many of the largest logits of a token are computed, if not all.
    pub largest: Option<usize>,
}

impl Plan {
    /// The plan for a model: for one that gives an answer per sequence, whole sequences in place of prompts; for one that reads numbers,
    /// rows in place of tokens.
    ///
    /// # Errors
    /// When nothing is left to measure, or a sequence is longer than the positions of the network.
    pub fn of(self, subject: &BenchModel) -> Result<Self, Error> {
        let tests = match subject.output {
            OutputKind::Tokens => self.tests,
            _ if subject.features > 0 && self.is_asked => Test::rows(&self.tests),
            _ if subject.features > 0 => Test::rows(&[Test { kind: TestKind::Prompt(ROWS), depth: 0 }]),
            _ => Test::whole(&self.tests),
        };
        if tests.is_empty() {
            let text =
                format!("{} is {}, which writes no answers: give -p TOKENS", subject.name, subject.output.noun());
            return Err(Error::usage(text));
        }
        let longest = tests.iter().map(|test| test.length()).max().unwrap_or(0);
        match subject.positions.filter(|most| longest > *most) {
            Some(most) => {
                let text = format!("{} has {most} positions, and {longest} tokens are asked for", subject.name);
                Err(Error::usage(format!("{text}: give fewer with -p, -n, --pg and -d")))
            }
            None => Ok(Plan { tests, ..self }),
        }
    }

    /// Tokens of all sequences that are kept for a number of threads.
    pub fn tokens(&self) -> usize {
        let longest = self.tests.iter().map(|test| test.length()).max().unwrap_or(1);
        let together = self.tests.iter().map(|test| test.sequences()).max().unwrap_or(1);
        longest * (1 + if together > 1 { together } else { 0 })
    }
}

/// One test with one number of threads.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    /// Name of the model.
    pub model: String,
    /// Bytes of its parameters.
    pub model_bytes: u64,
    /// Number of its parameters.
    pub params: u64,
    /// Name of the recipe.
    pub recipe: &'static str,
    /// Name of the instruction set.
    pub isa: &'static str,
    /// Threads used.
    pub threads: usize,
    /// Name of the test; `top1` behind it where only so many of the largest logits were computed.
    pub test: String,
    /// Samples.
    pub n: usize,
    /// Tokens per second, mean of the samples.
    pub tokens_per_second: f64,
    /// Standard deviation of the samples, n - 1; absent for one sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second_sd: Option<f64>,
    /// Seconds of the whole test, median.
    pub seconds_p50: f64,
    /// Bytes read per token: parameters, keys and values, halfway through the test.
    pub bytes_per_token: f64,
    /// What the speed is held against: `memory` or `arithmetic`.
    pub limit: &'static str,
    /// Seconds at the limits measured in the same round over seconds, median.
    pub fraction_of_limit: f64,
    /// Joules per token, mean; absent where no counter can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joules_per_token: Option<f64>,
    /// Tokens per second of each round.
    pub samples: Vec<f64>,
}

/// All results.
#[derive(Clone, Debug)]
pub struct Speeds {
    /// One row per number of threads and test.
    pub rows: Vec<BenchRow>,
    /// Threads, and median limits over the rounds.
    pub limits: Vec<(usize, Limits)>,
    /// Largest resident memory after each test ran once, before the limits were measured.
    pub peak_rss_bytes: Option<u64>,
    /// Bytes of all parameters.
    pub model_bytes: u64,
}

/// A number of threads with everything kept for it.
struct Machine {
    cpu: Cpu,
    runner: Runner,
    limits: Vec<Limits>,
    /// `[test][round]`: seconds, and joules where they can be read.
    samples: Vec<Vec<(f64, Option<f64>)>>,
    /// Per test: bytes of the head's weights read where not all logits were computed, in all rounds.
    head_bytes: Vec<u64>,
}

/// What runs the passes; boxed, so that the kinds are of like sizes.
enum Runner {
    /// A language model continues sequences.
    Decoder { session: Box<Session>, engine: Option<Box<Engine>> },
    /// Any other network takes whole ones.
    Whole { model: Arc<Model<Param>>, exec: Box<CpuExec>, features: usize },
}

impl Machine {
    fn new(subject: &BenchModel, plan: &Plan, cpu: &Cpu) -> Self {
        let runner = match subject.output {
            OutputKind::Tokens => Runner::decoder(subject, plan, cpu),
            _ => Runner::Whole {
                model: subject.model.clone(),
                exec: Box::new(CpuExec::new(cpu.clone())),
                features: subject.features,
            },
        };
        Machine {
            cpu: cpu.clone(),
            runner,
            limits: Vec::new(),
            samples: vec![Vec::new(); plan.tests.len()],
            head_bytes: vec![0; plan.tests.len()],
        }
    }
}

impl Runner {
    fn decoder(subject: &BenchModel, plan: &Plan, cpu: &Cpu) -> Self {
        let context = plan.tests.iter().map(|test| test.length()).max().unwrap_or(1);
        let together = plan.tests.iter().map(|test| test.sequences()).find(|n| *n > 1);
        let model = || subject.model.clone();
        let mut session = Session::with_cache(model(), cpu.clone(), context, plan.cache);
        session.keep_largest(plan.largest);
        let sequences = || Sequences::new(model(), cpu.clone(), context + 1, plan.cache);
        let engine = together.map(|n| Box::new(engine(sequences(), n)));
        Runner::Decoder { session: Box::new(session), engine }
    }

    /// Runs a test once: seconds, and bytes of the head's weights read where not all logits were computed. Tokens are
    /// arbitrary; choosing them is not part of either, nor are those before the test.
    fn run(&mut self, test: Test, tokens: &[u32]) -> Result<(f64, u64), Error> {
        let ((before, tokens), (prompt, _)) = (tokens[..test.length()].split_at(test.depth), test.steps());
        let (session, engine) = match self {
            Runner::Decoder { session, engine } => (session, engine),
            Runner::Whole { model, exec, features } => {
                let batch = match *features {
                    0 => Batch::new((0..test.sequences()).map(|_| tokens)),
                    features => rows(test.sequences(), features),
                };
                let start = Instant::now();
                black_box(exec.forward(model, &batch)?.to_vec());
                return Ok((start.elapsed().as_secs_f64(), 0));
            }
        };
        if let (TestKind::Answers { tokens: new, sequences }, Some(engine)) = (test.kind, engine) {
            let prompt: Vec<u32> = before.iter().chain(&tokens[..1]).copied().collect();
            answers(engine, sequences, &prompt, 1)?;
            return Ok((answers(engine, sequences, &prompt, new)?, 0));
        }
        session.truncate(before.len());
        for piece in before[session.tokens()..].chunks(PREFILL_CHUNK) {
            session.feed(piece)?;
        }
        let (start, read) = (Instant::now(), session.largest_bytes());
        let (prompt, answer) = tokens.split_at(prompt);
        if !prompt.is_empty() {
            black_box(session.feed(prompt)?);
        }
        for token in answer.chunks(1) {
            black_box(session.feed(token)?);
        }
        Ok((start.elapsed().as_secs_f64(), session.largest_bytes() - read))
    }
}

/// So many rows of numbers in -1..1.
fn rows(count: usize, features: usize) -> Batch {
    let mut batch = Batch::default();
    crate::study::numbers(count * features).chunks(features).for_each(|row| batch.push_features(row.iter().copied()));
    batch
}

/// An engine that answers so many requests together and keeps their sequences.
fn engine(model: Sequences, sequences: usize) -> Engine {
    let settings = Settings { sequences, keep: sequences, passes: Passes::Together, ..Settings::default() };
    Engine::new(model, Arc::new(Tokenizer::bytes()), settings)
}

/// Seconds of greedy answers of so many tokens to the same prompt, given `sequences` times together. A prompt that was answered
/// before is there but for its last token, so that each pass has one token of each sequence.
fn answers(engine: &mut Engine, sequences: usize, prompt: &[u32], tokens: usize) -> Result<f64, Error> {
    let start = Instant::now();
    for _ in 0..sequences {
        engine.open(Request { prompt: prompt.to_vec(), max_tokens: tokens, ..Request::default() })?;
    }
    while engine.requests() > 0 {
        for event in engine.step() {
            if let Event::End { outcome, .. } = event {
                black_box(outcome?);
            }
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Runs all tests with all numbers of threads, once unmeasured, then in alternating order, the limits being measured after
/// each round.
///
/// # Errors
/// When a pass fails.
pub fn run(subject: &BenchModel, plan: &Plan, cpus: &[Cpu]) -> Result<Speeds, Error> {
    let mut machines: Vec<Machine> = cpus.iter().map(|cpu| Machine::new(subject, plan, cpu)).collect();
    let longest = plan.tests.iter().map(|test| test.length()).max().unwrap_or(1);
    let token = |i: usize| ((i as u64 + 1) * 2_654_435_761 % subject.vocabulary as u64) as u32;
    let tokens: Vec<u32> = (0..longest).map(token).collect();
    let cases: Vec<(usize, usize)> =
        (0..machines.len()).flat_map(|m| (0..plan.tests.len()).map(move |t| (m, t))).collect();
    for &(m, t) in &cases {
        machines[m].runner.run(plan.tests[t], &tokens)?;
    }
    let peak_rss_bytes = meter::peak_rss_bytes();
    let rapl = Rapl::open(&Rapl::root());
    for round in 0..plan.rounds {
        let order: Vec<_> = if round % 2 == 0 { cases.clone() } else { cases.iter().rev().copied().collect() };
        for (m, t) in order {
            let mut energy = rapl.as_ref().and_then(EnergyMeter::start);
            let (seconds, head_bytes) = machines[m].runner.run(plan.tests[t], &tokens)?;
            machines[m].head_bytes[t] += head_bytes;
            let joules = energy.as_mut().and_then(EnergyMeter::joules);
            machines[m].samples[t].push((seconds, joules));
        }
        for machine in &mut machines {
            machine.limits.push(limits::measure(&machine.cpu));
        }
    }
    let pass = Pass { sequences: 1, past: 0, new: 1, cache: plan.cache, head_bytes: None };
    let stored = work::count(&subject.model, pass).stored_bytes;
    let rows = cases.iter().map(|&(m, t)| row(subject, plan, &machines[m], t)).collect();
    let limits = machines.iter().map(|m| (m.cpu.pool.threads(), host::middle(&m.limits))).collect();
    Ok(Speeds { rows, limits, peak_rss_bytes, model_bytes: stored })
}

fn median(values: &[f64]) -> f64 {
    stats::median(values).unwrap_or(f64::NAN)
}

/// Seconds of a pass at the limits: reading and computing overlap, so the longer of the two counts.
fn ideal(work: &PassCost, limits: &Limits) -> (&'static str, f64) {
    let memory = work.read_bytes as f64 / (limits.memory_gbps * 1e9);
    let arithmetic =
        work.int8_ops as f64 / (limits.int8_gops * 1e9) + work.float_ops as f64 / (limits.f32_gflops * 1e9);
    if memory >= arithmetic { ("memory", memory) } else { ("arithmetic", arithmetic) }
}

/// How many of the largest logits a test computes, if not all; tokens of several sequences are fed together and get all.
fn largest(plan: &Plan, test: Test) -> Option<usize> {
    plan.largest.filter(|_| test.sequences() == 1)
}

fn row(subject: &BenchModel, plan: &Plan, machine: &Machine, t: usize) -> BenchRow {
    let test = plan.tests[t];
    let passes = test.passes(plan.cache);
    // Each pass has one product with the head; one that takes 8-bit activations is never read in part.
    let heads = passes.iter().map(|(n, _)| n * plan.rounds).sum::<usize>() as u64;
    let head_bytes = Some(machine.head_bytes[t] / heads.max(1)).filter(|bytes| *bytes > 0);
    let count = |(n, pass)| (n as f64, work::count(&subject.model, Pass { head_bytes, ..pass }));
    let passes: Vec<(f64, PassCost)> = passes.into_iter().map(count).collect();
    let samples = &machine.samples[t];
    let seconds: Vec<f64> = samples.iter().map(|(seconds, _)| *seconds).collect();
    let rates: Vec<f64> = seconds.iter().map(|seconds| test.tokens() as f64 / seconds).collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let average = mean(&rates);
    let square = rates.iter().map(|rate| (rate - average).powi(2)).sum::<f64>();
    let best = |limits: &Limits| passes.iter().map(|(n, work)| n * ideal(work, limits).1).sum::<f64>();
    let fraction = |(limits, seconds): (&Limits, &f64)| best(limits) / seconds;
    let fractions: Vec<f64> = machine.limits.iter().zip(&seconds).map(fraction).collect();
    let middle = host::middle(&machine.limits);
    let times = passes.iter().map(|(n, work)| (n * ideal(work, &middle).1, ideal(work, &middle).0));
    let (_, limit) = times.max_by(|a, b| a.0.total_cmp(&b.0)).expect("a test has passes");
    let joules: Option<Vec<f64>> = samples.iter().map(|(_, joules)| *joules).collect();
    BenchRow {
        model: subject.name.clone(),
        model_bytes: passes[0].1.stored_bytes,
        params: subject.params,
        recipe: subject.recipe,
        isa: machine.cpu.isa.name(),
        threads: machine.cpu.pool.threads(),
        test: largest(plan, test).map_or(test.name(), |k| format!("{} top{k}", test.name())),
        n: rates.len(),
        tokens_per_second: average,
        tokens_per_second_sd: (rates.len() > 1).then(|| (square / (rates.len() - 1) as f64).sqrt()),
        seconds_p50: median(&seconds),
        bytes_per_token: passes.iter().map(|(n, work)| n * work.read_bytes as f64).sum::<f64>() / test.tokens() as f64,
        limit,
        fraction_of_limit: median(&fractions),
        joules_per_token: joules.map(|joules| mean(&joules) / test.tokens() as f64),
        samples: rates,
    }
}
