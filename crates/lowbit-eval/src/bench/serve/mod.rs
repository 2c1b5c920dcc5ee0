//! Speed of a server as its clients see it: requests that arrive at random at a stated rate, and the times of their tokens.

mod client;
mod table;

pub use client::Client;

use crate::{Error, stats};
use client::Refused;
use lowbit_base::{Kind, SplitMix64, Stop};
use serde_json::{Value, json};
use std::str::FromStr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Words of prompts: each is one token of most vocabularies.
const WORDS: &str = "the of and to in is was for that with on as by at from his her it an were which are this be had not but or have \
                     one their new all first time two also more other only some after when no years may would made over such \
                     about many then them these into can most between who out up where part number";
/// Words by which the tokens of a word are found.
const SAMPLE: usize = 16;
/// Stack of the thread of a request.
const STACK: usize = 256 << 10;

/// What is asked of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Requests per second, one run each; infinite for all at once.
    pub rates: Vec<f64>,
    /// Requests of a run.
    pub requests: usize,
    /// Tokens of a prompt, about.
    pub prompt_tokens: usize,
    /// Tokens of an answer.
    pub max_tokens: usize,
    /// Requests under way at most; others wait, and their time begins when they are sent.
    pub parallel: Option<usize>,
    /// Seed of arrivals and prompts.
    pub seed: u64,
    /// What a request must keep to count for goodput.
    pub objective: Objective,
}

/// Times, in milliseconds, that a request must keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objective {
    /// From the request to the first token.
    pub ttft: Option<f64>,
    /// Per token after the first.
    pub tpot: Option<f64>,
    /// From the request to the last token.
    pub e2el: Option<f64>,
}

impl FromStr for Objective {
    type Err = String;

    /// Names and milliseconds, as `ttft:500,tpot:50`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut out = Objective::default();
        for pair in text.split([',', ' ']).filter(|pair| !pair.is_empty()) {
            let wrong =
                || format!("`{pair}` is no objective: give ttft, tpot or e2el and milliseconds, like ttft:500,tpot:50");
            let (name, limit) = pair.split_once(':').ok_or_else(wrong)?;
            let limit: f64 = limit.parse().map_err(|_| wrong())?;
            let place = match name {
                "ttft" => &mut out.ttft,
                "tpot" => &mut out.tpot,
                "e2el" => &mut out.e2el,
                _ => return Err(wrong()),
            };
            if !(limit > 0.0 && limit.is_finite()) || place.replace(limit).is_some() {
                return Err(wrong());
            }
        }
        if out == Objective::default() { Err("an objective is like ttft:500,tpot:50".into()) } else { Ok(out) }
    }
}

impl Objective {
    /// Whether a request kept it.
    fn is_kept(&self, sample: &Sample) -> bool {
        let within = |limit: Option<f64>, seconds: Option<f64>| match (limit, seconds) {
            (Some(limit), Some(seconds)) => seconds * 1e3 <= limit,
            // Of one token there is no time per further one.
            (_, _) => true,
        };
        within(self.ttft, Some(sample.ttft))
            && within(self.tpot, sample.tpot())
            && within(self.e2el, Some(sample.latency))
    }
}

/// One request that was answered; seconds from its begin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// To the first token.
    pub ttft: f64,
    /// Between tokens that follow one another.
    pub gaps: Vec<f64>,
    /// To the last token.
    pub latency: f64,
    /// Tokens of the prompt, as the server counts them; else as many as were asked for.
    pub prompt_tokens: usize,
    /// Tokens of the answer, as the server counts them; else the pieces that came.
    pub tokens: usize,
}

impl Sample {
    /// Seconds per token after the first; none where there is but one.
    pub fn tpot(&self) -> Option<f64> {
        (self.tokens > 1).then(|| (self.latency - self.ttft) / (self.tokens - 1) as f64)
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Requests per second that were to arrive.
    pub rate: f64,
    /// Seconds from the first request to the last answer.
    pub seconds: f64,
    /// Requests that were answered.
    pub samples: Vec<Sample>,
    /// Why others were not.
    pub failures: Vec<String>,
    /// Answered requests that kept the objective.
    pub good: usize,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// The server.
    pub url: String,
    /// Its model.
    pub model: String,
    /// What was asked.
    pub plan: Plan,
    /// One run per rate.
    pub runs: Vec<Run>,
    /// What a reader must know.
    pub notices: Vec<String>,
}

impl Run {
    /// A time of all requests that have it.
    fn times(&self, of: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
        self.samples.iter().filter_map(of).collect()
    }

    /// Seconds to the first tokens.
    pub fn ttft(&self) -> Vec<f64> {
        self.times(|sample| Some(sample.ttft))
    }

