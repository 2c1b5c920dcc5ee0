//! `lowbit bench --serve URL`

use crate::commands::Machine;
use crate::failure::Failure;
use lowbit_eval::bench::host;
use lowbit_eval::bench::serve::{self, Client, Objective, Plan};
use serde_json::json;
use std::time::Duration;

/// A server that is measured, and how.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Servers")]
pub struct ServeBench {
    /// Measure a server of OpenAI's kind as its clients see it: requests that arrive at random, times to their tokens.
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "named_model", "synthetic", "n_prompt", "n_gen", "pg", "n_depth", "repetitions", "top_k", "output"])]
    pub serve: Option<String>,
    /// Requests per second, in the mean of a Poisson process, a run each; `all` for all at once.
    #[arg(long, requires = "serve", value_delimiter = ',', default_value = "all", value_parser = rate)]
    rates: Vec<f64>,
    /// Requests of a run.
    #[arg(long, requires = "serve", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// Tokens of a prompt, about: random words.
    #[arg(long, requires = "serve", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    prompt_tokens: u32,
    /// Tokens of an answer.
    #[arg(long, requires = "serve", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    max_tokens: u32,
    /// Count the requests that keep these times, in milliseconds: ttft, tpot and e2el, like ttft:500,tpot:50.
    #[arg(long, requires = "serve", value_name = "TIMES")]
    goodput: Option<Objective>,
    /// Seed of arrivals and prompts.
    #[arg(long, requires = "serve", default_value_t = 0)]
    seed: u64,
    /// Seconds that an answer may pause before it counts as failed.
    #[arg(long, requires = "serve", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    timeout: u32,
    /// The key that the server wants.
    #[arg(long, value_name = "KEY", env = "LOWBIT_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && rate.is_finite());
    let rate = number.or((text == "all").then_some(f64::INFINITY));
    rate.ok_or_else(|| "not a number above 0, nor `all`".into())
}

impl ServeBench {
    /// Measures the server; so many requests are under way at most.
    pub fn run(&self, machine: &Machine, url: &str, parallel: Option<u16>) -> Result<(), Failure> {
        let client = Client::new(url, self.api_key.clone(), Duration::from_secs(self.timeout.into()))?;
        let plan = Plan {
            rates: self.rates.clone(),
            requests: self.requests as usize,
            prompt_tokens: self.prompt_tokens as usize,
            max_tokens: self.max_tokens as usize,
            parallel: parallel.map(usize::from),
            seed: self.seed,
            objective: self.goodput.clone().unwrap_or_default(),
        };
        machine.signals.defer();
        let served = serve::run(&client, &plan, machine.signals.stop(), |text| machine.terminal.note(text))?;
        if !machine.json {
            machine.terminal.lines(served.lines());
            return Ok(());
        }
        let host = host::facts(&machine.cpu()?);
        machine.terminal.json_object(json!({"host": host, "asked": served.asked(), "records": served.records()}))
    }
}