    /// Seconds per further token, one of each request.
    pub fn tpot(&self) -> Vec<f64> {
        self.times(Sample::tpot)
    }

    /// Seconds between tokens of all requests.
    pub fn gaps(&self) -> Vec<f64> {
        self.samples.iter().flat_map(|sample| sample.gaps.iter().copied()).collect()
    }

    fn per_second(&self, count: usize) -> f64 {
        count as f64 / self.seconds.max(1e-9)
    }
}

/// Seconds at which requests arrive: gaps are exponential, so that arrivals are a Poisson process.
fn arrivals(rate: f64, requests: usize, seed: u64) -> Vec<f64> {
    let (mut random, mut at) = (SplitMix64::new(seed), 0.0);
    let gap = |random: &mut SplitMix64| if rate.is_finite() { -(1.0 - random.unit()).ln() / rate } else { 0.0 };
    (0..requests)
        .map(|i| {
            at += if i == 0 { 0.0 } else { gap(&mut random) };
            at
        })
        .collect()
}

/// A prompt of so many words.
fn prompt(words: usize, seed: u64) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    let mut random = SplitMix64::new(seed);
    let word = |_| all[random.below(all.len() as u64) as usize];
    (0..words.max(1)).map(word).collect::<Vec<_>>().join(" ")
}

/// What all requests share.
struct Asking<'a> {
    client: &'a Client,
    model: &'a str,
    max_tokens: usize,
    /// Words of a prompt, and the tokens that were asked for.
    words: usize,
    prompt_tokens: usize,
    /// Whether the server takes `ignore_eos`.
    endless: bool,
}

impl Asking<'_> {
    fn body(&self, prompt: &str, max_tokens: usize) -> Value {
        let mut body = json!({
            "model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true},
        });
        if self.endless {
            body["ignore_eos"] = true.into();
        }
        body
    }

    /// Sends one request and waits for its answer.
    fn ask(&self, prompt: &str, max_tokens: usize) -> Result<Sample, Refused> {
        let (start, mut last) = (Instant::now(), None::<Instant>);
        let mut sample = Sample { prompt_tokens: self.prompt_tokens, ..Sample::default() };
        let mut pieces = 0;
        self.client.events(&self.body(prompt, max_tokens), |event| {
            let now = Instant::now();
            if event["choices"][0]["text"].as_str().is_some_and(|text| !text.is_empty()) {
                pieces += 1;
                match last.replace(now) {
                    None => sample.ttft = (now - start).as_secs_f64(),
                    Some(before) => sample.gaps.push((now - before).as_secs_f64()),
                }
            }
            let count = |name: &str| event["usage"][name].as_u64().map(|n| n as usize);
            sample.prompt_tokens = count("prompt_tokens").unwrap_or(sample.prompt_tokens);
            sample.tokens = count("completion_tokens").unwrap_or(sample.tokens);
        })?;
        let Some(last) = last else { return Err(Refused::Connection("the answer has no text".into())) };
        sample.latency = (last - start).as_secs_f64();
        sample.tokens = sample.tokens.max(pieces);
        Ok(sample)
    }
}

/// Counts requests under way.
struct Gate {
    free: Mutex<usize>,
    more: Condvar,
}

impl Gate {
    fn through<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.more.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        drop(free);
        let done = work();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.more.notify_one();
        done
    }
}

/// Measures a server at each rate; `note` is told how far it is.
///
/// # Errors
/// When the server does not answer, is no server of OpenAI's kind, answers no request of a run, or a stop is asked for.
pub fn run(client: &Client, plan: &Plan, stop: &Stop, mut note: impl FnMut(String)) -> Result<Served, Error> {
    let model = client.model()?;
    let mut asking = Asking {
        client,
        model: &model,
        max_tokens: plan.max_tokens,
        words: SAMPLE,
        prompt_tokens: SAMPLE,
        endless: true,
    };
    let mut notices = Vec::new();
    let warm = prompt(SAMPLE, plan.seed);
    let first = match asking.ask(&warm, 4) {
        // Servers that do not know `ignore_eos` may say so.
        Err(Refused::Status(400 | 422, _)) => {
            asking.endless = false;
            notices.push("the server takes no `ignore_eos`: answers may be shorter than asked for".to_owned());
            asking.ask(&warm, 4)
        }
        first => first,
    };
    let fail = |why: &str| Error::new(Kind::Io, format!("{}: {why}", client.url()));
    let first = first.map_err(|refused| fail(&format!("/v1/completions gives {refused}")))?;
    asking.words = (plan.prompt_tokens * SAMPLE).div_ceil(first.prompt_tokens.max(1)).max(1);
    asking.prompt_tokens = plan.prompt_tokens;
    let mut runs = Vec::new();
    for (i, rate) in plan.rates.iter().enumerate() {
        let named = table::rate(*rate);
        note(format!("rate {named}: {} requests", plan.requests));
        let run = one(&asking, plan, *rate, plan.seed.wrapping_add(i as u64), stop)?;
        if run.samples.is_empty() {
            let why = run.failures.first().map_or("nothing came", String::as_str);
            return Err(fail(&format!("no request was answered at rate {named}: {why}")));
        }
        runs.push(run);
    }
    Ok(Served { url: client.url().to_owned(), model, plan: plan.clone(), runs, notices })
}

/// One run.
fn one(asking: &Asking, plan: &Plan, rate: f64, seed: u64, stop: &Stop) -> Result<Run, Error> {
    let arrivals = arrivals(rate, plan.requests, seed);
    let gate = Gate { free: Mutex::new(plan.parallel.unwrap_or(usize::MAX)), more: Condvar::new() };
    let done: Mutex<Vec<Result<Sample, String>>> = Mutex::new(Vec::new());
    let start = Instant::now();
    thread::scope(|scope| -> Result<(), Error> {
        for (i, at) in arrivals.iter().enumerate() {
            stop.check()?;
            let wait = Duration::from_secs_f64(*at).saturating_sub(start.elapsed());
            thread::sleep(wait);
            let text = prompt(asking.words, seed ^ (i as u64 + 1) << 20);
            let (gate, done) = (&gate, &done);
            let work = move || {
                let answer =
                    gate.through(|| asking.ask(&text, asking.max_tokens)).map_err(|refused| refused.to_string());
                done.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            };
            let spawned = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
            spawned.map_err(|e| Error::new(Kind::Io, format!("a thread for a request cannot be started: {e}")))?;
        }
        Ok(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (mut samples, mut failures) = (Vec::new(), Vec::new());
    for answer in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        match answer {
            Ok(sample) => samples.push(sample),
            Err(why) => failures.push(why),
        }
    }
    failures.sort_unstable();
    let good = samples.iter().filter(|sample| plan.objective.is_kept(sample)).count();
    Ok(Run { rate, seconds, samples, failures, good })
}

/// Mean and percentiles 50, 90 and 99, in milliseconds; none without samples.
fn summary(seconds: &[f64]) -> Option<[f64; 4]> {
    let percentile = |q| stats::percentile(seconds, q);
    let values = [stats::mean(seconds)?, percentile(50.0)?, percentile(90.0)?, percentile(99.0)?];
    Some(values.map(|value| value * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_a_poisson_process_of_their_seed() {
        let (rate, n) = (4.0, 20_000);
        let times = arrivals(rate, n, 7);
        assert_eq!(times, arrivals(rate, n, 7));
        assert_ne!(times, arrivals(rate, n, 8));
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (mean, deviation) = (stats::mean(&gaps).expect("gaps"), stats::standard_deviation(&gaps).expect("gaps"));
        // Both are one over the rate in an exponential distribution.
        assert!((mean * rate - 1.0).abs() < 0.03 && (deviation * rate - 1.0).abs() < 0.05, "{mean} {deviation}");
        assert_eq!(arrivals(f64::INFINITY, 3, 1), [0.0; 3]);
    }

    #[test]
    fn objectives_and_what_keeps_them() {
        let objective: Objective = "ttft:500,tpot:50".parse().expect("an objective");
        assert_eq!(objective, Objective { ttft: Some(500.0), tpot: Some(50.0), e2el: None });
        for wrong in ["", "ttft", "ttft:x", "ttft:-1", "ttft:1,ttft:2", "itl:5", "ttft:inf"] {
            assert!(wrong.parse::<Objective>().is_err(), "{wrong}");
        }
        let sample = |ttft, latency, tokens| Sample { ttft, latency, tokens, ..Sample::default() };
        assert!(objective.is_kept(&sample(0.5, 0.95, 10)));
        assert!(!objective.is_kept(&sample(0.51, 0.95, 10)) && !objective.is_kept(&sample(0.5, 0.96, 10)));
        assert!(objective.is_kept(&sample(0.5, 0.5, 1)) && sample(0.5, 0.5, 1).tpot().is_none());
    }

    #[test]
    fn no_more_requests_are_under_way_than_may_be() {
        let (gate, under_way) = (Gate { free: Mutex::new(2), more: Condvar::new() }, Mutex::new((0, 0)));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    gate.through(|| {
                        let change = |by: i32| {
                            let mut counts = under_way.lock().expect("a lock");
                            counts.0 += by;
                            counts.1 = counts.1.max(counts.0);
                        };
                        change(1);
                        thread::sleep(Duration::from_millis(2));
                        change(-1);
                    });
                });
            }
        });
        assert_eq!(*under_way.lock().expect("a lock"), (0, 2));
    }
}
